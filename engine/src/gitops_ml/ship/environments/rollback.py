"""Roll an environment back: a new commit on its branch with all the files of an earlier one.

    gitops-ml rollback --environment production --to previous
    gitops-ml rollback --environment staging --failed

By hand with `--to`: a release's tag, a commit of the branch (8 characters or more), or `previous`.
What a person rolled back to stays: the deliveries after it pass the environment by, until a person
starts one.
With `--failed`, after a probe that failed: away from the release of `build/release`, if that still
runs, to the one before; the evidence goes to a GitHub issue. Code, model, data version and
what is deployed go back together, since one commit names them all. Tells later steps `revision`,
the branch's commit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.github.client import GitHubError, NotSetUpError, connect
from gitops_ml.ship.environments.branches import (
    Decide,
    EnvironmentBranch,
    MovedError,
    Revision,
    commit_message,
)
from gitops_ml.ship.environments.incident import Incident, read_evidence, report
from gitops_ml.ship.release.release import Release, ReleaseError, read_next
from gitops_ml.ship.settings import (
    DeploymentError,
    Environment,
    parse_environment,
    tell_skipped,
    write_outputs,
)

PREVIOUS = "previous"
# Fewer characters of a commit may stand for another one tomorrow.
SHORTEST_COMMIT = 8
SHOWN = 10


class NoReleaseError(DeploymentError):
    """There is no such earlier release to go back to."""


@dataclass(frozen=True)
class Rollback:
    """What came of it.

    Attributes:
        revision: The branch's newest commit.
        release: What the environment is now to run.
    """

    revision: str
    release: Release


def previous(history: Sequence[Revision]) -> Revision:
    """What ran before the newest of these revisions.

    A rollback stands for the revision whose files it brought back, so that rolling back twice goes
    back twice, and never forward to what was rolled back from.

    Args:
        history: Newest first.

    Raises:
        NoReleaseError: If there is nothing before.
    """
    place = 0
    for number, revision in enumerate(history):
        if revision.tree == history[place].tree:
            place = number
    for revision in history[place + 1 :]:
        if revision.release is not None:
            return revision
    raise NoReleaseError("nothing was released before: there is no earlier release to go back to")


def find_target(history: Sequence[Revision], to: str) -> Revision:
    """The revision that a person means.

    Args:
        history: Newest first.
        to: A release's tag or the part of it after the colon, a commit, or `previous`.

    Raises:
        NoReleaseError: If there is none, naming those that there are.
    """
    if to == PREVIOUS:
        return previous(history)
    for revision in history:
        if revision.tag and to in {revision.tag, revision.tag.partition(":")[2]}:
            return revision
    commits = [r for r in history if len(to) >= SHORTEST_COMMIT and r.commit.startswith(to)]
    if len(commits) == 1:
        return commits[0]
    known = [f"  {r.commit[:12]}  {r.tag}  ({r.subject})" for r in history[:SHOWN] if r.tag]
    raise NoReleaseError(
        f"TO is {to!r}, which is neither a release nor a commit of the branch; the newest are:\n"
        + "\n".join(known)
    )


def roll_back(branch: EnvironmentBranch, to: str) -> Rollback:
    """Bring back an earlier release, whatever runs; it stays until a person delivers another.

    Raises:
        NoReleaseError: If there is no such release.
        ReleaseError: If its `release.json` is malformed.
        GitError: If git fails, or the remote does not take the push.
    """
    branch.fetch()
    target = find_target(_history(branch), to)
    # Which one is `previous` depends on what runs, so that must not have changed.
    start = branch.head()

    def unmoved(_: Release | None) -> None:
        if to == PREVIOUS and branch.head() != start:
            raise MovedError(
                f"{branch.name} has moved from {start} to {branch.head()} in the meantime; look "
                "what runs there, then roll back again"
            )

    return _restore(branch, target, unmoved, held=True)


def revert(branch: EnvironmentBranch, failed: Release) -> Rollback | None:
    """Bring back what ran before a release that failed.

    Returns:
        None if that release no longer runs, so that there is nothing to do.

    Raises:
        NoReleaseError: If nothing ran before.
        ReleaseError: If what ran before has a malformed `release.json`.
        GitError: If git fails, or the remote does not take the push.
    """
    branch.fetch()
    if not _runs(branch, failed):
        return None

    def still_failed(current: Release | None) -> None:
        if current is None or not current.same_as(failed):
            raise MovedError(f"{branch.name} no longer runs {failed.tag}")

    try:
        return _restore(branch, previous(_history(branch)), still_failed)
    except MovedError:
        return None


def _runs(branch: EnvironmentBranch, release: Release) -> bool:
    try:
        current = branch.release()
    except ReleaseError:
        return False
    return current is not None and current.same_as(release)


def _history(branch: EnvironmentBranch) -> list[Revision]:
    history = branch.history()
    if not history:
        raise NoReleaseError(f"{branch.name} is empty: nothing was released yet")
    return history


def _restore(
    branch: EnvironmentBranch, target: Revision, decide: Decide, held: bool = False
) -> Rollback:
    release = branch.release(target.commit)
    if release is None:
        raise NoReleaseError(f"{branch.name} is empty: nothing was released yet")
    subject = f"Roll {branch.environment} back to {release.tag}"
    revision = branch.restore(target, commit_message(subject, release, held), decide, held)
    return Rollback(revision, release)


def revert_and_report(root: Path, environment: Environment) -> int:
    """Roll back from the release of `build/release` and say so in an issue.

    Returns:
        The exit code: 0 if the release that failed does not run any more.

    Raises:
        ReleaseError: If `build/release` is missing or malformed.
        GitError: If git fails, or the remote does not take the push.
    """
    failed, _ = read_next(root)
    branch = EnvironmentBranch(root, environment)
    back: Rollback | None = None
    try:
        back = revert(branch, failed)
        if back is None:
            print(f"{branch.name} does not run {failed.tag}: there is nothing to roll back.")
            write_outputs(revision=branch.head() or "")
            return 0
        outcome = f"{branch.name} at {back.revision} runs {back.release.tag} again"
        print(f"{outcome}.")
        write_outputs(revision=back.revision)
    except (NoReleaseError, ReleaseError) as error:
        outcome = f"{branch.name} was left as it is: {error}"
        print(outcome, file=sys.stderr)
    incident = Incident(
        environment=environment,
        failed=failed,
        back=None if back is None else back.release,
        outcome=outcome,
        evidence=read_evidence(root),
    )
    _tell(root, incident)
    return 0 if back else 1


def _tell(root: Path, incident: Incident) -> None:
    """Report the incident; a GitHub that does not take it undoes no rollback."""
    try:
        api, repository = connect(root)
        print(report(api, repository, incident))
    except NotSetUpError as error:
        tell_skipped(f"the issue about the rollback ({error})", "see `make doctor`")
    except GitHubError as error:
        print(f"The issue about the rollback could not be written: {error}", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--environment", required=True, help="staging or production")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--to", help="a release's tag, a commit of the branch, or `previous`")
    which.add_argument(
        "--failed", action="store_true", help="away from the release of build/release"
    )


def run(options: argparse.Namespace) -> int:
    """Roll back; 0 when the environment runs an earlier release, 1 when it could not."""
    root = Path.cwd()
    environment = parse_environment(options.environment)
    if options.failed:
        return revert_and_report(root, environment)
    branch = EnvironmentBranch(root, environment)
    back = roll_back(branch, options.to)
    write_outputs(revision=back.revision)
    print(f"{branch.name} at {back.revision} runs {back.release.tag} ({back.release.artifact})")
    return 0
