"""Judge the model, and write the verdict for people and for what comes after.

    gitops-ml gate --base origin/main
    gitops-ml gate --base event      # in a workflow: the last commit of its base that passed

This engine judges, whoever's it is; `make gate` takes care that it is the base's.

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
from gitops_ml.core.errors import GitopsError, SettingsError, UsageError
from gitops_ml.gate.consent import consent_of
from gitops_ml.gate.gate import judge
from gitops_ml.gate.own_engine import (
    BrokenBaseError,
    broken,
    judge_by_own_engine,
    own_engine_note,
    same_engine,
    unreadable,
)
from gitops_ml.gate.run_files import take_over
from gitops_ml.gate.run_record import record_of
from gitops_ml.gate.verdict import Consent, Report
from gitops_ml.github.event import read_event
from gitops_ml.github.passed import base_of
from gitops_ml.model.predictor import ModelError
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
        help="git revision of the champion: origin/main; in a workflow, `event` takes the last "
        "commit of its event's base that passed the pipeline",
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
    parser.add_argument(
        "--allow-own-engine",
        action="store_true",
        help="a maintainer lets this change's own engine judge where the base's cannot",
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="FOLDER",
        help="take the model, its reports and the bento from what another job left there",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--judge",
        type=Path,
        metavar="FOLDER",
        help="the checkout of the base that this engine and its environment are from",
    )
    who.add_argument(
        "--own-engine",
        metavar="WHY",
        help="why this engine is not the base's; needs consent where there is a base",
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
        own_engine=options.allow_own_engine,
    )
    root, revision = Path(), options.base
    said: tuple[str, ...] = ()
    record = None
    try:
        if options.artifacts is not None:
            take_over(options.artifacts, root)
        for old in (paths.GATE_REPORT, paths.GATE_TABLE):
            (root / old).unlink(missing_ok=True)
        if revision == "event":
            event = read_event()
            base, answer = base_of(event, root), consent_of(event)
            revision, consent = base.revision, _joined(consent, answer.consent)
            record = record_of(base, root)
            said = (*base.notes, *answer.said)
        if options.own_engine is not None:
            said += (own_engine_note(root, revision, options.own_engine, consent),)
        updated = options.judge is not None and not same_engine(root, options.judge)
        try:
            report = judge(root, revision, consent, options.judge, record)
        except BrokenBaseError as error:
            return judge_by_own_engine(root, revision, broken(error, consent), consent)
        except (SettingsError, ModelError) as error:
            if not updated:
                raise
            return judge_by_own_engine(root, revision, unreadable(error, consent), consent)
        if updated:
            said += ("This change updates the engine; the engine of the base judged it.",)
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
        own_engine=one.own_engine or other.own_engine,
    )


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)
