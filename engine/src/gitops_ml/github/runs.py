"""The runs of the pipeline, as GitHub remembers them.

The workflow is known by its file, not by its name, which any change may give to another one.

https://docs.github.com/en/rest/actions/workflow-runs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gitops_ml.github.client import GitHub

WORKFLOW = "pipeline.yml"


def pushed_runs(
    api: GitHub, repository: str, branch: str | None, **filters: str
) -> Iterator[dict[str, Any]]:
    """The runs of the pipeline for pushes to a branch, the newest first.

    A run that ran again is one run; its conclusion is that of the last time. Of a filtered list
    GitHub shows the newest 1,000.

    Args:
        api: GitHub.
        repository: owner/name.
        branch: Its name; None for pushes to any.
        filters: What GitHub shall look for besides.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    if branch is not None:
        filters["branch"] = branch
    runs = api.items(_address(repository), "workflow_runs", event="push", **filters)
    return (
        run
        for run in runs
        if run["event"] == "push" and (branch is None or run["head_branch"] == branch)
    )


def count_runs(api: GitHub, repository: str) -> int:
    """How many runs of the pipeline there are, for whatever event.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    return int(api.get(_address(repository), per_page=1)["total_count"])


def _address(repository: str) -> str:
    return f"/repos/{repository}/actions/workflows/{WORKFLOW}/runs"
