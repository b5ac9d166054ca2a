"""The template's own workflows: what they do. The rules for all are in test_workflow_rules.py."""

from __future__ import annotations

from typing import Any

from conftest import TEMPLATE
from workflow_rules import read


def workflow(name: str) -> dict[str, Any]:
    return read(TEMPLATE / ".github" / "workflows" / name)


def test_ci_runs_the_test_task_on_every_supported_python() -> None:
    job = workflow("ci.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test"]


def test_nightly_runs_ci_and_reports_its_failure() -> None:
    nightly = workflow("nightly.yml")
    assert set(nightly["on"]) == {"schedule", "workflow_dispatch"}
    assert nightly["jobs"]["test"]["uses"] == "./.github/workflows/ci.yml"
    assert nightly["jobs"]["report"]["if"] == "failure()"
    assert nightly["jobs"]["report"]["needs"] == ["test"]
    assert nightly["jobs"]["report"]["permissions"]["issues"] == "write"


def test_each_module_is_mutated_in_a_job_of_its_own_each_night() -> None:
    mutation = workflow("mutation.yml")
    assert set(mutation["on"]) == {"schedule", "workflow_dispatch"}
    jobs = mutation["jobs"]
    assert jobs["modules"]["steps"][-1]["run"] == "make mutation-modules"
    matrix = jobs["mutate"]["strategy"]["matrix"]
    assert matrix == {"module": "${{ fromJSON(needs.modules.outputs.modules) }}"}
    assert jobs["mutate"]["strategy"]["fail-fast"] is False
    step = jobs["mutate"]["steps"][-1]
    assert (step["run"], step["env"]) == ("make mutation", {"MODULE": "${{ matrix.module }}"})
    assert jobs["report"]["needs"] == ["modules", "mutate"]
    assert jobs["report"]["if"] == "failure()"
