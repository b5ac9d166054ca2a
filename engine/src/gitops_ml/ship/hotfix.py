"""A hotfix: a commit that mends what production runs, while main is ahead and not to go there yet.

It is delivered from a branch `hotfix/...` that starts at the commit that production runs, with the
same proof as a commit of main: each commit since then was merged to that branch by a pull request,
GitHub holds the branch to the rules that main is held to, and the pipeline passed for its push. The
delivery itself is the same: staging first, then production.
"""

from __future__ import annotations

from urllib.parse import quote

from gitops_ml.github.client import GitHub
from gitops_ml.github.event import HOTFIX
from gitops_ml.github.pulls import was_merged
from gitops_ml.github.runs import pushed_runs
from gitops_ml.ship.environments.branches import SHORT, EnvironmentBranch
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.settings import DeploymentError

_HOW = "docs/deliver.md says how a hotfix is made"


def find_branch(repository: Repository, commit: str) -> str | None:
    """The branch for hotfixes that a commit is on; None if it is on none.

    Raises:
        GitError: If the remote cannot be reached.
    """
    for branch in repository.branches(HOTFIX):
        head = repository.fetch_branch(branch)
        if head is not None and repository.is_ancestor(commit, head):
            return branch
    return None


def check_hotfix(
    api: GitHub, name: str, repository: Repository, commit: str, branch: str, main: str
) -> str:
    """Make sure that a hotfix has the proof that a commit of main has.

    Args:
        api: GitHub.
        name: owner/name on GitHub.
        repository: The same, here.
        commit: What is to be delivered.
        branch: The branch that it is on.
        main: The branch whose rules hold.

    Returns:
        What it is based on and proved by, for people.

    Raises:
        DeploymentError: Saying what is missing.
        ReleaseError: If what production runs cannot be read.
        GitHubError: If GitHub cannot be asked.
        GitError: If the remote cannot be reached.
    """
    what = f"COMMIT is {commit}, on {branch}"
    production = EnvironmentBranch(repository.root, "production", repository.remote)
    production.fetch()
    released = production.release()
    if released is None:
        raise DeploymentError(
            f"{what}, and {production.name} is empty: there is nothing to mend; merge it to {main}"
        )
    start = released.commit
    if not repository.fetch_commit(start) or not repository.is_ancestor(start, commit):
        raise DeploymentError(
            f"{what}, which does not start at {start}, that production runs ({released.tag}): make "
            f"a branch {HOTFIX}... from that commit; {_HOW}"
        )
    since = repository.run("rev-list", "--first-parent", f"{start}..{commit}").decode().split()
    unreviewed = [one for one in since if not was_merged(api, name, one, branch)]
    if unreviewed:
        raise DeploymentError(
            f"{what}: {', '.join(one[:SHORT] for one in unreviewed)} was merged to {branch} by no "
            f"pull request, so nobody has reviewed it; {_HOW}"
        )
    missing = sorted(_rules(api, name, main) - _rules(api, name, branch))
    if missing:
        raise DeploymentError(
            f"{what}: GitHub holds {main} to rules that it does not hold {branch} to: "
            f"{', '.join(missing)}; `make github-setup APPLY=1` sets them for {HOTFIX}**"
        )
    runs = pushed_runs(api, name, branch, head_sha=commit, status="success")
    if not any(run["head_sha"] == commit and run["conclusion"] == "success" for run in runs):
        raise DeploymentError(
            f"{what}: the pipeline has not passed for its push: wait for it, or mend what is red"
        )
    return f"a hotfix of {released.tag}, proved on {branch}"


def _rules(api: GitHub, name: str, branch: str) -> set[str]:
    """The kinds of rules that GitHub holds a branch to.

    https://docs.github.com/en/rest/repos/rules#get-rules-for-a-branch
    """
    path = f"/repos/{name}/rules/branches/{quote(branch, safe='')}"
    return {str(rule["type"]) for rule in api.items(path)}
