"""Derived columns: the same functions in training, in scoring and in the live service.

A function's name is the new column; its parameters name the columns that it is made of, of
schema.yaml (features or not, also text and datetimes) or of this file. It is given a numpy array of
n values for each and gives back n values; value i must depend on row i alone. A request carries
what it is made of, and never the derived column. `make validate` tries each function on all rows.
"""

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from gitops_ml.features import derived
from numpy.typing import NDArray

Moments = NDArray[np.datetime64]
Integers = NDArray[np.int64]
NEW_YORK = ZoneInfo("America/New_York")


@lru_cache(maxsize=100_000)
def in_new_york(hour: int) -> datetime:
    """What clocks in New York show in an hour since 1970; looked up once."""
    return datetime.fromtimestamp(hour * 3600, NEW_YORK)


def local_hours(moments: Moments) -> list[datetime]:
    """The hours of moments on New York's clocks."""
    return list(map(in_new_york, moments.astype("datetime64[h]").astype(np.int64).tolist()))


@derived(type="integer", min=1, max=7)
def day_of_week(scheduled_hour: Moments) -> Integers:
    """Local day of the departure, Monday is 1."""
    return np.array([local.isoweekday() for local in local_hours(scheduled_hour)], dtype=np.int64)


@derived(type="integer", min=0, max=23, unit="h")
def hour(scheduled_hour: Moments) -> Integers:
    """Local hour of the departure."""
    return np.array([local.hour for local in local_hours(scheduled_hour)], dtype=np.int64)
