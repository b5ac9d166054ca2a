"""The workflow that comments on pull requests: what its YAML promises, and one run with act.

The rules that it shares with every workflow are in test_workflow_rules.py.
What the comment says, and what hostile artifacts cannot make it say, is tested in the project.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fake_actions
import pytest
from act import REPOSITORY, run_act
from conftest import PROJECT_TEMPLATE
from pytest_httpserver import HTTPServer
from workflow_rules import Document, read, set_in

WORKFLOWS = PROJECT_TEMPLATE / ".github" / "workflows"
COMMENT = WORKFLOWS / "comment.yml"
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
SETUP_UV = "astral-sh/setup-uv@20cfd1bf945f4377ade1205e4dbc17946fc9a30d"


def faults(workflow: Document) -> list[str]:
    """What is dangerous in a workflow that may write although a stranger's run started it."""
    found = []
    if workflow["on"] != {"workflow_run": {"workflows": ["Pipeline"], "types": ["completed"]}}:
        found.append("trigger")
    (job,) = workflow["jobs"].values()
    if job.get("if") != "github.event.workflow_run.event == 'pull_request'":
        found.append("condition")
    least = {"actions": "read", "contents": "read", "pull-requests": "write"}
    if job["permissions"] != least:
        found.append("permissions")
    if not 0 < job.get("timeout-minutes", 360) <= 15:
        found.append("timeout")
    group = workflow.get("concurrency", {})
    parts = ("workflow_run.head_repository.full_name", "workflow_run.head_sha")
    if group.get("cancel-in-progress") is not False or not all(
        part in group.get("group", "") for part in parts
    ):
        found.append("concurrency")
    for step in job["steps"]:
        found += step_faults(step)
    return found


def step_faults(step: Mapping[str, Any]) -> list[str]:
    found = []
    options = step.get("with", {})
    default = "${{ github.event.repository.default_branch }}"
    if "checkout" in step.get("uses", "") and (
        options.get("ref") != default or "repository" in options
    ):
        found.append("checkout of something else than the default branch")
    if "setup-uv" in step.get("uses", "") and options.get("enable-cache") is not False:
        found.append("cache of other runs")
    if "run" in step and step["run"] != "make comment":
        found.append("command")
    return found


def test_the_workflow_that_may_write_runs_nothing_of_a_pull_request() -> None:
    assert faults(read(COMMENT)) == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("on", {"pull_request_target": None}, "trigger"),
        ("on/workflow_run/workflows", ["Pipeline", "Other"], "trigger"),
        ("jobs/comment/if", "always()", "condition"),
        ("jobs/comment/permissions", {"contents": "write"}, "permissions"),
        ("jobs/comment/timeout-minutes", 360, "timeout"),
        ("concurrency/cancel-in-progress", True, "concurrency"),
        ("concurrency/group", "comment", "concurrency"),
        (
            "jobs/comment/steps/0/with/ref",
            "${{ github.event.workflow_run.head_sha }}",
            "checkout of something else than the default branch",
        ),
        (
            "jobs/comment/steps/0/with/repository",
            "guest/late",
            "checkout of something else than the default branch",
        ),
        ("jobs/comment/steps/1/with/enable-cache", True, "cache of other runs"),
        ("jobs/comment/steps/2/run", "make setup comment", "command"),
    ],
)
def test_each_danger_is_seen(path: str, value: Any, fault: str) -> None:
    assert faults(set_in(read(COMMENT), path, value)) == [fault]


def test_it_waits_for_the_pipeline_and_reads_what_that_keeps() -> None:
    pipeline = read(WORKFLOWS / "pipeline.yml")
    assert pipeline["name"] == "Pipeline"
    kept = {
        step["with"]["name"]: step["with"]["path"].split()
        for job in pipeline["jobs"].values()
        for step in job["steps"]
        if "upload-artifact" in step.get("uses", "")
    }
    assert "reports" in kept["report"]
    assert {"reports/ingest.json", "reports/validation.json"} <= set(kept["data-report"])


