"""Issues, as GitHub remembers them.

https://docs.github.com/en/rest/issues/issues
"""

from __future__ import annotations

from typing import Any

from gitops_ml.github.client import GitHub


def open_issue(api: GitHub, repository: str, label: str, mark: str) -> dict[str, Any] | None:
    """The open issue with a label and, in its text, a mark; the oldest, should there be several.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    issues = [
        issue
        for issue in api.items(f"/repos/{repository}/issues", state="open", labels=label)
        if "pull_request" not in issue and mark in (issue["body"] or "")
    ]
    return min(issues, key=lambda issue: int(issue["number"]), default=None)
