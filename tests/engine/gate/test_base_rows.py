from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from gitops_ml.core.settings import ModelTerms, Params
from gitops_ml.features.matrix import TableError
from gitops_ml.gate.base_rows import (
    BaseRows,
    Judged,
    Split,
    compare_rows,
    described,
    judge_base_rows,
    judge_changes,
)
from gitops_ml.gate.challenger import score
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.verdict import Consent, OnBaseRows, RowChanges

ROWS = pl.DataFrame(
    {
        "id": range(100),
        "shop": [None if row % 10 == 9 else f"s{row % 10}" for row in range(100)],
        "weight": [row / 3 if row % 7 else None for row in range(100)],
        "late": [row % 3 == 0 for row in range(100)],
    }
)
TRAIN, TEST = ROWS[:60], ROWS[60:]
BASE = Split(TRAIN, TEST)


def changes(here: Split, *key: str) -> RowChanges:
    return compare_rows(BASE, here, key).changes


@pytest.mark.parametrize("key", [("id",), ()])
def test_rows_that_stayed_are_no_change_whatever_came_with_them(key: tuple[str, ...]) -> None:
    new = ROWS.with_columns(pl.col("id") + 1000)
    here = Split(pl.concat([new[:60], TRAIN.reverse()]), pl.concat([new[60:], TEST.reverse()]))
    found = compare_rows(BASE, here, key)
    assert found.changes == RowChanges(rows=40, key=key)
    assert found.changes.share == 0
    assert found.unseen.all()
    assert here.test[found.pairs[:, 1]].equals(TEST[found.pairs[:, 0]])
    assert len(found.pairs) == 40


def test_each_kind_of_change_is_counted_by_key() -> None:
    edited = pl.concat(
        [
            TEST[4:].with_columns(
                late=pl.when(pl.col("id") < 66).then(~pl.col("late")).otherwise("late"),
                shop=pl.when(pl.col("id") == 69).then(pl.lit("s0")).otherwise("shop"),
            ),
            TRAIN[:3],
        ]
    )
    found = compare_rows(BASE, Split(pl.concat([TRAIN[3:], TEST[:1]]), edited), ("id",))
    assert found.changes == RowChanges(
        rows=40,
        vanished=3,
        changed=3,
        columns={"shop": 1, "late": 2},
        to_training=1,
        from_training=3,
        key=("id",),
    )
    assert found.changes.share == 10 / 40
    assert found.unseen.tolist() == [False] + 39 * [True]
    assert described(found.changes) == (
        "of 40 test rows 3 are gone, 3 have other values (`late` in 2, `shop` in 1), 1 are trained "
        "on now, 3 more are tested that the base was trained on"
    )


def test_without_a_key_rows_are_compared_whole_and_as_often_as_they_are_there() -> None:
    twice = Split(TRAIN, pl.concat([TEST, TEST]))
    assert compare_rows(twice, BASE, ()).changes.vanished == 40
    assert compare_rows(BASE, twice, ()).changes.share == 0
    edited = TEST.with_columns(weight=pl.when(pl.col("id") < 70).then(-1.0).otherwise("weight"))
    assert changes(Split(TRAIN, edited)) == RowChanges(rows=40, vanished=10)
    assert changes(Split(TEST, TRAIN)) == RowChanges(rows=40, to_training=40, from_training=60)


def test_a_key_that_only_one_side_has_does_not_hide_what_vanished() -> None:
    here = Split(TRAIN.drop("id"), TEST.drop("id")[10:])
    assert changes(here, "id") == RowChanges(rows=40, vanished=10)
    with_another = here.test.with_columns(new=pl.lit(1))
    assert (
        changes(Split(here.train.with_columns(new=pl.lit(1)), with_another), "new").vanished == 10
    )


def test_a_key_that_names_several_rows_is_none() -> None:
    assert changes(BASE, "late") == RowChanges(rows=40)
    assert changes(Split(TRAIN, TEST[5:]), "late").vanished == 5


