"""What a blocked change is told, and that it helps."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from gitops_ml.core.settings import MetricTerms, SliceTerms
from gitops_ml.gate.judgement import Judge, Opponent, judge_limit
from gitops_ml.gate.remedies import remedies
from gitops_ml.gate.verdict import Finding, Limit
from gitops_ml.github.labels import LOOSEN_LABEL, NEW_BASELINE_LABEL
from gitops_ml.model.metrics import Scored

ROWS = 400
PLACE = np.arange(ROWS)


def erring(by: float, seed: int) -> Scored:
    noise = np.random.default_rng(seed).normal(0, 0.1, ROWS)
    return Scored(np.zeros(ROWS), by + noise)


def judged(ceiling: float = 9.0, binding: bool = True, loss: float = 1.0) -> list[Finding]:
    """A model that is put back in the place of a better one."""
    terms = MetricTerms(margin=0.1, ceiling=ceiling)
    in_slices = [SliceTerms(column="city", metric="mae", min_rows=10, margin=0.1)]
    court = Judge(
        erring(1 + loss, 1), Opponent(erring(1, 2), PLACE), confidence=0.95, binding=binding
    )
    test = pl.DataFrame({"city": np.repeat(["north", "south"], ROWS // 2)})
    return [*court.metrics({"mae": terms}), *court.slices(in_slices, test)]


def failures(findings: list[Finding]) -> list[str]:
    return [why for found in findings for why in found.failures]


def test_a_revert_is_told_the_label_that_lifts_it_and_that_label_lifts_it() -> None:
    assert len(failures(judged())) == 3
    (advice,) = remedies(judged())
    assert f"with the label `{NEW_BASELINE_LABEL}` on the pull request" in advice
    assert "--accept-new-baseline" in advice
    assert advice.endswith("It lifts: model.metrics.mae, model.slices.city.mae.")
    # As it says.
    assert failures(judged(binding=False)) == []
    assert remedies(judged(binding=False)) == ()


def test_a_ceiling_is_not_lifted_by_it_and_says_what_does() -> None:
    findings = judged(ceiling=1.5)
    comparison, bound = remedies(findings)
    assert "model.metrics.mae" in comparison
    assert bound.startswith("No label by itself lifts these: model.metrics.mae. ")
    assert f"`{LOOSEN_LABEL}`" in bound
    # As it says: the first label leaves the ceiling, a contract that asks for less lifts it.
    assert len(failures(judged(ceiling=1.5, binding=False))) == 1
    assert failures(judged(ceiling=3.0, binding=False)) == []


def test_a_model_that_holds_everything_is_told_nothing() -> None:
    assert remedies([*judged(loss=0.0), judge_limit("a", "size", 1, "MB", maximum=2)]) == ()


@pytest.mark.parametrize(
    ("failure", "told"),
    [("too large", 1), (f"changed; with the label `{LOOSEN_LABEL}`", 0)],
    ids=["silent", "says itself what to do"],
)
def test_limits_are_told_once(failure: str, told: int) -> None:
    limit = Limit(term="model.size_mb", name="size", value=3, unit="MB", failures=(failure,))
    assert len(remedies([limit])) == told
