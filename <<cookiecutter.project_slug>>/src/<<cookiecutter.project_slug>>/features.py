"""Derived columns: the same functions in training, in scoring and in the live service.

A function's name is the new column; its parameters name the columns that it is made of, of
schema.yaml (features or not, also text and datetimes) or of this file. It is given a numpy array of
n values for each and gives back n values; value i must depend on row i alone. A request carries
what it is made of, and never the derived column. `make validate` tries each function on all rows.
"""

from datetime import UTC
from zoneinfo import ZoneInfo

import numpy as np
from gitops_ml.features import derived
from numpy.typing import NDArray

Moments = NDArray[np.datetime64]
NEW_YORK = ZoneInfo("America/New_York")


def in_new_york(moments: Moments) -> Moments:
    """What clocks in New York show; each moment is converted once, however many rows share it."""
    distinct, place = np.unique(moments, return_inverse=True)
    local = [
        moment.replace(tzinfo=UTC).astimezone(NEW_YORK).replace(tzinfo=None)
        for moment in distinct.tolist()
    ]
    return np.array(local, dtype="datetime64[us]")[place]


@derived(type="integer", min=1, max=7)
def day_of_week(scheduled_hour: Moments) -> NDArray[np.int64]:
    """Local day of the departure, Monday is 1."""
    days = in_new_york(scheduled_hour).astype("datetime64[D]").astype(np.int64)
    return (days + 3) % 7 + 1  # day 0, the first of January 1970, was a Thursday


@derived(type="integer", min=0, max=23, unit="h")
def hour(scheduled_hour: Moments) -> NDArray[np.int64]:
    """Local hour of the departure."""
    return in_new_york(scheduled_hour).astype("datetime64[h]").astype(np.int64) % 24
