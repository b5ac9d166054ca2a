from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gitops_ml.core.git import BaseRevision
from gitops_ml.core.settings import MetricTerms, Params
from gitops_ml.gate.base_rows import BaseRows, Compared, Judged, Split, compare_rows
from gitops_ml.gate.challenger import score
from gitops_ml.gate.champion_record import check_record, read_record, witness_of
from gitops_ml.gate.judgement import Opponent
from gitops_ml.model.metrics import Estimate, Scored, estimate

RANDOM = np.random.default_rng(4)
ROWS = pl.DataFrame(
    {
        "id": range(4000),
        "heat": RANDOM.normal(60, 20, 4000),
        "rain": RANDOM.gamma(2, 2, 4000),
        "noise": RANDOM.normal(0, 1, 4000),
    }
).with_columns(late=pl.col("rain") + pl.col("heat") / 20 + 2 * pl.col("noise") > 9)
ROWS = ROWS.with_columns(delay=3 * pl.col("rain") + pl.col("heat") / 4 + 5 * pl.col("noise"))
TRAIN, TEST, NEW = ROWS[:2000], ROWS[2000:3000], ROWS[3000:]

CLASSIFICATION = {"roc_auc": 0.005, "log_loss": 0.01, "accuracy": 0.01}
REGRESSION = {"mae": 0.2, "rmse": 0.2, "r2": 0.01}


def params(task: str) -> Params:
    return Params.model_validate(
        {
            "task": task,
            "target": "late" if task == "classification" else "delay",
            "data": {"source": "data", "key": ["id"]},
            "train": {"estimator": "sklearn.dummy.DummyClassifier"},
            "evaluate": {"metrics": ["accuracy" if task == "classification" else "mae"]},
        }
    )


def champion(task: str, rows: pl.DataFrame) -> pl.DataFrame:
    """What a model that knows the truth but for the noise answers."""
    if task == "regression":
        return rows.select(prediction=3 * pl.col("rain") + pl.col("heat") / 4)
    margin = pl.col("rain") + pl.col("heat") / 20 - 9
    stated = rows.select(stated=1 / (1 + (-margin).exp())).get_column("stated")
    return pl.DataFrame(
        {
            "prediction": stated > 0.5,
            "probability_false": 1 - stated,
            "probability_true": stated,
        }
    )


def here(test: pl.DataFrame, classes: tuple[Any, ...] = ()) -> Judged:
    """A change's model of which only its test rows and its classes matter."""
    nothing = np.zeros(len(test))
    return Judged(test, Scored(nothing, nothing), classes, ("id",), lambda rows: (rows, rows))


def judged(
    task: str,
    test: pl.DataFrame,
    key: tuple[str, ...] = ("id",),
    record: dict[str, Estimate] | None = None,
    classes: tuple[Any, ...] = (False, True),
) -> tuple[str, ...]:
    """Why the meaning of the data changed, when these are the test rows of a change."""
    held = params(task)
    known = (False, True) if task == "classification" else ()
    base = BaseRows(Split(TRAIN, TEST), champion(task, TEST), known)
    compared: Compared = compare_rows(base.split, Split(TRAIN, test), key)
    truth = test.get_column(held.target)
    answers = score(truth, champion(task, test), classes if task == "classification" else ())
    opponent = Opponent(answers, np.arange(len(test)))
    witness = witness_of(base, compared, here(test, classes if known else ()), opponent, held)
    margins = CLASSIFICATION if task == "classification" else REGRESSION
    terms = {name: MetricTerms(margin=margin) for name, margin in margins.items()}
    if record is None:
        record = estimate([*margins], witness.own, 0.95, 200, 1)
    checks, reasons = check_record(terms, record, witness, compared.changes, 0.01)
    assert [check.metric for check in checks] == [*margins]
    return reasons


