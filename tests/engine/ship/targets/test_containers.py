"""What is known of the image, and what the registry holds: played by a real HTTP server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_artifact import RECORD, put_artifact
from fake_bento import (
    COMMIT,
    PACKAGE,
    TAG,
    VERSION,
    make_files,
    make_release,
    put_into_store,
    store_in,
)
from pytest_httpserver import HTTPServer
from werkzeug import Response

from gitops_ml.bento.store import BentoError
from gitops_ml.ship.settings import DeploymentError
from gitops_ml.ship.targets.containers import (
    details,
    how_to_verify,
    look_up,
    recorded,
)

pytestmark = pytest.mark.usefixtures("clean_settings")

LABELS = {
    f"org.opencontainers.image.{key}": value
    for key, value in {
        "title": PACKAGE,
        "version": VERSION,
        "revision": COMMIT,
        "base.name": "docker.io/library/python",
        "base.digest": f"sha256:{'b' * 64}",
    }.items()
}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Shop:
    """A registry that holds one image.

    Attributes:
        server: Answers as the registry.
        release: The release whose image it is.
    """

    def __init__(self, server: HTTPServer, labels: Any = LABELS) -> None:
        self.server = server
        config = json.dumps({"config": {"Labels": labels}}).encode()
        self.put("blobs", config)
        manifest = json.dumps({"config": {"digest": digest(config)}}).encode()
        reference = self.put("manifests", manifest)
        image = {
            "name": f"{server.host}:{server.port}/acme/shop",
            "digest": reference,
            "base": RECORD["base"],
        }
        self.release = make_release(image=image)

    def put(self, kind: str, content: bytes) -> str:
        path = f"/v2/acme/shop/{kind}/{digest(content)}"
        self.server.expect_request(path).respond_with_response(Response(content))
        return digest(content)


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
    with pytest.raises(DeploymentError, match="not pushed; run `make push-image`"):
        recorded(tmp_path)


def test_the_registry_is_asked_for_the_image_and_its_labels(httpserver: HTTPServer) -> None:
    verdict, note = look_up(Shop(httpserver).release)
    assert verdict == "ok"
    assert "is in the registry, and its labels name this version, commit" in note


@pytest.mark.parametrize(
    ("answer", "verdict", "note"),
    [
        (Response(status=404), "differs", "holds no such image"),
        (Response(b"another image"), "unknown", "gives a manifest with the digest"),
        (Response(status=403), "unknown", "access is denied"),
    ],
)
def test_an_image_that_is_gone_or_cannot_be_seen_is_told(
    httpserver: HTTPServer, answer: Response, verdict: str, note: str
) -> None:
    release = Shop(httpserver).release
    release["image"]["digest"] = wanted = f"sha256:{'0' * 64}"
    httpserver.expect_request(f"/v2/acme/shop/manifests/{wanted}").respond_with_response(answer)
    found = look_up(release)
    assert found[0] == verdict
    assert note in found[1]


@pytest.mark.parametrize(
    ("image", "verdict", "note"),
    [
        ("{host}/acme/shop", "ok", "is in the registry"),
        ("{host}/acme/other", "ok", "is in the registry"),
        ("registry.example.com/acme/shop", "unknown", "is for registry.example.com, where IMAGE"),
        ("Not a name", "unknown", "IMAGE is 'Not a name'"),
    ],
)
def test_a_login_goes_to_the_registry_of_image_only(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, image: str, verdict: str, note: str
) -> None:
    host = f"{httpserver.host}:{httpserver.port}"
    monkeypatch.setenv("IMAGE", image.format(host=host))
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_TOKEN", "s3cret")
    shop = Shop(httpserver)
    refusal = Response(status=401, headers={"WWW-Authenticate": "Basic realm=shop"})
    httpserver.expect_oneshot_request(
        f"/v2/acme/shop/manifests/{shop.release['image']['digest']}"
    ).respond_with_response(refusal)
    found = look_up(shop.release)
    assert found[0] == verdict
    assert note in found[1]
    sent = [request.headers.get("Authorization") for request, _ in httpserver.log]
    assert any(sent) == (verdict == "ok")


@pytest.mark.parametrize("key", ["version", "revision", "base.name", "base.digest"])
def test_another_image_is_told_by_its_labels(httpserver: HTTPServer, key: str) -> None:
    labels = {**LABELS, f"org.opencontainers.image.{key}": "other"}
    verdict, note = look_up(Shop(httpserver, labels).release)
    assert verdict == "differs"
    assert f"another image: its {key} is other, not " in note
    assert "; " not in note


@pytest.mark.parametrize("labels", [None, {}, {"org.opencontainers.image.title": "shop"}])
def test_an_image_of_somebody_else_has_no_such_labels(httpserver: HTTPServer, labels: Any) -> None:
    verdict, note = look_up(Shop(httpserver, labels).release)
    assert verdict == "differs"
    assert f"its version is None, not {VERSION}; its revision is None, not {COMMIT}" in note


def test_the_base_image_is_told_and_how_to_verify_the_build() -> None:
    assert details({"image": RECORD}) == [("base image", RECORD["base"])]
    told = how_to_verify("ghcr.io/acme/shop@sha256:1")
    assert "oci://ghcr.io/acme/shop@sha256:1 --repo" in told
    assert "in a public repository, or with the variable `ATTEST`" in told
