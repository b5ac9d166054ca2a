"""The feature matrix of a whole table; the same numbers as `Features.from_records`, by column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.core.errors import GitopsError
from gitops_ml.features.encode import UNSEEN, Feature, Features, Matrix


class TableError(GitopsError):
    """A table cannot be used; the message names the file or column and is meant for people."""


def read_table(path: Path, columns: Iterable[str]) -> pl.DataFrame:
    """Read a parquet file that must hold certain columns and at least one row.

    Raises:
        TableError: If the file is missing or unreadable, lacks a column or is empty.
    """
    try:
        frame = pl.read_parquet(path)
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file; run `make pipeline` to make it") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path}: cannot be read as parquet: {error}") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise TableError(f"{path}: has no column {', '.join(missing)}")
    if frame.is_empty():
        raise TableError(f"{path}: has no rows")
    return frame


def matrix_of(frame: pl.DataFrame, features: Features) -> Matrix:
    """Encode a table.

    Args:
        frame: n rows with at least the feature columns, in the schema's types.
        features: What to encode, in order.

    Returns:
        Shape (n, number of features).

    Raises:
        TableError: With one line for every column that is missing or holds values of another type.
    """
    matrix = np.empty((frame.height, len(features.items)), dtype=np.float32)
    problems = []
    for place, feature in enumerate(features.items):
        try:
            matrix[:, place] = _encode(frame, feature)
        except TableError as error:
            problems.append(str(error))
    if problems:
        raise TableError("\n".join(problems))
    return matrix


def _encode(frame: pl.DataFrame, feature: Feature) -> NDArray[np.float64]:
    if feature.name not in frame.columns:
        raise TableError(f"column `{feature.name}`: is missing")
    column = frame.get_column(feature.name)
    codes = feature.codes()
    if column.dtype != pl.Null and not _suits(column.dtype, feature.type):
        raise TableError(
            f"column `{feature.name}`: holds {column.dtype}, but the model takes {feature.type}"
        )
    if codes is not None:
        column = column.cast(pl.String).replace_strict(
            list(codes), list(codes.values()), default=UNSEEN, return_dtype=pl.Float64
        )
        return column.fill_null(UNSEEN).to_numpy()
    # Through float64, as a Python number goes, so that both paths round alike.
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _suits(dtype: pl.DataType, kind: str) -> bool:
    if kind == "category":
        return dtype in (pl.String, pl.Categorical, pl.Enum)
    if kind == "boolean":
        return dtype == pl.Boolean
    return dtype.is_numeric()


def row_groups(frame: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.int64] | None:
    """Number the rows by what they hold in some columns: equal rows get equal numbers.

    Returns:
        Shape (n,); None when there are no columns, so that every row stands alone.
    """
    if not columns:
        return None
    return frame.select(pl.struct(columns).rank("dense")).to_series().cast(pl.Int64).to_numpy()
