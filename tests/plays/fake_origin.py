"""A bare origin, clones of it, and releases that are made up, for the tests of deployments."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_artifact import NAME, SETTINGS
from projects import make_project

from gitops_ml.ship.targets.containers import KIND

GOLDEN: dict[str, Any] = {
    "records": [{"x": 1}, {"x": 2}],
    "predictions": [{"prediction": 10.0}, {"prediction": 20.0}],
    "tolerance": 1e-5,
}
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of the caller's environment, its workflow or its git."""
    settings = ("STAGING_URL", "PRODUCTION_URL", "GH_TOKEN", "GH_HOST", "SEEN")
    prefixes = ("GIT_", "GITHUB_", *SETTINGS)
    for name in list(os.environ):
        if name in settings or name.startswith(prefixes):
            monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints; it must succeed."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout.strip()


def make_release(commit: str, number: int = 1) -> dict[str, Any]:
    """A `release.json` of a commit; each number has a model and an artifact of its own."""
    return {
        "release": f"shop:{commit[:8]}-{number:08x}",
        "source": {"commit": commit, "dirty": False},
        "model": {"file": "model.onnx", "sha256": f"{number:064x}"},
        KIND: {"name": NAME, "digest": f"sha256:{number:064x}"},
    }


def artifact_of(release: Mapping[str, Any]) -> str:
    return f"{release[KIND]['name']}@{release[KIND]['digest']}"


def fake_render(root: Path, environment: str, release: Mapping[str, Any]) -> dict[str, bytes]:
    """Manifests that name the environment and what is deployed."""
    return {"manifests.yaml": f"# {environment}: {artifact_of(release)}\n".encode()}


def make_repositories(folder: Path) -> None:
    """Make an origin and a clone that finds it at a relative path."""
    git(folder, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(folder / "origin.git", "config", "receive.autogc", "false")
    git(folder, "clone", "-q", *IDENTITY, "origin.git", "clone")
    root = folder / "clone"
    git(root, "remote", "set-url", "origin", "../origin.git")
    make_project(root)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    git(root, "push", "-q", "origin", "HEAD:main")


class World:
    """An origin with a main branch and one commit (`first`), and a clone of it in `root`.

    Args:
        folder: Where `make_repositories` was called, or a copy of that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin = folder / "origin.git"
        self.root = folder / "clone"
        self.first = git(self.root, "rev-parse", "HEAD")

    def clone(self, name: str, *options: str) -> Path:
        """Another clone, as another run has it."""
        git(self.folder, "clone", "-q", *IDENTITY, *options, f"file://{self.origin}", name)
        return self.folder / name

    def commit(self, text: str, root: Path | None = None) -> str:
        """Push a commit to the main branch."""
        root = root or self.root
        (root / "code.txt").write_text(text, encoding="utf-8")
        git(root, "add", "code.txt")
        git(root, "commit", "-qm", text)
        git(root, "push", "-q", "origin", "HEAD:main")
        return git(root, "rev-parse", "HEAD")

    def prepare(self, release: Mapping[str, Any], root: Path | None = None) -> None:
        """Write `build/release`."""
        folder = (root or self.root) / "build" / "release"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "release.json").write_text(json.dumps(release), encoding="utf-8")
        (folder / "golden.json").write_text(json.dumps(GOLDEN), encoding="utf-8")

    def files(self, environment: str) -> dict[str, str]:
        """What the branch of an environment holds on the origin."""
        branch = f"env/{environment}"
        names = git(self.origin, "ls-tree", "-r", "--name-only", branch).splitlines()
        return {name: git(self.origin, "show", f"{branch}:{name}") for name in names}

    def log(self, environment: str) -> list[str]:
        """The subjects of the branch's commits on the origin, newest first; empty without it."""
        listed = git(self.origin, "for-each-ref", f"refs/heads/env/{environment}")
        if not listed:
            return []
        return git(self.origin, "log", "--format=%s", f"env/{environment}").splitlines()

    def head(self, environment: str) -> str:
        return git(self.origin, "rev-parse", f"env/{environment}")

    def hook(self, name: str, script: str) -> None:
        """Let the origin run a shell script."""
        path = self.origin / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
