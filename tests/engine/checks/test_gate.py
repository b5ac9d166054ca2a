from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checking import Values, checks_of

from gitops_ml.checks.gate import GateChecks, guessing
from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import Contract, MetricTerms, SliceTerms

Make = Callable[..., Values]


def with_terms(contract: Contract, **terms: MetricTerms) -> Contract:
    model = contract.model.model_copy(update={"metrics": terms})
    return contract.model_copy(update={"model": model})


def report_another_number(values: Values) -> None:
    path = Path(values.tmp_path) / paths.METRICS
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"roc_auc": 0.99}), encoding="utf-8")
    values.made = values.tmp_path.joinpath


def forgive_everything(values: Values) -> None:
    values.contract = with_terms(values.contract, roc_auc=MetricTerms(margin=0.9))


def ask_for_little(values: Values) -> None:
    values.contract = with_terms(values.contract, roc_auc=MetricTerms(floor=0.1, margin=0.01))


def ask_for_much(values: Values) -> None:
    values.contract = with_terms(values.contract, roc_auc=MetricTerms(floor=0.999))


DEFECTS = {
    "test_the_gate_measures_what_the_evaluation_reports": (report_another_number, "roc_auc"),
    "test_the_contract_can_be_measured_and_would_block_a_model_that_guesses": (
        forgive_everything,
        "model.metrics.roc_auc would let a model pass that guesses",
    ),
    "test_each_bound_alone_would_block_a_model_that_guesses": (
        ask_for_little,
        r"\('model.metrics.roc_auc', None, 0\.1\)",
    ),
    "test_the_model_may_take_its_own_place": (ask_for_much, "roc_auc"),
}


def test_every_check_has_a_defect() -> None:
    assert sorted(DEFECTS) == checks_of(GateChecks)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", DEFECTS)
def test_a_check_holds_for_a_good_contract(values: Make, name: str, task: str) -> None:
    values(task).call(GateChecks, name)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_check_fails_and_shows_the_defect(values: Make, name: str) -> None:
    broken = values()
    plant, words = DEFECTS[name]
    plant(broken)

    with pytest.raises(AssertionError, match=f"(?s){words}"):
        broken.call(GateChecks, name)


def test_an_erosion_that_bounds_nothing_is_named(values: Make) -> None:
    broken = values()
    idle = MetricTerms(floor=0.6, margin=0.01, erosion=0.9)
    broken.contract = with_terms(broken.contract, roc_auc=idle)

    with pytest.raises(AssertionError, match=r"model\.metrics\.roc_auc\.erosion would let a model"):
        broken.call(
            GateChecks, "test_the_contract_can_be_measured_and_would_block_a_model_that_guesses"
        )


def test_a_slice_that_blocks_nothing_is_named(values: Make) -> None:
    broken = values()
    idle = SliceTerms(column="colour", metric="roc_auc", min_rows=50, floor=0.01)
    model = broken.contract.model.model_copy(update={"slices": (idle,)})
    broken.contract = broken.contract.model_copy(update={"model": model})

    with pytest.raises(AssertionError, match="colour roc_auc"):
        broken.call(
            GateChecks, "test_the_contract_can_be_measured_and_would_block_a_model_that_guesses"
        )


def test_a_term_that_cannot_be_measured_is_named(values: Make) -> None:
    broken = values()
    broken.contract = with_terms(broken.contract, mae=MetricTerms(ceiling=3))

    with pytest.raises(SettingsError, match="mae cannot be measured for classification"):
        broken.call(
            GateChecks, "test_the_contract_can_be_measured_and_would_block_a_model_that_guesses"
        )


def test_a_contract_that_shares_no_metric_with_the_report_says_so(values: Make) -> None:
    broken = values()
    report_another_number(broken)
    broken.contract = with_terms(broken.contract, brier=MetricTerms(ceiling=0.5))

    with pytest.raises(AssertionError, match="have no metric in common"):
        broken.call(GateChecks, "test_the_gate_measures_what_the_evaluation_reports")


def test_a_guess_gives_the_same_answers_to_other_rows(values: Make) -> None:
    scored = values().scored

    guess = guessing(scored)

    assert (guess.truth == scored.truth).all()
    assert (guess.prediction != scored.prediction).any()
    assert np.sort(guess.prediction).tolist() == np.sort(scored.prediction).tolist()
