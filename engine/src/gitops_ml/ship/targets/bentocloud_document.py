"""Render the deployment of a release for an environment, as its branch will hold it.

    gitops-ml render --environment staging

`deploy/<environment>.yaml` says how BentoCloud runs the service, and the release says which bento.
The service is told what it must find in itself (EXPECTED_RELEASE, EXPECTED_MODEL_SHA256), and the
bento's digest (RELEASE_DIGEST), which it answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gitops_ml.core.project import load_project
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.ship.release.release import RELEASE, parse_release
from gitops_ml.ship.settings import DeploymentError
from gitops_ml.ship.targets import DEPLOY

DEPLOYMENT = "deployment.yaml"


class _Strict(BaseModel):
    """BentoML drops keys that it does not know without a word: here they are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Variable(_Strict):
    """An environment variable."""

    name: str
    value: str


class Scaling(_Strict):
    """How many replicas; with `policy`, when there are more."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    policy: dict[str, Any] | None = None


class Service(_Strict):
    """What one service of the bento runs on.

    https://docs.bentoml.com/en/latest/scale-with-bentocloud/deployment/configure-deployments.html
    """

    instance_type: str | None = None
    scaling: Scaling = Scaling()
    envs: list[Variable] = []
    deployment_strategy: (
        Literal["RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout"]
        | None
    ) = None
    cold_start_timeout: int | None = None
    extras: dict[str, Any] | None = None
    config_overrides: dict[str, Any] | None = None


class Deployment(_Strict):
    """What `deploy/<environment>.yaml` says.

    Attributes:
        cluster: Where it runs, if not in the organization's first cluster.
        services: By name; there is one, called like the package.
        envs: Variables of every service.
        secrets: Names of secrets that BentoCloud keeps.
        labels: To find it by.
    """

    cluster: str | None = None
    services: dict[str, Service]
    envs: list[Variable] = []
    secrets: list[str] = []
    labels: list[dict[Literal["key", "value"], str]] = []


def render(root: Path, environment: str, release: Mapping[str, Any]) -> dict[str, bytes]:
    """Render the deployment.

    Args:
        root: The project's folder.
        environment: Whose file in `deploy/` counts.
        release: What `release.json` says.

    Returns:
        The content of `deployment.yaml` by its name; the same release gives the same bytes.

    Raises:
        ReleaseError: If the release lacks what the deployment must say.
        DeploymentError: If the environment's file is not as it should be.
    """
    wanted = parse_release(json.dumps(release).encode(), RELEASE)
    path = DEPLOY / f"{environment}.yaml"
    try:
        described = Deployment.model_validate(load_yaml((root / path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DeploymentError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise DeploymentError(f"{path}: {_problems(error)}") from error
    package = load_project(root).package
    if list(described.services) != [package]:
        raise DeploymentError(f"{path}: services: must name {package}, and nothing else")
    given = [*described.envs, *(env for one in described.services.values() for env in one.envs)]
    for variable in given:
        if variable.name in wanted.variables:
            raise DeploymentError(f"{path}: must not set {variable.name}, which the release does")
    content = {
        "name": f"{package.replace('_', '-')}-{environment}",
        "bento": wanted.tag,
        # The probe asks without a token.
        "access_authorization": False,
        **described.model_dump(exclude_none=True, exclude={"envs"}),
        "envs": [
            *(variable.model_dump() for variable in described.envs),
            *({"name": name, "value": value} for name, value in wanted.variables.items()),
        ],
    }
    return {DEPLOYMENT: yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()}


def _problems(error: ValidationError) -> str:
    """Every mistake, by its key."""
    lines = [
        f"  {'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
        for problem in error.errors()
    ]
    return "describes no deployment:\n" + "\n".join(lines)
