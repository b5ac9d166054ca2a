from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from gitops_ml.core.settings import Params
from gitops_ml.features.duplicates import duplicate_problems, repeated

START = datetime(2024, 1, 1, tzinfo=UTC)
ALIKE = ("heat", "rain", "late")
ROWS = pl.DataFrame(
    {
        "when": [START + timedelta(hours=row) for row in range(100)],
        "heat": [None if row % 20 == 0 else row / 3 for row in range(100)],
        "rain": [row % 7 for row in range(100)],
        "late": [row % 3 == 0 for row in range(100)],
        "source_file": ["a.csv"] * 60 + ["b.csv"] * 40,
    }
)


def params(key: Any = ("when",)) -> Params:
    return Params.model_validate(
        {
            "task": "classification",
            "target": "late",
            "data": {"source": "data", "key": key},
            "train": {"estimator": "sklearn.dummy.DummyClassifier"},
            "evaluate": {"metrics": ["roc_auc"]},
        }
    )


def with_copies(number: int, minutes: int = 0) -> pl.DataFrame:
    copies = ROWS[1 : number + 1].with_columns(
        pl.col("when") + timedelta(minutes=minutes), source_file=pl.lit("again.csv")
    )
    return pl.concat([ROWS, copies])


def test_every_row_but_the_first_repeats_it_missing_values_included() -> None:
    rows = pl.concat([ROWS, ROWS[19:21], ROWS[20:21]])
    assert repeated(rows, ALIKE).arg_true().to_list() == [100, 101, 102]
    assert not repeated(ROWS, ALIKE).any()


@pytest.mark.parametrize("minutes", [0, 1])
def test_copies_are_found_also_under_another_name(minutes: int) -> None:
    (problem,) = duplicate_problems(with_copies(12, minutes), params(), ALIKE, 0.1)
    assert (problem.rule, problem.count, problem.file) == (
        "duplicate_rows",
        12,
        "data/ingested.parquet",
    )
    assert problem.message == (
        "12 rows (10.71%) repeat another row in every feature and in `late`, contract.yaml allows "
        "10.00% (data.duplicate_rows_max): land each row once; where rows are alike by nature, "
        "raise it"
    )
    assert len(problem.examples) == 5
    assert problem.examples[0] == {
        "key": {"when": f"2024-01-01T01:0{minutes}:00+00:00"},
        "value": "as when=2024-01-01T01:00:00+00:00 in a.csv",
    }
    assert "when=2024-01-01T01:00:00+00:00 in a.csv" in str(problem)


def test_without_a_key_rows_are_named_by_their_number() -> None:
    (problem,) = duplicate_problems(with_copies(12), params([]), ALIKE, 0.0)
    assert problem.examples[0] == {"row": 101, "value": "as row 2 in a.csv"}


def test_as_many_as_the_contract_allows_are_no_problem() -> None:
    rows = with_copies(12)
    assert duplicate_problems(rows, params(), ALIKE, 12 / 112) == []
    assert duplicate_problems(rows, params(), ALIKE, None) == []
    assert duplicate_problems(ROWS, params(), ALIKE, 0.0) == []
