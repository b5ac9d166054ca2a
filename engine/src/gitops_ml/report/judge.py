"""Judge the model, and write the verdict for people and for what comes after.

    gitops-ml gate --base origin/main
    gitops-ml gate --base event      # in a workflow: what its event names

Exit code 0: promote, or keep when it is the champion itself. 1: block. 2: it could not be judged.
The verdict and all that led to it are written to `reports/gate.json` and, for people,
`reports/gate.md`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError, UsageError
from gitops_ml.gate.consent import consent_of
from gitops_ml.gate.gate import judge
from gitops_ml.gate.verdict import Consent, Report
from gitops_ml.github.event import base_of, read_event
from gitops_ml.report.verdict_report import as_markdown, as_text


def write(report: Report, root: Path) -> None:
    """Write `reports/gate.json` and `reports/gate.md`."""
    (root / paths.REPORTS).mkdir(parents=True, exist_ok=True)
    (root / paths.GATE_REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (root / paths.GATE_TABLE).write_text(as_markdown(report), encoding="utf-8")


class NotJudgedError(GitopsError):
    """There is no verdict."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--base",
        required=True,
        help="git revision of the champion: origin/main; in a workflow, `event` takes its event's",
    )
    parser.add_argument(
        "--allow-loosening",
        action="store_true",
        help="a maintainer consents to a looser contract or another split",
    )
    parser.add_argument(
        "--accept-new-baseline",
        metavar="REASON",
        help="a maintainer accepts the model without holding it against the champion",
    )


def run(options: argparse.Namespace) -> int:
    """Judge, write the reports, print the verdict; the exit code is the verdict."""
    if options.accept_new_baseline is not None and not options.accept_new_baseline.strip():
        raise UsageError("--accept-new-baseline: give the reason, it is kept in the report")
    # So that the champion's worktree is removed when a CI system stops the run, too.
    signal.signal(signal.SIGTERM, _stop)
    consent = Consent(
        allow_loosening=options.allow_loosening,
        accept_new_baseline=options.accept_new_baseline,
    )
    root, revision = Path(), options.base
    said: tuple[str, ...] = ()
    try:
        for old in (paths.GATE_REPORT, paths.GATE_TABLE):
            (root / old).unlink(missing_ok=True)
        if revision == "event":
            event = read_event()
            revision, answer = base_of(event), consent_of(event)
            consent, said = _joined(consent, answer.consent), answer.said
        report = judge(root, revision, consent)
        report = report.model_copy(update={"notes": (*said, *report.notes)})
        write(report, root)
    except (GitopsError, OSError) as error:
        raise NotJudgedError(f"The gate could not judge:\n{error}") from error
    print(as_text(report))
    return 1 if report.verdict == "block" else 0


def _joined(one: Consent, other: Consent) -> Consent:
    return Consent(
        allow_loosening=one.allow_loosening or other.allow_loosening,
        accept_new_baseline=one.accept_new_baseline or other.accept_new_baseline,
    )


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)
