"""Hold every row of the data, and every column derived from it, against its declaration.

    gitops-ml validate

A derived column is held against its declaration, and against what a service needs: that its
function takes no row and one row too, and gives a row the same value alone as among others, here as
in another process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.schema import SOURCE_FILE, Schema, check_against_params
from gitops_ml.core.settings import Params, load_contract
from gitops_ml.data import validate
from gitops_ml.data.problems import MAX_EXAMPLES, Problem
from gitops_ml.features.derive import (
    Derivation,
    Derived,
    DerivedValueError,
    Values,
    as_text,
    load_derivation,
)
from gitops_ml.features.duplicates import duplicate_problems
from gitops_ml.features.matrix import alike_columns, sources, with_derived
from gitops_ml.features.repeat import RepeatError, derive_elsewhere

RULE_PREFIX = "derived."
ROWS_ALONE = 50
_ELSEWHERE_RULE = RULE_PREFIX + "elsewhere"
_ELSEWHERE = "in another process (another folder, time zone and order of rows)"
_OWN_ROW = (
    "a value must depend on its own row only, not on other rows, earlier calls, chance, the local "
    "time, `hash()` or the current folder"
)


def derived_problems(
    rows: pl.DataFrame, derivation: Derivation, skipped: frozenset[str] = frozenset()
) -> list[Problem]:
    """What derived columns do wrong; one that others depend on is reported, these are left out.

    Args:
        rows: The ingested table.
        derivation: The derived columns.
        skipped: Columns that nothing can be derived from, since they are wrong already.
    """
    usable = [source for source in derivation.sources if source.name not in skipped]
    given = sources(rows, Derivation((), tuple(usable)))
    problems: list[Problem] = []
    for column in derivation.columns:
        if not given.keys() >= set(column.inputs):
            continue
        try:
            values = column.compute(given, rows.height)
        except DerivedValueError as error:
            problems += _located(error, rows)
            continue
        found = _service_problem(column, given, values, rows)
        if found is None:
            given[column.name] = values
        else:
            problems.append(found)
    return problems


def _located(error: DerivedValueError, rows: pl.DataFrame) -> Iterator[Problem]:
    """One problem for every file that has rows at fault."""
    rule = RULE_PREFIX + error.rule
    if not error.rows:
        message = f"{error.where}: {error.problem}"
        yield _of_table(error.column, rule, rows.height, message)
        return
    for file, places, examples in _by_file(rows, error.rows, error.example):
        yield Problem(
            file=file,
            column=error.column,
            rule=rule,
            count=len(places),
            message=f"{error.where}: {error.told(len(places))}",
            examples=examples,
        )


def _by_file(
    rows: pl.DataFrame, places: Sequence[int], shown: Callable[[int], dict[str, str]]
) -> Iterator[tuple[str, list[int], tuple[dict[str, Any], ...]]]:
    """The rows at fault by the file that they come from, with the first few as people see them."""
    numbered = _numbered(rows).with_row_index("place")[list(places)]
    for (file,), group in numbered.group_by(SOURCE_FILE, maintain_order=True):
        examples = [
            {"row": number, "value": shown(place)}
            for place, number in group.head(MAX_EXAMPLES).select("place", "row").iter_rows()
        ]
        yield str(file), group["place"].to_list(), tuple(examples)


def _numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """For each row its file, and its number in it, from 1."""
    return rows.select(SOURCE_FILE, (pl.int_range(pl.len()).over(SOURCE_FILE) + 1).alias("row"))


def _of_table(column: str, rule: str, number: int, message: str) -> Problem:
    file = paths.INGESTED.as_posix()
    return Problem(file=file, column=column, rule=rule, count=number, message=message)


def _service_problem(
    column: Derived, given: Mapping[str, Values], values: Values, rows: pl.DataFrame
) -> Problem | None:
    """What would go wrong in a service, which asks for few rows at a time."""
    try:
        column.compute({name: given[name][:0] for name in column.inputs}, 0)
    except DerivedValueError as error:
        message = f"{error.where}: for a table without rows: {error.problem}"
        return _of_table(column.name, RULE_PREFIX + "no_rows", rows.height, message)
    places = np.linspace(0, rows.height - 1, min(rows.height, ROWS_ALONE)).astype(int).tolist()
    numbered = _numbered(rows)[places]
    for place, (file, number) in zip(places, numbered.iter_rows(), strict=True):
        alone = {name: given[name][place : place + 1] for name in column.inputs}
        held = {name: as_text(array[0]) for name, array in alone.items()}
        example: dict[str, Any] = {"row": number, "value": held}
        try:
            (value,) = column.compute(alone, 1)
        except DerivedValueError as error:
            message = f"{error.where}: for one row alone: {error.told(1)}"
        else:
            if _same(value, values[place]):
                continue
            message = (
                f"{column.where}: a row alone gets {as_text(value)}, among others "
                f"{as_text(values[place])}; a value must depend on its own row only, not on the "
                "others, on chance or on the clock"
            )
        return Problem(
            file=file,
            column=column.name,
            rule=RULE_PREFIX + "one_row",
            message=message,
            examples=(example,),
        )
    return None


def repeated_problems(root: Path, rows: pl.DataFrame, derivation: Derivation) -> list[Problem]:
    """The columns that another process derives otherwise, but for those that rest on such a one.

    Args:
        root: The project.
        rows: The ingested table with its derived columns.
        derivation: The derived columns.

    Raises:
        RepeatError: If the other process fails elsewhere than in a function.
    """
    if not derivation.columns:
        return []
    where = {column.name: column.where for column in derivation.columns}
    try:
        again = derive_elsewhere(root, rows, derivation)
    except RepeatError as error:
        if error.column is None:
            raise
        message = f"{where[error.column]}: {_ELSEWHERE}: {error}; {_OWN_ROW}"
        return [_of_table(error.column, _ELSEWHERE_RULE, rows.height, message)]
    problems: list[Problem] = []
    differing: set[str] = set()
    for column in derivation.columns:
        differs = rows[column.name].ne_missing(again[column.name])
        if not differs.any():
            continue
        if not differing & set(column.inputs):
            problems += _differing(column, rows, again[column.name], differs)
        differing.add(column.name)
    return problems


def _differing(
    column: Derived, rows: pl.DataFrame, there: pl.Series, differs: pl.Series
) -> Iterator[Problem]:
    def held(place: int) -> dict[str, str]:
        return {name: as_text(rows[name][place]) for name in (*column.inputs, column.name)}

    here = rows[column.name]
    for file, places, examples in _by_file(rows, differs.arg_true().to_list(), held):
        first = places[0]
        values = f"{as_text(here[first])} here, {as_text(there[first])} {_ELSEWHERE}"
        yield Problem(
            file=file,
            column=column.name,
            rule=_ELSEWHERE_RULE,
            count=len(places),
            message=f"{column.where}: a row gets {values}; {_OWN_ROW}",
            examples=examples,
        )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)


def check(
    rows: pl.DataFrame, params: Params, schema: Schema, problems: list[Problem]
) -> validate.Checked:
    """Add the derived columns, and rows that repeat others, to what `validate` found of the data.

    Raises:
        GitopsError: If the user's code cannot be loaded or a declaration is wrong.
    """
    derivation = load_derivation(Path(), schema, params.target)
    extended = derivation.extend(schema)
    check_against_params(extended, params)
    wrong = frozenset(problem.column for problem in problems if problem.column is not None)
    with np.errstate(all="ignore"):  # NaN and infinity are found by the declarations
        found = derived_problems(rows, derivation, wrong)
    alike = alike_columns(schema.features(), derivation.inputs(schema), params)
    found += duplicate_problems(rows, params, alike, load_contract().data.duplicate_rows_max)
    if problems or found:
        return validate.Checked(rows, extended, [*problems, *found])
    derived = with_derived(rows, derivation)
    return validate.Checked(derived, extended, repeated_problems(Path(), derived, derivation))


def run(options: argparse.Namespace) -> int:
    """Validate the ingested table with its derived columns; 1 if something is wrong."""
    return validate.run(options, check)
