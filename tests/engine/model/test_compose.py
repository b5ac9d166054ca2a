"""Compositions in `params.yaml`, an estimator of the user's own, and the decision threshold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import PROJECT_TEMPLATE
from projects import forget_package

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.core.user_code import user_code
from gitops_ml.features.encode import Features
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model.compose import load_estimator
from gitops_ml.model.evaluate import baseline
from gitops_ml.model.predict import score_target
from gitops_ml.model.predictor import chosen, load_predictor
from gitops_ml.model.train import train, write

Orders = Callable[..., pl.DataFrame]
MakeParams = Callable[..., Params]

MEDIAN = {"categories": "one_hot", "missing": "median", "scale": True}
KEEP = {"categories": "ordinal", "missing": "keep"}
LINEAR = "sklearn.linear_model.LogisticRegression"
TREES = "sklearn.ensemble.HistGradientBoostingClassifier"
TUNED = "sklearn.model_selection.TunedThresholdClassifierCV"
PARTS = {"a": {"class": LINEAR}, "b": {"class": TREES, "max_iter": 10}}


@pytest.mark.parametrize(
    ("estimator", "hyperparameters", "preprocessing", "served"),
    [
        (
            "sklearn.pipeline.Pipeline",
            {
                "steps": {
                    "scale": {"class": "sklearn.preprocessing.StandardScaler"},
                    "model": {"class": LINEAR, "C": 0.1},
                }
            },
            MEDIAN,
            "model.onnx",
        ),
        (
            "sklearn.calibration.CalibratedClassifierCV",
            {"cv": 3, "estimator": {"class": TREES, "max_iter": 10}},
            KEEP,
            "model.onnx",
        ),
        (
            "sklearn.model_selection.GridSearchCV",
            {"cv": 3, "param_grid": {"C": [0.1, 1.0]}, "estimator": {"class": LINEAR}},
            MEDIAN,
            "model.onnx",
        ),
        (TUNED, {"cv": 3, "estimator": {"class": TREES, "max_iter": 10}}, KEEP, "model.onnx"),
        (
            "sklearn.model_selection:FixedThresholdClassifier",
            {"threshold": 0.2, "estimator": {"class": LINEAR}},
            MEDIAN,
            "model.onnx",
        ),
        (
            "sklearn.ensemble.StackingClassifier",
            {"cv": 3, "estimators": PARTS, "final_estimator": {"class": LINEAR}},
            MEDIAN,
            "model.onnx",
        ),
        (
            "sklearn.ensemble.VotingClassifier",
            {"voting": "soft", "estimators": PARTS},
            MEDIAN,
            "model.joblib",
        ),
    ],
)
def test_compositions_answer_as_scikit_learn_does(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    tmp_path: Path,
    estimator: str,
    hyperparameters: dict[str, Any],
    preprocessing: dict[str, Any],
    served: str,
) -> None:
    params = make_params(
        "returned", estimator, hyperparameters=hyperparameters, preprocessing=preprocessing
    )
    trained = train(make_orders(400, seed=1), params, shop_schema)
    manifest = write(trained, params, tmp_path)
    matrix = matrix_of(make_orders(200, seed=2), trained.features)

    answers = load_predictor(tmp_path).predict(matrix)

    assert manifest["served"] == served, manifest["parity"]
    np.testing.assert_allclose(
        answers.probabilities, trained.pipeline.predict_proba(matrix), atol=1e-5
    )
    assert answers.labels == [bool(one) for one in trained.pipeline.predict(matrix)]


def test_what_is_inside_is_seeded_too(make_params: MakeParams) -> None:
    splitter = {"class": "sklearn.model_selection.KFold", "n_splits": 3, "shuffle": True}
    settings = make_params(
        "returned",
        "sklearn.model_selection.GridSearchCV",
        hyperparameters={
            "cv": splitter,
            "param_grid": {"model": [{"class": LINEAR}, {"class": TREES}]},
            "estimator": {
                "class": "sklearn.pipeline.Pipeline",
                "steps": {"model": {"class": TREES, "random_state": 3}},
            },
        },
    ).train

    search = load_estimator(settings, "classification")

    assert search.cv.random_state == 7
    assert search.estimator["model"].random_state == 3
    assert [one.random_state for one in search.param_grid["model"]] == [7, 7]


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        (
            {"estimator": {"class": LINEAR, "Cc": 1}},
            r"train\.hyperparameters\.estimator: LogisticRegression has no Cc; did you mean C\?",
        ),
        (
            {"estimator": {"class": "sklearn.linear_model.Logistic"}},
            r"hyperparameters\.estimator\.class: sklearn\.linear_model has no class Logistic",
        ),
        (
            {"estimator": {"class": "flight_delays_.model.MinCov"}},
            r"cannot import flight_delays_\.model: .*No module named 'flight_delays_'$",
        ),
        ({"estimator": {"class": 3}}, r"estimator\.class: must be a class path, found 3"),
        ({"estimator": LINEAR}, r"hyperparameters\.estimator: .* is text here; write {class: "),
        ({"estimators": []}, r"hyperparameters: CalibratedClassifierCV has no estimators; did you"),
        ({"estimator": {"class": "json.loads"}}, r"json\.loads is not a scikit-learn estimator"),
    ],
)
def test_a_mistake_inside_is_named_by_its_key_path(
    make_params: MakeParams, hyperparameters: dict[str, Any], message: str
) -> None:
    calibrated = "sklearn.calibration.CalibratedClassifierCV"
    settings = make_params("returned", calibrated, hyperparameters=hyperparameters).train
    with pytest.raises(SettingsError, match=message):
        load_estimator(settings, "classification")


def test_a_threshold_is_what_everybody_answers_by(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams, tmp_path: Path
) -> None:
    rows, fresh = make_orders(400, seed=1), make_orders(200, seed=2)
    for served, preprocessing in (("model.onnx", MEDIAN), ("model.joblib", MEDIAN)):
        estimator = LINEAR if served == "model.onnx" else "sklearn.neighbors.KNeighborsClassifier"
        params = make_params("returned", estimator, preprocessing=preprocessing, threshold=0.2)
        manifest = write(train(rows, params, shop_schema), params, tmp_path)
        if served == "model.joblib":
            manifest = _without_onnx(tmp_path, manifest)
        predictor = load_predictor(tmp_path)
        scored = score_target(fresh, predictor)

        assert manifest["threshold"] == 0.2
        assert manifest["served"] == served
        assert scored.probability is not None
        np.testing.assert_array_equal(scored.prediction, scored.probability[:, 1] >= 0.2)
        assert (scored.prediction != scored.probability.argmax(axis=1)).any()

    dummy = baseline(rows.get_column("returned"), scored, [False, True], 0.2)
    assert dummy.prediction.all()


def _without_onnx(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    manifest = {**manifest, "served": "model.joblib"}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def test_a_learnt_threshold_is_recorded(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> None:
    params = make_params(
        "returned",
        TUNED,
        hyperparameters={"cv": 3, "scoring": "f1", "estimator": {"class": LINEAR}},
        preprocessing=MEDIAN,
    )
    trained = train(make_orders(300), params, shop_schema)
    assert trained.threshold == trained.pipeline["estimator"].best_threshold_


@pytest.mark.parametrize(
    ("target", "estimator", "settings", "message"),
    [
        ("size", LINEAR, {}, r"train\.threshold: is for two classes, and the target has 3"),
        ("returned", "sklearn.svm.LinearSVC", {}, r"train\.threshold: .* gives no probabilities"),
        (
            "returned",
            TUNED,
            {"hyperparameters": {"cv": 3, "estimator": {"class": LINEAR}}},
            r"train\.threshold: is 0\.3, but the estimator brings its own: remove one",
        ),
        (
            "returned",
            "sklearn.model_selection.FixedThresholdClassifier",
            {"hyperparameters": {"pos_label": 0, "estimator": {"class": LINEAR}}},
            "FixedThresholdClassifier: its threshold must be one of the probability",
        ),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    target: str,
    estimator: str,
    settings: dict[str, Any],
    message: str,
) -> None:
    params = make_params(target, estimator, preprocessing=MEDIAN, threshold=0.3, **settings)
    with pytest.raises(SettingsError, match=message):
        train(make_orders(120), params, shop_schema)


def test_the_threshold_itself_is_the_second_class() -> None:
    probabilities = np.array([[0.7, 0.3], [0.701, 0.299], [0.5, 0.5]], dtype=np.float32)
    assert chosen(probabilities, 0.3).tolist() == [1, 0, 1]
    assert chosen(probabilities, None).tolist() == [0, 0, 0]
    nearly = np.array([[0.5, 0.5], [0.49999994, 0.50000006], [0.4, 0.6]], dtype=np.float32)
    assert chosen(nearly, None, 1e-6).tolist() == [0, 0, 1]
    assert chosen(nearly, 0.50000012, 1e-6).tolist() == [1, 1, 1]
    assert chosen(nearly, 0.51, 1e-6).tolist() == [0, 0, 1]


def test_the_example_estimator_is_trained_and_loaded_by_another_process(
    project: Path, shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> None:
    package = project / "src" / "flight_delays"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    example = PROJECT_TEMPLATE / "src" / PROJECT_TEMPLATE.name / "model.py"
    (package / "model.py").write_bytes(example.read_bytes())
    params = make_params(
        "returned",
        "flight_delays.model:SeedAverage",
        hyperparameters={
            "copies": 2,
            "estimator": {"class": TREES, "max_iter": 10, "max_features": 0.5},
        },
        preprocessing=KEEP,
    )
    rows = make_orders(300)
    trained = train(rows, params, shop_schema)
    code = user_code(project, "flight_delays")
    manifest = write(trained, params, project / "models", code)
    expected = trained.pipeline.predict_proba(matrix_of(rows, Features.from_schema(shop_schema)))
    rows.write_parquet("rows.parquet")

    command = [sys.executable, "-m", "gitops_ml", "predict", "--rows", "rows.parquet"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(one)) for one in sys.path)}
    done = subprocess.run(
        [*command, "--out", "out.parquet"], cwd=project, env=env, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert manifest["served"] == "model.joblib"
    assert "cannot be converted to ONNX" in manifest["parity"]["reason"]
    found = pl.read_parquet("out.parquet").get_column("probability_true").to_numpy()
    np.testing.assert_allclose(found, expected[:, 1])
    members = trained.pipeline["estimator"].members_
    assert [one.random_state for one in members] == [7, 8]


def test_own_code_that_fails_is_named_with_its_line(project: Path, make_params: MakeParams) -> None:
    package = project / "src" / "flight_delays"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text("x = 1\nraise RuntimeError('no')\n", encoding="utf-8")
    forget_package()
    settings = make_params("returned", "flight_delays.model.Mine").train
    with pytest.raises(SettingsError, match=r"RuntimeError: no \(src/flight_delays/model\.py:2\)"):
        load_estimator(settings, "classification")


BOOSTERS = [
    ("returned", "lightgbm.LGBMClassifier"),
    ("size", "lightgbm.LGBMClassifier"),
    ("price", "lightgbm.LGBMRegressor"),
    ("returned", "xgboost.XGBClassifier"),
    ("size", "xgboost.XGBClassifier"),
    ("price", "xgboost.XGBRegressor"),
]


def boosted(make_params: MakeParams, target: str, estimator: str) -> Params:
    hyperparameters = {"n_estimators": 20, "n_jobs": 1}
    if estimator.startswith("lightgbm"):
        hyperparameters["verbose"] = -1
    return make_params(target, estimator, hyperparameters=hyperparameters, preprocessing=KEEP)


@pytest.mark.parametrize(("target", "estimator"), BOOSTERS)
def test_boosters_of_other_libraries_are_served_as_onnx(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    tmp_path: Path,
    target: str,
    estimator: str,
) -> None:
    params = boosted(make_params, target, estimator)
    trained = train(make_orders(400, seed=1), params, shop_schema)
    manifest = write(trained, params, tmp_path)
    matrix = matrix_of(make_orders(200, seed=2), trained.features)

    answers = load_predictor(tmp_path).predict(matrix)

    assert manifest["served"] == "model.onnx", manifest["parity"]
    # Both sides of splits were looked at, not only the 400 rows.
    assert manifest["parity"]["rows"] > 600
    if target == "price":
        np.testing.assert_allclose(answers.labels, trained.pipeline.predict(matrix), rtol=1e-4)
    else:
        expected = trained.pipeline.predict_proba(matrix)
        np.testing.assert_allclose(answers.probabilities, expected, atol=1e-5)


def test_thresholds_of_lightgbm_that_are_rounded_to_the_nearest_are_noticed(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gitops_ml.model.thresholds.round_boosters", lambda parts: None)
    params = boosted(make_params, "price", "lightgbm.LGBMRegressor")
    export = train(make_orders(400), params, shop_schema).export
    assert export.model is None
    assert "ONNX answers differ" in export.parity["reason"]


def test_without_onnxmltools_a_booster_is_served_as_it_is(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gitops_ml.model.converters._register", lambda libraries: None)
    monkeypatch.setattr("skl2onnx._supported_operators.sklearn_operator_name_map", {})
    params = boosted(make_params, "returned", "xgboost.XGBClassifier")
    export = train(make_orders(200), params, shop_schema).export
    assert export.model is None
    assert "cannot be converted to ONNX" in export.parity["reason"]
