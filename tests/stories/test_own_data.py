"""Data of other shapes: from a file to a served prediction, with three YAML files and no Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from conftest import SLUG

pytestmark = pytest.mark.slow

Bake = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]

# A line of a code block inside a numbered step.
CODE = " " * 7
PIPELINE_TESTS = ("pytest", "-m", "pipeline")

# Written by the project's own environment, which has scikit-learn and polars.
MAKE_DATA = """
import sys
from pathlib import Path
import numpy as np
import polars as pl
from sklearn import datasets

name, out = sys.argv[1], Path(sys.argv[2])
out.mkdir(parents=True)

def frame(bunch):
    columns = [c.replace(" ", "_").replace("(", "").replace(")", "") for c in bunch.feature_names]
    return pl.DataFrame(dict(zip(columns, bunch.data.T, strict=True)))

if name == "tumours":          # binary, all numbers, no key, no time
    bunch = datasets.load_breast_cancer()
    table = frame(bunch).with_columns(malignant=pl.Series(bunch.target == 0))
    table.write_parquet(out / "tumours.parquet")
elif name == "wines":          # three classes by name, in CSV
    bunch = datasets.load_wine()
    kinds = np.array(["barolo", "grignolino", "barbera"])[bunch.target]
    frame(bunch).with_columns(kind=pl.Series(kinds)).write_csv(out / "wines.csv")
elif name == "diabetes":       # a number to predict
    bunch = datasets.load_diabetes()
    frame(bunch).with_columns(progression=pl.Series(bunch.target)).write_parquet(out / "d.parquet")
elif name == "subscriptions":  # mixed types, missing values, a key, a time, two files, odd names
    rng = np.random.default_rng(7)
    rows = 3000
    plan = rng.choice(["free", "basic", "pro"], rows, p=[0.5, 0.3, 0.2])
    age = rng.integers(18, 90, rows)
    spend = np.round(rng.gamma(2.0, 20.0, rows), 2)
    autopay = rng.random(rows) < 0.5
    logit = -1.0 + 1.5 * (plan == "free") - 1.2 * autopay - 0.02 * spend
    left = rng.random(rows) < 1 / (1 + np.exp(-logit))
    start = np.datetime64("2024-01-01T00:00:00", "ms")
    table = pl.DataFrame({
        "customer id": [f"c-{i:05}" for i in range(rows)],
        "signed_up": start + 1000 * rng.integers(0, 500 * 86400, rows).astype("timedelta64[ms]"),
        "plan": [None if rng.random() < 0.05 else str(p) for p in plan],
        "age": pl.Series([None if rng.random() < 0.1 else int(a) for a in age]),
        "spend (EUR)": spend,
        "autopay": autopay,
        "left": np.where(left, "yes", "no"),
    })
    table[:2000].write_csv(out / "first.csv")
    table[2000:].write_csv(out / "second.csv")
