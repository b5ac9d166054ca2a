"""Rows that repeat another row under another name, or without one.

A row that is exported twice is no second observation. Under a key, equal names are an error; here
the rows are found that only a new name, or another date, tells apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.schema import SOURCE_FILE
from gitops_ml.core.settings import Params
from gitops_ml.data.problems import MAX_EXAMPLES, Problem, count
from gitops_ml.features.matrix import first_alike

TERM = "data.duplicate_rows_max"


def repeated(rows: pl.DataFrame, alike: Sequence[str]) -> pl.Series:
    """Which rows hold in some columns what a row before them holds.

    Args:
        rows: n rows.
        alike: The columns.

    Returns:
        n booleans.
    """
    return first_alike(rows, alike) != pl.int_range(rows.height, eager=True)


def told(repeats: int, rows: int, alike: Sequence[str]) -> str:
    """How many rows repeat another one, in words."""
    verb = "repeats" if repeats == 1 else "repeat"
    return (
        f"{count(repeats, 'row')} ({repeats / rows:.2%}) {verb} another row in every feature and "
        f"in `{alike[-1]}`"
    )


def duplicate_problems(
    rows: pl.DataFrame, params: Params, alike: Sequence[str], allowed: float | None
) -> list[Problem]:
    """A problem where more rows repeat another one than the contract allows.

    Args:
        rows: n rows as they were ingested, n > 0.
        params: Names the key.
        alike: The columns in which a row repeats another one; at last the target.
        allowed: The largest share of the rows; None allows any.
    """
    repeats = repeated(rows, alike)
    number = int(repeats.sum())
    if allowed is None or number <= allowed * rows.height:
        return []
    return [
        Problem(
            file=paths.INGESTED.as_posix(),
            rule="duplicate_rows",
            count=number,
            message=(
                f"{told(number, rows.height, alike)}, {paths.CONTRACT} allows {allowed:.2%} "
                f"({TERM}): land each row once; where rows are alike by nature, raise it"
            ),
            examples=tuple(_examples(rows, repeats, params.data.key, alike)),
        )
    ]


def _examples(
    rows: pl.DataFrame, repeats: pl.Series, key: Sequence[str], alike: Sequence[str]
) -> Iterator[dict[str, Any]]:
    firsts = first_alike(rows, alike)
    for row in repeats.arg_true()[:MAX_EXAMPLES]:
        again, first = rows.row(row, named=True), rows.row(firsts[row], named=True)
        name = ", ".join(f"{one}={_plain(first[one])}" for one in key) or f"row {firsts[row] + 1}"
        label = {"key": {one: _plain(again[one]) for one in key}} if key else {"row": row + 1}
        yield {**label, "value": f"as {name} in {first[SOURCE_FILE]}"}


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
