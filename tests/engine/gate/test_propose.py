from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import polars as pl
import pytest
import yaml
from commands import subcommand

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.settings import Contract, Params, parse_settings
from gitops_ml.features.encode import Feature, Features
from gitops_ml.gate import propose as proposal
from gitops_ml.gate.challenger import Challenger
from gitops_ml.gate.judgement import Judge
from gitops_ml.gate.propose import (
    Retrained,
    _judged_seeds,
    bound_for,
    contract_text,
    margin_for,
)
from gitops_ml.gate.retraining_noise import Part, spread_of
from gitops_ml.model.metrics import Scored, estimate

main = subcommand("contract")

ROWS = 900
NOT_RETRAINED = Retrained()
CITY = np.repeat(["north", "south", "tiny"], [500, 380, 20])


@dataclass
class Quick:
    """A model that answers at once."""

    manifest: dict[str, Any]
    features: Features

    def predict(self, matrix: Any) -> Any:
        return None


def params(task: str, time: str | None) -> Params:
    return Params.model_validate(
        {
            "task": task,
            "target": "y",
            "data": {"source": "data", "time": time, "as_of": "2024-02-01T00:00:00Z"},
            "train": {"estimator": "sklearn.dummy.DummyClassifier"},
            "evaluate": {
                "metrics": ["roc_auc", "log_loss"] if task == "classification" else ["mae", "r2"],
                "slices": ["the city"],
            },
        }
    )


def scored(task: str) -> Scored:
    random = np.random.default_rng(5)
    if task == "regression":
        truth = random.normal(10, 3, ROWS)
        return Scored(truth, truth + random.normal(0.2, 1, ROWS))
    stated = random.random(ROWS)
    truth = (random.random(ROWS) < stated).astype(np.int64)
    return Scored(truth, (stated > 0.5).astype(np.int64), np.column_stack([1 - stated, stated]), 2)


def proposed(
    task: str,
    time: str | None = "when",
    heat: Any = range(30),
    models: Retrained = NOT_RETRAINED,
) -> tuple[Contract, str, Challenger]:
    wanted, answers = params(task, time), scored(task)

    def measured(part: Scored) -> dict[str, Any]:
        found = estimate(wanted.evaluate.metrics, part, 0.95, 200, seed=1)
        return {name: one.as_json() for name, one in found.items()}

    challenger = Challenger(
        locked=LockedOutput("hash", "train"),
        predictor=Quick({"served": "model.onnx"}, Features((Feature("x", "number"),))),  # type: ignore[arg-type]
        size=2_300_000,
        test=pl.DataFrame({"x": np.ones(ROWS), "the city": CITY}),
        scored=answers,
    )
    evaluation = {
        "metrics": measured(answers),
        "slices": [
            {
                "column": "the city",
                "value": city,
                "rows": int((city == CITY).sum()),
                "metrics": measured(answers.take(city == CITY)),
            }
            for city in ("north", "south", "tiny")
        ],
    }
    start = pl.datetime_range(
        pl.datetime(2024, 1, 1, time_zone="UTC"),
        pl.datetime(2024, 1, 30, time_zone="UTC"),
        interval="1d",
        eager=True,
    )
    text = contract_text(
        wanted,
        evaluation,
        challenger,
        pl.DataFrame({"when": start, "x": heat, "y": 30 * [1.5]}),
        models,
    )
    return parse_settings(text, Contract, "contract.yaml"), text, challenger


