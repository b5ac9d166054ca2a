"""The event that a workflow runs for, as GitHub describes it to every step.

The runner names a file with the event's payload in GITHUB_EVENT_PATH:
https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.run import ask

# The branches for what mends production while main is ahead begin so.
HOTFIX = "hotfix/"
_HEADS = "refs/heads/"
_USUAL = ("main", "master")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class EventError(GitopsError):
    """The event cannot be read or lacks something; the message says what."""


@dataclass(frozen=True)
class Event:
    """What a workflow runs for.

    Attributes:
        name: For example `pull_request`.
        payload: As GitHub sent it.
    """

    name: str
    payload: Mapping[str, Any]

    def find(self, path: str) -> Any:
        """A value inside the payload, e.g. `pull_request.base.sha`; None if it is not there."""
        value: Any = self.payload
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def get(self, path: str) -> Any:
        """Like `find`, for what must be there.

        Raises:
            EventError: If it is not there.
        """
        value = self.find(path)
        if value is None:
            raise EventError(f"the payload of the event {self.name} has no {path}")
        return value

    def commit(self, path: str) -> str:
        """The hash of a commit inside the payload.

        Raises:
            EventError: If it is not there, or is none.
        """
        commit = self.get(path)
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise EventError(f"the event {self.name}: {path} is {commit!r}, not a commit")
        return commit

    @property
    def default_branch(self) -> str:
        """The branch that others are judged against.

        Raises:
            EventError: If the payload does not name it.
        """
        branch = self.find("repository.default_branch")
        if branch is None and self.name == "schedule":
            # A schedule runs on the default branch.
            branch = os.environ.get("GITHUB_REF_NAME")
        return str(branch or self.get("repository.default_branch"))

    @property
    def delivered_branch(self) -> str | None:
        """The branch that commits were pushed to, if such are delivered; else None.

        Those of the default branch, and of the branches for hotfixes.
        """
        if self.name != "push":
            return None
        ref = str(self.get("ref"))
        branch = ref.removeprefix(_HEADS)
        return branch if self.is_delivered(branch) and ref.startswith(_HEADS) else None

    @property
    def target(self) -> str:
        """The branch whose history says what the change is judged against.

        A pull request to a branch that is not delivered is judged as if it were to the default
        branch: its check is one of a commit, and stays when somebody chooses that one instead.
        """
        into = self.find("pull_request.base.ref") or self.delivered_branch
        return str(into) if into and self.is_delivered(str(into)) else self.default_branch

    def is_delivered(self, branch: str) -> bool:
        """Whether a branch is the default branch, or one for a hotfix."""
        return branch == self.default_branch or branch.startswith(HOTFIX)


def read_event() -> Event:
    """Read the event of this workflow run.

    Raises:
        EventError: If this is no workflow run, or the file cannot be read.
    """
    name, path = os.environ.get("GITHUB_EVENT_NAME"), os.environ.get("GITHUB_EVENT_PATH")
    if not name or not path:
        raise EventError(
            "GITHUB_EVENT_NAME and GITHUB_EVENT_PATH are not set: this is no workflow run"
        )
    try:
        payload = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EventError(f"GITHUB_EVENT_PATH is {path}: cannot be read: {error}") from error
    if not isinstance(payload, dict):
        raise EventError(f"GITHUB_EVENT_PATH is {path}: must hold a JSON object")
    return Event(name, payload)


def default_branch(root: Path) -> str:
    """The name of the default branch: what a workflow's event says, else what git knows of origin.

    Where nobody says, as in a repository that was not cloned, it is taken to be the one that is
    there of those that GitHub and git give to a new repository.
    """
    try:
        return read_event().default_branch
    except EventError:
        pass
    told = ask(root, "git", "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
    if told:
        return told.removeprefix("origin/")
    for name in _USUAL:
        for reference in (f"refs/remotes/origin/{name}", f"refs/heads/{name}"):
            if ask(root, "git", "rev-parse", "--verify", "--quiet", reference):
                return name
    return _USUAL[0]


def named_base(event: Event) -> str:
    """The git revision that the event's change starts from, whatever became of it.

    A pull request to a branch that is delivered, and a merge group, name theirs. A push to the
    default branch, or to one for a hotfix, starts from what the branch held before (nothing but
    zeros when it is new), and everything else from the default branch. What is judged against is
    another matter: see `passed.base_of`.

    Raises:
        EventError: If the payload does not say.
    """
    into = event.find("pull_request.base.ref")
    if event.name == "pull_request" and (into is None or event.is_delivered(into)):
        return event.commit("pull_request.base.sha")
    if event.name == "merge_group":
        return event.commit("merge_group.base_sha")
    if event.delivered_branch is not None:
        return event.commit("before")
    return f"origin/{event.default_branch}"
