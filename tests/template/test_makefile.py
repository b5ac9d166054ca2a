"""What the tasks of a project hand to the tools that they run; uv is played by a few lines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Bake

# Says how it was called.
UV = f"""#!{sys.executable} -I
import json, os, sys
print(json.dumps({{"words": sys.argv[1:], "store": os.environ.get("BENTOML_HOME")}}))
"""

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(clean_env: Mapping[str, str], tmp_path: Path) -> Make:
    """Run a task of make in a project: how it called uv."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(UV, encoding="utf-8")
    (tools / "uv").chmod(0o755)
    env = {key: value for key, value in clean_env.items() if key != "BENTOML_HOME"}

    def run(project: Path, *words: str, **variables: str) -> dict[str, Any]:
        done = subprocess.run(
            ["make", "--silent", *words],
            cwd=project,
            env={**env, "PATH": f"{tools}:{env['PATH']}", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        called: dict[str, Any] = json.loads(done.stdout)
        return called

    return run


@pytest.fixture
def project(bake: Bake, tmp_path: Path) -> Path:
    """A project in a folder whose name is words and signs for a shell."""
    folder = tmp_path / """my "late" project's $HOME; (1)"""
    return Path(shutil.copytree(bake(), folder, symlinks=True))


def test_a_bento_is_exported_wherever_the_project_is(project: Path, make: Make) -> None:
    assert make(project, "export-bento")["words"] == [
        "run", "bentoml", "export", "flight_delays:latest",
        str(project / "build" / "flight_delays.bento"),
    ]  # fmt: skip


def test_the_base_is_the_default_branch_of_origin(project: Path, make: Make) -> None:
    assert make(project, "reproduce")["words"][-1] == "origin/main"
    head = ["git", "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk"]
    subprocess.run(head, cwd=project, check=True)
    assert make(project, "reproduce")["words"][-1] == "origin/trunk"
    assert make(project, "reproduce", "BASE=HEAD~1")["words"][-1] == "HEAD~1"


@pytest.mark.parametrize("task", ["package", "serve", "smoke-bento", "export-bento"])
def test_each_checkout_has_a_store_of_its_own(project: Path, make: Make, task: str) -> None:
    """In one that is shared, `latest` is the bento of whichever checkout built last."""
    other = shutil.copytree(project, project.with_name("another"), symlinks=True)
    stores = [make(folder, task)["store"] for folder in (project, other)]
    assert stores == [str(folder / "build" / "bentoml") for folder in (project, other)]
    assert make(project, task, BENTOML_HOME="/srv/bentoml")["store"] == "/srv/bentoml"


def test_what_the_formatter_mends_does_not_stop_it(
    project: Path, clean_env: Mapping[str, str], tmp_path: Path
) -> None:
    tools = tmp_path / "ruff"
    tools.mkdir()
    (tools / "uv").write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -m ruff "$@"\n')
    (tools / "uv").chmod(0o755)
    file = project / "src" / "flight_delays" / "wide.py"
    names = [f"a_rather_long_name_{number}" for number in range(5)]
    file.write_text(f'"""Wide."""\n\n\ndef wide({", ".join(names)}):\n    """Give it back."""\n')

    env = {**clean_env, "PATH": f"{tools}:{clean_env['PATH']}"}
    done = subprocess.run(
        ["make", "format"], cwd=project, env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
    assert f"def wide(\n    {names[0]},\n" in file.read_text()


def test_land_hands_over_what_was_asked_for_and_shows_no_address(project: Path, make: Make) -> None:
    address = "postgresql://me:open-sesame@example.com/db"
    query = "SELECT * FROM flights WHERE carrier = 'UA'"
    words = make(project, "land", f"FROM={address}", f"QUERY={query}", "SINCE=last", "AGAIN=1")[
        "words"
    ]
    assert words == [
        *("run", "gitops-ml", "land", "--from", address, "--query", query),
        *("--since", "last", "--again"),
    ]
    assert make(project, "land")["words"] == ["run", "gitops-ml", "land"]
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    assert "$(FROM)" not in makefile
