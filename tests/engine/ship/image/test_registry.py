"""A registry that is played by a real HTTP server."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.ship.image import registry
from gitops_ml.ship.image.registry import ATTEMPTS, Registry
from gitops_ml.ship.image.settings import Login
from gitops_ml.ship.settings import DeploymentError

MANIFEST = json.dumps({"schemaVersion": 2, "config": {"digest": f"sha256:{'5' * 64}"}}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
PATH = "/v2/acme/shop/manifests/1.0"
TOKEN = "token-for-tests"


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


@pytest.fixture
def host(server: HTTPServer) -> Iterator[str]:
    server.clear()
    yield f"{server.host}:{server.port}"
    server.check_assertions()


def ask(host: str, reference: str = "1.0", user: str | None = None) -> Any:
    login = Login(host, user, TOKEN) if user else None
    waits: list[float] = []
    return Registry(f"{host}/acme/shop", login, sleep=waits.append).manifest(reference)


def test_a_manifest_is_known_by_the_hash_of_its_bytes(server: HTTPServer, host: str) -> None:
    server.expect_request(PATH).respond_with_data(MANIFEST)
    held = ask(host)
    assert (held.digest, held.config) == (DIGEST, f"sha256:{'5' * 64}")
    accepted = server.log[0][0].headers["Accept"]
    assert "oci.image.index" in accepted
    assert "docker.distribution.manifest.v2" in accepted


def test_a_list_of_images_has_no_configuration(server: HTTPServer, host: str) -> None:
    server.expect_request(PATH).respond_with_json({"manifests": []})
    assert ask(host).config is None


def test_what_is_not_there_is_none(server: HTTPServer, host: str) -> None:
    server.expect_request(PATH).respond_with_json({"errors": []}, 404)
    assert ask(host) is None


def test_a_registry_that_claims_another_digest_is_not_believed(
    server: HTTPServer, host: str
) -> None:
    lie = f"sha256:{'0' * 64}"
    server.expect_request(PATH).respond_with_data(MANIFEST, headers={"Docker-Content-Digest": lie})
    with pytest.raises(DeploymentError, match=f"with the digest {DIGEST}, not {lie}"):
        ask(host)


def test_other_bytes_than_the_digest_stands_for_are_refused(server: HTTPServer, host: str) -> None:
    wanted = f"sha256:{'1' * 64}"
    server.expect_request(PATH.replace("1.0", wanted)).respond_with_data(MANIFEST)
    with pytest.raises(DeploymentError, match=f"with the digest {DIGEST}, not {wanted}"):
        ask(host, wanted)


@pytest.mark.parametrize("content", [b"<html>", b"[]"])
def test_what_is_no_manifest_is_refused(server: HTTPServer, host: str, content: bytes) -> None:
    server.expect_request(PATH).respond_with_data(content)
    with pytest.raises(DeploymentError, match=r"not JSON|no JSON object"):
        ask(host)


class Guarded:
    """A registry that wants a token, which it gives for a password, or to anybody."""

    def __init__(self, server: HTTPServer, host: str, password: str | None) -> None:
        self.given: list[str | None] = []
        self.challenge = (
            f'Bearer realm="http://{host}/token",service="shop.example",'
            'scope="repository:acme/shop:pull"'
        )
        self.password = password
        server.expect_request(PATH).respond_with_handler(self._manifest)
        asked = {"service": "shop.example", "scope": "repository:acme/shop:pull"}
        server.expect_request("/token", query_string=asked).respond_with_handler(self._token)

    def _manifest(self, request: Request) -> Response:
        if request.headers.get("Authorization") == "Bearer short-lived":
            return Response(MANIFEST)
        return Response(f"no {TOKEN}", 401, {"WWW-Authenticate": self.challenge})

    def _token(self, request: Request) -> Response:
        self.given.append(request.headers.get("Authorization"))
        if self.password is not None and self.given[-1] != basic(self.password):
            return Response(status=401)
        return Response(json.dumps({"token": "short-lived"}))


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'ada:{password}'.encode()).decode()}"


def test_a_token_is_asked_for_with_the_password(server: HTTPServer, host: str) -> None:
    guarded = Guarded(server, host, TOKEN)
    assert ask(host, user="ada").digest == DIGEST
    assert guarded.given == [basic(TOKEN)]


def test_a_token_for_anybody_is_asked_for_without_one(server: HTTPServer, host: str) -> None:
    guarded = Guarded(server, host, None)
    assert ask(host).digest == DIGEST
    assert guarded.given == [None]


def test_a_refusal_is_named_and_shows_no_password(server: HTTPServer, host: str) -> None:
    Guarded(server, host, "another")
    with pytest.raises(DeploymentError, match="access is denied; set REGISTRY_USER") as caught:
        ask(host, user="ada")
    assert TOKEN not in str(caught.value)


def test_a_password_is_sent_nowhere_unencrypted(server: HTTPServer, host: str) -> None:
    guarded = Guarded(server, host, TOKEN)
    guarded.challenge = 'Bearer realm="http://tokens.example/token"'
    with pytest.raises(DeploymentError, match="access is denied"):
        ask(host, user="ada")
    assert guarded.given == []


def test_a_registry_with_passwords_only_gets_it(server: HTTPServer, host: str) -> None:
    def answer(request: Request) -> Response:
        if request.headers.get("Authorization") == basic(TOKEN):
            return Response(MANIFEST)
        return Response(status=401, headers={"WWW-Authenticate": 'Basic realm="shop"'})

    server.expect_request(PATH).respond_with_handler(answer)
    assert ask(host, user="ada").digest == DIGEST
    with pytest.raises(DeploymentError, match="access is denied"):
        ask(host)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registry_that_stumbles_is_asked_again(
    server: HTTPServer, host: str, status: int
) -> None:
    for _ in range(ATTEMPTS - 1):
        server.expect_ordered_request(PATH).respond_with_data("", status)
    server.expect_ordered_request(PATH).respond_with_data(MANIFEST)
    assert ask(host).digest == DIGEST


def test_a_registry_that_keeps_failing_is_named(server: HTTPServer, host: str) -> None:
    server.expect_request(PATH).respond_with_data("out of order", 500)
    with pytest.raises(DeploymentError, match=rf"{host}: it fails \(HTTP 500: out of order"):
        ask(host)
    assert len(server.log) == ATTEMPTS


def test_a_registry_that_is_down_is_named() -> None:
    waits: list[float] = []
    with pytest.raises(DeploymentError, match=r"127.0.0.1:9 cannot be reached: .*is IMAGE right"):
        Registry("127.0.0.1:9/acme/shop", sleep=waits.append).manifest("1.0")
    assert waits == [1.0, 2.0]


def test_docker_hub_answers_under_another_name(
    server: HTTPServer, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry._HOSTS == {"docker.io": "registry-1.docker.io"}
    monkeypatch.setitem(registry._HOSTS, "docker.io", host)
    server.expect_request(PATH).respond_with_data(MANIFEST)
    held = Registry("docker.io/acme/shop").manifest("1.0")
    assert held is not None
    assert held.digest == DIGEST


REDIRECT = 307
CONFIG = b'{"config": {"Labels": {"version": "1"}}}'


def put(server: HTTPServer, kind: str, content: Any) -> str:
    """Let the registry hold something; gives its digest."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    server.expect_request(f"/v2/acme/shop/{kind}/{digest}").respond_with_data(text)
    return digest


