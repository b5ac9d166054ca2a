"""Bring a column, as it was read from a file, to the type that the schema gives it."""

from __future__ import annotations

import polars as pl

from gitops_ml.core.schema import ColumnType

DTYPES: dict[ColumnType, pl.DataType] = {
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "string": pl.String(),
    "datetime": pl.Datetime("us", "UTC"),
}

# How a CSV file may say that a value is missing, besides an empty field. Columns of text take
# these words as they are: NA is also a name.
MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "NULL", "null", "None")
BOOLEAN_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
EXACT_INTEGERS = 2**53


def present(values: pl.Series, kind: ColumnType) -> pl.Series:
    """The values as read, null where the file means that there is none (NaN, empty, NA)."""
    if values.dtype.is_float():
        return values.fill_nan(None)
    if values.dtype == pl.String and kind not in ("category", "string"):
        words = values.str.strip_chars()
        return words.set(words.is_in(["", *MISSING_WORDS]), None)
    return values


def convert(values: pl.Series, kind: ColumnType, from_text: bool) -> pl.Series | None:
    """The values in the schema's type; null where a value does not fit.

    Args:
        values: A column as read, missing values already null.
        kind: The schema's type.
        from_text: The file holds text only (CSV), so that the values are to be parsed.

    Returns:
        The converted column, or None when the column's type as a whole is another one. A column
        without a single value suits every type.
    """
    if values.null_count() == len(values):
        return pl.Series(values.name, [None] * len(values), dtype=DTYPES[kind])
    if kind in ("category", "string"):
        return _text(values)
    if from_text:
        return _parse(values, kind)
    if kind == "integer":
        return _integers(values)
    if kind == "number":
        return values.cast(pl.Float64, strict=False) if values.dtype.is_numeric() else None
    if kind == "boolean":
        return values if values.dtype == pl.Boolean else None
    return _moments(values)


def _text(values: pl.Series) -> pl.Series | None:
    if values.dtype in (pl.String, pl.Categorical, pl.Enum) or values.dtype.is_integer():
        return values.cast(pl.String)
    return None


def _integers(values: pl.Series) -> pl.Series | None:
    if values.dtype.is_integer():
        return values.cast(pl.Int64, strict=False)
    if values.dtype.is_float() or values.dtype.is_decimal():
        numbers = values.cast(pl.Float64)
        whole = (numbers == numbers.floor()) & (numbers.abs() <= EXACT_INTEGERS)
        return numbers.set(~whole, None).cast(pl.Int64)
    return None


def _moments(values: pl.Series) -> pl.Series | None:
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(values.dtype, pl.Datetime):
        return None
    moments = values.dt.cast_time_unit("us")
    if values.dtype.time_zone is None:
        return moments.dt.replace_time_zone("UTC")
    return moments.dt.convert_time_zone("UTC")


def _parse(words: pl.Series, kind: ColumnType) -> pl.Series | None:
    if kind == "integer":
        fractions = _integers(words.cast(pl.Float64, strict=False))
        return words.cast(pl.Int64, strict=False).fill_null(fractions)
    if kind == "number":
        return words.cast(pl.Float64, strict=False)
    if kind == "boolean":
        return words.str.to_lowercase().replace_strict(
            BOOLEAN_WORDS, default=None, return_dtype=pl.Boolean
        )
    return _parse_moments(words)


def _parse_moments(words: pl.Series) -> pl.Series:
    """Read ISO 8601 dates and times; without a time zone they are UTC."""
    text = pl.lit(words.str.replace("T", " ", literal=True).str.replace("Z$", "+00:00"))
    naive = [text.str.to_datetime(form, time_unit="us", strict=False) for form in DATE_FORMATS]
    naive.append(text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")))
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="us", strict=False)
    return pl.select(
        pl.coalesce(zoned, *(form.dt.replace_time_zone("UTC") for form in naive))
    ).to_series()
