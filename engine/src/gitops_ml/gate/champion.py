"""The champion: the model that the base's `dvc.lock` names, answering with its own code.

It is brought back in a git worktree of the base, outside the working tree, that shares the DVC
cache: taken from the cache or a DVC remote, else trained again there. The working tree and its
index are never touched, and the worktree is removed whatever happens.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput, dvc, dvc_output, locked_output, read_lock, told
from gitops_ml.core.dvc_remote import NAME, VARIABLE, from_environment
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import (
    BaseRevision,
    git,
)
from gitops_ml.core.project import load_project
from gitops_ml.core.run import Variables, run, said

Source = Literal["cache", "remote", "reproduced"]

_ENVIRONMENT_LOCK = Path("uv.lock")
# DVC prints a folder's location resolved, wherever its settings say it is relative to.
_REMOTE = re.compile(r"^remote\.(.+)\.url=(.+)$", re.MULTILINE)
# Seconds that a stopped command is given to end.
_REMOVAL_TIMEOUT = 5.0
# What of a failed command's output is worth repeating.
_LAST_LINES = 12


class ChampionError(GitopsError):
    """The champion cannot be brought back; the message says what was tried."""


class CannotScoreError(ChampionError):
    """The champion was brought back but cannot answer for these rows; the message says why."""


@dataclass
class Champion:
    """The base's project, checked out, with its model.

    Attributes:
        project: The project's folder in the worktree.
        scratch: A folder for its answers, removed with the worktree.
        source: Where the model came from.
        notes: What a reader of the report should know about it.
        interpreter: The command that runs its Python.
    """

    project: Path
    scratch: Path
    source: Source = "cache"
    notes: list[str] = field(default_factory=list)
    interpreter: Sequence[str] = (sys.executable,)

    def predict(self, rows: Path, out: Path) -> None:
        """Let the champion answer for the rows of a parquet file, with its own code.

        Args:
            rows: The rows.
            out: Where its answers go: column `prediction` and, for a classifier,
                `probability_<class>`.

        Raises:
            CannotScoreError: If it does not take these rows.
        """
        predict = self._predict_command()
        done = self._run(*self.interpreter, "-m", *predict, "--rows", rows, "--out", out)
        if done.returncode != 0:
            raise CannotScoreError(said(done))

    def _predict_command(self) -> Sequence[str]:
        # Before release 0.2.0 the machinery was inside of the project's own package.
        package = load_project().package
        if (self.project / "src" / package / "model" / "predict.py").is_file():
            return (f"{package}.model.predict",)
        return ("gitops_ml", "predict")

    def test_rows(self) -> Path | None:
        """The champion's own test set; None if it is in neither the cache nor a remote."""
        target = paths.TEST.parent.as_posix()
        if self._dvc("checkout", target).returncode != 0:
            self._dvc("pull", target)
        found = self.project / paths.TEST
        return found if found.exists() else None

    def _dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return dvc(self.project, *arguments, variables=self._variables())

    def _run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return run(command, self.project, variables=self._variables())

    def _variables(self) -> Variables:
        sources = (self.project / "src", self.project / "engine" / "src")
        path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        return {
            # `uv run` makes an environment of the worktree's own, never changes the caller's.
            **dict.fromkeys(("UV_PROJECT_ENVIRONMENT", "UV_NO_SYNC", "VIRTUAL_ENV", "PYTHONHOME")),
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "PATH": os.pathsep.join(path),
        }


