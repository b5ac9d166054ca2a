"""A small made-up table with every type of feature, for all unit tests of the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from projects import forget_package, make_project

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params


@pytest.fixture(autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in the current folder, which is empty otherwise."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """What a test imports of a project's package is not there for the next one."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    forget_package()


@pytest.fixture
def shop_schema() -> Schema:
    """Orders in a shop, with one target of each kind."""
    return Schema.model_validate(
        {
            "columns": {
                "order": {"type": "integer", "feature": False},
                "weight": {"type": "number", "nullable": True, "min": 0},
                "items": {"type": "integer", "min": 0},
                "member": {"type": "boolean", "nullable": True},
                "colour": {
                    "type": "category",
                    "categories": ["red", "green", "blue"],
                    "unseen": "missing",
                },
                "returned": {"type": "boolean", "feature": False},
                "size": {
                    "type": "category",
                    "categories": ["small", "medium", "large"],
                    "feature": False,
                },
                "stars": {"type": "integer", "feature": False},
                "price": {"type": "number", "feature": False},
            }
        }
    )


@pytest.fixture
def make_orders() -> Callable[..., pl.DataFrame]:
    """Draw orders: `make_orders(200, seed=1)`; the features explain the targets, but for noise."""

    def orders(rows: int = 400, seed: int = 1) -> pl.DataFrame:
        random = np.random.default_rng(seed)
        weight = random.gamma(2, 2, rows)
        items = random.integers(1, 9, rows)
        member = random.random(rows) < 0.5
        colour = random.choice(["red", "green", "blue"], rows)
        price = 3 * weight + 2 * items - 4 * member + 5 * (colour == "red")
        price += random.normal(0, 1, rows)
        third = np.digitize(price, np.quantile(price, [1 / 3, 2 / 3]))
        return pl.DataFrame(
            {
                "order": np.arange(rows),
                "weight": pl.Series(weight).set(pl.Series(random.random(rows) < 0.1), None),
                "items": items,
                "member": pl.Series(member).set(pl.Series(random.random(rows) < 0.1), None),
                "colour": colour,
                "returned": price > np.quantile(price, 0.7),
                "size": np.array(["small", "medium", "large"])[third],
                "stars": third + 3,
                "price": price,
            }
        )

    return orders


@pytest.fixture
def make_params() -> Callable[..., Params]:
    """Build params: `make_params("price", estimator="sklearn.linear_model.Ridge")`."""

    def params(target: str, estimator: str | None = None, **train: Any) -> Params:
        regression = target == "price"
        tree = "Regressor" if regression else "Classifier"
        return Params.model_validate(
            {
                "task": "regression" if regression else "classification",
                "target": target,
                "data": {"source": "data/landed"},
                "train": {
                    "estimator": estimator or f"sklearn.ensemble.HistGradientBoosting{tree}",
                    "hyperparameters": {} if estimator else {"max_iter": 20},
                    "preprocessing": {"categories": "ordinal", "missing": "keep"},
                    "seed": 7,
                    **train,
                },
                "evaluate": {
                    "metrics": ["mae", "r2"] if regression else ["roc_auc", "log_loss"],
                    "slices": ["colour", "member"],
                    "resamples": 100,
                },
            }
        )

    return params
