"""Write a first `schema.yaml` from the data that `params.yaml` points at.

    gitops-ml schema [--force]

The result is a draft for its owner to read: types, missing values, ranges and categories are what
the data shows, and each column that is kept from the model says why.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError, UsageError
from gitops_ml.core.schema import ColumnType, Schema, check_against_params
from gitops_ml.core.settings import Params, load_contract, load_params, parse_settings
from gitops_ml.data.convert import DTYPES, convert, present
from gitops_ml.data.ingest import Raw, find_files, read_raw
from gitops_ml.data.leakage import SUSPICIOUS_SKILL, skills
from gitops_ml.data.problems import DataError, Problem, count
from gitops_ml.data.validate import whole_problems

# A text column with more values, or with less than two rows per value, is not a category.
MAX_CATEGORIES = 200
# Beyond so many categories a new one is a matter of time rather than a mistake.
MANY_CATEGORIES = 20
MANY_CLASSES = 50
MARGIN = 0.1
IDENTIFIER = re.compile(r"(^|[\W_])(id|uuid|guid|key|nr|no|number|index)$", re.IGNORECASE)

HEADER = """\
# What a row is. Validation, the training matrix and the service's request model come from here.
# Inferred from {source} ({rows}): read every line, then make it yours.
#
#   type        integer | number | boolean | category | string | datetime (UTC)
#   feature     false: checked, but the model never sees it. Keep from the model what is not known
#               at the time of the prediction.
#   outcome     true: known only afterwards, so that no column is derived from it either
#   nullable    true: the value may be missing
#   all_null    allowed: a whole file may have no value
#   min, max    the bounds of an integer or a number; inferred ones leave some room
#   categories  the values that a category may hold
#   unseen      error: another value is a mistake | missing: it counts as a missing value
#   unit, description   for people; the service shows them
"""

FOOTER = """
# Conditions across columns, in SQL; a row where one is false is a mistake. For example:
#   - name: ends_after_it_starts
#     check: end_time >= start_time
#     description: What it means, for people.
rules: []
"""


@dataclass
class Draft:
    """One column of the schema to be, and what its owner should know about it."""

    name: str
    values: pl.Series
    terms: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    suspect: bool = False

    def keep_from_model(self, why: str, suspect: bool = False) -> None:
        """Set `feature: false`; the reason becomes a comment."""
        self.terms["feature"] = False
        self.notes.append(why)
        self.suspect = self.suspect or suspect

    def is_an_outcome(self, why: str, suspect: bool = False) -> None:
        """Mark what is known only afterwards: neither a feature nor what one is derived from."""
        self.terms["outcome"] = True
        self.keep_from_model(why, suspect)


def read_columns(source: Path) -> dict[str, tuple[ColumnType | None, pl.Series]]:
    """The columns of all files together, with the type that fits all values.

    Returns:
        For each column its type (None without a single value) and the values in that type.

    Raises:
        DataError: If a file cannot be read, the files have different columns, or a column holds
            what no type of the schema can.
    """
    files: dict[Path, Raw] = {}
    problems: list[Problem] = []
    for path in find_files(source):
        try:
            files[path] = read_raw(path)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    first, *others = files
    names = files[first].columns.columns
    for path in others:
        problems += _other_columns(path, files[path], first, names)
    if problems:
        raise DataError(problems)
    columns = {}
    for name in names:
        try:
            columns[name] = _read_column(name, files)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return columns


def _other_columns(path: Path, raw: Raw, first: Path, names: list[str]) -> Iterator[Problem]:
    for name in sorted(set(names) ^ set(raw.columns.columns)):
        here, there = (path, first) if name in raw.columns.columns else (first, path)
        yield Problem(
            file=path.as_posix(),
            column=name,
            rule="columns_differ",
            message=f"the column is in {here.as_posix()}, but not in {there.as_posix()}",
        )


def _read_column(name: str, files: dict[Path, Raw]) -> tuple[ColumnType | None, pl.Series]:
    kinds = {path: _kind(raw.columns.get_column(name), raw.is_text) for path, raw in files.items()}
    unknown = [path for path, kind in kinds.items() if kind == "unknown"]
    if unknown:
        dtype = files[unknown[0]].columns.get_column(name).dtype
        message = f"holds {dtype}, for which the schema has no type; flatten, convert or drop it"
        raise DataError([Problem(file=str(unknown[0]), column=name, rule="type", message=message)])
    common = _common(list(kinds.values()), all(raw.is_text for raw in files.values()))
    if common == "unknown":
        first, *others = ((path, kind) for path, kind in kinds.items() if kind is not None)
        path, kind = next(other for other in others if other[1] != first[1])
        message = f"the files do not agree on its type: {kind} here, {first[1]} in {first[0]}"
        raise DataError([Problem(file=str(path), column=name, rule="type", message=message)])
    kind = _typed(common or "string")
    parts = [part for raw in files.values() if (part := _converted(raw, name, kind)) is not None]
    return (kind if common else None), pl.concat(parts)


def _typed(kind: str) -> ColumnType:
    return next(known for known in DTYPES if known == kind)


def _kind(values: pl.Series, is_text: bool) -> str | None:
    """The type of a column in one file; None without a value, `unknown` for a nested one."""
    dtype = values.dtype
    if is_text:
        return _kind_of_text(values)
    if present(values, "string").null_count() == len(values):
        return None
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "string"
    return "datetime" if dtype == pl.Date or isinstance(dtype, pl.Datetime) else "unknown"


def _kind_of_text(values: pl.Series) -> str | None:
    if values.null_count() == len(values):
        return None
    for kind in ("boolean", "integer", "number", "datetime"):
        words = present(values, _typed(kind)).drop_nulls()
        if words.is_empty():
            continue
        # 0 and 1, yes and no may be more than two values some day; true and false are not.
        if kind == "boolean" and not words.str.to_lowercase().is_in(["true", "false"]).all():
            continue
        converted = convert(words, _typed(kind), from_text=True)
        if converted is not None and converted.null_count() == 0:
            return kind
    return "string"


def _common(kinds: list[str | None], are_text: bool) -> str | None:
    """One type for all files; None if none has a value, `unknown` if there is no such type."""
    found = {kind for kind in kinds if kind is not None}
    if found == {"integer", "number"}:
        return "number"
    if len(found) > 1:
        return "string" if are_text else "unknown"
    return next(iter(found), None)


def _converted(raw: Raw, name: str, kind: ColumnType) -> pl.Series | None:
    return convert(present(raw.columns.get_column(name), kind), kind, raw.is_text)


def draft_columns(
    columns: dict[str, tuple[ColumnType | None, pl.Series]], params: Params
) -> list[Draft]:
    """Decide on every column.

    Args:
        columns: What `read_columns` returned.
        params: Names the task, the target, the key and the time.
    """
    drafts = [_draft(name, kind, values, params) for name, (kind, values) in columns.items()]
    _mark_leaks(drafts, params)
    return drafts


def _draft(name: str, kind: ColumnType | None, values: pl.Series, params: Params) -> Draft:
    draft = Draft(name, values, {"type": kind or "string"})
    _settle_type(draft, params)
    if kind is None:
        draft.keep_from_model("no row has a value", suspect=True)
        draft.terms |= {"nullable": True, "all_null": "allowed"}
    elif values.null_count():
        draft.terms["nullable"] = True
    _settle_feature(draft, params)
    _settle_values(draft, params)
    return draft


def _settle_type(draft: Draft, params: Params) -> None:
    values, is_class = draft.values, params.task == "classification" and draft.name == params.target
    if draft.terms["type"] == "number" and is_class:
        whole = convert(values, "integer", from_text=False)
        if whole is not None and whole.null_count() == values.null_count():
            draft.values, draft.terms["type"] = whole, "integer"
    if draft.terms["type"] != "string" or (draft.name,) == params.data.key:
        return
    distinct = values.drop_nulls().n_unique()
    few = 0 < distinct <= MAX_CATEGORIES and 2 * distinct <= len(values) - values.null_count()
    if few or (is_class and 0 < distinct <= MAX_CATEGORIES):
        draft.terms["type"] = "category"


def _settle_feature(draft: Draft, params: Params) -> None:
    name, values, kind = draft.name, draft.values, draft.terms["type"]
    distinct = values.drop_nulls().n_unique()
    if name == params.target:
        draft.is_an_outcome("the target")
        draft.terms.pop("nullable", None)
        if values.null_count():
            missing = count(values.null_count(), "row has", "rows have")
            draft.notes.append(f"{missing} no value: leave them out of the data")
            draft.suspect = True
        if params.task == "classification" and distinct > MANY_CLASSES:
            draft.notes.append(f"{distinct} classes: is this a regression?")
            draft.suspect = True
    elif name in params.data.key and kind != "category":
        draft.keep_from_model("part of the key")
    elif name == params.data.time:
        draft.keep_from_model("dates the row")
    elif kind == "datetime":
        draft.keep_from_model("derive a number or a category from it to use it")
    elif kind == "string" and distinct:
        draft.keep_from_model(f"text with {distinct:,} different values")
    elif distinct == 1:
        draft.keep_from_model("the same value in every row", suspect=True)
    elif kind == "integer" and _identifies(name, values):
        draft.keep_from_model("looks like an identifier: another value in every row", suspect=True)


def _identifies(name: str, values: pl.Series) -> bool:
    """Whole numbers that never repeat, and that are counted up or have a telling name."""
    if values.null_count() or values.n_unique() < len(values):
        return False
    low, high = values.min(), values.max()
    consecutive = isinstance(low, int) and isinstance(high, int) and high - low == len(values) - 1
    return consecutive or bool(IDENTIFIER.search(name))


def _settle_values(draft: Draft, params: Params) -> None:
    values, kind = draft.values.drop_nulls(), draft.terms["type"]
    if kind == "category":
        draft.terms["categories"] = values.unique().sort().to_list()
        if len(draft.terms["categories"]) > MANY_CATEGORIES and draft.name != params.target:
            draft.terms["unseen"] = "missing"
            draft.notes.append("a new category counts as missing")
        return
    is_class = params.task == "classification" and draft.name == params.target
    if kind not in ("integer", "number") or draft.name in params.data.key or values.is_empty():
        return
    numbers = values.cast(pl.Float64).to_numpy()
    low, high = float(numbers.min()), float(numbers.max())
    if not is_class and low < high:
        low, high = outward(low, high)
    if kind == "integer":
        draft.terms |= {"min": math.floor(low), "max": math.ceil(high)}
    else:
        draft.terms |= {"min": low, "max": high}


def outward(low: float, high: float) -> tuple[float, float]:
    """Round a range outward, with a tenth of its width to spare; zero stays a bound."""
    width = high - low
    step = 10.0 ** (math.floor(math.log10(width)) - 1)
    # Rounded first, so that the noise of floats is not taken for a whole step.
    bottom = math.floor(round((low - MARGIN * width) / step, 6)) * step
    top = math.ceil(round((high + MARGIN * width) / step, 6)) * step
    if low >= 0:
        bottom = max(bottom, 0.0)
    if high <= 0:
        top = min(top, 0.0)
    return float(f"{bottom:.10g}"), float(f"{top:.10g}")


def _mark_leaks(drafts: list[Draft], params: Params) -> None:
    """Keep from the model what predicts the target alone: it is likely known only afterwards."""
    schema = Schema.model_validate({"columns": {draft.name: draft.terms for draft in drafts}})
    rows = pl.DataFrame({draft.name: draft.values for draft in drafts})
    found = skills(rows, schema, params)
    for draft in drafts:
        if found.get(draft.name, 0.0) >= SUSPICIOUS_SKILL:
            draft.is_an_outcome(
                "predicts the target all by itself: is it known in advance? Then set true, and "
                "outcome false",
                suspect=True,
            )


def write_schema(drafts: list[Draft], source: str, rows: int) -> str:
    """The text of `schema.yaml`."""
    header = HEADER.format(source=source, rows=count(rows, "row"))
    body = "\n".join(_write_column(draft) for draft in drafts)
    return f'{header}\ndescription: ""\n\ncolumns:\n{body}\n{FOOTER}'


def _write_column(draft: Draft) -> str:
    order = (
        "type",
        "feature",
        "outcome",
        "nullable",
        "all_null",
        "min",
        "max",
        "categories",
        "unseen",
    )
    lines = [f"  {_scalar(draft.name)}:"]
    for key in (key for key in order if key in draft.terms):
        value = draft.terms[key]
        if key == "categories":
            lines += _write_categories(value)
            continue
        note = f"  # {'; '.join(draft.notes)}" if key == "feature" and draft.notes else ""
        lines.append(f"    {key}: {_scalar(value)}{note}")
    if "feature" not in draft.terms and draft.notes:
        lines.insert(1, f"    # {'; '.join(draft.notes)}")
    return "\n".join(lines)


def _write_categories(values: list[str]) -> list[str]:
    flow = yaml.safe_dump(values, default_flow_style=True, allow_unicode=True, width=80)
    first, *others = flow.rstrip("\n").split("\n")
    return [f"    categories: {first}", *(f"      {line.strip()}" for line in others)]


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").rstrip("\n")


def infer(params: Params) -> tuple[str, list[Draft]]:
    """Infer the schema of `data.source`.

    Returns:
        The text of `schema.yaml`, and its columns.

    Raises:
        DataError: If the files cannot be read or do not agree.
        SettingsError: If the data does not suit `params.yaml`.
    """
    columns = read_columns(params.data.source)
    _check_names(params, list(columns))
    drafts = draft_columns(columns, params)
    rows = len(drafts[0].values)
    text = write_schema(drafts, params.data.source.as_posix(), rows)
    check_against_params(parse_settings(text, Schema, str(paths.SCHEMA)), params)
    return text, drafts


def _check_names(params: Params, columns: list[str]) -> None:
    wanted = {
        "target": (params.target,),
        "data.key": params.data.key,
        "data.time": (params.data.time,) if params.data.time else (),
        "split.columns": params.split.columns,
        "evaluate.slices": params.evaluate.slices,
    }
    problems = [
        f"{paths.PARAMS}: {key}: `{name}` is no column of {params.data.source}"
        for key, names in wanted.items()
        for name in names
        if name not in columns
    ]
    if problems:
        raise SettingsError("\n".join([*problems, f"The columns are: {', '.join(columns)}"]))


def unmet_terms(drafts: list[Draft], params: Params) -> list[str]:
    """What `contract.yaml` asks of the data that this data does not hold, for the owner to settle.

    A contract that is missing or broken is named in their place.
    """
    rows = pl.DataFrame({draft.name: draft.values for draft in drafts})
    try:
        found = whole_problems(rows, params, load_contract().data)
    except SettingsError as error:
        return [str(error)]
    return [f"{paths.CONTRACT}: data.{_term(problem.rule)}: {problem.message}" for problem in found]


def _term(rule: str) -> str:
    return "freshness_days" if rule == "freshness" else rule


def keep_old(path: Path) -> Path:
    """Move a file out of the way, to a name that is free: never lose what somebody wrote."""
    kept = path.with_name(f"{path.name}.bak")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.bak{number}")
    path.rename(kept)
    return kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--force", action="store_true", help="replace the schema that is there")


def run(options: argparse.Namespace) -> int:
    """Write `schema.yaml`; 0 if it was written."""
    if paths.SCHEMA.exists() and not options.force:
        raise UsageError(
            f"{paths.SCHEMA} exists and was left as it is; `make schema FORCE=1` replaces it and "
            "keeps the old one beside it"
        )
    params = load_params()
    text, drafts = infer(params)
    unmet = unmet_terms(drafts, params)
    if paths.SCHEMA.exists():
        print(f"The old schema is now {keep_old(paths.SCHEMA)}")
    paths.SCHEMA.write_text(text, encoding="utf-8")
    features = sum(draft.terms.get("feature", True) for draft in drafts)
    print(f"Wrote {paths.SCHEMA}: {count(len(drafts), 'column')}, {count(features, 'feature')}")
    for draft in drafts:
        if draft.suspect:
            print(f"  look at {draft.name}: {'; '.join(draft.notes)}")
    for line in unmet:
        print(f"  before `make pipeline`, settle {line}")
    return 0
