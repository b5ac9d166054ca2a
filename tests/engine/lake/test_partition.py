from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from gitops_ml.lake.partition import Period, bounds, cut, label_of, start_of

ROWS = pl.DataFrame(
    {
        "n": [1, 2, 3, 4],
        "at": [
            datetime(2013, 7, 1, tzinfo=UTC),
            datetime(2013, 6, 30, 23, 59, 59, tzinfo=UTC),
            None,
            datetime(2013, 7, 31, 23, tzinfo=UTC),
        ],
    }
)


def test_each_row_goes_to_its_period_in_the_order_it_came() -> None:
    parts = cut(ROWS, "at", "month")
    assert {period: rows["n"].to_list() for period, rows in parts.items()} == {
        "2013-06": [2],
        "2013-07": [1, 4],
        "undated": [3],
    }
    assert all(rows.columns == ["n", "at"] for rows in parts.values())


def test_without_a_time_there_is_one_partition() -> None:
    assert list(cut(ROWS, None, "month")) == [None]


@pytest.mark.parametrize(
    ("period", "label", "start"),
    [
        ("day", "2013-07-31", datetime(2013, 7, 31, tzinfo=UTC)),
        ("month", "2013-07", datetime(2013, 7, 1, tzinfo=UTC)),
        ("year", "2013", datetime(2013, 1, 1, tzinfo=UTC)),
    ],
)
def test_periods_have_a_start_and_a_label(period: Period, label: str, start: datetime) -> None:
    moment = datetime(2013, 7, 31, 23, 5, tzinfo=UTC)
    assert label_of(moment, period) == label
    assert start_of(moment, period) == start
    assert label in cut(ROWS, "at", period)


def test_bounds_are_those_of_the_dated_rows() -> None:
    earliest, latest = ROWS["at"].min(), ROWS["at"].max()
    assert bounds(ROWS, "at") == (earliest, latest)
    assert bounds(ROWS.filter(pl.col("n") == 3), "at") == (None, None)
    assert bounds(ROWS, None) == (None, None)