def test_the_same_values_in_another_type_are_the_same() -> None:
    other = {"id": pl.Int16, "weight": pl.Float32, "shop": pl.Categorical}
    here = Split(TRAIN.cast(other), TEST.cast(other))
    assert changes(here, "id").columns.keys() <= {"weight"}
    whole = {"id": pl.Float64, "late": pl.Int8}
    assert changes(Split(TRAIN.cast(whole), TEST.cast({"id": pl.Float64})), "id").share == 0


def limit(found: RowChanges, consent: Consent | None = None) -> tuple[Any, GateLog]:
    log = GateLog()
    return judge_changes(log, found, 0.01, consent or Consent()), log


def test_up_to_the_stated_share_changes_are_named_only() -> None:
    few, log = limit(RowChanges(rows=1000, vanished=10, key=("id",)))
    assert (few.failures, few.value, few.maximum) == ((), 1.0, 1.0)
    assert log.notes == ["Other rows are tested than in the base: of 1,000 test rows 10 are gone."]
    none, log = limit(RowChanges(rows=1000, key=("id",)))
    assert (none.failures, none.value, log.notes) == ((), 0.0, [])


def test_above_it_a_maintainer_is_asked() -> None:
    many = RowChanges(rows=1000, changed=11, columns={"late": 11}, key=("id",))
    blocked, log = limit(many)
    (failure,) = blocked.failures
    assert "of 1,000 test rows 11 have other values (`late` in 11); 1 % may differ" in failure
    assert "data.test_rows_changed" in failure
    assert "`contract: loosen`" in failure
    assert "--allow-loosening" in failure
    agreed, log = limit(many, Consent(allow_loosening=True))
    assert agreed.failures == ()
    assert log.notes[0].startswith("With a maintainer's consent, other rows are tested")


def test_many_changed_columns_are_counted_where_the_first_are_named() -> None:
    columns = dict.fromkeys("abcde", 9)
    told = described(RowChanges(rows=10, changed=9, columns=columns, key=("id",)))
    assert told.endswith("(`a` in 9, `b` in 9, `c` in 9 and 2 more columns)")


# --- both models on the base's test rows


ORDERS = pl.DataFrame(
    {
        "order": range(1200),
        "weight": [row % 13 / 13 for row in range(1200)],
        "colour": [("red", "green", "blue")[row % 3] for row in range(1200)],
        "returned": [row % 13 > 8 or row % 11 == 0 for row in range(1200)],
    }
)
CLASSES = (False, True)
ALIKE = ("order",)


def answered(stated: pl.Series) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prediction": stated > 0.5,
            "probability_false": 1 - stated,
            "probability_true": stated,
        }
    )


