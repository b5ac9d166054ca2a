"""What a deployment is told by the environment: GitHub's variables in a workflow, else the shell's.

    STAGING_URL     } where the live service answers
    PRODUCTION_URL  }

Results for later steps go to the file GITHUB_OUTPUT, what was skipped to GITHUB_STEP_SUMMARY:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project
from gitops_ml.github.workflow_run import variable

Environment = Literal["staging", "production"]
ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)

EVIDENCE = Path("build/probe.json")  # what a probe saw


class DeploymentError(GitopsError):
    """A deployment step cannot be done; the message says why and what to do."""


def artifact_kind() -> str:
    """What is deployed, the key of `release.json` that names it: `image` or `bento`."""
    return "bento" if load_project().deploy_target == "bentocloud" else "image"


def parse_environment(text: str) -> Environment:
    """Read the name of an environment.

    Raises:
        DeploymentError: If there is none of that name.
    """
    if text not in ENVIRONMENTS:
        raise DeploymentError(f"ENVIRONMENT is {text!r}; choose {' or '.join(ENVIRONMENTS)}")
    return text


def url_variable(environment: Environment) -> str:
    """The variable that says where an environment's service answers."""
    return f"{environment.upper()}_URL"


def service_url(environment: Environment) -> str | None:
    """Where an environment's service answers, without a slash at the end; None if nobody said.

    Raises:
        DeploymentError: If the variable holds no address.
    """
    name = url_variable(environment)
    url = variable(name)
    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username or re.search(r"\s", url):
        # The address may hold a password, so it is not repeated.
        raise DeploymentError(
            f"{name}: must be the address of the live service, e.g. https://late.example.com, "
            "without a user, `?` or `#`"
        )
    return url.rstrip("/")


def chosen_by_hand() -> bool:
    """Whether a person just started this workflow run; one that is run again was meant earlier."""
    again = variable("GITHUB_RUN_ATTEMPT") not in ("", "1")
    return variable("GITHUB_EVENT_NAME") == "workflow_dispatch" and not again


def write_outputs(**values: str | bool) -> None:
    """Give values to later steps of the workflow, as strings; nothing outside a workflow.

    Raises:
        DeploymentError: If the file GITHUB_OUTPUT cannot be written.
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
        DeploymentError: If the file GITHUB_STEP_SUMMARY cannot be written.
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
        raise DeploymentError(f"{variable} is {path}: {error}") from error