def test_the_gate_may_read_what_consent_needs() -> None:
    permissions = [
        job["permissions"]
        for job in read(WORKFLOWS / "pipeline.yml")["jobs"].values()
        if any("make gate" in step.get("run", "") for step in job["steps"])
    ]
    assert [part | {"contents": "read"} for part in permissions] == [
        {"actions": "read", "contents": "read", "pull-requests": "read"}
    ]


def test_the_one_exception_for_a_linter_says_why() -> None:
    lines = COMMENT.read_text(encoding="utf-8").splitlines()
    (place,) = [number for number, line in enumerate(lines) if "zizmor: ignore" in line]
    assert lines[place].endswith("workflow_run: # zizmor: ignore[dangerous-triggers]")
    assert lines[place - 1].strip().startswith("#")


@pytest.fixture
def servers() -> Iterator[tuple[HTTPServer, HTTPServer]]:
    with HTTPServer(threaded=True) as server, HTTPServer() as storage:
        yield server, storage


@pytest.mark.slow
def test_a_fork_s_run_is_reported_by_the_default_branch_s_code(
    locked_project: Path,
    project_env: Mapping[str, str],
    servers: tuple[HTTPServer, HTTPServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pull request brings a Makefile of its own, which must not run."""
    monkeypatch.setattr(fake_actions, "NAME", REPOSITORY)
    monkeypatch.setattr(fake_actions, "TOKEN", "token")
    api = fake_actions.FakeActions(*servers)
    problem = {
        "file": "data/landed/july.parquet",
        "column": "distance",
        "rule": "min",
        "count": 3,
        "message": "is below 0 @everybody",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("validation.json", json.dumps({"problems": [problem]}))
    api.archives["data-report"] = archive.getvalue()
    api.files = [{"filename": "Makefile", "status": "modified"}]
    api.jobs = [fake_actions.job("Data", "failure", "Validate and split")]

    clone, origin, proof = tmp_path / "clone", tmp_path / "origin.git", tmp_path / "ran"
    shutil.copytree(locked_project, clone, symlinks=True)

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=clone, env=dict(project_env), check=True)

    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    git("push", "-q", str(origin), "HEAD:refs/heads/main")
    (clone / "Makefile").write_text(f"comment:\n\ttouch {proof}\n", encoding="utf-8")
    git("commit", "-aqm", "Run something else", "--no-verify")
    git("push", "-q", str(origin), "HEAD:refs/pull/7/head")
    git("reset", "-q", "--hard", "HEAD~1")

    def run(**changes: Any) -> Any:
        return run_act(
            "workflow_run",
            fake_actions.run_event(**changes),
            checkout=clone,
            workflow="comment.yml",
            ref="refs/heads/main",
            origin=origin,
            scratch=tmp_path / "github",
            env=project_env,
            api=api.url,
        )

    done = run(conclusion="failure")
    assert done.returncode == 0, done.log[-4000:]
    assert done.steps == {
        "comment": dict.fromkeys([CHECKOUT, SETUP_UV, "Write the comment"], "success")
    }
    assert not proof.exists()
    (comment,) = api.comments
    assert "The data break rules" in comment["body"]
    assert "- tasks and stages (1): Makefile\n" in comment["body"]
    assert "| data/landed/july.parquet | distance | min | 3 |" in comment["body"]
    assert "@everybody" not in comment["body"]
    assert "failed at Validate and split" in comment["body"]

    api.refusals[f"GET /repos/{REPOSITORY}/pulls"] = [404]
    refused = run(conclusion="failure")
    assert refused.failed_steps() == [("comment", "Write the comment")]
    assert "HTTP 404" in refused.said("comment", "Write the comment")

    before = list(api.requests)
    other = run(event="push")
    assert other.steps.get("comment", {}) == {}
    assert api.requests == before
