"""The workflows that deliver and roll back: which events start them, and in what order they go.

act evaluates the condition of the first job. What act does not keep to (permissions, environments,
queues) and what no story plays (a failure in production, a run that is cancelled) is compared.
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
from delivery_rules import DELIVERIES, delivery_faults, rollback_faults
from hub import pipeline_ended
from workflow_rules import read, set_in

WORKFLOWS = PROJECT_TEMPLATE / ".github/workflows"
ROLLBACKS = {"rollback.yml": False, "rollback.bentocloud.yml": True}


def ended(**changes: Any) -> dict[str, Any]:
    event = copy.deepcopy(pipeline_ended("0" * 40))
    event["workflow_run"] |= changes
    return event


def by_hand(**inputs: str) -> dict[str, Any]:
    return {
        "repository": {"full_name": REPOSITORY, "default_branch": "main", "private": False},
        "inputs": inputs,
    }


def starts(workflow: dict[str, Any], event: str, payload: dict[str, Any], folder: Path) -> bool:
    """Whether the workflow's first job runs for an event."""
    (first, job), *_ = workflow["jobs"].items()
    copied = {
        "on": workflow["on"],
        "jobs": {
            first: {"if": job["if"], "runs-on": "ubuntu-latest", "steps": [{"run": "true"}]},
            "always": {"runs-on": "ubuntu-latest", "steps": [{"run": "true"}]},
        },
    }
    (folder / ".github/workflows").mkdir(parents=True)
    (folder / ".github/workflows/deliver.yml").write_text(yaml.safe_dump(copied), encoding="utf-8")
    (folder / "event.json").write_text(json.dumps(payload), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    command = [
        str(ACT), event, "--eventpath", "event.json", "--platform", "ubuntu-latest=-self-hosted",
        "--env", f"GITHUB_REPOSITORY={REPOSITORY}",
        "--container-daemon-socket", "-", "--cache-server-addr", "127.0.0.1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    run = read_log(done.returncode, done.stdout + done.stderr)
    assert run.returncode == 0, run.explain()
    assert "always" in run.jobs
    return first in run.jobs


STRANGER = {"full_name": "stranger/flight_delays"}


@pytest.mark.parametrize("name", DELIVERIES)
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
def test_only_a_green_push_and_a_person_start_a_delivery(
    name: str, event: str, payload: dict[str, Any], delivers: bool, tmp_path: Path
) -> None:
    assert starts(read(WORKFLOWS / name), event, payload, tmp_path) == delivers


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_default_branch_of_another_name_delivers(name: str, tmp_path: Path) -> None:
    """A filter for branches can hold no expression: one that names main would start nothing."""
    workflow = read(WORKFLOWS / name)
    assert workflow["on"]["workflow_run"] == {"workflows": ["Pipeline"], "types": ["completed"]}
    event = ended(head_branch="master")
    event["repository"]["default_branch"] = "master"
    assert starts(workflow, "workflow_run", event, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"head_branch": "other"}, {"head_repository": STRANGER}],
    ids=["another branch", "a stranger"],
)
def test_a_push_elsewhere_delivers_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    workflow = read(WORKFLOWS / "deliver.yml")
    assert not starts(workflow, "workflow_run", ended(**changes), tmp_path)


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_release_reaches_production_by_staging_alone(name: str) -> None:
    assert delivery_faults(read(WORKFLOWS / name), DELIVERIES[name]) == []


@pytest.mark.parametrize(("name", "applies"), ROLLBACKS.items())
def test_a_rollback_asks_the_people_of_its_environment_and_is_probed(
    name: str, applies: bool
) -> None:
    assert rollback_faults(read(WORKFLOWS / name), applies) == []


@pytest.mark.parametrize("name", ROLLBACKS)
def test_a_rollback_waits_for_no_delivery(name: str) -> None:
    """Not for one that waits for an approval, nor does a newer one take its place."""
    assert read(WORKFLOWS / name)["concurrency"] == {
        "group": "rollback-${{ inputs.environment }}",
        "cancel-in-progress": False,
    }


