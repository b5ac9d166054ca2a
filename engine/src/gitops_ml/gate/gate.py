"""The gate: may the model of this working tree take the champion's place?

The model is held against the quality contract and, on the same test rows, against the champion:
the model that the base's `dvc.lock` names. Both answer as processes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc_lock import tolerance_note
from gitops_ml.core.elsewhere import trained_by
from gitops_ml.core.git import find_base, git
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.schema import check_against_params, load_schema
from gitops_ml.core.settings import load_contract, load_params
from gitops_ml.features.matrix import alike_columns
from gitops_ml.gate.added_terms import measured_by_the_change, split_terms
from gitops_ml.gate.base_rows import Judged, groups_of
from gitops_ml.gate.challenger import current_model
from gitops_ml.gate.champion_record import read_record
from gitops_ml.gate.changed_data import ChangedData, judge_changed_data
from gitops_ml.gate.contestant import hidden_columns
from gitops_ml.gate.data_changes import data_changes
from gitops_ml.gate.data_drift import judge_data_drift, reference_commit
from gitops_ml.gate.data_limits import data_limits
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judged_model import (
    judged_model,
    let_answer,
    model_files,
    retrained_models,
    with_known_derived,
)
from gitops_ml.gate.judged_rows import all_rows, judged_rows, landed_rows, row_count, training_rows
from gitops_ml.gate.judgement import Judge, judge_limits
from gitops_ml.gate.measured import measure
from gitops_ml.gate.opponent import Question, champion_of, find_opponent
from gitops_ml.gate.own_engine import check_base_code
from gitops_ml.gate.reference import find_reference, judge_erosion
from gitops_ml.gate.remedies import remedies
from gitops_ml.gate.run_record import RunRecord, go_by
from gitops_ml.gate.terms import (
    applicable_terms,
    check_contract,
    guard_clock,
    guard_outcomes,
    guard_own_metrics,
    guard_split,
)
from gitops_ml.gate.verdict import (
    BaseRecord,
    Consent,
    Finding,
    Limit,
    ModelRecord,
    Report,
)
from gitops_ml.model.metrics import Scored
from gitops_ml.model.own_metrics import metrics_of


def judge(
    root: Path,
    revision: str,
    consent: Consent,
    home: Path | None = None,
    record: RunRecord | None = None,
) -> Report:
    """Judge the working tree's model against a revision.

    What runs in this process is the code of `home` and of nothing else. All but the challenger
    answer before the challenger is started, which runs code that nobody has read yet.

    Args:
        root: The project's folder.
        revision: The base, any git revision.
        consent: What a maintainer agreed to.
        home: The project whose engine and locked environment this process runs in: a checkout of
            the base. None if it is the working tree itself.
        record: What the base's own run made; by default what the base's commit says.

    Raises:
        BrokenBaseError: If the code of the base cannot be run.
        SettingsError: If a settings file is missing or wrong.
        GitError: If the base cannot be read.
        GitopsError: If the pipeline has not run since something changed.
        ModelError: If the model is missing or not the recorded one.
        TableError: If the test rows are missing or unsuitable.
        PredictionError: If the model does not answer with finite numbers.
    """
    if home is not None:
        check_base_code(home)
    home = home or root
    with metrics_of(home):
        return _judge(root, revision, consent, home, record)


def _judge(
    root: Path, revision: str, consent: Consent, home: Path, record: RunRecord | None
) -> Report:
    log = GateLog()
    params, schema, contract = load_params(root), load_schema(root), load_contract(root)
    check_against_params(schema, params, whole=False)
    base = go_by(find_base(root, revision), record)
    with log.timed("check that the pipeline is up to date"):
        files = model_files(root, current_model(root))
        note = tolerance_note(root)
        log.notes += [note] if note else []
        trainer = trained_by(root)
        log.notes += [f"The model was trained elsewhere, by {trainer}."] if trainer else []
    with log.timed("split the data"):
        rows = landed_rows(log, root, params, schema)
        test = judged_rows(log, root, params, schema, rows)
        derived = with_known_derived(log, home, test, schema, params.target)

    own, known = known_metrics(home), {**known_metrics(root), **known_metrics(home)}
    recorded = champion_of(log, base)
    judged = base if recorded else None
    guard_split(log, judged, params, consent)
    guard_clock(log, judged, params, consent)
    guard_outcomes(log, judged, schema, consent)
    guard_own_metrics(log, judged, consent)
    # What they say of the reference and the seeds is settled before anybody answers; they are read
    # again, and reported, below, where all columns of the test rows are known.
    named = {*derived.columns, *(part.column for part in contract.model.slices)}
    early = applicable_terms(GateLog(), judged, contract, params.task, named, consent, known)
    # Nothing is compared with a champion that a maintainer gave up.
    seeds = early.terms.model.seeds if consent.accept_new_baseline is None else 1
    champion, opponent, base_rows = None, None, None
    question = Question(params, test, hidden_columns(schema, params.target), home)
    if recorded is not None:
        with log.timed("bring back and score the champion"):
            champion, opponent, base_rows = find_opponent(
                log,
                recorded.base,
                recorded.model,
                files,
                replace(question, seeds=seeds),
                consent,
                with_rows=True,
            )
    if opponent is None:
        seeds = 1
    # Before the challenger is started, as all that it is measured with.
    needed = base_rows is not None or seeds > 1
    train = training_rows(root, params, schema, rows) if needed else None
    everything = all_rows(root, schema, rows)
    alike = alike_columns(schema.features(), files.manifest["inputs"], params)
    with log.timed("bring back and score the reference"):
        reference = find_reference(
            log,
            judged,
            early.terms.model,
            params,
            files.locked.hash,
            (champion, opponent),
            lambda log, base, model: find_opponent(log, base, model, files, question, consent)[:2],
            consent,
        )
    with log.timed("score the challenger"):
        answers = let_answer(root, home, test, schema, params.target)
        challenger = judged_model(files, derived, params.target, answers)
    retrained: Sequence[Scored] = ()
    if seeds > 1 and train is not None:
        with log.timed(f"train the challenger with {seeds} seeds"):
            retrained = retrained_models(
                root, home, train, test, schema, params.target, files.classes, seeds
            )
        log.notes.append(averaged_note(seeds))

    columns = challenger.test.columns
    check_contract(contract, params.task, columns, known)
    applicable = applicable_terms(log, judged, contract, params.task, columns, consent, known)
    court = Judge(
        challenger.scored,
        opponent,
        applicable.terms.model.confidence,
        groups_of(challenger.test, params, alike),
        binding=consent.accept_new_baseline is None,
        retrained=retrained,
    )
    terms, added = split_terms(applicable.terms.model, known.keys() - own.keys())
    with log.timed("compare"):
        metrics = court.metrics(terms.metrics)
        slices = court.slices(terms.slices, challenger.test)
        erosion = judge_erosion(log, reference, terms.metrics, terms.slices, court, challenger.test)
        more = measured_by_the_change(root, home, added, court, challenger.test)
    metrics, slices = (*metrics, *more[0]), (*slices, *more[1])
    # On rows of the base, too, the judge measures by what it knows.
    model_terms = applicable.terms.model.model_copy(
        update={"metrics": dict(terms.metrics), "slices": tuple(terms.slices)}
    )
    changed = ChangedData()
    # The data of a new baseline need not be a later version of the base's.
    if recorded and base_rows and train is not None and consent.accept_new_baseline is None:

        def answer(others: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
            said = let_answer(root, home, others, schema, params.target)
            known = with_known_derived(log, home, others, schema, params.target)
            return judged_model(files, known, params.target, said).test, said.table

        with log.timed("compare on the base's test rows"):
            changed = judge_changed_data(
                log,
                read_record(recorded.base),
                base_rows,
                train,
                Judged(challenger.test, challenger.scored, files.classes, alike, answer),
                opponent,
                params,
                applicable.terms.model_copy(update={"model": model_terms}),
                consent,
            )
    data = data_changes(row_count(root, rows), base, schema)
    # The data of a new baseline need not be a later version of the base's.
    rows_before = data.base_rows if consent.accept_new_baseline is None else None
    found = measure(challenger.files.size, challenger.latency_p99_ms, data.rows, rows_before)
    limits = judge_limits(applicable.terms, found)
    limits += (*data_limits(everything, params, alike, applicable.terms.data), *changed.limits)
    if consent.accept_new_baseline is None:
        since = reference_commit(
            judged, reference, applicable.terms.model, params, files.locked.hash
        )
        limits += judge_data_drift(
            log, everything, judged, since, schema, params, applicable.terms.data, consent
        )
    judged_terms: list[Finding | Limit] = [*metrics, *slices, *erosion, *limits]
    if changed.on_base_rows is not None:
        judged_terms += [*changed.on_base_rows.metrics, *changed.on_base_rows.slices]
    reasons = [*log.reasons, *(why for term in judged_terms for why in term.failures)]
    kept = champion is not None and champion.source == "same"
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return Report(
        verdict="block" if reasons else "keep" if kept else "promote",
        reasons=tuple(reasons),
        remedies=remedies(judged_terms),
        notes=tuple(log.notes),
        commit=head.stdout.strip() or None,
        base=BaseRecord(revision=base.revision, commit=base.commit) if base else None,
        challenger=ModelRecord(hash=files.locked.hash, sha256=files.sha256, source="working tree"),
        champion=champion,
        consent=consent,
        contract=applicable.name,
        contract_changes=tuple(applicable.changes),
        confidence=applicable.terms.model.confidence,
        seeds=seeds,
        rows=len(challenger.test),
        metrics=metrics,
        slices=slices,
        limits=limits,
        data=data,
        reference=reference.record if reference else None,
        erosion=erosion,
        on_base_rows=changed.on_base_rows,
        record=changed.record,
        seconds=log.seconds,
    )


def averaged_note(seeds: int) -> str:
    """What a reader must know of differences between means."""
    return (
        "Differences and their bounds are of means: the recipe of each side was trained with "
        f"{seeds} seeds, {2 * seeds} trainings in this run (model.seeds of {paths.CONTRACT}). "
        "Floors, ceilings, limits, the erosion, the base's test rows and metrics that only this "
        "change has are judged on the models that are recorded, as are both models' own numbers."
    )
