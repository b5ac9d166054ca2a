"""Each extra of the engine installs all that its task imports: seen where nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import ENGINE, Run, find_uv
from projects import make_project

pytestmark = pytest.mark.slow

# Imports every module below the names that are given, and prints which of them cannot be.
PROBE = """
import importlib, json, pkgutil, sys

found, failed = [], {}

def imported(name):
    found.append(name)
    try:
        return importlib.import_module(name)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"

without, names = tuple(sys.argv[1].split(",")), sys.argv[2:]
for name in names:
    module = imported(name)
    for one in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not one.name.startswith(without):
            imported(one.name)
print(json.dumps({"found": found, "failed": failed}))
"""

# The program itself is run, not imported. The service makes its matrix of records; what takes a
# polars table is for training. The service retries nothing.
TABLES = [
    f"gitops_ml.features.{name}" for name in ("derived_rows", "duplicates", "matrix", "repeat")
]
WITHOUT = {
    "serve": ",".join([*TABLES, "gitops_ml.core.retry"]),
    "comment": "gitops_ml.__main__",
    "train": "gitops_ml.__main__,gitops_ml.checks",
    "checks": "gitops_ml.__main__",
    "lake": "s3fs.",
}
# What runs with each extra alone, and a few modules that must be among it.
EXTRAS: Mapping[str, tuple[list[str], set[str]]] = {
    "serve": (
        ["gitops_ml.core", "gitops_ml.features", "gitops_ml.model.predictor", "gitops_ml.serving"],
        {"gitops_ml.serving.service", "gitops_ml.serving.app", "gitops_ml.features.encode"},
    ),
    "comment": (["gitops_ml.report.comment"], {"gitops_ml.report.comment"}),
    "train": (
        ["gitops_ml"],
        {"gitops_ml.model.train", "gitops_ml.ship.plan", "gitops_ml.report.judge"},
    ),
    "checks": (["gitops_ml.checks"], {"gitops_ml.checks.model", "gitops_ml.checks.fixtures"}),
    # What only some sources need is imported when it is: it is asked for by name.
    "lake": (
        ["gitops_ml.lake", "gitops_ml.data.landing", "s3fs", "adbc_driver_postgresql.dbapi"],
        {"gitops_ml.lake.land", "s3fs", "adbc_driver_postgresql.dbapi"},
    ),
}
# Where an import is planted of what only another extra holds.
PLANTED = {
    "serve": ("serving/app.py", "import polars", "No module named 'polars'"),
    "comment": ("report/comment.py", "import numpy", "No module named 'numpy'"),
    "train": ("ship/plan.py", "import mlflow", "No module named 'mlflow'"),
    "checks": ("checks/data.py", "import mlflow", "No module named 'mlflow'"),
    "lake": ("lake/land.py", "import mlflow", "No module named 'mlflow'"),
}


@pytest.fixture(params=EXTRAS)
def extra(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A copy of the engine that a test may change."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "dist", ".venv")
    return Path(shutil.copytree(ENGINE, tmp_path / "engine", ignore=ignored))


def install(run: Run, python: Path, *what: str) -> None:
    run([find_uv(), "pip", "install", "--quiet", "--python", python, *what], python.parent,
        check=True)  # fmt: skip


def test_an_extra_holds_what_its_task_imports(
    extra: str, engine: Path, tmp_path: Path, run: Run
) -> None:
    names, among = EXTRAS[extra]
    project = make_project(tmp_path / "project")
    run([find_uv(), "venv", "--quiet", tmp_path / "venv"], tmp_path, check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install(run, python, f"gitops-ml[{extra}] @ {engine.as_uri()}")

    def probe() -> dict[str, dict[str, str]]:
        done = run([python, "-c", PROBE, WITHOUT[extra], *names], project, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    outcome = probe()
    assert outcome["failed"] == {}
    assert among <= set(outcome["found"])
    shown = run([python.parent / "gitops-ml", "--help"], project, check=True)
    assert "usage: gitops-ml COMMAND" in shown.stdout

    file, planted, said = PLANTED[extra]
    path = engine / "src" / "gitops_ml" / file
    text = path.read_text(encoding="utf-8")
    after = "from __future__ import annotations\n"
    path.write_text(text.replace(after, f"{after}\n{planted}\n", 1), encoding="utf-8")
    install(run, python, "--no-deps", "--reinstall", str(engine))
    assert any(said in error for error in probe()["failed"].values())
