from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeRegressor

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.encode import Features, Matrix
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model import export
from gitops_ml.model.export import (
    convert,
    end_rows,
    export_onnx,
    largest_difference,
    missing_rows,
    spaced_rows,
)
from gitops_ml.model.train import fit, train

Orders = Callable[..., pl.DataFrame]
MakeParams = Callable[..., Params]


class Unknown(ClassifierMixin, BaseEstimator):
    """A classifier that no converter knows."""

    def fit(self, x: Any, y: Any) -> Unknown:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), 0.5)


@pytest.fixture
def matrix(shop_schema: Schema, make_orders: Orders) -> Matrix:
    return matrix_of(make_orders(200), Features.from_schema(shop_schema))


@pytest.fixture
def complete(shop_schema: Schema, make_orders: Orders) -> Matrix:
    return matrix_of(make_orders(200).drop_nulls(), Features.from_schema(shop_schema))


def outputs(model: bytes) -> list[tuple[str, list[Any]]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("features", [None, 4])]
    return [(one.name, one.shape) for one in session.get_outputs()]


@pytest.mark.parametrize(
    ("target", "estimator", "name"),
    [
        ("returned", "sklearn.linear_model.LogisticRegression", "probabilities"),
        ("size", "sklearn.ensemble.HistGradientBoostingClassifier", "probabilities"),
        ("returned", "sklearn.linear_model.RidgeClassifier", "labels"),
        ("size", "sklearn.linear_model.RidgeClassifier", "labels"),
        ("price", "sklearn.linear_model.Ridge", "values"),
    ],
)
def test_an_exported_model_has_one_named_input_and_output(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    target: str,
    estimator: str,
    name: str,
) -> None:
    trained = train(
        make_orders(200),
        make_params(target, estimator, preprocessing={"missing": "median"}),
        shop_schema,
    )

    assert trained.export.model is not None
    assert [output for output, _ in outputs(trained.export.model)] == [name]


