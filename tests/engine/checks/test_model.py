from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from checking import Values, checks_of
from commands import subcommand
from numpy.typing import NDArray

from gitops_ml.checks import model as module
from gitops_ml.checks.fixtures import numbers
from gitops_ml.checks.model import ModelChecks
from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import Contract
from gitops_ml.features import derived
from gitops_ml.features.derive import Derivation, Source
from gitops_ml.features.encode import Feature, Features
from gitops_ml.features.matrix import with_derived
from gitops_ml.model.metrics import Scored
from gitops_ml.model.predictor import Predictions

Make = Callable[..., Values]
Numbers = NDArray[np.float64]


def behave(values: Values, **terms: Any) -> None:
    behaviour = values.contract.behaviour.model_dump() | terms
    values.contract = Contract.model_validate(
        values.contract.model_dump() | {"behaviour": behaviour}
    )


def answering(change: Callable[[pl.DataFrame, Numbers], Numbers]) -> Callable[[Values], None]:
    """Answers that are changed, given the rows and the model's numbers."""

    def plant(values: Values) -> None:
        answer = values.answer
        values.answer = lambda rows: change(rows, answer(rows))

    return plant


def guess(values: Values) -> None:
    order = np.random.default_rng(0).permutation(len(values.scored))
    wrong = values.scored.take(order)
    values.scored = Scored(values.scored.truth, wrong.prediction, wrong.probability, 2)


def leave_odds(values: Values) -> None:
    scored = values.scored
    values.scored = Scored(scored.truth, scored.prediction, scored.probability * 0.9, 2)


def overstate(values: Values) -> None:
    """Probabilities that are too sure, for one colour."""
    scored = values.scored
    red = (values.test_rows["colour"] == "red").to_numpy()[:, None]
    sure = np.where(red, 1 - scored.probability, scored.probability)
    values.scored = Scored(scored.truth, scored.prediction, sure, 2)


def delay(values: Values) -> None:
    """Numbers that are too large, for one colour."""
    scored = values.scored
    red = (values.test_rows["colour"] == "red").to_numpy()
    values.scored = Scored(scored.truth, scored.prediction + 5 * red)


def forbid_weight(values: Values) -> None:
    behave(values, invariant=["weight"])


def expect_the_contrary(values: Values) -> None:
    behave(values, directional=[{"column": "weight", "set": 20, "expect": "decrease"}])


def fitting(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Values], None]:
    """Training that changes the matrix or the target on their way to the estimator."""

    def plant(values: Values) -> None:
        fit = module.fit

        def other(settings: Any, task: Any, features: Any, matrix: Any, target: Any) -> Any:
            return fit(settings, task, features, *change(matrix, target))

        values.monkeypatch.setattr(module, "fit", other)

    return plant


def train_by_chance(values: Values) -> None:
    models = iter([{"files": {"model.onnx": "a"}}, {"files": {"model.onnx": "b"}}])
    values.monkeypatch.setattr(module, "train", lambda *_, **__: next(models))


@derived(type="number")
def burden(weight: Any) -> Any:
    return np.nan_to_num(weight) * 2


class Burdened:
    """A model that looks at a derived column alone: the heavier, the surer."""

    def __init__(self) -> None:
        column = vars(burden)["__derived_column__"]
        derivation = Derivation((column,), (Source("weight", "number", True),))
        items = (Feature("weight", "number"), Feature("burden", "number"))
        self.features = Features(items, derivation)
        self.manifest = {"classes": [False, True]}

    def predict(self, matrix: Any) -> Predictions:
        sure = 1 / (1 + np.exp(-matrix[:, 1]))
        return Predictions([bool(p > 0.5) for p in sure], np.column_stack([1 - sure, sure]))


def burdened(values: Values, **behaviour: Any) -> Values:
    model = Burdened()
    behave(values, **behaviour)
    values.predictor, values.derivation = model, model.features.derivation
    values.answer = partial(numbers, model)
    values.test_rows = with_derived(values.test_rows, values.derivation)
    values.some_rows = with_derived(values.some_rows, values.derivation)
    return values


