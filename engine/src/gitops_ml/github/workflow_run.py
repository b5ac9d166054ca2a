"""What GitHub tells a workflow run of itself, in variables.

https://docs.github.com/en/actions/reference/workflows-and-actions/variables
"""

from __future__ import annotations

import os

GITHUB = "github.com"


def variable(name: str) -> str:
    """A variable of the environment, without spaces around it; empty if it is not set."""
    return os.environ.get(name, "").strip()


def github_server() -> str:
    """The address of the GitHub server."""
    return (variable("GITHUB_SERVER_URL") or f"https://{GITHUB}").rstrip("/")


def run_url() -> str | None:
    """The page of this workflow run; None outside a workflow."""
    repository, run = variable("GITHUB_REPOSITORY"), variable("GITHUB_RUN_ID")
    return f"{github_server()}/{repository}/actions/runs/{run}" if repository and run else None
