"""The training and the test set share nothing that would flatter the model."""

from __future__ import annotations

import math

import polars as pl
import pytest

from << cookiecutter.project_slug >>.data.schema import Schema
from << cookiecutter.project_slug >>.data.split import in_test, split_columns
from << cookiecutter.project_slug >>.settings import Params

pytestmark = pytest.mark.pipeline

# How much more often a test row may have a twin in the training set than training rows have.
TWIN_TOLERANCE = 0.01
# How many test rows may hold a category that the model never saw.
UNSEEN_MAX = 0.01


def shared(one: pl.DataFrame, other: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    groups = other.select(columns).unique()
    return one.select(columns).unique().join(groups, on=columns, how="semi", nulls_equal=True)


def test_every_row_is_on_one_side(
    ingested: pl.DataFrame, train_rows: pl.DataFrame, test_rows: pl.DataFrame, schema: Schema
) -> None:
    columns = list(schema.columns)
    both = pl.concat([train_rows, test_rows]).select(columns)
    assert both.height == ingested.height
    hashes = ingested.select(columns).hash_rows().sort()
    assert hashes.equals(both.hash_rows().sort()), (
        "the sets are not made of the ingested rows: run `make pipeline`"
    )


def test_no_key_is_on_both_sides(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params
) -> None:
    if not params.data.key:
        pytest.skip("the rows have no key")
    both = shared(test_rows, train_rows, list(params.data.key))
    assert both.is_empty(), f"{both.height} keys, e.g. {both.head(3).rows()}"


def test_no_group_is_on_both_sides(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params, schema: Schema
) -> None:
    if params.split.method == "time":
        time = params.data.time or ""
        assert train_rows.select(time).max().item() < test_rows.select(time).min().item()
        return
    columns = split_columns(params, schema)
    both = shared(test_rows, train_rows, columns)
    assert both.is_empty(), f"{both.height} of {columns}, e.g. {both.head(3).rows()}"


def test_every_row_is_where_the_split_puts_it(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params, schema: Schema
) -> None:
    assert not in_test(train_rows, params, schema).any()
    assert in_test(test_rows, params, schema).all()


def test_the_test_set_has_the_size_that_was_asked_for(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params
) -> None:
    if params.split.method == "time":
        pytest.skip("split by time")
    share = test_rows.height / (train_rows.height + test_rows.height)
    fraction = params.split.test_fraction
    assert fraction / 2 < share < (1 + fraction) / 2


def test_rows_have_no_twins_on_the_other_side(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params, schema: Schema
) -> None:
    """Rows copied from one set to the other show as twins: equal features, equal target.

    Data of few different rows has twins by nature; as many, then, inside the training set.
    """
    columns = [*schema.features(), params.target]
    within = train_rows.select(columns).is_duplicated().mean() or 0.0
    twins = test_rows.select(columns).join(
        train_rows.select(columns).unique(), on=columns, how="semi", nulls_equal=True
    )
    noise = 3 * math.sqrt(max(within * (1 - within), 1 / test_rows.height) / test_rows.height)
    assert twins.height / test_rows.height <= within + noise + TWIN_TOLERANCE


def test_the_model_saw_the_categories_of_the_test_set(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, schema: Schema
) -> None:
    unseen = {
        name: test_rows.filter(~pl.col(name).is_in(train_rows[name].unique().implode())).height
        for name, column in schema.features().items()
        if column.type == "category"
    }
    too_many = {
        name: f"{rows / test_rows.height:.1%} of the rows"
        for name, rows in unseen.items()
        if rows > max(1, UNSEEN_MAX * test_rows.height)
    }
    assert not too_many


def test_the_classes_of_both_sides_are_the_same(
    train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params
) -> None:
    if params.task == "regression":
        pytest.skip("a number has no classes")
    classes = set(train_rows[params.target].unique())
    assert len(classes) > 1
    assert set(test_rows[params.target].unique()) == classes
