from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.encode import Features
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model.predictor import (
    ModelError,
    OnnxPredictor,
    PredictionError,
    SklearnPredictor,
    load_predictor,
)
from gitops_ml.model.train import train, write

Train = Callable[..., Path]


@pytest.fixture
def trained(
    tmp_path: Path,
    shop_schema: Schema,
    make_orders: Callable[..., pl.DataFrame],
    make_params: Callable[..., Params],
) -> Train:
    """Train on orders: `trained("returned", estimator=…)`; gives the models folder."""

    def train_model(target: str, **options: Any) -> Path:
        params = make_params(target, **options)
        write(train(make_orders(300), params, shop_schema), params, tmp_path / "models")
        return tmp_path / "models"

    return train_model


def serve_joblib(models: Path) -> Path:
    """Make the manifest name the scikit-learn file as the one to serve."""
    manifest = json.loads((models / "manifest.json").read_text())
    (models / "manifest.json").write_text(json.dumps(manifest | {"served": "model.joblib"}))
    return models


@pytest.fixture
def matrix(shop_schema: Schema, make_orders: Callable[..., pl.DataFrame]) -> Any:
    return matrix_of(make_orders(50, seed=2), Features.from_schema(shop_schema))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ("returned", [False, True]),
        ("size", ["large", "medium", "small"]),
        ("stars", [3, 4, 5]),
    ],
)
def test_both_predictors_give_the_same_classes(
    trained: Train, matrix: Any, target: str, classes: list[Any]
) -> None:
    models = trained(target)
    onnx = load_predictor(models)
    sklearn = load_predictor(serve_joblib(models))

    assert isinstance(onnx, OnnxPredictor)
    assert isinstance(sklearn, SklearnPredictor)
    found, expected = onnx.predict(matrix), sklearn.predict(matrix)
    assert found.labels == expected.labels
    assert set(found.labels) <= set(classes)
    assert len(set(found.labels)) > 1
    assert {type(label) for label in found.labels} == {type(classes[0])}
    assert found.probabilities is not None
    assert expected.probabilities is not None
    assert found.probabilities.shape == (50, len(classes))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    best = [classes[place] for place in found.probabilities.argmax(axis=1)]
    assert found.labels == best


def test_both_predictors_give_the_same_numbers(trained: Train, matrix: Any) -> None:
    models = trained("price")
    found = load_predictor(models).predict(matrix)
    expected = load_predictor(serve_joblib(models)).predict(matrix)

    assert found.probabilities is None
    assert len(found.labels) == 50
    assert {type(label) for label in found.labels} == {float}
    np.testing.assert_allclose(found.labels, expected.labels, rtol=1e-5)


@pytest.mark.parametrize("served", ["model.onnx", "model.joblib"])
def test_a_classifier_without_probabilities_gives_classes(
    trained: Train, matrix: Any, served: str
) -> None:
    models = trained(
        "size",
        estimator="sklearn.svm.LinearSVC",
        preprocessing={"categories": "one_hot", "missing": "median"},
    )
    if served == "model.joblib":
        serve_joblib(models)

    predictions = load_predictor(models).predict(matrix)

    assert predictions.probabilities is None
    assert set(predictions.labels) <= {"small", "medium", "large"}
    assert len(set(predictions.labels)) > 1


@pytest.mark.parametrize("served", ["model.onnx", "model.joblib"])
def test_a_file_with_another_hash_is_not_loaded(
    trained: Train, monkeypatch: pytest.MonkeyPatch, served: str
) -> None:
    models = trained("returned")
    if served == "model.joblib":
        serve_joblib(models)
    content = bytearray((models / served).read_bytes())
    content[len(content) // 2] ^= 1
    (models / served).write_bytes(content)
    monkeypatch.setattr("joblib.load", lambda _: pytest.fail("the file was loaded"))

    with pytest.raises(ModelError) as error:
        load_predictor(models)

    assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert served in str(error.value)


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json: no such file; run `make pipeline`"):
        load_predictor(tmp_path)


def test_a_missing_model_file_is_named(trained: Train) -> None:
    models = trained("returned")
    (models / "model.onnx").unlink()

    with pytest.raises(ModelError, match=r"model\.onnx: cannot be read"):
        load_predictor(models)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"served": "x", "files": {}}'])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(ModelError, match=r"manifest\.json: .*run `make pipeline`"):
        load_predictor(tmp_path)


