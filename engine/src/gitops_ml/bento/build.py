"""Build the bento: the served model with the code, the schema and the libraries that serve it.

    gitops-ml package

What is packaged is what was reviewed: the model file must have the hash in its manifest, and
`dvc.lock` must name the very data, code and parameters that are there. The bento goes to BentoML's
store (BENTOML_HOME, by default in the home folder); its tag is printed and is

    <package>:<first 8 of the commit>-<first 8 of the model's sha256>[-dirty]

so that the same commit and model have the same tag on every machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bentoml
import yaml
from bentoml.exceptions import NotFound

import gitops_ml
from gitops_ml.core import paths
from gitops_ml.core.dvc_lock import committed, compare
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project
from gitops_ml.model.predictor import read_manifest, read_verified
from gitops_ml.serving.release import describe

# -P: a file in the folder must not pass for a module of the same name.
PYTHON = (sys.executable, "-P", "-m")

SERVICE = "gitops_ml.serving.service:Service"
# The rooms that the service may import from.
ROOMS = ("core", "features", "model", "serving")
_SOURCES_ONLY = shutil.ignore_patterns("__pycache__")


class PackageError(GitopsError):
    """The bento cannot be built; the message is meant for people."""


def run(command: Sequence[str], root: Path) -> str:
    """Run a command in the project and give back what it printed.

    Raises:
        PackageError: If it is not installed or exits non-zero, with what it said.
    """
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise PackageError(f"{command[0]}: not installed; run `make setup`") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise PackageError(f"`{' '.join(command)}` failed:\n{said}")
    return done.stdout


def source_of(root: Path) -> dict[str, Any]:
    """The commit that is packaged, and whether the working tree differs from it.

    Raises:
        PackageError: If there is no commit.
    """
    try:
        commit = run(["git", "rev-parse", "--verify", "HEAD"], root).strip()
    except PackageError as error:
        raise PackageError(
            "there is no git commit to name the release by; commit first (`git commit`)"
        ) from error
    return {"commit": commit, "dirty": _is_dirty(root)}


def _is_dirty(root: Path) -> bool:
    """Whether something here is in no commit; a `dvc.lock` that says the same does not count.

    After a new `uv.lock` that changes nothing for the stages, a run notes its hash there.
    """
    changed = run(["git", "status", "--porcelain"], root).splitlines()
    if len(changed) == 1 and Path(changed[0][3:]).name == paths.DVC_LOCK.name:
        before = committed(root)
        now = (root / paths.DVC_LOCK).read_text(encoding="utf-8")
        return before is None or bool(compare(before, now))
    return bool(changed)


def check_pipeline(root: Path) -> None:
    """Make sure that the outputs are those of the code, data and parameters that are there.

    Raises:
        PackageError: If DVC finds a stage that has changed since `dvc.lock` was written.
    """
    if not (root / paths.DVC_LOCK).is_file():
        raise PackageError(f"{paths.DVC_LOCK}: no such file; run `make pipeline`")
    changed = json.loads(run([*PYTHON, "dvc", "status", "--json"], root) or "{}")
    if changed:
        lines = [f"  {stage}: {_changes(entries)}" for stage, entries in changed.items()]
        raise PackageError(
            f"{paths.DVC_LOCK} does not name what is here; "
            "run `make pipeline`, or `dvc checkout`:\n" + "\n".join(lines)
        )


def _changes(entries: Sequence[Any]) -> str:
    """What DVC found different in a stage, e.g. `schema.yaml modified`."""
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            for changes in entry.values():
                found += [f"{what} {how}" for what, how in changes.items()]
        else:
            found.append(str(entry))
    return ", ".join(found)


def data_of(root: Path) -> dict[str, str]:
    """The table that the model comes from, by the hash in `dvc.lock`.

    Raises:
        PackageError: If `dvc.lock` does not name it.
    """
    lock = yaml.safe_load((root / paths.DVC_LOCK).read_text(encoding="utf-8"))
    outs = lock.get("stages", {}).get("ingest", {}).get("outs", [])
    for out in outs:
        if out["path"] == str(paths.INGESTED):
            return {"file": out["path"], "md5": out["md5"]}
    raise PackageError(f"{paths.DVC_LOCK}: names no {paths.INGESTED}; run `make pipeline`")


def describe_release(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Everything that `/release` tells.

    Raises:
        PackageError: If a file that it is made of is missing or unreadable.
    """
    source = source_of(root)
    try:
        contract = hashlib.sha256((root / paths.CONTRACT).read_bytes()).hexdigest()
        schema = hashlib.sha256((root / paths.SCHEMA).read_bytes()).hexdigest()
        metrics = json.loads((root / paths.METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackageError(f"{error}; run `make pipeline`") from error
    model = describe(manifest)
    version = f"{source['commit'][:8]}-{model['model']['sha256'][:8]}"
    package = load_project(root).package
    return {
        "release": f"{package}:{version}{'-dirty' if source['dirty'] else ''}",
        "source": source,
        **model,
        "data": data_of(root),
        "schema": {"sha256": schema},
        "contract": {"sha256": contract},
        "metrics": metrics,
    }


def stage(root: Path, target: Path, manifest: dict[str, Any], release: dict[str, Any]) -> None:
    """Lay out what goes into the bento.

    Raises:
        PackageError: If the locked requirements cannot be exported.
        ModelError: If the model file is not the recorded one.
    """
    engine = Path(gitops_ml.__file__).parent
    for room in ROOMS:
        shutil.copytree(engine / room, target / engine.name / room, ignore=_SOURCES_ONLY)
    shutil.copyfile(engine / "__init__.py", target / engine.name / "__init__.py")
    package = load_project(root).package
    shutil.copytree(root / "src" / package, target / package, ignore=_SOURCES_ONLY)
    models = target / paths.MODELS
    models.mkdir()
    (models / manifest["served"]).write_bytes(read_verified(root / paths.MODELS, manifest))
    for path in (paths.MANIFEST, paths.SCHEMA, paths.GOLDEN):
        (target / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(root / path, target / path)
    (target / paths.RELEASE).write_text(_json(release), encoding="utf-8")
    (target / "requirements.txt").write_text(requirements(root), encoding="utf-8")
    (target / "bentofile.yaml").write_text(_bentofile(release), encoding="utf-8")


def requirements(root: Path) -> str:
    """The project's own dependencies as they are locked: exact versions with their hashes.

    Raises:
        PackageError: If uv or the lock file is missing.
    """
    options = ["--frozen", "--no-default-groups", "--no-emit-workspace", "--no-header"]
    return run(["uv", "export", "--quiet", "--no-annotate", *options], root)


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
        PackageError: If a check fails or a tool does.
        ModelError: If there is no model, or its hash is not the recorded one.
    """
    manifest = read_manifest(root / paths.MODELS)
    read_verified(root / paths.MODELS, manifest)
    check_pipeline(root)
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
        run(command, target)
    return tag


def main() -> int:
    """Build the bento of the current folder's project; 0 if it was built."""
    try:
        tag = build(Path.cwd())
    except GitopsError as error:
        print(error, file=sys.stderr)
        return 1
    print(tag)
    return 0