@contextmanager
def bring_back(base: BaseRevision, model: LockedOutput) -> Iterator[Champion]:
    """Check out the base beside the working tree, with its model; remove it afterwards.

    Raises:
        ChampionError: If the model can neither be found nor be trained again.
    """
    folder = Path(tempfile.mkdtemp(prefix="champion-")).resolve()
    tree = folder / "base"
    try:
        # Without the repository's hooks: they are for people who change branches.
        added = git(
            base.root,
            *("-c", f"core.hooksPath={os.devnull}"),
            *("worktree", "add", "--quiet", "--detach", str(tree), base.commit),
        )
        if added.returncode != 0:
            raise ChampionError(f"git cannot check out {base.commit}: {added.stderr.strip()}")
        champion = Champion(tree / base.prefix, folder)
        _choose_interpreter(champion, base)
        _share_cache(champion, base)
        champion.source = _restore(champion, base, model)
        yield champion
    finally:
        # Twice, since one that git was stopped in the middle of making is locked.
        git(base.root, "worktree", "remove", "--force", "--force", str(tree))
        _remove(folder)
        git(base.root, "worktree", "prune")


def _remove(folder: Path) -> None:
    """Remove a folder, also while a command that was stopped still writes its last files there."""
    deadline = time.monotonic() + _REMOVAL_TIMEOUT
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def _choose_interpreter(champion: Champion, base: BaseRevision) -> None:
    """This interpreter if the base locks the same versions, else an environment of its own."""
    if base.same_file(_ENVIRONMENT_LOCK) or base.read(_ENVIRONMENT_LOCK) is None:
        return
    if shutil.which("uv") is None:
        champion.notes.append(
            "The base locks other versions of the dependencies, and uv is not installed to set "
            "them up: the champion ran with this environment's versions."
        )
        return
    champion.interpreter = ["uv", "run", "--locked", "--quiet", "python"]
    champion.notes.append("The champion ran with the versions that the base locks.")


def _share_cache(champion: Champion, base: BaseRevision) -> None:
    """Give the worktree today's settings of DVC: where the cache is now, and the remotes.

    Raises:
        ChampionError: If DVC does not take them.
    """
    for settings in (Path(".dvc/config"), Path(".dvc/config.local")):
        if (base.root / settings).exists() and (champion.project / ".dvc").exists():
            shutil.copy2(base.root / settings, champion.project / settings)
    here = dvc_output(base.root, "cache", "dir")
    shared = champion._dvc("cache", "dir", "--local", here.strip())
    if shared.returncode != 0:
        raise ChampionError(f"DVC cannot share its cache with the base:\n{told(shared)}")
    address = from_environment(base.root)
    if address is not None:
        known = champion._dvc("remote", "add", "--local", "--default", "--force", NAME, address)
        if known.returncode != 0:
            raise ChampionError(f"DVC does not take {VARIABLE}:\n{told(known)}")


def _restore(champion: Champion, base: BaseRevision, model: LockedOutput) -> Source:
    target = paths.MODELS.as_posix()
    tried = champion._dvc("checkout", target)
    if tried.returncode == 0:
        return "cache"
    if _name_remotes(champion, base):
        tried = champion._dvc("pull", target)
        if tried.returncode == 0:
            return "remote"
        champion.notes.append(
            "The DVC remote does not give the champion's model; it was trained again from the base."
        )
    _reproduce(champion, model)
    return "reproduced"


def _name_remotes(champion: Champion, base: BaseRevision) -> bool:
    """Give the worktree the remotes; a folder given relative to the project stays where it is."""
    remotes = _REMOTE.findall(dvc_output(base.root, "config", "--list"))
    for name, location in remotes:
        if Path(location).is_absolute():
            champion._dvc("remote", "modify", "--local", name, "url", location)
    return bool(remotes) or from_environment(base.root) is not None


def _reproduce(champion: Champion, model: LockedOutput) -> None:
    done = champion._run(*champion.interpreter, "-m", "dvc", "repro", model.stage)
    if done.returncode != 0:
        raise ChampionError(
            f"the champion's model {model.hash} is neither in the DVC cache nor in a remote, and "
            f"training it again failed:\n{said(done)}"
        )
    again = locked_output(read_lock(champion.project), paths.MODELS, str(paths.DVC_LOCK))
    if again is None or again.hash != model.hash:
        champion.notes.append(
            "Trained again from the base, the champion's model does not have the locked hash: "
            "other versions of the libraries, or another machine, made it."
        )
