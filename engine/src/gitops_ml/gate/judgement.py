"""The terms of a contract, held against what was measured: pure functions, no files.

A failure is a sentence that names the term, what was found and what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gitops_ml.core.metric_catalogue import BUILT_IN
from gitops_ml.core.settings import LARGER, MetricTerms, Quantity, RowCountChange, SliceTerms
from gitops_ml.gate.comparison import Comparison, compare_means
from gitops_ml.gate.verdict import Finding, Limit
from gitops_ml.github.labels import NEW_BASELINE_LABEL
from gitops_ml.model.metrics import Scored, kind_of, measure, why_undefined
from gitops_ml.model.own_metrics import MetricError

_TOO_FEW = "only"


@dataclass(frozen=True)
class Opponent:
    """Another model's answers for rows of the challenger's test set.

    Attributes:
        scored: The answers for m rows.
        rows: Shape (m,), which of the challenger's n rows they are.
        retrained: The answers, for the same rows, of models of its recipe that only the seed tells
            apart; none where the contract does not ask for them.
    """

    scored: Scored
    rows: NDArray[np.int64]
    retrained: Sequence[Scored] = ()


@dataclass(frozen=True)
class Judge:
    """Holds metrics against terms.

    Attributes:
        challenger: The challenger's answers for the n test rows.
        opponent: The champion's, or the reference's; None without one.
        confidence: Of the one-sided bound that a margin is held against.
        groups: Shape (n,), rows with the same label belong together; None if each stands alone.
        binding: Whether a lost or impossible comparison is a failure.
        doubtful: Whether one that these rows cannot decide is a failure, too.
        against: Who the opponent is.
        key: What follows the names of metrics in the names of terms.
        retrained: The answers, for the n test rows, of models of the challenger's recipe that only
            the seed tells apart. Where there are some, it is their mean that is compared with the
            mean of the opponent's, and bounds alone are the challenger's own.
    """

    challenger: Scored
    opponent: Opponent | None
    confidence: float
    groups: NDArray[Any] | None = None
    binding: bool = True
    doubtful: bool = True
    against: str = "champion"
    key: str = ""
    retrained: Sequence[Scored] = ()

    def metrics(self, terms: Mapping[str, MetricTerms]) -> tuple[Finding, ...]:
        """Judge each metric on all test rows."""
        everything = np.ones(len(self.challenger), dtype=np.bool_)
        return tuple(
            self._judge(f"model.metrics.{name}{self.key}", name, part, everything, must_exist=True)
            for name, part in terms.items()
        )

    def slices(self, terms: Sequence[SliceTerms], test: pl.DataFrame) -> tuple[Finding, ...]:
        """Judge each metric inside every value of a column that has enough rows."""
        return tuple(finding for part in terms for finding in self._slice(part, test))

    def _slice(self, terms: SliceTerms, test: pl.DataFrame) -> list[Finding]:
        column = test.get_column(terms.column).cast(pl.String)
        where = f"model.slices.{terms.column}.{terms.metric}{self.key}"
        counts = column.value_counts().sort(terms.column, nulls_last=True)
        findings = [
            self._judge(
                where,
                terms.metric,
                terms,
                (
                    column.is_null() if value is None else (column == value).fill_null(False)
                ).to_numpy(),
                slice_of=(terms.column, value),
                min_rows=terms.min_rows,
            )
            for value, rows in counts.iter_rows()
            if rows >= terms.min_rows
        ]
        if findings:
            return findings
        largest = max(rows for _, rows in counts.iter_rows())
        empty = (
            f"{where}: no value of `{terms.column}` has {terms.min_rows} test rows (the largest "
            f"has {largest}), so this term checks nothing; lower min_rows"
        )
        return [
            Finding(
                term=where,
                metric=terms.metric,
                better=kind_of(terms.metric).better,
                column=terms.column,
                rows=0,
                failures=(empty,),
            )
        ]

    def _judge(
        self,
        term: str,
        metric: str,
        terms: MetricTerms,
        inside: NDArray[np.bool_],
        slice_of: tuple[str, str | None] | None = None,
        min_rows: int = 1,
        must_exist: bool = False,
    ) -> Finding:
        column, value = slice_of or (None, None)
        what = metric if column is None else f"{metric} where {column} is {value or 'missing'}"
        bound = terms.floor if terms.floor is not None else terms.ceiling
        # A built-in metric that a slice is too uniform for says so; what a project's own function
        # means by no number, nobody knows.
        must_exist = must_exist or metric not in BUILT_IN
        failures: list[str] = []
        lost: list[str] = []
        duel, champion, note = None, None, None
        value_or_reason = _value(metric, self.challenger.take(inside))
        if isinstance(value_or_reason, str):
            found, note = None, value_or_reason
            if must_exist:
                failures.append(note)
        else:
            found = value_or_reason
            if bound is not None and (found - bound) * kind_of(metric).direction < 0:
                side = "below the floor" if terms.floor is not None else "above the ceiling"
                failures.append(f"{found:.4g} is {side} {bound:g}")
            if self.opponent is not None:
                duel, champion, note = self._compare(metric, terms.margin, inside, min_rows)
            too_few = note is not None and note.startswith(_TOO_FEW)
            if note is not None and self.binding and must_exist and not (column and too_few):
                lost.append(f"not compared: {note}")
        if duel is not None and self.binding and self._fails(duel):
            lost.append(_lost(duel, kind_of(metric).direction, self))
        return Finding(
            term=term,
            metric=metric,
            better=kind_of(metric).better,
            column=column,
            value=value,
            rows=int(inside.sum()),
            challenger=found,
            champion=champion,
            bound=bound,
            margin=terms.margin,
            difference=duel.difference if duel else None,
            low=duel.low if duel else None,
            high=duel.high if duel else None,
            outcome=duel.outcome if duel else None,
            failures=tuple(f"{what}: {failure} ({term})" for failure in [*failures, *lost]),
            lifted_by=NEW_BASELINE_LABEL if lost else None,
            note=note,
        )

    def _fails(self, duel: Comparison) -> bool:
        return not duel.passed and (self.doubtful or duel.outcome == "inferior")

    def _compare(
        self, metric: str, margin: float | None, inside: NDArray[np.bool_], min_rows: int
    ) -> tuple[Comparison | None, float | None, str | None]:
        """The comparison if a margin asks for one, the champion's metric, and why there is none."""
        assert self.opponent is not None
        common = inside[self.opponent.rows]
        if common.sum() < min_rows:
            return None, None, f"{_TOO_FEW} {common.sum()} rows in common with the {self.against}"
        theirs = self.opponent.scored.take(common)
        value = _value(metric, theirs)
        if isinstance(value, str):
            return None, None, f"the {self.against}: {value}"
        if margin is None:
            return None, value, None
        rows = self.opponent.rows[common]
        try:
            duel = compare_means(
                metric,
                *(self._means(common, rows) or ([theirs], [self.challenger.take(rows)])),
                margin=margin,
                confidence=self.confidence,
                groups=None if self.groups is None else self.groups[rows],
            )
        except MetricError as error:
            return None, value, str(error)
        return duel, value, None

    def _means(
        self, theirs: NDArray[np.bool_], ours: NDArray[np.int64]
    ) -> tuple[list[Scored], list[Scored]] | None:
        """The champion's and the challenger's models whose means are compared, if they are."""
        if self.opponent is None or not self.retrained:
            return None
        champions = [one.take(theirs) for one in self.opponent.retrained]
        return champions, [one.take(ours) for one in self.retrained]


