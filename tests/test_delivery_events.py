"""Which events start a delivery, and which of them wait for one another.

act evaluates the expressions of the workflow: its first job's condition, and its queue, which act
itself does not keep.
"""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from act import ACT, REPOSITORY, read_log
from conftest import PROJECT_TEMPLATE
from hub import pipeline_ended
from workflow_rules import read

WORKFLOWS = PROJECT_TEMPLATE / ".github/workflows"
DELIVERIES = sorted(WORKFLOWS.glob("deliver*.yml"))
ROLLBACKS = sorted(WORKFLOWS.glob("rollback*.yml"))
QUEUE = "deliver"
RUN = "4711"


def ended(**changes: Any) -> dict[str, Any]:
    event = copy.deepcopy(pipeline_ended("0" * 40))
    event["workflow_run"] |= changes
    return event


def by_hand(**inputs: str) -> dict[str, Any]:
    return {
        "repository": {"full_name": REPOSITORY, "default_branch": "main", "private": False},
        "inputs": inputs,
    }


def evaluate(
    workflow: dict[str, Any], event: str, payload: dict[str, Any], folder: Path
) -> tuple[bool, str]:
    """Whether the workflow's first job runs for an event, and the queue that its run waits in."""
    (first, job), *_ = workflow["jobs"].items()
    queue = {"run": 'echo "$QUEUE"', "env": {"QUEUE": workflow["concurrency"]["group"]}}
    copied = {
        "on": workflow["on"],
        "jobs": {
            first: {"runs-on": "ubuntu-latest", "steps": [queue]}
            | ({"if": job["if"]} if "if" in job else {}),
            "always": {"runs-on": "ubuntu-latest", "steps": [{"name": "queue", **queue}]},
        },
    }
    (folder / ".github/workflows").mkdir(parents=True)
    (folder / ".github/workflows/deliver.yml").write_text(yaml.safe_dump(copied), encoding="utf-8")
    (folder / "event.json").write_text(json.dumps(payload), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    command = [
        str(ACT), event, "--eventpath", "event.json", "--platform", "ubuntu-latest=-self-hosted",
        "--env", f"GITHUB_REPOSITORY={REPOSITORY}", "--env", f"GITHUB_RUN_ID={RUN}",
        "--container-daemon-socket", "-", "--cache-server-addr", "127.0.0.1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    run = read_log(done.returncode, done.stdout + done.stderr)
    assert run.returncode == 0, run.explain()
    return first in run.jobs, run.said("always", "queue").strip()


STRANGER = {"full_name": "stranger/flight_delays"}


@pytest.mark.parametrize("path", DELIVERIES, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("event", "payload", "delivers"),
    [
        ("workflow_run", ended(), True),
        ("workflow_dispatch", by_hand(commit="0" * 40), True),
        ("workflow_run", ended(conclusion="failure"), False),
        ("workflow_run", ended(conclusion="cancelled"), False),
        ("workflow_run", ended(event="pull_request"), False),
        ("workflow_run", ended(event="pull_request", head_repository=STRANGER), False),
        ("workflow_run", ended(event="merge_group"), False),
    ],
    ids=[
        "a green push",
        "a person's choice",
        "a red push",
        "a cancelled push",
        "a pull request",
        "a stranger's main",
        "a merge queue",
    ],
)
def test_what_delivers_waits_its_turn_and_nothing_else_takes_its_place(
    path: Path, event: str, payload: dict[str, Any], delivers: bool, tmp_path: Path
) -> None:
    runs, queue = evaluate(read(path), event, payload, tmp_path)
    assert runs == delivers
    assert queue == (QUEUE if delivers else RUN)


@pytest.mark.parametrize(
    "changes",
    [{"head_branch": "other"}, {"head_repository": STRANGER}],
    ids=["another branch", "a stranger"],
)
def test_a_push_elsewhere_delivers_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    runs, _ = evaluate(read(DELIVERIES[0]), "workflow_run", ended(**changes), tmp_path)
    assert not runs


@pytest.mark.parametrize("path", ROLLBACKS, ids=lambda path: path.name)
def test_a_rollback_waits_for_no_delivery(path: Path, tmp_path: Path) -> None:
    """Not for one that waits for an approval, nor does a newer one take its place."""
    payload = by_hand(environment="production", to="")
    runs, queue = evaluate(read(path), "workflow_dispatch", payload, tmp_path)
    assert runs
    assert queue == "rollback-production"


@pytest.mark.parametrize("path", [*DELIVERIES, *ROLLBACKS], ids=lambda path: path.name)
def test_nothing_is_cancelled_half_way(path: Path) -> None:
    assert read(path)["concurrency"]["cancel-in-progress"] is False
