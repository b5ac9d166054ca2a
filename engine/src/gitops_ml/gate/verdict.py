"""The records of a judgement: what `reports/gate.json` holds, and nothing that needs more to read.

Who only shows a report need not install what it takes to make one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.metric_catalogue import BUILT_IN, Better
from gitops_ml.gate.contract_changes import Change

Outcome = Literal["superior", "non-inferior", "inconclusive", "inferior"]
Verdict = Literal["promote", "keep", "block"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Finding(_Record):
    """One metric, on all test rows or inside one value of a column, held against its terms.

    Of the erosion, the champion is the reference, and the margin what may be lost in total.

    Attributes:
        term: Where the contract says it, e.g. `model.metrics.roc_auc`.
        metric: The metric.
        better: Which of two values of it is the better one; None only in reports of releases
            before 0.2.0, which knew the built-in metrics only.
        column: The slice's column; None for all rows.
        value: The slice's value; None for rows where the column has none.
        rows: The number of rows measured.
        challenger: The challenger's metric; None where it does not exist.
        champion: The champion's metric on the same rows; None without one.
        bound: The floor or the ceiling.
        margin: How much worse than the champion the challenger may be.
        difference: Challenger minus champion.
        low: One-sided lower confidence bound of the difference.
        high: One-sided upper confidence bound of the difference.
        outcome: What the comparison showed; None if there was none.
        failures: Why it does not hold the terms; empty if it does.
        lifted_by: The label that lifts the failure of the comparison; None if that did not fail.
        note: What a reader should know about the measurement.
    """

    term: str
    metric: str
    better: Better | None = None
    column: str | None = None
    value: str | None = None
    rows: int
    challenger: float | None = None
    champion: float | None = None
    bound: float | None = None
    margin: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    outcome: Outcome | None = None
    failures: tuple[str, ...] = ()
    lifted_by: str | None = None
    note: str | None = None

    @property
    def direction(self) -> int:
        """+1 when larger is better, -1 when smaller is, 0 when nobody said."""
        # What is better of a built-in metric is no matter of a report.
        if self.metric in BUILT_IN:
            return BUILT_IN[self.metric].direction
        return {"larger": 1, "smaller": -1, None: 0}[self.better]

    @property
    def used(self) -> float | None:
        """The share of the margin that the measured difference uses up; None without one."""
        if self.difference is None or not self.margin:
            return None
        return max(0.0, -self.direction * self.difference) / self.margin


class Limit(_Record):
    """A measured quantity and the limits that the contract sets for it."""

    term: str
    name: str
    value: float
    unit: str
    minimum: float | None = None
    maximum: float | None = None
    failures: tuple[str, ...] = ()


class BaseRecord(_Record):
    """The commit that was judged against."""

    revision: str
    commit: str


class ModelRecord(_Record):
    """A model, by the hash that DVC gave its folder.

    Attributes:
        hash: DVC's hash of the models folder.
        sha256: The hash of the file that is served; None if it was not looked at.
        source: `working tree`; for a champion `same` as the challenger, `cache`, `remote`,
            `reproduced` or `not found`.
    """

    hash: str
    sha256: str | None = None
    source: str


class ReferenceRecord(_Record):
    """The model that may not be undercut by more than the erosion terms allow.

    Attributes:
        model: The model; its source is like a champion's.
        commit: The first commit of the base's history that has it; None if it is the challenger.
        named: Whether the contract names it; else it is the first model in the history.
    """

    model: ModelRecord
    commit: str | None
    named: bool


class Consent(_Record):
    """What a maintainer agreed to."""

    allow_loosening: bool = False
    accept_new_baseline: str | None = None
    own_engine: bool = False


class RowChanges(_Record):
    """What became of the rows that the base was tested on.

    Attributes:
        rows: How many there were.
        vanished: How many are neither tested nor trained on.
        changed: How many are tested with other values.
        columns: In how many of these each column changed.
        to_training: How many are trained on.
        from_training: How many are tested that the base was trained on.
        key: The columns that the rows were found by; none if by all that they hold.
    """

    rows: int
    vanished: int = 0
    changed: int = 0
    columns: dict[str, int] = {}
    to_training: int = 0
    from_training: int = 0
    key: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """All of these beside the number of rows that there were."""
        total = self.vanished + self.changed + self.to_training + self.from_training
        return total / self.rows if self.rows else 0.0


class OnBaseRows(_Record):
    """Both models on the rows that the base was tested on.

    Attributes:
        changes: What became of these rows.
        rows: How many of them this model is measured on: it was not trained on them.
        metrics: On all of them.
        slices: Inside the values of a column.
    """

    changes: RowChanges
    rows: int = 0
    metrics: tuple[Finding, ...] = ()
    slices: tuple[Finding, ...] = ()


class RecordCheck(_Record):
    """A metric of the champion, on the base's data and on this change's.

    Attributes:
        metric: The metric.
        recorded: What the base recorded of it, with the interval; None where it did not, and for a
            project's own metric, which may have come to measure something else.
        measured: The same, measured now.
        advantage: How much better that is than a model that ignores the features.
        rows: The number of rows that both versions of the data test.
        before: The metric on them with the base's values.
        after: The metric on them with this change's values.
        allowed: How far apart these two may be.
        new_rows: The number of rows that only this change tests.
        new: The metric on them.
        new_advantage: How much better that is than a model that ignores the features.
        new_advantage_high: The upper confidence bound of that.
    """

    metric: str
    recorded: float | None = None
    recorded_low: float | None = None
    recorded_high: float | None = None
    measured: float | None = None
    advantage: float | None = None
    rows: int = 0
    before: float | None = None
    after: float | None = None
    allowed: float | None = None
    new_rows: int = 0
    new: float | None = None
    new_advantage: float | None = None
    new_advantage_high: float | None = None


class DataChanges(_Record):
    """How the data differ from the base's."""

    rows: int
    base_rows: int | None = None
    schema_changes: tuple[str, ...] = ()


class Report(_Record):
    """The whole of `reports/gate.json`.

    Attributes:
        seeds: With how many seeds the recipe of each side was trained again; the differences of
            `metrics` and `slices`, with their bounds, are those of the means. 1 if none was.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()
    notes: tuple[str, ...]
    commit: str | None
    base: BaseRecord | None
    challenger: ModelRecord
    champion: ModelRecord | None
    consent: Consent
    contract: str
    contract_changes: tuple[Change, ...]
    confidence: float
    seeds: int = 1
    rows: int
    metrics: tuple[Finding, ...]
    slices: tuple[Finding, ...]
    limits: tuple[Limit, ...]
    data: DataChanges
    reference: ReferenceRecord | None = None
    erosion: tuple[Finding, ...] = ()
    on_base_rows: OnBaseRows | None = None
    record: tuple[RecordCheck, ...] = ()
    seconds: dict[str, float]


def parse_report(content: bytes, name: str) -> Report:
    """The gate's report, from the content of `gate.json`.

    Args:
        content: Of the file.
        name: What to call it in messages.

    Raises:
        GitopsError: If it is none.
    """
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        raise GitopsError(f"{name}: is no report of the gate: {error}; run `make gate`") from error


def read_report(path: Path, name: str) -> Report:
    """The gate's report in a file.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        GitopsError: If there is none.
    """
    try:
        return parse_report(path.read_bytes(), name)
    except OSError as error:
        raise GitopsError(f"{name}: cannot be read: {error.strerror}; run `make gate`") from error
