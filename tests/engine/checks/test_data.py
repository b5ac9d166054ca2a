from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from checking import Values, checks_of

from gitops_ml.checks.data import DataChecks
from gitops_ml.core.settings import Params
from gitops_ml.data.validate import row_problems

Make = Callable[..., Values]


def change(document: Any, path: str, value: Any) -> Any:
    """A settings model with another value at `a.b.c`."""
    data = document.model_dump()
    *parents, last = path.split(".")
    inner = data
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return type(document).model_validate(data)


def breaking(column: pl.Expr) -> Callable[[Values], None]:
    """Rows that break the schema."""

    def plant(values: Values) -> None:
        values.ingested = values.ingested.with_columns(column)
        values.problems = row_problems(values.ingested, values.schema, values.params.data.key)

    return plant


def first(column: str, value: Any) -> pl.Expr:
    """A column whose first row holds another value."""
    return pl.when(pl.int_range(pl.len()) == 0).then(value).otherwise(column).alias(column)


def allow_no_other_colour(values: Values) -> None:
    values.schema = change(values.schema, "columns.colour.unseen", "error")
    breaking(first("colour", pl.lit("puce")))(values)


def by_time(params: Params) -> Params:
    """The same settings with a split by time, for which any number may stand."""
    document = params.model_dump()
    document["data"]["time"] = "order"
    document["split"] |= {"method": "time", "test_from": "2024-01-01T00:00:00Z"}
    return Params.model_validate(document)


def drop_a_column(values: Values) -> None:
    values.ingested = values.ingested.drop("weight")


def change_a_file(values: Values) -> None:
    values.root = Path(values.tmp_path)
    (values.root / "data" / "landed").mkdir(parents=True)
    pl.DataFrame({"order": [1]}).write_parquet(values.root / "data/landed/orders.parquet")


def ask_for_more_rows(values: Values) -> None:
    values.contract = change(values.contract, "data.rows_min", 10_000)


def lose_rows(values: Values) -> None:
    values.train_rows = values.train_rows.head(10)


def repeat_in_training(values: Values) -> None:
    values.train_rows = pl.concat([values.train_rows, values.test_rows.head(3)])


def leave_few_test_rows(values: Values) -> None:
    values.test_rows = values.test_rows.head(20)


def copy_to_training(values: Values) -> None:
    """As in a leak, the copies have keys of their own."""
    copies = values.test_rows.with_columns(pl.col("order") + 100_000)
    values.train_rows = pl.concat([values.train_rows, copies])


def train_without_red(values: Values) -> None:
    values.train_rows = values.train_rows.filter(pl.col("colour") != "red")


def measure_without_returns(values: Values) -> None:
    values.test_rows = values.test_rows.filter(~pl.col("returned"))


def tell_the_answer(values: Values) -> None:
    values.train_rows = values.train_rows.with_columns(weight=pl.col("returned").cast(pl.Float64))


def call_the_target_a_feature(values: Values) -> None:
    values.schema = change(values.schema, "columns.returned.feature", True)


DEFECTS: dict[str, tuple[Callable[[Values], None], str]] = {
    "test_columns_and_types_are_the_schema_s": (drop_a_column, "weight"),
    "test_the_table_is_made_of_the_files_that_landed": (change_a_file, "run `make pipeline`"),
    "test_values_keep_their_ranges": (breaking(first("items", 12)), "items: .*12"),
    "test_categories_are_known": (allow_no_other_colour, "puce"),
    "test_values_are_there_where_they_must_be": (breaking(first("member", None)), "member: "),
    "test_no_key_comes_twice": (breaking(first("order", 1)), "order=1"),
    "test_the_rules_across_columns_hold": (breaking(first("price", -95.0)), "nothing_is_free"),
    "test_the_data_is_fresh_and_large_enough": (ask_for_more_rows, "10,000"),
    "test_every_row_is_on_one_side": (lose_rows, "1500"),
    "test_no_key_is_on_both_sides": (repeat_in_training, "3 keys, e.g. "),
    "test_no_group_is_on_both_sides": (repeat_in_training, r"3 of \['order'\], e.g. "),
    "test_every_row_is_where_the_split_puts_it": (repeat_in_training, "any"),
    "test_the_test_set_has_the_size_that_was_asked_for": (leave_few_test_rows, "0.4 / 2"),
    "test_rows_have_no_twins_on_the_other_side": (copy_to_training, "0.01"),
    "test_the_model_saw_the_categories_of_the_test_set": (train_without_red, "colour.*of the rows"),
    "test_the_classes_of_both_sides_are_the_same": (measure_without_returns, "False"),
    "test_no_feature_predicts_the_target_by_itself": (tell_the_answer, "'weight': 1.0"),
    "test_the_target_and_the_key_are_no_features": (call_the_target_a_feature, "'returned'"),
}


def test_every_check_has_a_defect() -> None:
    assert sorted(DEFECTS) == checks_of(DataChecks)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_check_holds_for_good_data(values: Make, name: str) -> None:
    values().call(DataChecks, name)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_check_fails_and_shows_the_defect(values: Make, name: str) -> None:
    broken = values()
    plant, words = DEFECTS[name]
    plant(broken)

    with pytest.raises(AssertionError, match=f"(?s){words}"):
        broken.call(DataChecks, name)


def test_a_key_of_one_column_is_no_feature(values: Make) -> None:
    broken = values()
    broken.schema = change(broken.schema, "columns.order.feature", True)

    with pytest.raises(AssertionError, match="'order'"):
        broken.call(DataChecks, "test_the_target_and_the_key_are_no_features")


def test_sides_by_time_are_apart_in_time(values: Make) -> None:
    broken = values()
    broken.params = by_time(broken.params)
    everything = pl.concat([broken.train_rows, broken.test_rows]).sort("order")
    broken.train_rows, broken.test_rows = everything.head(1000), everything.tail(500)
    broken.call(DataChecks, "test_no_group_is_on_both_sides")

    broken.test_rows = everything.tail(501)

    with pytest.raises(AssertionError, match="assert 999 < 999"):
        broken.call(DataChecks, "test_no_group_is_on_both_sides")


def skips(values: Values, name: str, reason: str) -> None:
    with pytest.raises(pytest.skip.Exception, match=reason):
        values.call(DataChecks, name)


def test_what_does_not_apply_is_skipped_and_says_why(values: Make) -> None:
    number = values("regression")
    skips(number, "test_the_classes_of_both_sides_are_the_same", "a number has no classes")
    number.params = change(number.params, "data.key", ())
    skips(number, "test_no_key_is_on_both_sides", "the rows have no key")
    number.params = by_time(number.params)
    skips(number, "test_the_test_set_has_the_size_that_was_asked_for", "split by time")
