"""What has happened, once it is known: labels that arrive days or weeks after the prediction.

They come from files (.parquet or .csv) that hold the target and, to say which row it is of, either
`request_id` and, for a request of several records, `row` (from 0); or the key of `params.yaml`; or
every column that a request carries. And they come from the data that have landed since: a landed
row is known by its key where a request carries it, else by all that a request carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.schema import Column, Schema
from gitops_ml.core.settings import Params
from gitops_ml.data.convert import DTYPES, convert, present
from gitops_ml.data.ingest import Raw, find_files, read_raw
from gitops_ml.data.problems import count
from gitops_ml.monitor.live_rows import NUMBER, REQUEST

REQUEST_ID, ROW = "request_id", "row"
TRUTH = " truth"
_PLACE = " place"


class LabelError(GitopsError):
    """Labels cannot be read; the message names the file and the column."""


@dataclass(frozen=True)
class Labelled:
    """The rows of a log with what has happened.

    Attributes:
        rows: As they were, with the column TRUTH, null where it is not known.
        known: How many of them are known.
        problems: What labels could not be used, in words.
    """

    rows: pl.DataFrame
    known: int
    problems: tuple[str, ...] = ()


def with_labels(
    live: pl.DataFrame,
    schema: Schema,
    params: Params,
    inputs: Sequence[str],
    folder: Path | None,
    landed: pl.DataFrame | None,
) -> Labelled:
    """Put what has happened beside the predictions.

    Args:
        live: The rows of the log.
        schema: The types of the columns.
        params: Names the target and the key.
        inputs: What a request carries.
        folder: A folder with files of labels, or one such file; None without.
        landed: The data that have landed; None without.

    Raises:
        LabelError: If a file cannot be read, or holds neither the target nor what names a row.
    """
    rows = live.with_row_index(_PLACE)
    truth = pl.Series(TRUTH, [None] * len(live), dtype=DTYPES[schema.columns[params.target].type])
    problems: list[str] = []
    sources: list[tuple[str, pl.DataFrame, bool]] = []
    for path in [] if folder is None else _files(folder):
        sources.append((path.name, _read(path, schema, params, inputs), True))
    if landed is not None and params.target in landed.columns:
        sources.append(("the landed data", landed, False))
    named_once = rows.filter(pl.struct(REQUEST, NUMBER).is_unique())
    again = rows.filter(pl.col(REQUEST).is_not_null()).height - (
        named_once.filter(pl.col(REQUEST).is_not_null()).height
    )
    if again and any(REQUEST_ID in table.columns for _, table, _ in sources):
        problems.append(
            f"{count(again, 'prediction has', 'predictions have')} a request_id that another one "
            "has as well; no label that goes by it is theirs"
        )
    known: list[pl.DataFrame] = []
    for name, table, told in sources:
        on = _names_of_row(table, params, inputs)
        target = pl.col(params.target).alias(TRUTH)
        labels = table.filter(pl.col(params.target).is_not_null()).select(*on, target)
        said = labels.group_by(on).agg(pl.col(TRUTH).n_unique().alias("n"), pl.col(TRUTH).first())
        twice = said.filter(pl.col("n") > 1).height
        if twice and told:
            problems.append(
                f"{name}: {count(twice, 'row has', 'rows have')} labels that contradict each "
                "other; they were left out"
            )
        usable = said.filter(pl.col("n") == 1).drop("n")
        left = {REQUEST_ID: REQUEST, ROW: NUMBER}
        answered = named_once if REQUEST_ID in on else rows
        found = answered.join(
            usable, left_on=[left.get(one, one) for one in on], right_on=on, nulls_equal=True
        )
        if told:
            lost = usable.height - found.select(_unique(found, on, left)).n_unique()
            if lost:
                problems.append(
                    f"{name}: {count(lost, 'label')} without a prediction in the log that has the "
                    f"same {', '.join(on)}"
                )
        known.append(found.select(_PLACE, TRUTH))
    if known:
        every = pl.concat(known)
        said = every.group_by(_PLACE).agg(
            pl.col(TRUTH).n_unique().alias("n"), pl.col(TRUTH).first()
        )
        apart = said.filter(pl.col("n") > 1).height
        if apart:
            problems.append(
                f"{count(apart, 'prediction has', 'predictions have')} two labels, of two files, "
                "that contradict each other; they were left out"
            )
        joined = rows.join(said.filter(pl.col("n") == 1).drop("n"), on=_PLACE, how="left")
        truth = joined.sort(_PLACE).get_column(TRUTH)
    return Labelled(live.with_columns(truth), len(truth) - truth.null_count(), tuple(problems))


def _unique(found: pl.DataFrame, on: Sequence[str], left: Mapping[str, str]) -> list[str]:
    return [name for name in (left.get(one, one) for one in on) if name in found.columns]


def _files(folder: Path) -> list[Path]:
    if folder.is_dir() and not any(folder.iterdir()):
        return []
    return find_files(folder)


def _names_of_row(table: pl.DataFrame, params: Params, inputs: Sequence[str]) -> list[str]:
    """The columns that say which row of the log a label is of; none if nothing does."""
    if REQUEST_ID in table.columns:
        return [REQUEST_ID, ROW]
    if params.data.key and set(params.data.key) <= set(inputs) & set(table.columns):
        return list(params.data.key)
    return list(inputs) if set(inputs) <= set(table.columns) else []


def _read(path: Path, schema: Schema, params: Params, inputs: Sequence[str]) -> pl.DataFrame:
    """The columns of a file of labels that are needed, in the schema's types."""
    raw = read_raw(path)
    names = raw.columns.columns
    if params.target not in names:
        raise LabelError(f"{path}: has no column `{params.target}`, the target of {paths.PARAMS}")
    if REQUEST_ID in names and ROW not in names:
        raw = Raw(
            raw.columns.with_columns(pl.lit("0" if raw.is_text else 0).alias(ROW)), raw.is_text
        )
    on = _names_of_row(raw.columns, params, inputs)
    if not on:
        key = f"the key ({', '.join(params.data.key)}), or " if params.data.key else ""
        raise LabelError(
            f"{path}: says of no row which prediction it is of; it needs the column "
            f"`{REQUEST_ID}` (and `{ROW}`), or {key}every column that a request carries"
        )
    columns = {
        REQUEST_ID: Column(type="string", feature=False),
        ROW: Column(type="integer", feature=False),
        **schema.columns,
    }
    return pl.DataFrame([_typed(path, raw, name, columns[name]) for name in [*on, params.target]])


def _typed(path: Path, raw: Raw, name: str, column: Column) -> pl.Series:
    values = present(raw.columns.get_column(name), column.type)
    converted = convert(values, column.type, raw.is_text)
    bad = None if converted is None else converted.is_null() & ~values.is_null()
    if converted is None or (bad is not None and bad.any()):
        found = values.dtype if converted is None or bad is None else repr(values.filter(bad)[0])
        raise LabelError(f"{path}: column `{name}`: must hold {column.type}, found {found}")
    return converted
