"""Open an issue for a failed nightly run, or comment on the one that is open already.

Each workflow has an issue of its own. Reads the variables that GitHub sets in every job
(GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_RUN_ID, GITHUB_SERVER_URL, GITHUB_SHA, GITHUB_WORKFLOW)
and the token in GITHUB_TOKEN. Uses the REST API only.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

NEEDED = (
    "GITHUB_API_URL",
    "GITHUB_REPOSITORY",
    "GITHUB_RUN_ID",
    "GITHUB_SERVER_URL",
    "GITHUB_SHA",
    "GITHUB_TOKEN",
    "GITHUB_WORKFLOW",
)


class ReportError(Exception):
    """The failure could not be reported; the message says why."""


def call(method: str, path: str, body: object = None) -> Any:
    """Call the REST API of the repository and return the decoded answer.

    Raises:
        ReportError: If the API cannot be reached or answers with an error.
    """
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:500]
        raise ReportError(f"{method} {request.full_url}: HTTP {error.code}: {detail}") from error
    except OSError as error:
        raise ReportError(f"{method} {request.full_url}: {error}") from error


def title() -> str:
    """The title of the workflow's issue."""
    return f"The nightly workflow {os.environ['GITHUB_WORKFLOW']} fails"


def open_issue() -> int | None:
    """The number of the workflow's open issue, if there is one."""
    page = 1
    while issues := call("GET", f"issues?state=open&per_page=100&page={page}"):
        for issue in issues:
            if issue["title"] == title() and "pull_request" not in issue:
                return int(issue["number"])
        page += 1
    return None


def report() -> str:
    """File the failure; returns the address of the issue or of the comment.

    Raises:
        ReportError: If a variable is missing or the API does not take the report.
    """
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise ReportError(f"not set: {', '.join(missing)}")
    run = (
        f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}"
        f"/actions/runs/{os.environ['GITHUB_RUN_ID']}"
    )
    text = f"It failed at {os.environ['GITHUB_SHA']}: {run}"
    number = open_issue()
    if number is None:
        return str(call("POST", "issues", {"title": title(), "body": text})["html_url"])
    return str(call("POST", f"issues/{number}/comments", {"body": text})["html_url"])


def main() -> int:
    """Report the failure; 0 when it was filed, 1 when it could not be."""
    try:
        print(report())
    except ReportError as error:
        print(f"The failure could not be reported: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
