"""A container registry, asked over HTTP which manifest it holds.

The engines push and pull; what a registry really holds it says itself: a manifest is named by the
hash of its bytes, which is computed here and not taken on trust. So is an image's configuration.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
https://github.com/opencontainers/image-spec/blob/main/config.md
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from gitops_ml.core.json_text import load_json
from gitops_ml.core.retry import patiently
from gitops_ml.ship.image.settings import Login
from gitops_ml.ship.settings import DeploymentError

TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
DETAIL_LENGTH = 500

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
ANYTHING = "*/*"

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Docker Hub's images carry another name than its registry.
_HOSTS = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True)
class Manifest:
    """What a registry holds under a tag or a digest.

    Attributes:
        digest: The hash of the manifest's bytes, e.g. sha256:...
        content: The manifest.
    """

    digest: str
    content: Mapping[str, Any]

    @property
    def config(self) -> str | None:
        """The digest of the image's configuration; None for a list of images."""
        config = self.content.get("config")
        return config.get("digest") if isinstance(config, dict) else None


class NoAnswerError(DeploymentError):
    """A registry gives no answer, for reasons that may be gone the next time."""


class Registry:
    """The registry of one image.

    Args:
        image: The image's name, e.g. ghcr.io/acme/flight-delays.
        login: Who asks; None to ask as nobody.
        attempts: How often a request is sent at most.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        image: str,
        login: Login | None = None,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host, _, self.name = image.partition("/")
        self._login = login
        self._attempts = attempts
        self._sleep = sleep
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS)
        self._authorization: str | None = None

    def manifest(self, reference: str) -> Manifest | None:
        """The manifest that a tag or a digest names; None if the registry holds none.

        Raises:
            DeploymentError: If the registry cannot be reached or refuses, or gives other bytes than
                the digest stands for.
        """
        response = self._get(f"/v2/{self.name}/manifests/{reference}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        what = f"{self.host}/{self.name}:{reference}"
        if not response.is_success:
            raise DeploymentError(f"{what}: {self._explain(response)}")
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        claimed = response.headers.get("docker-content-digest", digest)
        for said in (claimed, reference if DIGEST.fullmatch(reference) else digest):
            if said != digest:
                raise DeploymentError(
                    f"{what}: the registry gives a manifest with the digest {digest}, not {said}"
                )
        return Manifest(digest, _object(response.content, f"{what}: the manifest"))

    def labels(self, reference: str) -> list[dict[str, Any]] | None:
        """The labels of the image that a tag or a digest names; of each image in a list of images.

        Returns:
            None if the registry holds no image under it.

        Raises:
            DeploymentError: If the registry cannot be reached or refuses, lacks a part, or gives
                other bytes than a digest stands for.
        """
        held = self.manifest(reference)
        if held is None:
            return None
        what = f"{self.host}/{self.name}:{reference}"
        found = []
        for one in self._images(held, what):
            config = self._config(str(one.config), what)
            # https://github.com/opencontainers/image-spec/blob/main/config.md#properties
            settings = config.get("config")
            labels = settings.get("Labels") if isinstance(settings, dict) else None
            found.append(labels if isinstance(labels, dict) else {})
        return found or None

    def _images(self, held: Manifest, what: str) -> list[Manifest]:
        """The images of a manifest: itself, or those that it lists."""
        if held.config is not None:
            return [held]
        listed = held.content.get("manifests")
        images = []
        for entry in listed if isinstance(listed, list) else ():
            # An attestation stands in the list of images, too, for a platform that nobody has.
            # https://docs.docker.com/build/metadata/attestations/attestation-storage/
            platform = entry.get("platform") or {}
            if platform.get("os") == platform.get("architecture") == "unknown":
                continue
            image = self.manifest(str(entry.get("digest")))
            if image is None or image.config is None:
                raise DeploymentError(f"{what}: the registry lacks an image of the list")
            images.append(image)
        return images

    def _config(self, digest: str, what: str) -> dict[str, Any]:
        """The configuration of an image."""
        if not DIGEST.fullmatch(digest):
            raise DeploymentError(f"{what}: the configuration has no digest, but {digest!r}")
        response = self._get(f"/v2/{self.name}/blobs/{digest}", accept=ANYTHING)
        if not response.is_success:
            raise DeploymentError(f"{what}: the configuration: {self._explain(response)}")
        found = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        if found != digest:
            raise DeploymentError(
                f"{what}: the registry gives a configuration with the digest {found}, not {digest}"
            )
        return _object(response.content, f"{what}: the configuration")

    def _get(self, path: str, accept: str = ", ".join(MANIFEST_TYPES)) -> httpx.Response:
        """Ask, again where that may help, and with a token where the registry wants one."""
        host = _HOSTS.get(self.host, self.host)
        address = f"{_scheme(host)}://{host}{path}"

        def once() -> httpx.Response:
            try:
                response = self._send(address, accept)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise NoAnswerError(
                    f"the registry {self.host} cannot be reached: {error}; is it up, and is IMAGE "
                    "right?"
                ) from error
            if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise NoAnswerError(f"the registry {self.host}: {self._explain(response)}")
            return response

        return patiently(
            once,
            lambda error: isinstance(error, NoAnswerError),
            self._attempts,
            sleep=self._sleep,
        )

    def _send(self, url: str, accept: str) -> httpx.Response:
        response = self._request(url, accept)
        if response.status_code != httpx.codes.UNAUTHORIZED or self._authorization:
            return response
        self._authorization = self._authorize(response.headers.get("www-authenticate", ""))
        return response if self._authorization is None else self._request(url, accept)

    def _request(self, url: str, accept: str) -> httpx.Response:
        headers = {"Accept": accept}
        if self._authorization:
            headers["Authorization"] = self._authorization
        # Many registries keep what they hold on another server; the client sends no login there.
        return self._client.get(url, headers=headers, follow_redirects=True)

    def _authorize(self, challenge: str) -> str | None:
        """The header that answers a challenge; None if there is no answer to it."""
        auth = None
        if self._login is not None:
            auth = httpx.BasicAuth(self._login.user, self._login.token)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and auth is not None:
            return str(next(auth.auth_flow(httpx.Request("GET", "/"))).headers["Authorization"])
        terms = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = urlsplit(terms.pop("realm", ""))
        if scheme.lower() != "bearer" or realm.scheme != _scheme(realm.netloc):
            return None
        response = self._client.get(realm.geturl(), params=terms, auth=auth)
        try:
            answer = response.json()
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            return None
        return f"Bearer {token}" if response.is_success and token else None

    def _explain(self, response: httpx.Response) -> str:
        said = f"HTTP {response.status_code}: {response.text[:DETAIL_LENGTH]}"
        if self._login is not None:
            said = said.replace(self._login.token, "***")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return f"access is denied; set REGISTRY_USER and REGISTRY_TOKEN ({said})"
        return f"it fails ({said})"


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = load_json(content)
    except ValueError as error:
        raise DeploymentError(f"{what} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise DeploymentError(f"{what} is no JSON object")
    return parsed


def _scheme(host: str) -> str:
    """Encrypted, except on this machine."""
    return "http" if urlsplit(f"//{host}").hostname in _LOOPBACK else "https"
