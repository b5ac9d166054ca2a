"""Directional expectations: a change of one column must move the answers the right way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from << cookiecutter.project_slug >>.model.metrics import Floats
from << cookiecutter.project_slug >>.model.predictor import Predictor
from << cookiecutter.project_slug >>.settings import Contract

pytestmark = pytest.mark.pipeline

Answer = Callable[[pl.DataFrame], Floats]


def test_the_answers_move_as_the_contract_expects(
    contract: Contract, predictor: Predictor, test_rows: pl.DataFrame, answer: Answer
) -> None:
    terms = contract.behaviour.directional
    if not terms:
        pytest.skip("contract.yaml: behaviour.directional is empty")
    classes = predictor.manifest["classes"]
    assert classes is None or len(classes) == 2, (
        "contract.yaml: behaviour.directional: needs a number or two classes to have a direction"
    )
    before = answer(test_rows)[:, -1]

    broken = []
    for term in terms:
        dtype = test_rows.schema[term.column]
        changed = test_rows.with_columns(pl.lit(term.set).cast(dtype).alias(term.column))
        moved = answer(changed)[:, -1] - before
        if term.expect == "decrease":
            moved = -moved
        # The mean must move for certain, not by the luck of some rows.
        if not moved.mean() - 3 * moved.std() / np.sqrt(len(moved)) > 0:
            broken.append(f"{term.column} = {term.set} to {term.expect}: {moved.mean():+.4g}")
    assert not broken, f"moved the wrong way, or not surely the right way: {broken}"