CONTRARY = (
    "the meaning of the data changed: on 1,000 test rows that are new, the champion is far worse "
    "than a model that ignores the features"
)
TASKS = ["classification", "regression"]
HEAT, RAIN = pl.col("heat"), pl.col("rain")
MEANINGS = {
    "negated": {"late": ~pl.col("late"), "delay": -pl.col("delay")},
    "negated column": {"rain": -RAIN},
    "to Celsius": {"heat": (HEAT - 32) / 1.8},
    "swapped": {"heat": RAIN, "rain": HEAT},
    "other unit": {"rain": RAIN * 25.4},
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_another_meaning_of_the_same_rows_is_found(task: str, meaning: str) -> None:
    reasons = judged(task, TEST.with_columns(**MEANINGS[meaning]))
    (reason,) = reasons
    assert "the meaning of the data changed: on test rows that the base has, too" in reason
    assert "Of 1,000 test rows 1,000 have other values (`" in reason
    assert "`model: new baseline`" in reason
    assert '--accept-new-baseline "<reason>"' in reason


def test_a_shifted_target_is_found_whichever_way_the_metric_moves() -> None:
    (reason,) = judged("regression", TEST.with_columns(delay=pl.col("delay") + 15))
    assert "mae " in reason
    # Zero noise: the champion is better than its record.
    better = TEST.with_columns(delay=3 * RAIN + HEAT / 4)
    (reason,) = judged("regression", better)
    assert "by the base's, 0 by these, 0.2 may they differ" in reason


def test_renamed_classes_are_another_meaning() -> None:
    renamed = TEST.with_columns(late=pl.when("late").then(pl.lit("yes")).otherwise(pl.lit("no")))
    (reason,) = judged("classification", renamed, classes=("no", "yes"))
    assert "accuracy " in reason
    assert " by the base's, 0 by these" in reason
    assert "(`late` in 1,000)" in reason


def test_a_target_that_tells_no_classes_apart_any_more_is_another_meaning() -> None:
    (reason,) = judged("classification", TEST.with_columns(late=pl.lit(False)))
    assert "by the base's, by these it cannot be measured" in reason


@pytest.mark.parametrize("task", TASKS)
def test_corrected_and_added_rows_keep_the_meaning(task: str) -> None:
    few = pl.col("id") % 100 == 0
    corrected = TEST.with_columns(
        late=pl.when(few).then(~pl.col("late")).otherwise("late"),
        delay=pl.when(few).then(1000.0).otherwise("delay"),
    )
    assert judged(task, TEST) == ()
    assert judged(task, corrected) == ()
    assert judged(task, pl.concat([NEW, corrected])) == ()


@pytest.mark.parametrize("task", TASKS)
def test_new_rows_may_drift_but_not_tell_the_contrary(task: str) -> None:
    drifted = NEW.with_columns(
        late=pl.col("late") | (pl.col("id") % 5 == 0), delay=1.5 * pl.col("delay") + 5
    )
    assert judged(task, pl.concat([TEST, drifted])) == ()
    contrary = NEW.with_columns(**MEANINGS["negated"])
    for rows, key in ((pl.concat([TEST, contrary]), ("id",)), (contrary, ()), (contrary, ("id",))):
        (reason,) = judged(task, rows, key)
        assert CONTRARY in reason
        assert "`model: new baseline`" in reason


def test_new_rows_in_another_unit_are_found() -> None:
    for factor in (60, 1 / 60):
        rows = NEW.with_columns(delay=pl.col("delay") * factor)
        assert CONTRARY in judged("regression", pl.concat([TEST, rows]))[0]


def test_without_a_key_a_negated_target_is_found() -> None:
    (reason,) = judged("classification", TEST.with_columns(late=~pl.col("late")), ())
    assert CONTRARY in reason


def test_a_record_that_is_not_the_champion_s_is_found() -> None:
    forged = {"roc_auc": Estimate(0.99, 0.98, 0.995), "accuracy": Estimate(0.5, None, None)}
    (reason,) = judged("classification", TEST, record=forged)
    assert "the champion does not measure what the base recorded of it: roc_auc 0." in reason
    assert "recorded are 0.99 (0.98 to 0.995); accuracy 0." in reason
    assert judged("classification", TEST, record={}) == ()


@pytest.mark.parametrize(
    ("record", "allowed"), [({"mae": Estimate(4.0, 3.0, 5.0)}, 1.0), ({}, None)]
)
def test_what_no_margin_bounds_may_differ_by_half_its_interval(
    record: dict[str, Estimate], allowed: float | None
) -> None:
    held = params("regression")
    base = BaseRows(Split(TRAIN, TEST), champion("regression", TEST), ())
    test = TEST.with_columns(delay=pl.col("delay") + 15)
    compared = compare_rows(base.split, Split(TRAIN, test), ("id",))
    answers = score(test.get_column("delay"), champion("regression", test), ())
    opponent = Opponent(answers, np.arange(len(test)))
    witness = witness_of(base, compared, here(test), opponent, held)
    terms = {"mae": MetricTerms(ceiling=100)}
    (check,), reasons = check_record(terms, record, witness, compared.changes, 0.01)
    assert check.measured is not None
    assert check.allowed == (allowed or 0.01 * check.measured)
    assert len(reasons) == 1


def test_only_rows_that_the_champion_answered_for_say_something() -> None:
    base = BaseRows(Split(TRAIN, TEST), champion("regression", TEST), ())
    test = pl.concat([NEW, TEST])
    compared = compare_rows(base.split, Split(TRAIN, test), ("id",))
    rows = np.array([1999, 1500, 3])
    scored = score(test.get_column("delay"), champion("regression", test), ()).take(rows)
    held = params("regression")
    witness = witness_of(base, compared, here(test), Opponent(scored, rows), held)
    assert witness.after.truth.tolist() == TEST.get_column("delay")[[500, 999]].to_list()
    assert witness.before.prediction.tolist() == witness.after.prediction.tolist()
    assert witness.new.truth.tolist() == NEW.get_column("delay")[[3]].to_list()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            json.dumps({"metrics": {"mae": {"value": 2.0, "low": 1.0, "high": None}}}),
            {"mae": Estimate(2.0, 1.0, None)},
        ),
        (None, {}),
        ("{", {}),
        ('{"metrics": {"mae": 3}}', {}),
        ("[]", {}),
    ],
)
def test_the_record_is_what_the_base_s_evaluation_says(
    text: str | None, found: dict[str, Estimate]
) -> None:
    class Base(BaseRevision):
        def read(self, path: Path, commit: str | None = None) -> str | None:
            return text if path.as_posix() == "reports/evaluation.json" else None

    assert read_record(Base(Path(), "", "main", "tip", "tip")) == found
