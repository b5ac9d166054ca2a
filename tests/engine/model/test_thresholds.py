"""Trees whose float64 thresholds the nearest float32 number exceeds, before and after the export.

The features hold every third float32 number from 1024 on. Half way between two of them is a tie
that rounds up every other time, to a number that no row of the table holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.base import BaseEstimator, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from gitops_ml.features.encode import Feature, Features, Matrix
from gitops_ml.model import export, thresholds
from gitops_ml.model.converters import round_down
from gitops_ml.model.export import convert, export_onnx
from gitops_ml.model.predictor import OnnxPredictor, chosen
from gitops_ml.model.thresholds import split_rows

STEP = 2.0**-13  # between float32 numbers from 1024 to 2048
VALUES = 40
FEATURES = Features((Feature("a", "number"), Feature("b", "number")))


def table() -> tuple[Matrix, Any]:
    random = np.random.default_rng(0)
    third = random.integers(0, VALUES, (600, 2))
    score = 3 * np.sin(third[:, 0] * 1.7) + np.cos(third[:, 1] * 2.3)
    return (1024 + 3 * STEP * third).astype(np.float32), score


def every_row() -> Matrix:
    """Each float32 number of the range and one beyond either end, with each of the others."""
    numbers = 1024 + STEP * np.arange(-1, 3 * VALUES)
    return np.stack(np.meshgrid(numbers, numbers), axis=-1).reshape(-1, 2).astype(np.float32)


def hist(kind: type[BaseEstimator]) -> BaseEstimator:
    return kind(max_iter=5, max_leaf_nodes=15, random_state=0)


def small_hist_classifier() -> BaseEstimator:
    return hist(HistGradientBoostingClassifier)


def small_hist_regressor() -> BaseEstimator:
    return hist(HistGradientBoostingRegressor)


def tree(kind: type[BaseEstimator]) -> BaseEstimator:
    return kind(max_depth=5, random_state=0)


HIST: dict[str, Callable[[], BaseEstimator]] = {
    "hist classifier": small_hist_classifier,
    "hist regressor": small_hist_regressor,
    "bagged hist classifier": lambda: BaggingClassifier(
        small_hist_classifier(), n_estimators=2, random_state=0
    ),
    "bagged hist regressor": lambda: BaggingRegressor(
        small_hist_regressor(), n_estimators=2, max_features=1, random_state=0
    ),
    "voting classifier": lambda: VotingClassifier(
        [("hist", small_hist_classifier()), ("tree", tree(DecisionTreeClassifier))],
        voting="soft",
        flatten_transform=False,
    ),
    "voting regressor": lambda: VotingRegressor(
        [("hist", small_hist_regressor()), ("tree", tree(DecisionTreeRegressor))]
    ),
    "stacking classifier": lambda: StackingClassifier([("hist", small_hist_classifier())], cv=2),
    "stacking regressor": lambda: StackingRegressor([("hist", small_hist_regressor())], cv=2),
    "calibrated hist": lambda: CalibratedClassifierCV(small_hist_classifier(), cv=2),
    "searched hist": lambda: GridSearchCV(small_hist_regressor(), {"max_depth": [4]}, cv=2),
    "one hist for each class": lambda: OneVsRestClassifier(small_hist_classifier()),
}
OTHERS: dict[str, Callable[[], BaseEstimator]] = {
    "boosted classifier": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
    "boosted regressor": lambda: GradientBoostingRegressor(n_estimators=5, random_state=0),
    "forest classifier": lambda: RandomForestClassifier(5, random_state=0),
    "forest regressor": lambda: RandomForestRegressor(5, random_state=0),
    "extra trees classifier": lambda: ExtraTreesClassifier(5, random_state=0),
    "extra trees regressor": lambda: ExtraTreesRegressor(5, random_state=0),
    "tree classifier": lambda: DecisionTreeClassifier(random_state=0),
    "tree regressor": lambda: DecisionTreeRegressor(random_state=0),
    "extra tree classifier": lambda: ExtraTreeClassifier(random_state=0),
    "extra tree regressor": lambda: ExtraTreeRegressor(random_state=0),
    "adaboost classifier": lambda: AdaBoostClassifier(
        tree(DecisionTreeClassifier), n_estimators=3, random_state=0
    ),
    "adaboost regressor": lambda: AdaBoostRegressor(
        tree(DecisionTreeRegressor), n_estimators=3, random_state=0
    ),
    "bagged trees": lambda: BaggingClassifier(
        tree(DecisionTreeClassifier), n_estimators=3, random_state=0
    ),
    "calibrated tree": lambda: CalibratedClassifierCV(tree(DecisionTreeClassifier), cv=2),
}
EVERY = HIST | OTHERS


def fitted(make: Callable[[], BaseEstimator], classes: int = 3) -> tuple[Pipeline, str, Matrix]:
    matrix, score = table()
    estimator = make()
    if not is_classifier(estimator):
        return Pipeline([("estimator", estimator)]).fit(matrix, score), "regression", matrix
    places = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))
    return Pipeline([("estimator", estimator)]).fit(matrix, places), "classification", matrix


def differing(pipeline: Pipeline, model: bytes) -> float:
    """The share of all rows that both answer differently."""
    rows = every_row()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": rows})
    classifies = is_classifier(pipeline)
    expected = pipeline.predict_proba(rows) if classifies else pipeline.predict(rows)
    off = np.abs(found.reshape(expected.shape) - expected).reshape(len(rows), -1).max(axis=1)
    return float(np.mean(off > 1e-4))


@pytest.fixture
def rounds_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that leaves thresholds to be rounded to the nearest float32 number."""
    monkeypatch.setattr(export, "in_single_precision", lambda pipeline: (pipeline, []))
    monkeypatch.setattr(
        "skl2onnx.common.tree_ensemble.sklearn_threshold", lambda threshold, *_: threshold
    )


