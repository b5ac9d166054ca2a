"""Promote a release: render its manifests and put them on the branch of an environment.

    gitops-ml release --environment staging

Takes `build/release`. Nothing older replaces something newer, and nothing replaces what a person
rolled back to, unless a person chose it, and saw what it replaces: SEEN is the branch's commit at
that moment. Production gets what runs on staging, or nothing. To run it twice is to run it once.
Tells later steps `released` (true or false) and `revision` (the branch's commit).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops_ml.github.workflow_run import variable
from gitops_ml.ship import targets
from gitops_ml.ship.environments.branches import Decide, EnvironmentBranch, commit_message
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.release.release import Release, ReleaseError, read_next
from gitops_ml.ship.settings import (
    DeploymentError,
    Environment,
    chosen_by_hand,
    parse_environment,
    service_url,
    tell_skipped,
    write_outputs,
)

Render = Callable[[Path, str, Mapping[str, Any]], dict[str, bytes]]


_IF_IT_FAILS = "run the workflow Deliver by hand for this commit, should the newer one fail"
_BY_HAND = "run the workflow Deliver by hand"


class StaysError(DeploymentError):
    """What runs is to stay: there is nothing to release.

    Args:
        message: What is left out, and why.
        remedy: What releases it all the same.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Promotion:
    """What came of it.

    Attributes:
        released: Whether the environment is now to run the release.
        revision: The branch's newest commit.
        said: What to tell people.
    """

    released: bool
    revision: str
    said: str


def promote(root: Path, environment: Environment, render: Render | None = None) -> Promotion:
    """Put the release of `build/release` on the branch of an environment.

    Args:
        root: The project's folder.
        environment: Where it shall run.
        render: Makes the manifests of a release.

    Raises:
        DeploymentError: If the address of the environment's service is none: it could not be
            probed.
        ReleaseError: If the release is missing or malformed.
        DeploymentError: If production would get what staging does not run.
        DeploymentError: If the manifests cannot be rendered.
        GitError: If git fails, or the remote does not take the push.
    """
    service_url(environment)
    release, files = read_next(root)
    branch = EnvironmentBranch(root, environment)
    try:
        if environment == "production":
            check_proved(EnvironmentBranch(root, "staging"), release)
        manifests = (render or targets.chosen(root).render)(root, environment, release.content)
        twice = sorted(manifests.keys() & files.keys())
        if twice:
            raise DeploymentError(f"{', '.join(twice)} is no name for what is rendered")
        message = commit_message(f"Release {release.tag} to {environment}", release)
        revision = branch.publish({**manifests, **files}, message, _stays(branch, release))
    except StaysError as stays:
        tell_skipped(str(stays), stays.remedy)
        return Promotion(False, branch.head() or "", str(stays))
    return Promotion(
        True, revision, f"{branch.name} at {revision} runs {release.tag} ({release.artifact})"
    )


def _stays(branch: EnvironmentBranch, release: Release) -> Decide:
    """Raises StaysError if what runs is newer than a release, or was put there by a person.

    Except where another person chose the release, and what runs has not changed since.
    """

    def decide(current: Release | None) -> None:
        if current is None or current.same_as(release):
            return
        if chosen_by_hand() and branch.head() == variable("SEEN"):
            return
        if is_newer(branch.repository, current.commit, release.commit):
            raise StaysError(
                f"the release of {release.tag} to {branch.environment}, since {branch.name} runs "
                f"{current.tag}, which is newer",
                _IF_IT_FAILS,
            )
        if branch.held():
            raise StaysError(
                f"the release of {release.tag} to {branch.environment}, which a person rolled back "
                f"to {current.tag}",
                _BY_HAND,
            )

    return decide


def check_proved(staging: EnvironmentBranch, release: Release) -> None:
    """Make sure that staging runs the very model, deployed as the very artifact.

    Raises:
        StaysError: If it runs something newer, or what a later delivery made of the same commit:
            that will be proved in its turn.
        DeploymentError: If it does not.
        ReleaseError: If what staging runs cannot be read.
        GitError: If the remote cannot be reached.
    """
    staging.fetch()
    proved = staging.release()
    if proved is None:
        raise DeploymentError(
            f"production only receives what staging proved, and {staging.name} is empty: release "
            f"{release.tag} to staging first"
        )
    if (proved.digest, proved.model) != (release.digest, release.model):
        if is_newer(staging.repository, proved.commit, release.commit):
            raise StaysError(
                f"the release of {release.tag} to production, since {staging.name} runs "
                f"{proved.tag}, which is newer and goes on when it is proved",
                _IF_IT_FAILS,
            )
        if _ran(staging, release) and proved.commit == release.commit:
            raise StaysError(
                f"the release of {release.tag} to production, since a later delivery of the same "
                f"commit gave {staging.name} {proved.tag} ({proved.kind} {proved.digest}), which "
                "goes on when it is proved",
                _IF_IT_FAILS,
            )
        raise DeploymentError(
            f"production only receives what staging proved: {staging.name} runs {proved.tag} "
            f"({proved.kind} {proved.digest}, model {proved.model}), not {release.tag} "
            f"({release.kind} {release.digest}, model {release.model}); "
            "release that to staging first"
        )


def _ran(staging: EnvironmentBranch, release: Release) -> bool:
    """Whether staging ever ran the very model, deployed as the very artifact."""
    for revision in staging.history():
        with suppress(ReleaseError):
            ran = staging.release(revision.commit)
            if ran is not None and (ran.digest, ran.model) == (release.digest, release.model):
                return True
    return False


def is_newer(repository: Repository, commit: str, other: str) -> bool:
    """Whether a commit comes after another; one that the remote has no more does not.

    Raises:
        DeploymentError: If the history here does not tell.
    """
    if commit == other or not repository.fetch_commit(commit):
        return False
    if not repository.fetch_commit(other):
        raise DeploymentError(
            f"the release's commit {other} is neither here nor on {repository.remote}: push it"
        )
    if repository.is_ancestor(other, commit):
        return True
    if repository.is_shallow():
        raise DeploymentError(
            f"this clone lacks the history to tell whether {commit} is newer than {other}: run "
            "`git fetch --unshallow`; in a workflow, check out with `fetch-depth: 0`"
        )
    return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--environment", required=True, help="staging or production")


def run(options: argparse.Namespace) -> int:
    """Promote; 0 also when something newer runs there, 1 when it failed."""
    done = promote(Path.cwd(), parse_environment(options.environment))
    write_outputs(released=done.released, revision=done.revision)
    if done.released:
        print(done.said)
    return 0
