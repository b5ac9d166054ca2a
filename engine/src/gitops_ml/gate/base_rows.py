"""The base's test rows: what became of them, and both models judged on them as they were.

A change brings its own test rows. One that deletes, edits or trains on the rows that it fails on
would look better than it is. So the rows that the base was tested on are counted, and what the
contract asks of the change's test rows it asks of the base's, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.settings import ModelTerms, Params
from gitops_ml.data.problems import count
from gitops_ml.features.matrix import evidence_groups
from gitops_ml.gate.challenger import score
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judgement import Judge, Opponent
from gitops_ml.gate.terms import HOW_TO_CONSENT
from gitops_ml.gate.verdict import Consent, Finding, Limit, OnBaseRows, RowChanges
from gitops_ml.model.metrics import Scored

TERM = "data.test_rows_changed"
_ROW, _HERE, _NUMBER = " row", " row here", " number"
_NAMED = 3


@dataclass(frozen=True)
class Split:
    """The rows of one version of the data, with the schema's columns.

    Attributes:
        train: What the model is trained on.
        test: What it is tested on.
    """

    train: pl.DataFrame
    test: pl.DataFrame


@dataclass(frozen=True)
class BaseRows:
    """The base's rows, with the champion's answers for those that it was tested on.

    Attributes:
        split: The rows.
        answers: The champion's answers for the base's test rows.
        classes: The classes that it tells apart; empty for regression.
        threshold: The probability from which on it answers the second of two classes.
    """

    split: Split
    answers: pl.DataFrame
    classes: tuple[Any, ...]
    threshold: float | None = None


@dataclass(frozen=True)
class Judged:
    """The model that is judged.

    Attributes:
        test: Its own test rows, with the derived columns.
        scored: Its answers for them.
        classes: The classes that it tells apart; empty for regression.
        alike: The columns by which a row repeats another one.
        answer: Gives, for other rows, the rows with their derived columns and its answers, as
            `gitops-ml predict` writes them; raises GitopsError where it does not take them.
    """

    test: pl.DataFrame
    scored: Scored
    classes: tuple[Any, ...]
    alike: tuple[str, ...]
    answer: Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]]


@dataclass(frozen=True)
class Compared:
    """What became of the n test rows of the base.

    Attributes:
        changes: How many did not stay what and where they were.
        unseen: Shape (n,), which of them this change does not train on.
        pairs: Shape (m, 2), rows that both test: the place in the base's test rows, and in these.
    """

    changes: RowChanges
    unseen: NDArray[np.bool_]
    pairs: NDArray[np.int64]


def compare_rows(base: Split, here: Split, key: Sequence[str]) -> Compared:
    """Find the base's test rows among this change's rows.

    Args:
        base: The base's rows.
        here: This change's rows.
        key: The columns that name a row. Without one, or where it does not name the rows of both
            sides, a row is known by all that both say of it, and equal rows by their number.
    """
    tables = [base.test, here.test, base.train, here.train]
    # A column may be derived on one side and landed on the other.
    columns = [name for name in base.test.columns if all(name in table for table in tables)]
    frames = _alike(tables, columns)
    old, test, old_train, train = frames
    key = tuple(key) if key and _name_rows(key, frames) else ()
    known_by = list(key or columns)
    index = [*known_by, _NUMBER]
    named_old, named = _numbered(old, known_by, _ROW), _numbered(test, known_by, _HERE)
    named_train = _numbered(train, known_by, _HERE)
    named_old_train = _numbered(old_train, known_by, _HERE)

    pairs = named_old.join(named, on=index, how="inner", nulls_equal=True).sort(_ROW)
    missing = named_old.join(named, on=index, how="anti", nulls_equal=True)
    trained_on = named_old.join(named_train, on=index, how="semi", nulls_equal=True)
    new = named.join(named_old, on=index, how="anti", nulls_equal=True)
    learnt = new.join(named_old_train, on=index, how="semi", nulls_equal=True)
    moved = missing.join(trained_on, on=_ROW, how="semi")

    before, after = old[pairs[_ROW]], test[pairs[_HERE]]
    differs = {
        name: before.get_column(name).ne_missing(after.get_column(name))
        for name in columns
        if name not in known_by
    }
    changed = pl.DataFrame(differs).select(pl.any_horizontal(pl.lit(False), pl.all()).sum())
    unseen = np.ones(len(old), dtype=np.bool_)
    unseen[trained_on[_ROW].to_numpy()] = False
    return Compared(
        RowChanges(
            rows=len(old),
            vanished=len(missing) - len(moved),
            changed=changed.item() if differs else 0,
            columns={name: n for name, mask in differs.items() if (n := int(mask.sum()))},
            to_training=len(moved),
            from_training=len(learnt),
            key=key,
        ),
        unseen,
        pairs.select(_ROW, _HERE).cast(pl.Int64).to_numpy(),
    )


def _alike(frames: Sequence[pl.DataFrame], columns: Sequence[str]) -> list[pl.DataFrame]:
    """The tables with some columns alone, each of one type in all of them."""
    frames = [frame.select(columns) for frame in frames]
    for name in columns:
        types = {frame.schema[name] for frame in frames}
        if len(types) > 1:
            kind = pl.Float64 if all(one.is_numeric() for one in types) else pl.String
            frames = [frame.with_columns(pl.col(name).cast(kind)) for frame in frames]
    return list(frames)


def _name_rows(key: Sequence[str], frames: Sequence[pl.DataFrame]) -> bool:
    """Whether columns are there, and hold no value twice."""
    return all(
        set(key) <= set(frame.columns) and frame.select(key).is_unique().all() for frame in frames
    )


def _numbered(frame: pl.DataFrame, known_by: Sequence[str], place: str) -> pl.DataFrame:
    """What rows are known by, their number among those that are known by the same, their place."""
    number = pl.int_range(pl.len()).over(known_by).alias(_NUMBER)
    return frame.select(*known_by, number).with_row_index(place)


def judge_changes(log: GateLog, changes: RowChanges, allowed: float, consent: Consent) -> Limit:
    """Hold what became of the base's test rows against what the contract allows.

    Args:
        log: Takes a note of what is allowed, or consented to.
        changes: What became of them.
        allowed: The largest share of them that may have changed.
        consent: What a maintainer agreed to.
    """
    share, what = changes.share, described(changes)
    failures: tuple[str, ...] = ()
    if share > allowed and not consent.allow_loosening:
        failures = (
            f"other rows are tested than in the base: {what}; {100 * allowed:.3g} % may differ "
            f"({TERM}). If it is meant, {HOW_TO_CONSENT}",
        )
    elif share:
        agreed = "With a maintainer's consent, other" if share > allowed else "Other"
        log.notes.append(f"{agreed} rows are tested than in the base: {what}.")
    return Limit(
        term=TERM,
        name="test rows that changed since the base",
        value=100 * share,
        unit="%",
        maximum=100 * allowed,
        failures=failures,
    )


def described(changes: RowChanges) -> str:
    """What became of the base's test rows, in words."""
    columns = sorted(changes.columns.items(), key=lambda one: -one[1])
    named = ", ".join(f"`{name}` in {number:,}" for name, number in columns[:_NAMED])
    more = len(columns) - _NAMED
    named += f" and {count(more, 'more column')}" if more > 0 else ""
    parts = [
        (changes.vanished, "are gone" if changes.key else "are gone or changed"),
        (changes.changed, f"have other values ({named})"),
        (changes.to_training, "are trained on now"),
        (changes.from_training, "more are tested that the base was trained on"),
    ]
    told = ", ".join(f"{number:,} {what}" for number, what in parts if number)
    return f"of {count(changes.rows, 'test row')} {told}"


