"""Pull requests, as GitHub remembers them.

https://docs.github.com/en/rest/commits/commits#list-pull-requests-associated-with-a-commit
"""

from __future__ import annotations

from gitops_ml.github.client import GitHub


def was_merged(api: GitHub, repository: str, commit: str, branch: str) -> bool:
    """Whether a commit is what a pull request to a branch was merged as.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    return any(
        pull["merged_at"] and pull["merge_commit_sha"] == commit and pull["base"]["ref"] == branch
        for pull in api.items(f"/repos/{repository}/commits/{commit}/pulls")
    )
