"""Environment branches: what each environment runs, and ran before.

`env/<environment>` has a history of its own and holds rendered manifests, `release.json` and
`golden.json`, nothing else. A commit is a deployment; what follows the branch (Argo CD, Flux, a
host) does the rest. Commits are made from git's objects with an index of their own: the working
tree and what is staged there are never touched, and until the push nothing has happened.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gitops_ml.core.git import GitError
from gitops_ml.core.json_text import load_json
from gitops_ml.core.retry import doubling, patiently
from gitops_ml.github.workflow_run import run_url
from gitops_ml.ship.environments.repository import (
    OvertakenError,
    Repository,
    UnreachableError,
)
from gitops_ml.ship.release.release import RELEASE, Release, ReleaseError, parse_release
from gitops_ml.ship.settings import DeploymentError

ATTEMPTS = 5
SHORT = 12
# The trailer of a commit by which a person keeps deliveries from what is running.
HELD = "Held"

T = TypeVar("T")

# Judges what the branch runs now (None if nothing that can be read), and raises to leave it so.
Decide = Callable[[Release | None], None]


class MovedError(DeploymentError):
    """The environment runs something else in the meantime."""


@dataclass(frozen=True)
class Revision:
    """One commit of an environment branch.

    Attributes:
        commit: Its hash.
        tree: The hash of all its files.
        subject: The first line of its message.
        release: Its `release.json`; None if it has none that can be read.
    """

    commit: str
    tree: str
    subject: str
    release: dict[str, Any] | None

    @property
    def tag(self) -> str:
        """The tag of its release, empty if unknown."""
        return str((self.release or {}).get("release", ""))


class EnvironmentBranch:
    """The branch that says what an environment runs.

    What is read is the remote's state of the last `fetch`.

    Args:
        root: A folder of the working tree.
        environment: Its name.
        remote: The git remote's name.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        root: Path,
        environment: str,
        remote: str = "origin",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.environment = environment
        self.name = f"env/{environment}"
        self.repository = Repository(root, remote)
        self._sleep = sleep

    def fetch(self) -> None:
        """Fetch the branch; it need not exist.

        Raises:
            GitError: If the remote cannot be reached, or does not let us read.
        """
        self._patiently(lambda: self.repository.fetch_branch(self.name), UnreachableError)

    def head(self) -> str | None:
        """The newest commit; None if there is none."""
        return self.repository.find(f"refs/remotes/{self.repository.remote}/{self.name}")

    def read(self, name: str, revision: str | None = None) -> bytes | None:
        """A file of the branch; None if it is not there, or is something else.

        Args:
            name: Of the file.
            revision: A commit of the branch, the newest by default.
        """
        commit = revision or self.head()
        found = self.repository.find(f"{commit}:{name}") if commit else None
        # A folder of that name, or a submodule, is no file.
        blob = self.repository.find(f"{found}^{{blob}}") if found else None
        return None if blob is None else self.repository.run("cat-file", "blob", blob)

    def release(self, revision: str | None = None) -> Release | None:
        """What the environment runs; None if nothing was ever released to it.

        Args:
            revision: A commit of the branch, the newest by default.

        Raises:
            ReleaseError: If `release.json` is missing or malformed, naming branch and commit.
        """
        commit = revision or self.head()
        if commit is None:
            return None
        where = f"{self.name} at {commit[:SHORT]}: {RELEASE}"
        text = self.read(RELEASE, commit)
        if text is None:
            raise ReleaseError(f"{where}: no such file")
        return parse_release(text, where)

    def held(self) -> bool:
        """Whether a person brought back what the environment runs, so that it is to stay."""
        head = self.head()
        if head is None:
            return False
        value = f"--format=%(trailers:key={HELD},valueonly)"
        return bool(self.repository.run("log", "-1", "--no-show-signature", value, head).strip())

    def history(self) -> list[Revision]:
        """Every commit, newest first."""
        head = self.head()
        if head is None:
            return []
        listed = self.repository.run(
            *("log", "--first-parent", "--no-show-signature", "--format=%H%x00%T%x00%s"), head
        )
        lines = listed.decode(errors="replace").splitlines()
        commits = [line.split("\0", 2) for line in lines]
        releases = self._releases([commit for commit, _, _ in commits])
        return [
            Revision(commit, tree, subject, release)
            for (commit, tree, subject), release in zip(commits, releases, strict=True)
        ]

    def publish(self, files: Mapping[str, bytes], message: str, decide: Decide) -> str:
        """Make these files the whole of the branch.

        Args:
            files: The content of each by its name.
            message: Of the commit.
            decide: Asked before every attempt, so also about what others have released meanwhile.

        Returns:
            The branch's newest commit, which is the old one if it has these files already.

        Raises:
            OvertakenError: If others were faster, again and again.
            RefusedError: If the remote does not take the push.
            UnreachableError: If the remote does not answer.
            GitError: If git fails otherwise.
            Exception: What `decide` raises.
        """
        return self._advance(self._write(files), message, decide)

    def restore(self, revision: Revision, message: str, decide: Decide, held: bool = False) -> str:
        """Make the files of an earlier commit the whole of the branch; else like `publish`.

        Args:
            revision: The earlier commit.
            message: Of the new one.
            decide: As for `publish`.
            held: Whether the message holds what runs: then a branch that has these files already
                gets a commit that says so.
        """
        return self._advance(revision.tree, message, decide, held)

    def _advance(self, tree: str, message: str, decide: Decide, held: bool = False) -> str:
        sent: list[str] = []
        return self._patiently(
            lambda: self._try(tree, message, decide, held, sent), OvertakenError, UnreachableError
        )

    def _patiently(self, task: Callable[[], T], *passing: type[GitError]) -> T:
        """Do something that may fail for the moment, several times if need be."""
        return patiently(
            task,
            lambda error: isinstance(error, passing),
            ATTEMPTS,
            # With chance in it, so that two that collided do not collide again.
            lambda attempt, _: doubling(attempt) * random.uniform(0.5, 1.5),
            self._sleep,
        )

    def _try(self, tree: str, message: str, decide: Decide, held: bool, sent: list[str]) -> str:
        head = self.repository.fetch_branch(self.name)
        if head is not None and head in sent:
            # The push arrived, only the answer to it did not.
            return head
        decide(None if head is None else self._readable_release(head))
        if (
            head is not None
            and self.repository.find(f"{head}^{{tree}}") == tree
            and (self.held() or not held)
        ):
            return head
        parents = () if head is None else ("-p", head)
        written = self.repository.run(
            *("commit-tree", tree, *parents, "-F", "-"),
            data=message.encode(),
            env=self.repository.identity(),
        )
        commit = written.decode().strip()
        sent.append(commit)
        self.repository.push(commit, self.name)
        return commit

    def _readable_release(self, head: str) -> Release | None:
        """What the environment runs, where what cannot be read counts as nothing."""
        try:
            return self.release(head)
        except ReleaseError as error:
            print(f"{error}\nIt does not count, and is replaced.", file=sys.stderr)
            return None

    def _write(self, files: Mapping[str, bytes]) -> str:
        """Write files to git's store; the hash of the tree that holds them and nothing else."""
        entries = b""
        for name, content in sorted(files.items()):
            blob = self.repository.run("hash-object", "-w", "--stdin", data=content)
            entries += b"100644 %s\t%s\0" % (blob.strip(), name.encode())
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.repository.run("update-index", "-z", "--index-info", data=entries, env=index)
            return self.repository.run("write-tree", env=index).decode().strip()

    def _releases(self, commits: Sequence[str]) -> list[dict[str, Any] | None]:
        """The `release.json` of each commit, all asked of one process."""
        names = "".join(f"{commit}:{RELEASE}\n" for commit in commits)
        answer = self.repository.run("cat-file", "--batch", data=names.encode())
        releases: list[dict[str, Any] | None] = []
        while answer:
            header, _, answer = answer.partition(b"\n")
            if header.endswith(b" missing"):
                releases.append(None)
                continue
            size = int(header.rpartition(b" ")[2])
            releases.append(_object(answer[:size]))
            answer = answer[size + 1 :]
        return releases


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        content = load_json(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def commit_message(subject: str, release: Release, held: bool = False) -> str:
    """The message of a deployment, with what it deploys where programs find it.

    Args:
        subject: The first line.
        release: What is deployed.
        held: Whether it is to stay until a person delivers something else.
    """
    trailers = [f"Source: {release.commit}", f"{release.kind.title()}: {release.artifact}"]
    if held:
        trailers.append(f"{HELD}: yes")
    run = run_url()
    if run is not None:
        trailers.append(f"Run: {run}")
    return "\n".join([subject, "", *trailers]) + "\n"
