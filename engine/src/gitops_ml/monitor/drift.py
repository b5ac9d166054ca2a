"""How far a window of rows is from the reference, and how far windows of the reference are.

The measure is the population stability index (PSI) of a column's histogram: the tenths of the
reference's values for a number, the categories for a category, and one bin for what is missing.
Whether a value is there at all is measured by itself as well: a gauge that fails now and then is no
season. What chance alone would give is subtracted, so that windows of other sizes can be compared.

Seasons look like drift: a week in June is far from a week in May, and both are fine. So a window is
not held against all rows, but against the windows nearest to it by the time of the year; and not
against a constant, but against what the reference itself did: how far each of its windows was from
those that lay as long before it. The largest of these is the column's limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TENTHS = 10
# Below it, nobody speaks of a change: the usual reading of the index.
LEAST_LIMIT = 0.1
# Where the reference has too few windows to say what is usual: the usual reading again.
CONSTANT_LIMIT = 0.25
# How many windows of the reference must have been compared to say what is usual.
LEAST_SPREAD = 5
# A window is compared with the rows of so many days, and of so many windows at least.
COMPARED_DAYS = 28
COMPARED_WINDOWS = 4
YEAR = 365.25
# The largest limit, as a share of the index of two histograms that have no bin in common: whatever
# the season does, values that it never had at this time of the year are off.
LARGEST_LIMIT = 0.4
# A window of the reference with fewer rows says nothing of what is usual.
LEAST_ROWS = 50


@dataclass(frozen=True)
class Bins:
    """How the values of one column are counted.

    Attributes:
        edges: Of a number: the upper ends of the bins. Empty for a category.
        size: How many bins there are; the first one is for what is missing.
    """

    edges: Floats
    size: int

    @classmethod
    def of_numbers(cls, reference: Floats) -> Bins:
        """Tenths of the reference, one bin for less and one for more than it ever had.

        Args:
            reference: n values, NaN where one is missing.
        """
        known = reference[np.isfinite(reference)]
        if known.size == 0:
            return cls(np.array([np.inf]), 2)
        edges = np.unique(np.quantile(known, np.linspace(0, 1, TENTHS + 1)))
        edges[0] = np.nextafter(edges[0], -np.inf)
        return cls(np.append(edges, np.inf), len(edges) + 2)

    @classmethod
    def of_categories(cls, number: int) -> Bins:
        """One bin for each of so many categories."""
        return cls(np.array([]), number + 1)

    def places(self, values: Floats) -> Ints:
        """The bin of each of n values: numbers, or the places of categories (-1 is missing)."""
        if not self.edges.size:
            return np.nan_to_num(values, nan=-1.0).astype(np.int64) + 1
        found = np.searchsorted(self.edges, values, side="left") + 1
        return np.where(np.isnan(values), 0, found).astype(np.int64)


def histograms(bins: Bins, values: Floats, windows: Ints, number: int) -> Floats:
    """Count the values of each window.

    Args:
        bins: How to count.
        values: n values.
        windows: The window of each, 0 to `number` - 1.
        number: Of windows.

    Returns:
        Shape (number, bins).
    """
    places = bins.places(values) + windows * bins.size
    counted = np.bincount(places, minlength=number * bins.size)
    return counted.reshape(number, bins.size).astype(np.float64)


def stability_index(one: Floats, other: Floats) -> float:
    """The PSI of two histograms, less what chance alone would give, and never below 0.

    A bin that is empty on one side counts as half a row, so that the index is finite.
    """
    size, n, m = len(one), one.sum(), other.sum()
    if n == 0 or m == 0:
        return 0.0
    p, q = (one + 0.5) / (n + 0.5 * size), (other + 0.5) / (m + 0.5 * size)
    chance = (np.count_nonzero(one + other) - 1) * (1 / n + 1 / m)
    return max(0.0, float(((p - q) * np.log(p / q)).sum() - chance))


def index_apart(one: Floats, other: Floats) -> float:
    """What the PSI of two histograms would be if they had no bin in common."""
    found = 0.0
    for counts, against in ((one, other), (other, one)):
        p = counts[counts > 0] / counts.sum()
        found += float((p * np.log(p * (against.sum() + 0.5 * len(against)) / 0.5)).sum())
    return found


@dataclass(frozen=True)
class Drift:
    """How far a column of a window is from the reference.

    Attributes:
        index: The PSI.
        limit: How far windows of the reference were, at most.
        missing: The share of the window's rows without a value.
        missing_before: The same of the rows that it is compared with.
        missing_ratio: The PSI of missing or not, in units of its own limit.
    """

    index: float
    limit: float
    missing: float
    missing_before: float
    missing_ratio: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times the limit it is, by its values or by those that are missing."""
        return max(self.index / self.limit, self.missing_ratio)


