"""Cutting what came from upstream into periods."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import polars as pl

Period = Literal["day", "month", "year"]
UNDATED = "undated"

_FORMATS: Mapping[str, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}


def cut(rows: pl.DataFrame, time: str | None, period: Period) -> dict[str | None, pl.DataFrame]:
    """The rows of each period, in the order that they came in.

    Args:
        rows: In the schema's types.
        time: The column that dates a row; None if there is none, which makes one partition.
        period: How long one is, in UTC.
    """
    if time is None:
        return {None: rows}
    label = "period of the row"
    labelled = rows.with_columns(
        pl.col(time).dt.strftime(_FORMATS[period]).fill_null(UNDATED).alias(label)
    )
    parts = labelled.partition_by(label, as_dict=True, include_key=False, maintain_order=True)
    return {str(key[0]): part for key, part in sorted(parts.items())}


def start_of(moment: datetime, period: Period) -> datetime:
    """The moment at which the period of another one begins."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day
    return day.replace(day=1) if period == "month" else day.replace(day=1, month=1)


def label_of(moment: datetime, period: Period) -> str:
    """What the period of a moment is called."""
    return f"{moment:{_FORMATS[period]}}"


def bounds(rows: pl.DataFrame, time: str | None) -> tuple[datetime | None, datetime | None]:
    """The times of the oldest and of the newest row; None where no row has one."""
    if time is None:
        return None, None
    earliest, latest = rows.get_column(time).min(), rows.get_column(time).max()
    return (
        earliest if isinstance(earliest, datetime) else None,
        latest if isinstance(latest, datetime) else None,
    )
