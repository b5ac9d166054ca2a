"""What the project says of itself in `pyproject.toml`, in the table `[tool.gitops-ml]`.

[tool.gitops-ml]
package = "flight_delays"       # the folder in src/, the bento and the release are called so
deploy-target = "kubernetes"    # kubernetes, host, bentocloud or none
trained-elsewhere = "gpu-cluster"  # optional: who may train in the place of a workflow's run
package-sources = ["https://..."]  # optional: where else packages may come from (lock_sources.py)

[[tool.gitops-ml.accepted-vulnerabilities]]   # optional: what `make audit` lets pass
id = "CVE-2026-12345"
reason = "The service never parses XML."
until = 2026-12-31
"""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError

TABLE = "tool.gitops-ml"
DeployTarget = Literal["kubernetes", "host", "bentocloud", "none"]


class AcceptedVulnerability(BaseModel):
    """A known vulnerability that is lived with for a while.

    Attributes:
        id: Its name, e.g. CVE-2026-12345.
        reason: Why it does no harm here.
        until: The last day on which it is accepted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    until: date


class Project(BaseModel):
    """The table `[tool.gitops-ml]`.

    Attributes:
        package: The user's Python package; bentos and releases have its name.
        deploy_target: Where the service runs.
        trained_elsewhere: The identity that may train in the place of a workflow's run.
        package_sources: Addresses below which packages may be that are from no index.
        accepted_vulnerabilities: What `make audit` lets pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    deploy_target: Annotated[DeployTarget, Field(alias="deploy-target")] = "none"
    trained_elsewhere: Annotated[
        str | None, Field(alias="trained-elsewhere", min_length=1, max_length=100)
    ] = None
    package_sources: Annotated[tuple[str, ...], Field(alias="package-sources")] = ()
    accepted_vulnerabilities: Annotated[
        tuple[AcceptedVulnerability, ...], Field(alias="accepted-vulnerabilities")
    ] = ()

    @property
    def bento_file(self) -> str:
        """What an exported bento is called, e.g. flight_delays.bento."""
        return f"{self.package}.bento"


def load_project(root: Path = Path()) -> Project:
    """Read what the project says of itself.

    Raises:
        SettingsError: If `pyproject.toml` is missing, is no TOML, or its table is missing or wrong.
    """
    path = root / paths.PYPROJECT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; run from the project's root") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_project(text, str(path))


def parse_project(text: str, path: str) -> Project:
    """Read the table out of the text of a `pyproject.toml`.

    Args:
        text: The content of the file.
        path: What to call it in messages.

    Raises:
        SettingsError: If it is no TOML, or its table is missing or wrong.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    table = document.get("tool", {}).get("gitops-ml")
    if table is None:
        raise SettingsError(
            f"{path}: has no table [{TABLE}]; it must name the package, e.g.\n"
            f'  [{TABLE}]\n  package = "flight_delays"'
        )
    try:
        return Project.model_validate(table)
    except ValidationError as error:
        problems = [
            f"{path}: [{TABLE}] {'.'.join(map(str, one['loc'])) or 'the table'}: {one['msg']}"
            for one in error.errors()
        ]
        raise SettingsError("\n".join(problems)) from error
