"""The base: the revision that a change is judged against, and the files that it holds."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.run import ask, run

# What CI systems name as the revision before the first push.
NO_COMMIT = "0" * 40
_NO_COMMIT = re.compile(r"0{40}|0{64}")
_MARK = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)


class GitError(GitopsError):
    """Git cannot do something, or does not hold what was asked for."""


@dataclass(frozen=True)
class BaseRevision:
    """A commit to be judged against.

    Attributes:
        root: The project's folder in the working tree.
        prefix: The project's folder inside the repository; empty when they are the same.
        revision: As it was asked for.
        commit: Its hash.
        fork: Where this branch left the base, the base itself when that is not known.
        made: The `dvc.lock` that the base's own run wrote, where that is known.
        proven: Whether a run is known to have made the model that `recorded` names.
    """

    root: Path
    prefix: str
    revision: str
    commit: str
    fork: str
    made: str | None = None
    proven: bool = True

    def recorded(self) -> str | None:
        """The base's `dvc.lock`: what its run wrote where that is known, else what is committed."""
        return self.made if self.made is not None else self.read(paths.DVC_LOCK)

    def read(self, path: Path, commit: str | None = None) -> str | None:
        """The text of a file of the project in the base, or in another commit; None without it."""
        done = git(self.root, "show", f"{commit or self.commit}:{self.prefix}{path.as_posix()}")
        return done.stdout if done.returncode == 0 else None

    def same_file(self, path: Path) -> bool:
        """Whether a file of the working tree is the base's, byte for byte."""
        here = self.root / path
        # Decoded as `git` decodes what it says.
        now = here.read_bytes().decode(errors="replace") if here.is_file() else None
        return now == self.read(path) and not here.is_dir()


def holds_marks(text: str) -> bool:
    """Whether a text holds what git writes around the two sides of a merge conflict."""
    return _MARK.search(text) is not None


def below_the_top(root: Path) -> str | None:
    """What is wrong with a project that is a folder of a repository, and what to do about it.

    Returns:
        None if the project is at the top of its repository, or in none.
    """
    prefix = (ask(root, "git", "rev-parse", "--show-prefix") or "").rstrip("/")
    if not prefix:
        return None
    return (
        f"the project is the folder {prefix} of a repository, and GitHub reads workflows, rulesets "
        "and code owners at the top only: nothing here is checked or delivered there. Give it a "
        "repository of its own: copy the folder out, then `git init -b main`, commit and push"
    )


def is_no_commit(revision: str) -> bool:
    """Whether a revision is what CI systems name where there is none."""
    return _NO_COMMIT.fullmatch(revision) is not None


def find_base(root: Path, revision: str) -> BaseRevision | None:
    """Find the commit that a revision names.

    Returns:
        None if there is no commit to be judged against yet.

    Raises:
        GitError: If this is no git repository, or the revision names no commit.
    """
    place = git(root, "rev-parse", "--show-prefix")
    if place.returncode != 0:
        raise GitError(f"the gate compares with a git revision: {place.stderr.strip()}")
    unborn = git(root, "rev-parse", "--verify", "--quiet", "HEAD").returncode != 0
    if is_no_commit(revision) or (unborn and revision == "HEAD"):
        return None
    commit_of = f"{revision}^{{commit}}"
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", commit_of)
    if found.returncode != 0:
        raise GitError(
            f"--base {revision}: git knows no such commit; `git fetch` it, or name another one, "
            "e.g. `make gate BASE=HEAD`"
        )
    commit = found.stdout.strip()
    fork = git(root, "merge-base", commit, "HEAD")
    return BaseRevision(
        root=root,
        prefix=place.stdout.strip(),
        revision=revision,
        commit=commit,
        fork=fork.stdout.strip() if fork.returncode == 0 else commit,
    )


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder, whatever repository the caller's environment points at.

    Raises:
        CommandError: If git is not installed.
    """
    return run(["git", *arguments], folder)
