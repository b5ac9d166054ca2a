"""The pipeline workflow, executed: pushes and pull requests as they reach a repository.

Each story clones the same trained project, changes it as its author would, and runs the real
workflow with act. What is asserted are the jobs and steps that ran, where it turned red and what
the red step said.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from act import REPOSITORY, ActRun, run_act
from conftest import PROJECT_TEMPLATE
from pytest_httpserver import HTTPServer

sys.path.append(str(PROJECT_TEMPLATE / "tests" / "unit"))
import fake_actions

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]

CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
SETUP = "./.github/actions/setup"
QUALITY = [CHECKOUT, SETUP, "Lint, types, unit tests"]
DATA = [
    CHECKOUT,
    SETUP,
    "Restore the DVC cache",
    "Pull from the DVC remote",
    "Validate and split",
    "Test the data",
    "Keep the report",
]
MODEL = [
    CHECKOUT,
    SETUP,
    "Restore the DVC cache",
    "Pull from the DVC remote",
    "Train and evaluate",
    "Verify dvc.lock",
    "Test the model",
    "Gate",
    "Build the bento",
    "Smoke-test the bento",
    "Export the bento",
    "Verify that the bento is the gated one",
    "Push to the DVC remote",
    "Keep the DVC cache",
    "Summarise",
    "Keep the report",
    "Keep the model and the bento",
]
ALWAYS = {"Keep the DVC cache", "Summarise", "Keep the report"}
ON_PUSH = {"Push to the DVC remote"}
NOTHING = "0" * 40


@dataclass
class Hub:
    """A repository on a local origin, and what GitHub would know of it."""

    origin: Path
    clone: Path
    scratch: Path
    env: Mapping[str, str]
    project_run: Run
    api: fake_actions.FakeActions
    labels: tuple[str, ...] = ()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.clone, env=dict(self.env),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"git {arguments}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--no-verify", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def train(self) -> None:
        """Run the pipeline as the author does before a commit."""
        self.project_run(self.clone, "dvc", "repro", check=True)

    def edit_yaml(self, name: str, change: Callable[[Any], None]) -> None:
        path = self.clone / name
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(document)
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def push(self, before: str, **options: Any) -> ActRun:
        """Push HEAD to main and run the pipeline for it."""
        self.git("push", "-q", "--force", "origin", "HEAD:refs/heads/main")
        self.api.pulls = []
        payload = {
            "ref": "refs/heads/main",
            "before": before,
            "after": self.git("rev-parse", "HEAD"),
            "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        }
        return self.run("push", payload, "refs/heads/main", **options)

    def pull_request(self, head_repository: str = REPOSITORY, **options: Any) -> ActRun:
        """Open a pull request from HEAD to main and run the pipeline for its merge."""
        head = self.git("rev-parse", "HEAD")
        base = self.git("rev-parse", "origin/main")
        self.git("checkout", "-q", "--detach", base)
        self.git("merge", "-q", "--no-ff", "-m", "Merge the pull request", head)
        self.git("push", "-q", "--force", "origin", "HEAD:refs/pull/7/merge")
        pull = fake_actions.pull_request(
            base={"sha": base, "ref": "main", "repo": {"full_name": REPOSITORY}},
            head={"sha": head, "ref": "change", "repo": {"full_name": head_repository}},
            labels=[{"name": name} for name in self.labels],
        )
        self.api.pulls = [pull]
        payload = {
            "action": "synchronize",
            "number": 7,
            "pull_request": pull,
            "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        }
        return self.run("pull_request", payload, "refs/pull/7/merge", **options)

    def run(self, event: str, payload: Mapping[str, Any], ref: str, **options: Any) -> ActRun:
        shutil.rmtree(self.scratch / "artifacts", ignore_errors=True)
        return run_act(
            event,
            payload,
            checkout=self.clone,
            workflow="pipeline.yml",
            ref=ref,
            origin=self.origin,
            scratch=self.scratch,
            env=self.env,
            **{"api": self.api.url, **options},
        )

    def comment(self) -> str:
        """Run the workflow that comments on the pull request; returns the comment."""
        self.api.archives.clear()
        for folder in sorted((self.scratch / "artifacts").iterdir()):
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as target:
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        target.write(path, path.relative_to(folder))
            self.api.archives[folder.name] = archive.getvalue()
        pull = self.api.pulls[0]
        event = fake_actions.run_event(
            conclusion="failure",
            head_sha=pull["head"]["sha"],
            head_branch=pull["head"]["ref"],
            head_repository=pull["head"]["repo"],
        )
        run = run_act(
            "workflow_run",
            event,
            checkout=self.clone,
            workflow="comment.yml",
            ref="refs/heads/main",
            origin=self.origin,
            scratch=self.scratch,
            env=self.env,
            api=self.api.url,
        )
        assert run.returncode == 0, run.explain()
        (comment,) = self.api.comments
        return str(comment["body"])

    def artifact(self, *parts: str) -> Path:
        return self.scratch.joinpath("artifacts", *parts)

    def verdict(self) -> dict[str, Any]:
        text = self.artifact("report", "reports", "gate.json").read_text(encoding="utf-8")
        verdict: dict[str, Any] = json.loads(text)
        return verdict


@pytest.fixture
def hub(
    pipelined: Callable[..., Path],
    clean_env: Mapping[str, str],
    project_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hub]:
    """A repository whose main has been trained, with the caches that its last run left."""
    project = pipelined("classification")
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    scratch = tmp_path / "github"
    shutil.copytree(project / ".dvc" / "cache", scratch / "cache" / "dvc-from-main")
    monkeypatch.setattr(fake_actions, "NAME", REPOSITORY)
    monkeypatch.setattr(fake_actions, "TOKEN", "token")
    with HTTPServer() as server, HTTPServer() as storage:
        api = fake_actions.FakeActions(server, storage)
        it = Hub(origin, project, scratch, clean_env, project_run, api)
        keep_few_unit_tests(it)
        connect(it)
        yield it


def keep_few_unit_tests(it: Hub) -> None:
    """Leave what is enough for the job `quality` to be real; the first push runs all of them."""
    for path in (it.clone / "tests" / "unit").glob("test_*.py"):
        if path.name not in ("test_settings.py", "test_split.py"):
            path.unlink()
    it.commit("Keep few unit tests")


def connect(it: Hub) -> None:
    """Give the clone its origin, as `git clone` would."""
    it.git("remote", "add", "origin", f"file://{it.origin}")
    it.git("push", "-q", "origin", "main")
    it.git("fetch", "-q", "origin")


def expect_green(run: ActRun, *, pushed: bool) -> None:
    assert run.failed_steps() == [], run.explain()
    assert run.jobs == dict.fromkeys(("quality", "data", "model", "all-green"), "success")
    assert run.returncode == 0
    assert list(run.steps["quality"]) == QUALITY
    assert list(run.steps["data"]) == DATA
    assert list(run.steps["model"]) == [s for s in MODEL if pushed or s not in ON_PUSH]


def expect_nothing_computed(run: ActRun) -> None:
    for job, step in (("data", "Validate and split"), ("model", "Train and evaluate")):
        assert "Running stage" not in run.said(job, step)
    assert "Stage 'train' didn't change" in run.said("model", "Train and evaluate")


def expect_red(run: ActRun, job: str, step: str) -> str:
    """The run failed at this step only, and nothing but the `always()` steps came after it."""
    assert run.returncode != 0
    red_gate = ("all-green", "Every job succeeded")
    assert run.failed_steps() == [(job, step), red_gate], run.explain()
    assert run.jobs[job] == "failure"
    assert run.jobs["all-green"] == "failure"
    order = {"quality": QUALITY, "data": DATA, "model": MODEL}[job]
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
    assert "No champion yet" in run.said("model", "Gate")
    assert "DVC_REMOTE_URL" in run.said("model", "Pull from the DVC remote")
    assert hub.artifact("bento", "models", "manifest.json").is_file()
    assert list(hub.artifact("bento", "build").glob("*.bento"))
    assert "DVC_REMOTE_URL" in run.summary
    assert "No champion" in run.summary


def test_a_pull_request_that_improves_the_model_is_promoted(hub: Hub) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=300))
    hub.train()
    hub.commit("Train for longer")
    run = hub.pull_request()
    expect_green(run, pushed=False)
    verdict = hub.verdict()
    assert verdict["verdict"] == "promote"
    packaged = json.loads(hub.artifact("bento", "models", "manifest.json").read_text("utf-8"))
    assert packaged["files"][packaged["served"]] == verdict["challenger"]["sha256"]


def test_a_pull_request_that_degrades_the_model_is_blocked(hub: Hub) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=40))
    hub.train()
    hub.commit("Train for less")
    said = expect_red(hub.pull_request(), "model", "Gate")
    assert "roc_auc" in said
    assert "worse than the champion" in said
    assert hub.verdict()["verdict"] == "block"
    comment = hub.comment()
    assert "roc_auc" in comment.replace("\\", "")
    assert "origin = JFK" in comment
    assert "0.7744" in comment


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
    assert hub.artifact("data-report", "validation.html").is_file()


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
    said = expect_red(hub.pull_request(), "model", "Gate")
    assert "loosen" in said
    assert "0.6" in said

    pushed = {"head_sha": head, "event": "pull_request", "head_branch": "change"}
    hub.api.runs = [
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


def test_a_pull_request_from_a_fork_needs_no_token(hub: Hub) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=160))
    hub.train()
    hub.commit("Train a little longer")
    run = hub.pull_request(head_repository="somebody/flight_delays", token=None)
    expect_green(run, pushed=False)
    assert hub.verdict()["verdict"] == "promote"


def test_a_stale_lock_is_named_with_the_command_that_mends_it(hub: Hub) -> None:
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=160))
    hub.commit("Change a parameter, forget to run the pipeline")
    said = expect_red(hub.pull_request(), "model", "Verify dvc.lock")
    assert "train: stale" in said
    assert "make pipeline" in said


def test_a_remote_is_pushed_to_and_spares_the_training(hub: Hub, tmp_path: Path) -> None:
    remote = {"DVC_REMOTE_URL": str(tmp_path / "remote")}
    shutil.rmtree(hub.scratch / "cache")
    first = hub.push(hub.git("rev-parse", "HEAD~1"), variables=remote)
    expect_green(first, pushed=True)
    shutil.rmtree(hub.scratch / "cache")
    readme = hub.clone / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8")
    hub.commit("Say more")
    second = hub.pull_request(variables=remote)
    expect_green(second, pushed=False)
    expect_nothing_computed(second)
