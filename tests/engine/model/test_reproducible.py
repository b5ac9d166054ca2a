"""The bytes of a model do not depend on the machine that fits it.

A machine of 1, 2 or 4 cores is a process that sees so many of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_info, threadpool_limits

from gitops_ml.model.reproducible import forget_machine, same_on_all_machines

# Fits all estimators of the list and prints a hash of the bytes of each, and of its answers.
PROGRAM = """
import os, platform, sys
cores = int(sys.argv[1])
os.cpu_count = lambda: cores
os.sched_getaffinity = lambda _: set(range(cores))
platform.python_version = lambda: f"3.11.{cores}"
import hashlib, io, json, warnings
import joblib, numpy as np
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import TrainParams
from gitops_ml.model import train
from gitops_ml.model.compose import load_estimator
from gitops_ml.core.schema import Schema
from gitops_ml.features.encode import Features

warnings.simplefilter("ignore")
random = np.random.default_rng(1)
columns = {f"x{place}": {"type": "number"} for place in range(30)}
features = Features.from_schema(Schema.model_validate({"columns": columns}))
matrix = random.normal(size=(4_000, 30)).astype(np.float32)
truth = 2 * matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + random.normal(size=len(matrix))
found = {}
for path, hyperparameters in json.loads(sys.argv[2]):
    name = path.rpartition(".")[2]
    settings = TrainParams(
        estimator=path, hyperparameters=hyperparameters, seed=7,
        preprocessing={"categories": "ordinal", "missing": "keep", "scale": True},
    )
    try:
        load_estimator(settings, "classification")
        task, target = "classification", (truth > 0).astype(int)
    except SettingsError:
        task, target = "regression", truth
    rows = slice(0, 200 if name.startswith("GaussianProcess") else None)
    model = train.fit(settings, task, features, matrix[rows], target[rows])
    file = io.BytesIO()
    joblib.dump(model, file)
    answers = np.ascontiguousarray(model.predict(matrix[:500]))
    found[name] = [hashlib.sha256(one).hexdigest() for one in (file.getvalue(), answers)]