def test_thresholds_are_rounded_down() -> None:
    for exact, expected in [
        (0.5, 0.5),
        (1024 + 1.5 * STEP, 1024 + STEP),
        (-1024 - 1.25 * STEP, -1024 - 2 * STEP),
        (-1e-60, -float(np.finfo(np.float32).smallest_subnormal)),
        (1e60, float(np.finfo(np.float32).max)),
        (np.inf, np.inf),
    ]:
        found = round_down(np.array([exact]))
        assert found.dtype == np.float32
        assert found.tolist() == [expected]


@pytest.mark.parametrize("name", EVERY)
def test_an_export_answers_the_same_at_every_number(name: str) -> None:
    pipeline, task, matrix = fitted(EVERY[name])

    found = export_onnx(pipeline, task, matrix, [], FEATURES)

    assert found.model is not None, found.parity
    assert differing(pipeline, found.model) == 0


@pytest.mark.parametrize(
    "name", [name for name in EVERY if name.endswith("classifier")] + ["calibrated hist"]
)
def test_an_export_for_two_classes_answers_the_same_at_every_number(name: str) -> None:
    pipeline, task, matrix = fitted(EVERY[name], classes=2)

    found = export_onnx(pipeline, task, matrix, [], FEATURES)

    assert found.model is not None, found.parity
    assert differing(pipeline, found.model) == 0


def test_so_does_a_classifier_with_a_tuned_threshold() -> None:
    pipeline, task, matrix = fitted(
        lambda: TunedThresholdClassifierCV(small_hist_classifier(), cv=2), classes=2
    )

    found = export_onnx(pipeline, task, matrix, [], FEATURES)

    assert found.model is not None, found.parity
    assert differing(pipeline, found.model) == 0


@pytest.mark.usefixtures("rounds_to_nearest")
@pytest.mark.parametrize("name", EVERY)
def test_an_export_with_thresholds_rounded_to_the_nearest_is_refused(name: str) -> None:
    pipeline, task, matrix = fitted(EVERY[name])
    assert differing(pipeline, convert(pipeline, task, 2)) > 0

    found = export_onnx(pipeline, task, matrix, [], FEATURES)

    assert found.model is None
    assert "ONNX answers differ by" in found.parity["reason"]


def test_the_table_alone_would_not_show_it(
    rounds_to_nearest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "split_rows", lambda _, matrix, *__: matrix[:0])
    pipeline, task, matrix = fitted(small_hist_regressor)

    assert export_onnx(pipeline, task, matrix, [], FEATURES).model is not None


