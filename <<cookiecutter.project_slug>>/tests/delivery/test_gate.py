from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from << cookiecutter.project_slug >>.data.schema import load_schema
from << cookiecutter.project_slug >>.delivery.bar import check_contract
from << cookiecutter.project_slug >>.delivery.challenger import (
    Challenger,
    check_up_to_date,
    load_challenger,
)
from << cookiecutter.project_slug >>.delivery.judgement import Judge, Opponent
from << cookiecutter.project_slug >>.model.metrics import Scored
from << cookiecutter.project_slug >>.settings import load_contract, load_params

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def challenger() -> Challenger:
    locked = check_up_to_date(ROOT)
    return load_challenger(ROOT, load_params(ROOT), load_schema(ROOT), locked)


def guessing(scored: Scored) -> Scored:
    """The same answers, given to the wrong rows."""
    order = np.random.default_rng(0).permutation(len(scored))
    wrong = scored.take(order)
    return Scored(scored.truth, wrong.prediction, wrong.probability, wrong.classes)


def test_the_gate_measures_what_the_evaluation_reports(challenger: Challenger) -> None:
    contract = load_contract(ROOT)
    reported = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))
    found = Judge(challenger.scored, None, 0.95).metrics(contract.model.metrics)
    both = [one for one in found if one.metric in reported]
    for one in both:
        assert one.challenger == pytest.approx(reported[one.metric], rel=1e-5), one.metric
    assert both, "contract.yaml and evaluate.metrics have no metric in common"


def test_the_contract_can_be_measured_and_would_block_a_model_that_guesses(
    challenger: Challenger,
) -> None:
    contract = load_contract(ROOT)
    check_contract(contract, load_params(ROOT).task, challenger.test.columns)
    guess = guessing(challenger.scored)
    champion = Opponent(challenger.scored, np.arange(len(guess)))
    court = Judge(guess, champion, contract.model.confidence)
    for found in court.metrics(contract.model.metrics):
        assert found.failures, f"{found.term} would let a model pass that guesses"
    for terms in contract.model.slices:
        findings = court.slices([terms], challenger.test)
        assert any(found.failures for found in findings), f"{terms.column} {terms.metric}"


def test_each_bound_alone_would_block_a_model_that_guesses(challenger: Challenger) -> None:
    # A first model has no champion to be worse than.
    contract = load_contract(ROOT)
    court = Judge(guessing(challenger.scored), None, contract.model.confidence)
    findings = [
        *court.metrics(contract.model.metrics),
        *court.slices(contract.model.slices, challenger.test),
    ]
    idle = [f for f in findings if f.bound is not None and not f.failures]
    assert [(found.term, found.value, found.bound) for found in idle] == []


def test_the_model_may_take_its_own_place(challenger: Challenger) -> None:
    contract = load_contract(ROOT)
    champion = Opponent(challenger.scored, np.arange(len(challenger.test)))
    court = Judge(challenger.scored, champion, contract.model.confidence)
    findings = [
        *court.metrics(contract.model.metrics),
        *court.slices(contract.model.slices, challenger.test),
    ]
    assert [failure for found in findings for failure in found.failures] == []
