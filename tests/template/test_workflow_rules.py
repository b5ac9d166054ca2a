"""What act cannot check: that every workflow, action and Makefile keeps the rules.

A rule that cannot be broken is none, so each one is shown what it must object to.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT_TEMPLATE, TEMPLATE
from workflow_rules import (
    Allowed,
    action_of,
    drop_in,
    faults,
    makefile_faults,
    makefile_variables,
    parse,
    pin_faults,
    pipeline_faults,
    read,
    required_job_faults,
    set_in,
    setup_faults,
    stage_inputs,
)

# The commit behind each tag, as looked up in the action's own repository.
PINS = {
    "actions/attest": ("1e69f48acb82d1966a394da916b4c1698aa569d6", "v4.2.2"),
    "actions/attest-build-provenance": ("a2bbfa25375fe432b6a289bc6b6cd05ecd0c4c32", "v4.1.0"),
    "actions/cache/restore": ("27d5ce7f107fe9357f9df03efb73ab90386fccae", "v5.0.5"),
    "actions/cache/save": ("27d5ce7f107fe9357f9df03efb73ab90386fccae", "v5.0.5"),
    "actions/checkout": ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
    "actions/dependency-review-action": ("2031cfc080254a8a887f58cffee85186f0e49e48", "v4.9.0"),
    "actions/download-artifact": ("3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c", "v8.0.1"),
    "actions/upload-artifact": ("bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7.0.0"),
    "anchore/sbom-action": ("e22c389904149dbc22b58101806040fa8d37a610", "v0.24.0"),
    "astral-sh/setup-uv": ("20cfd1bf945f4377ade1205e4dbc17946fc9a30d", "v10.0.1"),
}
WRITES = {
    "comment.yml/comment": {"pull-requests"},
    "deliver.bentocloud.yml/production": {"contents", "issues"},
    "deliver.bentocloud.yml/staging": {"contents", "issues"},
    "deliver.yml/image": {"attestations", "id-token", "packages"},
    "deliver.yml/production": {"contents", "issues"},
    "deliver.yml/staging": {"contents", "issues"},
    "monitor.yml/issue": {"issues"},
    "mutation.yml/report": {"issues"},
    "nightly.yml/report": {"issues"},
    "rollback.bentocloud.yml/rollback": {"contents"},
    "rollback.yml/rollback": {"contents"},
}
ALL_SUCCEEDED = " ".join(["success"] * 4)
COMMANDS = {
    "action.yml/runs/Install the locked dependencies": "uv sync --locked",
    'ci.yml/all-green/test "$TEST_RESULT" = success': 'test "$TEST_RESULT" = success',
    "mutation.yml/report/python3 tools/report_failure.py": "python3 tools/report_failure.py",
    "nightly.yml/report/python3 tools/report_failure.py": "python3 tools/report_failure.py",
    "pipeline.yml/all-green/Every job succeeded": f'test "$RESULTS" = "{ALL_SUCCEEDED}"',
    # Talks to GitHub before anything is checked out.
    "dependency-review.yml/dependency-review/Ask whether GitHub can compare the dependencies": None,
}
ALLOWED = Allowed(PINS, WRITES, COMMANDS)

HOUSES = (PROJECT_TEMPLATE, TEMPLATE)
WORKFLOWS = [p for house in HOUSES for p in sorted((house / ".github/workflows").glob("*.y*ml"))]
ACTIONS = [p for house in HOUSES for p in sorted((house / ".github/actions").rglob("action.y*ml"))]
PIPELINE = PROJECT_TEMPLATE / ".github/workflows/pipeline.yml"
SETUP = PROJECT_TEMPLATE / ".github/actions/setup/action.yml"
CI = TEMPLATE / ".github/workflows/ci.yml"
MAKEFILE = PROJECT_TEMPLATE / "Makefile"
VARIABLES = makefile_variables(MAKEFILE.read_text(encoding="utf-8"))
INPUTS = stage_inputs(read(PROJECT_TEMPLATE / "dvc.yaml"), source="data/landed")


def name_of(path: Path) -> str:
    return str(path.relative_to(TEMPLATE)).replace(f"{PROJECT_TEMPLATE.name}/", "project:")


def faults_of(path: Path, document: dict[str, Any]) -> list[str]:
    found = faults(path.name, document, ALLOWED, VARIABLES)
    if path == PIPELINE:
        found += pipeline_faults(document, INPUTS)
    if path == SETUP:
        found += setup_faults(document)
    return found


def test_there_is_something_to_check() -> None:
    assert {PIPELINE, CI} < set(WORKFLOWS)
    assert SETUP in ACTIONS
    assert {"ARGS", "BASE"} <= VARIABLES
    assert "engine/src/gitops_ml/model" in INPUTS
    assert not {"data/ingested.parquet", "data/split/train.parquet"} & set(INPUTS)


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=name_of)
def test_every_workflow_and_action_keeps_the_rules(path: Path) -> None:
    assert faults_of(path, read(path)) == []
    assert pin_faults(path.read_text(encoding="utf-8"), PINS) == []


def test_every_exception_is_needed() -> None:
    files = [*WORKFLOWS, *ACTIONS]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert [action for action in PINS if f"uses: {action}@" not in text] == []
    bare = Allowed(PINS, {}, {})
    needed = {
        f"{path.name}/{fault.partition(': ')[0]}"
        for path in files
        for fault in faults(path.name, read(path), bare, VARIABLES)
    }
    assert needed == {*WRITES, *COMMANDS}


# Every danger of the pipeline


GATE = "jobs/gate/steps/Gate"
RUN_GATE = "make gate BASE=event ARTIFACTS=../artifacts"
RED = "all-green: red though every job succeeded"


def green_with(job: str, *ends: str) -> list[str]:
    return [f"all-green: green with {job} {end}" for end in ends]


def restored(where: str) -> str:
    return f"{where}: restores what others left in a job that may write"


# What is set (or dropped, where there is no value), and every fault that this must give.
DANGERS: dict[str, tuple[str, Any, Sequence[str]]] = {
    "model needs no data": (
        "jobs/model/needs", None, ["model: needs"]),
    "data waits for nothing": (
        "jobs/data/needs", ["quality"], ["data: needs"]),
    "all-green needs no quality": (
        "jobs/all-green/needs", ["data", "model", "gate"], ["all-green: does not need quality"]),
    "all-green needs no data": (
        "jobs/all-green/needs", ["quality", "model", "gate"], ["all-green: does not need data"]),
    "all-green needs no model": (
        "jobs/all-green/needs", ["quality", "data", "gate"], ["all-green: does not need model"]),
    "all-green needs no gate": (
        "jobs/all-green/needs", ["quality", "data", "model"], ["all-green: does not need gate"]),
    "the gate needs no model": (
        "jobs/gate/needs", None, ["gate: needs"]),
    "a job that is forgotten": (
        "jobs/lint",
        {"permissions": {}, "timeout-minutes": 5, "steps": [{"run": "make check"}]},
        ["jobs", "all-green: does not need lint"]),
    "no model": (
        "jobs/model", None, [
            "jobs", "model: needs", "model: lacks actions/checkout",
            "model: lacks ./.github/actions/setup", "model: lacks actions/cache/restore",
            "model: lacks make reproduce BASE=event", "model: lacks make verify-lock",
            "model: lacks make test-model",
            "model: lacks make package", "model: lacks make smoke-bento",
            "model: lacks make export-bento",
            "model: lacks make push", "model: lacks actions/cache/save",
            "model: lacks actions/upload-artifact training",
            "model: lacks actions/upload-artifact bento", RED]),
    "no gate": (
        "jobs/gate", None, [
            "jobs", "gate: needs", "gate: lacks actions/checkout",
            "gate: lacks astral-sh/setup-uv", "gate: lacks actions/cache/restore",
            "gate: lacks actions/download-artifact bento",
            "gate: lacks actions/download-artifact training", f"gate: lacks {RUN_GATE}",
            "gate: lacks make verify-bento", "gate: lacks make summary",
            "gate: lacks actions/upload-artifact report", "gate: who judges", RED]),
    # A skipped job that is required counts as passed.
    "all-green is skipped": (
        "jobs/all-green/if", None, ["all-green: condition"]),
    "all-green only if all is well": (
        "jobs/all-green/if", "success()", ["all-green: condition"]),
    "all-green skips its step": (
        "jobs/all-green/steps/0/if", "success()", ["all-green: steps"]),
    "all-green has no result of model": (
        "jobs/all-green/steps/0/env/RESULTS",
        "${{ needs.quality.result }} ${{ needs.data.result }} success ${{ needs.gate.result }}",
        green_with("model", "failure", "cancelled", "skipped")),
    "all-green has no result of the gate": (
        "jobs/all-green/steps/0/env/RESULTS",
        "${{ needs.quality.result }} ${{ needs.data.result }} ${{ needs.model.result }} success",
        green_with("gate", "failure", "cancelled", "skipped")),
    "all-green takes a skipped model": (
        "jobs/all-green/steps/0/run",
        '[[ "$RESULTS" =~ ^success\\ success\\ (success|skipped)\\ success$ ]]', [
            "all-green/Every job succeeded: is not one task of make",
            *green_with("model", "skipped")]),
    "all-green asks for another number of jobs": (
        "jobs/all-green/steps/0/run", 'test "$RESULTS" = "success success"', [
            "all-green/Every job succeeded: is not one task of make", RED]),
    "all-green does nothing": (
        "jobs/all-green/steps", [], ["all-green: steps"]),
    "a job goes on": (
        "jobs/model/continue-on-error", True, ["model: continues on errors"]),
    "the required job goes on": (
        "jobs/all-green/continue-on-error", True, ["all-green: continues on errors"]),
    "the gate goes on": (
        f"{GATE}/continue-on-error", True, ["gate/Gate: continues on errors"]),
    "an expression says whether to go on": (
        f"{GATE}/continue-on-error", "${{ github.event_name == 'push' }}",
        ["gate/Gate: continues on errors"]),
    "a job is off": (
        "jobs/quality/if", False, ["quality: condition"]),
    "model runs without data": (
        "jobs/model/if", "always()", ["model: condition"]),
    "the gate is off": (
        f"{GATE}/if", False, [f"gate: condition of {RUN_GATE}"]),
    "the gate judges pull requests only": (
        f"{GATE}/if", "github.event_name == 'pull_request'",
        [f"gate: condition of {RUN_GATE}"]),
    "the bento is built in any case": (
        "jobs/model/steps/Build the bento/if", "always()", ["model: condition of make package"]),
    "a bento that was blocked is kept": (
        "jobs/model/steps/Keep the model and the bento/if", "always()",
        ["model: condition of actions/upload-artifact bento"]),
    "no bento is kept": (
        "jobs/model/steps/Keep the model and the bento/with/if-no-files-found", "warn",
        ["model: may keep no bento"]),
    "pull requests push": (
        "jobs/model/steps/Push to the DVC remote/if", None, ["model: condition of make push"]),
    "failed runs push": (
        "jobs/model/steps/Push to the DVC remote/if", "always()",
        ["model: condition of make push"]),
    "a lock that was not reproduced is not kept": (
        "jobs/model/steps/Keep the reports for the gate/if", None,
        ["model: condition of actions/upload-artifact training"]),
    "a failed run has no report": (
        "jobs/gate/steps/Keep the report/if", None,
        ["gate: condition of actions/upload-artifact report"]),
    "a failed validation has no report": (
        "jobs/data/steps/Keep the report/if", None,
        ["data: condition of actions/upload-artifact data-report"]),
    "no history to verify with": (
        "jobs/model/steps/0/with/fetch-depth", None, ["model: no history"]),
    "no champion to find": (
        "jobs/gate/steps/0/with/fetch-depth", None, ["gate: no history"]),
    "no gate's step": (
        GATE, None, [f"gate: lacks {RUN_GATE}"]),
    "the change judges itself": (
        "jobs/gate/env/JUDGE", "${{ github.sha }}", ["gate: who judges"]),
    "nobody is named to judge": (
        "jobs/gate/env", None, ["gate: who judges"]),
    "what trained writes into the gate's repository": (
        "jobs/gate/steps/Fetch the reports/with/path", None,
        ["gate: downloads into the repository"]),
    "the judge is made of what a change kept": (
        "jobs/gate/steps/1/with/enable-cache", True, ["gate: takes packages from a cache"]),
    "no base to believe": (
        "jobs/data/steps/0/with/fetch-depth", None, ["data: no history"]),
    "no base whose settings say where packages come from": (
        "jobs/quality/steps/0/with/fetch-depth", None, ["quality: no history"]),
    "no model tests": (
        "jobs/model/steps/Test the model", None, ["model: lacks make test-model"]),
    "no verified lock": (
        "jobs/model/steps/Verify dvc.lock", None, ["model: lacks make verify-lock"]),
    "no training": (
        "jobs/model/steps/Train and evaluate", None, ["model: lacks make reproduce BASE=event"]),
    "no smoke test": (
        "jobs/model/steps/Smoke-test the bento", None, ["model: lacks make smoke-bento"]),
    "no comparison of the bento with what was gated": (
        "jobs/gate/steps/Verify that the bento is the gated one", None,
        ["gate: lacks make verify-bento"]),
    "no summary": (
        "jobs/gate/steps/Summarise", None, ["gate: lacks make summary"]),
    "no cache is kept": (
        "jobs/model/steps/Keep the DVC cache", None, ["model: lacks actions/cache/save"]),
    "no validation": (
        "jobs/data/steps/Validate and split", None,
        ["data: lacks make reproduce BASE=event STAGE=split"]),
    "no data tests": (
        "jobs/data/steps/Test the data", None, ["data: lacks make test-data"]),
    "no code checks": (
        "jobs/quality/steps/Lint, types, unit tests", None, ["quality: lacks make check"]),
    "pushes are cancelled": (
        "concurrency/cancel-in-progress", True, ["concurrency: cancels"]),
    "nothing is cancelled": (
        "concurrency/cancel-in-progress", False, ["concurrency: cancels"]),
    "a pull request cancels main": (
        "concurrency/group", "pipeline", ["concurrency: group"]),
    "no concurrency": (
        "concurrency", None, ["no concurrency", "concurrency: group"]),
    "pull requests of documents start nothing": (
        "on/pull_request", {"paths-ignore": ["docs/**"]}, ["triggers"]),
    "pushes of documents start nothing": (
        "on/push/paths", ["src/**"], ["triggers"]),
    "only main starts it": (
        "on/push", {"branches": ["main"]}, ["triggers"]),
    "no merge queue": (
        "on/merge_group", None, ["triggers"]),
    "started with the base's rights": (
        "on/pull_request_target", {}, ["pull_request_target", "triggers"]),
    "permissions for all": (
        "permissions", {"contents": "read"}, ["permissions for all"]),
    "default permissions": (
        "permissions", None, ["permissions for all"]),
    "default permissions of a job": (
        "jobs/data/permissions", None, ["data: permissions are not listed"]),
    "all permissions": (
        "jobs/data/permissions", "write-all", ["data: permissions are not listed"]),
    "write access": (
        "jobs/model/permissions/contents", "write",
        ["model: may write contents", restored("model/./.github/actions/setup"),
         restored("model/Restore the DVC cache")]),
    "a token for clouds": (
        "jobs/quality/permissions/id-token", "write",
        ["quality: may write id-token", restored("quality/./.github/actions/setup")]),
    "no timeout": (
        "jobs/model/timeout-minutes", None, ["model: no timeout"]),
    "the default timeout": (
        "jobs/model/timeout-minutes", 360, ["model: no timeout"]),
    "kept credentials": (
        "jobs/quality/steps/0/with/persist-credentials", True,
        ["quality/actions/checkout: keeps credentials"]),
    "kept credentials by default": (
        "jobs/quality/steps/0/with/persist-credentials", None,
        ["quality/actions/checkout: keeps credentials"]),
    "an expression in a command": (
        f"{GATE}/run", "make gate BASE=${{ github.base_ref }}", [
            "gate/Gate: expression in the command", f"gate: lacks {RUN_GATE}",
            "gate: also runs make gate BASE=${{ github.base_ref }}"]),
    "make ignores errors": (
        f"{GATE}/run", "make -i gate BASE=event", [
            "gate/Gate: is not one task of make", f"gate: lacks {RUN_GATE}",
            "gate: also runs make -i gate BASE=event"]),
    "the gate consents to itself": (
        f"{GATE}/run", "make gate BASE=event ARGS=--allow-loosening", [
            f"gate: lacks {RUN_GATE}",
            "gate: also runs make gate BASE=event ARGS=--allow-loosening"]),
    "the gate compares with itself": (
        f"{GATE}/run", "make gate BASE=HEAD", [
            f"gate: lacks {RUN_GATE}", "gate: also runs make gate BASE=HEAD"]),
    "a failure is swallowed": (
        f"{GATE}/run", "make gate BASE=event || true", [
            "gate/Gate: swallows errors", f"gate: lacks {RUN_GATE}",
            "gate: also runs make gate BASE=event || true"]),
    "two commands": (
        "jobs/quality/steps/Lint, types, unit tests/run", "make check\nmake push\n", [
            "quality/Lint, types, unit tests: is not one task of make",
            "quality: lacks make check", "quality: also runs make check\nmake push\n"]),
    "a heredoc": (
        "jobs/quality/steps/Lint, types, unit tests/run", "bash <" + "<EOF\nmake check\nEOF", [
            "quality/Lint, types, unit tests: heredoc", "quality: lacks make check",
            "quality: also runs bash <" + "<EOF\nmake check\nEOF"]),
    "a shell that goes on": (
        f"{GATE}/shell", "bash {0}", ["gate/Gate: another shell"]),
    "a shell for all that goes on": (
        "defaults", {"run": {"shell": "bash {0}"}}, ["the workflow: another shell"]),
    "the environment consents": (
        f"{GATE}/env/ARGS", "--allow-loosening", ["gate/Gate: ARGS steers the commands"]),
    "the workflow's environment consents": (
        "env/ARGS", "--allow-loosening", ["the workflow: ARGS steers the commands"]),
    "the job's environment ignores errors": (
        "jobs/model/env", {"MAKEFLAGS": "-i"}, ["model: MAKEFLAGS steers the commands"]),
    "tests are only collected": (
        "jobs/model/steps/Test the model/env", {"PYTEST_ADDOPTS": "--co"},
        ["model/Test the model: PYTEST_ADDOPTS steers the commands"]),
    "a secret for every step": (
        "env/KEY", "${{ secrets.KEY }}", ["secret in env/KEY"]),
    "a secret for a job": (
        "jobs/model/env", {"TOKEN": "${{ github.token }}"}, ["secret in jobs/model/env/TOKEN"]),
    "a secret for an action": (
        "jobs/quality/steps/0/with/token", "${{ secrets.TOKEN }}",
        [restored("quality/./.github/actions/setup"),
         "secret in jobs/quality/steps/0/with/token"]),
    "a key without the code": (
        "jobs/model/steps/Restore the DVC cache/with/key", "dvc-${{ hashFiles('dvc.*') }}",
        ["cache: not the same everywhere"]),
    "any cache is taken": (
        "jobs/model/steps/Restore the DVC cache/with/restore-keys", "other-",
        ["cache: restores another one"]),
    "kept under a key of the files as the run left them": (
        "jobs/model/steps/Keep the DVC cache/with/key", "dvc-${{ hashFiles('data/**') }}",
        ["cache: kept under a key that nobody restores by"]),
}  # fmt: skip


@pytest.mark.parametrize("danger", DANGERS)
def test_each_danger_is_seen(danger: str) -> None:
    path, value, expected = DANGERS[danger]
    pipeline = read(PIPELINE)
    changed = drop_in(pipeline, path) if value is None else set_in(pipeline, path, value)
    assert changed != pipeline
    assert faults_of(PIPELINE, changed) == expected


ORDER = ("reproduce BASE=event", "verify-lock", "test-model", "package", "smoke-bento")


@pytest.mark.parametrize("first", range(len(ORDER) - 1), ids=lambda number: ORDER[number])
def test_steps_in_another_order_are_seen(first: int) -> None:
    pipeline = read(PIPELINE)
    steps = pipeline["jobs"]["model"]["steps"]
    commands = [step.get("run") for step in steps]
    one, two = (commands.index(f"make {ORDER[first + k]}") for k in (0, 1))
    steps[one], steps[two] = steps[two], steps[one]
    assert faults_of(PIPELINE, pipeline) == ["model: order"]


@pytest.mark.parametrize("input_file", INPUTS)
def test_a_cache_key_without_an_input_is_seen(input_file: str) -> None:
    text = PIPELINE.read_text(encoding="utf-8")
    changed = text
    for pattern in ("'dvc.*'", "'*.yaml'", "'uv.lock'", "'data/**'", "'engine/src/**'", "'src/**'"):
        assert pattern in text
        changed = changed.replace(pattern, "'none'")
    assert f"cache: the key leaves out {input_file}" in faults_of(PIPELINE, parse(changed))


def test_a_cache_that_no_later_run_can_replace_is_seen() -> None:
    text = PIPELINE.read_text(encoding="utf-8")
    changed = text.replace("-${{ github.run_id }}-${{ github.run_attempt }}", "")
    found = faults_of(PIPELINE, parse(changed))
    assert "cache: an earlier run's entry is in the way" in found


def test_a_required_job_that_compares_nothing_is_seen_in_every_case() -> None:
    jobs = set_in(
        read(PIPELINE), "jobs/all-green/steps/0/env/RESULTS", "success success success success"
    )
    assert len(required_job_faults(jobs["jobs"])) == 4**4 - 1


def test_the_template_s_own_required_job_sees_every_job() -> None:
    ci = read(CI)
    assert required_job_faults(ci["jobs"]) == []
    weak = set_in(ci, "jobs/all-green/steps/0/run", 'test "$TEST_RESULT" != failure')
    assert required_job_faults(weak["jobs"]) == green_with("test", "cancelled", "skipped")


# Other files' dangers


@pytest.mark.parametrize(
    ("name", "path", "value", "expected"),
    [
        ("comment.yml", "permissions", {"contents": "write"}, ["permissions for all"]),
        ("comment.yml", "jobs/comment/permissions/contents", "write",
         ["comment: may write contents"]),
        ("comment.yml", "jobs/comment/timeout-minutes", 360, ["comment: no timeout"]),
        ("comment.yml", "jobs/comment/steps/0/with/persist-credentials", True,
         ["comment/actions/checkout: keeps credentials"]),
        ("comment.yml", "jobs/comment/steps/2/continue-on-error", True,
         ["comment/Write the comment: continues on errors"]),
        ("comment.yml", "jobs/comment/secrets", "inherit", ["secret in jobs/comment/secrets"]),
        ("dependency-review.yml", "jobs/dependency-review/steps/0/run", "set +e\ncurl x",
         ["dependency-review/Ask whether GitHub can compare the dependencies: swallows errors"]),
        ("dependency-review.yml", "jobs/dependency-review/steps/0/run", "curl x || :\n",
         ["dependency-review/Ask whether GitHub can compare the dependencies: swallows errors"]),
        ("dependency-review.yml", "jobs/dependency-review/steps/0/env/BASH_ENV", "rc",
         ["dependency-review/Ask whether GitHub can compare the dependencies: "
          "BASH_ENV steers the commands"]),
        ("comment.yml", "jobs/comment/steps/1/with/enable-cache", True,
         [restored("comment/astral-sh/setup-uv")]),
        ("deliver.yml", "jobs/image/steps/1/with/cache", True,
         [restored("image/./.github/actions/setup")]),
        ("deliver.yml", "jobs/staging/steps/1/with", {},
         [restored("staging/./.github/actions/setup")]),
        ("deliver.yml", "jobs/production/steps/2/uses", "actions/cache/restore@x",
         [restored("production/actions/cache/restore")]),
        ("rollback.yml", "jobs/rollback/steps/1/with/cache", "true",
         [restored("rollback/./.github/actions/setup")]),
    ],
)  # fmt: skip
def test_dangers_of_other_workflows_are_seen(
    name: str, path: str, value: Any, expected: list[str]
) -> None:
    file = PROJECT_TEMPLATE / ".github/workflows" / name
    assert faults_of(file, set_in(read(file), path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("run", "uv sync", "is not one task of make"),
        ("run", "uv sync --locked; true", "swallows errors"),
        ("continue-on-error", True, "continues on errors"),
        ("shell", "bash --noprofile {0}", "another shell"),
    ],
)
def test_dangers_of_an_action_are_seen(path: str, value: Any, expected: str) -> None:
    changed = set_in(read(SETUP), f"runs/steps/Install the locked dependencies/{path}", value)
    assert faults_of(SETUP, changed) == [f"runs/Install the locked dependencies: {expected}"]


VERIFY = "runs/steps/Verify where the locked dependencies come from"


def test_every_job_of_the_pipeline_installs_by_the_action_that_verifies() -> None:
    """But for the gate's, which starts with the base's environment, and that of `all-green`."""
    jobs = read(PIPELINE)["jobs"]
    by_action = {
        name
        for name, job in jobs.items()
        if any(action_of(step) == "./.github/actions/setup" for step in job["steps"])
    }
    assert by_action == jobs.keys() - {"gate", "all-green"}
    assert set(jobs["all-green"]["needs"]) > by_action


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (f"{VERIFY}/run", "make check", "does not verify where packages come from"),
        (f"{VERIFY}/if", "github.event_name == 'push'", "verifies on a condition"),
        (f"{VERIFY}/env", {}, "whose settings count"),
        (f"{VERIFY}/env/JUDGE", "${{ github.sha }}", "whose settings count"),
        ("runs/steps/0", {"run": "uv sync --locked", "name": "Early"}, "installs before it"),
    ],
)
def test_a_lock_that_is_installed_unverified_is_seen(path: str, value: Any, fault: str) -> None:
    found = setup_faults(set_in(read(SETUP), path, value))
    assert len(found) == 1
    assert fault in found[0]


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"


@pytest.mark.parametrize(
    ("used", "fault"),
    [
        ("actions/checkout@v7 # v7.0.1", "actions/checkout@v7 # v7.0.1"),
        (f"{CHECKOUT} # v7.0.0", f"{CHECKOUT} # v7.0.0"),
        (CHECKOUT, f"{CHECKOUT} # "),
        (f"actions/checkout@{'0' * 40} # v7.0.1", f"actions/checkout@{'0' * 40} # v7.0.1"),
        (f"somebody/checkout@{'0' * 40} # v1", f"somebody/checkout@{'0' * 40} # v1"),
    ],
)
def test_an_action_that_is_not_pinned_is_seen(used: str, fault: str) -> None:
    text = PIPELINE.read_text(encoding="utf-8")
    changed = text.replace(f"{CHECKOUT} # v7.0.1", used, 1)
    assert changed != text
    assert pin_faults(changed, PINS) == [fault]


def test_an_action_that_is_hidden_is_seen() -> None:
    flow = "jobs: {a: {steps: [{uses: somebody/action@v1}]}}"
    assert pin_faults(flow, PINS) == ["somebody/action@v1 is not on a line of its own"]


# The recipe for a login without a stored key


# What talks to the DVC remote.
SYNCS = re.compile("make (?:pull|push|reproduce)")


def recipe() -> list[dict[str, Any]]:
    """What the page says to write into each job that pulls, as somebody would copy it."""
    page = (PROJECT_TEMPLATE / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("### Without a stored key")[2].partition("\n## ")[0]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    return [yaml.safe_load(textwrap.dedent(block)) for block in blocks]


def follow_recipe(workflow: dict[str, Any], caches_too: bool = True) -> set[str]:
    """Change a workflow as the page says; the jobs that were changed."""
    permissions, steps, (restore,) = recipe()
    changed = set()
    for name, job in workflow["jobs"].items():
        if not any(SYNCS.match(str(step.get("run", ""))) for step in job["steps"]):
            continue
        changed.add(name)
        job["permissions"] |= permissions["permissions"]
        after = []
        for step in job["steps"]:
            if action_of(step) == "./.github/actions/setup":
                after += copy.deepcopy(steps)
                continue
            if caches_too and step.get("name") == restore["name"]:
                step["with"] |= restore["with"]
            after.append(step)
        job["steps"] = after
    return changed


def test_the_recipe_without_a_key_grants_what_every_job_that_pulls_needs() -> None:
    workflow = read(PIPELINE)
    changed = follow_recipe(workflow)
    allowed = Allowed(PINS, {f"pipeline.yml/{name}": ["id-token"] for name in changed}, COMMANDS)

    assert changed == {"data", "model"}
    assert faults("pipeline.yml", workflow, allowed, VARIABLES) == []
    for name, job in workflow["jobs"].items():
        logs_in = [step for step in job["steps"] if step.get("name") == "Log in to the cloud"]
        assert len(logs_in) == (name in changed)
        assert (job["permissions"].get("id-token") == "write") == (name in changed)
        if name in changed:
            names = [str(step.get("run", step.get("name"))) for step in job["steps"]]
            first = next(n for n, what in enumerate(names) if SYNCS.match(what))
            assert names.index("Log in to the cloud") < first
    text = SETUP.read_text(encoding="utf-8")
    assert "Log in" not in text, "every job would log in, also those that may not"


def test_a_recipe_that_keeps_the_caches_is_seen() -> None:
    workflow = read(PIPELINE)
    changed = follow_recipe(workflow, caches_too=False)
    allowed = Allowed(PINS, {f"pipeline.yml/{name}": ["id-token"] for name in changed}, COMMANDS)
    found = faults("pipeline.yml", workflow, allowed, VARIABLES)
    assert restored("model/Restore the DVC cache") in found


# Makefiles


@pytest.mark.parametrize("house", HOUSES, ids=["project", "template"])
def test_no_task_goes_on_after_an_error(house: Path) -> None:
    assert makefile_faults((house / "Makefile").read_text(encoding="utf-8")) == []


RECIPE = next(
    line
    for line in (PROJECT_TEMPLATE / "Makefile").read_text(encoding="utf-8").splitlines()
    if "gate --base" in line
)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (RECIPE, RECIPE.replace("\t", "\t-"), "gate: ignores errors"),
        (RECIPE, RECIPE.replace("\t", "\t@-"), "gate: ignores errors"),
        (RECIPE, RECIPE.replace("\t", "\t@ -"), "gate: ignores errors"),
        (RECIPE, f"{RECIPE} || true", "gate: swallows errors"),
        (RECIPE, f"{RECIPE} || :", "gate: swallows errors"),
        (RECIPE, f"{RECIPE} ; true", "gate: swallows errors"),
        (RECIPE, f"{RECIPE}; exit 0", "gate: swallows errors"),
        (RECIPE, f"{RECIPE} &", "gate: swallows errors"),
        (RECIPE, f"{RECIPE} | tee log", "gate: hides what fails before a pipe"),
        (RECIPE, f"{RECIPE} \\\n\t\t|| true", "gate: swallows errors"),
        (".PHONY: gate\n", ".PHONY: gate\n.IGNORE: gate\n", ".IGNORE"),
        ("RUN := uv run\n", "RUN := uv run\n.IGNORE:\n", ".IGNORE"),
        ("RUN := uv run\n", "RUN := uv run\n.ONESHELL:\n", ".ONESHELL"),
        ("RUN := uv run\n", "RUN := uv run\nMAKEFLAGS += -i\n", "MAKEFLAGS"),
        ("RUN := uv run\n", "RUN := uv run\nexport PYTEST_ADDOPTS = --co\n", "PYTEST_ADDOPTS"),
        ("RUN := uv run\n", "RUN := uv run\nSHELL := /bin/true\n", "SHELL"),
    ],
)
def test_a_task_that_goes_on_is_seen(old: str, new: str, fault: str) -> None:
    text = MAKEFILE.read_text(encoding="utf-8")
    assert text.count(old) == 1
    assert makefile_faults(text.replace(old, new)) == [fault]


# Linters


def schema(name: str) -> list[str]:
    return ["check-jsonschema", "--builtin-schema", f"vendor.{name}"]


DEPENDABOT = sorted(PROJECT_TEMPLATE.glob(".github/dependabot.y*ml"))
ZIZMOR = ["zizmor", "--offline", "--quiet"]


def lint(command: list[str], paths: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "paths"),
    [
        (["actionlint"], WORKFLOWS),
        (ZIZMOR, [*WORKFLOWS, *ACTIONS, *DEPENDABOT]),
        (schema("github-workflows"), WORKFLOWS),
        (schema("github-actions"), ACTIONS),
        (schema("dependabot"), DEPENDABOT),
    ],
    ids=["actionlint", "zizmor", "workflows", "actions", "dependabot"],
)
def test_linters_find_nothing(command: list[str], paths: list[Path]) -> None:
    assert paths
    done = lint(command, paths)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "path", "old", "new", "says"),
    [
        (["actionlint"], PIPELINE, "needs: [data]", "needs: [dataset]", "dataset"),
        (["actionlint"], PIPELINE, "run: make check", "run: echo $(ls *.py)", "shellcheck"),
        (ZIZMOR, PIPELINE, f"{CHECKOUT} # v7.0.1", "actions/checkout@v7", "unpinned-uses"),
        (ZIZMOR, PIPELINE, "make check", "make ${{ github.head_ref }}", "template-injection"),
        (ZIZMOR, PIPELINE, "persist-credentials: false", "fetch-tags: true", "artipacked"),
        (ZIZMOR, SETUP, "uv sync --locked", "echo ${{ inputs.x }}", "template-injection"),
        (schema("github-workflows"), PIPELINE, "timeout-minutes: 15", "timeout: 15", "timeout"),
        (schema("github-actions"), SETUP, "using: composite", "uses: composite", "using"),
    ],
)  # fmt: skip
def test_a_linter_sees_what_is_planted(
    command: list[str], path: Path, old: str, new: str, says: str, tmp_path: Path
) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    copy = tmp_path / path.relative_to(PROJECT_TEMPLATE)
    copy.parent.mkdir(parents=True)
    copy.write_text(text.replace(old, new), encoding="utf-8")
    done = lint(command, [copy])
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


def test_scripts_in_workflows_are_checked_by_shellcheck_too() -> None:
    """actionlint leaves it out without a word where it is not installed."""
    assert shutil.which("shellcheck")
