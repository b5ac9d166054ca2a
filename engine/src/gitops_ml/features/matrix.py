"""The feature matrix of a whole table; the same numbers as `Features.from_records`, by column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.schema import ColumnType
from gitops_ml.core.settings import Params
from gitops_ml.features.derive import Derivation, Source, Values
from gitops_ml.features.encode import UNSEEN, Feature, Features, Matrix

# Above this share of rows that are alike, rows that a key names are so by nature.
ALIKE_BY_NATURE = 0.1

_PLACE = " place"

_DERIVED: dict[ColumnType, type[pl.DataType]] = {
    "number": pl.Float64,
    "integer": pl.Int64,
    "boolean": pl.Boolean,
    "category": pl.String,
}


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


def matrix_of(
    frame: pl.DataFrame, features: Features, held: frozenset[str] = frozenset()
) -> Matrix:
    """Encode a table.

    Args:
        frame: n rows with at least the columns `features.inputs`, in the schema's types.
        features: What to encode, in order.
        held: Derived columns that the table holds, and that are taken from there.

    Returns:
        Shape (n, number of features).

    Raises:
        TableError: With one line for every column that is missing or holds values of another type.
        DerivedValueError: If a column cannot be derived.
    """
    matrix = np.empty((frame.height, len(features.items)), dtype=np.float32)
    problems = []
    for place, feature in enumerate(features.given):
        try:
            matrix[:, place] = _encode(frame, feature)
        except TableError as error:
            problems.append(str(error))
    if problems:
        raise TableError("\n".join(problems))
    if features.derivation.columns:
        columns = features.derived_numbers(derive(frame, features.derivation, held))
        for place, numbers in enumerate(columns, start=len(features.given)):
            matrix[:, place] = np.array(numbers, dtype=np.float32)
    return matrix


def derive(
    frame: pl.DataFrame, derivation: Derivation, held: frozenset[str] = frozenset()
) -> dict[str, Values]:
    """Derive all columns for the rows of a table.

    Args:
        frame: n rows with at least the sources of the derivation, in the schema's types.
        derivation: What to derive.
        held: Derived columns whose values are those of the table; others are derived from them.

    Returns:
        An array of n values for each derived column.

    Raises:
        TableError: If a source is missing, of another type, or lacks values that it must have.
        DerivedValueError: If a function raises, or gives what is not declared.
    """
    with np.errstate(all="ignore"):  # NaN and infinity are found by the declarations
        given = sources(frame, derivation)
        for one in derivation.columns:
            if one.name in held:
                source = Source(one.name, one.column.type, one.column.nullable)
                given[one.name] = _array(frame, source)
        return derivation.compute(given, frame.height)


def sources(frame: pl.DataFrame, derivation: Derivation) -> dict[str, Values]:
    """What the functions are given: an array of n values for each source; raises as `derive`."""
    given = {}
    for source in derivation.sources:
        given[source.name] = _array(frame, source)
        given[source.name].setflags(write=False)
    return given


def _array(frame: pl.DataFrame, source: Source) -> Values:
    column = _column(frame, source.name, source.type)
    if not source.nullable and column.null_count():
        row = column.is_null().arg_true()[0]
        raise TableError(f"column `{source.name}`: row {row + 1} has no value, but must have one")
    if source.type == "number" or (source.type == "integer" and source.nullable):
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
    if source.type == "integer":
        return column.cast(pl.Int64).to_numpy().copy()
    if source.type == "datetime":
        moments = column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)))
        return moments.dt.replace_time_zone(None).to_numpy().copy()
    if source.type == "boolean" and not source.nullable:
        return column.cast(pl.Boolean).to_numpy().copy()
    kind = pl.Boolean if source.type == "boolean" else pl.String
    return np.array([*column.cast(kind).to_list(), None], dtype=object)[:-1]


def with_derived(frame: pl.DataFrame, derivation: Derivation) -> pl.DataFrame:
    """The table with the derived columns behind its own; raises as `derive`."""
    if not derivation.columns:
        return frame
    values = derive(frame, derivation)
    return frame.with_columns(
        _series(column.name, column.column.type, values[column.name])
        for column in derivation.columns
    )


def _series(name: str, kind: ColumnType, values: Values) -> pl.Series:
    if values.dtype.kind == "f":
        return pl.Series(name, values, dtype=pl.Float64).fill_nan(None).cast(_DERIVED[kind])
    return pl.Series(name, values.tolist(), dtype=_DERIVED[kind])


def _encode(frame: pl.DataFrame, feature: Feature) -> NDArray[np.float64]:
    column = _column(frame, feature.name, feature.type)
    codes = feature.codes()
    if codes is not None:
        column = column.cast(pl.String).replace_strict(
            list(codes), list(codes.values()), default=UNSEEN, return_dtype=pl.Float64
        )
        return column.fill_null(UNSEEN).to_numpy()
    # Through float64, as a Python number goes, so that both paths round alike.
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _column(frame: pl.DataFrame, name: str, kind: str) -> pl.Series:
    if name not in frame.columns:
        raise TableError(f"column `{name}`: is missing")
    column = frame.get_column(name)
    if column.dtype != pl.Null and not _suits(column.dtype, kind):
        raise TableError(f"column `{name}`: holds {column.dtype}, but the model takes {kind}")
    return column


def _suits(dtype: pl.DataType, kind: str) -> bool:
    if kind in ("category", "string"):
        return dtype in (pl.String, pl.Categorical, pl.Enum)
    if kind == "datetime":
        return isinstance(dtype, pl.Datetime)
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


def alike_columns(
    features: Iterable[str], inputs: Iterable[str], params: Params
) -> tuple[str, ...]:
    """The columns in which a row repeats another one: all that a model is given, and the target.

    What names or dates a row, and is no feature, is left out: a copy may have another name.

    Args:
        features: The columns that the model sees as they are.
        inputs: The columns that a model is given, those that others are derived from included.
        params: Names the key, the time and the target.

    Returns:
        At last the target.
    """
    features = tuple(features)
    names = {*params.data.key, params.data.time, params.target, *features}
    return (*features, *(name for name in inputs if name not in names), params.target)


def first_alike(frame: pl.DataFrame, alike: Sequence[str]) -> pl.Series:
    """For each row the place of the first that holds the same in some columns: n numbers."""
    place = pl.col(_PLACE).cast(pl.Int64).first().over(alike)
    return frame.select(alike).with_row_index(_PLACE).select(place).to_series()


def evidence_groups(
    frame: pl.DataFrame, together: Sequence[str], alike: Sequence[str], *, named: bool
) -> NDArray[np.int64] | None:
    """Number the rows so that those with the same number are no independent evidence.

    They are rows that the split keeps together, and rows that repeat another one: nobody knows
    whether it was observed twice or exported twice, and copies must not make a result look more
    certain. Where a key names the rows, and many of them are alike, they are so by nature.

    Args:
        frame: n rows.
        together: The columns that the split keeps together; those that are not here keep nothing.
        alike: The columns by which a row repeats another one.
        named: Whether a key names the rows.

    Returns:
        Shape (n,); None where every row stands alone.
    """
    groups = row_groups(frame, together if set(together) <= set(frame.columns) else ())
    columns = [name for name in alike if name in frame.columns]
    places = first_alike(frame, columns).to_numpy()
    copies = int((places != np.arange(len(frame))).sum())
    if copies == 0 or (named and copies > ALIKE_BY_NATURE * len(frame)):
        return groups
    return places if groups is None else groups[places]
