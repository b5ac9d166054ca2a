"""The index of a window, and what the reference itself says is usual."""

from __future__ import annotations

import numpy as np
import pytest

from gitops_ml.monitor.drift import (
    CONSTANT_LIMIT,
    LARGEST_LIMIT,
    LEAST_LIMIT,
    Bins,
    Column,
    Reference,
    histograms,
    index_apart,
    parts,
    stability_index,
)


def test_numbers_are_counted_in_tenths_with_bins_for_more_less_and_missing() -> None:
    bins = Bins.of_numbers(np.arange(101.0))
    places = bins.places(np.array([np.nan, -1.0, 0.0, 5.0, 55.0, 100.0, 101.0]))
    assert places.tolist() == [0, 1, 2, 2, 7, 11, 12]
    assert places.max() == bins.size - 1
    nothing = Bins.of_numbers(np.array([np.nan]))
    assert nothing.places(np.array([np.nan, 3.0])).tolist() == [0, 1]


def test_categories_are_counted_each_and_what_is_missing_too() -> None:
    bins = Bins.of_categories(2)
    counted = histograms(bins, np.array([-1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 0, 1]), 2)
    assert counted.tolist() == [[1, 1, 1], [0, 0, 1]]
    # A boolean that is missing is NaN.
    assert bins.places(np.array([np.nan])).tolist() == [0]


def test_the_index_is_what_the_books_say() -> None:
    # (0.5 - 0.7) ln(0.5 / 0.7) + (0.5 - 0.3) ln(0.5 / 0.3)
    one, other = np.array([50_000.0, 50_000.0]), np.array([70_000.0, 30_000.0])
    assert stability_index(one, other) == pytest.approx(0.16946, abs=1e-4)
    assert stability_index(one, one) == 0
    assert stability_index(one, np.zeros(2)) == 0


def test_chance_alone_gives_nothing_whatever_the_number_of_rows() -> None:
    draw = np.random.default_rng(1)
    shares = draw.dirichlet(np.ones(12))
    for rows in (100, 1000, 10_000):
        found = [
            stability_index(draw.multinomial(rows, shares), draw.multinomial(5000, shares))
            for _ in range(200)
        ]
        assert np.mean(found) < 12 * (1 / rows + 1 / 5000)
        assert np.quantile(found, 0.99) < 0.1 or rows == 100


def weekly(values: list[float], rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """A column whose mean is another one each week."""
    draw = np.random.default_rng(2)
    windows = np.repeat(np.arange(len(values)), rows)
    return windows, draw.normal(np.repeat(values, rows))


def test_what_the_reference_did_itself_is_usual() -> None:
    windows, values = weekly([week / 4 for week in range(20)])
    season = Column("t", Bins.of_numbers(values), Reference(windows, 7), values)
    windows, level = weekly([0.0] * 20)
    steady = Column("t", Bins.of_numbers(level), Reference(windows, 7), level)
    next_week = np.random.default_rng(3).normal(5.0, size=200)
    drift = season.drift(next_week, 20)
    assert drift is not None
    assert 0.25 < drift.index < drift.limit
    drift = steady.drift(next_week, 20)
    assert drift is not None
    assert drift.limit == LEAST_LIMIT
    assert drift.ratio > 10


def test_the_further_away_the_more_is_usual() -> None:
    windows, values = weekly([week / 4 for week in range(20)])
    column = Column("t", Bins.of_numbers(values), Reference(windows, 7), values)
    found = [column.drift(values[:200], week) for week in (20, 23, 26)]
    limits = [one.limit for one in found if one is not None]
    assert limits == sorted(limits)
    assert limits[0] < limits[-1]


def test_what_is_missing_counts_by_itself_however_much_the_season_moves_the_values() -> None:
    windows, values = weekly([week / 4 for week in range(20)])
    column = Column("t", Bins.of_numbers(values), Reference(windows, 7), values)
    next_week = np.random.default_rng(3).normal(5.0, size=200)
    whole = column.drift(next_week, 20)
    some = column.drift(np.where(np.arange(200) < 60, np.nan, next_week), 20)
    assert whole is not None
    assert some is not None
    assert whole.missing == 0.0
    assert whole.missing_ratio < 0.1
    assert (some.missing, some.missing_before) == (0.3, 0.0)
    assert some.ratio == some.missing_ratio > 10


def test_values_that_the_season_never_had_are_off_however_far_it_moves() -> None:
    windows, values = weekly([week * 2 for week in range(20)])
    column = Column("t", Bins.of_numbers(values), Reference(windows, 7), values)
    assert column._limit(5, column._counts) > 7
    drift = column.drift(values[:200], 25)
    assert drift is not None
    assert drift.ratio == pytest.approx(1 / LARGEST_LIMIT, rel=0.1)
    one, other = np.array([100.0, 0.0]), np.array([0.0, 5000.0])
    assert index_apart(one, other) == pytest.approx(stability_index(one, other), rel=0.02)


def test_too_short_a_reference_says_nothing_of_what_is_usual() -> None:
    windows, values = weekly([0.0] * 5)
    column = Column("t", Bins.of_numbers(values), Reference(windows, 7), values)
    drift = column.drift(values[:200], 5)
    assert drift is not None
    assert drift.limit == CONSTANT_LIMIT
    short = Column("t", Bins.of_numbers(values), Reference(windows, 7), values[:9], np.arange(9))
    assert short.drift(values[:200], 5) is None


def test_a_window_is_held_against_its_season() -> None:
    two_years = Reference(np.arange(104), 7)
    assert set(two_years.near(104, 1).tolist()) == {103, 52, 51, 0}
    assert set(two_years.near(130, 1).tolist()) == {78, 77, 26, 25}
    assert set(Reference(np.arange(20), 7).near(22, 1).tolist()) == {16, 17, 18, 19}
    assert set(Reference(np.arange(20), 7).near(19, 5).tolist()) == {11, 12, 13, 14}


def test_windows_that_are_covered_in_part_are_not_usual() -> None:
    windows, values = weekly([0.0] * 19 + [9.0])
    whole = Column("t", Bins.of_numbers(values), Reference(windows, 7), values)
    reference = Reference(windows, 7, frozenset({19}))
    without = Column("t", Bins.of_numbers(values), reference, values)
    limits = [one.limit for c in (whole, without) if (one := c.drift(values[:200], 20)) is not None]
    assert limits[0] > 1 > limits[1]


def test_rows_without_a_time_are_dealt_out_evenly() -> None:
    dealt = parts(1050, 100)
    assert np.bincount(dealt).tolist() == [105] * 10
    assert parts(5, 100).tolist() == [0] * 5
    reference = Reference(dealt, None)
    assert len(reference.near(99, 1)) == 10
    assert not reference.is_stale(99)
