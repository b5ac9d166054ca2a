"""Does the training path carry what is in the data to the estimator, and nothing else?"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from << cookiecutter.project_slug >>.data.schema import Schema
from << cookiecutter.project_slug >>.model.evaluate import baseline
from << cookiecutter.project_slug >>.model.features import Features
from << cookiecutter.project_slug >>.model.matrix import matrix_of
from << cookiecutter.project_slug >>.model.metrics import Scored, measure
from << cookiecutter.project_slug >>.model.predictor import Predictor
from << cookiecutter.project_slug >>.model.target import target_values
from << cookiecutter.project_slug >>.model.train import fit
from << cookiecutter.project_slug >>.settings import Params

pytestmark = pytest.mark.pipeline

BATCH = 40
COPIES = 25
ROWS = 5_000


@pytest.fixture(scope="module")
def features(schema: Schema) -> Features:
    return Features.from_schema(schema)


def fitted_answers(
    params: Params,
    features: Features,
    rows: pl.DataFrame,
    target: NDArray[Any],
    asked: pl.DataFrame,
    truth: NDArray[Any],
    classes: int,
) -> Scored:
    """Fit the pipeline of `params.yaml` afresh on some rows and score others."""
    pipeline = fit(params.train, params.task, features, matrix_of(rows, features), target)
    matrix = matrix_of(asked, features)
    prediction = pipeline.predict(matrix)
    if not classes or not hasattr(pipeline, "predict_proba"):
        return Scored(truth, prediction, None, classes)
    # A small batch may lack classes.
    probability = np.zeros((len(matrix), classes))
    probability[:, pipeline.classes_] = pipeline.predict_proba(matrix)
    return Scored(truth, prediction, probability, classes)


def gain(
    params: Params, train_target: pl.Series, scored: Scored, classes: list[Any] | None
) -> float:
    """The share of a featureless model's shortfall that is made up for: 1 is perfect, 0 nothing."""
    metric = params.evaluate.metrics[0]
    best = {"mae": 0.0, "rmse": 0.0, "median_absolute_error": 0.0, "log_loss": 0.0, "brier": 0.0}
    naive = measure(metric, baseline(train_target, scored, classes))[0]
    reached = measure(metric, scored)[0]
    return float((reached - naive) / (best.get(metric, 1.0) - naive))


def test_it_can_learn_a_small_batch_by_heart(
    params: Params, features: Features, predictor: Predictor, train_rows: pl.DataFrame
) -> None:
    """A path that drops, scrambles or leaks away a feature cannot.

    Each row comes many times, so that neither a penalty nor a least leaf size stands in the way.
    """
    classes = predictor.manifest["classes"]
    batch = one_row_per_input(train_rows, features)
    # A linear model has one degree of freedom for each feature, so it is asked for no more rows.
    size = max(2, min(BATCH, len(features.names)))
    batch = with_every_class(batch, params, size) if classes else batch.sample(size, seed=1)
    target = target_values(batch.get_column(params.target), classes)
    repeated = pl.concat([batch] * COPIES)

    scored = fitted_answers(
        params, features, repeated, np.tile(target, COPIES), batch, target, len(classes or ())
    )

    learnt = gain(params, batch.get_column(params.target), scored, classes)
    assert learnt > 0.5, (
        f"{params.evaluate.metrics[0]} made up for {learnt:.0%} of guessing's error"
    )


def one_row_per_input(rows: pl.DataFrame, features: Features) -> pl.DataFrame:
    """Rows with equal features and different targets cannot be told apart by any model."""
    return rows.unique(subset=list(features.names), keep="first", maintain_order=True)


def with_every_class(rows: pl.DataFrame, params: Params, size: int) -> pl.DataFrame:
    """About as many rows of each class, `size` in all, but one of each at least."""
    each = max(1, size // rows.get_column(params.target).n_unique())
    return rows.group_by(params.target, maintain_order=True).head(each)


def test_nothing_is_learnt_from_shuffled_answers(
    params: Params,
    features: Features,
    predictor: Predictor,
    train_rows: pl.DataFrame,
    test_rows: pl.DataFrame,
) -> None:
    """If it seems to, the answer reaches the model by another way than its features."""
    classes = predictor.manifest["classes"]
    rows = train_rows.sample(min(ROWS, train_rows.height), seed=1)
    shuffled = rows.get_column(params.target).shuffle(seed=2)
    truth = target_values(test_rows.get_column(params.target), classes)

    scored = fitted_answers(
        params,
        features,
        rows.with_columns(shuffled),
        target_values(shuffled, classes),
        test_rows,
        truth,
        len(classes or ()),
    )

    learnt = gain(params, shuffled, scored, classes)
    # By chance, a ranking of n rows is off by about one over the root of n.
    assert learnt < 0.02 + 3 / np.sqrt(test_rows.height)
