"""A small project as its pipeline leaves it, and the values that checks get from its fixtures."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import pytest
import yaml
from checking import Values
from commands import subcommand
from projects import make_project

from gitops_ml.bento.smoke import read_golden
from gitops_ml.checks.fixtures import numbers
from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import load_contract, load_params
from gitops_ml.data.validate import row_problems
from gitops_ml.features.derive import NOTHING_DERIVED
from gitops_ml.gate.challenger import load_challenger
from gitops_ml.model.predict import score_target
from gitops_ml.model.predictor import load_predictor, read_verified

ROWS = 1500
SCHEMA: dict[str, Any] = {
    "columns": {
        "order": {"type": "integer", "feature": False},
        "weight": {"type": "number", "nullable": True, "min": 0, "max": 99},
        "items": {"type": "integer", "min": 0, "max": 9},
        "member": {"type": "boolean"},
        "colour": {"type": "category", "categories": ["blue", "green", "red"], "unseen": "missing"},
        "returned": {"type": "boolean", "feature": False},
        "price": {"type": "number", "feature": False},
    },
    "rules": [{"name": "nothing_is_free", "check": "items = 0 OR price > -90"}],
}
SETTINGS: dict[str, Any] = {
    "data": {"source": "data/landed", "key": ["order"]},
    "split": {"columns": ["order"], "test_fraction": 0.4},
    "classification": {
        "target": "returned",
        "metrics": ["roc_auc", "log_loss"],
        "terms": {"roc_auc": {"floor": 0.8, "margin": 0.02}},
        "slices": [{"column": "colour", "metric": "roc_auc", "min_rows": 50, "floor": 0.7}],
        "behaviour": {"calibration_error_max": 0.1},
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
    },
    "regression": {
        "target": "price",
        "metrics": ["mae", "r2"],
        "terms": {"mae": {"ceiling": 3, "margin": 0.1}},
        "slices": [],
        "behaviour": {"bias_max": 1.0},
        "estimator": "sklearn.ensemble.HistGradientBoostingRegressor",
    },
}


def orders(seed: int = 1) -> pl.DataFrame:
    """Orders in a shop; the features explain both targets, but for noise."""
    random = np.random.default_rng(seed)
    weight = random.gamma(2, 2, ROWS)
    items = random.integers(1, 9, ROWS)
    member = random.random(ROWS) < 0.5
    colour = random.choice(["red", "green", "blue"], ROWS)
    price = 3 * weight + 2 * items - 4 * member + 5 * (colour == "red")
    price += random.normal(0, 1, ROWS)
    return pl.DataFrame(
        {
            "order": np.arange(ROWS),
            "weight": pl.Series(weight).set(pl.Series(random.random(ROWS) < 0.1), None),
            "items": items,
            "member": member,
            "colour": colour,
            "returned": price + random.normal(0, 2, ROWS) > np.quantile(price, 0.6),
            "price": price,
        }
    )


def make_shop(root: Path, task: str) -> Path:
    """Write a project for a task and run its pipeline."""
    own = SETTINGS[task]
    documents: dict[str, Any] = {
        "schema.yaml": SCHEMA,
        "params.yaml": {
            "task": task,
            "target": own["target"],
            "data": SETTINGS["data"],
            "split": SETTINGS["split"],
            "train": {
                "estimator": own["estimator"],
                "hyperparameters": {"max_iter": 40},
                "preprocessing": {"categories": "ordinal", "missing": "keep"},
                "seed": 7,
            },
            "evaluate": {"metrics": own["metrics"], "slices": ["colour"], "resamples": 100},
        },
        "contract.yaml": {
            "model": {
                "metrics": own["terms"],
                "slices": own["slices"],
                "size_mb": 10,
                "latency_p99_ms": 100,
            },
            "data": {"rows_min": 1000},
            "behaviour": {
                "directional": [{"column": "weight", "set": 20, "expect": "increase"}],
                **own["behaviour"],
            },
        },
    }
    make_project(root)
    for name, document in documents.items():
        (root / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (root / "src").mkdir()
    (root / "data" / "landed").mkdir(parents=True)
    orders().write_parquet(root / "data" / "landed" / "orders.parquet")
    with contextlib.chdir(root):
        for stage in ("ingest", "split", "train", "evaluate"):
            assert subcommand(stage)() == 0
    return root


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The project of a task after its pipeline, made when first asked for; not to be changed."""
    made: dict[str, Path] = {}

    def make_once(task: str = "classification") -> Path:
        if task not in made:
            made[task] = make_shop(tmp_path_factory.mktemp(task), task)
        return made[task]

    return make_once


@pytest.fixture
def values(shop: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Values]:
    """The values of the fixtures in the project of a task."""

    def of_task(task: str = "classification") -> Values:
        root = shop(task)
        params, schema, contract = load_params(root), load_schema(root), load_contract(root)
        ingested = pl.read_parquet(root / paths.INGESTED)
        test_rows = pl.read_parquet(root / paths.TEST)
        predictor = load_predictor(root / paths.MODELS)
        model = {**predictor.manifest, "served": paths.MODEL.name}
        return Values(
            root=root,
            params=params,
            schema=schema,
            derivation=NOTHING_DERIVED,
            inputs=schema.features(),
            contract=contract,
            made=root.joinpath,
            ingested=ingested,
            problems=row_problems(ingested, schema, params.data.key),
            train_rows=pl.read_parquet(root / paths.TRAIN),
            test_rows=test_rows,
            some_rows=test_rows.head(200),
            predictor=predictor,
            trained=joblib.load(io.BytesIO(read_verified(root / paths.MODELS, model))),
            scored=score_target(test_rows, predictor),
            answer=partial(numbers, predictor),
            golden=read_golden(root / paths.GOLDEN),
            challenger=load_challenger(root, params, LockedOutput("0" * 32, "train")),
            tmp_path=tmp_path,
        )

    return of_task
