from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.data.problems import DataError
from gitops_ml.data.split import in_test, position, split

SCHEMA = Schema.model_validate(
    {
        "columns": {
            "id": {"type": "integer", "feature": False},
            "group": {"type": "category", "categories": list("abcdefghij"), "feature": False},
            "at": {"type": "datetime", "feature": False, "nullable": True},
            "size": {"type": "number", "nullable": True},
            "late": {"type": "boolean", "feature": False},
        }
    }
)
START = datetime(2024, 1, 1, tzinfo=UTC)


def make_rows(size: int, first: int = 0) -> pl.DataFrame:
    ids = range(first, first + size)
    return pl.DataFrame(
        {
            "id": ids,
            "group": ["abcdefghij"[number % 10] for number in ids],
            "at": [START + timedelta(hours=number) for number in ids],
            "size": [None if number % 7 == 0 else number / 4 for number in ids],
            "late": [number % 2 == 0 for number in ids],
        }
    ).with_columns(source_file=pl.lit("rows.csv"))


def make_params(key: tuple[str, ...] = ("id",), **terms: Any) -> Params:
    return Params.model_validate(
        {
            "task": "classification",
            "target": "late",
            "data": {"source": "data", "key": key, "time": "at"},
            "split": terms,
            "train": {"estimator": "sklearn.tree.DecisionTreeClassifier"},
            "evaluate": {"metrics": ["accuracy"]},
        }
    )


def test_sides_share_no_row_and_lose_none() -> None:
    rows = make_rows(2000)
    train, test = split(rows, make_params(test_fraction=0.25), SCHEMA)
    assert sorted([*train["id"], *test["id"]]) == list(range(2000))
    assert test.height / 2000 == pytest.approx(0.25, abs=0.03)
    assert train.columns == test.columns == list(SCHEMA.columns)


def test_a_row_keeps_its_side_when_others_land_or_are_shuffled() -> None:
    params = make_params(test_fraction=0.3)
    before = make_rows(500)
    after = pl.concat([make_rows(500, first=500), before]).sample(fraction=1, shuffle=True, seed=3)
    old = dict(zip(before["id"], in_test(before, params, SCHEMA), strict=True))
    new = dict(zip(after["id"], in_test(after, params, SCHEMA), strict=True))
    assert all(new[row] == side for row, side in old.items())


def test_the_side_is_pinned_for_ever() -> None:
    # A change of the hash would move rows between the sets: these numbers must never change.
    assert position([datetime(2013, 1, 1, 10, tzinfo=UTC)], "1") == pytest.approx(
        0.2005690753327326, abs=1e-12
    )
    assert position([1, "a", 2.5, True, None], "1") == pytest.approx(0.7087378535387936, abs=1e-12)


def test_equal_values_have_one_position() -> None:
    zone = timezone(timedelta(hours=2))
    assert position([START], "s") == position([START.astimezone(zone)], "s")
    assert position([0.0], "s") == position([-0.0], "s")
    assert position(["a", "b"], "s") != position(["a,b"], "s")
    assert position([None], "s") != position(["null"], "s")


def test_rows_that_share_the_split_columns_stay_together() -> None:
    rows = make_rows(300)
    train, test = split(rows, make_params(columns=["group"], test_fraction=0.4), SCHEMA)
    assert not set(train["group"]) & set(test["group"])


def test_without_a_key_equal_features_stay_together() -> None:
    rows = pl.concat([make_rows(200), make_rows(200)])
    train, test = split(rows, make_params(key=(), test_fraction=0.4), SCHEMA)
    assert train.height + test.height == 400
    assert not set(train["size"].drop_nulls()) & set(test["size"].drop_nulls())
    assert train["size"].null_count() == 0 or test["size"].null_count() == 0


def test_another_salt_is_another_split() -> None:
    rows = make_rows(500)
    one, two = (in_test(rows, make_params(salt=salt), SCHEMA) for salt in ("1", "2"))
    assert not one.equals(two)


def test_a_larger_test_set_keeps_the_rows_of_a_smaller_one() -> None:
    rows = make_rows(500)
    small, large = (in_test(rows, make_params(test_fraction=share), SCHEMA) for share in (0.2, 0.4))
    assert (large | ~small).all()


def test_split_by_time() -> None:
    params = make_params(method="time", test_from=START + timedelta(hours=40))
    train, test = split(make_rows(50), params, SCHEMA)
    assert test["id"].to_list() == list(range(40, 50))
    assert train.height == 40


def test_a_row_without_time_cannot_be_placed_by_time() -> None:
    params = make_params(method="time", test_from=START)
    rows = make_rows(5).with_columns(at=pl.lit(None, pl.Datetime("us", "UTC")))
    with pytest.raises(DataError, match="5 rows have no time"):
        split(rows, params, SCHEMA)


@pytest.mark.parametrize(
    ("terms", "advice"),
    [
        ({"method": "time", "test_from": START + timedelta(days=9)}, "must lie between 2024-01-01"),
        ({"columns": ["late"], "test_fraction": 0.0001}, "late 2 values tell them apart"),
    ],
)
def test_an_empty_side_says_what_to_change(terms: dict[str, Any], advice: str) -> None:
    with pytest.raises(DataError, match=f"the test set is empty; .*{advice}"):
        split(make_rows(20), make_params(**terms), SCHEMA)
