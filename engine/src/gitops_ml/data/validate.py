"""Hold every row against `schema.yaml`, and the data as a whole against `contract.yaml`.

    gitops-ml validate

All that is wrong is found in one run and reported together, in `reports/validation.json` and, for
people, `reports/validation.html`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.file_hash import sha256_of
from gitops_ml.core.landed import PARTITION_FILE
from gitops_ml.core.schema import (
    SOURCE_FILE,
    Column,
    Rule,
    Schema,
    check_against_params,
    load_schema,
)
from gitops_ml.core.settings import DataTerms, Params, load_contract, load_params
from gitops_ml.data.convert import DTYPES
from gitops_ml.data.freshness import freshness, time_column
from gitops_ml.data.ingest import read_ingested
from gitops_ml.data.page import render
from gitops_ml.data.problems import (
    MAX_EXAMPLES,
    DataError,
    Problem,
    count,
    dump,
    print_problems,
    write_json,
)
from gitops_ml.data.profile import make_profile

UNIQUE_KEY = "unique_key"
RULE_PREFIX = "rule."
NOT_NULL = "not_nullable"  # pandera's name
STALE = "run `make pipeline` to read the files anew"

_SHAPES = {
    SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME: "missing_column",
    SchemaErrorReason.COLUMN_NOT_IN_SCHEMA: "unexpected_column",
    SchemaErrorReason.WRONG_DATATYPE: "type",
}


@dataclass(frozen=True)
class Broken:
    """A check that some rows break: its rule, the column, and which rows."""

    rule: str
    column: str | None
    mask: pl.Series


def check_rules(schema: Schema) -> None:
    """Make sure that every rule is SQL and gives true or false for the schema's columns.

    Raises:
        SettingsError: With one line for every rule that does not.
    """
    empty = pl.LazyFrame(schema={name: DTYPES[c.type] for name, c in schema.columns.items()})
    problems = []
    for rule in schema.rules:
        where = f"{paths.SCHEMA}: rules.{rule.name}: `{rule.check}`"
        try:
            (dtype,) = empty.select(pl.sql_expr(rule.check)).collect_schema().dtypes()
        except pl.exceptions.PolarsError as error:
            problems.append(f"{where}: {str(error).strip().partition(chr(10))[0]}")
            continue
        if dtype != pl.Boolean:
            problems.append(f"{where}: must be true or false, but gives {dtype}")
    if problems:
        raise SettingsError("\n".join(problems))


def table_schema(schema: Schema, key: tuple[str, ...]) -> pa.DataFrameSchema:
    """The pandera schema of the ingested table."""
    columns = {name: _table_column(column) for name, column in schema.columns.items()}
    columns[SOURCE_FILE] = pa.Column(pl.String)
    checks = [_rule_check(rule) for rule in schema.rules]
    if key:
        checks.append(_check(pl.struct(key).is_unique(), UNIQUE_KEY))
    return pa.DataFrameSchema(columns, checks=checks, strict=True)


def _table_column(column: Column) -> pa.Column:
    checks = []
    if column.min is not None:
        checks.append(pa.Check.ge(column.min, name="min", n_failure_cases=1))
    if column.max is not None:
        checks.append(pa.Check.le(column.max, name="max", n_failure_cases=1))
    if column.categories is not None and column.unseen == "error":
        checks.append(pa.Check.isin(column.categories, name="categories", n_failure_cases=1))
    return pa.Column(DTYPES[column.type], nullable=column.nullable, checks=checks)


def _rule_check(rule: Rule) -> pa.Check:
    return _check(pl.sql_expr(rule.check), RULE_PREFIX + rule.name)


def _check(condition: pl.Expr, name: str) -> pa.Check:
    """A check over whole rows; one whose condition is null passes."""

    def apply(data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.with_columns(condition.alias(name)).select(name)

    return pa.Check(apply, name=name, n_failure_cases=1)


def row_problems(rows: pl.DataFrame, schema: Schema, key: tuple[str, ...]) -> list[Problem]:
    """What single rows, or rows together, do wrong: one problem per file, column and rule.

    Raises:
        DataError: If the table has other columns or types than the schema.
        SettingsError: If a rule of the schema cannot be worked out for these rows.
    """
    try:
        table_schema(schema, key).validate(rows, lazy=True)
    except SchemaErrors as error:
        errors = error.schema_errors
    else:
        errors = []
    if shape := [problem for error in errors for problem in _shape_problems(error, rows)]:
        raise DataError(shape)
    empty = empty_columns(rows, schema)
    problems = [all_null_problem(rows, file, column) for file, column in empty]
    for broken in map(_broken, errors):
        for problem in _located(broken, rows, schema, key):
            if broken.rule != "null" or (problem.file, problem.column) not in empty:
                problems.append(problem)
    return problems


def _shape_problems(error: SchemaError, rows: pl.DataFrame) -> Iterator[Problem]:
    """The table is not of the schema's shape, which means that it is older than the schema."""
    rule = _SHAPES.get(error.reason_code)
    if rule is None:
        return
    column = error.schema.name if rule == "type" else str(error.failure_cases)
    messages = {
        "missing_column": f"the column is missing, but {paths.SCHEMA} declares it",
        "unexpected_column": f"the column is not in {paths.SCHEMA}",
        "type": f"holds {error.failure_cases}, which is not the type in {paths.SCHEMA}",
    }
    yield Problem(
        file=paths.INGESTED.as_posix(),
        column=column,
        rule=rule,
        count=rows.height,
        message=f"{messages[rule]}; {STALE}",
    )


