"""What lies between two models of one recipe, and the margin that leaves room for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.derive import NOTHING_DERIVED
from gitops_ml.gate import retraining_noise
from gitops_ml.gate.retraining_noise import Part, Recipe, Spread, retrain, spread_of
from gitops_ml.model.metrics import Scored

ROWS = 400
EVERYTHING = np.ones(ROWS, dtype=np.bool_)


def erring(by: float, seed: int) -> Scored:
    noise = np.random.default_rng(seed).normal(0, 0.1, ROWS)
    return Scored(np.zeros(ROWS), by + noise)


def test_an_equivalent_model_is_blocked_no_more_often_than_asked_for() -> None:
    """By seven terms that have nothing to do with each other, and the luckiest of 20 champions."""
    random, terms, seeds, width = np.random.default_rng(3), 7, 8, 0.5
    blocked, power = [], []
    for _ in range(400):
        known = random.normal(0, 1, (seeds, terms))
        margins = np.array([Spread(seeds, s, width).margin(terms) for s in known.std(0, ddof=1)])
        champions = random.normal(0, 1, (20, terms))
        champion = champions[champions[:, 0].argmax()]
        equal = random.normal(0, 1, (20, terms))
        blocked.append(((equal - champion - width) < -margins).any(axis=1).mean())
        worse = random.normal(0, 1, (20, terms)) - 2 * margins
        # Held against the unluckiest champion.
        power.append((worse[:, 0] - champions[:, 0].min() - width < -margins[0]).mean())
    assert np.mean(blocked) < 0.05
    assert np.mean(power) > 0.95


def test_a_margin_grows_with_what_is_not_known_and_with_what_must_hold() -> None:
    spread = Spread(8, 0.01, 0.03)
    # The mean half width, and (1.868 + 1.645) standard deviations at their upper bound.
    assert spread.margin(1) == pytest.approx(0.03 + 3.513 * 0.01 * math.sqrt(7 / 2.833), rel=1e-3)
    assert spread.margin(10) > spread.margin(1)
    assert replace(spread, seeds=4).margin(1) > spread.margin(1) > Spread(99, 0.01, 0.03).margin(1)
    assert spread.margin(1, false_alarms=0.01) > spread.margin(1)


def test_means_of_several_seeds_need_less_room_and_get_it() -> None:
    random, terms, width = np.random.default_rng(5), 7, 0.5
    for seeds in (2, 5):
        margin = Spread(200, 1.0, width).margin(terms, seeds=seeds)
        assert margin < Spread(200, 1.0, width).margin(terms)
        sides = random.normal(0, 1, (2, 20_000, seeds, terms)).mean(axis=2)
        blocked = (sides[1] - sides[0] - width < -margin).any(axis=1).mean()
        assert 0.01 < blocked < 0.05


def test_a_spread_is_that_between_models_and_the_width_that_of_their_differences() -> None:
    models = [erring(1 + step, seed) for seed, step in enumerate((0.0, 0.02, -0.02, 0.01))]
    found = spread_of(Part("mae", EVERYTHING), models, 0.95, None)
    assert found is not None
    values = [float(np.abs(one.prediction).mean()) for one in models]
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    # Two independent errors of 0.1, on 400 rows, one-sided.
    assert found.half_width == pytest.approx(1.645 * 0.1 * math.sqrt(2 / ROWS), rel=0.15)
    few = spread_of(Part("mae", np.arange(ROWS) < 50), models, 0.95, None)
    assert few is not None
    assert few.half_width > 2 * found.half_width
    alike = spread_of(Part("mae", EVERYTHING), models, 0.95, np.arange(ROWS) // 8)
    assert alike is not None


def test_too_few_models_or_none_that_differ_tell_nothing() -> None:
    part = Part("mae", EVERYTHING)
    assert spread_of(part, [erring(1, 1), erring(1, 2)], 0.95, None) is None
    assert spread_of(part, [erring(1, 1)] * 5, 0.95, None) is None


@pytest.fixture
def recipe(
    project: Path,
    shop_schema: Schema,
    make_orders: Callable[..., pl.DataFrame],
    make_params: Callable[..., Params],
) -> Callable[..., Recipe]:
    paths.TRAIN.parent.mkdir(parents=True)
    make_orders(300, seed=1).write_parquet(paths.TRAIN)
    make_orders(200, seed=2).write_parquet(paths.TEST)

    def read(target: str, estimator: str | None = None, **train: object) -> Recipe:
        params = make_params(target, estimator, **train)
        return Recipe.read(project, params, shop_schema, NOTHING_DERIVED)

    return read


DRAWN = {
    "returned": "sklearn.ensemble.ExtraTreesClassifier",
    "price": "sklearn.ensemble.ExtraTreesRegressor",
}
NUMBERS = {"categories": "one_hot", "missing": "median"}


@pytest.mark.parametrize("target", DRAWN)
def test_a_recipe_is_trained_with_each_seed(recipe: Callable[..., Recipe], target: str) -> None:
    trained = recipe(target, DRAWN[target], preprocessing=NUMBERS, hyperparameters={"max_depth": 3})
    one, again, other = (trained.answers(seed) for seed in (1, 1, 2))
    assert len(one) == 200
    for ours, same, others in (
        (one.prediction, again.prediction, other.prediction)
        if one.probability is None
        else (one.probability, again.probability, other.probability),
    ):
        assert np.array_equal(ours, same)
        assert not np.array_equal(ours, others)


def test_a_threshold_decides_as_in_the_service(recipe: Callable[..., Recipe]) -> None:
    scored = recipe("returned", threshold=0.8).answers(1)
    assert scored.probability is not None
    assert np.array_equal(scored.prediction, scored.probability[:, 1] >= 0.8)


def test_where_nothing_is_drawn_two_models_are_enough(recipe: Callable[..., Recipe]) -> None:
    settled = recipe("price", "sklearn.linear_model.Ridge", preprocessing=NUMBERS)
    assert len(retrain(settled, range(8), 300)) == 2


def test_no_model_is_begun_that_would_not_be_done_in_time(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = recipe("price", DRAWN["price"], preprocessing=NUMBERS)
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(retraining_noise.time, "monotonic", lambda: next(now))
    # Each takes 10 s; the clock is looked at twice for each.
    assert len(retrain(trained, range(8), 65)) == 3
