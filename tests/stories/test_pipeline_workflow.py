"""The pipeline workflow, executed: pushes and pull requests as they reach a repository.

Each story clones the same trained project, changes it as its author would, and runs the real
workflow with act. What is asserted are the jobs and steps that ran, where it turned red and what
the red step said.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from act import REPOSITORY, ActRun
from hub import BETTER, NOTHING, Hub, expect_nothing_computed

pytestmark = pytest.mark.slow

CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
SETUP = "./.github/actions/setup"
QUALITY = [CHECKOUT, SETUP, "Lint, types, unit tests"]
DATA = [
    CHECKOUT,
    SETUP,
    "Restore the DVC cache",
    "Validate and split",
    "Test the data",
    "Keep the report",
]
MODEL = [
    CHECKOUT,
    SETUP,
    "Restore the DVC cache",
    "Train and evaluate",
    "Verify dvc.lock",
    "Test the model",
    "Build the bento",
    "Smoke-test the bento",
    "Export the bento",
    "Push to the DVC remote",
    "Keep the DVC cache",
    "Keep the reports for the gate",
    "Keep the model and the bento",
]
SETUP_UV = "astral-sh/setup-uv@20cfd1bf945f4377ade1205e4dbc17946fc9a30d"
GATE = [
    CHECKOUT,
    SETUP_UV,
    "Restore the DVC cache",
    "Fetch the model and the bento",
    "Fetch the reports",
    "Gate",
    "Verify that the bento is the gated one",
    "Summarise",
    "Keep the report",
]
ALWAYS = {"Keep the DVC cache", "Keep the reports for the gate", "Summarise", "Keep the report"}
ON_PUSH = {"Push to the DVC remote"}


def expect_green(run: ActRun, *, pushed: bool) -> None:
    assert run.failed_steps() == [], run.explain()
    assert run.jobs == dict.fromkeys(("quality", "data", "model", "gate", "all-green"), "success")
    assert run.returncode == 0
    assert list(run.steps["quality"]) == QUALITY
    assert list(run.steps["data"]) == DATA
    assert list(run.steps["model"]) == [s for s in MODEL if pushed or s not in ON_PUSH]
    assert list(run.steps["gate"]) == GATE


def expect_red(run: ActRun, job: str, step: str) -> str:
    """The run failed at this step only, and nothing but the `always()` steps came after it."""
    assert run.returncode != 0
    red_gate = ("all-green", "Every job succeeded")
    assert run.failed_steps() == [(job, step), red_gate], run.explain()
    assert run.jobs[job] == "failure"
    assert run.jobs["all-green"] == "failure"
    order = {"quality": QUALITY, "data": DATA, "model": MODEL, "gate": GATE}[job]
    after = order[order.index(step) + 1 :]
    ran = [name for name in after if run.steps[job].get(name, "skipped") != "skipped"]
    assert ran == [name for name in after if name in ALWAYS]
    return run.said(job, step)


def test_the_first_push_of_a_new_repository_is_green(hub: Hub) -> None:
    hub.git("checkout", "-q", "--detach", hub.git("rev-list", "--max-parents=0", "HEAD"))
    shutil.rmtree(hub.scratch / "cache")
    run = hub.push(NOTHING, token=None)
    expect_green(run, pushed=True)
    assert "Running stage 'train'" in run.said("model", "Train and evaluate")
    assert "nothing to verify" in run.said("model", "Verify dvc.lock")
    assert "No champion yet" in run.said("gate", "Gate")
    assert "DVC_REMOTE_URL" in run.said("model", "Train and evaluate")
    assert hub.artifact("bento", "models", "manifest.json").is_file()
    assert list(hub.artifact("bento", "build").glob("*.bento"))
    assert "DVC_REMOTE_URL" in run.summary
    assert "No champion" in run.summary


def test_a_pull_request_that_improves_the_model_is_promoted_from_a_fork_without_a_token(
    hub: Hub,
) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(BETTER))
    hub.train()
    hub.commit("Grow larger trees, more slowly")
    run = hub.pull_request(head_repository="somebody/flight_delays", token=None)
    expect_green(run, pushed=False)
    verdict = hub.verdict()
    assert verdict["verdict"] == "promote"
    (roc_auc,) = (found for found in verdict["metrics"] if found["metric"] == "roc_auc")
    assert roc_auc["challenger"] > roc_auc["champion"]
    packaged = json.loads(hub.artifact("bento", "models", "manifest.json").read_text("utf-8"))
    assert packaged["files"][packaged["served"]] == verdict["challenger"]["sha256"]


def test_a_pull_request_that_degrades_the_model_is_blocked(hub: Hub) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=30))
    hub.train()
    hub.commit("Train for less")
    said = expect_red(hub.pull_request(), "gate", "Gate")
    assert "roc_auc" in said
    assert "worse than the champion" in said
    assert hub.verdict()["verdict"] == "block"
    comment = hub.comment()
    assert "roc_auc" in comment.replace("\\", "")
    assert "origin = JFK" in comment
    assert "0.7752" in comment


def test_poisoned_data_stop_before_training(hub: Hub) -> None:
    poison = (
        "import polars as pl; p = 'data/landed/flights-2013-03.parquet';"
        "t = pl.read_parquet(p);"
        "t.with_columns(distance=-t['distance']).write_parquet(p)"
    )
    hub.project_run(hub.clone, "python", "-c", poison, check=True)
    hub.commit("Land corrected distances")
    run = hub.pull_request()
    said = expect_red(run, "data", "Validate and split")
    assert "distance" in said
    assert "flights-2013-03.parquet" in said
    assert run.steps.get("model", {}) == {}
    assert run.steps.get("gate", {}) == {}
    assert hub.artifact("data-report", "validation.html").is_file()


def test_a_lock_that_takes_a_wheel_from_elsewhere_is_refused_before_it_is_installed(
    hub: Hub,
) -> None:
    """Also when the change lets its own lock do so: the base's settings and engine count."""
    lock, settings = hub.clone / "uv.lock", hub.clone / "pyproject.toml"
    here, elsewhere = "https://files.pythonhosted.org/", "http://127.0.0.1:9/"
    lock.write_text(lock.read_text("utf-8").replace(here, elsewhere, 1), encoding="utf-8")
    table = "[tool.gitops-ml]\n"
    allowed = f'{table}package-sources = ["{elsewhere}"]\n'
    settings.write_text(settings.read_text("utf-8").replace(table, allowed), encoding="utf-8")
    sources = hub.clone / "engine" / "src" / "gitops_ml" / "core" / "lock_sources.py"
    sources.write_text("def run(options):\n    return 0\n", encoding="utf-8")
    hub.commit("Lock again")
    run = hub.pull_request()
    red = [("quality", SETUP), ("data", SETUP), ("all-green", "Every job succeeded")]
    assert sorted(run.failed_steps()) == sorted(red), run.explain()
    for job in ("quality", "data"):
        assert f"{elsewhere}packages/" in run.said(job, SETUP)
        assert "Nothing was installed." in run.said(job, SETUP)
    assert run.steps.get("model", {}) == {}


