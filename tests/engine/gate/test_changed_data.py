"""What a change of the data asks of the gate all reaches the verdict."""

from __future__ import annotations

import polars as pl
import pytest

from gitops_ml.core.settings import Contract, Params
from gitops_ml.gate.base_rows import BaseRows, Judged, Split
from gitops_ml.gate.challenger import score
from gitops_ml.gate.changed_data import ChangedData, judge_changed_data
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.verdict import Consent
from gitops_ml.model.metrics import Estimate

ROWS = pl.DataFrame(
    {
        "id": range(120),
        "x": [float(row % 11) for row in range(120)],
        "y": [float(row % 11) + (row % 5) / 10 for row in range(120)],
    }
)
BASE = Split(ROWS[:60], ROWS[60:])
PARAMS = Params.model_validate(
    {
        "task": "regression",
        "target": "y",
        "data": {"source": "data", "key": ["id"]},
        "train": {"estimator": "sklearn.dummy.DummyRegressor"},
        "evaluate": {"metrics": ["mae"]},
    }
)
TERMS = Contract.model_validate(
    {
        "model": {
            "metrics": {"mae": {"ceiling": 1.0, "margin": 0.05}},
            **{"size_mb": 10, "latency_p99_ms": 100},
        },
        "data": {"test_rows_changed": 0.05},
    }
)
# What the champion measures on its own test rows.
RECORDED = Estimate(0.2, 0.15, 0.25)


def answers(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(prediction=pl.col("x"))


def judged(
    test: pl.DataFrame, recorded: Estimate = RECORDED, error: float = 0.0
) -> tuple[ChangedData, GateLog]:
    """Hold test rows, and a model that errs by so much more, against the base."""

    def answer(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return rows, answers(rows).select(pl.col("prediction") - error)

    scored = score(test.get_column("y"), answer(test)[1], ())
    found = judge_changed_data(
        log := GateLog(),
        {"mae": recorded},
        BaseRows(BASE, answers(BASE.test), ()),
        BASE.train,
        Judged(test, scored, (), ("x", "y"), answer),
        None,
        PARAMS,
        TERMS,
        Consent(),
    )
    return found, log


def test_the_base_s_rows_ask_nothing_of_a_change_that_has_them() -> None:
    found, log = judged(BASE.test)
    (limit,) = found.limits
    assert (limit.term, limit.value, limit.failures) == ("data.test_rows_changed", 0.0, ())
    assert found.on_base_rows is not None
    assert [one.failures for one in found.on_base_rows.metrics] == [()]
    (check,) = found.record
    assert check.measured == pytest.approx(0.2)
    assert log.reasons == []


def test_rows_that_are_gone_are_limited() -> None:
    found, _ = judged(BASE.test[10:])
    (limit,) = found.limits
    assert "10 are gone" in limit.failures[0]


def test_the_base_s_terms_hold_on_its_rows() -> None:
    found, _ = judged(BASE.test[1:], error=2.0)
    assert found.on_base_rows is not None
    assert found.on_base_rows.rows == 60
    (finding,) = found.on_base_rows.metrics
    assert finding.failures[0].startswith("on the base's test rows, ")


def test_a_champion_that_is_not_its_record_s_is_a_reason() -> None:
    _, log = judged(BASE.test, recorded=Estimate(0.4, 0.35, 0.45))
    (reason,) = log.reasons
    assert reason.startswith("the champion does not measure what the base recorded of it: mae 0.2")
