from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from gitops_ml.core.schema import Column, Schema
from gitops_ml.core.settings import Params
from gitops_ml.data.leakage import SUSPICIOUS_SKILL, skills

Orders = Callable[..., pl.DataFrame]


@pytest.mark.parametrize("target", ["returned", "size", "stars", "price"])
def test_honest_features_are_not_suspected(
    make_orders: Orders,
    make_params: Callable[..., Params],
    shop_schema: Schema,
    target: str,
) -> None:
    found = skills(make_orders(2000), shop_schema, make_params(target))
    assert list(found) == ["weight", "items", "member", "colour"]
    assert max(found.values()) < 0.9
    assert found["weight"] > 0.1


@pytest.mark.parametrize("target", ["returned", "size", "stars", "price"])
def test_a_feature_that_repeats_the_target_is_found(
    make_orders: Orders,
    make_params: Callable[..., Params],
    shop_schema: Schema,
    target: str,
) -> None:
    rows = make_orders(2000)
    if target == "price":
        leak, kind = rows[target] * 1.2 + np.random.default_rng(0).normal(0, 0.1, 2000), "number"
    else:
        leak, kind = rows[target].cast(pl.String), "category"
    values = tuple(leak.unique()) if kind == "category" else None
    column = Column.model_validate({"type": kind, "categories": values})
    leaky = shop_schema.model_copy(update={"columns": {**shop_schema.columns, "leak": column}})
    found = skills(rows.with_columns(leak=leak), leaky, make_params(target))
    assert found["leak"] >= SUSPICIOUS_SKILL
    assert max(skill for name, skill in found.items() if name != "leak") < SUSPICIOUS_SKILL


def test_a_leak_with_holes_is_still_seen(
    make_orders: Orders, make_params: Callable[..., Params], shop_schema: Schema
) -> None:
    rows = make_orders(2000)
    rows = rows.with_columns(weight=pl.when("returned").then(pl.lit(0.0)))
    found = skills(rows, shop_schema, make_params("returned"))
    assert found["weight"] >= SUSPICIOUS_SKILL