def put_image(server: HTTPServer, config: bytes = CONFIG) -> str:
    return put(server, "manifests", {"config": {"digest": put(server, "blobs", config)}})


def labels(host: str, reference: str, login: Login | None = None) -> Any:
    return Registry(f"{host}/acme/shop", login, sleep=lambda _: None).labels(reference)


def test_an_image_has_the_labels_of_its_configuration(server: HTTPServer, host: str) -> None:
    assert labels(host, put_image(server)) == [{"version": "1"}]
    assert [request.headers["Accept"][:3] for request, _ in server.log] == ["app", "*/*"]


@pytest.mark.parametrize("config", [b"{}", b'{"config": null}', b'{"config": {"Labels": null}}'])
def test_an_image_need_not_have_labels(server: HTTPServer, host: str, config: bytes) -> None:
    assert labels(host, put_image(server, config)) == [{}]


def test_of_a_list_every_image_counts_and_no_attestation(server: HTTPServer, host: str) -> None:
    other = put_image(server, b'{"config": {"Labels": {"version": "2"}}}')
    nowhere = {"os": "unknown", "architecture": "unknown"}
    listed = [
        {"digest": put_image(server), "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": other},
        {"digest": f"sha256:{'0' * 64}", "platform": nowhere},
    ]
    reference = put(server, "manifests", {"manifests": listed})
    assert labels(host, reference) == [{"version": "1"}, {"version": "2"}]
    assert labels(host, put(server, "manifests", {"manifests": listed[2:]})) is None
    assert labels(host, put(server, "manifests", {"layers": []})) is None


