"""What is running: the release that was packaged, or a working tree.

Packaging writes `release.json` beside the model; a working tree has none and says so. Neither knows
the digest of what was made of it afterwards: what deploys it tells that by RELEASE_DIGEST.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gitops_ml.core import paths
from gitops_ml.core.project import load_project
from gitops_ml.model.predictor import ModelError
from gitops_ml.serving.config import ServiceConfig

DEVELOPMENT = "development"


def project_root() -> Path:
    """The folder that holds `models/`: of the bento, of the project, or else the current one."""
    here = Path(__file__).resolve()
    return next((p for p in here.parents if (p / paths.MANIFEST).is_file()), Path.cwd())


def service_name(root: Path) -> str:
    """What the service is called: as the bento that it is part of, else as the project.

    Raises:
        ModelError: If `release.json` cannot be read.
        SettingsError: If there is none, and `pyproject.toml` does not name the package.
    """
    path = root / paths.RELEASE
    if not path.exists():
        return load_project(root).package
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["release"]).partition(":")[0]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read: {error!r}; build the bento again") from error


def describe(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says about the model, in the form of `release.json`."""
    return {
        "task": manifest["task"],
        "target": manifest.get("target"),
        "classes": manifest["classes"],
        "probabilities": manifest["probabilities"],
        "threshold": manifest.get("threshold"),
        "estimator": manifest.get("estimator"),
        "features": [feature["name"] for feature in manifest["features"]],
        "inputs": manifest.get("inputs", [feature["name"] for feature in manifest["features"]]),
        "model": {"file": manifest["served"], "sha256": manifest["files"][manifest["served"]]},
    }


def read_release(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the release at `root`.

    Raises:
        ModelError: If `release.json` is unreadable or was written for another model.
    """
    model = describe(manifest)
    path = root / paths.RELEASE
    try:
        release = json.loads(path.read_text(encoding="utf-8"))
        packaged = release["model"]["sha256"]
    except FileNotFoundError:
        return {"release": DEVELOPMENT, **model}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read: {error!r}; build the bento again") from error
    if packaged != model["model"]["sha256"]:
        raise ModelError(
            f"{path}: was written for the model {packaged}, but {model['model']['sha256']} "
            "is beside it; build the bento again"
        )
    return dict(release)


def as_deployed(release: dict[str, Any], config: ServiceConfig) -> dict[str, Any]:
    """What `/release` answers: the release, and the digest of the artifact that it runs as.

    Two builds of one release differ in nothing else. The digest is null where none was deployed.
    """
    return {**release, "digest": config.release_digest}


def check_expected(release: dict[str, Any], config: ServiceConfig) -> None:
    """Make sure that this is the release that was to run here.

    Raises:
        ModelError: If the environment names another release or another model, with both.
    """
    model = release["model"]["sha256"]
    problems = [
        f"{name} is {expected}, but {found} is here"
        for name, expected, found in (
            ("EXPECTED_RELEASE", config.expected_release, release["release"]),
            ("EXPECTED_MODEL_SHA256", config.expected_model, model),
        )
        if expected is not None and expected != found
    ]
    if problems:
        raise ModelError(
            "\n".join([*problems, "Deploy the image that was released together with these values."])
        )
