"""Numbers with a few significant digits, rounded in one direction: for terms that people read."""

from __future__ import annotations

import math
from collections.abc import Callable


def up(value: float, digits: int) -> float:
    """The least number of so many significant digits that is not below a value."""
    return _rounded(value, digits, math.ceil)


def down(value: float, digits: int) -> float:
    """The largest number of so many significant digits that is not above a value."""
    return _rounded(value, digits, math.floor)


def _rounded(value: float, digits: int, rounding: Callable[[float], int]) -> float:
    if value == 0:
        return 0.0
    places = digits - 1 - math.floor(math.log10(abs(value)))
    # Rounded first, so that 0.15 is not 0.15000000000000002 and then 0.16.
    return round(float(rounding(round(value * 10.0**places, 6))) / 10.0**places, max(places, 0))
