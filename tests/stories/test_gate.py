"""The generated project's gate, against real models: what it lets pass and what it blocks."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import fake_actions
import pytest
import yaml
from conftest import sources_of
from fake_actions import FakeActions, pipeline_run
from pytest_httpserver import HTTPServer

pytestmark = pytest.mark.slow

Bake = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Gate = Callable[..., tuple[int, dict[str, Any], str]]

GATE = ("gitops-ml", "gate")
RUNS_OF_THE_PIPELINE = f"GET /repos/{fake_actions.NAME}/actions/workflows/pipeline.yml/runs"

LOPSIDED = '''"""A classifier that knows little about flights from one airport."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier


class Lopsided(HistGradientBoostingClassifier):
    def predict_proba(self, matrix):
        stated = super().predict_proba(matrix)[:, 1]
        # Numbers come before categories, which are carrier, origin and destination; JFK is 1.
        there = np.asarray(matrix)[:, -2] == 1
        noise = np.random.default_rng(0).beta(1, 3, there.sum())
        stated[there] = 0.58 * stated[there] + 0.42 * noise
        return np.column_stack([1 - stated, stated])
'''

RENAME = """
import polars as pl
from pathlib import Path
for path in Path("data/landed").glob("*.parquet"):
    pl.read_parquet(path).rename({"humidity": "moisture"}).write_parquet(path)
"""


@pytest.fixture(scope="session")
def gate(project_run: Run) -> Gate:
    """Run the gate; its exit code, its JSON report (empty without one) and what it printed."""

    def run_gate(
        project: Path, *options: str, base: str = "HEAD", env: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any], str]:
        before = worktree_state(project)
        done = project_run(project, *GATE, "--base", base, *options, env=env)
        assert worktree_state(project) == before, "the gate changed the repository"
        output = done.stdout + done.stderr
        assert "Traceback" not in output
        report = project / "reports" / "gate.json"
        assert report.exists() == (done.returncode != 2), output
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        if found:
            assert (found["verdict"] == "block") == (done.returncode == 1)
        return done.returncode, found, output

    return run_gate


def worktree_state(project: Path) -> list[str]:
    """What git knows of the working tree, its index and its other worktrees."""
    commands = [["status", "--porcelain"], ["worktree", "list"], ["branch", "--all"]]
    return [
        subprocess.run(
            ["git", *command], cwd=project, capture_output=True, text=True, check=True
        ).stdout
        for command in commands
    ]


def edit(project: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = project / name
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def set_train(project: Path, **train: Any) -> None:
    edit(project, "params.yaml", lambda params: params["train"].update(train))


def set_iterations(project: Path, iterations: int) -> None:
    edit(
        project,
        "params.yaml",
        lambda params: params["train"]["hyperparameters"].update(max_iter=iterations),
    )


def commit(project: Path, project_run: Run, message: str) -> None:
    project_run(project, "git", "add", "--all", check=True)
    project_run(project, "git", "commit", "--no-verify", "-qm", message, check=True)


def outcomes(report: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{found['metric']} {found['value'] or ''}".strip(): found["outcome"]
        for found in [*report["metrics"], *report["slices"]]
    }


@pytest.fixture(scope="module")
def reseeded(
    _pipeline_runs: Callable[[str], Path],
    project_run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The project with a model of another seed, not committed; not to be changed."""
    project = tmp_path_factory.mktemp("reseeded") / "flight_delays"
    shutil.copytree(_pipeline_runs("classification"), project, symlinks=True)
    set_train(project, seed=7)
    project_run(project, "dvc", "repro", check=True)
    return project


@pytest.fixture
def challenged(reseeded: Path, tmp_path: Path) -> Path:
    """A private copy of `reseeded`."""
    project = tmp_path / "flight_delays"
    shutil.copytree(reseeded, project, symlinks=True)
    return project


def test_the_first_model_is_held_against_its_floors_only(pipelined: Bake, gate: Gate) -> None:
    project = pipelined()
    code, report, output = gate(project, base="HEAD~1")
    assert (code, report["verdict"], report["champion"]) == (0, "promote", None)
    assert "No champion yet: HEAD~1 names no model. Floors only." in output
    assert all(found["outcome"] is None for found in report["metrics"])
    # What CI systems give as the revision before a first push.
    code, report, output = gate(project, base="0" * 40)
    assert (code, report["base"]) == (0, None)
    assert "No champion yet" in output
    # The floors do bind: the project's own contract, raised beyond what the model holds.
    edit(
        project,
        "contract.yaml",
        lambda contract: contract["model"]["metrics"]["roc_auc"].update(floor=0.99),
    )
    code, report, output = gate(project, base="HEAD~1")
    assert code == 1
    assert "below the floor 0.99 (model.metrics.roc_auc)" in output


def test_the_champion_itself_is_kept(pipelined: Bake, gate: Gate) -> None:
    code, report, _ = gate(pipelined())
    assert (code, report["verdict"], report["champion"]["source"]) == (0, "keep", "same")


def test_an_unknown_revision_is_a_mistake_and_no_first_model(pipelined: Bake, gate: Gate) -> None:
    code, _, output = gate(pipelined(), base="origin/main")
    assert code == 2
    assert "--base origin/main: git knows no such commit" in output


def test_a_stale_pipeline_cannot_be_judged(pipelined: Bake, gate: Gate) -> None:
    project = pipelined()
    set_iterations(project, 10)
    code, _, output = gate(project)
    assert code == 2
    assert "train: params.yaml (train)" in output
    assert "run `make pipeline`" in output


def test_a_tampered_model_is_not_loaded(pipelined: Bake, gate: Gate, project_run: Run) -> None:
    project = pipelined()
    with (project / "models" / "model.onnx").open("ab") as model:
        model.write(b"tampered")
    code, _, output = gate(project)
    assert code == 2
    assert "models" in output
    project_run(project, "dvc", "commit", "--force", check=True)
    code, _, output = gate(project)
    assert code == 2
    assert "is not the model that manifest.json records" in output


def test_a_degraded_model_is_blocked_and_forged_reports_do_not_help(
    pipelined: Bake, gate: Gate, project_run: Run
) -> None:
    project = pipelined()
    forged = {
        name: (project / "reports" / name).read_bytes()
        for name in ("metrics.json", "evaluation.json")
    }
    set_iterations(project, 3)
    project_run(project, "dvc", "repro", check=True)
    for name, content in forged.items():
        (project / "reports" / name).write_bytes(content)
    code, _, output = gate(project)
    assert code == 2
    assert "reports/metrics.json (modified)" in output
    project_run(project, "dvc", "commit", "--force", check=True)

    code, report, output = gate(project)
    assert code == 1
    metrics = ("roc_auc", "average_precision", "log_loss", "warning_cost")
    slices = ("roc_auc EWR", "roc_auc JFK", "roc_auc LGA")
    assert outcomes(report) == dict.fromkeys((*metrics, *slices), "inferior")
    for metric in metrics:
        assert f"{metric}: worse than the champion: " in output
    markdown = (project / "reports" / "gate.md").read_text(encoding="utf-8")
    assert markdown.startswith("## ⛔ Block")
    assert "❌ inferior" in markdown

    code, report, output = gate(project, "--accept-new-baseline", "the old one knew the future")
    assert code == 1
    assert all("worse than the champion" not in reason for reason in report["reasons"])
    assert any("below the floor" in reason for reason in report["reasons"])
    assert "the old one knew the future" in output


def test_a_degraded_regression_is_blocked(pipelined: Bake, gate: Gate, project_run: Run) -> None:
    project = pipelined("regression")
    set_iterations(project, 3)
    project_run(project, "dvc", "repro", check=True)
    code, report, output = gate(project)
    assert code == 1
    assert outcomes(report)["mae"] == "inferior"
    assert "mae: worse than the champion: " in output


@pytest.fixture
def github(httpserver: HTTPServer) -> FakeActions:
    """A GitHub that remembers the runs of the project's pipeline."""
    return FakeActions(httpserver, httpserver)


def pushed(project: Path, github: FakeActions, before: str) -> Mapping[str, str]:
    """The variables of a workflow's step after HEAD was pushed to main."""
    payload = {
        "ref": "refs/heads/main",
        "before": before,
        "after": head(project),
        "repository": {"default_branch": "main"},
    }
    event = project.parent / "event.json"
    event.write_text(json.dumps(payload), encoding="utf-8")
    github.pulls = []
    return {
        "GITHUB_API_URL": github.url,
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": fake_actions.NAME,
        "GITHUB_RUN_NUMBER": "1",
        "GITHUB_TOKEN": fake_actions.TOKEN,
    }


def head(project: Path) -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_blocked_commit_is_no_champion_for_the_next_push(
    pipelined: Bake, gate: Gate, project_run: Run, github: FakeActions
) -> None:
    project = pipelined()
    good = head(project)
    github.runs = [pipeline_run(1, good)]
    set_iterations(project, 3)
    project_run(project, "dvc", "repro", check=True)
    commit(project, project_run, "Train for less")
    blocked = head(project)
    code, _, output = gate(project, base="event", env=pushed(project, github, good))
    assert code == 1
    assert "with the label `model: new baseline` on the pull request" in output

    github.runs.append(pipeline_run(2, blocked, conclusion="failure"))
    with (project / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("More.\n")
    commit(project, project_run, "Say more")
    code, report, output = gate(project, base="event", env=pushed(project, github, blocked))
    assert (code, report["base"]["commit"]) == (1, good)
    assert "roc_auc: worse than the champion: " in output
    assert f"{good[:10]} is the last commit that passed the pipeline" in output

    said_more = head(project)
    github.runs.append(pipeline_run(3, said_more, conclusion="failure"))
    project_run(project, "git", "revert", "--no-edit", blocked, check=True)
    project_run(project, "dvc", "checkout", check=True)
    code, report, _ = gate(project, base="event", env=pushed(project, github, said_more))
    assert (code, report["verdict"], report["base"]["commit"]) == (0, "keep", good)

    github.refusals[RUNS_OF_THE_PIPELINE] = [403]
    code, _, output = gate(project, base="event", env=pushed(project, github, said_more))
    assert code == 2
    assert "GitHub does not say which commit of main passed the pipeline last" in output
    assert "run the job again" in output


def test_small_losses_add_up_until_a_maintainer_moves_the_reference(
    pipelined: Bake, gate: Gate, project_run: Run
) -> None:
    project = pipelined()
    first = head(project)

    def ask_for_little_but_the_erosion(contract: dict[str, Any]) -> None:
        contract["model"]["metrics"] = {"roc_auc": {"floor": 0.5, "margin": 0.045, "erosion": 0.05}}
        contract["model"].update(slices=[], latency_p99_ms=1000)

    edit(project, "contract.yaml", ask_for_little_but_the_erosion)
    commit(project, project_run, "Ask for little but the erosion")
    for iterations, reasons in ((20, 0), (3, 1)):
        set_iterations(project, iterations)
        project_run(project, "dvc", "repro", check=True)
        code, report, output = gate(project)
        assert len(report["reasons"]) == code == reasons, (iterations, output)
        assert report["reference"]["commit"] == first
        assert [found["metric"] for found in report["erosion"]] == ["roc_auc"]
        assert outcomes(report) == {"roc_auc": "non-inferior"}, "each step is within its margin"
        if code == 0:
            commit(project, project_run, f"Train for {iterations} iterations")
    (reason,) = report["reasons"]
    assert reason.startswith("roc_auc: ")
    assert " the reference: " in reason
    assert "(model.metrics.roc_auc.erosion)" in reason
    assert "make reference" in output

    project_run(project, "make", "reference", check=True)
    code, _, output = gate(project)
    assert code == 1
    assert "the contract is loosened: model.reference none → " in output
    code, report, output = gate(project, "--allow-loosening")
    assert (code, report["reference"]["model"]["source"]) == (0, "same")
    commit(project, project_run, "Move the reference")
    set_iterations(project, 4)
    project_run(project, "dvc", "repro", check=True)
    code, report, _ = gate(project)
    assert (code, report["reference"]["commit"]) == (0, head(project))


def test_a_regression_in_one_slice_is_blocked_though_the_whole_is_better(
    pipelined: Bake, gate: Gate, project_run: Run
) -> None:
    project = pipelined()
    set_iterations(project, 20)
    project_run(project, "dvc", "repro", check=True)
    commit(project, project_run, "Train a weaker model")
    (project / "src" / "flight_delays" / "lopsided.py").write_text(LOPSIDED, encoding="utf-8")
    set_iterations(project, 200)
    set_train(project, estimator="flight_delays.lopsided.Lopsided")
    project_run(project, "dvc", "repro", check=True)
    code, report, output = gate(project)
    assert code == 1
    assert {found["metric"]: bool(found["failures"]) for found in report["metrics"]} == {
        "roc_auc": False,
        "average_precision": False,
        "log_loss": False,
        "warning_cost": False,
    }
    assert {found["value"]: bool(found["failures"]) for found in report["slices"]} == {
        "EWR": False,
        "JFK": True,
        "LGA": False,
    }
    assert outcomes(report)["roc_auc JFK"] in ("inferior", "inconclusive")
    assert "roc_auc where origin is JFK: " in output


def test_a_slow_and_large_model_is_blocked(pipelined: Bake, gate: Gate, project_run: Run) -> None:
    project = pipelined()
    set_train(
        project,
        estimator="sklearn.ensemble.RandomForestClassifier",
        hyperparameters={"n_estimators": 600, "max_depth": 8, "n_jobs": 2},
    )
    project_run(project, "dvc", "repro", check=True)
    code, report, output = gate(project, "--accept-new-baseline", "only the limits matter here")
    assert code == 1
    failed = {limit["term"] for limit in report["limits"] if limit["failures"]}
    assert failed == {"model.size_mb", "model.latency_p99_ms"}
    assert "size of the served model: " in output
    assert "latency of one row, 99th percentile: " in output
    assert "is more than 20 (model.latency_p99_ms)" in output


def test_two_trained_branches_merge_and_marks_on_main_keep_nobody_out(
    pipelined: Bake, gate: Gate, project_run: Run
) -> None:
    project = pipelined()
    champion = head(project)
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    changes = {
        "theirs": ("max_iter: 150", "max_iter: 140"),
        "mine": ("resamples: 500", "resamples: 200"),
    }
    for branch, change in changes.items():
        project_run(project, "git", "switch", "-qc", branch, champion, check=True)
        params.write_text(text.replace(*change), encoding="utf-8")
        project_run(project, "dvc", "repro", check=True)
        commit(project, project_run, branch)
    merged = project_run(project, "git", "merge", "theirs")
    assert merged.returncode == 1
    assert "CONFLICT (content): Merge conflict in dvc.lock" in merged.stdout

    resolved = project_run(project, "make", "resolve", check=True).stdout

    assert "Go on with `git commit`." in resolved
    project_run(project, "git", "commit", "--no-verify", "--no-edit", check=True)
    assert project_run(project, "git", "status", "--porcelain").stdout == ""
    project_run(project, "make", "verify-lock", check=True)
    good = (project / "dvc.lock").read_text(encoding="utf-8")

    # Somebody merges another one and commits the marks.
    marks = f"<<<<<<< HEAD\n{good}=======\n{good}>>>>>>> theirs\n"
    (project / "dvc.lock").write_text(marks, encoding="utf-8")
    commit(project, project_run, "Marks")
    stopped = project_run(project, "make", "pipeline")
    assert stopped.returncode != 0
    assert "dvc.lock: holds the marks of a merge conflict" in stopped.stderr
    (project / "dvc.lock").write_text(good, encoding="utf-8")
    commit(project, project_run, "Without marks")
    code, report, output = gate(project, base="HEAD~1")
    assert (code, report["verdict"], report["champion"]["source"]) == (0, "keep", "same"), output
    assert "Nothing of it is believed: everything was run" in output


def test_a_loosened_contract_is_blocked_until_a_maintainer_consents(
    pipelined: Bake, gate: Gate
) -> None:
    project = pipelined()

    def loosen(contract: dict[str, Any]) -> None:
        contract["model"]["metrics"]["roc_auc"]["floor"] = 0.5
        del contract["model"]["slices"]
        contract["behaviour"]["directional"] = []

    edit(project, "contract.yaml", loosen)
    code, report, output = gate(project)
    assert code == 1
    assert "the contract is loosened: model.metrics.roc_auc.floor 0.74 → 0.5" in output
    assert report["metrics"][0]["bound"] == 0.74
    assert {found["value"] for found in report["slices"]} == {"EWR", "JFK", "LGA"}
    loosened = {change["term"]: change["effect"] for change in report["contract_changes"]}
    assert set(loosened.values()) == {"loosened"}
    assert "behaviour.directional.precipitation set to 0.3" in loosened
    assert "model.slices.origin.roc_auc.floor" in loosened
    markdown = (project / "reports" / "gate.md").read_text(encoding="utf-8")
    assert r"| model.metrics.roc\_auc.floor | 0.74 | 0.5 | loosened |" in markdown

    code, report, output = gate(project, "--allow-loosening")
    assert (code, report["verdict"]) == (0, "keep")
    assert report["metrics"][0]["bound"] == 0.5
    assert report["slices"] == []
    assert "A maintainer consented to the loosened contract" in output


def test_a_broken_contract_is_a_mistake(pipelined: Bake, gate: Gate) -> None:
    project = pipelined()
    edit(project, "contract.yaml", lambda contract: contract["model"].update(size_mb="small"))
    code, _, output = gate(project)
    assert code == 2
    assert "contract.yaml: model.size_mb" in output


def test_fewer_rows_than_the_contract_allows_are_blocked(
    pipelined: Bake, gate: Gate, project_run: Run
) -> None:
    project = pipelined()
    profile = project / "reports" / "data_profile.json"
    real = profile.read_text(encoding="utf-8")
    larger = json.loads(real)
    larger["rows"] *= 2
    profile.write_text(json.dumps(larger), encoding="utf-8")
    commit(project, project_run, "Have more rows")
    profile.write_text(real, encoding="utf-8")
    commit(project, project_run, "Have fewer rows")
    code, _, output = gate(project, base="HEAD~1")
    assert code == 1
    assert "change of the row count since the base: -50 % is less than -5" in output


def test_noise_within_the_margin_passes(challenged: Path, gate: Gate) -> None:
    code, report, _ = gate(challenged)
    assert (code, report["verdict"], report["champion"]["source"]) == (0, "promote", "cache")
    assert set(outcomes(report).values()) <= {"superior", "non-inferior"}
    assert all(found["difference"] != 0 for found in report["metrics"])
    again = gate(challenged)[1]
    assert [again[key] for key in ("metrics", "slices")] == [
        report[key] for key in ("metrics", "slices")
    ]


def test_a_champion_that_is_in_no_cache_is_trained_again(
    challenged: Path, gate: Gate, tmp_path: Path
) -> None:
    expected = gate(challenged)[1]
    shutil.rmtree(challenged / ".dvc" / "cache")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code, report, output = gate(challenged, env={"TMPDIR": str(scratch)})
    assert (code, report["champion"]["source"]) == (0, "reproduced")
    assert report["champion"]["sha256"] == expected["champion"]["sha256"]
    assert report["metrics"] == expected["metrics"]
    assert "trained again from the base" in output
    assert list(scratch.glob("champion-*")) == []


def test_a_champion_is_pulled_from_a_remote(challenged: Path, gate: Gate, project_run: Run) -> None:
    # Given relative to the project, as teams that share a folder do.
    project_run(challenged, "dvc", "remote", "add", "-d", "shared", "../storage", check=True)
    # A cache and a remote hold their files in the same way.
    shutil.move(challenged / ".dvc" / "cache", challenged.parent / "storage")
    code, report, _ = gate(challenged)
    assert (code, report["champion"]["source"]) == (0, "remote")


def test_a_champion_is_pulled_from_the_remote_of_the_environment(
    challenged: Path, gate: Gate
) -> None:
    shutil.move(challenged / ".dvc" / "cache", challenged.parent / "storage")
    code, report, _ = gate(challenged, env={"DVC_REMOTE_URL": "../storage"})
    assert (code, report["champion"]["source"]) == (0, "remote")
    assert not (challenged / ".dvc" / "config.local").exists()


def test_a_champion_with_other_locked_versions_runs_in_its_own_environment(
    challenged: Path, gate: Gate, project_run: Run
) -> None:
    with (challenged / "uv.lock").open("a", encoding="utf-8") as lock:
        lock.write("# another lock\n")
    project_run(challenged, "dvc", "repro", check=True)
    code, report, output = gate(challenged)
    assert (code, report["champion"]["source"]) == (0, "cache")
    assert "The champion ran with the versions that the base locks." in output
    assert all(found["outcome"] for found in report["metrics"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_stopped_gate_leaves_nothing_behind(
    challenged: Path, project_env: Mapping[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    before = worktree_state(challenged)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [*GATE, "--base", "HEAD"],
        cwd=challenged,
        env={**project_env, "PYTHONPATH": sources_of(challenged), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(scratch.glob("champion-*/base/dvc.yaml")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, 1), output
    assert "Traceback" not in output
    assert list(scratch.glob("champion-*")) == []
    assert worktree_state(challenged) == before


def test_a_champion_that_lacks_a_column_is_paired_by_key(
    pipelined: Bake, gate: Gate, project_run: Run
) -> None:
    project = pipelined()
    project_run(project, "python", "-c", RENAME, check=True)
    schema = project / "schema.yaml"
    schema.write_text(
        schema.read_text(encoding="utf-8").replace("  humidity:", "  moisture:"), encoding="utf-8"
    )
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    (split,) = lock["stages"]["split"]["outs"]
    project_run(project, "dvc", "repro", check=True)

    code, report, output = gate(project)
    assert (code, report["champion"]["source"]) == (0, "cache")
    assert all(found["outcome"] for found in report["metrics"])
    assert "has no column humidity" in output
    rows = report["rows"]
    assert f"compared on the {rows} of {rows} rows that are in both" in output
    assert set(report["data"]["schema_changes"]) == {"removed `humidity`", "added `moisture`"}

    (project / ".dvc" / "cache" / "files" / "md5" / split["md5"][:2] / split["md5"][2:]).unlink()
    code, again, output = gate(project)
    assert (code, again["metrics"]) == (0, report["metrics"])
    assert again["on_base_rows"]["changes"]["key"] == ["scheduled_hour", "carrier", "flight"]

    code, report, output = gate(project, "--accept-new-baseline", "the column was renamed")
    assert (code, report["verdict"]) == (0, "promote")
    assert report["consent"]["accept_new_baseline"] == "the column was renamed"
    assert "the column was renamed" in (project / "reports" / "gate.md").read_text("utf-8")


def test_a_project_inside_a_larger_repository_is_judged(
    challenged: Path, gate: Gate, project_run: Run, tmp_path: Path
) -> None:
    listing = project_run(challenged, "git", "diff", "--name-only", "HEAD", check=True)
    challenger = {name: (challenged / name).read_bytes() for name in listing.stdout.split()}
    project_run(challenged, "git", "checkout", "-q", "HEAD", "--", ".", check=True)
    project = tmp_path / "repository" / "services" / "flight_delays"
    project.parent.mkdir(parents=True)
    shutil.move(challenged, project)
    shutil.rmtree(project / ".git")
    project_run(project.parent.parent, "git", "init", "-q", "-b", "main", check=True)
    commit(project, project_run, "Start")
    for name, content in challenger.items():
        (project / name).write_bytes(content)
    code, report, _ = gate(project)
    assert (code, report["verdict"], report["champion"]["source"]) == (0, "promote", "cache")
    assert set(outcomes(report).values()) <= {"superior", "non-inferior"}
