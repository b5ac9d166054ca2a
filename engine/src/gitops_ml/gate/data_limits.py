"""Limits on the data as they are when the gate judges.

`validate` runs when the data change. Their age changes without that, so each run of the gate judges
it at its own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import DataTerms, Params
from gitops_ml.data.freshness import freshness, time_column
from gitops_ml.features.duplicates import TERM, repeated, told
from gitops_ml.gate.verdict import Limit


def data_limits(
    rows: pl.DataFrame,
    params: Params,
    alike: Sequence[str],
    terms: DataTerms,
    now: datetime | None = None,
) -> tuple[Limit, ...]:
    """Hold the data against the contract.

    Args:
        rows: All rows.
        params: Names the column that dates a row, and the moment.
        alike: The columns in which a row repeats another one; at last the target.
        terms: The contract's.
        now: What `data.as_of: now` stands for; None for this moment.
    """
    limits = [_duplicates(rows, alike, terms.duplicate_rows_max)]
    if terms.freshness_days is not None:
        limits.append(_age(rows, params, terms.freshness_days, now))
    return tuple(limits)


def _duplicates(rows: pl.DataFrame, alike: Sequence[str], allowed: float | None) -> Limit:
    number = int(repeated(rows, alike).sum())
    share = number / max(len(rows), 1)
    failures: tuple[str, ...] = ()
    if allowed is not None and share > allowed:
        failures = (
            f"{told(number, len(rows), alike)}; {100 * allowed:.3g} % may ({TERM}). Land each row "
            "once; where rows are alike by nature, raise the term",
        )
    return Limit(
        term=TERM,
        name="rows that repeat another row",
        value=100 * share,
        unit="%",
        maximum=None if allowed is None else 100 * allowed,
        failures=failures,
    )


def _age(rows: pl.DataFrame, params: Params, allowed: float, now: datetime | None) -> Limit:
    term = "data.freshness_days"
    try:
        times = rows.get_column(time_column(params))
    except SettingsError as error:
        # The base's contract may ask for what the data of the change do not have.
        return Limit(
            term=term, name="age of the newest row", value=0.0, unit="days", failures=(str(error),)
        )
    found = freshness(times, params, now)
    why = found.too_old(allowed)
    return Limit(
        term=term,
        name=f"age of the newest row at {found.as_of:%Y-%m-%d %H:%M}",
        value=found.days or 0.0,
        unit="days",
        maximum=allowed,
        failures=(f"{why} (data.freshness_days); land newer rows",) if why else (),
    )
