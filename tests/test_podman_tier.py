"""The podman tier is left out where it cannot run, but never unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import podman
import pytest


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any of the tools."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(podman, "ELSEWHERE", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("PODMAN_TIER", raising=False)


def test_without_the_tools_it_is_skipped_with_their_names(bare: None) -> None:
    with pytest.raises(pytest.skip.Exception, match="needs podman, runc, catatonit, docker-reg"):
        podman.demand_podman()


def test_where_it_must_run_that_is_a_failure(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODMAN_TIER", "required")
    with pytest.raises(pytest.fail.Exception, match="needs podman"):
        podman.demand_podman()


def test_who_may_not_make_a_root_file_system_is_told(
    bare: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in podman.TOOLS:
        (tmp_path / tool).touch(mode=0o755)
    podman.demand_podman()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        podman.demand_podman()