def judge_base_rows(
    log: GateLog,
    base: BaseRows,
    compared: Compared,
    challenger: Judged,
    params: Params,
    terms: ModelTerms,
) -> OnBaseRows:
    """Hold both models' answers for the base's test rows against the contract.

    Rows that the change trains on are left out: its model knows their answers. A model that does
    not take the base's rows, for want of a column, is judged on those that its own test rows hold.
    Where these rows are all there, as they were, only a loss beyond doubt counts: whether the model
    is as good, the change's own test rows tell, which hold them and more.

    Args:
        log: Takes a note where the base's rows could not be taken as they were.
        base: The base's rows, with the champion's answers.
        compared: What became of them.
        challenger: The change's model.
        params: What there is to predict, and what the split keeps together.
        terms: The contract's.
    """
    inside = compared.unseen
    classes = challenger.classes
    try:
        test, table = challenger.answer(base.split.test)
        truth = test.get_column(params.target)
        ours, theirs = (score(truth, one, classes).take(inside) for one in (table, base.answers))
        test = test.filter(pl.Series(inside))
    except (GitopsError, pl.exceptions.PolarsError) as error:
        old, new = compared.pairs.T
        test, ours = challenger.test[new], challenger.scored.take(new)
        theirs = score(test.get_column(params.target), base.answers[old], classes)
        log.notes.append(
            f"This model does not take the base's test rows as they were ({error}); judged on the "
            f"{count(len(test), 'row')} of them that are among its own."
        )
    if test.is_empty():
        return OnBaseRows(changes=compared.changes)
    court = Judge(
        ours,
        Opponent(theirs, np.arange(len(test))),
        terms.confidence,
        groups_of(test, params, challenger.alike),
        doubtful=compared.changes.share > 0,
    )
    slices = [part for part in terms.slices if part.column in test.columns]
    return OnBaseRows(
        changes=compared.changes,
        rows=len(test),
        metrics=_named(court.metrics(terms.metrics)),
        # A slice of a column's value that the base had too few rows of asks nothing of them.
        slices=_named(found for found in court.slices(slices, test) if found.rows),
    )


def groups_of(test: pl.DataFrame, params: Params, alike: Sequence[str]) -> NDArray[Any] | None:
    """Which rows are no independent evidence; see `evidence_groups`."""
    together = params.split.columns if params.split.method == "hash" else ()
    return evidence_groups(test, together, alike, named=bool(params.data.key))


def _named(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(
        found.model_copy(
            update={"failures": tuple(f"on the base's test rows, {why}" for why in found.failures)}
        )
        for found in findings
    )
