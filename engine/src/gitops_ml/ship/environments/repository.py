"""Git for the environment branches: never the working tree, never a prompt, every failure named."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from gitops_ml.core.git import GitError
from gitops_ml.core.run import NoEndError, run_bytes, said
from gitops_ml.github.client import GitHubError, connect, parse_remote
from gitops_ml.github.settings import DELIVERY_KEY
from gitops_ml.github.workflow_run import github_server, variable

# A transfer that takes longer is stuck.
TRANSFER_SECONDS = 300
SAID_LENGTH = 2000

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Git's words, and those of servers, for a branch that somebody else has moved in the meantime.
_OVERTAKEN = re.compile(
    r"\[rejected\]|cannot lock ref|failed to update ref|reference already exists|"
    r"incorrect old value"
)
_NO_COMMIT = re.compile(r"not our ref|couldn't find remote ref")
_NO_PERMISSION = re.compile(
    r"returned error: 40[13]|Permission .*denied|permission denied|Authentication failed|"
    r"[Ww]rite access|could not read (?:Username|Password)|not granted"
)
_GITHUB_BOT = {
    "NAME": "github-actions[bot]",
    "EMAIL": "41898282+github-actions[bot]@users.noreply.github.com",
}


class OvertakenError(GitError):
    """Somebody else has pushed in the meantime."""


class UnreachableError(GitError):
    """The remote does not answer."""


class RefusedError(GitError):
    """The remote answers, and does not take the push."""


class Repository:
    """The repository of a folder, and one remote of it.

    Args:
        root: A folder of the working tree.
        remote: The remote's name.
    """

    def __init__(self, root: Path, remote: str = "origin") -> None:
        self.root = root
        self.remote = remote

    def run(
        self, *arguments: str, data: bytes = b"", env: Mapping[str, str] | None = None
    ) -> bytes:
        """What a git command prints.

        Raises:
            GitError: If it fails.
        """
        done = self._git(*arguments, data=data, env=env)
        if done.returncode != 0:
            raise GitError(f"`git {arguments[0]}` failed: {said(done)}")
        return done.stdout

    def find(self, revision: str) -> str | None:
        """The hash of the object that a revision names; None if it is not here."""
        done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", revision)
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def identity(self) -> dict[str, str]:
        """Variables that say who commits: git's own settings, else the workflow's account.

        Raises:
            GitError: If there is neither.
        """
        known = self._git("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
        if known.returncode == 0:
            return {}
        if os.environ.get("GITHUB_ACTIONS") != "true":
            raise GitError(
                "git does not know who you are: run `git config user.name ...` and "
                "`git config user.email ...`"
            )
        return {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in _GITHUB_BOT.items()
        }

    def fetch_branch(self, branch: str) -> str | None:
        """Fetch a branch of the remote.

        Returns:
            Its commit; None if the remote has no such branch.

        Raises:
            GitError: If the remote cannot be reached, or does not let us read.
        """
        ref, tracking = f"refs/heads/{branch}", f"refs/remotes/{self.remote}/{branch}"
        listed = self._transfer("ls-remote", self.remote, ref)
        if listed.returncode != 0:
            raise self._failure(listed, f"fetch {branch} from")
        # Longer names that end alike are listed too.
        lines = (line.split("\t") for line in listed.stdout.decode().splitlines())
        commit = next((found for found, name in lines if name == ref), None)
        if commit is None:
            self._git("update-ref", "-d", tracking)
            return None
        if commit == self.find(tracking):
            return commit
        # Not the listed commit: the branch may have moved since.
        fetched = self._fetch(f"+{ref}:{tracking}")
        if fetched.returncode != 0:
            raise self._failure(fetched, f"fetch {branch} from")
        return self.find(tracking)

    def branches(self, prefix: str) -> list[str]:
        """The names of the remote's branches that begin so.

        Raises:
            GitError: If the remote cannot be reached, or does not let us read.
        """
        listed = self._transfer("ls-remote", self.remote, f"refs/heads/{prefix}*")
        if listed.returncode != 0:
            raise self._failure(listed, f"list {prefix}* of")
        names = (line.partition("\t")[2] for line in listed.stdout.decode().splitlines())
        # Longer names that end alike are listed too.
        heads = (name.removeprefix("refs/heads/") for name in names)
        return sorted(name for name in heads if name.startswith(prefix))

    def fetch_commit(self, commit: str) -> bool:
        """Make sure that a commit is here; False if the remote does not have it either.

        Raises:
            GitError: If the remote cannot be reached, or does not let us read.
        """
        if self.find(f"{commit}^{{commit}}") is not None:
            return True
        done = self._fetch(commit)
        if done.returncode != 0 and not _NO_COMMIT.search(said(done)):
            raise self._failure(done, f"fetch {commit} from")
        return done.returncode == 0

    def is_shallow(self) -> bool:
        """Whether the history was cut off when it was cloned."""
        return self.run("rev-parse", "--is-shallow-repository").strip() == b"true"

    def is_ancestor(self, commit: str, other: str) -> bool:
        """Whether a commit is in the history of another; both must be here.

        Raises:
            GitError: If git cannot tell.
        """
        done = self._git("merge-base", "--is-ancestor", commit, other)
        if done.returncode not in (0, 1):
            raise GitError(f"`git merge-base` failed: {said(done)}")
        return done.returncode == 0

    def push(self, commit: str, branch: str) -> None:
        """Move a branch of the remote forward to a commit; never back, never aside.

        Raises:
            OvertakenError: If somebody else has moved it in the meantime.
            RefusedError: If the remote's rules or the token do not allow it.
            UnreachableError: If the remote does not answer.
        """
        with self._writer() as (address, env):
            done = self._transfer(
                # Hooks of the repository are for people and their branches.
                *("-c", f"core.hooksPath={os.devnull}"),
                *("push", "--porcelain", "--no-follow-tags", "--recurse-submodules=no"),
                *(address, f"{commit}:refs/heads/{branch}"),
                env=env,
            )
        if done.returncode != 0:
            raise self._failure(done, f"push {branch} to")
        self._git("update-ref", f"refs/remotes/{self.remote}/{branch}", commit)

    @contextmanager
    def _writer(self) -> Iterator[tuple[str, Mapping[str, str] | None]]:
        """Where to push, and what logs in there: the deliveries' key, if there is one.

        Raises:
            RefusedError: If GitHub does not say by what its server is known, or is not the remote.
        """
        key = variable(DELIVERY_KEY)
        if not key:
            yield self.remote, None
            return
        remote = parse_remote(self._url)
        if remote is None or remote.host != urlsplit(github_server()).hostname:
            raise RefusedError(
                f"{DELIVERY_KEY} is a key to {github_server()}, and {self.remote} is not there"
            )
        try:
            api, _ = connect(self.root)
            known = [f"{remote.host} {line}\n" for line in api.get("/meta")["ssh_keys"]]
        except (GitHubError, LookupError, TypeError) as error:
            raise RefusedError(
                f"cannot push to {self.remote}: GitHub does not say by which keys its server is "
                f"known: {error}"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            hosts, identity = Path(folder) / "hosts", Path(folder) / "key"
            hosts.write_text("".join(known), encoding="utf-8")
            identity.touch(mode=0o600)
            identity.write_text(f"{key}\n", encoding="utf-8")
            options = f"-i {identity} -oIdentitiesOnly=yes -oUserKnownHostsFile={hosts}"
            command = f"ssh -F {os.devnull} {options} -oStrictHostKeyChecking=yes -oBatchMode=yes"
            address = f"ssh://git@{remote.host}/{remote.repository}.git"
            yield address, {"GIT_SSH_COMMAND": command}

    def _fetch(self, what: str) -> subprocess.CompletedProcess[bytes]:
        return self._transfer(
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"),
            *("--recurse-submodules=no", self.remote, what),
        )

    def _failure(self, done: subprocess.CompletedProcess[bytes], what: str) -> GitError:
        """The error that git's or the server's words stand for."""
        words = said(done)
        if _OVERTAKEN.search(words):
            return OvertakenError(f"cannot {what} {self.remote}: it has moved:\n{words}")
        if "[remote rejected]" in words:
            return RefusedError(
                f"cannot {what} {self.remote}: its rules do not allow it. Where only deliveries "
                f"may push to env/**, the workflow needs the secret {DELIVERY_KEY} "
                "(docs/deliver.md), and people run the workflow; no rule that needs pull requests, "
                f"reviews or checks may cover env/**:\n{words}"
            )
        if _NO_PERMISSION.search(words):
            return RefusedError(
                f"cannot {what} {self.remote}: not permitted. In a workflow the job needs "
                "`permissions: contents: write` and GITHUB_TOKEN, or, in the secret "
                f"{DELIVERY_KEY}, the whole of a deploy key that may write:\n{words}"
            )
        return UnreachableError(f"cannot {what} {self.remote}: it cannot be reached:\n{words}")

    def _transfer(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command that talks to the remote, with what logs in there by default."""
        env = credentials(self._url) if env is None else env
        try:
            return self._git(*arguments, env=env, timeout=TRANSFER_SECONDS)
        except NoEndError as error:
            raise UnreachableError(
                f"`git {arguments[0]}`: {self.remote} does not answer for {TRANSFER_SECONDS} s"
            ) from error

    @cached_property
    def _url(self) -> str:
        done = self._git("remote", "get-url", "--push", self.remote)
        if done.returncode != 0:
            raise GitError(
                f"there is no git remote `{self.remote}`: run `git remote add {self.remote} ...`"
            )
        return done.stdout.decode().strip()

    def _git(
        self,
        *arguments: str,
        data: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        # Messages are told apart by their words: in English. Nobody is there to type a password.
        own = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        return run_bytes(
            ["git", *arguments],
            self.root,
            variables={**own, **(env or {})},
            data=data,
            timeout=timeout,
        )


def credentials(url: str) -> dict[str, str]:
    """Variables that let git log in to GitHub with GITHUB_TOKEN; none for any other remote.

    The token is in no argument, address or file. A header that is configured already, as by a
    checkout that kept its credentials, is replaced: GitHub refuses two.
    https://git-scm.com/docs/git-config#ENVIRONMENT

    Args:
        url: The remote's address.
    """
    token = os.environ.get("GITHUB_TOKEN", "").strip()
    server, remote = urlsplit(github_server()), urlsplit(url)
    if not token or (remote.scheme, remote.netloc) != (server.scheme, server.netloc):
        return {}
    if server.scheme != "https" and server.hostname not in _LOOPBACK:
        return {}
    secret = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    name = f"http.{server.scheme}://{server.netloc}/.extraheader"
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isdecimal() else 0
    return {
        "GIT_CONFIG_COUNT": str(first + 2),
        f"GIT_CONFIG_KEY_{first}": name,
        f"GIT_CONFIG_VALUE_{first}": "",
        f"GIT_CONFIG_KEY_{first + 1}": name,
        f"GIT_CONFIG_VALUE_{first + 1}": f"Authorization: Basic {secret}",
    }