def test_what_cannot_be_converted_is_told_quietly(
    shop_schema: Schema, matrix: Matrix, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Pipeline([("estimator", Unknown())]).fit(matrix, np.arange(len(matrix)) % 2)

    with caplog.at_level(logging.INFO):
        found = export_onnx(
            pipeline, "classification", matrix, [], Features.from_schema(shop_schema)
        )

    assert found.model is None
    assert found.parity["reason"].startswith("it cannot be converted to ONNX: ")
    assert not caplog.records


def test_a_model_that_answers_differently_is_not_kept(
    shop_schema: Schema, complete: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter with a bug: it takes the coefficients of another model."""
    truth = np.arange(len(complete)) % 2
    features = Features.from_schema(shop_schema)
    pipeline = Pipeline([("estimator", LogisticRegression())]).fit(complete, truth)
    wrong = Pipeline([("estimator", LogisticRegression())]).fit(complete, complete[:, 0] > 3)
    faithful = export_onnx(pipeline, "classification", complete, [], features)
    assert faithful.model is not None
    ends = 2 * 3 + 3  # of three features that are no category, and the colours
    assert faithful.parity["rows"] == len(complete) + 20 + ends

    monkeypatch.setattr(export, "convert", lambda *_: convert(wrong, "classification", 4))
    found = export_onnx(pipeline, "classification", complete, [], features)

    assert found.model is None
    assert "ONNX answers differ by" in found.parity["reason"]


def test_a_difference_on_missing_values_alone_is_seen(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> None:
    """Forests route missing values by a rule that their ONNX form does not have."""
    frame = make_orders(300).drop_nulls()
    features = Features.from_schema(shop_schema)
    matrix = matrix_of(frame, features)
    settings = make_params("returned", "sklearn.ensemble.RandomForestClassifier").train
    truth = frame.get_column("returned").to_numpy().astype(int)
    pipeline = fit(settings, "classification", features, matrix, truth)

    complete = export_onnx(pipeline, "classification", matrix, [], features)
    with_missing = export_onnx(pipeline, "classification", matrix, [0, 2], features)

    assert complete.model is not None
    assert with_missing.model is None


def test_probes_hold_each_feature_missing_once_and_all_at_once(
    shop_schema: Schema, complete: Matrix
) -> None:
    rows = missing_rows(complete, [0, 3], Features.from_schema(shop_schema))

    weight, colour, both = rows[:20], rows[20:40], rows[40:]
    assert np.isnan(weight[:, 0]).all()
    assert (weight[:, 3] >= 0).all()
    assert (colour[:, 3] == -1).all()
    assert not np.isnan(colour).any()
    assert np.isnan(both[:, 0]).all()
    assert (both[:, 3] == -1).all()


def test_a_large_table_is_compared_on_evenly_spaced_rows() -> None:
    rows = np.repeat(np.arange(30_000, dtype=np.float32)[:, None], 4, axis=1)

    probes = spaced_rows(rows)

    assert probes[0, 0] == 0
    assert probes[-1, 0] == 29_999
    assert len(probes) == 10_000


def test_probes_hold_the_ends_of_each_range_and_each_category(
    shop_schema: Schema, make_orders: Orders
) -> None:
    features = Features.from_schema(shop_schema)
    matrix = matrix_of(make_orders(200), features)
    ranges = [(-0.1, 1e6), (0, None), (None, None), (None, None)]

    rows = end_rows(matrix, features, ranges)

    for place, allowed in enumerate([[-0.1, 1e6], [0], [], [0, 1, 2]]):
        changed = set(rows[:, place].tolist())
        assert {float(np.float32(value)) for value in allowed} <= changed
        assert {np.nanmin(matrix[:, place]), np.nanmax(matrix[:, place])} <= changed
    assert len(rows) == 4 + 3 + 2 + 3
    assert matrix[:, 0].min() != -0.1
    np.testing.assert_array_equal(end_rows(matrix, features, ranges), rows)


def test_a_difference_at_the_end_of_a_range_alone_is_seen(
    shop_schema: Schema, complete: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights up to 1000 are allowed, far above those of the table."""
    features = Features.from_schema(shop_schema)
    truth = complete[:, 0]
    # The other columns say nothing, so no tree splits on them.
    weights = complete * np.array([1, 0, 0, 0], dtype=np.float32)
    heavy = np.concatenate([weights, weights])
    heavy[len(weights) :, 0] = 500
    pipeline = Pipeline([("estimator", DecisionTreeRegressor())]).fit(weights, truth)
    other = Pipeline([("estimator", DecisionTreeRegressor())]).fit(
        heavy, np.append(truth, np.full(len(truth), 500))
    )
    monkeypatch.setattr(export, "convert", lambda *_: convert(other, "regression", 4))
    monkeypatch.setattr(export, "split_rows", lambda *_: complete[:0])

    within = export_onnx(pipeline, "regression", complete, [], features)
    beyond = export_onnx(
        pipeline, "regression", complete, [], features, [(0, 1000), *[(None, None)] * 3]
    )

    assert within.model is not None
    assert beyond.model is None
    assert "ONNX answers differ by" in beyond.parity["reason"]


def test_what_is_far_from_usual_does_not_hide_a_usual_difference(
    shop_schema: Schema, complete: Matrix
) -> None:
    pipeline = Pipeline([("estimator", LinearRegression())]).fit(complete, complete[:, 0])
    other = Pipeline([("estimator", LinearRegression())]).fit(complete, complete[:, 0] + 0.01)
    model = convert(other, "regression", 4)
    far = complete[:5].copy()
    far[:, 0] = 1e9
    rows = np.concatenate([complete, far])

    hidden = largest_difference(pipeline, "regression", model, rows)
    seen = largest_difference(pipeline, "regression", model, rows, len(complete))

    assert hidden < 1e-5 < 1e-4 < seen


def test_differences_of_numbers_are_relative_and_of_labels_absolute(
    make_orders: Orders, shop_schema: Schema, make_params: MakeParams
) -> None:
    frame = make_orders(200).drop_nulls()
    features = Features.from_schema(shop_schema)
    matrix = matrix_of(frame, features)
    truth = frame.get_column("price").to_numpy() * 1e6
    ridge = make_params("price", "sklearn.linear_model.Ridge").train
    pipeline = fit(ridge, "regression", features, matrix, truth)
    other = fit(ridge, "regression", features, matrix, truth * 1.001)

    same = largest_difference(pipeline, "regression", convert(pipeline, "regression", 4), matrix)
    off = largest_difference(pipeline, "regression", convert(other, "regression", 4), matrix)

    assert same < 1e-5
    assert off == pytest.approx(1e-3, rel=0.7)

    ridge = make_params("returned", "sklearn.linear_model.RidgeClassifier").train
    flags = frame.get_column("returned").to_numpy().astype(int)
    pipeline = fit(ridge, "classification", features, matrix, flags)
    other = fit(ridge, "classification", features, matrix, 1 - flags)
    model = convert(other, "classification", 4)
    assert largest_difference(pipeline, "classification", model, matrix) == np.inf
