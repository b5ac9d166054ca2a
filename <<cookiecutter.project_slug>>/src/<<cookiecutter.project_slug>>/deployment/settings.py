"""What a deployment is told by the environment: GitHub's variables in a workflow, else the shell's.

    IMAGE               where the image is kept; default ghcr.io/<owner>/<repository>
    REGISTRY_USER       } who pushes it; default for GitHub's own registry: the workflow's token
    REGISTRY_TOKEN      }
    CONTAINER_ENGINE    docker (default) or podman
    STAGING_URL         } where the live service answers
    PRODUCTION_URL      }

Results for later steps go to the file GITHUB_OUTPUT, what was skipped to GITHUB_STEP_SUMMARY:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from ..delivery.github import NotSetUpError, find_remote

Environment = Literal["staging", "production"]
ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)
Engine = Literal["docker", "podman"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

EVIDENCE = Path("build/probe.json")  # what a probe saw

GITHUB = "github.com"
GITHUB_REGISTRY = "ghcr.io"
# The registry's host, which must be told from a first part of the path, and lower-case parts:
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:))(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"{_HOST}(?:/{_PART})+")


class DeploymentError(Exception):
    """A deployment step cannot be done; the message says why and what to do."""


class SettingError(DeploymentError):
    """A variable of the environment is missing or cannot be used."""


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


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def parse_environment(text: str) -> Environment:
    """Read the name of an environment.

    Raises:
        SettingError: If there is none of that name.
    """
    if text not in ENVIRONMENTS:
        raise SettingError(f"ENVIRONMENT is {text!r}; choose {' or '.join(ENVIRONMENTS)}")
    return text


def image_name(root: Path = Path()) -> str:
    """Where the image is kept, without tag and digest, e.g. ghcr.io/acme/flight-delays.

    Raises:
        SettingError: If IMAGE is none, or is not set and the repository is not on GitHub.
    """
    example = "registry/name in lower case without a tag, e.g. ghcr.io/acme/flight-delays"
    image = _variable("IMAGE")
    if image:
        if not _IMAGE.fullmatch(image):
            raise SettingError(f"IMAGE is {image!r}; it must be {example}")
        return image
    try:
        remote = find_remote(root)
    except NotSetUpError as error:
        raise SettingError(f"IMAGE is not set, and {error}; set IMAGE to {example}") from error
    image = f"{_registry_of(remote.host)}/{remote.repository.lower()}"
    if not _IMAGE.fullmatch(image):
        raise SettingError(
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
        SettingError: If only one of REGISTRY_USER and REGISTRY_TOKEN is set.
    """
    registry = image.partition("/")[0]
    user, token = _variable("REGISTRY_USER"), _variable("REGISTRY_TOKEN")
    if bool(user) != bool(token):
        there, missing = ("USER", "TOKEN") if user else ("TOKEN", "USER")
        raise SettingError(
            f"REGISTRY_{there} is set but REGISTRY_{missing} is not; set both to push to "
            f"{registry}, on GitHub the user as a variable and the token as a secret"
        )
    if not user and registry == _registry_of(urlsplit(github_server()).hostname or GITHUB):
        user, token = _variable("GITHUB_ACTOR"), _variable("GITHUB_TOKEN")
    return Login(registry, user, token) if user and token else None


def container_engine() -> Engine:
    """The command that builds, runs and pushes images.

    Raises:
        SettingError: If CONTAINER_ENGINE names another one.
    """
    engine = _variable("CONTAINER_ENGINE") or ENGINES[0]
    if engine not in ENGINES:
        raise SettingError(f"CONTAINER_ENGINE is {engine!r}; choose {' or '.join(ENGINES)}")
    return engine


def url_variable(environment: Environment) -> str:
    """The variable that says where an environment's service answers."""
    return f"{environment.upper()}_URL"


def service_url(environment: Environment) -> str | None:
    """Where an environment's service answers, without a slash at the end; None if nobody said.

    Raises:
        SettingError: If the variable holds no address.
    """
    name = url_variable(environment)
    url = _variable(name)
    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username or re.search(r"\s", url):
        # The address may hold a password, so it is not repeated.
        raise SettingError(
            f"{name}: must be the address of the live service, e.g. https://late.example.com, "
            "without a user, `?` or `#`"
        )
    return url.rstrip("/")


def github_server() -> str:
    """The address of the GitHub server."""
    return (_variable("GITHUB_SERVER_URL") or f"https://{GITHUB}").rstrip("/")


def run_url() -> str | None:
    """The page of this workflow run; None outside a workflow."""
    repository, run = _variable("GITHUB_REPOSITORY"), _variable("GITHUB_RUN_ID")
    return f"{github_server()}/{repository}/actions/runs/{run}" if repository and run else None


def chosen_by_hand() -> bool:
    """Whether a person started this workflow run and chose what it works on."""
    return _variable("GITHUB_EVENT_NAME") == "workflow_dispatch"


def write_outputs(**values: str | bool) -> None:
    """Give values to later steps of the workflow, as strings; nothing outside a workflow.

    Raises:
        SettingError: If the file GITHUB_OUTPUT cannot be written.
    """
    lines = []
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else value
        if "\n" in text or "\r" in text:
            raise ValueError(f"{name}: {text!r} is not one line")
        lines.append(f"{name}={text}\n")
    _append("GITHUB_OUTPUT", "".join(lines))


def tell_skipped(what: str, remedy: str) -> None:
    """Say what was left out and what enables it, on the run's page too.

    Raises:
        SettingError: If the file GITHUB_STEP_SUMMARY cannot be written.
    """
    print(f"Skipped: {what}. To enable it: {remedy}.")
    _append("GITHUB_STEP_SUMMARY", f"⏭️ **Skipped:** {what}. To enable it: {remedy}.\n\n")


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"{variable} is {path}: {error}") from error
