"""The gate: may the model of this working tree take the champion's place?

The model is held against the quality contract and, on the same test rows, against the champion:
the model that the base's `dvc.lock` names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from gitops_ml.core.dvc_lock import tolerance_note
from gitops_ml.core.git import find_base, git
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.schema import check_against_params, load_schema
from gitops_ml.core.settings import Contract, Params, load_contract, load_params
from gitops_ml.features.derive import load_derivation
from gitops_ml.features.matrix import row_groups
from gitops_ml.gate.challenger import (
    Challenger,
    current_model,
    latency_p99_ms,
    load_challenger,
)
from gitops_ml.gate.data_changes import data_changes
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judgement import Judge, judge_limit
from gitops_ml.gate.opponent import champion_of, find_opponent
from gitops_ml.gate.terms import applicable_terms, check_contract, guard_own_metrics, guard_split
from gitops_ml.gate.verdict import (
    BaseRecord,
    Consent,
    DataChanges,
    Finding,
    Limit,
    ModelRecord,
    Report,
)

_LATENCY_RECORDS = 100


def judge(root: Path, revision: str, consent: Consent) -> Report:
    """Judge the working tree's model against a revision.

    Args:
        root: The project's folder.
        revision: The base, any git revision.
        consent: What a maintainer agreed to.

    Raises:
        SettingsError: If a settings file is missing or wrong.
        GitError: If the base cannot be read.
        GitopsError: If the pipeline has not run since something changed.
        ModelError: If the model is missing or not the recorded one.
        TableError: If the test rows are missing or unsuitable.
        PredictionError: If the model does not answer with finite numbers.
    """
    log = GateLog()
    params, schema, contract = load_params(root), load_schema(root), load_contract(root)
    derivation = load_derivation(root, schema, params.target)
    check_against_params(derivation.extend(schema), params)
    base = find_base(root, revision)
    with log.timed("check that the pipeline is up to date"):
        locked = current_model(root)
        note = tolerance_note(root)
        log.notes += [note] if note else []
    with log.timed("load and score the challenger"):
        challenger = load_challenger(root, params, locked)
    columns = challenger.test.columns
    known = known_metrics(root)
    check_contract(contract, params.task, columns, known)

    model = champion_of(log, base)
    judged = base if model else None
    applicable = applicable_terms(log, judged, contract, params.task, columns, consent, known)
    guard_split(log, judged, params, consent)
    guard_own_metrics(log, judged, consent)
    champion, opponent = None, None
    if base is not None and model is not None:
        with log.timed("bring back and score the champion"):
            champion, opponent = find_opponent(log, base, model, params, challenger, consent)

    court = Judge(
        challenger.scored,
        opponent,
        applicable.terms.model.confidence,
        _groups(params, challenger.test),
        binding=consent.accept_new_baseline is None,
    )
    with log.timed("compare"):
        metrics = court.metrics(applicable.terms.model.metrics)
        slices = court.slices(applicable.terms.model.slices, challenger.test)
    data = data_changes(root, base, schema)
    with log.timed("measure the latency"):
        limits = _limits(applicable.terms, challenger, data, consent)
    judged_terms: list[Finding | Limit] = [*metrics, *slices, *limits]
    reasons = [*log.reasons, *(why for term in judged_terms for why in term.failures)]
    kept = champion is not None and champion.source == "same"
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return Report(
        verdict="block" if reasons else "keep" if kept else "promote",
        reasons=tuple(reasons),
        notes=tuple(log.notes),
        commit=head.stdout.strip() or None,
        base=BaseRecord(revision=base.revision, commit=base.commit) if base else None,
        challenger=_record(challenger),
        champion=champion,
        consent=consent,
        contract=applicable.name,
        contract_changes=tuple(applicable.changes),
        confidence=applicable.terms.model.confidence,
        rows=len(challenger.test),
        metrics=metrics,
        slices=slices,
        limits=limits,
        data=data,
        seconds=log.seconds,
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
    inputs = list(challenger.predictor.features.inputs)
    records = challenger.test.select(inputs).head(_LATENCY_RECORDS).to_dicts()
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