"""


@dataclass(frozen=True)
class DataSet:
    """A data set, and what its owner writes into `params.yaml`."""

    name: str
    task: str
    target: str
    estimator: str
    metrics: list[str]
    data: dict[str, Any] = field(default_factory=lambda: {"key": [], "time": None})
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(
        default_factory=lambda: {"categories": "one_hot", "missing": "median", "scale": True}
    )


DATA_SETS = [
    DataSet(
        "tumours",
        "classification",
        "malignant",
        "sklearn.linear_model.LogisticRegression",
        ["roc_auc", "log_loss"],
        hyperparameters={"max_iter": 500},
    ),
    DataSet(
        "wines",
        "classification",
        "kind",
        "sklearn.ensemble.RandomForestClassifier",
        ["balanced_accuracy", "log_loss"],
        hyperparameters={"n_estimators": 50},
    ),
    DataSet(
        "diabetes",
        "regression",
        "progression",
        "sklearn.linear_model.Ridge",
        ["mae", "r2"],
    ),
    DataSet(
        "subscriptions",
        "classification",
        "left",
        "sklearn.ensemble.GradientBoostingClassifier",
        ["roc_auc", "brier"],
        data={"key": ["customer id"], "time": "signed_up"},
        hyperparameters={"n_estimators": 40},
    ),
]


def point_params_at(project: Path, wanted: DataSet) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params |= {"task": wanted.task, "target": wanted.target}
    params["data"] = {"source": f"data/{wanted.name}", "as_of": "now", **wanted.data}
    params["split"]["columns"] = []
    params["train"] |= {
        "estimator": wanted.estimator,
        "hyperparameters": wanted.hyperparameters,
        "preprocessing": wanted.preprocessing,
    }
    params["evaluate"] |= {"metrics": wanted.metrics, "slices": []}
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def settle_the_data_terms(project: Path) -> None:
    """Drop what the example's contract asks of its own data: freshness and many rows."""
    path = project / "contract.yaml"
    contract = yaml.safe_load(path.read_text(encoding="utf-8"))
    contract["data"] = {"rows_min": 100}
    path.write_text(yaml.safe_dump(contract, sort_keys=False), encoding="utf-8")


@pytest.fixture
def must(project_run: Run) -> Callable[..., str]:
    """Run a command in a project, which must end with a status; what it said."""

    def run_command(project: Path, *command: str, status: int = 0) -> str:
        done = project_run(project, *command)
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run_command


def commands(project: Path) -> list[list[str]]:
    """The commands of `docs/own-data.md`, in order."""
    page = (project / "docs" / "own-data.md").read_text(encoding="utf-8")
    return [shlex.split(line) for line in page.splitlines() if line.startswith(CODE)]


def follow_the_page(
    project: Path, wanted: DataSet, must: Callable[..., str]
) -> tuple[list[str], list[str]]:
    """Do what `docs/own-data.md` says, up to the commit that is to be judged.

    Returns:
        The two commands that are left: the one that judges, and the one that also consents.
    """
    *steps, judge, consent = commands(project)
    must(project, "python", "-c", MAKE_DATA, wanted.name, f"data/{wanted.name}")
    point_params_at(project, wanted)
    for step in steps:
        # The unit tests know nothing of the data, and other tests run them.
        must(project, *(PIPELINE_TESTS if step == ["make", "test"] else step))
        if step[:2] == ["make", "schema"]:
            settle_the_data_terms(project)
    assert steps[-1][:2] == ["git", "commit"]
    assert ".yaml.bak" not in must(project, "git", "ls-files")
    return judge, consent


@pytest.mark.parametrize("wanted", DATA_SETS, ids=lambda wanted: wanted.name)
def test_own_data_reach_a_served_prediction(
    bake: Bake, must: Callable[..., str], wanted: DataSet
) -> None:
    project = bake(lock=True, task="classification")
    sources = {path: path.read_bytes() for path in (project / "src").rglob("*.py")}
    judge, _ = follow_the_page(project, wanted, must)
    must(project, *judge)
    served = must(project, "make", "smoke-bento")

    assert "golden" in served
    # The page removes what the example derives; the rest of the code needs no edit.
    del sources[project / "src" / SLUG / "features.py"]
    assert sources == {path: path.read_bytes() for path in (project / "src").rglob("*.py")}


def test_own_data_replace_the_example_once_a_maintainer_says_so(
    pipelined: Bake, must: Callable[..., str]
) -> None:
    project = pipelined("classification")
    (wanted,) = (one for one in DATA_SETS if one.name == "tumours")
    judge, consent = follow_the_page(project, wanted, must)

    blocked = must(project, *judge, status=2)
    assert "change of the row count since the base: " in blocked
    assert "the contract is loosened: " in blocked
    must(project, *consent)
    report = json.loads((project / "reports" / "gate.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "promote"
    assert report["data"]["base_rows"] > 2 * report["data"]["rows"]