def test_a_model_that_breaks_a_model_test_does_not_reach_the_gate(hub: Hub) -> None:
    def expect_the_opposite(contract: Any) -> None:
        contract["behaviour"]["directional"].append(
            {"column": "precipitation", "set": 0.3, "expect": "decrease"}
        )

    hub.edit_yaml("contract.yaml", expect_the_opposite)
    hub.train()
    hub.commit("Demand that rain makes flights punctual")
    run = hub.pull_request()
    said = expect_red(run, "model", "Test the model")
    assert "precipitation = 0.3 to decrease" in said


def loosen(contract: Any) -> None:
    contract["model"]["metrics"]["roc_auc"]["floor"] = 0.6


def test_a_loosened_contract_is_blocked_until_a_maintainer_consents(hub: Hub) -> None:
    hub.edit_yaml("contract.yaml", loosen)
    hub.train()
    head = hub.commit("Lower the floor")
    said = expect_red(hub.pull_request(), "gate", "Gate")
    assert "loosen" in said
    assert "0.6" in said

    pushed = {"head_sha": head, "event": "pull_request", "head_branch": "change"}
    hub.api.runs += [
        {
            **pushed,
            "head_repository": {"full_name": REPOSITORY},
            "created_at": "2026-01-02T10:00:00Z",
            "run_started_at": "2026-01-02T10:00:00Z",
        }
    ]
    hub.api.timeline = [
        {
            "event": "labeled",
            "label": {"name": "contract: loosen"},
            "actor": {"login": "grace", "type": "User"},
            "created_at": "2026-01-02T11:00:00Z",
        }
    ]
    hub.labels = ("contract: loosen",)
    hub.git("checkout", "-q", "--detach", head)
    expect_green(hub.pull_request(), pushed=False)
    assert hub.verdict()["verdict"] in ("promote", "keep")


def test_a_change_of_documentation_trains_nothing(hub: Hub) -> None:
    readme = hub.clone / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8")
    hub.commit("Say more")
    run = hub.pull_request()
    expect_green(run, pushed=False)
    expect_nothing_computed(run)
    assert hub.verdict()["verdict"] == "keep"


def test_a_stale_lock_is_named_with_the_command_that_mends_it(hub: Hub) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=160))
    hub.commit("Change a parameter, forget to run the pipeline")
    said = expect_red(hub.pull_request(), "model", "Verify dvc.lock")
    assert "train: stale" in said
    assert "make pipeline" in said
