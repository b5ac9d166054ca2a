"""Give every row its lasting place in the training or the test set.

    gitops-ml split

The place of a row depends on the row alone: not on the order of the rows, nor on which others are
there. A row therefore never moves when new data lands.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Schema, check_against_params, load_schema
from gitops_ml.core.settings import Params, load_params
from gitops_ml.data.ingest import read_ingested, write_table
from gitops_ml.data.problems import DataError, Problem, count


def split_columns(params: Params, schema: Schema) -> list[str]:
    """The columns that decide the side: `split.columns`, else the key, else all features."""
    return list(params.split.columns or params.data.key or schema.features())


def position(values: Sequence[Any], salt: str) -> float:
    """A number in [0, 1) that stands for some values: BLAKE2b over the salt and their JSON text.

    Raises:
        TypeError: If a value is none of the types that a table of the schema can hold.
    """
    text = json.dumps([salt, *map(_canonical, values)], ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _canonical(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float):
        return value + 0.0  # minus zero equals zero
    return value


def in_test(rows: pl.DataFrame, params: Params, schema: Schema) -> pl.Series:
    """Which rows belong to the test set.

    Args:
        rows: n rows in the schema's types.
        params: The split's method and its settings.
        schema: The schema of the rows.

    Returns:
        n booleans.

    Raises:
        DataError: If the split is by time and a row has none.
    """
    if params.split.method == "time":
        return _by_time(rows, params)
    columns = split_columns(params, schema)
    groups = rows.select(columns).unique()
    fraction, salt = params.split.test_fraction, params.split.salt
    sides = groups.with_columns(
        pl.Series("in test", [position(group, salt) < fraction for group in groups.iter_rows()])
    )
    placed = rows.select(columns).join(
        sides, on=columns, how="left", nulls_equal=True, maintain_order="left"
    )
    return placed.get_column("in test")


def _by_time(rows: pl.DataFrame, params: Params) -> pl.Series:
    time, start = params.data.time, params.split.test_from
    if time is None or start is None:
        raise SettingsError(f"{paths.PARAMS}: split by time needs data.time and split.test_from")
    undated = rows.get_column(time).null_count()
    if undated:
        message = f"{count(undated, 'row has', 'rows have')} no time to be split by"
        raise DataError([_problem(message, "undated", column=time, rows=undated)])
    return rows.get_column(time) >= start


def _problem(message: str, rule: str, rows: int, column: str | None = None) -> Problem:
    return Problem(
        file=paths.INGESTED.as_posix(), column=column, rule=rule, count=rows, message=message
    )


def split(rows: pl.DataFrame, params: Params, schema: Schema) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The training rows and the test rows, with the schema's columns.

    Raises:
        DataError: If one of the two would be empty, or a row cannot be placed.
    """
    mask = in_test(rows, params, schema)
    for side, size in (("training", int((~mask).sum())), ("test", int(mask.sum()))):
        if size == 0:
            message = (
                f"all {count(rows.height, 'row')} fall on one side, the {side} set is empty; "
                f"{_advice(rows, params, schema)}"
            )
            raise DataError([_problem(message, "empty_side", rows=rows.height)])
    table = rows.select(list(schema.columns))
    return table.filter(~mask), table.filter(mask)


def _advice(rows: pl.DataFrame, params: Params, schema: Schema) -> str:
    if params.split.method == "time":
        times = rows.get_column(params.data.time or "")
        first, last = times.min(), times.max()
        return f"`split.test_from` in {paths.PARAMS} must lie between {first!s} and {last!s}"
    columns = split_columns(params, schema)
    groups = rows.select(columns).n_unique()
    return (
        f"{', '.join(columns)} {count(groups, 'value tells', 'values tell')} them apart: change "
        f"`split.columns`, `split.test_fraction` or `split.salt` in {paths.PARAMS}"
    )


def run(_: argparse.Namespace) -> int:
    """Write `data/split/train.parquet` and `data/split/test.parquet`; 1 if that cannot be done."""
    params, schema = load_params(), load_schema()
    check_against_params(schema, params, whole=False)
    train, test = split(read_ingested(), params, schema)
    write_table(train, paths.TRAIN)
    write_table(test, paths.TEST)
    print(
        f"Split into {count(train.height, 'training row')} and {count(test.height, 'test row')} "
        f"({test.height / (train.height + test.height):.1%})"
    )
    return 0