def _value(metric: str, scored: Scored) -> float | str:
    """The metric, or why it does not exist."""
    try:
        value = float(measure(metric, scored)[0])
    except MetricError as error:
        return str(error)
    if np.isfinite(value):
        return value
    if metric not in BUILT_IN:
        return why_undefined(metric, scored)
    return f"does not exist on these {len(scored)} rows"


def _lost(duel: Comparison, direction: int, judge: Judge) -> str:
    worst = duel.low if direction > 0 else duel.high
    allowed = -duel.margin if direction > 0 else duel.margin
    why = (
        f"worse than the {judge.against}"
        if duel.outcome == "inferior"
        else f"not shown to be as good as the {judge.against}"
    )
    seeds = f" in the mean of {len(judge.retrained)} seeds" if judge.retrained else ""
    return (
        f"{why}: {duel.challenger:.4g} against {duel.champion:.4g}{seeds}, difference "
        f"{duel.difference:+.4g}, {judge.confidence:.0%} bound {worst:+.4g}, allowed {allowed:+.4g}"
    )


def judge_limits(contract: BaseModel, measured: Mapping[str, float | None]) -> tuple[Limit, ...]:
    """Hold what was measured against every term of a contract that limits a quantity.

    Args:
        contract: Sections of terms, as `Contract` has them.
        measured: As `measure` gives it.
    """
    found = []
    for section, part in contract:
        for key, field in type(part).model_fields.items():
            term, value = f"{section}.{key}", getattr(part, key)
            quantity = next((one for one in field.metadata if isinstance(one, Quantity)), None)
            if quantity is None or value is None:
                continue
            number = measured[term]
            if number is not None:
                bounds = _bounds(field, value, quantity)
                found.append(judge_limit(term, quantity.name, number, quantity.unit, *bounds))
    return tuple(found)


def _bounds(field: FieldInfo, value: Any, quantity: Quantity) -> tuple[float | None, float | None]:
    """The least and the most that a term allows, in the unit of its quantity."""
    if isinstance(value, RowCountChange):
        return value.min * quantity.scale, value.max * quantity.scale
    bound = value * quantity.scale
    return (bound, None) if LARGER in field.metadata else (None, bound)


def judge_limit(
    term: str,
    name: str,
    value: float,
    unit: str,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Limit:
    """Hold a quantity against the least and the most that the contract allows."""
    failures = []
    if minimum is not None and value < minimum:
        failures.append(f"{name}: {value:.4g} {unit} is less than {minimum:.4g} ({term})")
    if maximum is not None and value > maximum:
        failures.append(f"{name}: {value:.4g} {unit} is more than {maximum:.4g} ({term})")
    return Limit(
        term=term,
        name=name,
        value=value,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        failures=tuple(failures),
    )
