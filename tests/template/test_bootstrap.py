"""`tools/uv`: a machine without uv gets one, or is told what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TEMPLATE

SOURCE = TEMPLATE / "tools" / "uv"
BASICS = ("sh", "dirname", "rm", "env")


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout" / "tools" / "uv"
    copy.parent.mkdir(parents=True)
    shutil.copy2(SOURCE, copy)
    return copy


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder for PATH that holds a shell's basics, and neither uv nor Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def call(wrapper: Path, path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("UV", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(wrapper), "--version"],
        env=env | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_uses_the_uv_on_the_path(wrapper: Path, commands: Path) -> None:
    script(commands, "uv", 'echo "mine $1"')
    done = call(wrapper, str(commands))
    assert (done.returncode, done.stdout) == (0, "mine --version\n")
    assert not (wrapper.parent.parent / ".tools").exists()


def test_says_that_python_is_missing(wrapper: Path, commands: Path) -> None:
    done = call(wrapper, str(commands))
    assert done.returncode == 1
    assert "python3 is missing" in done.stderr


def test_says_that_the_venv_module_is_missing(wrapper: Path, commands: Path) -> None:
    script(commands, "python3", "exit 1")
    done = call(wrapper, str(commands))
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr


@pytest.mark.slow
def test_installs_uv_once_into_the_checkout(wrapper: Path) -> None:
    system = "/usr/local/bin:/usr/bin:/bin"
    if shutil.which("uv", path=system):
        pytest.skip(f"uv is on {system}, so nothing needs to be installed")
    first = call(wrapper, system)
    second = call(wrapper, system, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert first.returncode == 0, first.stderr
    assert "installing uv" in first.stderr
    assert first.stdout.startswith("uv ")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")


@pytest.mark.slow
def test_a_failed_installation_leaves_nothing_behind(wrapper: Path) -> None:
    done = call(
        wrapper,
        "/usr/bin:/bin",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
        PIP_CONFIG_FILE=os.devnull,
    )
    if "installing uv" not in done.stderr:
        pytest.skip("uv is on the system's PATH, so nothing needs to be installed")
    assert done.returncode == 1
    assert "could not be installed from PyPI" in done.stderr
    assert not (wrapper.parent.parent / ".tools").exists()
