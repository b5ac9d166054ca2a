"""The model that a base records: the one of its `dvc.lock`, or of the last one that can be read.

A lock that cannot be read, such as one with the marks of a merge conflict, says nothing. It must
not keep out the change that mends it, nor make room for a model that nothing is compared with. So
the base's model is then that of the last commit before it whose lock can be read and that was not
blocked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, LockedOutput, locked_output
from gitops_ml.core.git import BaseRevision, GitError, git
from gitops_ml.github.passed import was_blocked

_SHORT = 10


@dataclass(frozen=True)
class RecordedModel:
    """A model that a base records.

    Attributes:
        base: The commit whose lock names it.
        model: What the lock says of it.
    """

    base: BaseRevision
    model: LockedOutput


def recorded_model(base: BaseRevision) -> tuple[RecordedModel | None, str | None]:
    """The base's model, and what a reader should know where its lock cannot be read.

    Returns:
        No model if neither the base nor, where its lock cannot be read, a commit before it names
        one; no sentence where the lock can be read.

    Raises:
        GitError: If the history cannot be read.
    """
    try:
        model = _model_of(base)
        return (None if model is None else RecordedModel(base, model)), None
    except DvcError as error:
        why = str(error)
    for commit in _earlier(base):
        there = replace(base, revision=commit[:_SHORT], commit=commit, fork=commit, made=None)
        try:
            model = _model_of(there)
        except DvcError:
            continue
        if was_blocked(commit, base.root):
            continue
        if model is None:
            break
        return RecordedModel(there, model), (
            f"{why}. Nothing of it is believed: everything was run, and the champion is the model "
            f"of {commit[:_SHORT]}, the last commit before whose {paths.DVC_LOCK} can be read."
        )
    return None, f"{why}. Nothing of it is believed, and no commit before names a model."


def _model_of(base: BaseRevision) -> LockedOutput | None:
    return locked_output(base.recorded(), paths.MODELS, f"{base.revision}:{paths.DVC_LOCK}")


def _earlier(base: BaseRevision) -> Iterator[str]:
    """The commits of the base's own line that changed the lock, the newest first."""
    listed = git(
        base.root,
        *("-c", "log.showSignature=false", "log", "--first-parent", "--format=%H", base.commit),
        *("--", paths.DVC_LOCK.as_posix()),
    )
    if listed.returncode != 0:
        raise GitError(f"the history of {paths.DVC_LOCK}: {listed.stderr.strip()}")
    yield from listed.stdout.split()
