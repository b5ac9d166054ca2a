"""BentoCloud, by BentoML's own client: push and pull bentos, deploy them and wait until they run.

    BENTO_CLOUD_API_KEY       the token, a secret
    BENTO_CLOUD_API_ENDPOINT  its address; default https://cloud.bentoml.com

https://docs.bentoml.com/en/latest/scale-with-bentocloud/manage-api-tokens.html
https://docs.bentoml.com/en/latest/reference/bentocloud/bentocloud-api.html
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bentoml
import httpx
from bentoml._internal.bento import BentoStore
from bentoml._internal.cloud.deployment import Deployment
from bentoml.exceptions import BentoMLException, NotFound

from gitops_ml.github.workflow_run import variable
from gitops_ml.ship.settings import DeploymentError

KEY = "BENTO_CLOUD_API_KEY"
ENDPOINT = "BENTO_CLOUD_API_ENDPOINT"
DEFAULT_ENDPOINT = "https://cloud.bentoml.com"
HERE = {"localhost", "127.0.0.1"}

# The line of bento.yaml that says when it was built.
BUILT_AT = re.compile(rb"^creation_time: *['\"]?[0-9T:.+Z -]+['\"]?\r?\n", re.MULTILINE)

RUNNING = {"running", "scaled-to-zero"}
FAILED = {"failed", "image-build-failed", "terminated", "terminating", "unhealthy"}
POLL_SECONDS = 10.0
# So many answers in a row may fail while a deployment is watched.
TRIES = 3


class CloudError(DeploymentError):
    """BentoCloud does not do what it was asked for; the message says why and what to do."""


class MissingError(CloudError):
    """BentoCloud does not hold a bento or a deployment."""


def log_in() -> bool:
    """Make sure that BentoML's client finds the token and the address; False without a token.

    Raises:
        CloudError: If the address is none.
    """
    if not variable(KEY):
        return False
    endpoint = variable(ENDPOINT).rstrip("/") or DEFAULT_ENDPOINT
    parts = urlsplit(endpoint)
    # The token goes there: in the clear only to this machine.
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in HERE):
        raise CloudError(f"{ENDPOINT}: must be an address like {DEFAULT_ENDPOINT}")
    # BentoML would take a variable that is set to nothing for an address.
    os.environ.update({KEY: variable(KEY), ENDPOINT: endpoint})
    return True


@contextmanager
def named(what: str) -> Iterator[None]:
    """Say what failed while the block runs, and what to do about it.

    Raises:
        MissingError: If BentoCloud says that there is no such thing.
        CloudError: If it refuses otherwise, cannot be reached or gives a strange answer.
    """
    try:
        yield
    except NotFound as error:
        raise MissingError(f"{what}: BentoCloud has none: {error}") from error
    except BentoMLException as error:
        raise CloudError(f"{what}: {error}{_advice(error)}") from error
    except httpx.HTTPError as error:
        raise CloudError(
            f"{what}: BentoCloud cannot be reached: {error!r}; is {ENDPOINT} right? Then try again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, ExceptionGroup) as error:
        raise CloudError(
            f"{what}: BentoCloud gives a strange answer: {error!r}; is {ENDPOINT} right?"
        ) from error


def _advice(error: BentoMLException) -> str:
    """What to do about a refusal, by its status."""
    if error.error_code == HTTPStatus.UNAUTHORIZED:
        return f"\n{KEY} is wrong or has expired: create a token with Developer Operations Access"
    if error.error_code in (HTTPStatus.FORBIDDEN, HTTPStatus.PAYMENT_REQUIRED):
        return f"\nthe token in {KEY} may not do this, or the organization's quota is used up"
    if error.error_code == HTTPStatus.TOO_MANY_REQUESTS:
        return "\nthe organization's quota is used up, or it was asked too often; try again later"
    return ""


def digest_of(folder: Path) -> str:
    """A hash of all that a bento holds: of the names and the hashes of its files, in order.

    Two builds of one commit differ in the time that BentoML writes down, and have one hash.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path == folder / "bento.yaml":
                data = BUILT_AT.sub(b"", data, count=1)
            content = hashlib.sha256(data).hexdigest()
            total.update(f"{content}  {path.relative_to(folder).as_posix()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def push(tag: str) -> None:
    """Push a bento of the store; one that BentoCloud holds already is left as it is.

    Raises:
        CloudError: If BentoCloud does not take it.
    """
    with named(f"push of {tag}"):
        bentoml.bentos.push(tag)


@contextmanager
def pulled(tag: str) -> Iterator[Path]:
    """Pull a bento while the block runs, past the store of this machine.

    Yields:
        The folder that holds it.

    Raises:
        MissingError: If BentoCloud does not hold it.
        CloudError: If it cannot be pulled.
    """
    name, _, version = tag.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        store = BentoStore(folder)
        try:
            with named(f"pull of {tag}"):
                bentoml.bentos.pull(tag, _bento_store=store)
        except CloudError as error:
            if "not found on remote" in str(error):
                raise MissingError(
                    f"{tag}: BentoCloud does not hold this bento; if it was deleted there, deliver "
                    "its commit again (workflow Deliver)"
                ) from error
            raise
        except (tarfile.TarError, EOFError) as error:
            raise CloudError(f"{tag}: what BentoCloud holds is damaged: {error}") from error
        yield Path(folder, name, version)


def deploy(config: Mapping[str, Any], timeout: float) -> str:
    """Create a deployment, or make the one of this name exactly as it is described.

    Args:
        config: Its `name`, its `bento`, and what BentoCloud is told besides.
        timeout: Seconds until it must run.

    Returns:
        Where its service answers.

    Raises:
        CloudError: If BentoCloud refuses, or the deployment fails or does not run in time.
    """
    what = f"deployment {config['name']}"
    with named(what):
        try:
            found = bentoml.deployment.get(config["name"], cluster=config.get("cluster"))
        except NotFound:
            deployment = bentoml.deployment.create(config_dict=dict(config))
        else:
            # Without its cluster BentoML would take this for a move to another one.
            described = {**config, "cluster": found.cluster}
            deployment = bentoml.deployment.apply(config_dict=described)
    return wait_for(deployment, config["bento"], timeout)


def wait_for(deployment: Deployment, tag: str, timeout: float) -> str:
    """Wait until a deployment runs a bento.

    Returns:
        Where its service answers.

    Raises:
        CloudError: If it fails, or does not run in time.
    """
    what = f"deployment {deployment.name}"
    deadline = time.monotonic() + timeout
    said, failures, failing = "", 0, 0
    while True:
        try:
            with named(what):
                status = deployment.get_status().status
                runs = deployment.get_bento(refetch=False)
            failures = 0
        except CloudError:
            failures += 1
            if failures == TRIES:
                raise
        else:
            state = f"{status} with {runs or 'no bento'}"
            if state != said:
                print(f"{what}: {state}", flush=True)
            said = state
            # The first answers may still be about what ran before.
            failing = failing + 1 if runs == tag and status in FAILED else 0
            if failing == TRIES:
                raise CloudError(
                    f"{what}: {status} with {tag}; its log says why: {deployment.admin_console}"
                )
            if runs == tag and status in RUNNING and (url := _url(deployment)):
                return url
        if time.monotonic() >= deadline:
            raise CloudError(
                f"{what}: does not run {tag} after {timeout:g} s, it is {said or 'unknown'}; its "
                f"log says why: {deployment.admin_console}"
            )
        time.sleep(POLL_SECONDS)


def _url(deployment: Deployment) -> str | None:
    """Where a deployment answers; None while it has no address."""
    try:
        (url,) = deployment.get_endpoint_urls(refetch=False)
    except BentoMLException:
        return None
    return str(url).rstrip("/")
