"""Render the manifests of a release for an environment, as its branch will hold them.

    gitops-ml render --environment staging

`deploy/overlays/<environment>` says what runs, the release says which image and which model, and
`deploy/outputs.yaml` says which files come of it. The image is named by digest, and the container
is told what it must find in itself (EXPECTED_RELEASE, EXPECTED_MODEL_SHA256) and that digest
(RELEASE_DIGEST), which its service answers. Needs kustomize 5: `kubectl` 1.27 or newer brings it;
KUSTOMIZE names another command, e.g. `kustomize build`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from gitops_ml.core.run import NotInstalledError, said
from gitops_ml.core.run import run as run_command
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.ship.release.release import RELEASE, Release, parse_release
from gitops_ml.ship.settings import DeploymentError
from gitops_ml.ship.targets import DEPLOY

OVERLAYS = DEPLOY / "overlays"
OUTPUTS = DEPLOY / "outputs.yaml"

# What `deploy/base` calls the image and the ConfigMap that a release fills in.
IMAGE = "service"
CONFIG_MAP = "release"

KUSTOMIZE = "kubectl kustomize"
KUSTOMIZE_SECONDS = 120
BY_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
OUTPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.ya?ml")
OUTPUTS_TYPE = TypeAdapter(dict[str, list[str]])


def environments(root: Path) -> list[str]:
    """The environments that there are manifests for."""
    return sorted(path.parent.name for path in (root / OVERLAYS).glob("*/kustomization.yaml"))


def render(root: Path, environment: str, release: Mapping[str, Any]) -> dict[str, bytes]:
    """Render every file of `deploy/outputs.yaml`.

    Args:
        root: The project's folder.
        environment: A folder of `deploy/overlays`.
        release: What `release.json` says.

    Returns:
        The content of each file by its name; the same release gives the same bytes.

    Raises:
        ReleaseError: If the release lacks what the manifests must say.
        DeploymentError: If the environment or the manifests are not as they should be, or kustomize
            is missing or fails.
    """
    if environment not in (known := environments(root)):
        raise DeploymentError(
            f"{OVERLAYS}: no environment {environment!r}; there is {', '.join(known) or 'none'}"
        )
    wanted = parse_release(json.dumps(release).encode(), RELEASE)
    outputs = read_outputs(root)
    files = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(root / DEPLOY, Path(folder) / DEPLOY)
            for name, components in outputs.items():
                text = kustomize(Path(folder), environment, components, wanted)
                check_manifests(name, text, wanted)
                files[name] = text.encode()
    except OSError as error:
        raise DeploymentError(f"{DEPLOY}: a copy of it cannot be written: {error}") from error
    return files


def read_outputs(root: Path) -> dict[str, list[str]]:
    """The files to render, each with the components put on top of the overlay.

    Raises:
        DeploymentError: If `deploy/outputs.yaml` is missing or says something else.
    """
    try:
        found = load_yaml((root / OUTPUTS).read_text(encoding="utf-8"))
        outputs = OUTPUTS_TYPE.validate_python(found, strict=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise DeploymentError(
            f"{OUTPUTS}: must name each file with a list of components, e.g. "
            f"`manifests.yaml: []`: {error}"
        ) from error
    if not outputs:
        raise DeploymentError(f"{OUTPUTS}: names no file, e.g. `manifests.yaml: []`")
    for name, components in outputs.items():
        if not OUTPUT_NAME.fullmatch(name):
            raise DeploymentError(f"{OUTPUTS}: {name!r} is not the plain name of a YAML file")
        for component in components:
            if not (root / DEPLOY / component / "kustomization.yaml").is_file():
                raise DeploymentError(
                    f"{OUTPUTS}: {name}: {DEPLOY / component} holds no kustomization.yaml"
                )
    return outputs


def kustomize(folder: Path, environment: str, components: list[str], wanted: Release) -> str:
    """Put the release into the manifests of an environment.

    Args:
        folder: Where a copy of `deploy/` is; a kustomization is written beside it.
        environment: The overlay.
        components: What is put on top of it, as paths in `deploy/`.
        wanted: The release.

    Raises:
        DeploymentError: If kustomize is missing or fails.
    """
    image, _, digest = wanted.artifact.partition("@")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../{OVERLAYS}/{environment}"],
        "components": [f"../{DEPLOY}/{component}" for component in components],
        "images": [{"name": IMAGE, "newName": image, "digest": digest}],
        "configMapGenerator": [
            {
                "name": CONFIG_MAP,
                "behavior": "merge",
                "literals": [f"{name}={value}" for name, value in wanted.variables.items()],
            }
        ],
        # Their order must not depend on the version of kustomize.
        "sortOptions": {"order": "fifo"},
    }
    target = folder / "release"
    target.mkdir(exist_ok=True)
    (target / "kustomization.yaml").write_text(json.dumps(kustomization), encoding="utf-8")
    return run_kustomize(target)


def run_kustomize(target: Path) -> str:
    """Build a kustomization.

    Raises:
        DeploymentError: If the command is missing or fails.
        CommandError: If it cannot be run or does not end.
    """
    command = os.environ.get("KUSTOMIZE") or KUSTOMIZE
    try:
        done = run_command([*shlex.split(command), target], Path.cwd(), timeout=KUSTOMIZE_SECONDS)
    except NotInstalledError as error:
        raise DeploymentError(
            f"`{command}`: not installed; install kubectl 1.27 or newer "
            "(https://kubernetes.io/docs/tasks/tools), or name another command in KUSTOMIZE, "
            "e.g. `kustomize build`"
        ) from error
    except ValueError as error:
        raise DeploymentError(f"`{command}`: cannot be run: {error}") from error
    if done.returncode != 0:
        words = (
            said(done).replace(f"{target.parent.resolve()}/", "").replace(f"{target.parent}/", "")
        )
        raise DeploymentError(f"`{command}` failed on {DEPLOY}/:\n{words}")
    return done.stdout


def check_manifests(name: str, text: str, wanted: Release) -> None:
    """Make sure that the manifests run the release: kustomize does not mind a name it cannot find.

    Raises:
        DeploymentError: If a container's image has no digest, if none has the release's image, or
            if none is told which release, model and digest it must be.
    """
    try:
        objects = [item for item in yaml.safe_load_all(text) if item is not None]
    except yaml.YAMLError as error:
        raise DeploymentError(f"{name}: what kustomize wrote is no YAML: {error}") from error
    containers = list(_containers(objects))
    for container in containers:
        if not BY_DIGEST.fullmatch(str(container.get("image"))):
            raise DeploymentError(
                f"{name}: the container {container.get('name')!r} runs {container.get('image')!r}, "
                "which can change from one day to the next; name it by digest "
                "(name@sha256:...) in deploy/"
            )
    if wanted.artifact not in [container["image"] for container in containers]:
        raise DeploymentError(
            f"{name}: no container runs the release's image {wanted.artifact}; a container "
            f"in {DEPLOY}/base must have `image: {IMAGE}`"
        )
    data = [item.get("data") or {} for item in objects if item.get("kind") == "ConfigMap"]
    if not any(wanted.variables.items() <= found.items() for found in data):
        raise DeploymentError(
            f"{name}: no ConfigMap tells the container which release it must be; "
            f"{DEPLOY}/base must generate the ConfigMap {CONFIG_MAP!r}"
        )


def _containers(value: Any) -> Iterator[dict[str, Any]]:
    """Every container of any object, however deep it is."""
    if isinstance(value, list):
        for item in value:
            yield from _containers(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in {"containers", "initContainers"} and isinstance(item, list):
                yield from (entry for entry in item if isinstance(entry, dict))
            else:
                yield from _containers(item)
