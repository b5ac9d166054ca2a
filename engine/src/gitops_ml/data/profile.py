"""A short description of the data that was last accepted: `reports/data_profile.json`.

The gate compares the data of a change with what the base has here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from gitops_ml.core.schema import Column, Schema

OTHER = "(other)"


class Profile(BaseModel):
    """How many rows there are, the hash of their file, and what the columns hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    data_sha256: str
    columns: dict[str, dict[str, Any]]


def make_profile(rows: pl.DataFrame, schema: Schema, data_sha256: str) -> Profile:
    """Describe accepted data, column by column."""
    return Profile(
        rows=rows.height,
        data_sha256=data_sha256,
        columns={
            name: _describe(rows.get_column(name), column)
            for name, column in schema.columns.items()
        },
    )


def _describe(values: pl.Series, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"null_share": _short(values.null_count() / len(values))}
    if column.categories is not None:
        shares = dict.fromkeys(column.categories, 0.0) | {OTHER: 0.0}
        for value, number in values.drop_nulls().value_counts(sort=True).iter_rows():
            shares[value if value in shares else OTHER] += number / len(values)
        described["shares"] = {name: _short(share) for name, share in shares.items() if share}
    elif column.type == "datetime":
        described |= {"min": _moment(values.min()), "max": _moment(values.max())}
    elif column.type == "boolean":
        described["mean"] = _short(values.mean())
    elif column.type != "string":
        described |= {
            name: _short(getattr(values, name)()) for name in ("min", "max", "mean", "std")
        }
    return described


def _short(value: Any) -> float | None:
    """Six digits: the last ones of a float depend on the order of its summation."""
    return None if value is None else float(f"{value:.6g}")


def _moment(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None