def test_a_list_that_lacks_an_image_is_refused(server: HTTPServer, host: str) -> None:
    gone = f"sha256:{'0' * 64}"
    server.expect_request(f"/v2/acme/shop/manifests/{gone}").respond_with_data("", 404)
    reference = put(server, "manifests", {"manifests": [{"digest": gone}]})
    with pytest.raises(DeploymentError, match="lacks an image of the list"):
        labels(host, reference)


def test_there_are_no_labels_of_what_is_not_there(server: HTTPServer, host: str) -> None:
    server.expect_request(PATH).respond_with_data("", 404)
    assert labels(host, "1.0") is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Response(b"{}"), "gives a configuration with the digest"),
        (Response(status=404), "the configuration: it fails"),
        (Response(status=403), "the configuration: access is denied"),
    ],
)
def test_a_configuration_that_is_another_or_missing_is_refused(
    server: HTTPServer, host: str, answer: Response, words: str
) -> None:
    digest = f"sha256:{'5' * 64}"
    server.expect_request(f"/v2/acme/shop/blobs/{digest}").respond_with_response(answer)
    with pytest.raises(DeploymentError, match=words):
        labels(host, put(server, "manifests", {"config": {"digest": digest}}))


@pytest.mark.parametrize("config", [b"<html>", b"[]"])
def test_what_is_no_configuration_is_refused(server: HTTPServer, host: str, config: bytes) -> None:
    with pytest.raises(DeploymentError, match=r"not JSON|no JSON object"):
        labels(host, put_image(server, config))


def test_a_configuration_is_asked_for_by_its_digest_only(server: HTTPServer, host: str) -> None:
    reference = put(server, "manifests", {"config": {"digest": "../manifests/1.0"}})
    with pytest.raises(DeploymentError, match="has no digest"):
        labels(host, reference)


def test_a_configuration_may_be_kept_elsewhere_where_no_password_is_sent(
    server: HTTPServer, host: str
) -> None:
    digest = f"sha256:{hashlib.sha256(CONFIG).hexdigest()}"
    seen: list[str | None] = []

    def keep(request: Request) -> Response:
        seen.append(request.headers.get("Authorization"))
        return Response(CONFIG)

    def redirect(request: Request) -> Response:
        if request.headers.get("Authorization") != basic(TOKEN):
            return Response(status=401, headers={"WWW-Authenticate": 'Basic realm="shop"'})
        return Response(status=REDIRECT, headers={"Location": storage.url_for("/kept")})

    with HTTPServer() as storage:
        storage.expect_request("/kept").respond_with_handler(keep)
        server.expect_request(f"/v2/acme/shop/blobs/{digest}").respond_with_handler(redirect)
        reference = put(server, "manifests", {"config": {"digest": digest}})
        assert labels(host, reference, Login(host, "ada", TOKEN)) == [{"version": "1"}]
    assert seen == [None]
