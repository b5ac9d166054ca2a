from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from gitops_ml.core.metric_catalogue import BUILT_IN, metric_names
from gitops_ml.model import metrics
from gitops_ml.model.metrics import (
    Estimate,
    MetricError,
    Scored,
    calibration_error,
    calibration_error_by_chance,
    estimate,
    measure,
    resample_counts,
    resample_weights,
)


def classified(rows: int, classes: int, seed: int = 0) -> Scored:
    """Answers with many ties, since probabilities are rounded."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, rows)
    probability = (random.random((rows, classes)) + np.eye(classes)[truth] / 2).round(1) + 0.01
    probability /= probability.sum(axis=1, keepdims=True)
    return Scored(truth, probability.argmax(axis=1), probability, classes)


def regressed(rows: int, seed: int = 0) -> Scored:
    random = np.random.default_rng(seed)
    truth = random.normal(1000, 2, rows)
    return Scored(truth, truth + random.normal(0, 1, rows).round(1))


def interval(found: Estimate) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def expected(name: str, scored: Scored, weights: np.ndarray) -> float:
    truth, prediction, probability = scored.truth, scored.prediction, scored.probability
    if name == "median_absolute_error":
        return float(np.median(np.repeat(np.abs(truth - prediction), weights.astype(int))))
    if name == "f1_macro":
        return reference.f1_score(truth, prediction, average="macro", sample_weight=weights)
    functions = {
        "accuracy": reference.accuracy_score,
        "balanced_accuracy": reference.balanced_accuracy_score,
        "r2": reference.r2_score,
        "mae": reference.mean_absolute_error,
        "rmse": reference.root_mean_squared_error,
    }
    if name in functions:
        return functions[name](truth, prediction, sample_weight=weights)
    assert probability is not None
    shown = probability[:, 1] if scored.classes == 2 else probability
    if name == "log_loss":
        return reference.log_loss(truth, probability, sample_weight=weights)
    if name == "brier":
        return reference.brier_score_loss(truth, shown, sample_weight=weights)
    if name == "roc_auc":
        return reference.roc_auc_score(truth, shown, multi_class="ovr", sample_weight=weights)
    labels = truth if scored.classes == 2 else np.eye(scored.classes)[truth]
    return reference.average_precision_score(labels, shown, sample_weight=weights)


@pytest.mark.parametrize("rows", [40, 900])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", sorted(metric_names("classification")))
def test_classification_metrics_equal_scikit_learns(name: str, classes: int, rows: int) -> None:
    scored = classified(rows, classes)
    weights = np.random.default_rng(1).integers(0, 4, (3, rows)).astype(float)

    np.testing.assert_allclose(
        measure(name, scored, weights), [expected(name, scored, row) for row in weights]
    )
    np.testing.assert_allclose(measure(name, scored), expected(name, scored, np.ones(rows)))


@pytest.mark.parametrize("name", sorted(metric_names("regression")))
def test_regression_metrics_equal_scikit_learns(name: str) -> None:
    scored = regressed(301)
    weights = np.random.default_rng(1).integers(0, 4, (3, 301)).astype(float)

    np.testing.assert_allclose(
        measure(name, scored, weights), [expected(name, scored, row) for row in weights]
    )
    np.testing.assert_allclose(measure(name, scored), expected(name, scored, np.ones(301)))


def test_every_metric_that_settings_know_can_be_measured() -> None:
    for name in BUILT_IN:
        scored = regressed(30) if name in metric_names("regression") else classified(30, 3)
        assert np.isfinite(measure(name, scored)).all()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_perfect_model_is_best_in_the_metrics_direction(name: str) -> None:
    if name in metric_names("regression"):
        worse = regressed(60)
        perfect = Scored(worse.truth, worse.truth)
    else:
        worse = classified(60, 3)
        perfect = Scored(worse.truth, worse.truth, np.eye(3)[worse.truth], 3)

    gain = measure(name, perfect)[0] - measure(name, worse)[0]

    assert gain * BUILT_IN[name].direction > 0


def test_certain_and_wrong_costs_much_but_not_infinitely() -> None:
    scored = Scored(np.array([0]), np.array([1]), np.array([[0.0, 1.0]]), 2)

    assert 15 < measure("log_loss", scored)[0] < 17


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "log_loss", "brier"])
def test_metrics_of_probabilities_refuse_a_model_without_them(name: str) -> None:
    scored = Scored(np.array([0, 1]), np.array([0, 1]), None, 2)

    with pytest.raises(MetricError, match=f"{name} needs probabilities"):
        measure(name, scored)
    assert measure("accuracy", scored)[0] == 1


def test_resamples_draw_each_row_as_often_as_others_and_repeat() -> None:
    counts = np.concatenate(list(resample_counts(50, 4000, seed=3)))

    assert counts.shape == (4000, 50)
    assert (counts.sum(axis=1) == 50).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(counts.var(axis=0), 1, atol=0.15)
    again = np.concatenate(list(resample_counts(50, 4000, seed=3)))
    np.testing.assert_array_equal(counts, again)
    assert not np.array_equal(counts[:10], next(resample_counts(50, 10, seed=4)))


def test_blocks_bound_the_memory_and_keep_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", 500)

    blocks = list(resample_counts(100, 12, seed=0))

    assert [len(block) for block in blocks] == [5, 5, 2]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        scored = Scored(np.zeros(60), random.normal(0, 1, 60))
        found = estimate(["mae"], scored, confidence=0.8, resamples=200, seed=seed)["mae"]
        low, high = interval(found)
        assert low < found.value < high
        covered += low < np.sqrt(2 / np.pi) < high

    assert 0.7 < covered / 150 < 0.88


def test_more_rows_and_less_confidence_make_the_interval_narrower() -> None:
    def width(rows: int, confidence: float) -> float:
        found = estimate(["roc_auc"], classified(rows, 2), confidence, 300, 0)["roc_auc"]
        low, high = interval(found)
        return high - low

    assert width(2000, 0.95) < width(200, 0.95) / 2
    assert width(200, 0.5) < width(200, 0.95) / 2


def test_copies_of_rows_say_no_more_than_the_rows() -> None:
    rows = classified(200, 2)
    copies = rows.take(np.repeat(np.arange(200), 5))
    groups = np.repeat(np.arange(200), 5)

    def width(scored: Scored, groups: np.ndarray | None = None) -> float:
        low, high = interval(estimate(["brier"], scored, 0.9, 400, 0, groups)["brier"])
        return high - low

    assert width(copies, groups) == pytest.approx(width(rows))
    assert width(copies) < width(rows) / 1.8


def test_grouped_blocks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", 500)

    blocks = list(resample_weights(100, 12, 0, np.arange(100) % 10))

    assert sum(len(block) for block in blocks) == 12
    assert max(block.size for block in blocks) <= 500
    for block in blocks:
        np.testing.assert_array_equal(block[:, :10], block[:, 90:])


def test_what_cannot_be_measured_is_null_with_the_reason() -> None:
    some = classified(200, 2)
    one_class = some.take(some.truth == 1)

    found = estimate(["roc_auc", "brier"], one_class, 0.95, 100, 0)

    assert found["roc_auc"].as_json() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": f"1 of 2 classes in {len(one_class)} rows",
    }
    assert found["brier"].value is not None
    assert "reason" not in found["brier"].as_json()


def test_too_few_of_a_class_give_a_value_without_an_interval() -> None:
    scored = Scored(np.array([0, 1, 2]), np.array([0, 1, 2]), np.eye(3), 3)

    found = estimate(["roc_auc"], scored, 0.95, 200, 0)["roc_auc"]

    assert found.value == 1
    assert found.low is None
    assert found.reason is not None


def test_constant_numbers_have_no_r2() -> None:
    scored = Scored(np.full(20, 3.0), np.full(20, 2.0))

    found = estimate(["r2", "mae"], scored, 0.95, 100, 0)

    assert found["r2"].reason == "no spread in 20 rows"
    assert found["mae"].value == 1


def test_calibration_error_is_the_gap_between_what_is_said_and_what_happens() -> None:
    random = np.random.default_rng(0)
    probability = random.random(20_000)
    truth = (random.random(20_000) < probability).astype(int)

    def stated(said: np.ndarray) -> Scored:
        return Scored(truth, (said > 0.5).astype(int), np.column_stack([1 - said, said]), 2)

    honest, shy = stated(probability), stated(probability / 2)

    assert calibration_error(honest) < 0.015
    assert calibration_error(shy) == pytest.approx(0.25, abs=0.02)
    assert calibration_error(honest) < calibration_error_by_chance(honest, 0.99, seed=1) < 0.02
    assert calibration_error(shy) > calibration_error_by_chance(shy, 0.99, seed=1)


def test_few_rows_have_a_large_calibration_error_by_chance() -> None:
    scored = classified(30, 2)

    assert calibration_error_by_chance(scored, 0.95, seed=1) > 0.15


def test_calibration_of_many_classes_is_that_of_the_predicted_one() -> None:
    truth = np.array([0, 1, 2, 2] * 50)
    probability = np.tile([0.1, 0.2, 0.7], (200, 1))
    scored = Scored(truth, np.full(200, 2), probability, 3)

    assert calibration_error(scored, bins=1) == pytest.approx(0.2)
