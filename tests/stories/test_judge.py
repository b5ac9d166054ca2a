"""`make gate` on a change of the engine: the engine of the base judges.

What a change may plant is tried in `tests/template/test_judge_script.py`, what its own code may do
while it answers in `tests/engine/gate/test_gate.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

Bake = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]

# No stage depends on this file, so nothing is trained again.
PATCH = """
import importlib.abc, importlib.util, sys


class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "gitops_ml.gate.judgement":
            return None
        sys.meta_path.remove(self)
        from gitops_ml.model import metrics
        honest = metrics.measure
        metrics.measure = lambda name, *rest: honest(name, *rest) * 0 + (
            0.99 if metrics.kind_of(name).direction > 0 else 0.01)
        return importlib.util.find_spec(name)


sys.meta_path.insert(0, Patch())
"""


def verdict(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "reports" / "gate.json").read_text("utf-8"))
    return found


def commit(project: Path, project_run: Run) -> None:
    project_run(project, "git", "add", "--all", check=True)
    project_run(project, "git", "commit", "--no-verify", "-qm", "Change", check=True)


def test_an_engine_that_praises_every_model_is_not_the_one_that_judges(
    pipelined: Bake, project_run: Run
) -> None:
    project = pipelined()
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["hyperparameters"]["max_iter"] = 3
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    project_run(project, "dvc", "repro", check=True)
    with (project / "engine" / "src" / "gitops_ml" / "__init__.py").open("a") as init:
        init.write(PATCH)
    commit(project, project_run)

    praised = project_run(project, "gitops-ml", "gate", "--base", "HEAD~1")
    assert praised.returncode == 0, praised.stdout + praised.stderr
    assert {one["challenger"] for one in verdict(project)["metrics"]} <= {0.99, 0.01}

    done = project_run(project, "make", "gate", "BASE=HEAD~1")
    assert done.returncode == 2, done.stdout + done.stderr  # of make
    report = verdict(project)
    assert report["verdict"] == "block"
    assert "This change updates the engine; the engine of the base judged it." in report["notes"]
    assert all(one["outcome"] == "inferior" for one in report["metrics"])
    assert not {one["challenger"] for one in report["metrics"]} & {0.99, 0.01}


def test_formats_that_the_base_cannot_read_ask_for_a_maintainer(
    pipelined: Bake, project_run: Run
) -> None:
    project = pipelined()
    settings = project / "engine" / "src" / "gitops_ml" / "core" / "settings.py"
    text = settings.read_text(encoding="utf-8")
    known = "    latency_p99_ms: Annotated[\n"
    assert known in text
    settings.write_text(text.replace(known, f"    fairness: bool = False\n{known}"), "utf-8")
    contract = yaml.safe_load((project / "contract.yaml").read_text(encoding="utf-8"))
    contract["model"]["fairness"] = True
    (project / "contract.yaml").write_text(yaml.safe_dump(contract), encoding="utf-8")
    project_run(project, "dvc", "commit", "--force", check=True)
    commit(project, project_run)

    done = project_run(project, "make", "gate", "BASE=HEAD~1")
    assert done.returncode == 2
    assert "model.fairness: is not a known key" in done.stderr
    assert "`engine: judge itself`" in done.stderr
    assert not (project / "reports" / "gate.json").exists()

    done = project_run(project, "make", "gate", "BASE=HEAD~1", "ARGS=--allow-own-engine")
    assert done.returncode == 0, done.stdout + done.stderr
    report = verdict(project)
    assert report["consent"]["own_engine"]
    assert "the engine of this change judged itself" in report["notes"][0]
