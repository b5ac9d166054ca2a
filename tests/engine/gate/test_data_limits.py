from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from gitops_ml.core.settings import DataTerms, Params
from gitops_ml.gate.data_limits import data_limits
from gitops_ml.gate.verdict import Limit

LANDED = datetime(2024, 3, 1, tzinfo=UTC)


ROWS = pl.DataFrame(
    {
        "when": [LANDED - timedelta(days=1), LANDED, *2 * [LANDED - timedelta(minutes=1)]],
        "heat": [1.5, 2.5, 2.5, 1.5],
        "late": [True, False, False, False],
    }
)


def params(**data: Any) -> Params:
    return Params.model_validate(
        {
            "task": "classification",
            "target": "late",
            "data": {"source": "data", "time": "when", **data},
            "train": {"estimator": "sklearn.dummy.DummyClassifier"},
            "evaluate": {"metrics": ["roc_auc"]},
        }
    )


def limits_of(held: Params, terms: DataTerms, now: datetime | None = None) -> tuple[Limit, ...]:
    """All limits but that on rows that repeat others, which comes first."""
    duplicates, *limits = data_limits(ROWS, held, ("heat", "late"), terms, now)
    assert duplicates.term == "data.duplicate_rows_max"
    return tuple(limits)


def test_the_same_data_become_too_old_while_time_passes() -> None:
    terms = DataTerms(freshness_days=7)
    (fresh,) = limits_of(params(), terms, LANDED + timedelta(days=7))
    (old,) = limits_of(params(), terms, LANDED + timedelta(days=7, hours=12))
    assert (fresh.value, fresh.maximum, fresh.unit, fresh.failures) == (7.0, 7.0, "days", ())
    assert fresh.name == "age of the newest row at 2024-03-08 00:00"
    assert old.failures == (
        "the newest row, of 2024-03-01 00:00, is 7.5 days old at 2024-03-08 12:00 (`data.as_of`); "
        "contract.yaml allows 7 days (data.freshness_days); land newer rows",
    )


def test_a_fixed_moment_keeps_its_meaning() -> None:
    fixed = params(as_of="2024-03-02T00:00:00Z")
    (limit,) = limits_of(fixed, DataTerms(freshness_days=7), datetime.now(UTC))
    assert (limit.value, limit.failures) == (1.0, ())
    before = params(as_of="2024-01-01T00:00:00Z")
    (limit,) = limits_of(before, DataTerms(freshness_days=7))
    assert "no row is dated before 2024-01-01" in limit.failures[0]
    assert limit.value == 0.0


def test_without_a_term_there_is_no_limit_and_without_a_time_it_is_not_held() -> None:
    assert limits_of(params(), DataTerms()) == ()
    (limit,) = limits_of(params(time=None), DataTerms(freshness_days=7))
    (failure,) = limit.failures
    assert "data.freshness_days: needs `data.time` in params.yaml" in failure


def test_rows_that_repeat_others_are_counted_and_bounded_where_the_contract_says_so() -> None:
    alike = ("heat", "late")
    (counted,) = data_limits(ROWS, params(), alike, DataTerms())
    assert (counted.value, counted.maximum, counted.failures) == (25.0, None, ())
    (held,) = data_limits(ROWS, params(), alike, DataTerms(duplicate_rows_max=0.25))
    assert (held.maximum, held.failures) == (25.0, ())
    (broken,) = data_limits(ROWS, params(), alike, DataTerms(duplicate_rows_max=0.2))
    assert broken.failures == (
        "1 row (25.00%) repeats another row in every feature and in `late`; 20 % may "
        "(data.duplicate_rows_max). Land each row once; where rows are alike by nature, raise the "
        "term",
    )


def test_of_no_rows_none_repeats_another() -> None:
    (limit,) = data_limits(ROWS.head(0), params(), ("heat", "late"), DataTerms())
    assert (limit.value, limit.failures) == (0.0, ())
