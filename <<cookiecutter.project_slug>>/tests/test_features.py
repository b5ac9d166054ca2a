"""Tests of your derived columns: plain functions of arrays, so `make check` runs them."""

import numpy as np

from << cookiecutter.project_slug >>.features import day_of_week, hour

# In New York the first is the evening before; it is behind by four hours in summer, five in winter.
MOMENTS = np.array(["2013-07-01T00:30", "2013-01-01T12:00"], dtype="datetime64[us]")


def test_day_and_hour_are_new_yorks() -> None:
    assert day_of_week(MOMENTS).tolist() == [7, 2]
    assert hour(MOMENTS).tolist() == [20, 7]


def test_no_rows_are_no_error() -> None:
    assert hour(MOMENTS[:0]).tolist() == day_of_week(MOMENTS[:0]).tolist() == []
