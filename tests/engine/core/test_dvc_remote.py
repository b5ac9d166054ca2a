"""The exchange with a DVC remote: a real one, in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import subcommand

from gitops_ml.core.dvc_remote import from_environment
from gitops_ml.core.run import outside_git

pull, push = subcommand("pull"), subcommand("push")

STAGE = """\
stages:
  copy:
    cmd: cp in.txt out.txt
    deps: [in.txt]
    params: [size]
    outs: [out.txt]
"""
# What few people install. One that is there would ask the network.
PLUGINS = ("oss", "webhdfs", "gdrive", "azure", "gs", "s3")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project of DVC without a remote."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").touch()
    (root / "in.txt").write_text("data", encoding="utf-8")
    (root / "params.yaml").write_text("size: 2\n", encoding="utf-8")
    (root / "dvc.yaml").write_text(STAGE, encoding="utf-8")
    for name in os.environ.keys() - outside_git().keys():
        monkeypatch.delenv(name)
    monkeypatch.delenv("DVC_REMOTE_URL", raising=False)
    for level in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / "none"))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    monkeypatch.chdir(root)
    return root


def reproduce() -> str:
    """Run DVC's pipeline here; gives back what it said."""
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_what_one_machine_ran_another_does_not_run_again(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage, moved, other = tmp_path / "storage", tmp_path / "moved", tmp_path / "other"
    assert "Running stage 'copy'" in reproduce()
    # The lock names the output, with another parameter than the one that the run is known by.
    lock = (project / "dvc.lock").read_text(encoding="utf-8")
    assert "size: 2" in lock
    (project / "dvc.lock").write_text(lock.replace("size: 2", "size: 1"), encoding="utf-8")
    settings = f"[core]\n    remote = Team\n['remote \"Team\"']\n    url = {storage}\n"
    (project / ".dvc" / "config").write_text(settings, encoding="utf-8")
    assert push() == 0
    assert capsys.readouterr().out == f"Push: exchanged with {storage}.\n"

    # DVC_REMOTE_URL goes before the default remote, and nothing of it stays.
    storage.rename(moved)
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("cache", "tmp", "out.txt"))
    local = "# mine\n['remote \"from-the-environment\"']\n    url = /nowhere\n"
    (other / ".dvc" / "config.local").write_text(local, encoding="utf-8")
    monkeypatch.chdir(other)
    monkeypatch.setenv("DVC_REMOTE_URL", "../moved")
    assert pull() == 0
    assert capsys.readouterr().out == f"Pull: exchanged with {moved}.\n"
    assert (other / ".dvc" / "config.local").read_text(encoding="utf-8") == local

    said = reproduce()
    assert "Running stage" not in said
    assert "Stage 'copy' is cached" in said
    assert (other / "out.txt").read_text(encoding="utf-8") == "data"


def test_without_a_remote_nothing_is_exchanged(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What a workflow sets for a variable that the repository does not have.
    monkeypatch.setenv("DVC_REMOTE_URL", "")
    assert pull() == 0
    said = capsys.readouterr().out
    assert said.startswith("Skipped: no DVC remote. Set DVC_REMOTE_URL")
    assert "`dvc remote add --default`" in said


def test_what_the_cache_holds_is_put_in_its_place(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce()
    out = project / "out.txt"
    out.unlink()
    assert pull() == 0
    assert out.read_text(encoding="utf-8") == "data"

    out.write_text("only here", encoding="utf-8")
    assert pull() == 1
    assert "out.txt" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "only here"


def test_a_missing_plugin_is_named_with_the_command_that_installs_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [name for name in PLUGINS if find_spec(f"dvc_{name}") is None]
    if not missing:
        pytest.skip("every plugin is installed")
    monkeypatch.setenv("DVC_REMOTE_URL", f"{missing[0]}://ada:secret@host/folder")
    assert pull() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{missing[0]}://ada:***@host/folder: `dvc fetch` failed: ")
    assert f"`uv add --group train dvc-{missing[0]}`" in said
    assert "Having any troubles" not in said
    assert not (project / ".dvc" / "config.local").exists()


def test_an_unknown_protocol_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_REMOTE_URL", "foo://host/folder")
    assert push() == 1
    said = capsys.readouterr().err
    assert said.startswith("DVC_REMOTE_URL: `dvc remote` failed: ")
    assert "Unsupported URL type foo://" in said
    assert not (project / ".dvc" / "config.local").exists()


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (None, None),
        (" ", None),
        ("s3://bucket/folder", "s3://bucket/folder"),
        (" /srv/dvc\n", "/srv/dvc"),
    ],
)
def test_reads_the_address_from_the_environment(
    value: str | None, address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_REMOTE_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("DVC_REMOTE_URL", value)
    assert from_environment(tmp_path) == address
