"""Build the bento: the served model with the code, the schema and the libraries that serve it.

    gitops-ml package

What is packaged is what was reviewed: the model file and the user's code must have the hashes in
the manifest, and `dvc.lock` must name the very data, code and parameters that are there. The bento
goes to BentoML's store (BENTOML_HOME; for tasks of make in the checkout's `build/`); its tag is
printed and is

    <package>:<first 8 of the commit>-<first 8 of the model's sha256>[-dirty]

so that the same commit and model have the same tag on every machine.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import NotFound

import gitops_ml
from gitops_ml.bento.store import BentoError
from gitops_ml.core import paths
from gitops_ml.core.dvc import check_up_to_date, locked_output, read_lock
from gitops_ml.core.dvc_lock import committed, compare
from gitops_ml.core.dvc_objects import check_outputs
from gitops_ml.core.git import git
from gitops_ml.core.project import load_project
from gitops_ml.core.run import PYTHON, output
from gitops_ml.core.user_code import check_user_code, package_folder, source_files
from gitops_ml.model.predictor import read_manifest, read_verified
from gitops_ml.serving.release import describe

SERVICE = "gitops_ml.serving.service:Service"
# The rooms that the service may import from.
ROOMS = ("core", "features", "model", "serving")
_SOURCES_ONLY = shutil.ignore_patterns("__pycache__")


def source_of(root: Path) -> dict[str, Any]:
    """The commit that is packaged, and whether the working tree differs from it.

    Raises:
        BentoError: If there is no commit.
    """
    found = git(root, "rev-parse", "--verify", "HEAD")
    status = git(root, "status", "--porcelain")
    if found.returncode != 0 or status.returncode != 0:
        raise BentoError(
            "there is no git commit to name the release by; commit first (`git commit`)"
        )
    return {"commit": found.stdout.strip(), "dirty": _is_dirty(root, status.stdout.splitlines())}


def _is_dirty(root: Path, changed: Sequence[str]) -> bool:
    """Whether something here is in no commit; a `dvc.lock` that says the same does not count.

    After a new `uv.lock` that changes nothing for the stages, a run notes its hash there.
    """
    if len(changed) == 1 and Path(changed[0][3:]).name == paths.DVC_LOCK.name:
        before = committed(root)
        return before is None or bool(compare(before, read_lock(root)))
    return bool(changed)


def data_of(lock: str) -> dict[str, str]:
    """The table that the model comes from, by its hash.

    Args:
        lock: The text of `dvc.lock`.

    Raises:
        BentoError: If it does not name it.
    """
    found = locked_output(lock, paths.INGESTED, str(paths.DVC_LOCK))
    if found is None:
        raise BentoError(f"{paths.DVC_LOCK}: names no {paths.INGESTED}; run `make pipeline`")
    return {"file": str(paths.INGESTED), "md5": found.hash}


def describe_release(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Everything that `/release` tells.

    Raises:
        BentoError: If a file that it is made of is missing or unreadable.
    """
    source = source_of(root)
    try:
        contract = hashlib.sha256((root / paths.CONTRACT).read_bytes()).hexdigest()
        schema = hashlib.sha256((root / paths.SCHEMA).read_bytes()).hexdigest()
        metrics = json.loads((root / paths.METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BentoError(f"{error}; run `make pipeline`") from error
    model = describe(manifest)
    version = f"{source['commit'][:8]}-{model['model']['sha256'][:8]}"
    package = load_project(root).package
    return {
        "release": f"{package}:{version}{'-dirty' if source['dirty'] else ''}",
        "source": source,
        **model,
        "data": data_of(read_lock(root)),
        "schema": {"sha256": schema},
        "contract": {"sha256": contract},
        "metrics": metrics,
    }


def stage(root: Path, target: Path, manifest: dict[str, Any], release: dict[str, Any]) -> None:
    """Lay out what goes into the bento.

    Raises:
        BentoError: If the locked requirements cannot be exported.
        ModelError: If the model file is not the recorded one.
    """
    engine = Path(gitops_ml.__file__).parent
    for room in ROOMS:
        shutil.copytree(engine / room, target / engine.name / room, ignore=_SOURCES_ONLY)
    shutil.copyfile(engine / "__init__.py", target / engine.name / "__init__.py")
    copy_user_code(root, target)
    models = target / paths.MODELS
    models.mkdir()
    (models / manifest["served"]).write_bytes(read_verified(root / paths.MODELS, manifest))
    for path in (paths.MANIFEST, paths.SCHEMA, paths.GOLDEN):
        (target / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(root / path, target / path)
    (target / paths.RELEASE).write_text(_json(release), encoding="utf-8")
    (target / "requirements.txt").write_text(requirements(root), encoding="utf-8")
    (target / "bentofile.yaml").write_text(_bentofile(release), encoding="utf-8")


def copy_user_code(root: Path, target: Path) -> None:
    """Copy the user's package: the files that the manifest's hash is of, no caches."""
    package = load_project(root).package
    folder = package_folder(root, package)
    for path in source_files(folder):
        copy = target / package / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def requirements(root: Path) -> str:
    """The project's own dependencies as they are locked: exact versions with their hashes.

    Raises:
        CommandError: If uv or the lock file is missing.
    """
    options = ["--frozen", "--no-default-groups", "--no-emit-workspace", "--no-header"]
    return output(["uv", "export", "--quiet", "--no-annotate", *options], root)


def _bentofile(release: dict[str, Any]) -> str:
    package = str(release["release"]).partition(":")[0]
    return _json(
        {
            "service": SERVICE,
            "name": package,
            "description": f"{release['release']}: predicts {release['target']}.",
            "labels": {"commit": release["source"]["commit"], "task": release["task"]},
            "include": [
                "gitops_ml/**/*.py",
                f"{package}/**/*",
                "models/*",
                "reports/*",
                "*.yaml",
                "*.json",
            ],
            "exclude": ["bentofile.yaml"],
            "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
            "docker": {"python_version": ".".join(platform.python_version_tuple()[:2])},
        }
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def build(root: Path) -> str:
    """Check, stage and build.

    Returns:
        The bento's tag.

    Raises:
        BentoError: If something that it tells of itself is missing.
        DvcError: If the outputs are not those of the code, data and parameters that are there.
        CommandError: If a tool fails.
        ModelError: If there is no model, or its hash is not the recorded one.
        UserCodeError: If the user's code is not what trained the model.
    """
    manifest = read_manifest(root / paths.MODELS)
    read_verified(root / paths.MODELS, manifest)
    check_user_code(root, manifest)
    check_outputs(root, check_up_to_date(root))
    release = describe_release(root, manifest)
    tag = str(release["release"])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        stage(root, target, manifest, release)
        with contextlib.suppress(NotFound):
            # Built before: the same tag, but of a dirty tree perhaps not the same content.
            bentoml.bentos.delete(tag)
        version = tag.partition(":")[2]
        command = [*PYTHON, "bentoml", "build", "--version", version, str(target)]
        output(command, target, variables={"BENTOML_DO_NOT_TRACK": "true"})
    return tag


def run(_: argparse.Namespace) -> int:
    """Build the bento of the current folder's project; 0 if it was built."""
    tag = build(Path.cwd())
    print(tag)
    return 0
