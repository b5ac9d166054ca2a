from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.matrix import alike_columns, evidence_groups
from gitops_ml.model.metrics import Scored, estimate

RANDOM = np.random.default_rng(1)
ALIKE = ("heat", "rain", "late")
ROWS = pl.DataFrame(
    {
        "id": range(300),
        "day": [row // 10 for row in range(300)],
        "heat": RANDOM.normal(size=300),
        "rain": [None if row % 9 == 0 else row % 4 for row in range(300)],
        "late": RANDOM.random(300) < 0.3,
    }
)


def groups(rows: pl.DataFrame, *together: str, named: bool = False) -> Any:
    return evidence_groups(rows, together, ALIKE, named=named)


def test_rows_that_differ_stand_alone_or_with_what_the_split_keeps_together() -> None:
    assert groups(ROWS) is None
    assert groups(ROWS, "month") is None
    by_day = groups(ROWS, "day")
    assert len(set(by_day.tolist())) == 30
    assert len(set(by_day[:10].tolist())) == 1


def test_a_copy_belongs_to_what_it_repeats_on_whichever_day_it_is_dated() -> None:
    copies = ROWS[5:8].with_columns(pl.col("id") + 1000, pl.col("day") + 100)
    rows = pl.concat([ROWS, copies])
    for named in (True, False):
        alone, by_day = groups(rows, named=named), groups(rows, "day", named=named)
        assert alone[-3:].tolist() == alone[5:8].tolist()
        assert len(set(alone.tolist())) == 300
        assert by_day[-3:].tolist() == by_day[5:8].tolist()
        assert len(set(by_day.tolist())) == 30


def test_where_a_key_names_rows_and_many_are_alike_they_are_so_by_nature() -> None:
    rows = ROWS.with_columns(heat=pl.lit(1.0))
    assert groups(rows, named=True) is None
    assert len(set(groups(rows, named=False).tolist())) < 20
    assert len(set(groups(rows, "day", named=True).tolist())) == 30


def test_copies_never_shrink_an_interval() -> None:
    def width(rows: pl.DataFrame) -> float:
        truth = rows.get_column("late").cast(pl.Int64).to_numpy()
        stated = 1 / (1 + np.exp(-rows.get_column("heat").to_numpy() - truth))
        probability = np.column_stack([1 - stated, stated])
        scored = Scored(truth, (stated > 0.5).astype(np.int64), probability, 2)
        found = estimate(["roc_auc"], scored, 0.95, 400, 3, groups(rows))["roc_auc"]
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    once = width(ROWS)
    for times in (2, 4):
        copied = pl.concat([ROWS] * times).with_columns(id=pl.int_range(pl.len()))
        assert width(copied) >= 0.95 * once
    some = pl.concat([ROWS, *4 * [ROWS[:150]]])
    assert width(some) >= 0.95 * once


def test_rows_are_alike_in_all_that_the_model_is_given_but_their_name(
    shop_schema: Schema, make_params: Callable[..., Params]
) -> None:
    inputs = ["weight", "order", "price"]
    found = alike_columns(shop_schema.features(), inputs, make_params("price"))
    assert found == (
        "weight",
        "items",
        "member",
        "colour",
        "order",
        "price",
    )