def test_terms_of_behaviour_hold_a_derived_column_too(values: Make) -> None:
    direction = "test_the_answers_move_as_the_contract_expects"
    term = {"column": "burden", "set": 50, "expect": "increase"}
    burdened(values(), directional=[term]).call(ModelChecks, direction)

    contrary = burdened(values(), directional=[{**term, "expect": "decrease"}])
    with pytest.raises(AssertionError, match=r"burden = 50\.0 to decrease"):
        contrary.call(ModelChecks, direction)
    with pytest.raises(AssertionError, match="'burden': "):
        burdened(values(), invariant=["burden"]).call(
            ModelChecks, "test_columns_that_the_contract_calls_invariant_do_not_matter"
        )


@pytest.mark.parametrize(
    ("name", "behaviour"),
    [
        (
            "test_columns_that_the_contract_calls_invariant_do_not_matter",
            {"invariant": ["order"]},
        ),
        (
            "test_the_answers_move_as_the_contract_expects",
            {"directional": [{"column": "order", "set": 1, "expect": "increase"}]},
        ),
    ],
)
def test_a_term_on_what_the_model_never_sees_is_refused(
    values: Make, name: str, behaviour: dict[str, Any]
) -> None:
    broken = values()
    behave(broken, **behaviour)

    with pytest.raises(SettingsError, match="order: the model never sees such a column"):
        broken.call(ModelChecks, name)


class Other:
    """A model whose answers for rows without a weight are another's."""

    def __init__(self, predictor: Any, everywhere: bool = False) -> None:
        self.predictor = predictor
        self.manifest, self.features = predictor.manifest, predictor.features
        self.everywhere = everywhere

    def predict(self, matrix: Any) -> Predictions:
        answers = self.predictor.predict(matrix)
        place = self.features.names.index("weight")
        off = np.full(len(matrix), self.everywhere) | np.isnan(matrix[:, place])
        probabilities = np.where(off[:, None], 1 - answers.probabilities, answers.probabilities)
        labels = [bool(p[1] > p[0]) for p in probabilities]
        return Predictions(labels, probabilities)


def serve_another(values: Values) -> None:
    values.predictor = Other(values.predictor, everywhere=True)


def serve_what_ignores_missing_weights(values: Values) -> None:
    values.predictor = Other(values.predictor)


DEFECTS: dict[str, tuple[Callable[[Values], None], str]] = {
    "test_it_beats_a_model_that_ignores_the_features": (guess, "no certain gain"),
    "test_it_answers_when_all_that_may_be_missing_is": (
        answering(
            lambda rows, n: np.where(rows["weight"].is_null().to_numpy()[:, None], np.nan, n)
        ),
        "False",
    ),
    "test_it_answers_for_every_category_and_both_ends_of_every_range": (
        answering(lambda rows, n: np.where((rows["items"] == 9).to_numpy()[:, None], np.inf, n)),
        "False",
    ),
    "test_probabilities_are_shares_of_one": (leave_odds, "Not equal to tolerance"),
    "test_it_does_not_answer_everyone_alike": (answering(lambda _, n: n * 0 + 0.5), "> 0"),
    "test_the_order_of_the_rows_does_not_matter": (
        answering(lambda _, n: n + np.arange(len(n))[:, None]),
        "Not equal to tolerance",
    ),
    "test_a_row_alone_gets_the_answer_that_it_gets_among_others": (
        answering(lambda _, n: n - n.mean(axis=0)),
        "Not equal to tolerance",
    ),
    "test_columns_that_are_no_features_do_not_matter": (
        answering(lambda rows, n: n + rows["price"].to_numpy()[:, None]),
        "Arrays are not equal",
    ),
    "test_columns_that_the_contract_calls_invariant_do_not_matter": (
        forbid_weight,
        "changes answers by up to: {'weight': ",
    ),
    "test_the_answers_move_as_the_contract_expects": (
        expect_the_contrary,
        r"weight = 20.0 to decrease: -0\.",
    ),
    "test_probabilities_come_true_on_every_slice": (overstate, "'colour = red': 0."),
    "test_errors_cancel_out_on_every_slice": (delay, "'colour = red': "),
    "test_it_can_learn_a_small_batch_by_heart": (
        fitting(lambda matrix, target: (matrix[::-1], target)),
        "roc_auc made up for",
    ),
    "test_nothing_is_learnt_from_shuffled_answers": (
        fitting(lambda matrix, target: (matrix, (matrix[:, 1] > 4).astype(int))),
        "assert 0.",
    ),
    "test_training_twice_gives_equal_files": (train_by_chance, "model.onnx"),
    "test_it_answers_as_trained": (serve_another, "== 0"),
    "test_it_answers_as_trained_when_values_are_missing": (
        serve_what_ignores_missing_weights,
        "differ when these are missing: {'weight': 1.0",
    ),
    "test_it_repeats_the_golden_predictions": (serve_another, "assert "),
}


