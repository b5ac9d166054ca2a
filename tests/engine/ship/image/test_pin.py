"""Pinning the base image, against a registry that answers over HTTP."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from commands import subcommand
from projects import make_project
from pytest_httpserver import HTTPServer

from gitops_ml.core.base_image import DOCKERFILE, read_base

main = subcommand("image")
pytestmark = pytest.mark.usefixtures("clean_settings")


@pytest.fixture
def mirror(httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project whose base image is in the registry; its name there."""
    monkeypatch.chdir(make_project(tmp_path))
    name = f"127.0.0.1:{httpserver.port}/library/python"
    DOCKERFILE.parent.mkdir(parents=True)
    DOCKERFILE.write_text(f"FROM ${{BUILT}} AS built\n\n# Ours.\nFROM {name}:3.11-slim\nRUN x\n")
    return name


def hold(server: HTTPServer, content: str) -> str:
    """Let the registry hold a manifest under the tag; its digest."""
    manifest = json.dumps({"manifests": [], "x": content}).encode()
    path = "/v2/library/python/manifests/3.11-slim"
    server.clear()
    server.expect_request(path).respond_with_data(manifest)
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_writes_the_digest_and_nothing_else(
    mirror: str, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("one", "two"):
        digest = hold(httpserver, content)
        assert main(["pin"]) == 0
        assert f"{mirror}:3.11-slim@{digest}; commit it" in capsys.readouterr().out
        assert DOCKERFILE.read_text() == (
            f"FROM ${{BUILT}} AS built\n\n# Ours.\nFROM {mirror}:3.11-slim@{digest}\nRUN x\n"
        )
        assert read_base(Path()).digest == digest
    assert main(["pin"]) == 0
    assert "by the digest that it has today" in capsys.readouterr().out


def test_a_tag_that_is_not_there_changes_nothing(
    mirror: str, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    httpserver.expect_request("/v2/library/python/manifests/3.11-slim").respond_with_data(
        "", status=404
    )
    before = DOCKERFILE.read_text()
    assert main(["pin"]) == 1
    assert f"its registry holds no {mirror}:3.11-slim" in capsys.readouterr().err
    assert DOCKERFILE.read_text() == before
