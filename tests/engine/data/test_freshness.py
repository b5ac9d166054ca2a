from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import Params
from gitops_ml.data.freshness import freshness, time_column

DAY = datetime(2024, 3, 1, tzinfo=UTC)
TIMES = pl.Series([DAY - timedelta(days=3), None, DAY - timedelta(days=1), DAY + timedelta(days=9)])


def params(as_of: str, time: str | None = "when") -> Params:
    return Params.model_validate(
        {
            "task": "classification",
            "target": "late",
            "data": {"source": "data", "time": time, "as_of": as_of},
            "train": {"estimator": "sklearn.dummy.DummyClassifier"},
            "evaluate": {"metrics": ["roc_auc"]},
        }
    )


@pytest.mark.parametrize("as_of", ["2024-03-01T00:00:00Z", "now"])
def test_the_age_is_that_of_the_newest_row_that_is_not_dated_ahead(as_of: str) -> None:
    found = freshness(TIMES, params(as_of), now=DAY)
    assert (found.as_of, found.days) == (DAY, 1.0)
    assert found.too_old(1) is None
    assert "is 1.0 days old at 2024-03-01 00:00 (`data.as_of`)" in str(found.too_old(0.9))


def test_a_row_of_that_very_moment_is_not_dated_ahead() -> None:
    found = freshness(pl.Series([DAY]), params("2024-03-01T00:00:00Z"))
    assert found.days == 0
    assert found.too_old(0) is None


def test_a_fixed_moment_does_not_pass() -> None:
    later = DAY + timedelta(days=400)
    assert freshness(TIMES, params("2024-03-01T00:00:00Z"), now=later).days == 1.0
    assert freshness(TIMES, params("now"), now=later).days == 391.0


def test_now_is_this_moment() -> None:
    fresh = pl.Series([datetime.now(UTC) - timedelta(hours=12)])
    assert freshness(fresh, params("now")).days == pytest.approx(0.5, abs=0.01)


def test_rows_that_are_all_dated_ahead_are_too_old() -> None:
    found = freshness(TIMES[3:], params("now"), now=DAY)
    assert found.days is None
    assert found.too_old(9) == (
        "no row is dated before 2024-03-01 00:00, the moment of `data.as_of`"
    )


def test_without_a_time_it_cannot_be_judged() -> None:
    assert time_column(params("now")) == "when"
    with pytest.raises(SettingsError, match=r"data\.freshness_days: needs `data\.time`"):
        time_column(params("now", None))
