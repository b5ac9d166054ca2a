"""Choose the commit to deliver, and tell whether it can be.

    gitops-ml plan                      # the commit that is checked out
    gitops-ml plan --commit 0a1b2c3d    # another one of the default branch
    gitops-ml plan --commit newest      # of the default branch, whose pipeline passed
    gitops-ml plan --commit hotfix/one  # the newest of a branch for a hotfix

Only what was merged to the default branch is delivered, or a hotfix with the same proof
(`ship/hotfix.py`): what is chosen here is checked out and run by jobs that may write. A release is
made of what git names. Where `dvc.lock` was never committed, git names no model: the pipeline still
trains and judges one, but nothing is delivered, and that is said. Tells later steps `deliverable`
(true or false), `commit`, whole, and for a commit that was named the newest commit of each
environment's branch under the environment's name: what a person who starts a delivery means to
replace.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.git import below_the_top
from gitops_ml.github.client import GitHub, connect
from gitops_ml.github.event import HOTFIX, default_branch
from gitops_ml.github.pulls import came_along
from gitops_ml.github.runs import pushed_runs
from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.hotfix import check_hotfix, find_branch
from gitops_ml.ship.settings import ENVIRONMENTS, DeploymentError, tell_skipped, write_outputs

NEWEST = "newest"
_HASH = re.compile(r"[0-9a-f]{40}")


def newest_passed(api: GitHub, repository: str, branch: str) -> str:
    """The newest commit that was pushed to a branch and whose pipeline passed.

    Raises:
        GitHubError: If GitHub cannot be asked.
        DeploymentError: If there is none.
    """
    for run in pushed_runs(api, repository, branch, status="success"):
        if run["conclusion"] == "success":
            return str(run["head_sha"])
    raise DeploymentError(
        f"the pipeline has passed for no push to {branch} yet, as far as GitHub remembers: push, "
        "or run it again, and wait for its end"
    )


def find_commit(root: Path, wanted: str | None, branch: str) -> str:
    """The whole hash of the commit that is meant.

    Args:
        root: A folder of the working tree.
        wanted: A revision of git; None for what is checked out.
        branch: The default branch.

    Raises:
        DeploymentError: If there is none, or if it is named, was not merged to main, and is no
            hotfix with the same proof.
        GitHubError: If GitHub cannot be asked about a hotfix.
        GitError: If the remote cannot be reached.
    """
    repository = Repository(root)
    if wanted is None:
        commit = repository.find("HEAD^{commit}")
        if commit is None:
            raise DeploymentError("there is no commit to deliver; commit first (`git commit`)")
        return commit
    main = repository.fetch_branch(branch)
    if main is None:
        raise DeploymentError(
            f"{repository.remote} has no branch {branch}: push it first, or, if the default branch "
            f"has another name, `git remote set-head {repository.remote} --auto`"
        )
    if _HASH.fullmatch(wanted):
        repository.fetch_commit(wanted)
    if wanted.startswith(HOTFIX):
        commit = repository.fetch_branch(wanted)
    else:
        commit = repository.find(f"{wanted}^{{commit}}")
    if commit is None:
        raise DeploymentError(
            f"COMMIT is {wanted!r}: git knows no such commit; name one of {branch}"
        )
    if not repository.is_ancestor(commit, main):
        hotfix = find_branch(repository, commit)
        if hotfix is not None:
            api, name = connect(root)
            print(f"{commit} is {check_hotfix(api, name, repository, commit, hotfix, branch)}")
            return commit
        unshallow = "; this clone is shallow: run `git fetch --unshallow`"
        raise DeploymentError(
            f"COMMIT is {wanted!r}, the commit {commit}, which is not on {branch}: only what was "
            f"merged is delivered{unshallow if repository.is_shallow() else ''}"
        )
    if commit not in repository.run("rev-list", "--first-parent", main).decode().split():
        api, name = connect(root)
        if came_along(api, name, commit):
            raise DeploymentError(
                f"COMMIT is {wanted!r}, the commit {commit}, which a pull request brought along: "
                f"{branch} never held it, and its runs prove nothing. Name the merge"
            )
    return commit


def environment_heads(root: Path) -> dict[str, str]:
    """The newest commit of each environment's branch; empty where there is none.

    Raises:
        GitError: If the remote cannot be reached.
    """
    heads: dict[str, str] = {}
    for environment in ENVIRONMENTS:
        branch = EnvironmentBranch(root, environment)
        branch.fetch()
        heads[environment] = branch.head() or ""
    return heads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--commit",
        help=f"of the default branch, or `{NEWEST}`: whose pipeline passed; or {HOTFIX}NAME "
        "(default: HEAD)",
    )


def run(options: argparse.Namespace) -> int:
    """Look; 0 whether or not there is something to deliver."""
    wanted = options.commit
    root = Path.cwd()
    branch = default_branch(root)
    if wanted == NEWEST:
        wanted = newest_passed(*connect(root), branch)
    commit = find_commit(root, wanted, branch)
    heads = environment_heads(root) if wanted is not None else {}
    # Beside us, which need not be at the top.
    found = Repository(root).find(f"{commit}:./{paths.DVC_LOCK}") is not None
    advice = below_the_top(root)
    if advice is not None:
        print(f"warning: {advice}", file=sys.stderr)
    write_outputs(commit=commit, deliverable=found, **heads)
    if not found:
        tell_skipped(
            f"the delivery of {commit[:8]}, which names no model",
            f"`make pipeline`, then commit `{paths.DVC_LOCK}` and `reports/`, and push",
        )
    if found:
        print(f"{commit} is to be delivered")
    return 0
