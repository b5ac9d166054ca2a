"""Which files decide what a green run means."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.core.judge_files import (
    CODE,
    ENGINE,
    LOCKS,
    NOT_THERE_YET,
    PARTS,
    TASKS,
    TESTS,
    TOOLS,
    WORKFLOWS,
    is_read,
    part_of,
)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (".github/workflows/pipeline.yml", WORKFLOWS),
        (".github/CODEOWNERS", WORKFLOWS),
        ("engine/README.md", ENGINE),
        ("Makefile", TASKS),
        # GNU make takes it before the Makefile.
        ("GNUmakefile", TASKS),
        ("dvc.yaml", TASKS),
        (".dvc/config", TASKS),
        ("tests/test_model.py", TESTS),
        ("uv.lock", LOCKS),
        ("dvc.lock", LOCKS),
        ("src/late/metrics.py", CODE),
        ("pyproject.toml", TOOLS),
        ("uv.toml", TOOLS),
        (".python-version", TOOLS),
        (".env", TOOLS),
        (".venv/lib/python3.11/site-packages/x.pth", TOOLS),
        ("sitecustomize.py", TOOLS),
        ("README.py", TOOLS),
        (".md", TOOLS),
    ],
)
def test_what_the_judge_is_made_of_has_a_part(path: str, part: str) -> None:
    assert part_of(path) == part
    assert part in PARTS
    assert is_read(path)


@pytest.mark.parametrize(
    "path",
    [
        "contract.yaml",
        "params.yaml",
        "schema.yaml",
        "data/landed/flights.parquet",
        "data/landed.dvc",
        "reports/gate.json",
        "models/manifest.json",
    ],
)
def test_what_the_judge_compares_itself_is_read_and_no_part(path: str) -> None:
    assert part_of(path) is None
    assert is_read(path)


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "LICENSE",
        "docs/data.md",
        "notebooks/look.ipynb",
        "data/README.md",
        "more/a.csv",
    ],
)
def test_the_rest_is_for_people(path: str) -> None:
    assert part_of(path) is None
    assert not is_read(path)


def test_landed_files_may_be_anywhere() -> None:
    source = Path("docs/landed")
    assert is_read("docs/landed/a.csv", source)
    assert is_read("docs/landed", source)
    assert not is_read("docs/landed.md", source)


def test_what_may_come_is_read() -> None:
    assert [path for path in NOT_THERE_YET if not is_read(path)] == []
