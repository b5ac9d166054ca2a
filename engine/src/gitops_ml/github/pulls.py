"""Pull requests, as GitHub remembers them.

https://docs.github.com/en/rest/commits/commits#list-pull-requests-associated-with-a-commit
"""

from __future__ import annotations

from typing import Any

from gitops_ml.github.client import GitHub


def was_merged(api: GitHub, repository: str, commit: str, branch: str) -> bool:
    """Whether a commit is what a pull request to a branch was merged as.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    return any(
        pull["merge_commit_sha"] == commit and pull["base"]["ref"] == branch
        for pull in _merged(api, repository, commit)
    )


def came_along(api: GitHub, repository: str, commit: str) -> bool:
    """Whether a merge brought a commit along, so that no branch that it was merged to held it.

    Who made it may have pushed it wherever they like before, with a workflow of their own: also as
    a tag that has the name of the default branch, which GitHub tells of like a branch.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    merged = _merged(api, repository, commit)
    return bool(merged) and all(pull["merge_commit_sha"] != commit for pull in merged)


def _merged(api: GitHub, repository: str, commit: str) -> list[Any]:
    """The merged pull requests with a commit in them, or whose merge it is."""
    pulls = api.items(f"/repos/{repository}/commits/{commit}/pulls")
    return [pull for pull in pulls if pull["merged_at"]]
