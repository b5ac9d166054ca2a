from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from commands import subcommand
from projects import forget_package

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema
from gitops_ml.data.problems import Problem
from gitops_ml.features import derived, derived_rows
from gitops_ml.features.derive import Values, put_in_order
from gitops_ml.features.derived_rows import derived_problems

main = subcommand("validate")

COLUMNS = {
    "id": {"type": "integer", "feature": False},
    "at": {"type": "datetime", "feature": False},
    "size": {"type": "number"},
    "name": {"type": "string", "feature": False},
    "late": {"type": "boolean", "feature": False},
}
SCHEMA = Schema.model_validate({"columns": COLUMNS})
ROWS = pl.DataFrame(
    {
        "id": list(range(20)),
        "at": [datetime(2024, 2, 1, tzinfo=UTC) + timedelta(days=day) for day in range(20)],
        "size": [float(number) for number in range(20)],
        "name": [f"n{number}" for number in range(20)],
        "late": [True, False] * 10,
        "source_file": ["a.csv"] * 12 + ["b.csv"] * 8,
    }
)


def problems(function: Callable[..., Any], rows: pl.DataFrame = ROWS) -> list[Problem]:
    column = vars(function)["__derived_column__"]
    return derived_problems(rows, put_in_order([column], SCHEMA, "late"))


def test_a_good_column_has_no_problem() -> None:
    @derived(type="integer", min=1, max=31)
    def day(at: Values) -> Values:
        return (at - at.astype("M8[M]")) // np.timedelta64(1, "D") + 1

    assert problems(day) == []


def test_a_value_outside_its_range_is_told_with_file_and_row() -> None:
    @derived(type="number", max=10)
    def same(size: Values) -> Values:
        return size

    first, second = problems(same)

    assert (first.file, first.column, first.rule, first.count) == (
        "a.csv",
        "same",
        "derived.max",
        1,
    )
    assert first.examples == ({"row": 12, "value": {"size": "11.0", "same": "11.0"}},)
    assert (second.file, second.count) == ("b.csv", 8)
    assert second.examples[0]["row"] == 1
    assert second.examples[0] == {"row": 1, "value": {"size": "12.0", "same": "12.0"}}
    assert re.search(r"test_derived_rows\.py:\d+: 1 value: above 10 ", str(first))
    assert re.search(r"test_derived_rows\.py:\d+: 8 values: above 10 ", str(second))


def test_a_function_that_fails_is_told_with_its_line_and_row() -> None:
    @derived(type="number")
    def inverse(size: Values) -> Values:
        return np.array([1 / (13 - value) for value in size.tolist()])

    (problem,) = problems(inverse)

    assert (problem.file, problem.rule) == ("b.csv", "derived.function")
    assert problem.examples == ({"row": 2, "value": {"size": "13.0"}},)
    assert "the function fails: ZeroDivisionError: float division by zero" in problem.message


@pytest.mark.parametrize(
    ("answer", "rule", "message"),
    [
        (
            lambda s: s - s.sum() / 20,
            "one_row",
            r"a row alone gets 0\.0, among others -9\.5",
        ),
        (lambda s: np.random.default_rng().random(len(s)), "one_row", "on chance or on the clock"),
        (lambda s: s / (len(s) - 1), "one_row", "for one row alone: 1 value: "),
        (lambda s: s - s[0] * 0, "no_rows", "without rows: the function fails: IndexError"),
        (lambda s: s[:3], "length", "must give 20 values, one for each row, not 3"),
        (lambda s: s.astype(str), "dtype", "must give numbers, not texts"),
    ],
)
def test_what_would_go_wrong_in_the_service_is_found(
    answer: Callable[[Values], Any], rule: str, message: str
) -> None:
    @derived(type="number")
    def made(size: Values) -> Any:
        return answer(size)

    (problem,) = problems(made)

    assert problem.rule == f"derived.{rule}"
    assert re.search(message, problem.message), problem.message


def test_columns_that_rest_on_a_wrong_one_are_left_out() -> None:
    @derived(type="number", max=10)
    def first(size: Values) -> Values:
        return size

    @derived(type="number", max=0)
    def second(first: Values) -> Values:
        return first

    @derived(type="number", max=0)
    def third(id: Values) -> Values:
        return id

    declared = [vars(function)["__derived_column__"] for function in (first, second, third)]
    derivation = put_in_order(declared, SCHEMA, "late")

    assert {problem.column for problem in derived_problems(ROWS, derivation)} == {"first", "third"}
    found = derived_problems(ROWS, derivation, frozenset({"size"}))
    assert {problem.column for problem in found} == {"third"}


FEATURES = """
from gitops_ml.features import derived

@derived(type="number", max=LIMIT)
def double(size):
    return size * 2
"""
PARAMS = {
    "task": "classification",
    "target": "late",
    "data": {"source": "d", "key": ["id"]},
    "train": {"estimator": "sklearn.tree.DecisionTreeClassifier"},
    "evaluate": {"metrics": ["accuracy"]},
}
CONTRACT = {
    "model": {"metrics": {"accuracy": {"floor": 0.5}}, "size_mb": 1, "latency_p99_ms": 1},
    "data": {},
}


