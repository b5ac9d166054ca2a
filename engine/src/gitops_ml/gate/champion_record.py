"""The champion against its own record: do the data still mean what they meant?

A model that was trained on data of another meaning holds any comparison on them: with the target
negated, the champion is wrong about every row. So the champion, which knows the old meaning, is
measured by each metric of the contract in three ways:

- On the base's test rows it must measure what the base recorded of it.
- On rows that both versions of the data test, it must measure by this change's values what it
  measures by the base's. They are the same rows, so no drift comes in: a difference of more than
  the metric's margin, either way, is one of meaning. As long as no more rows changed than the
  contract allows, they were corrected.
- On rows that are new, times may have changed, and with them how hard the target is to predict. So
  the champion is held against a model that ignores the features: by most of the metrics it must not
  be worse than that, beyond doubt, by more than `INVERTED` of what it is better by on its own rows;
  nor have errors more than `ENLARGED` times those of that model on the base's rows. Of the flights
  of 2013, where a model of the winter meets the thunderstorms of July, a model of three months or
  more holds that on any later ones, land they one by one or together, and with a negated target on
  none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core import paths
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.json_text import load_json
from gitops_ml.core.metric_catalogue import BUILT_IN
from gitops_ml.core.settings import MetricTerms, Params
from gitops_ml.gate.base_rows import BaseRows, Compared, Judged, described, groups_of
from gitops_ml.gate.challenger import score
from gitops_ml.gate.comparison import Comparison, compare
from gitops_ml.gate.judgement import Opponent
from gitops_ml.gate.verdict import RecordCheck, RowChanges
from gitops_ml.github.labels import NEW_BASELINE_LABEL
from gitops_ml.model.evaluate import baseline
from gitops_ml.model.metrics import Estimate, Scored, kind_of, measure
from gitops_ml.model.own_metrics import MetricError

INVERTED = 0.1
ENLARGED = 3.0
RESAMPLES = 300
# Of the one-sided bound.
CONFIDENCE = 0.975
# What a metric without an interval or a margin may differ by, relative to its value.
_TOLERANCE = 0.01

_CONSENT = (
    "If the new meaning is meant, a maintainer can accept this model without a comparison, with "
    f'the label `{NEW_BASELINE_LABEL}` on the pull request, or --accept-new-baseline "<reason>"'
)


@dataclass(frozen=True)
class Witness:
    """All that the champion has to say about two versions of the data.

    Attributes:
        own: Its answers for the base's test rows.
        own_naive: For the same, what a model answers that ignores the features.
        before: Its answers for rows that both versions test, with the base's values.
        after: For the same rows with this change's values.
        new: Its answers for n rows that only this change tests.
        new_naive: For the same, what a model answers that ignores the features; None where the
            classes are others.
        groups: Shape (n,), new rows with the same label belong together; None if each stands alone.
    """

    own: Scored
    own_naive: Scored
    before: Scored
    after: Scored
    new: Scored
    new_naive: Scored | None = None
    groups: NDArray[Any] | None = None


def witness_of(
    base: BaseRows,
    compared: Compared,
    challenger: Judged,
    opponent: Opponent,
    params: Params,
) -> Witness:
    """What the champion said of the base's test rows and of this change's.

    Args:
        base: The base's rows, with its answers.
        compared: What became of them.
        challenger: The change's model, with the n test rows of the change.
        opponent: The champion's answers for m of these, by the classes of the change's model.
        params: What there is to predict, and what the split keeps together.
    """
    test, classes = challenger.test, challenger.classes
    learnt = base.split.train.get_column(params.target)
    own = score(base.split.test.get_column(params.target), base.answers, base.classes)
    answer = np.full(len(test), -1, dtype=np.int64)
    answer[opponent.rows] = np.arange(len(opponent.rows))
    both = compared.pairs[answer[compared.pairs[:, 1]] >= 0]
    is_new = np.ones(len(test), dtype=np.bool_)
    is_new[compared.pairs[:, 1]] = False
    places = np.flatnonzero(is_new & (answer >= 0))
    new = opponent.scored.take(answer[places])
    comparable = len(new) > 0 and classes == base.classes
    return Witness(
        own=own,
        own_naive=baseline(learnt, own, base.classes or None, base.threshold),
        before=own.take(both[:, 0]),
        after=opponent.scored.take(answer[both[:, 1]]),
        new=new,
        new_naive=baseline(learnt, new, classes or None, base.threshold) if comparable else None,
        groups=groups_of(test[places], params, challenger.alike),
    )


def read_record(base: BaseRevision) -> dict[str, Estimate]:
    """What the base recorded of its model; empty if it recorded nothing that can be read."""
    text = base.read(paths.EVALUATION)
    try:
        metrics = load_json(text or "")["metrics"]
        return {
            name: Estimate(found["value"], found["low"], found["high"])
            for name, found in metrics.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def check_record(
    terms: Mapping[str, MetricTerms],
    record: Mapping[str, Estimate],
    witness: Witness,
    changes: RowChanges,
    allowed: float,
) -> tuple[tuple[RecordCheck, ...], tuple[str, ...]]:
    """Hold the champion against its own record, on the base's data and on this change's.

    Args:
        terms: Of the metrics.
        record: What the base recorded of it.
        witness: Its answers.
        changes: What became of the base's test rows.
        allowed: The share of them that may have changed.

    Returns:
        What was measured, and why the meaning of the data changed; no reason if it did not.
    """
    checks = tuple(_check(name, part, record.get(name), witness) for name, part in terms.items())
    edited = changes.rows > 0 and changes.changed / changes.rows > allowed
    contrary = [_contrary(check) for check in checks]
    told = [check for check in checks if check.advantage and check.advantage > 0]
    reasons = (
        _reason(
            "the champion does not measure what the base recorded of it",
            [_other_record(check) for check in checks],
            "make sure that the base's reports are those of its model",
        ),
        _reason(
            "the meaning of the data changed: on test rows that the base has, too, the champion "
            "is another model by the values of this change",
            [_other_meaning(check) for check in checks if edited],
            described(changes),
        ),
        _reason(
            f"the meaning of the data changed: on {len(witness.new):,} test rows that are new, the "
            "champion is far worse than a model that ignores the features",
            contrary if sum(map(bool, contrary)) > len(told) / 2 else [],
            "look at what these rows say of the target, in which units, and in which columns",
        ),
    )
    return checks, tuple(reason for reason in reasons if reason)


def _reason(what: str, found: Sequence[str | None], advice: str) -> str | None:
    told = "; ".join(one for one in found if one)
    return f"{what}: {told}. {advice[0].upper()}{advice[1:]}. {_CONSENT}" if told else None


def _check(
    name: str, terms: MetricTerms, recorded: Estimate | None, witness: Witness
) -> RecordCheck:
    # An own metric may have come to measure something else; `guard_own_metrics` judges that.
    recorded = recorded if recorded and name in BUILT_IN else Estimate(None, None, None)
    measured, naive = _value(name, witness.own), _value(name, witness.own_naive)
    direction = kind_of(name).direction
    duel = None
    if witness.new_naive is not None:
        # Too few rows, or all of one class, say nothing.
        with contextlib.suppress(MetricError):
            duel = compare(
                name,
                witness.new_naive,
                witness.new,
                margin=0.0,
                confidence=CONFIDENCE,
                groups=witness.groups,
                resamples=RESAMPLES,
            )
    return RecordCheck(
        metric=name,
        recorded=recorded.value,
        recorded_low=recorded.low,
        recorded_high=recorded.high,
        measured=measured,
        advantage=None if measured is None or naive is None else direction * (measured - naive),
        rows=len(witness.before),
        before=_value(name, witness.before),
        after=_value(name, witness.after),
        allowed=_allowed(terms, recorded, measured),
        new_rows=len(witness.new),
        new=_value(name, witness.new),
        new_advantage=None if duel is None else direction * duel.difference,
        new_advantage_high=None
        if duel is None
        else max(direction * duel.low, direction * duel.high),
    )


def _best(duel: Comparison, direction: int) -> float:
    return duel.high if direction > 0 else -duel.low


def _allowed(terms: MetricTerms, recorded: Estimate, measured: float | None) -> float | None:
    """How far a metric may move on the same rows: by its margin, else by half of its interval."""
    if terms.margin is not None:
        return terms.margin
    if recorded.low is not None and recorded.high is not None:
        return (recorded.high - recorded.low) / 2
    return None if measured is None else _TOLERANCE * abs(measured)


def _value(name: str, scored: Scored) -> float | None:
    if not len(scored):
        return None
    try:
        value = float(measure(name, scored)[0])
    except MetricError:
        return None
    return value if np.isfinite(value) else None


def _other_record(check: RecordCheck) -> str | None:
    if check.recorded is None or check.measured is None:
        return None
    low, high = check.recorded_low, check.recorded_high
    if low is None or high is None:
        low, high = sorted(check.recorded * (1 + sign * _TOLERANCE) for sign in (-1, 1))
    if low <= check.measured <= high:
        return None
    return (
        f"{check.metric} {check.measured:.4g} on its own test rows, recorded are "
        f"{check.recorded:.4g} ({low:.4g} to {high:.4g})"
    )


def _other_meaning(check: RecordCheck) -> str | None:
    if check.before is None:
        return None
    if check.after is None:
        return f"{check.metric} {check.before:.4g} by the base's, by these it cannot be measured"
    if check.allowed is None or abs(check.after - check.before) <= check.allowed:
        return None
    return (
        f"{check.metric} {check.before:.4g} by the base's, {check.after:.4g} by these, "
        f"{check.allowed:.4g} may they differ"
    )


def _contrary(check: RecordCheck) -> str | None:
    advantage, high, new = check.advantage, check.new_advantage_high, check.new
    if check.measured is None or new is None or advantage is None or advantage <= 0:
        return None
    own = f"on the base's rows {check.measured:.4g}, better by {advantage:.4g}"
    if high is not None and check.new_advantage is not None and high < -INVERTED * advantage:
        worse = f"worse by {-check.new_advantage:.4g} (at least {-high:.4g})"
        return f"{check.metric} {new:.4g}, {worse}; {own}"
    naive = check.measured + advantage
    if kind_of(check.metric).better == "smaller" and new > ENLARGED * naive:
        return f"{check.metric} {new:.4g}, more than {ENLARGED:g} times {naive:.4g}; {own}"
    return None
