"""The README's first command, run for real, and what it says when it cannot run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import TEMPLATE

ROOT = TEMPLATE
DEMO = ROOT / "tools" / "demo.py"


def demo(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        cwd=ROOT,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "answered"), [("classification", '"probabilities"'), ("regression", '"prediction"')]
)
def test_the_demo_ends_with_a_prediction(
    clean_env: Mapping[str, str], tmp_path: Path, task: str, answered: str
) -> None:
    done = demo(clean_env, "--task", task, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, summary = done.stdout.partition("What happened")
    assert answered in summary
    assert "Where to look next" in summary
    project = tmp_path / "flight_delays"
    for name in ("README.md", "reports/gate.md", "reports/validation.html"):
        assert name in summary
        assert (project / name).is_file()


def test_a_taken_folder_is_left_alone(clean_env: Mapping[str, str], tmp_path: Path) -> None:
    mine = tmp_path / "flight_delays" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("kept", encoding="utf-8")
    done = demo(clean_env, "--out", str(tmp_path))
    assert done.returncode == 1
    assert "exists; choose another folder with OUT=" in done.stderr
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def test_missing_tools_are_named(clean_env: Mapping[str, str], tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    git = shutil.which("git")
    assert git is not None
    (tools / "git").symlink_to(git)
    done = demo({**clean_env, "PATH": str(tools)}, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "make is missing" in done.stderr
    assert "uv is missing" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_failing_step_stops_the_demo(clean_env: Mapping[str, str], tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "make").write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    (tools / "make").chmod(0o755)
    path = os.pathsep.join([str(tools), clean_env["PATH"]])
    done = demo({**clean_env, "PATH": path}, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "`make setup`" in done.stderr
    assert "exit code 3" in done.stderr
    assert "Validate the data" not in done.stdout