def _broken(error: SchemaError) -> Broken:
    name = error.check if isinstance(error.check, str) else error.check.name
    if error.reason_code == SchemaErrorReason.CHECK_ERROR:
        where = f"{paths.SCHEMA}: {name.replace(RULE_PREFIX, 'rules.')}"
        raise SettingsError(f"{where}: cannot be worked out: {error.failure_cases}")
    mask = ~error.check_output.to_series()
    return Broken("null" if name == NOT_NULL else name, error.schema.name, mask)


def _located(
    broken: Broken, rows: pl.DataFrame, schema: Schema, key: tuple[str, ...]
) -> Iterator[Problem]:
    """One problem for every file that has rows which break the check."""
    numbered = rows.with_columns((pl.int_range(pl.len()).over(SOURCE_FILE) + 1).alias("row number"))
    failing = numbered.filter(broken.mask)
    for (file,), group in failing.group_by(SOURCE_FILE, maintain_order=True):
        if broken.rule == UNIQUE_KEY:
            examples = _key_examples(group, failing, key)
        else:
            columns = _columns_of(broken, schema)
            examples = [
                _example(row, key, columns)
                for row in group.head(MAX_EXAMPLES).iter_rows(named=True)
            ]
        yield Problem(
            file=str(file),
            column=broken.column or (", ".join(key) if broken.rule == UNIQUE_KEY else None),
            rule=broken.rule,
            count=group.height,
            message=_message(broken, schema, group),
            examples=tuple(examples),
        )


def _columns_of(broken: Broken, schema: Schema) -> list[str]:
    """The columns whose values explain the problem."""
    if broken.rule == "null":
        return []
    if broken.column is not None:
        return [broken.column]
    (rule,) = (rule for rule in schema.rules if RULE_PREFIX + rule.name == broken.rule)
    return list(dict.fromkeys(pl.sql_expr(rule.check).meta.root_names()))


def _example(row: dict[str, Any], key: tuple[str, ...], columns: list[str]) -> dict[str, Any]:
    example: dict[str, Any] = (
        {"key": {name: _plain(row[name]) for name in key}} if key else {"row": row["row number"]}
    )
    if len(columns) == 1:
        example["value"] = _plain(row[columns[0]])
    elif columns:
        example["value"] = {name: _plain(row[name]) for name in columns}
    return example


def _key_examples(
    group: pl.DataFrame, failing: pl.DataFrame, key: tuple[str, ...]
) -> list[dict[str, Any]]:
    first = group.select(key).unique(maintain_order=True).head(MAX_EXAMPLES)
    where = failing.join(first, on=key, how="semi", nulls_equal=True)
    found = where.group_by(key, maintain_order=True).agg(
        pl.len().alias("rows"), pl.col(SOURCE_FILE).unique().sort().alias("files")
    )
    return [
        {
            "key": {name: _plain(row[name]) for name in key},
            "value": f"{count(row['rows'], 'row')} in {', '.join(row['files'])}",
        }
        for row in found.iter_rows(named=True)
    ]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _message(broken: Broken, schema: Schema, group: pl.DataFrame) -> str:
    number = group.height
    if broken.rule == UNIQUE_KEY:
        return f"{count(number, 'row')} whose key is not unique"
    if broken.rule == "null":
        return f"{count(number, 'value is', 'values are')} missing"
    if broken.column is None:
        (rule,) = (rule for rule in schema.rules if RULE_PREFIX + rule.name == broken.rule)
        told = f": {rule.description}" if rule.description else ""
        return f"{count(number, 'row breaks', 'rows break')} `{rule.check}`{told}"
    column = schema.columns[broken.column]
    if broken.rule == "categories":
        values = group.get_column(broken.column).value_counts(sort=True)
        named = ", ".join(repr(value) for value, _ in values.head(MAX_EXAMPLES).iter_rows())
        unknown = count(values.height, "value is", "values are")
        return f"{unknown} not among the schema's categories, in {count(number, 'row')}: {named}"
    than = f"below {column.min:g}" if broken.rule == "min" else f"above {column.max:g}"
    return f"{count(number, 'value')} {than}" + (f" {column.unit}" if column.unit else "")