@dataclass(frozen=True)
class Reference:
    """The windows of the reference.

    Attributes:
        windows: Shape (n,): the window of each row; for rows without a time, parts of one size.
        days: How long a window is; None where the rows have no time, and no order.
        partial: Windows of which the rows cover a part only: what they are like is not usual.
    """

    windows: Ints
    days: int | None
    partial: frozenset[int] = frozenset()

    @cached_property
    def numbers(self) -> Ints:
        """The windows that there are, in order."""
        return np.asarray(np.unique(self.windows))

    @property
    def compared(self) -> int:
        """How many windows one is compared with."""
        return max(COMPARED_WINDOWS, -(-COMPARED_DAYS // (self.days or COMPARED_DAYS)))

    def near(self, window: int, gap: int) -> Ints:
        """What a window is compared with: those at least `gap` before it, of its season."""
        if self.days is None:
            return np.asarray(self.numbers[self.numbers != window])
        before = self.numbers[self.numbers <= window - gap]
        apart = (window - before) * self.days % YEAR
        # Of those that are as near, the latest.
        order = np.lexsort((-before, np.minimum(apart, YEAR - apart)))
        return np.asarray(before[order[: self.compared]])

    def gap(self, window: int) -> int:
        """How many windows lie between one and the last that it can be compared with."""
        before = self.numbers[self.numbers < window]
        return int(window - before[-1]) if before.size else 1

    def is_stale(self, window: int) -> bool:
        """Whether the reference is too short to say what so long a time usually changes."""
        return self.days is not None and self.gap(window) > self._longest_gap

    @property
    def _longest_gap(self) -> int:
        return max(1, len(self.numbers) // 2)

    def spread_gap(self, window: int) -> int:
        """The gap at which the reference's own windows are compared, for one to be judged."""
        return min(self.gap(window), self._longest_gap)


class Column:
    """One column of the reference, counted window by window."""

    def __init__(
        self, name: str, bins: Bins, reference: Reference, values: Floats, rows: Ints | None = None
    ) -> None:
        """Count it.

        Args:
            name: Of the column.
            bins: How its values are counted.
            reference: The windows of all rows.
            values: The values of the rows that are counted.
            rows: Which of the reference's rows they are of; None for all.
        """
        self.name, self.bins, self._reference = name, bins, reference
        windows = reference.windows if rows is None else reference.windows[rows]
        numbers = reference.numbers
        place = np.searchsorted(numbers, windows).astype(np.int64)
        self._counts = histograms(bins, values, place, len(numbers))
        self._missing = missing_or_not(self._counts)
        self._limits: dict[int, tuple[float, float]] = {}

    def drift(self, values: Floats, window: int) -> Drift | None:
        """Hold the values of a window against the reference; None where that has no such rows."""
        reference = self._reference
        near = reference.near(window, 1)
        if not near.size:
            near = reference.numbers[: reference.compared]
        other = self._of(near, self._counts)
        if other.sum() < LEAST_ROWS:
            return None
        one = histograms(self.bins, values, np.zeros(len(values), dtype=np.int64), 1)[0]
        limit, missing_limit = self._limits_at(reference.spread_gap(window))
        missing = stability_index(missing_or_not(one), missing_or_not(other))
        return Drift(
            stability_index(one, other),
            max(LEAST_LIMIT, min(limit, LARGEST_LIMIT * index_apart(one, other))),
            float(one[0] / one.sum()),
            float(other[0] / other.sum()),
            missing / missing_limit,
        )

    def _limits_at(self, gap: int) -> tuple[float, float]:
        """The limits of the index, and of that of missing or not."""
        if gap not in self._limits:
            values, missing = (self._limit(gap, one) for one in (self._counts, self._missing))
            self._limits[gap] = values, missing
        return self._limits[gap]

    def _limit(self, gap: int, counts: Floats) -> float:
        found = self._spread(gap, counts)
        usual = max(found) if len(found) >= LEAST_SPREAD else CONSTANT_LIMIT
        return max(LEAST_LIMIT, usual)

    def _spread(self, gap: int, counts: Floats) -> list[float]:
        """How far the reference's windows are from what lay so long before them."""
        reference = self._reference
        found = []
        for place, window in enumerate(reference.numbers.tolist()):
            if window in reference.partial:
                continue
            near = reference.near(window, gap)
            one, other = counts[place], self._of(near, counts)
            enough = len(near) >= COMPARED_WINDOWS or reference.days is None
            if enough and min(one.sum(), other.sum()) >= LEAST_ROWS:
                found.append(stability_index(one, other))
        return found

    def _of(self, windows: Ints, counts: Floats) -> Floats:
        return np.asarray(counts[np.searchsorted(self._reference.numbers, windows)].sum(axis=0))


def missing_or_not(counts: Floats) -> Floats:
    """Histograms of two bins: how many values are missing, and how many are there."""
    return np.stack([counts[..., 0], counts[..., 1:].sum(axis=-1)], axis=-1)


def parts(rows: int, size: int, seed: int = 0) -> Ints:
    """Rows without a time, dealt out at random into windows of about one size: shape (rows,)."""
    number = max(1, rows // max(size, 1))
    dealt = np.arange(rows, dtype=np.int64) % number
    np.random.default_rng(seed).shuffle(dealt)
    return dealt
