"""What must not change an answer: its company, its place, and columns that do not matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from << cookiecutter.project_slug >>.data.schema import Schema
from << cookiecutter.project_slug >>.model.metrics import Floats
from << cookiecutter.project_slug >>.settings import Contract

pytestmark = pytest.mark.pipeline

Answer = Callable[[pl.DataFrame], Floats]

TOLERANCE = 1e-6


def test_the_order_of_the_rows_does_not_matter(some_rows: pl.DataFrame, answer: Answer) -> None:
    order = np.random.default_rng(0).permutation(some_rows.height)

    np.testing.assert_allclose(answer(some_rows[order]), answer(some_rows)[order], atol=TOLERANCE)


def test_a_row_alone_gets_the_answer_that_it_gets_among_others(
    some_rows: pl.DataFrame, answer: Answer
) -> None:
    rows = some_rows.head(100)
    alone = np.concatenate([answer(rows[place]) for place in range(rows.height)])

    np.testing.assert_allclose(alone, answer(rows), atol=TOLERANCE, rtol=TOLERANCE)


def test_columns_that_are_no_features_do_not_matter(
    schema: Schema, some_rows: pl.DataFrame, answer: Answer
) -> None:
    others = [name for name in some_rows.columns if name not in schema.features()]
    shuffled = some_rows.with_columns(pl.col(others).shuffle(seed=0))

    np.testing.assert_array_equal(answer(shuffled), answer(some_rows))


def test_columns_that_the_contract_calls_invariant_do_not_matter(
    contract: Contract, some_rows: pl.DataFrame, answer: Answer
) -> None:
    if not contract.behaviour.invariant:
        pytest.skip("contract.yaml: behaviour.invariant is empty")
    expected = answer(some_rows)

    changes = {
        name: np.abs(answer(some_rows.with_columns(pl.col(name).shuffle(seed=0))) - expected).max()
        for name in contract.behaviour.invariant
    }

    offenders = {name: change for name, change in changes.items() if change > TOLERANCE}
    assert not offenders, f"shuffling a column changes answers by up to: {offenders}"
