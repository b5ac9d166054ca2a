"""A model that was not trained by the run that judges it, where the project allows that.

Training that does not fit a workflow's run may be done elsewhere: `trained-elsewhere` in
`[tool.gitops-ml]` names the identity that does it. The setting of the base counts, so a change
cannot allow it to itself. Only ONNX is loaded of such a model: to load a pickle is to run it.
"""

from __future__ import annotations

import json
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, read_lock
from gitops_ml.core.dvc_objects import cache_folder, listed, object_path, outputs_of
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.json_text import load_json
from gitops_ml.core.project import parse_project


def allowed_by(base: BaseRevision | None) -> str | None:
    """The identity that may train in the place of a run; None if nobody may."""
    text = base.read(paths.PYPROJECT) if base is not None else None
    if base is None or text is None:
        return None
    try:
        return parse_project(text, f"{base.revision}:{paths.PYPROJECT}").trained_elsewhere
    except SettingsError:
        return None


def check_only_onnx(root: Path, hash_: str) -> bool:
    """Make sure that a model in the cache is served as ONNX.

    Args:
        root: The project's folder.
        hash_: DVC's hash of the model's folder; the cache's objects have been hashed.

    Returns:
        Whether the cache has the model.

    Raises:
        DvcError: If something else is served.
    """
    cache = cache_folder(root)
    try:
        files = listed(object_path(cache, hash_))
        manifest = object_path(cache, files[paths.MANIFEST.name]).read_text(encoding="utf-8")
        served = str(load_json(manifest)["served"])
        there = object_path(cache, files[served]).exists()
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise DvcError(
            f"{paths.MODELS} ({hash_}): is no model that can be served ({error!r})"
        ) from error
    if not served.endswith(".onnx"):
        raise DvcError(
            f"{paths.MODELS} ({hash_}): was trained elsewhere and serves {served}: only ONNX is "
            "loaded of such a model; choose an estimator that ONNX can express, or let the run "
            "train it: take `trained-elsewhere` out of pyproject.toml on the default branch"
        )
    return there


def note(root: Path, by: str | None, hash_: str | None) -> None:
    """Write down who trained the model; None if it was not trained elsewhere."""
    path = root / paths.TRAINED_ELSEWHERE
    if by is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"by": by, "model": hash_}, indent=2) + "\n", encoding="utf-8")


def trained_by(root: Path) -> str | None:
    """Who trained the model of `dvc.lock` elsewhere; None if it was not."""
    try:
        told = load_json((root / paths.TRAINED_ELSEWHERE).read_text(encoding="utf-8"))
        model = outputs_of(read_lock(root)).get(paths.MODELS.as_posix())
        return str(told["by"]) if told["model"] == model else None
    except (OSError, ValueError, KeyError, TypeError, DvcError):
        return None