def empty_columns(rows: pl.DataFrame, schema: Schema) -> set[tuple[str, str]]:
    """The files that have no value in a column of which they must have some, with the column.

    The partitions of one landed file or table count as one: a few late rows prove nothing.
    """
    names = [name for name, column in schema.columns.items() if column.all_null == "error"]
    whole = pl.col(SOURCE_FILE).str.replace(PARTITION_FILE, "/$1").alias("landed as")
    empty = rows.group_by(whole).agg(pl.col(names).is_null().all(), pl.col(SOURCE_FILE).unique())
    return {
        (file, name)
        for files, *flags in empty.select(SOURCE_FILE, *names).iter_rows()
        for name, flag in zip(names, flags, strict=True)
        if flag
        for file in files
    }


def all_null_problem(rows: pl.DataFrame, file: str, column: str) -> Problem:
    """Say that a file has no value in a column."""
    number = rows.get_column(SOURCE_FILE).eq(file).sum()
    return Problem(
        file=file,
        column=column,
        rule="all_null",
        count=int(number),
        message=f"the column has no value in any of {count(int(number), 'row')}; if that can be, "
        f"set `all_null: allowed` in {paths.SCHEMA}",
    )


def whole_problems(rows: pl.DataFrame, params: Params, terms: DataTerms) -> list[Problem]:
    """What is wrong with the data as a whole: too few rows, or too old.

    How their number changed is the gate's to judge: only it knows what they change.

    Raises:
        SettingsError: If freshness is asked for and the data has no time.
    """
    problems = []
    if rows.height < terms.rows_min:
        message = f"{count(rows.height, 'row')}; {paths.CONTRACT} asks for {terms.rows_min:,}"
        problems.append(_whole("rows_min", rows.height, message))
    if terms.freshness_days is not None:
        time = time_column(params)
        too_old = freshness(rows.get_column(time), params).too_old(terms.freshness_days)
        if too_old:
            problems.append(_whole("freshness", rows.height, too_old, time))
    return problems


def _whole(rule: str, number: int, message: str, column: str | None = None) -> Problem:
    return Problem(
        file=paths.INGESTED.as_posix(), column=column, rule=rule, count=number, message=message
    )


def validate(
    rows: pl.DataFrame,
    params: Params,
    schema: Schema,
    terms: DataTerms,
) -> list[Problem]:
    """Find everything that is wrong with the ingested table.

    Args:
        rows: The table as `ingest` wrote it.
        params: Names the key and the time.
        schema: What a row is.
        terms: What the data as a whole must hold.

    Returns:
        The problems, by file and column; none if the data is accepted.

    Raises:
        SettingsError: If a rule of the schema, or a term, cannot be applied.
    """
    check_rules(schema)
    try:
        problems = row_problems(rows, schema, params.data.key)
    except DataError as error:
        return list(error.problems)
    problems += whole_problems(rows, params, terms)
    return sorted(problems, key=lambda p: (p.file, p.column or "", p.rule))


def _misshapen(problems: list[Problem]) -> bool:
    """Whether the table has other columns or types than the schema, so that no more can be said."""
    return any(problem.rule in _SHAPES.values() for problem in problems)


def _write_reports(rows: pl.DataFrame, problems: list[Problem], files: list[str]) -> None:
    report = {
        "passed": not problems,
        "rows": rows.height,
        "files": files,
        "problem_count": len(problems),
        "problems": dump(problems),
    }
    write_json(paths.VALIDATION_REPORT, report)
    paths.VALIDATION_PAGE.write_text(render(problems, rows.height, files), encoding="utf-8")


@dataclass(frozen=True)
class Checked:
    """The data with all that was found.

    Attributes:
        rows: The table; with derived columns where there are any.
        schema: The schema of these rows.
        problems: What is wrong.
    """

    rows: pl.DataFrame
    schema: Schema
    problems: list[Problem]


# Looks at more than the schema says: given the rows, params, schema and problems found so far.
Check = Callable[[pl.DataFrame, Params, Schema, list[Problem]], Checked]


def run(_: argparse.Namespace, check: Check | None = None) -> int:
    """Write the reports and, if nothing is wrong, the data's profile; 1 if something is."""
    params, schema, terms = load_params(), load_schema(), load_contract().data
    check_against_params(schema, params, whole=check is None)
    rows = read_ingested()
    data_sha256 = sha256_of(paths.INGESTED)
    problems = validate(rows, params, schema, terms)
    checked = Checked(rows, schema, problems)
    if check is not None and not _misshapen(problems):
        checked = check(rows, params, schema, problems)
    files = rows.get_column(SOURCE_FILE).unique().sort().to_list()
    _write_reports(rows, checked.problems, files)
    if checked.problems:
        print_problems("validate", checked.problems, paths.VALIDATION_PAGE)
        return 1
    profile = make_profile(checked.rows, checked.schema, data_sha256)
    write_json(paths.DATA_PROFILE, profile.model_dump(mode="json"))
    print(f"Accepted {count(rows.height, 'row')} from {count(len(files), 'file')}")
    return 0
