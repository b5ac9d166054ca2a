"""One issue about drift: opened once, kept up to date, closed when it is over.

    gitops-ml monitor-issue

Reads `reports/monitor.json`. Where the rule acts, it opens an issue with the evidence, or brings
the open one up to date, and says in a comment when other things are off than before. Where nothing
is off any more, it says so and closes it. What could not be judged changes nothing.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.json_text import load_json
from gitops_ml.github.client import GitHub, connect, look_again
from gitops_ml.github.issues import open_issue
from gitops_ml.github.workflow_run import run_url
from gitops_ml.report.verdict_report import escape, markdown_table

LABEL = "drift"
TITLE = "The live data drift"
MARK = "<!-- monitor -->"
# A workflow that lands, trains and opens a pull request by itself.
REFRESH = Path(".github/workflows/refresh.yml")
_ACTING = re.compile(r"<!-- off: (.*?) -->")


def read_report(root: Path = Path()) -> dict[str, Any]:
    """What the monitor wrote down.

    Raises:
        GitopsError: If it is missing or is no such report.
    """
    path = root / paths.MONITOR_REPORT
    try:
        report = load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GitopsError(f"{path}: cannot be read: {error}; run `make monitor`") from error
    if not isinstance(report, dict) or "status" not in report or "headline" not in report:
        raise GitopsError(f"{path}: is no report of `make monitor`; run it")
    return report


def tell(
    api: GitHub,
    repository: str,
    report: Mapping[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Bring the issue in line with a report.

    Returns:
        What was done.

    Raises:
        GitHubError: If GitHub cannot be reached or refuses.
    """
    return look_again(
        lambda: _tell(api, repository, report, open_issue(api, repository, LABEL, MARK)), sleep
    )


def _tell(
    api: GitHub, repository: str, report: Mapping[str, Any], issue: Mapping[str, Any] | None
) -> str:
    status, issues = report["status"], f"/repos/{repository}/issues"
    if status == "drift":
        body = as_markdown(report)
        if issue is None:
            new = {"title": TITLE, "body": body, "labels": [LABEL]}
            return f"opened the issue {api.send('POST', issues, new)['html_url']}"
        address = f"{issues}/{issue['number']}"
        api.send("PATCH", address, {"body": body})
        if _off_in(issue["body"]) == _off(report):
            return f"brought the issue {issue['html_url']} up to date"
        api.send("POST", f"{address}/comments", {"body": f"{escape(report['headline'])}.\n"})
        return f"brought the issue {issue['html_url']} up to date, and commented on it"
    if status != "quiet" or issue is None:
        return "there is nothing to tell"
    address = f"{issues}/{issue['number']}"
    # First closed, so that a lost answer does not make a second comment.
    api.send("PATCH", address, {"state": "closed", "state_reason": "completed"})
    api.send(
        "POST", f"{address}/comments", {"body": f"It is over. {escape(report['headline'])}.\n"}
    )
    return f"closed the issue {issue['html_url']}"


def _off(report: Mapping[str, Any]) -> str:
    """What is off, as the issue keeps it, invisibly."""
    names = sorted(f"{one['kind']} {one['name']}" for one in report["acting"])
    return ", ".join(names).replace("--", "- -").replace(">", "")


def _off_in(body: str | None) -> str | None:
    found = _ACTING.search(body or "")
    return found[1] if found else None


def as_markdown(report: Mapping[str, Any]) -> str:
    """What is off, what was seen, and what to do."""
    parts = [
        f"{MARK}\n<!-- off: {_off(report)} -->",
        f"{escape(report['headline'])}.",
        markdown_table(
            [
                ["what", "name", "off in the windows that begin", "then", "limit"],
                *(_row(one, report["windows"]) for one in report["acting"]),
            ],
            text_columns=(0, 1, 2),
        ),
        "A metric's limit is what it must not be worse than; that of a score or a column is the "
        "largest stability index (PSI) that the reference's own windows had.",
    ]
    left_out = [*report["notes"], *report["problems"]]
    if left_out:
        parts.append("\n".join(f"- {escape(text)}" for text in left_out))
    parts.append(f"{what_to_do()}\n\nThis issue closes itself when nothing is off any more.")
    run = run_url()
    if run:
        parts.append(f"The page `monitor.html` with all columns is kept by [this run]({run}).")
    return "\n\n".join(parts) + "\n"


def _row(one: Mapping[str, Any], windows: list[Mapping[str, Any]]) -> list[str]:
    last = next(w for w in windows if w["start"] == one["windows"][-1])
    kept = {"metric": "metrics", "score": "scores", "column": "columns"}[one["kind"]]
    found = last[kept][one["name"]]
    value = found["value"] if one["kind"] == "metric" else found["psi"]
    shown = "" if found["limit"] is None else f"{found['limit']:.4g}"
    return [one["kind"], one["name"], ", ".join(one["windows"]), f"{value:.4g}", shown]


def what_to_do(root: Path = Path()) -> str:
    """How to look, and how to train on newer data."""
    look = (
        "Look first whether the data are wrong: a unit, a source or a default that changed is to "
        "be mended where it comes from, and no training helps."
    )
    if (root / REFRESH).exists():
        return f"{look} Else refresh the model: `gh workflow run {REFRESH.name}`."
    return (
        f"{look} Else land newer data in `data/landed/` on a branch, run `make pipeline`, commit "
        "what it wrote, and open a pull request: the gate compares the new model with this one."
    )


def run(_: argparse.Namespace) -> int:
    """Tell GitHub what `reports/monitor.json` says; 0 if that was done or there is nothing to."""
    report = read_report()
    if report["status"] not in ("drift", "quiet"):
        print(f"{report['headline']}; there is nothing to tell")
        return 0
    api, repository = connect()
    print(f"{report['headline']}: {tell(api, repository, report)}")
    return 0
