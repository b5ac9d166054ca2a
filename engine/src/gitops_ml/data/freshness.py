"""How old data are: the age of the newest row at the moment of `data.as_of`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import Params


@dataclass(frozen=True)
class Freshness:
    """The age of data.

    Attributes:
        as_of: The moment that it is judged at.
        newest: The date of the newest row that is not dated ahead of that; None without one.
    """

    as_of: datetime
    newest: datetime | None

    @property
    def days(self) -> float | None:
        """The age in days; None where no row is dated before the moment."""
        return None if self.newest is None else (self.as_of - self.newest) / timedelta(days=1)

    def too_old(self, allowed: float) -> str | None:
        """Why the data are older than so many days; None if they are not."""
        moment = f"{self.as_of:%Y-%m-%d %H:%M}"
        if self.newest is None or self.days is None:
            return f"no row is dated before {moment}, the moment of `data.as_of`"
        if self.days <= allowed:
            return None
        return (
            f"the newest row, of {self.newest:%Y-%m-%d %H:%M}, is {self.days:.1f} days old at "
            f"{moment} (`data.as_of`); {paths.CONTRACT} allows {allowed:g} days"
        )


def time_column(params: Params) -> str:
    """The column that dates a row.

    Raises:
        SettingsError: If there is none, so that freshness cannot be judged.
    """
    if params.data.time is None:
        raise SettingsError(
            f"{paths.CONTRACT}: data.freshness_days: needs `data.time` in {paths.PARAMS}; "
            "name the column that dates a row, or set freshness_days to null"
        )
    return params.data.time


def freshness(times: pl.Series, params: Params, now: datetime | None = None) -> Freshness:
    """The age of rows.

    Args:
        times: When each row is dated.
        params: Says at which moment it is judged.
        now: What `data.as_of: now` stands for; None for this moment.
    """
    moment = (now or datetime.now(UTC)) if params.data.as_of == "now" else params.data.as_of
    # A row that is dated ahead must not make old data look fresh.
    newest = times.filter(times <= moment).max()
    return Freshness(moment, newest if isinstance(newest, datetime) else None)
