"""The template's own workflows: what linters and a reading of the YAML can show."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as the boolean true.
    document = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in document.items()}


@pytest.mark.parametrize(
    "linter",
    [
        ["actionlint"],
        ["zizmor", "--offline", "--quiet"],
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
    ],
    ids=lambda command: command[0],
)
def test_linters_find_nothing(linter: list[str]) -> None:
    done = subprocess.run(
        [*linter, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_nothing_is_permitted_by_default_and_jobs_end(path: Path) -> None:
    workflow = read(path.name)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert "permissions" in job, name
        assert "continue-on-error" not in job, name
        if "uses" not in job:
            assert job["timeout-minutes"] <= 90, name


def test_ci_runs_the_test_task_on_every_supported_python() -> None:
    job = read("ci.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test"]


def test_the_required_job_needs_every_other_job() -> None:
    jobs = read("ci.yml")["jobs"]
    gate = jobs["all-green"]
    assert gate["if"] == "always()"
    assert set(gate["needs"]) == set(jobs) - {"all-green"}
    (step,) = gate["steps"]
    for result, code in [("success", 0), ("failure", 1), ("cancelled", 1), ("skipped", 1)]:
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], env={"TEST_RESULT": result}, check=False
        )
        assert done.returncode == code, result


def test_nightly_runs_ci_and_reports_its_failure() -> None:
    nightly = read("nightly.yml")
    assert set(nightly["on"]) == {"schedule", "workflow_dispatch"}
    assert nightly["jobs"]["test"]["uses"] == "./.github/workflows/ci.yml"
    assert nightly["jobs"]["report"]["if"] == "failure()"
    assert nightly["jobs"]["report"]["needs"] == ["test"]
    assert nightly["jobs"]["report"]["permissions"]["issues"] == "write"
