"""The checks as a project has them: in classes of its own, and pytest in a process of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import PROJECT_TEMPLATE

PYTEST_SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--strict-markers", "--strict-config", "-ra"]
"""
# What tests the example's own code.
OWN = ["test_estimator.py", "test_features.py", "test_metrics.py", "test_package.py", "__pycache__"]
OWN_TESTS = """
import polars as pl
import pytest
from gitops_ml.checks.data import DataChecks
from gitops_ml.data.problems import Problem


class TestData(DataChecks):
    @pytest.mark.skip(reason="orders come twice by nature")
    def test_no_key_comes_twice(self, problems: list[Problem]) -> None: ...

    def test_the_classes_of_both_sides_are_the_same(self, train_rows: pl.DataFrame) -> None:
        assert train_rows["returned"].n_unique() == 2

    def test_every_order_has_items(self, ingested: pl.DataFrame) -> None:
        assert ingested["items"].min() > 0
"""


@pytest.fixture
def project(shop: Callable[[], Path], tmp_path: Path) -> Path:
    """The small project with the tests of a generated one."""
    folder = Path(shutil.copytree(shop(), tmp_path / "shop"))
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(PYTEST_SETTINGS)
    tests = PROJECT_TEMPLATE / "tests"
    shutil.copytree(tests, folder / "tests", ignore=lambda *_: OWN)
    return folder


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_project_overrides_skips_and_adds_and_sees_what_failed(project: Path) -> None:
    (project / "tests" / "test_data.py").write_text(OWN_TESTS, encoding="utf-8")
    rows = pl.read_parquet(project / "data" / "ingested.parquet")
    rows.drop("items").write_parquet(project / "data" / "ingested.parquet")

    done = run(project, "tests/test_data.py", "-v")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "TestData::test_no_key_comes_twice SKIPPED" in done.stdout
    assert re.search(r"SKIPPED \[1\] .*: orders come twice by nature", done.stdout)
    assert "TestData::test_the_classes_of_both_sides_are_the_same PASSED" in done.stdout
    assert "TestData::test_every_order_has_items FAILED" in done.stdout
    failed = "TestData::test_columns_and_types_are_the_schema_s"
    assert f"{failed} FAILED" in done.stdout
    # The assertions of the engine are rewritten: they show what differs.
    assert "Right contains 1 more item:\nE         {'items': Int64}" in done.stdout


def test_without_a_pipeline_every_check_says_what_to_run(project: Path) -> None:
    for name in ("data", "models", "reports"):
        shutil.rmtree(project / name)

    done = run(project)

    assert done.returncode == 1, done.stdout + done.stderr
    # What remains is about the settings alone.
    assert re.search(r"= 1 passed, \d+ errors in ", done.stdout), done.stdout
    for missing in (
        "data/ingested.parquet is missing: run `make pipeline` first",
        "data/split/train.parquet is missing: run `make pipeline` first",
        "models/manifest.json is missing: run `make pipeline` first",
        "dvc.lock: no such file; run `make pipeline`",
    ):
        assert missing in done.stdout


def test_a_project_without_tests_of_its_own_passes_where_the_pipeline_has_not_run(
    project: Path,
) -> None:
    done = run(project, "-m", "not pipeline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ deselected", done.stdout)

    mistyped = run(project, "-k", "no_such_test")
    assert mistyped.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_needs_no_pipeline_runs_without_the_checks(project: Path) -> None:
    (project / "tests" / "test_own.py").write_text("def test_it():\n    pass\n", encoding="utf-8")

    done = run(project, "-m", "not pipeline", "-q")

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^1 passed, \d+ deselected", done.stdout, re.MULTILINE)