def by_weight(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A model that goes by the weight, and is wrong about every eleventh order."""
    if "weight" not in rows.columns:
        raise TableError("column `weight`: is missing")
    return rows, answered(rows.get_column("weight"))


def challenge(test: pl.DataFrame) -> Judged:
    _, table = by_weight(test)
    return Judged(
        test, score(test.get_column("returned"), table, CLASSES), CLASSES, ALIKE, by_weight
    )


def base_of(train: pl.DataFrame, test: pl.DataFrame) -> BaseRows:
    """Rows of a base whose champion is always right."""
    stated = test.get_column("returned").cast(pl.Float64) * 0.8 + 0.1
    return BaseRows(Split(train, test), answered(stated), CLASSES)


def judged(base: BaseRows, train: pl.DataFrame, here: Judged) -> tuple[OnBaseRows, GateLog]:
    log = GateLog()
    compared = compare_rows(base.split, Split(train, here.test), ("order",))
    return judge_base_rows(log, base, compared, here, PARAMS, TERMS), log


PARAMS = Params.model_validate(
    {
        "task": "classification",
        "target": "returned",
        "data": {"source": "data"},
        "train": {"estimator": "sklearn.dummy.DummyClassifier"},
        "evaluate": {"metrics": ["roc_auc"]},
    }
)
TERMS = ModelTerms.model_validate(
    {
        "metrics": {"roc_auc": {"margin": 0.005, "floor": 0.5}},
        "slices": [
            {"column": "colour", "metric": "roc_auc", "min_rows": 50, "margin": 0.01},
            {"column": "size", "metric": "roc_auc", "min_rows": 5000, "margin": 0.01},
            {"column": "new", "metric": "roc_auc", "min_rows": 1, "margin": 0.01},
        ],
        "size_mb": 1,
        "latency_p99_ms": 1,
    }
)


def test_a_model_that_is_worse_on_the_base_s_rows_is_found_though_its_own_say_otherwise() -> None:
    base = base_of(ORDERS[:400], ORDERS[400:])
    # Only rows that this model is right about are left.
    easy = ORDERS[400:].filter(pl.col("returned") == (pl.col("weight") > 0.5))
    found, log = judged(base, ORDERS[:400], challenge(easy))
    assert found.changes.vanished == 800 - len(easy) > 0
    assert (found.rows, log.notes) == (800, [])
    (metric,) = found.metrics
    assert metric.outcome == "inferior"
    assert metric.failures[0].startswith("on the base's test rows, roc_auc: worse than the champ")
    # Slices that the base's rows do not have, or have too few rows for, ask nothing of them.
    assert {one.value for one in found.slices} == {"red", "green", "blue"}


def test_rows_that_the_change_trains_on_say_nothing_about_it() -> None:
    base = base_of(ORDERS[800:], ORDERS[:800])
    found, _ = judged(base, ORDERS[:400], challenge(ORDERS[400:800]))
    assert (found.rows, found.changes.to_training) == (400, 400)
    assert found.metrics[0].rows == 400
    found, _ = judged(base, ORDERS[:800], challenge(ORDERS[800:]))
    assert (found.rows, found.metrics) == (0, ())


def test_a_model_that_needs_a_column_that_the_base_lacks_is_judged_on_the_rows_of_both() -> None:
    old = ORDERS.drop("weight")
    base = base_of(old[:400], old[400:])
    found, log = judged(base, ORDERS[:400], challenge(ORDERS[500:].reverse()))
    assert found.rows == 700
    assert found.metrics[0].outcome == "inferior"
    assert "does not take the base's test rows as they were" in log.notes[0]
    assert "judged on the 700 rows of them that are among its own" in log.notes[0]


def test_where_rows_only_came_in_doubt_about_the_base_s_is_no_failure() -> None:
    few = ORDERS[400:440]
    # As good as the challenger, and right about one more order.
    better = few.get_column("weight").to_list()
    wrong = (few["returned"] != (few["weight"] > 0.5)).arg_true()[0]
    better[wrong] = 1 - better[wrong]
    base = BaseRows(Split(ORDERS[:400], few), answered(pl.Series(better)), CLASSES)
    found, _ = judged(base, ORDERS[:400], challenge(ORDERS[400:]))
    assert (found.metrics[0].outcome, found.metrics[0].failures) == ("inconclusive", ())
    gone = BaseRows(
        Split(
            ORDERS[:400], pl.concat([few, ORDERS[:1].with_columns(order=pl.lit(5000, pl.Int64))])
        ),
        answered(pl.Series([*better, 0.0])),
        CLASSES,
    )
    found, _ = judged(gone, ORDERS[:400], challenge(ORDERS[400:]))
    assert found.changes.vanished == 1
    assert found.metrics[0].outcome == "inconclusive"
    assert found.metrics[0].failures


def test_a_column_that_one_side_derives_and_the_other_landed_is_left_out() -> None:
    here = Split(TRAIN.drop("weight"), TEST)
    assert (
        changes(here, "id") == changes(Split(TRAIN, TEST), "id") == RowChanges(rows=40, key=("id",))
    )