def test_a_contract_that_is_replaced_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = proposed("classification")
    for name in ("load_params", "load_challenger", "current_model", "read_table"):
        monkeypatch.setattr(proposal, name, MagicMock())
    monkeypatch.setattr(proposal, "contract_text", lambda *_: text)
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()
    paths.EVALUATION.write_text("{}", encoding="utf-8")
    paths.CONTRACT.write_text("ours", encoding="utf-8")

    assert main(["--propose", "--force", "--seeds", "0"]) == 0
    assert "contract.yaml.bak" in capsys.readouterr().out
    assert Path("contract.yaml.bak").read_text(encoding="utf-8") == "ours"
    assert paths.CONTRACT.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_evaluated_model_holds_what_is_proposed_and_a_worse_one_does_not(task: str) -> None:
    contract, _, challenger = proposed(task)
    court = Judge(challenger.scored, None, contract.model.confidence)
    findings = [
        *court.metrics(contract.model.metrics),
        *court.slices(contract.model.slices, challenger.test),
    ]
    assert [found.failures for found in findings if found.failures] == []
    assert {found.value for found in findings} == {None, "north", "south"}
    random = np.random.default_rng(0).permutation(ROWS)
    guess = challenger.scored.take(random)
    wrong = Scored(challenger.scored.truth, guess.prediction, guess.probability, guess.classes)
    worse = Judge(wrong, None, 0.95)
    assert all(found.failures for found in worse.metrics(contract.model.metrics))
    assert all(found.failures for found in worse.slices(contract.model.slices, challenger.test))


def retrained(spread: float) -> Retrained:
    """Models that differ by this, and in the south by three times as much."""
    base = scored("regression")
    inside = np.where(CITY == "south", 3.0, 1.0)
    random = np.random.default_rng(8)
    models = []
    for shift in random.normal(0, spread, 8):
        wrong = base.prediction - base.truth
        further = base.truth + wrong + np.sign(wrong) * shift * inside[: len(wrong)]
        models.append(Scored(base.truth, further))
    return Retrained(models, pl.DataFrame({"the city": CITY}))


def test_margins_leave_room_for_what_lies_between_models_of_the_same_recipe() -> None:
    plain, _, _ = proposed("regression")
    models = retrained(0.05)
    contract, _, _ = proposed("regression", models=models)
    spread = spread_of(Part("mae", np.ones(ROWS, dtype=np.bool_)), models.answers, 0.95, None)
    assert spread is not None
    mae = contract.model.metrics["mae"]
    # Two metrics, and the first one in two cities.
    assert mae.margin == pytest.approx(spread.margin(4), rel=0.1)
    assert mae.margin != plain.model.metrics["mae"].margin
    assert mae.erosion == pytest.approx(2 * mae.margin)
    (part,) = contract.model.slices
    south = spread_of(Part("mae", CITY == "south"), models.answers, 0.95, None)
    assert south is not None
    # From the worst of the slice's own values, not from the whole.
    assert part.margin == pytest.approx(south.margin(4), rel=0.1)
    assert part.margin > 1.4 * mae.margin


def test_where_means_are_judged_the_margins_are_those_of_means() -> None:
    one, several = retrained(0.05), replace(retrained(0.05), judged=4)
    plain, text, _ = proposed("regression", models=one)
    assert "seeds" not in text
    contract, _, _ = proposed("regression", models=several)
    assert contract.model.seeds == 4
    for name, terms in contract.model.metrics.items():
        before = plain.model.metrics[name].margin
        assert terms.margin is not None
        assert before is not None
        assert terms.margin < before


def test_the_contract_that_is_replaced_says_what_is_judged(project: Path) -> None:
    assert _judged_seeds(project) == 1
    contract, text, _ = proposed("regression", models=replace(retrained(0.05), judged=4))
    (project / paths.CONTRACT).write_text(text, encoding="utf-8")
    assert _judged_seeds(project) == contract.model.seeds
    (project / paths.CONTRACT).write_text("model: {}", encoding="utf-8")
    assert _judged_seeds(project) == 1


def test_rows_on_which_a_metric_does_not_exist_tell_no_margin() -> None:
    one_class = [
        Scored(np.zeros(ROWS, dtype=np.int64), np.zeros(ROWS, dtype=np.int64), stated, 2)
        for stated in (np.full((ROWS, 2), 0.5), np.full((ROWS, 2), 0.6), np.full((ROWS, 2), 0.7))
    ]
    models = Retrained(one_class, pl.DataFrame({"the city": CITY}))
    assert models.margin("roc_auc", np.ones(ROWS, dtype=np.bool_), 3) is None