@pytest.fixture
def of_task(values: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Values]:
    """The values for a check of the task that it is about."""

    def make(name: str) -> Values:
        found = values(
            "regression" if name == "test_errors_cancel_out_on_every_slice" else "classification"
        )
        found.monkeypatch = monkeypatch
        return found

    return make


def test_every_check_has_a_defect() -> None:
    assert sorted(DEFECTS) == checks_of(ModelChecks)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_check_fails_and_shows_the_defect(of_task: Callable[[str], Values], name: str) -> None:
    broken = of_task(name)
    plant, words = DEFECTS[name]
    plant(broken)

    with pytest.raises(AssertionError, match=f"(?s){words}"):
        broken.call(ModelChecks, name)


def train_here(folder: Path, hash_seed: str) -> Any:
    """Train in this process, which is quicker; generated projects do it in two."""
    assert hash_seed
    with contextlib.chdir(folder):
        assert subcommand("train")() == 0
        return json.loads(paths.MANIFEST.read_text(encoding="utf-8"))


SKIPPED = {
    "classification": {
        "test_columns_that_the_contract_calls_invariant_do_not_matter": "invariant is empty",
        "test_errors_cancel_out_on_every_slice": "no behaviour.bias_max",
    },
    "regression": {
        "test_columns_that_the_contract_calls_invariant_do_not_matter": "invariant is empty",
        "test_probabilities_are_shares_of_one": "the model gives no probabilities",
        "test_probabilities_come_true_on_every_slice": "or no probabilities",
    },
}


@pytest.mark.parametrize("task", SKIPPED)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_check_holds_for_a_good_model_or_says_why_it_does_not_apply(
    values: Make, monkeypatch: pytest.MonkeyPatch, name: str, task: str
) -> None:
    monkeypatch.setattr(module, "train", train_here)
    if name in SKIPPED[task]:
        with pytest.raises(pytest.skip.Exception, match=SKIPPED[task][name]):
            values(task).call(ModelChecks, name)
    else:
        values(task).call(ModelChecks, name)


def test_a_direction_needs_a_number_or_two_classes(values: Make) -> None:
    broken = values()
    broken.predictor.manifest["classes"] = ["a", "b", "c"]

    with pytest.raises(AssertionError, match="two classes to have a direction"):
        broken.call(ModelChecks, "test_the_answers_move_as_the_contract_expects")


def test_a_bias_needs_a_number(values: Make) -> None:
    broken = values()
    behave(broken, bias_max=1.0)

    with pytest.raises(AssertionError, match="bias_max is for regression"):
        broken.call(ModelChecks, "test_errors_cancel_out_on_every_slice")


def test_a_training_that_fails_is_shown(values: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, b"", b"params.yaml: no such estimator")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)

    with pytest.raises(AssertionError, match="no such estimator"):
        values().call(ModelChecks, "test_training_twice_gives_equal_files")
