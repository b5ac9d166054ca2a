"""How far the data have moved since the reference, in all steps together.

A limit on one change bounds one step: who deletes a few of the late flights each time gets rid of
them all. So the data are held against those of the reference's commit as well, by what its
`reports/data_profile.json` says: the number of rows, and how the target is distributed. The
reference is the one that erosion goes by (`gate/reference.py`), and moves like it: by
`make reference`, with a maintainer's consent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import ValidationError

from gitops_ml.core import paths
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import DataTerms, ModelTerms, Params
from gitops_ml.data.problems import count
from gitops_ml.data.profile import Profile, make_profile
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.reference import Reference, locate
from gitops_ml.gate.terms import HOW_TO_CONSENT
from gitops_ml.gate.verdict import Consent, Limit

TERM = "data.target_drift"
ROWS_TERM = "data.row_count_change"
# A column that moved by less is not named.
_NAMED_FROM = 0.1
_NAMED = 5
_MOVE = "then `make reference` lets later changes be measured from this one"


def reference_commit(
    base: BaseRevision | None,
    reference: Reference | None,
    terms: ModelTerms,
    params: Params,
    challenger: str,
) -> str | None:
    """The commit of the reference, whether or not its model is compared with.

    Returns:
        None where there is no reference yet, or where it is the model that is judged.

    Raises:
        GitError: If the history cannot be read.
    """
    if reference is not None:
        return reference.record.commit
    if base is None or terms.reference == challenger:
        return None
    found = locate(base, terms.reference, params)
    return None if found is None else found[0].commit


def judge_data_drift(
    log: GateLog,
    rows: pl.DataFrame,
    base: BaseRevision | None,
    commit: str | None,
    schema: Schema,
    params: Params,
    terms: DataTerms,
    consent: Consent,
) -> tuple[Limit, ...]:
    """Hold the data against those of the reference.

    Args:
        log: Takes notes: which columns moved, and what a maintainer agreed to.
        rows: All rows of the change.
        base: What is judged against; its repository has the reference's commit.
        commit: The reference's commit; None without one.
        schema: The change's.
        params: Names the target.
        terms: The contract's.
        consent: What a maintainer agreed to.

    Returns:
        A limit on the target; one on the number of rows, where the reference is not the base.
    """
    if base is None or commit is None or rows.is_empty():
        return ()
    before = _profile(base, commit)
    if before is None:
        log.notes.append(
            f"The reference {commit[:10]} has no {paths.DATA_PROFILE} that can be read, so how far "
            "the data have moved in all is not known; `make reference` names a model that has one"
        )
        return ()
    here = schema.model_copy(
        update={"columns": {n: c for n, c in schema.columns.items() if n in rows.columns}}
    )
    now = make_profile(rows, here, "")
    limits = []
    if commit != base.commit and terms.row_count_change is not None:
        limits.append(
            _rows(log, now.rows, before.rows, commit, terms.row_count_change.min, consent)
        )
    moved = {
        name: distance(before.columns[name], told)
        for name, told in now.columns.items()
        if name in before.columns
    }
    drift = moved.pop(params.target, None)
    if drift is not None:
        limits.append(_target(log, drift, params.target, commit, terms.target_drift, consent))
    _name(log, moved, commit)
    return tuple(limits)


def distance(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """How far a column has moved, by two descriptions of it; None where they do not say.

    Returns:
        The share of the rows that would have to change to another category, to true or false, or
        to a missing value; for numbers, if that is more, how far the mean has moved, in standard
        deviations.
    """
    missing = abs(now["null_share"] - before["null_share"])
    if "shares" in before and "shares" in now:
        one, other = before["shares"], now["shares"]
        apart = sum(abs(one.get(name, 0) - other.get(name, 0)) for name in {*one, *other})
        return float(apart + missing) / 2
    if before.get("mean") is None or now.get("mean") is None:
        return float(missing) if "mean" in before and "mean" in now else None
    shift = abs(now["mean"] - before["mean"])
    if "min" in before and "min" in now:
        if before.get("std") is None:
            return None
        shift = 0.0 if shift == 0 else shift / before["std"] if before["std"] else 1.0
    return float(max(shift, missing))


def _profile(base: BaseRevision, commit: str) -> Profile | None:
    try:
        return Profile.model_validate_json(base.read(paths.DATA_PROFILE, commit) or "")
    except ValidationError:
        return None


def _rows(
    log: GateLog, rows: int, before: int, commit: str, least: float, consent: Consent
) -> Limit:
    change = rows / before - 1 if before else 0.0
    why = (
        f"{count(rows, 'row')} are left of {before:,} that the reference {commit[:10]} had: "
        f"{100 * change:.3g} % in all steps together; {100 * least:.3g} % may ({ROWS_TERM})"
    )
    return Limit(
        term=ROWS_TERM,
        name="change of the row count since the reference",
        value=100 * change,
        unit="%",
        minimum=100 * least,
        failures=_failures(log, why, change < least, consent),
    )


def _target(
    log: GateLog, drift: float, target: str, commit: str, most: float, consent: Consent
) -> Limit:
    why = (
        f"`{target}` is distributed otherwise than in the data of the reference {commit[:10]}: it "
        f"moved by {drift:.3g} in all steps together; {most:.3g} may ({TERM})"
    )
    return Limit(
        term=TERM,
        name=f"how far `{target}` has moved since the reference",
        value=drift,
        unit="",
        maximum=most,
        failures=_failures(log, why, drift > most, consent),
    )


def _failures(log: GateLog, why: str, broken: bool, consent: Consent) -> tuple[str, ...]:
    if not broken:
        return ()
    if consent.allow_loosening:
        log.notes.append(f"With a maintainer's consent: {why}.")
        return ()
    return (f"{why}. If it is meant, {HOW_TO_CONSENT}; {_MOVE}",)


def _name(log: GateLog, moved: Mapping[str, float | None], commit: str) -> None:
    far = sorted(
        ((one, name) for name, one in moved.items() if one is not None and one >= _NAMED_FROM),
        reverse=True,
    )
    if far:
        told = ", ".join(f"`{name}` {one:.2g}" for one, name in far[:_NAMED])
        more = f" and {count(len(far) - _NAMED, 'more column')}" if len(far) > _NAMED else ""
        log.notes.append(
            f"Columns that moved since the reference {commit[:10]}, by the share of their rows or "
            f"in standard deviations: {told}{more}."
        )
