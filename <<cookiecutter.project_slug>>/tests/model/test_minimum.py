"""The least that a model must do: beat guessing, and answer whatever the schema allows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from << cookiecutter.project_slug >>.data.schema import Schema
from << cookiecutter.project_slug >>.model.evaluate import baseline
from << cookiecutter.project_slug >>.model.matrix import row_groups
from << cookiecutter.project_slug >>.model.metrics import Floats, Scored, measure, resample_weights
from << cookiecutter.project_slug >>.model.predictor import Predictor
from << cookiecutter.project_slug >>.settings import METRIC_DIRECTION, Params

pytestmark = pytest.mark.pipeline

Answer = Callable[[pl.DataFrame], Floats]


def test_it_beats_a_model_that_ignores_the_features(
    params: Params,
    predictor: Predictor,
    train_rows: pl.DataFrame,
    test_rows: pl.DataFrame,
    scored: Scored,
) -> None:
    metric = params.evaluate.metrics[0]
    target = train_rows.get_column(params.target)
    dummy = baseline(target, scored, predictor.manifest["classes"])
    groups = row_groups(test_rows, params.split.columns)

    gains = np.concatenate(
        [
            measure(metric, scored, weights) - measure(metric, dummy, weights)
            for weights in resample_weights(len(scored), 500, params.train.seed, groups)
        ]
    )

    surely_gained = np.nanquantile(gains * METRIC_DIRECTION[metric], 0.01)
    assert surely_gained > 0, (
        f"{metric} is {measure(metric, scored)[0]:.4g} and that of a model which ignores every "
        f"feature is {measure(metric, dummy)[0]:.4g}: no certain gain"
    )


def test_it_answers_when_all_that_may_be_missing_is(
    schema: Schema, some_rows: pl.DataFrame, answer: Answer
) -> None:
    optional = [name for name, column in schema.features().items() if column.nullable]
    if not optional:
        pytest.skip("schema.yaml has no nullable feature")

    numbers = answer(some_rows.with_columns(pl.lit(None).alias(name) for name in optional))

    assert np.isfinite(numbers).all()


def test_it_answers_for_every_category_and_both_ends_of_every_range(
    schema: Schema, some_rows: pl.DataFrame, answer: Answer
) -> None:
    row = some_rows.head(1)
    variants = []
    for name, column in schema.features().items():
        ends = [end for end in (column.min, column.max) if end is not None]
        values = list(column.categories or ends)
        if column.unseen == "missing":
            values.append("never seen before")
        if column.type == "boolean":
            values = [True, False]
        dtype = pl.String if column.type == "category" else row.schema[name]
        variants += [row.with_columns(pl.lit(value).cast(dtype).alias(name)) for value in values]
    rows = pl.concat(variants, how="vertical_relaxed")

    numbers = answer(rows)

    assert len(numbers) == rows.height > 0
    assert np.isfinite(numbers).all()


def test_probabilities_are_shares_of_one(scored: Scored) -> None:
    if scored.probability is None:
        pytest.skip("the model gives no probabilities")

    assert scored.probability.min() >= 0
    assert scored.probability.max() <= 1
    np.testing.assert_allclose(scored.probability.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(scored.prediction, scored.probability.argmax(axis=1))


def test_it_does_not_answer_everyone_alike(some_rows: pl.DataFrame, answer: Answer) -> None:
    assert answer(some_rows).std(axis=0).max() > 0
