"""What is known of the image, and what the registry holds: played by a real HTTP server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_artifact import RECORD, put_artifact
from fake_bento import TAG, make_files, put_into_store, store_in
from pytest_httpserver import HTTPServer
from werkzeug import Response

from << cookiecutter.project_slug >>.deployment.artifact import (
    NotPushedError,
    details,
    how_to_verify,
    look_up,
    recorded,
)
from << cookiecutter.project_slug >>.deployment.bento import BentoError

pytestmark = pytest.mark.usefixtures("clean_settings")

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


@pytest.fixture
def bento(tmp_path: Path) -> Iterator[Path]:
    with store_in(tmp_path / "store") as store:
        yield put_into_store(store, make_files())


def test_an_image_is_recorded_with_its_bento(bento: Path, tmp_path: Path) -> None:
    assert put_artifact(tmp_path, bento) == RECORD
    found, image = recorded(tmp_path)
    assert (found.tag, image) == (TAG, RECORD)
    put_artifact(tmp_path, bento, bento="shop:9")
    with pytest.raises(BentoError, match="shop:9: no such bento"):
        recorded(tmp_path)


def test_an_image_that_was_not_pushed_is_no_artifact(bento: Path, tmp_path: Path) -> None:
    put_artifact(tmp_path, bento, digest=None)
    with pytest.raises(NotPushedError, match="not pushed; run `make push-image`"):
        recorded(tmp_path)


@pytest.mark.parametrize(
    ("answer", "verdict", "note"),
    [
        (Response(MANIFEST), "ok", "is in the registry"),
        (Response(status=404), "differs", "holds no such image"),
        (Response(b"another image"), "unknown", ""),
        (Response(status=403), "unknown", ""),
    ],
)
def test_the_registry_is_asked(
    httpserver: HTTPServer, answer: Response, verdict: str, note: str
) -> None:
    httpserver.expect_request(f"/v2/acme/shop/manifests/{DIGEST}").respond_with_response(answer)
    found = look_up(f"{httpserver.host}:{httpserver.port}/acme/shop@{DIGEST}")
    assert found[0] == verdict
    assert note in found[1]


def test_the_base_image_is_told_and_how_to_verify_the_build() -> None:
    assert details({"image": RECORD}) == [("base image", RECORD["base"])]
    told = how_to_verify("ghcr.io/acme/shop@sha256:1")
    assert "oci://ghcr.io/acme/shop@sha256:1 --repo" in told
    assert "in a public repository, or with the variable `ATTEST`" in told
