"""Checks of the contract: the gate would block a model that guesses, and lets this one pass.

class TestGate(GateChecks):
    ...
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gitops_ml.checks.fixtures import Made
from gitops_ml.core import paths
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.settings import Contract, Params
from gitops_ml.gate.challenger import Challenger
from gitops_ml.gate.judgement import Judge, Opponent
from gitops_ml.gate.reference import erosion_terms
from gitops_ml.gate.terms import check_contract
from gitops_ml.model.metrics import Scored


@pytest.mark.pipeline
class GateChecks:
    """All checks of the contract."""

    def test_the_gate_measures_what_the_evaluation_reports(
        self, challenger: Challenger, contract: Contract, made: Made
    ) -> None:
        """The gate and `reports/metrics.json` say the same number."""
        reported = json.loads(made(paths.METRICS).read_text(encoding="utf-8"))
        found = Judge(challenger.scored, None, 0.95).metrics(contract.model.metrics)
        both = [one for one in found if one.metric in reported]
        for one in both:
            assert one.challenger == pytest.approx(reported[one.metric], rel=1e-5), one.metric
        assert both, "contract.yaml and evaluate.metrics have no metric in common"

    def test_the_contract_can_be_measured_and_would_block_a_model_that_guesses(
        self, root: Path, challenger: Challenger, contract: Contract, params: Params
    ) -> None:
        """Each term blocks answers that are given to the wrong rows."""
        check_contract(contract, params.task, challenger.test.columns, known_metrics(root))
        guess = guessing(challenger.scored)
        champion = Opponent(challenger.scored, np.arange(len(guess)))
        court = Judge(guess, champion, contract.model.confidence)
        eroded, _ = erosion_terms(contract.model.metrics)
        against = replace(court, against="reference", key=".erosion")
        for found in (*court.metrics(contract.model.metrics), *against.metrics(eroded)):
            assert found.failures, f"{found.term} would let a model pass that guesses"
        for terms in contract.model.slices:
            findings = court.slices([terms], challenger.test)
            assert any(found.failures for found in findings), f"{terms.column} {terms.metric}"

    def test_each_bound_alone_would_block_a_model_that_guesses(
        self, challenger: Challenger, contract: Contract
    ) -> None:
        """A first model has no champion to be worse than: floors and ceilings must do."""
        court = Judge(guessing(challenger.scored), None, contract.model.confidence)
        findings = [
            *court.metrics(contract.model.metrics),
            *court.slices(contract.model.slices, challenger.test),
        ]
        idle = [f for f in findings if f.bound is not None and not f.failures]
        assert [(found.term, found.value, found.bound) for found in idle] == []

    def test_the_model_may_take_its_own_place(
        self, challenger: Challenger, contract: Contract
    ) -> None:
        """A contract that blocks the model from following itself blocks every change."""
        champion = Opponent(challenger.scored, np.arange(len(challenger.test)))
        court = Judge(challenger.scored, champion, contract.model.confidence)
        findings = [
            *court.metrics(contract.model.metrics),
            *court.slices(contract.model.slices, challenger.test),
        ]
        assert [failure for found in findings for failure in found.failures] == []


def guessing(scored: Scored) -> Scored:
    """The same answers, given to the wrong rows."""
    order = np.random.default_rng(0).permutation(len(scored))
    wrong = scored.take(order)
    return Scored(scored.truth, wrong.prediction, wrong.probability, wrong.classes)