def test_models_that_do_not_differ_leave_margins_to_the_intervals() -> None:
    _, text, _ = proposed("regression")
    assert proposed("regression", models=retrained(0.0))[1] == text


def test_limits_leave_room_and_are_round() -> None:
    contract, text, _ = proposed("classification")
    assert contract.model.size_mb == 7
    assert contract.model.latency_p99_ms == 5
    assert contract.data.rows_min == 10
    assert contract.data.freshness_days == 7
    assert contract.data.test_rows_changed == 0.01
    assert contract.data.target_drift == 0.05
    assert contract.data.duplicate_rows_max == 0.01
    assert contract.data.row_count_change is not None
    assert 0.05 <= (contract.behaviour.calibration_error_max or 0) < 0.3
    assert contract.behaviour.bias_max is None
    assert text.startswith("# yaml-language-server: $schema=contract.schema.json\n")
    assert "# one row, in process" in text


def test_a_regression_gets_a_bias_and_ceilings() -> None:
    contract, _, challenger = proposed("regression", time=None)
    errors = challenger.scored.prediction - challenger.scored.truth
    assert contract.behaviour.bias_max is not None
    assert abs(errors.mean()) < contract.behaviour.bias_max < 1
    assert contract.behaviour.calibration_error_max is None
    assert contract.data.freshness_days is None
    mae = contract.model.metrics["mae"]
    assert mae.floor is None
    assert mae.ceiling is not None
    assert mae.ceiling > np.abs(errors).mean()


def test_all_steps_together_may_lose_twice_what_one_may() -> None:
    contract, text, _ = proposed("classification")
    for terms in contract.model.metrics.values():
        assert terms.margin is not None
        assert terms.erosion == pytest.approx(2 * terms.margin)
    assert "make reference" in text


def test_a_margin_is_a_share_of_the_interval_and_never_nothing() -> None:
    assert margin_for({"value": 0.8, "low": 0.78, "high": 0.82}) == 0.01
    assert margin_for({"value": 1.0, "low": 1.0, "high": 1.0}) == 0.005
    assert margin_for({"value": 40.0, "low": None, "high": None}) == 0.2


@pytest.mark.parametrize(
    ("metric", "found", "bound"),
    [
        ("roc_auc", {"value": 0.8, "low": 0.7656, "high": 0.83}, ("floor", 0.765)),
        ("roc_auc", {"value": 1.0, "low": 1.0, "high": 1.0}, ("floor", 0.995)),
        ("roc_auc", {"value": 0.8, "low": None, "high": None}, ("floor", 0.795)),
        ("mae", {"value": 12.0, "low": 11.0, "high": 13.021}, ("ceiling", 13.1)),
        ("r2", {"value": -0.1, "low": -0.2222, "high": 0.1}, ("floor", -0.223)),
    ],
)
def test_a_bound_is_the_far_end_of_the_interval_rounded_away(
    metric: str, found: dict[str, Any], bound: tuple[str, float]
) -> None:
    assert bound_for(metric, [found], margin=0.005) == bound


def test_the_worst_slice_sets_the_bound() -> None:
    found = [{"value": 0.8, "low": 0.7, "high": 0.9}, {"value": 0.7, "low": 0.6, "high": 0.8}]
    assert bound_for("accuracy", found, margin=0.01) == ("floor", 0.6)


def test_rows_that_are_alike_by_nature_may_be_so() -> None:
    few, _, _ = proposed("classification", heat=[0, *range(29)])
    assert few.data.duplicate_rows_max == 0.067
    many, text, _ = proposed("classification", heat=30 * [1])
    assert many.data.duplicate_rows_max is None
    assert "duplicate_rows_max" not in text


def test_the_proposal_is_yaml_with_its_comments() -> None:
    _, text, _ = proposed("classification")
    assert yaml.safe_load(text)["model"]["slices"][0]["column"] == "the city"
    assert text.count("#") >= 8