STEPS = "jobs/{job}/steps"
PLANTED: dict[str, tuple[str, Any, list[str]]] = {
    "production without staging's proof": (
        "jobs/production/if", "always()", ["production: if"]),
    "production beside staging": (
        "jobs/production/needs", ["plan"], ["production: needs"]),
    "people of another environment": (
        "jobs/production/environment", {"name": "staging"}, ["production: environment"]),
    "staging is proved by nobody": (
        "jobs/staging/outputs/proved", "true", ["staging: outputs"]),
    "two at once": (
        "jobs/production/concurrency", None, ["production: concurrency"]),
    "staging waits for an approval of production": (
        "jobs/staging/concurrency/group", "production", ["staging: concurrency"]),
    "a delivery is cut off by the next": (
        "jobs/staging/concurrency/cancel-in-progress", True, ["staging: concurrency"]),
    "no issue can be opened": (
        "jobs/production/permissions", {"contents": "write"}, ["production: permissions"]),
    "a stranger's code plans": (
        f"{STEPS.format(job='plan')}/0/with/ref", "${{ inputs.commit }}", ["plan: checkout"]),
    "another commit than the pipeline's": (
        f"{STEPS.format(job='plan')}/2/env/COMMIT", "newest", ["plan: commit"]),
    "main is deployed, whatever was planned": (
        f"{STEPS.format(job='production')}/0/with/ref", "main", ["production: checkout"]),
    "production takes back staging": (
        f"{STEPS.format(job='production')}/Roll production back/run",
        "make revert ENVIRONMENT=staging", ["production: steps"]),
    "nothing is taken back": (
        f"{STEPS.format(job='production')}/Roll production back/if",
        "steps.probe.outputs.proved != 'true'",
        ["production: if of make revert ENVIRONMENT=production"]),
    "a run that was cancelled leaves what nobody proved": (
        f"{STEPS.format(job='staging')}/Roll staging back/if", "failure()",
        ["staging: if of make revert ENVIRONMENT=staging"]),
    "production probes staging": (
        f"{STEPS.format(job='production')}/Probe production/run",
        "make probe ENVIRONMENT=staging", ["production: steps", "production: id probe"]),
    "what others released is proved": (
        f"{STEPS.format(job='staging')}/Probe staging/env", {}, ["staging: REVISION"]),
    "what came after a person's choice is replaced": (
        f"{STEPS.format(job='production')}/Release to production/env/SEEN",
        "${{ needs.plan.outputs.staging }}", ["production: SEEN"]),
    "published unproved": (
        f"{STEPS.format(job='production')}/Publish the release/if", "always()",
        ["production: if of make publish"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DELIVERIES)
@pytest.mark.parametrize(("path", "value", "says"), PLANTED.values(), ids=PLANTED)
def test_a_shorter_way_is_seen(name: str, path: str, value: Any, says: list[str]) -> None:
    weakened = set_in(read(WORKFLOWS / name), path, value)
    found = delivery_faults(weakened, DELIVERIES[name])
    assert [fault for fault in found if " if of " not in fault or fault in says] == says


AUDIT_PLANTED = {
    "production waits for what nobody may be able to mend": (
        "jobs/production/needs", ["plan", "staging", "audit"], ["production: needs"]),
    "nobody looks for known vulnerabilities": (
        "jobs/audit/steps/Ask for known vulnerabilities of the image/run", "true",
        ["audit: steps"]),
    "the lock is looked up, not the image": (
        "jobs/audit/steps/Ask for known vulnerabilities of the image/run", "make audit",
        ["audit: steps"]),
    "only some images are looked up": (
        "jobs/audit/if", "github.event_name == 'workflow_dispatch'", ["audit: if"]),
    "what looks up may write": (
        "jobs/audit/permissions", {"contents": "write"}, ["audit: permissions"]),
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "says"), AUDIT_PLANTED.values(), ids=AUDIT_PLANTED)
def test_an_image_that_nobody_looks_up_is_seen(path: str, value: Any, says: list[str]) -> None:
    weakened = set_in(read(WORKFLOWS / "deliver.yml"), path, value)
    assert delivery_faults(weakened, DELIVERIES["deliver.yml"]) == says
