"""Where the service runs: one interface; `[tool.gitops-ml] deploy-target` chooses who fills it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from gitops_ml.core.project import load_project
from gitops_ml.ship.settings import DeploymentError

Found = Literal["ok", "differs", "unknown"]

DEPLOY = Path("deploy")
_MODULES = {
    "kubernetes": "gitops_ml.ship.targets.containers",
    "host": "gitops_ml.ship.targets.host",
    "bentocloud": "gitops_ml.ship.targets.bentocloud",
}


class Target(Protocol):
    """What a delivery asks of where the service runs."""

    def recorded(self, root: Path) -> tuple[Any, dict[str, Any]]:
        """The bento that is to be released, and what a release says of its artifact."""

    def look_up(self, release: Mapping[str, Any]) -> tuple[Found, str]:
        """Whether a release's artifact is where it should be, and a note on that."""

    def details(self, release: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What else a release tells of its artifact: names and values."""

    def how_to_verify(self, artifact: str) -> str:
        """What people run to see that this is what runs, in Markdown."""

    def render(self, root: Path, environment: str, release: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of an environment's branch; the same release gives the same bytes."""


def chosen(root: Path = Path()) -> Target:
    """Where this project's service runs.

    Raises:
        SettingsError: If `pyproject.toml` does not say it.
        DeploymentError: If it runs nowhere.
    """
    target = load_project(root).deploy_target
    if target not in _MODULES:
        raise DeploymentError(
            f"pyproject.toml: [tool.gitops-ml] deploy-target is {target!r}, so nothing is "
            f"delivered; choose {', '.join(_MODULES)} and add its files"
        )
    return cast(Target, importlib.import_module(_MODULES[target]))