print(json.dumps(found))
"""
TREE = {"class": "sklearn.tree.DecisionTreeClassifier", "max_depth": 4}
SAGA = {"class": "sklearn.linear_model.LogisticRegression", "solver": "saga", "max_iter": 5}
ESTIMATORS: list[tuple[str, dict[str, Any]]] = [
    ("sklearn.dummy.DummyClassifier", {}),
    ("sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 2}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 3}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 3, "early_stopping": True}),
    ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 8, "max_depth": 4, "n_jobs": -1}),
    ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 8, "max_depth": 4, "n_jobs": -1}),
    ("sklearn.linear_model.LinearRegression", {}),
    ("sklearn.linear_model.LogisticRegression", {"solver": "newton-cholesky"}),
    ("sklearn.linear_model.Ridge", {}),
    ("sklearn.linear_model.RidgeClassifier", {}),
    ("sklearn.naive_bayes.GaussianNB", {}),
    ("sklearn.neighbors.KNeighborsClassifier", {"n_jobs": -1}),
    ("sklearn.neighbors.NearestCentroid", {}),
    ("sklearn.svm.LinearSVC", {"max_iter": 20}),
    ("sklearn.tree.DecisionTreeRegressor", {"max_depth": 5}),
    ("sklearn.ensemble.ExtraTreesClassifier", {"n_estimators": 4, "max_depth": 4, "n_jobs": -1}),
    ("sklearn.gaussian_process.GaussianProcessClassifier", {}),
    ("sklearn.gaussian_process.GaussianProcessRegressor", {}),
    ("sklearn.linear_model.ElasticNetCV", {"cv": 2, "n_jobs": -1}),
    ("sklearn.linear_model.SGDClassifier", {"max_iter": 5, "n_jobs": -1}),
    ("sklearn.neighbors.KNeighborsRegressor", {"n_jobs": -1}),
    ("sklearn.neural_network.MLPClassifier", {"max_iter": 2, "early_stopping": True}),
    ("sklearn.neural_network.MLPRegressor", {"max_iter": 2}),
    ("sklearn.svm.SVC", {"max_iter": 50}),
    ("sklearn.svm.SVR", {"max_iter": 50}),
    (
        "sklearn.linear_model.LogisticRegressionCV",
        {"Cs": 2, "cv": 2, "n_jobs": -1, "solver": "saga", "max_iter": 5},
    ),
    (
        "sklearn.model_selection.RandomizedSearchCV",
        {
            "estimator": {"class": "sklearn.svm.LinearSVC", "max_iter": 10},
            "param_distributions": {"C": [0.1, 1.0]},
            "n_iter": 2,
            "cv": 2,
            "n_jobs": -1,
        },
    ),
    ("sklearn.ensemble.BaggingClassifier", {"n_estimators": 3, "estimator": TREE, "n_jobs": -1}),
    (
        "sklearn.ensemble.StackingClassifier",
        {"estimators": {"tree": TREE, "linear": SAGA}, "cv": 2, "n_jobs": -1},
    ),
    (
        "sklearn.ensemble.VotingClassifier",
        {"estimators": {"tree": TREE, "linear": SAGA}, "voting": "soft", "n_jobs": -1},
    ),
    ("sklearn.calibration.CalibratedClassifierCV", {"estimator": TREE, "cv": 2, "n_jobs": -1}),
    ("sklearn.multiclass.OneVsRestClassifier", {"estimator": SAGA, "n_jobs": -1}),
    (
        "sklearn.pipeline.Pipeline",
        {
            "steps": {
                "parts": {"class": "sklearn.decomposition.PCA", "n_components": 5},
                "near": {"class": "sklearn.cluster.KMeans", "n_clusters": 3, "n_init": 1},
                "model": SAGA,
            }
        },
    ),
]


def fitted(cores: int, folder: Path) -> dict[str, list[str]]:
    """The hashes of all models on a machine of so many cores, with habits of its own."""
    folder.mkdir()
    threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    habits = {
        "PYTHONHASHSEED": str(cores),
        "TZ": f"UTC{cores}",
        "LC_ALL": ["C", "C.UTF-8"][cores % 2],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cores), json.dumps(ESTIMATORS)],
        cwd=folder,
        env={**os.environ, **threads, **habits, "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_every_estimator_has_the_same_bytes_and_answers_on_1_2_and_4_cores(tmp_path: Path) -> None:
    one, two, four = (fitted(cores, tmp_path / f"Größe {cores}") for cores in (1, 2, 4))
    assert len(one) == len(ESTIMATORS)
    assert [name for name in one if not one[name] == two[name] == four[name]] == []


def test_blas_has_one_thread_while_a_model_is_fitted_and_its_own_number_afterwards() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with same_on_all_machines():
        assert set(threads()) == {1}
    assert threads() == before


@pytest.mark.parametrize(
    ("model", "threads"),
    [
        (Pipeline([("near", KMeans()), ("model", LogisticRegression())]), 1),
        (BaggingClassifier(make_pipeline(KMeans(), LogisticRegression())), 1),
        (HistGradientBoostingClassifier(), 2),
    ],
)
def test_what_adds_up_by_thread_has_one(model: Any, threads: int) -> None:
    def found() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"]

    with threadpool_limits({"openmp": 2}):
        with same_on_all_machines(model):
            assert set(found()) == {threads}
            parallel = Parallel(n_jobs=2)
            parallel(delayed(int)() for _ in range(2))
            assert (type(parallel._backend).__name__ == "SequentialBackend") == (threads == 1)
        assert set(found()) == {2}


def bytes_of(model: Any, path: Path) -> str:
    joblib.dump(model, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("nested", [False, True])
def test_threads_that_fitted_are_forgotten_wherever_they_are(nested: bool, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(300, 3))
    model = HistGradientBoostingClassifier(max_iter=2).fit(x, x[:, 0] > 0)
    answers = model.predict_proba(x)
    hashes = set()
    for threads in (2, 5):
        model._bin_mapper.n_threads = threads
        whole = Pipeline([("all", {"parts": [(model,)]})]) if nested else model
        forget_machine(whole)
        hashes.add(bytes_of(whole, tmp_path / "model"))
    assert len(hashes) == 1
    assert np.array_equal(model.predict_proba(x), answers)


def test_the_time_that_a_search_took_is_forgotten(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(60, 2))
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(x, x[:, 0] > 0)
    assert search.refit_time_ > 0
    forget_machine(search)
    assert search.refit_time_ == 0
    assert set(search.cv_results_["mean_fit_time"]) == {0.0}
    assert set(search.cv_results_["mean_test_score"]) != {0.0}


def test_a_forest_adds_up_its_trees_in_one_order() -> None:
    x = np.random.default_rng(1).normal(size=(60, 2))
    forest = RandomForestRegressor(4, n_jobs=-1).fit(x, x[:, 0])
    forget_machine(forest)
    assert forest.n_jobs is None
    assert {tree.get_params().get("n_jobs") for tree in forest.estimators_} == {None}
