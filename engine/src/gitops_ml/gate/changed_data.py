"""What a change of the data asks of the gate: see `base_rows` and `champion_record`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from gitops_ml.core.settings import Contract, Params
from gitops_ml.gate.base_rows import (
    BaseRows,
    Judged,
    Split,
    compare_rows,
    judge_base_rows,
    judge_changes,
)
from gitops_ml.gate.champion_record import check_record, witness_of
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judgement import Opponent
from gitops_ml.gate.verdict import Consent, Limit, OnBaseRows, RecordCheck
from gitops_ml.model.metrics import Estimate


@dataclass(frozen=True)
class ChangedData:
    """What was found; nothing where the change has the base's rows.

    Attributes:
        limits: On what became of the base's test rows.
        on_base_rows: Both models on these rows.
        record: The champion against its own record.
    """

    limits: tuple[Limit, ...] = ()
    on_base_rows: OnBaseRows | None = None
    record: tuple[RecordCheck, ...] = ()


def judge_changed_data(
    log: GateLog,
    recorded: Mapping[str, Estimate],
    base_rows: BaseRows,
    train: pl.DataFrame,
    challenger: Judged,
    opponent: Opponent | None,
    params: Params,
    terms: Contract,
    consent: Consent,
) -> ChangedData:
    """Hold the data of a change against the base's.

    Args:
        log: Takes reasons and notes.
        recorded: What the base recorded of its model.
        base_rows: The base's rows, with the champion's answers.
        train: The rows that the change trains on.
        challenger: The change's model.
        opponent: The champion's answers for the change's test rows; None if both are one model.
        params: What there is to predict, and what the split keeps together.
        terms: The contract that applies.
        consent: What a maintainer agreed to.
    """
    here = Split(train, challenger.test)
    compared = compare_rows(base_rows.split, here, params.data.key)
    allowed = terms.data.test_rows_changed
    limit = judge_changes(log, compared.changes, allowed, consent)
    on_base_rows = judge_base_rows(log, base_rows, compared, challenger, params, terms.model)
    itself = Opponent(challenger.scored, np.arange(len(challenger.test)))
    witness = witness_of(base_rows, compared, challenger, opponent or itself, params)
    record, reasons = check_record(
        terms.model.metrics, recorded, witness, compared.changes, allowed
    )
    log.reasons += reasons
    return ChangedData((limit,), on_base_rows, record)
