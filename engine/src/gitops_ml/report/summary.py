"""The summary of a pipeline run: its verdict, its plots, and what it left out and why.

    gitops-ml summary

In a workflow it goes to the job's page (GITHUB_STEP_SUMMARY), on a laptop to the terminal. It works
with whatever reports there are, since it is also wanted when something failed before them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.github.event import EventError, read_event
from gitops_ml.report.markdown import details, shortened, verdict
from gitops_ml.report.run_artifacts import Evidence, from_folder, read_evidence

# GitHub takes 1 MiB of each step.
SUMMARY_LENGTH = 250_000


def summarise(evidence: Evidence) -> str:
    """The verdict first, then what led to it, then what was left out."""
    headline, rest = verdict(evidence)
    without = (
        "## ⛔ The data break rules: nothing was trained"
        if evidence.problems
        else "## ⛔ No verdict: the run ended before the gate, or the gate could not judge"
    )
    parts = [headline or without, rest, *details(evidence)]
    left_out = [f"- {what}. To enable it: {setting}" for what, setting in skipped(evidence)]
    parts += ["### Skipped", "\n".join(left_out)]
    return shortened("\n\n".join(part for part in parts if part) + "\n", SUMMARY_LENGTH)


def skipped(evidence: Evidence) -> list[tuple[str, str]]:
    """What this run could not do for lack of a setting, and the setting."""
    left_out = []
    if not os.environ.get("DVC_REMOTE_URL"):
        left_out.append(
            (
                "pulling from and pushing to a DVC remote; the workflow's cache was used",
                "the repository variable `DVC_REMOTE_URL`, for example `s3://bucket/folder`",
            )
        )
    elif _unprivileged():
        left_out.append(
            ("pushing to the DVC remote", "a push: pull requests only read from the remote")
        )
    if evidence.gate is not None and evidence.gate.champion is None:
        left_out.append(
            (
                "the comparison with a champion; only floors and ceilings were checked",
                "a `dvc.lock` on the default branch: merge or push a trained model",
            )
        )
    left_out.append(
        (
            "looking at the repository's rules: this run may not read them",
            "`make doctor`, on a laptop, checks them; `make github-setup` sets them",
        )
    )
    return left_out


def _unprivileged() -> bool:
    try:
        return read_event().name != "push"
    except EventError:
        return False


def run(_: argparse.Namespace) -> int:
    """Summarise, whatever the run came to; 0 if the summary was written."""
    text = summarise(read_evidence(from_folder(paths.REPORTS)))
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        print(text)
        return 0
    try:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise GitopsError(f"GITHUB_STEP_SUMMARY is {target}: {error}") from error
    return 0
