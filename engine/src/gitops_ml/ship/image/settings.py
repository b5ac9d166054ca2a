"""What is said of the image by the environment: GitHub's variables in a workflow, else the shell's.

IMAGE               where the image is kept; default ghcr.io/<owner>/<repository>
REGISTRY_USER       } who pushes it; default for GitHub's own registry: the workflow's token
REGISTRY_TOKEN      }
CONTAINER_ENGINE    docker (default) or podman
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from gitops_ml.github.client import NotSetUpError, find_remote
from gitops_ml.github.workflow_run import GITHUB, github_server, variable
from gitops_ml.ship.settings import DeploymentError

Engine = Literal["docker", "podman"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

GITHUB_REGISTRY = "ghcr.io"
# The registry's host, which must be told from a first part of the path, and lower-case parts:
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:))(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"{_HOST}(?:/{_PART})+")


@dataclass(frozen=True)
class Login:
    """Who pushes to a registry.

    Attributes:
        registry: Its host, with the port if there is one.
        user: The account.
        token: The password, never shown.
    """

    registry: str
    user: str
    token: str = field(repr=False)


def image_name(root: Path = Path()) -> str:
    """Where the image is kept, without tag and digest, e.g. ghcr.io/acme/flight-delays.

    Raises:
        DeploymentError: If IMAGE is none, or is not set and the repository is not on GitHub.
    """
    example = "registry/name in lower case without a tag, e.g. ghcr.io/acme/flight-delays"
    image = variable("IMAGE")
    if image:
        if not _IMAGE.fullmatch(image):
            raise DeploymentError(f"IMAGE is {image!r}; it must be {example}")
        return image
    try:
        remote = find_remote(root)
    except NotSetUpError as error:
        raise DeploymentError(f"IMAGE is not set, and {error}; set IMAGE to {example}") from error
    image = f"{_registry_of(remote.host)}/{remote.repository.lower()}"
    if not _IMAGE.fullmatch(image):
        raise DeploymentError(
            f"IMAGE is not set, and no image can be called {image!r} after the repository; "
            f"set IMAGE to {example}"
        )
    return image


def _registry_of(host: str) -> str:
    """The registry of a GitHub server."""
    return GITHUB_REGISTRY if host == GITHUB else f"containers.{host}"


def registry_login(image: str) -> Login | None:
    """Who pushes an image; None to push without logging in, as a registry on this machine allows.

    The workflow's own token goes to GitHub's registry and to no other.

    Args:
        image: As `image_name` gives it.

    Raises:
        DeploymentError: If only one of REGISTRY_USER and REGISTRY_TOKEN is set.
    """
    registry = image.partition("/")[0]
    user, token = variable("REGISTRY_USER"), variable("REGISTRY_TOKEN")
    if bool(user) != bool(token):
        there, missing = ("USER", "TOKEN") if user else ("TOKEN", "USER")
        raise DeploymentError(
            f"REGISTRY_{there} is set but REGISTRY_{missing} is not; set both to push to "
            f"{registry}, on GitHub the user as a variable and the token as a secret"
        )
    if not user and registry == _registry_of(urlsplit(github_server()).hostname or GITHUB):
        user, token = variable("GITHUB_ACTOR"), variable("GITHUB_TOKEN")
    return Login(registry, user, token) if user and token else None


def container_engine() -> Engine:
    """The command that builds, runs and pushes images.

    Raises:
        DeploymentError: If CONTAINER_ENGINE names another one.
    """
    engine = variable("CONTAINER_ENGINE") or ENGINES[0]
    if engine not in ENGINES:
        raise DeploymentError(f"CONTAINER_ENGINE is {engine!r}; choose {' or '.join(ENGINES)}")
    return engine
