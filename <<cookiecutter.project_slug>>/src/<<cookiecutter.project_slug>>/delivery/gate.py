"""The gate: may the model of this working tree take the champion's place?

    python -m <package>.delivery.gate --base origin/main
    python -m <package>.delivery.gate --base event      # in a workflow: what its event names

The model is held against the quality contract and, on the same test rows, against the champion:
the model that the base's `dvc.lock` names. Exit code 0: promote, or keep when it is the champion
itself. 1: block. 2: it could not be judged. The verdict and all that led to it are written to
`reports/gate.json` and, for people, `reports/gate.md`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
from numpy.typing import NDArray

from .. import paths
from ..data.schema import check_against_params, load_schema
from ..model.matrix import TableError, row_groups
from ..model.predictor import ModelError, PredictionError
from ..settings import Contract, Params, SettingsError, load_contract, load_params
from .bar import check_contract, find_bar, guard_split
from .base import BaseError, find_base, git
from .case import Case
from .challenger import (
    Challenger,
    StaleError,
    check_up_to_date,
    latency_p99_ms,
    load_challenger,
)
from .consent import consent_of
from .data_changes import data_changes
from .event import EventError, base_of, read_event
from .judgement import Judge, judge_limit
from .opponent import champion_of, find_opponent
from .records import BaseRecord, Consent, DataChanges, Finding, Limit, ModelRecord, Report
from .report import as_markdown, as_text

_LATENCY_RECORDS = 100


def judge(root: Path, revision: str, consent: Consent) -> Report:
    """Judge the working tree's model against a revision.

    Args:
        root: The project's folder.
        revision: The base, any git revision.
        consent: What a maintainer agreed to.

    Raises:
        SettingsError: If a settings file is missing or wrong.
        BaseError: If the base cannot be read.
        StaleError: If the pipeline has not run since something changed.
        ModelError: If the model is missing or not the recorded one.
        TableError: If the test rows are missing or unsuitable.
        PredictionError: If the model does not answer with finite numbers.
    """
    case = Case()
    params, schema, contract = load_params(root), load_schema(root), load_contract(root)
    check_against_params(schema, params)
    base = find_base(root, revision)
    with case.timed("check that the pipeline is up to date"):
        locked = check_up_to_date(root)
    with case.timed("load and score the challenger"):
        challenger = load_challenger(root, params, schema, locked)
    columns = challenger.test.columns
    check_contract(contract, params.task, columns)

    model = champion_of(case, base)
    judged = base if model else None
    bar = find_bar(case, judged, contract, params.task, columns, consent)
    guard_split(case, judged, params, consent)
    champion, opponent = None, None
    if base is not None and model is not None:
        with case.timed("bring back and score the champion"):
            champion, opponent = find_opponent(case, base, model, params, challenger, consent)

    court = Judge(
        challenger.scored,
        opponent,
        bar.terms.model.confidence,
        _groups(params, challenger.test),
        binding=consent.accept_new_baseline is None,
    )
    with case.timed("compare"):
        metrics = court.metrics(bar.terms.model.metrics)
        slices = court.slices(bar.terms.model.slices, challenger.test)
    data = data_changes(root, base, schema)
    with case.timed("measure the latency"):
        limits = _limits(bar.terms, challenger, data, consent)
    judged_terms: list[Finding | Limit] = [*metrics, *slices, *limits]
    reasons = [*case.reasons, *(why for term in judged_terms for why in term.failures)]
    kept = champion is not None and champion.source == "same"
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return Report(
        verdict="block" if reasons else "keep" if kept else "promote",
        reasons=tuple(reasons),
        notes=tuple(case.notes),
        commit=head.stdout.strip() or None,
        base=BaseRecord(revision=base.revision, commit=base.commit) if base else None,
        challenger=_record(challenger),
        champion=champion,
        consent=consent,
        contract=bar.name,
        contract_changes=tuple(bar.changes),
        confidence=bar.terms.model.confidence,
        rows=len(challenger.test),
        metrics=metrics,
        slices=slices,
        limits=limits,
        data=data,
        seconds=case.seconds,
    )


def _groups(params: Params, test: pl.DataFrame) -> NDArray[Any] | None:
    """Which rows the split keeps together: they are no independent evidence."""
    columns = params.split.columns
    if params.split.method != "hash" or not set(columns) <= set(test.columns):
        return None
    return row_groups(test, columns)


def _record(challenger: Challenger) -> ModelRecord:
    manifest = challenger.predictor.manifest
    return ModelRecord(
        hash=challenger.locked.hash,
        sha256=manifest["files"][manifest["served"]],
        source="working tree",
    )


def _limits(
    terms: Contract, challenger: Challenger, data: DataChanges, consent: Consent
) -> tuple[Limit, ...]:
    features = list(challenger.predictor.features.names)
    records = challenger.test.select(features).head(_LATENCY_RECORDS).to_dicts()
    limits = [
        judge_limit(
            "model.size_mb",
            "size of the served model",
            challenger.size / 1e6,
            "MB",
            maximum=terms.model.size_mb,
        ),
        judge_limit(
            "model.latency_p99_ms",
            "latency of one row, 99th percentile",
            latency_p99_ms(challenger.predictor, records),
            "ms",
            maximum=terms.model.latency_p99_ms,
        ),
        judge_limit(
            "data.rows_min", "rows of data", data.rows, "rows", minimum=terms.data.rows_min
        ),
    ]
    allowed = terms.data.row_count_change
    # The data of a new baseline need not be a later version of the base's.
    if allowed is not None and data.base_rows and consent.accept_new_baseline is None:
        limits.append(
            judge_limit(
                "data.row_count_change",
                "change of the row count since the base",
                100 * (data.rows / data.base_rows - 1),
                "%",
                minimum=100 * allowed.min,
                maximum=100 * allowed.max,
            )
        )
    return tuple(limits)


def write(report: Report, root: Path) -> None:
    """Write `reports/gate.json` and `reports/gate.md`."""
    (root / paths.REPORTS).mkdir(parents=True, exist_ok=True)
    (root / paths.GATE_REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (root / paths.GATE_TABLE).write_text(as_markdown(report), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, write the reports, print the verdict; the exit code is the verdict."""
    options = _parser().parse_args(arguments)
    if options.accept_new_baseline is not None and not options.accept_new_baseline.strip():
        print("--accept-new-baseline: give the reason, it is kept in the report", file=sys.stderr)
        return 2
    # So that the champion's worktree is removed when a CI system stops the run, too.
    signal.signal(signal.SIGTERM, _stop)
    consent = Consent(
        allow_loosening=options.allow_loosening,
        accept_new_baseline=options.accept_new_baseline,
    )
    root, revision = Path(), options.base
    said: tuple[str, ...] = ()
    for old in (paths.GATE_REPORT, paths.GATE_TABLE):
        (root / old).unlink(missing_ok=True)
    try:
        if revision == "event":
            event = read_event()
            revision, answer = base_of(event), consent_of(event)
            consent, said = _joined(consent, answer.consent), answer.said
        report = judge(root, revision, consent)
        report = report.model_copy(update={"notes": (*said, *report.notes)})
        write(report, root)
    except (
        EventError,
        SettingsError,
        BaseError,
        StaleError,
        ModelError,
        TableError,
        PredictionError,
        OSError,
    ) as error:
        print(f"The gate could not judge:\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("The gate was interrupted before it could judge.", file=sys.stderr)
        return 2
    print(as_text(report))
    return 1 if report.verdict == "block" else 0


def _joined(one: Consent, other: Consent) -> Consent:
    return Consent(
        allow_loosening=one.allow_loosening or other.allow_loosening,
        accept_new_baseline=one.accept_new_baseline or other.accept_new_baseline,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gate", description="Hold the model against its contract and against the champion."
    )
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
    return parser


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