def test_a_manifest_that_serves_an_unlisted_file_is_refused(trained: Train) -> None:
    models = trained("returned")
    manifest = json.loads((models / "manifest.json").read_text())
    (models / "manifest.json").write_text(json.dumps(manifest | {"served": "../other.joblib"}))

    with pytest.raises(ModelError, match="a file that it does not list"):
        load_predictor(models)


def test_an_answer_that_is_no_number_is_an_error(trained: Train) -> None:
    predictor = load_predictor(
        trained(
            "price",
            estimator="sklearn.linear_model.LinearRegression",
            preprocessing={"categories": "one_hot", "missing": "median"},
        )
    )
    matrix = np.array([[1, 1, 1, 1], [np.inf, 1, 1, 1]], dtype=np.float32)

    with pytest.raises(PredictionError, match="1 of 2 rows"):
        predictor.predict(matrix)


class Own:
    """An estimator that somebody wrote."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.predict = self.predict_proba = answer


def no_number(matrix: Any) -> Any:
    raise KeyError("colour")


def leave(matrix: Any) -> Any:
    raise SystemExit(0)


def panic(matrix: Any) -> Any:
    raise BaseExceptionGroup("panic", [GeneratorExit()])


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("predict", no_number, "predict: fails on 50 rows: KeyError: 'colour' .*test_predictor"),
        ("predict", leave, "predict: fails on 50 rows: SystemExit: 0"),
        ("predict", panic, "predict: fails on 50 rows: BaseExceptionGroup: panic"),
        ("predict", lambda m: m[:3, 0], r"an array of shape \(3,\); it must give shape \(50,\)"),
        ("predict", lambda m: ["a"] * len(m), "gives <U1; it must give numbers"),
        ("predict", lambda m: [7] * len(m), r"gives 7; .* whole numbers 0 to 1"),
        ("predict", lambda m: [0.5] * len(m), r"gives 0.5; .* whole numbers 0 to 1"),
        ("predict_proba", lambda m: m[:, 0], r"shape \(50,\); it must give shape \(50, 2\)"),
        ("predict_proba", lambda m: np.ones((50, 3)), r"shape \(50, 3\); it must give shape"),
        ("predict_proba", lambda m: np.full((50, 2), 0.3), "0.3], which are no shares of one"),
        ("predict_proba", lambda m: [[-1.0, 2.0]] * len(m), "2.0], which are no shares of one"),
        ("predict_proba", lambda m: np.full((50, 2), np.nan), "no finite number for 50 of 50"),
    ],
)
def test_what_an_own_estimator_answers_is_checked(
    matrix: Any,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    answer: Callable[[Any], Any],
    message: str,
) -> None:
    monkeypatch.setattr("joblib.load", lambda _: Own(answer))
    manifest = {"probabilities": method == "predict_proba", "classes": [False, True]}
    predictor = SklearnPredictor(b"", manifest, Features(()), Path(__file__).parent)

    with pytest.raises(PredictionError, match=message):
        predictor.predict(matrix)


def test_classes_may_be_told_as_booleans_or_floats(
    matrix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = {"probabilities": False, "classes": ["no", "yes"]}
    for answer in (np.ones(50, bool), np.ones((50, 1))):
        monkeypatch.setattr("joblib.load", lambda _, given=answer: Own(lambda _: given))
        assert SklearnPredictor(b"", manifest, Features(())).predict(matrix).labels == ["yes"] * 50


def test_a_pickle_that_does_not_load_is_named() -> None:
    manifest = {"probabilities": False, "classes": None, "served": "model.joblib"}
    with pytest.raises(
        ModelError, match=r"model\.joblib: cannot be loaded: .*; run `make pipeline`"
    ):
        SklearnPredictor(b"nothing", manifest, Features(()))


def test_part_of_the_predictions_keeps_rows_together(trained: Train, matrix: Any) -> None:
    predictions = load_predictor(trained("returned")).predict(matrix)

    part = predictions.part(10, 15)

    assert part.labels == predictions.labels[10:15]
    assert predictions.probabilities is not None
    assert part.probabilities is not None
    assert np.array_equal(part.probabilities, predictions.probabilities[10:15])
