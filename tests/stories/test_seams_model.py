"""An own metric, estimator and threshold: from params.yaml to the gate and into the bento."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]
Bake = Callable[..., Path]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def own_estimator(params: dict[str, Any]) -> None:
    params["train"]["estimator"] = "flight_delays.model.SeedAverage"
    params["train"]["hyperparameters"] = {
        "copies": 2,
        "estimator": {
            "class": "sklearn.ensemble.HistGradientBoostingClassifier",
            "max_iter": 60,
            "max_features": 0.5,
        },
    }
    # A missed delay costs three warnings for nothing.
    params["train"]["threshold"] = 0.25


def slice_of_own_metric(contract: dict[str, Any]) -> None:
    contract["model"]["slices"].append(
        {"column": "origin", "metric": "warning_cost", "min_rows": 300, "ceiling": 0.7}
    )


def test_own_metric_and_estimator_go_through_the_gate_into_the_bento(
    pipelined: Bake, project_run: Run
) -> None:
    project = pipelined()
    edit(project / "params.yaml", own_estimator)
    edit(project / "contract.yaml", slice_of_own_metric)
    project_run(project, "dvc", "repro", check=True)

    judged = project_run(project, "gitops-ml", "gate", "--base", "HEAD")

    report = json.loads((project / "reports/gate.json").read_text(encoding="utf-8"))
    (cost,) = [one for one in report["metrics"] if one["metric"] == "warning_cost"]
    assert cost["better"] == "smaller"
    assert cost["low"] < cost["difference"] < cost["high"] < 0, judged.stdout
    assert cost["outcome"] == "superior"
    slices = [one for one in report["slices"] if one["metric"] == "warning_cost"]
    assert {one["value"] for one in slices} == {"EWR", "JFK", "LGA"}
    assert "| warning\\_cost ↓ |" in (project / "reports/gate.md").read_text(encoding="utf-8")
    golden = json.loads((project / "reports/golden.json").read_text(encoding="utf-8"))
    for answer in golden["predictions"]:
        assert answer["prediction"] is (answer["probabilities"]["true"] >= 0.25)

    project_run(project, "gitops-ml", "package", check=True)
    # What is in the bento must do.
    (project / "src/flight_delays/model.py").unlink()
    smoked = project_run(project, "gitops-ml", "smoke", "--serve", "latest")
    assert smoked.returncode == 0, smoked.stdout + smoked.stderr


def test_an_experiment_sets_a_key_inside_of_a_composition(
    pipelined: Bake, project_run: Run
) -> None:
    project = pipelined()
    edit(project / "params.yaml", own_estimator)
    key = "train.hyperparameters.estimator.max_iter=7"

    done = project_run(project, "dvc", "exp", "run", "train", "-S", key)

    assert done.returncode == 0, done.stdout + done.stderr
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    assert params["train"]["hyperparameters"]["estimator"]["max_iter"] == 7


def test_a_metric_that_fails_stops_the_pipeline_with_its_line(
    pipelined: Bake, project_run: Run
) -> None:
    project = pipelined()
    metrics = project / "src/flight_delays/metrics.py"
    text = metrics.read_text(encoding="utf-8")
    metrics.write_text(text.replace("cost = MISSED", "cost = MISSING"), encoding="utf-8")

    done = project_run(project, "dvc", "repro")
    said = done.stdout + done.stderr

    assert done.returncode != 0
    assert "src/flight_delays/metrics.py: `warning_cost` failed on" in said
    assert "NameError: name 'MISSING' is not defined" in said
    assert "Traceback" not in said
