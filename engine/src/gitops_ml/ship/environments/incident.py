"""The issue about a release that failed where it runs: one per environment, as long as it is open.

The first failure opens it, later ones comment on it, and a run that is repeated says nothing twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops_ml.core.json_text import load_json
from gitops_ml.github.client import GitHub, look_again
from gitops_ml.github.issues import open_issue
from gitops_ml.github.workflow_run import run_url
from gitops_ml.report.verdict_report import escape, markdown_table
from gitops_ml.ship.release.release import Release
from gitops_ml.ship.settings import EVIDENCE, Environment, artifact_kind

LABEL = "rollback"
# GitHub takes 65,536 characters.
EVIDENCE_LENGTH = 20_000


@dataclass(frozen=True)
class Incident:
    """A release that failed in an environment.

    Attributes:
        environment: Its name.
        failed: What failed.
        back: What was brought back; None if there was nothing.
        outcome: What was done, in one sentence.
        evidence: What the probe wrote down.
    """

    environment: Environment
    failed: Release
    back: Release | None
    outcome: str
    evidence: Mapping[str, Any]

    @property
    def thread(self) -> str:
        """Marks the issue, invisibly."""
        return f"<!-- rollback {self.environment} -->"

    @property
    def mark(self) -> str:
        """Marks the text about this release in this run, invisibly."""
        return f"<!-- {self.failed.tag} {self.failed.digest} {run_url() or 'by hand'} -->"


def read_evidence(root: Path) -> dict[str, Any]:
    """What the probe wrote down; empty if it did not come to that."""
    try:
        evidence = load_json((root / EVIDENCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return evidence if isinstance(evidence, dict) else {}


def report(
    api: GitHub,
    repository: str,
    incident: Incident,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Open the issue, or comment on the one that is open.

    Returns:
        What was done.

    Raises:
        GitHubError: If GitHub cannot be reached or refuses.
    """
    return look_again(
        lambda: _write(
            api, repository, incident, open_issue(api, repository, LABEL, incident.thread)
        ),
        sleep,
    )


def _write(
    api: GitHub, repository: str, incident: Incident, issue: Mapping[str, Any] | None
) -> str:
    if issue is None:
        title = f"{incident.environment}: a release failed"
        body = f"{incident.thread}\n{as_markdown(incident)}"
        made = api.send(
            "POST",
            f"/repos/{repository}/issues",
            {"title": title, "body": body, "labels": [LABEL]},
        )
        return f"opened the issue {made['html_url']}"
    comments = f"/repos/{repository}/issues/{issue['number']}/comments"
    texts = [issue["body"], *(comment["body"] for comment in api.items(comments))]
    if any(incident.mark in (text or "") for text in texts):
        return f"the issue {issue['html_url']} tells of it already"
    api.send("POST", comments, {"body": as_markdown(incident)})
    return f"commented on the issue {issue['html_url']}"


def as_markdown(incident: Incident) -> str:
    """What failed, what was done, what was seen, and what to do."""
    rows = [["", "release", "commit", artifact_kind()], _row("failed", incident.failed)]
    if incident.back is not None:
        rows.append(_row("runs again", incident.back))
    run = run_url()
    problem = str(incident.evidence.get("problem") or "The probe left no evidence.")
    parts = [
        incident.mark,
        escape(incident.outcome) + ".",
        markdown_table(rows, text_columns=(0, 1, 2, 3)),
        f"Seen at {escape(str(incident.evidence.get('url', 'no address')))}"
        + (f" by [this run]({run}):" if run else ":"),
        _fenced(problem[:EVIDENCE_LENGTH]),
        "Mend it on the main branch: the next release replaces this one. Close this issue then.",
    ]
    return "\n\n".join(parts) + "\n"


def _row(what: str, release: Release) -> list[str]:
    return [what, release.tag, release.commit[:12], release.artifact]


def _fenced(text: str) -> str:
    """Text that Markdown shows as it is, whatever it holds."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
