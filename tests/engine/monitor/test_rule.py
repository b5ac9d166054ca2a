"""N of the last M windows, and the latest; metrics before scores before columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gitops_ml.core.settings import MonitorParams
from gitops_ml.model.metrics import Estimate
from gitops_ml.monitor.drift import Drift
from gitops_ml.monitor.rule import Signal, acting, off
from gitops_ml.monitor.watch import MetricFound, Window

START = datetime(2013, 7, 1, tzinfo=UTC)
FINE, BAD = Estimate(0.8, 0.75, 0.85), Estimate(0.6, 0.55, 0.65)


def window(
    number: int, column: float = 0.0, score: float = 0.0, metric: Estimate | None = FINE
) -> Window:
    found = Window(number, START + timedelta(7 * number), START + timedelta(7 * number + 7), 1000)
    found.columns = {"c": Drift(column, 1.0, 0.0, 0.0)}
    found.scores = {"s": Drift(score, 1.0, 0.0, 0.0)}
    found.metrics = {"m": MetricFound(metric, 0.7, 1)} if metric else {}
    return found


def acts(*windows: Window, n: int = 2, m: int = 3) -> list[str]:
    found = acting(windows, MonitorParams(windows=n, of_last=m))
    return [str(one.signal) for one in found]


def columns(*ratios: float) -> list[Window]:
    return [window(number, ratio) for number, ratio in enumerate(ratios)]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0, 0, 3], []),
        ([0, 3, 3], ["column c"]),
        ([3, 0, 3], ["column c"]),
        ([3, 3, 0], []),
        ([3, 0, 0, 3], []),
        ([1.9, 1.9, 1.9], []),
        ([2, 2], ["column c"]),
    ],
)
def test_two_of_the_last_three_and_the_latest(ratios: list[float], expected: list[str]) -> None:
    assert acts(*columns(*ratios)) == expected


def test_the_numbers_are_settings() -> None:
    assert acts(*columns(0, 0, 3), n=1, m=1) == ["column c"]
    assert acts(*columns(3, 0, 0, 3), n=2, m=4) == ["column c"]
    assert acts(*columns(0, 3, 3), n=3, m=3) == []
    assert acts() == []


def test_a_score_counts_from_its_limit_on_a_column_from_twice() -> None:
    assert off(window(1, column=1.5, score=1.5)) == {Signal("score", "s")}
    assert acts(window(1, score=1), window(2, score=1)) == ["score s"]


def test_other_things_in_other_windows_are_no_drift() -> None:
    assert acts(window(1, column=3), window(2, score=3)) == []


def test_a_metric_counts_where_its_whole_interval_is_worse() -> None:
    assert off(window(1, metric=BAD)) == {Signal("metric", "m")}
    assert off(window(1, metric=Estimate(0.6, 0.55, 0.71))) == set()
    assert off(window(1, metric=Estimate(None, None, None))) == set()
    loss = MetricFound(Estimate(0.6, 0.55, 0.65), 0.5, -1)
    assert loss.worse
    assert not MetricFound(Estimate(0.6, 0.49, 0.65), 0.5, -1).worse
    assert not MetricFound(BAD, None, 1).worse


def test_labels_that_come_late_are_judged_by_the_last_windows_that_have_them() -> None:
    windows = [window(1, metric=BAD), window(2, metric=BAD), window(3, metric=None)]
    assert acts(*windows) == ["metric m"]


def test_the_gravest_comes_first() -> None:
    both = [window(n, 3, 3, BAD) for n in (1, 2)]
    assert acts(*both) == ["metric m", "score s", "column c"]
