"""A pipeline of five stages that run in no time, with real git and real DVC.

The stages have the names, commands and outputs of a project's; what the commands do is a shell
script that notes each call and computes with `cat`. The model is the text of its training rows.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import make_project

from gitops_ml.core.run import outside_git

STAGES: dict[str, dict[str, Any]] = {
    "ingest": {
        "cmd": "gitops-ml ingest",
        "deps": ["rows.txt"],
        "outs": ["data/ingested.parquet"],
    },
    "validate": {
        "cmd": "gitops-ml validate",
        "deps": ["data/ingested.parquet"],
        "metrics": [{"reports/validation.json": {"cache": False}}],
    },
    "split": {
        "cmd": "gitops-ml split",
        "deps": ["data/ingested.parquet", "reports/validation.json"],
        "outs": ["data/split"],
    },
    "train": {
        "cmd": "gitops-ml train",
        "deps": ["data/split/train.parquet", "src"],
        "params": ["seed"],
        "outs": ["models"],
    },
    "evaluate": {
        "cmd": "gitops-ml evaluate",
        "deps": ["data/split", "models"],
        "outs": [
            {"reports/evaluation.json": {"cache": False}},
            {"reports/golden.json": {"cache": False}},
            "reports/plots",
        ],
        "metrics": [{"reports/metrics.json": {"cache": False}}],
    },
}
# `evaluate` loads what is served as a pickle would be: it runs it. None has a token.
COMMAND = """\
#!/bin/sh -e
test -z "$GITHUB_TOKEN" || exit 9
echo "$1" >> "$TINY_CALLS"
mkdir -p data/split models reports/plots
case "$1" in
  ingest) cp rows.txt data/ingested.parquet ;;
  validate) printf '{"rows": %d}' "$(wc -l < data/ingested.parquet)" > reports/validation.json ;;
  split) cp data/ingested.parquet data/split/train.parquet
         cp data/ingested.parquet data/split/test.parquet ;;
  train) rm -rf models/*; cat data/split/train.parquet src/code.txt params.yaml > models/model.onnx
         sum=$(sha256sum models/model.onnx | cut -d' ' -f1)
         printf '{"task": "regression", "classes": null, "probabilities": false,
           "features": {}, "served": "model.onnx", "files": {"model.onnx": "%s"}}' "$sum" \\
           > models/manifest.json ;;
  evaluate) if [ -e models/model.joblib ]; then sh models/model.joblib; fi
         score=$(cat models/* | wc -c)
         printf '{"score": %d}' "$score" > reports/metrics.json
         printf '{"rows": 2, "score": %d}' "$score" > reports/evaluation.json
         printf '{"records": [1], "predictions": [%d], "tolerance": 1e-05}' "$score" \\
           > reports/golden.json
         echo "$score" > reports/plots/plot.csv ;;
esac
"""
IGNORED = """\
/data/ingested.parquet
/data/split
/models
/reports/plots
/.dvc/cache
/.dvc/tmp
/.dvc/config.local
"""


class TinyProject:
    """A project in git, whose pipeline ran and is committed; its remote is a folder.

    Attributes:
        root: The project's folder.
        store: The remote's folder.
        calls: The file with the stages that ran, one in a line.
    """

    def __init__(self, root: Path, store: Path, calls: Path) -> None:
        self.root, self.store, self.calls = root, store, calls

    def git(self, *arguments: str) -> str:
        """Run git here; gives back what it printed."""
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        return self._run("git", *identity, *arguments)

    def dvc(self, *arguments: str) -> str:
        """Run DVC here; gives back what it printed."""
        return self._run(sys.executable, "-m", "dvc", *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=outside_git(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def stages(self, change: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """Write `dvc.yaml`, some stages with other keys; a key with None is left out."""
        stages = {name: {**stage} for name, stage in STAGES.items()}
        for name, keys in (change or {}).items():
            stages.setdefault(name, {}).update(keys)
            stages[name] = {key: value for key, value in stages[name].items() if value is not None}
        self.write("dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False))
        return stages

    def commit(self, message: str = "Change") -> None:
        """Commit all that git does not ignore."""
        self.git("add", "--all")
        self.git("commit", "-qm", message, "--allow-empty")

    def fresh(self, folder: Path) -> TinyProject:
        """A clone as a runner has it: what git holds, and nothing of DVC's."""
        self.git("clone", "-q", str(self.root), str(folder))
        clone = TinyProject(folder, self.store, self.calls)
        clone.git("fetch", "-q", "origin", "main:refs/remotes/origin/main")
        self.calls.unlink(missing_ok=True)
        return clone

    def ran(self) -> list[str]:
        """The stages that ran since the clone was made."""
        return self.calls.read_text(encoding="utf-8").split() if self.calls.exists() else []

    def lock(self) -> dict[str, Any]:
        """The stages of `dvc.lock`."""
        text = (self.root / "dvc.lock").read_text(encoding="utf-8")
        return dict(yaml.safe_load(text)["stages"])

    def score(self) -> int:
        """What `reports/metrics.json` says."""
        text = (self.root / "reports/metrics.json").read_text(encoding="utf-8")
        return int(json.loads(text)["score"])

    def object(self, hash_: str) -> Path:
        """Where the remote keeps what has a hash."""
        return self.store / "files" / "md5" / hash_[:2] / hash_[2:]


def make_tiny_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """Make the project, run its pipeline, commit it on main and push what DVC owns."""
    for name in os.environ.keys() - outside_git().keys():
        monkeypatch.delenv(name)
    tools, calls = folder / "tools", folder / "calls.txt"
    tools.mkdir()
    (tools / "gitops-ml").write_text(COMMAND, encoding="utf-8")
    (tools / "gitops-ml").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TINY_CALLS", str(calls))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
    for level in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(folder / "none"))
    store = folder / "store"
    monkeypatch.setenv("DVC_REMOTE_URL", str(store))
    project = TinyProject(make_project(folder / "project"), store, calls)
    project.write(".dvc/config", "")
    project.write(".gitignore", IGNORED)
    project.write("rows.txt", "one\ntwo\n")
    project.write("src/code.txt", "code\n")
    project.write("params.yaml", "seed: 1\n")
    project.stages()
    project.git("init", "-q", "-b", "main")
    project.dvc("repro", "-q")
    project.commit("Start")
    project.dvc("remote", "add", "--local", "store", str(store))
    project.dvc("push", "-q", "--remote", "store", "--run-cache")
    (project.root / ".dvc" / "config.local").unlink()
    return project


def copy_tiny_project(
    source: TinyProject, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> TinyProject:
    """A private copy of a project with its remote."""
    shutil.copytree(source.root.parent, folder, symlinks=True)
    calls = folder / "calls.txt"
    old, new = str(source.root.parent / "tools"), str(folder / "tools")
    monkeypatch.setenv("PATH", f"{new}{os.pathsep}{os.environ['PATH'].replace(old, new)}")
    monkeypatch.setenv("TINY_CALLS", str(calls))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
    for level in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(folder / "none"))
    monkeypatch.setenv("DVC_REMOTE_URL", str(folder / "store"))
    return TinyProject(folder / "project", folder / "store", calls)