def test_the_fitted_pipeline_keeps_its_thresholds() -> None:
    pipeline, task, _ = fitted(small_hist_regressor)
    before = pipeline.predict(every_row())
    nodes = pipeline.named_steps["estimator"]._predictors[0][0].nodes.copy()

    convert(pipeline, task, 2)

    np.testing.assert_array_equal(pipeline.named_steps["estimator"]._predictors[0][0].nodes, nodes)
    np.testing.assert_array_equal(pipeline.predict(every_row()), before)


def test_probes_hold_each_threshold_and_its_neighbours() -> None:
    pipeline, task, matrix = fitted(lambda: tree(DecisionTreeRegressor))
    found = pipeline.named_steps["estimator"].tree_
    is_split = found.children_left >= 0

    rows = split_rows(convert(pipeline, task, 2), matrix, FEATURES)

    assert is_split.sum() > 10
    for feature, threshold in zip(
        found.feature[is_split], found.threshold[is_split].astype(np.float32), strict=True
    ):
        values = set(rows[:, feature].tolist())
        below, above = np.nextafter(threshold, np.float32([-np.inf, np.inf]))
        assert {float(below), float(threshold), float(above)} <= values
    again = split_rows(convert(pipeline, task, 2), matrix, FEATURES)
    np.testing.assert_array_equal(again, rows)


def test_probes_come_to_the_split_that_they_probe() -> None:
    """On either side of it the tree answers differently."""
    pipeline, task, matrix = fitted(lambda: tree(DecisionTreeRegressor))

    probes = split_rows(convert(pipeline, task, 2), matrix, FEATURES).reshape(4, -1, 2)

    below, above = pipeline.predict(probes[1]), pipeline.predict(probes[2])
    assert (below != above).all()


def test_many_splits_are_probed_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, task, matrix = fitted(lambda: DecisionTreeRegressor(random_state=0))
    model = convert(pipeline, task, 2)
    every = split_rows(model, matrix, FEATURES)
    monkeypatch.setattr(thresholds, "SPLITS", 10)

    rows = split_rows(model, matrix, FEATURES)

    assert len(every) > 200
    assert len(rows) == 4 * 10
    ends = [int(np.argmin(every[:, 0])), int(np.argmax(every[:, 1]))]
    assert rows[:, 0].min() == every[ends[0], 0]
    assert rows[:, 1].max() == every[ends[1], 1]


def test_splits_behind_a_scaler_are_probed_in_front_of_it() -> None:
    matrix, score = table()
    model = make_pipeline(StandardScaler(), tree(DecisionTreeRegressor)).fit(matrix, score)
    pipeline = Pipeline([("estimator", model)])

    probes = split_rows(convert(pipeline, "regression", 2), matrix, FEATURES).reshape(4, -1, 2)

    assert len(probes[0]) > 10
    assert (pipeline.predict(probes[1]) != pipeline.predict(probes[2])).all()
    found = export_onnx(pipeline, "regression", matrix, [], FEATURES)
    assert found.model is not None
    assert differing(pipeline, found.model) == 0


def test_a_scaler_that_ends_on_other_numbers_is_refused() -> None:
    """This one computes in float64 in scikit-learn and in float32 in ONNX."""
    matrix, score = table()
    model = make_pipeline(RobustScaler(), RandomForestRegressor(5, random_state=0))
    pipeline = Pipeline([("estimator", model.fit(matrix, score))])
    assert differing(pipeline, convert(pipeline, "regression", 2)) > 0

    found = export_onnx(pipeline, "regression", matrix, [], FEATURES)

    assert found.model is None
    assert "ONNX answers differ by" in found.parity["reason"]


def test_splits_by_category_are_refused() -> None:
    """The converter takes the place of a category for a number."""
    random = np.random.default_rng(0)
    matrix = np.column_stack([random.integers(0, 6, 400), random.random(400)]).astype(np.float32)
    truth = np.isin(matrix[:, 0], [1, 4]) * 2.0 + matrix[:, 1]
    features = Features((Feature("a", "category", tuple("uvwxyz")), Feature("b", "number")))
    estimator = HistGradientBoostingRegressor(max_iter=5, categorical_features=[0])
    pipeline = Pipeline([("estimator", estimator.fit(matrix, truth))])

    assert export_onnx(pipeline, "regression", matrix, [], features).model is None