@pytest.fixture
def features(project: Path) -> Callable[[str], None]:
    """A project with data; call it with the text of its features.py."""
    documents = {paths.PARAMS: PARAMS, paths.SCHEMA: {"columns": COLUMNS}, paths.CONTRACT: CONTRACT}
    for path, document in documents.items():
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    for folder in (paths.INGESTED.parent, paths.REPORTS):
        folder.mkdir()
    ROWS.write_parquet(paths.INGESTED)

    def write(text: str) -> None:
        forget_package()
        folder = project / "src" / "flight_delays"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.py").write_text(text, encoding="utf-8")

    return write


def test_the_command_describes_the_derived_columns_of_good_data(
    features: Callable[[str], None],
) -> None:
    features(FEATURES.replace("LIMIT", "99"))

    assert main() == 0

    profile = json.loads(paths.DATA_PROFILE.read_text(encoding="utf-8"))
    assert profile["columns"]["double"] == {
        "null_share": 0.0,
        "min": 0.0,
        "max": 38.0,
        "mean": 19.0,
        "std": 11.8322,
    }


def test_the_command_refuses_what_is_derived_wrongly(
    features: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(FEATURES.replace("LIMIT", "30"))

    assert main() == 1

    report = json.loads(paths.VALIDATION_REPORT.read_text(encoding="utf-8"))
    assert [problem["column"] for problem in report["problems"]] == ["double"]
    said = capsys.readouterr().err
    assert "b.csv: double: src/flight_delays/features.py:4: 4 values: above 30" in said


ELSEWHERE = """
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from gitops_ml.features import derived

SEEN = {}
TABLE = Path(__file__).parent / "table.txt"

@derived(type="number")
def made(size, name):
    return VALUE
"""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("np.array([hash(one) for one in name]) % 1000", "a row gets "),
        (
            "np.array([SEEN.setdefault(one, len(SEEN)) for one in size])",
            "0.0 here, 19.0 in another",
        ),
        ("np.array([datetime.fromtimestamp(one).minute for one in size])", "0.0 here, 45.0 in"),
        ("np.array([time.localtime(one).tm_min for one in size])", "0.0 here, 45.0 in another"),
        ("np.where(size == 3, np.median(size), size)", "row 4: size=3.0, name='n3', made=9.5"),
        ("size + len(Path('src/flight_delays/table.txt').read_text())", "FileNotFoundError: "),
    ],
)
def test_what_another_process_would_derive_otherwise_is_refused(
    features: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    said: str,
) -> None:
    monkeypatch.setattr(derived_rows, "ROWS_ALONE", 1)
    features(ELSEWHERE.replace("VALUE", value))
    Path("src/flight_delays/table.txt").write_text("three")

    assert main() == 1

    report = json.loads(paths.VALIDATION_REPORT.read_text(encoding="utf-8"))
    assert {problem["rule"] for problem in report["problems"]} == {"derived.elsewhere"}
    found = capsys.readouterr().err
    assert "made: src/flight_delays/features.py:12: " in found
    assert "(another folder, time zone and order of rows)" in found
    assert said in found


def test_a_file_beside_the_code_is_found_from_everywhere(features: Callable[[str], None]) -> None:
    features(ELSEWHERE.replace("VALUE", "size + len(TABLE.read_text()) + len(SEEN)"))
    Path("src/flight_delays/table.txt").write_text("three")

    assert main() == 0


def test_columns_that_rest_on_one_that_differs_are_left_out(
    features: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    following = """
@derived(type="number")
def following(made):
    return made + 1

@derived(type="number")
def last(following):
    return following + 1
"""
    features(ELSEWHERE.replace("VALUE", "np.where(size == 3, np.median(size), size)") + following)

    assert main() == 1

    report = json.loads(paths.VALIDATION_REPORT.read_text(encoding="utf-8"))
    assert {problem["column"] for problem in report["problems"]} == {"made"}


def test_the_command_refuses_more_copies_than_the_contract_allows(
    features: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(FEATURES.replace("LIMIT", "99"))
    contract = {**CONTRACT, "data": {"duplicate_rows_max": 0.1}}
    paths.CONTRACT.write_text(yaml.safe_dump(contract, sort_keys=False), encoding="utf-8")
    assert main() == 0
    pl.concat([ROWS, ROWS[:5].with_columns(pl.col("id") + 100)]).write_parquet(paths.INGESTED)

    assert main() == 1

    report = json.loads(paths.VALIDATION_REPORT.read_text(encoding="utf-8"))
    assert {problem["rule"]: problem["count"] for problem in report["problems"]} == {
        "duplicate_rows": 5
    }
    assert "5 rows (20.00%) repeat another row in every feature" in capsys.readouterr().err


def test_the_command_says_what_to_do_about_functions_for_other_data(
    features: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    features(FEATURES.replace("LIMIT", "30").replace("size", "scheduled_hour"))

    assert main() == 1

    said = capsys.readouterr().err
    assert "derived column `double`: parameter `scheduled_hour` is no column of schema.yaml" in said
    assert "edit or delete src/flight_delays/features.py" in said
