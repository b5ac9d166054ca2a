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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput, dvc, dvc_output, locked_output, read_lock, told
from gitops_ml.core.dvc_objects import check_cache, check_outputs, hash_of, settings_of
from gitops_ml.core.dvc_remote import NAME, VARIABLE, from_environment, verify_all
from gitops_ml.core.git import (
    BaseRevision,
    git,
)
from gitops_ml.core.run import said
from gitops_ml.gate.contestant import CannotScoreError, Contestant, ContestantError
from gitops_ml.gate.run_record import believed

Source = Literal["cache", "remote", "reproduced"]

# DVC prints a folder's location resolved, wherever its settings say it is relative to.
_REMOTE = re.compile(r"^remote\.(.+)\.url=(.+)$", re.MULTILINE)
# Seconds that a stopped command is given to end.
_REMOVAL_TIMEOUT = 5.0
# What of a failed command's output is worth repeating.
_LAST_LINES = 12


class ChampionError(ContestantError):
    """The champion cannot be brought back; the message says what was tried."""


@dataclass
class Champion(Contestant):
    """The base's project, checked out, with its model.

    Attributes:
        source: Where the model came from.
    """

    source: Source = "cache"

    def test_rows(self) -> Path:
        """The champion's own test set, as its `dvc.lock` names it.

        Taken from the cache or a DVC remote; where it is in neither, or is not what the lock
        names, it is made again from the base's data.

        Raises:
            CannotScoreError: If there is none.
        """
        folder = paths.TEST.parent
        locked = locked_output(read_lock(self.project), folder, str(paths.DVC_LOCK))
        if locked is None:
            raise CannotScoreError(f"its {paths.DVC_LOCK} names no {folder}")
        place = self.project / folder
        for command in ("checkout", "pull"):
            done = self._dvc(command, folder.as_posix())
            if done.returncode == 0 and place.is_dir() and hash_of(place) == locked.hash:
                return self.project / paths.TEST
        again = ("dvc", "repro", "--force", "--no-run-cache", locked.stage)
        made = self._run(*self.interpreter, "-m", *again)
        if made.returncode != 0:
            raise CannotScoreError(
                f"its own test set {locked.hash} is neither in the DVC cache nor in a remote, and "
                f"making it again failed:\n{said(made)}"
            )
        if hash_of(place) != locked.hash:
            self.notes.append(
                "Made again from the base, the champion's test set does not have the locked hash: "
                "other versions of the libraries made it."
            )
        return self.project / paths.TEST

    def _dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return dvc(self.project, *arguments, variables=self.variables())


@contextmanager
def bring_back(base: BaseRevision, model: LockedOutput, home: Path) -> Iterator[Champion]:
    """Check out the base beside the working tree, with its model; remove it afterwards.

    Args:
        base: The base.
        model: What its `dvc.lock` says of its model.
        home: The project whose locked environment this process runs in.

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
        champion.choose_interpreter(home, "The champion")
        if champion.interpreter != (sys.executable,):
            champion.notes.append("The champion ran with the versions that the base locks.")
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
    lock = believed(base)
    if lock is not None:
        (champion.project / paths.DVC_LOCK).write_text(lock, encoding="utf-8")
    if not base.proven:
        _reproduce(champion, model)
        champion.notes.append(
            "No run is known to have made the champion's model as it is recorded, so it was "
            "trained again from the base."
        )
        return "reproduced"
    check_cache(base.root, [model.hash])
    tried = champion._dvc("checkout", target)
    if tried.returncode == 0:
        check_outputs(champion.project, read_lock(champion.project), [paths.MODELS])
        return "cache"
    if _name_remotes(champion, base):
        tried = champion._dvc("pull", target)
        if tried.returncode == 0:
            check_outputs(champion.project, read_lock(champion.project), [paths.MODELS])
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
    verify_all(champion.project, settings_of(champion.project))
    return bool(remotes) or from_environment(base.root) is not None


def _reproduce(champion: Champion, model: LockedOutput) -> None:
    done = champion._run(*champion.interpreter, "-m", "dvc", "repro", "--no-run-cache", model.stage)
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