def test_missing_values_lead_where_they_led() -> None:
    matrix, score = table()
    matrix[::7, 0] = np.nan
    pipeline = Pipeline([("estimator", small_hist_regressor().fit(matrix, score))])

    found = export_onnx(pipeline, "regression", matrix, [0, 1], FEATURES)

    assert found.model is not None, found.parity
    assert differing(pipeline, found.model) == 0


def test_trees_that_can_all_be_certain_of_another_class_are_refused() -> None:
    """Where each of them says 0, the converter's sum is 0, and its answer no number."""
    matrix, _ = table()
    places = np.digitize(matrix[:, 0], np.quantile(matrix[:, 0], [0.33, 0.66]))
    # Each by a column of its own, so that a row can have what speaks against every class.
    marked = np.eye(3, dtype=np.float32)[places]
    estimator = OneVsRestClassifier(DecisionTreeClassifier(random_state=0)).fit(marked, places)
    pipeline = Pipeline([("estimator", estimator)])
    features = Features(tuple(Feature(name, "number") for name in "abc"))

    found = export_onnx(pipeline, "classification", marked, [], features)

    assert estimator.predict_proba(np.zeros((1, 3), dtype=np.float32)).sum() == 0
    assert found.model is None
    assert "can all be certain of another class" in found.parity["reason"]
    two = Pipeline([("estimator", estimator.fit(marked, places > 0))])
    assert export_onnx(two, "classification", marked, [], features).model is not None


def test_a_missing_value_that_goes_astray_at_one_split_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The converter lets it fail the comparison; the tree, by where most rows went, lets it pass.

    Few rows come to that split, and none of the first ones.
    """
    random = np.random.default_rng(0)
    matrix = random.random((600, 2)).astype(np.float32)
    matrix[:, 0] = np.arange(600) >= 590
    truth = np.where(matrix[:, 0] > 0.5, 2.0 + (matrix[:, 1] > 0.8), 1.0)
    truth[:590] += random.normal(0, 1e-9, 590)
    matrix[590:, 1] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.9, 0.95]
    truth[590:] = [2, 2, 2, 2, 2, 2, 2, 2, 3, 3]
    estimator = DecisionTreeRegressor(max_leaf_nodes=3, random_state=0)
    pipeline = Pipeline([("estimator", estimator.fit(matrix, truth))])

    found = export_onnx(pipeline, "regression", matrix, [1], FEATURES)

    assert found.model is None
    assert "ONNX answers differ by" in found.parity["reason"]
    monkeypatch.setattr(thresholds, "_without", lambda rows, *_: rows[:0])
    assert export_onnx(pipeline, "regression", matrix, [1], FEATURES).model is not None


def forest_of_votes() -> tuple[Pipeline, Matrix]:
    """Trees whose leaves are pure: shares are whole hundredths, and many are equal to one."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(1_500, 2)).astype(np.float32)
    truth = random.random(1_500) < 0.3 + 0.4 * (matrix[:, 0] > 0)
    forest = RandomForestClassifier(100, random_state=0).fit(matrix, truth.astype(int))
    return Pipeline([("estimator", forest)]), random.normal(size=(5_000, 2)).astype(np.float32)


def test_probabilities_that_equal_the_threshold_choose_the_class_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In single precision a hundred votes add up to 0.29999998 or to 0.3."""
    pipeline, rows = forest_of_votes()
    for threshold in (0.3, 0.5, 0.7, None):
        manifest = {"classes": [0, 1], "probabilities": True, "threshold": threshold}
        expected = chosen(pipeline.predict_proba(rows), threshold).tolist()
        found = export_onnx(pipeline, "classification", rows, [], FEATURES, threshold=threshold)
        assert found.model is not None, found.parity
        onnx = OnnxPredictor(found.model, manifest | {"served": "model.onnx"}, FEATURES)
        assert onnx.predict(rows).labels == expected

    monkeypatch.setattr(export, "SLACK", 0.0)
    found = export_onnx(pipeline, "classification", rows, [], FEATURES, threshold=0.3)
    assert found.model is None
    assert found.parity["reason"] == "ONNX gives some rows another class, or no finite number"


def test_a_model_without_trees_has_no_splits() -> None:
    pipeline, task, matrix = fitted(LinearRegression)

    assert split_rows(convert(pipeline, task, 2), matrix, FEATURES).shape == (0, 2)
