"""The same commit locks to the same model on every machine, and what differs is told apart."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Bake, Run

pytestmark = pytest.mark.slow

Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def verify(project_run: Run) -> Verify:
    """Run `gitops-ml verify-lock`: its exit code, and what it said."""

    def run_verify(project: Path) -> tuple[int, str]:
        done = project_run(project, "gitops-ml", "verify-lock")
        return done.returncode, done.stdout + done.stderr

    return run_verify


def relock(project: Path, package: str, version: str) -> None:
    """What `uv lock --upgrade-package` does to the line of a version."""
    lock = project / "uv.lock"
    text = lock.read_text(encoding="utf-8")
    line = rf'(?m)^(name = "{package}"\nversion = ")[^"]+'
    assert re.search(line, text)
    lock.write_text(re.sub(line, rf"\g<1>{version}", text), encoding="utf-8")


def commit(project: Path, project_run: Run) -> None:
    project_run(project, "git", "add", "--all", check=True)
    project_run(project, "git", "commit", "-qm", "Change", check=True)


def hashes(project: Path) -> object:
    stages = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {name: stage["outs"] for name, stage in stages.items()}


def test_another_number_of_cores_trains_the_same_model(
    pipelined: Bake, project_run: Run, verify: Verify
) -> None:
    project = pipelined()
    before = hashes(project)
    for cores in ("1", "4"):
        threads = {"OMP_NUM_THREADS": cores, "OPENBLAS_NUM_THREADS": cores, "PYTHONHASHSEED": cores}
        retrain = ("dvc", "repro", "--force", "--single-item", "train", "evaluate")
        project_run(project, *retrain, env=threads, check=True)
        assert hashes(project) == before
        assert verify(project) == (0, "The committed dvc.lock is what this run wrote.\n")
    status = project_run(project, "git", "status", "--porcelain", check=True)
    assert status.stdout == ""
    assert (project / "reports" / "training_environment.json").is_file()


def test_a_new_tool_trains_nothing_again_and_a_new_library_does(
    pipelined: Bake, project_run: Run, verify: Verify
) -> None:
    project = pipelined()
    relock(project, "ruff", "99.0")
    assert "uv.lock" in project_run(project, "dvc", "status", check=True).stdout
    said = project_run(project, "dvc", "repro", check=True).stdout
    assert "Stage 'ingest' didn't change" in said
    assert "Stage 'train' didn't change" in said
    assert verify(project) == (0, "The committed dvc.lock is what this run wrote.\n")
    commit(project, project_run)

    relock(project, "scikit-learn", "99.0")
    refused = project_run(project, "dvc", "repro")
    assert refused.returncode != 0
    assert "Running stage 'train'" in refused.stdout
    assert "Stage 'ingest' didn't change" in refused.stdout
    assert "scikit-learn" in refused.stderr
    assert "locked is 99.0\nrun `uv sync --locked`" in refused.stderr
    code, said = verify(project)
    assert code == 1
    assert said.startswith("other environment: ")
    # There is no such version to install: the lock gets the installed one back instead.
    project_run(project, "git", "checkout", "--", ".", check=True)
    project_run(project, "dvc", "repro", check=True)
    assert verify(project) == (0, "The committed dvc.lock is what this run wrote.\n")


def test_a_change_that_was_not_run_is_stale_until_its_run_is_committed(
    pipelined: Bake, project_run: Run, verify: Verify
) -> None:
    project = pipelined()
    params = project / "params.yaml"
    changed = re.sub(r"(?m)^  seed: \d+", "  seed: 99", params.read_text(encoding="utf-8"))
    params.write_text(changed, encoding="utf-8")
    project_run(project, "dvc", "repro", check=True)
    code, said = verify(project)
    assert code == 1
    assert "train: stale, it was run with another params.yaml:train.seed" in said
    assert said.endswith("run `make pipeline`, then commit dvc.lock and reports/\n")
    commit(project, project_run)
    assert verify(project)[0] == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="plays an older processor of this kind")
def test_another_processor_s_model_counts_as_reproduced_by_its_answers(
    pipelined: Bake, project_run: Run, verify: Verify
) -> None:
    project = pipelined("regression")
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["train"] |= {
        "estimator": "sklearn.linear_model.Ridge",
        "hyperparameters": {},
        "preprocessing": {"categories": "one_hot", "missing": "median", "scale": True},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    project_run(project, "dvc", "repro", check=True)
    commit(project, project_run)
    before = hashes(project)

    older = {"OPENBLAS_CORETYPE": "Prescott"}
    retrain = ("dvc", "repro", "--force", "--single-item", "train", "evaluate")
    project_run(project, *retrain, env=older, check=True)
    assert hashes(project) != before
    code, said = verify(project)
    assert code == 0, said
    assert said.startswith("Reproduced within a tolerance, not byte for byte: ")
    judged = project_run(project, "gitops-ml", "gate", "--base", "HEAD")
    assert "Reproduced within a tolerance" in judged.stdout + judged.stderr
    # What it says of delivery: the run's lock is committed.
    commit(project, project_run)
    assert verify(project) == (0, "The committed dvc.lock is what this run wrote.\n")
