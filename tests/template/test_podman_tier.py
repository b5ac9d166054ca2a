"""The podman tier: left out where it cannot run, but never unnoticed; engines are apart."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import podman
import pytest
from machine import eventually
from podman import Podman


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


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_engines_that_run_at_once_keep_apart(
    podman: Podman, elsewhere: Podman, base_image: str
) -> None:
    """Pods too: `podman kube play` has a network of its own."""
    serve = ("python3", "-m", "http.server", "3000")
    addresses = []
    for engine in (podman, elsewhere):
        for where in ([], ["--network=podman-default-kube-network"]):
            container = engine(
                "run", "--detach", "--publish=127.0.0.1::3000", *where, base_image, *serve
            ).stdout.strip()
            addresses.append(engine("port", container, "3000/tcp").stdout.strip())
    try:
        for address in addresses:
            eventually(lambda address=address: _answers(address), f"{address} does not answer")
    finally:
        podman("rm", "--all", "--force", "--time", "0")
