from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from commands import subcommand
from projects import make_project

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import DataTerms, Params
from gitops_ml.data.page import render
from gitops_ml.data.problems import Problem
from gitops_ml.data.profile import make_profile
from gitops_ml.data.validate import validate

main = subcommand("validate")

COLUMNS = {
    "id": {"type": "integer", "feature": False},
    "at": {"type": "datetime", "feature": False},
    "size": {"type": "number", "nullable": True, "min": 0, "max": 100, "unit": "kg"},
    "weight": {"type": "number", "nullable": True, "all_null": "allowed"},
    "city": {"type": "category", "categories": ["Oslo", "Bergen"]},
    "street": {"type": "category", "categories": ["A"], "unseen": "missing", "nullable": True},
    "late": {"type": "boolean", "feature": False},
}
RULES = [{"name": "light_is_on_time", "check": "NOT late OR size > 10", "description": "So be it."}]
SCHEMA = Schema.model_validate({"columns": COLUMNS, "rules": RULES})
PARAMS = Params.model_validate(
    {
        "task": "classification",
        "target": "late",
        "data": {"source": "d", "key": ["id"], "time": "at", "as_of": "2024-03-01T00:00:00Z"},
        "train": {"estimator": "sklearn.tree.DecisionTreeClassifier"},
        "evaluate": {"metrics": ["accuracy"]},
    }
)
TERMS = DataTerms.model_validate(
    {"freshness_days": 30, "rows_min": 5, "row_count_change": {"min": -0.1, "max": 0.1}}
)
KEYLESS = PARAMS.model_copy(update={"data": PARAMS.data.model_copy(update={"key": ()})})


def make_rows(**changes: Any) -> pl.DataFrame:
    """Twenty good rows of two files; a keyword sets single cells: size={3: -1.0}."""
    rows = pl.DataFrame(
        {
            "id": list(range(20)),
            "at": [datetime(2024, 2, 1, tzinfo=UTC) + timedelta(days=day) for day in range(20)],
            "size": [50.0 + number for number in range(20)],
            "weight": pl.Series([None] * 20, dtype=pl.Float64),
            "city": ["Oslo", "Bergen"] * 10,
            "street": ["A", "never seen"] * 10,
            "late": [True, False] * 10,
            "source_file": ["a.csv"] * 10 + ["b.csv"] * 10,
        }
    )
    for name, cells in changes.items():
        column = rows[name]
        for place, value in cells.items():
            column = column.scatter(place, value)
        rows = rows.with_columns(column)
    return rows


def check(rows: pl.DataFrame, params: Params = PARAMS, **versions: Any) -> list[Problem]:
    return validate(rows, params, SCHEMA, TERMS, **versions)


def test_good_rows_have_no_problem() -> None:
    assert check(make_rows()) == []


@pytest.mark.parametrize(
    ("changes", "column", "rule", "value", "told"),
    [
        ({"size": {13: -0.5}}, "size", "min", -0.5, "1 value below 0 kg"),
        ({"size": {13: 100.5}}, "size", "max", 100.5, "1 value above 100 kg"),
        ({"city": {13: "Rome"}}, "city", "categories", "Rome", "in 1 row: 'Rome'"),
        ({"city": {13: None}}, "city", "null", None, "1 value is missing"),
        ({"late": {13: None}}, "late", "null", None, "1 value is missing"),
        (
            {"size": {13: 5.0}, "late": {13: True}},
            None,
            "rule.light_is_on_time",
            {"late": True, "size": 5.0},
            "1 row breaks `NOT late OR size > 10`: So be it.",
        ),
    ],
)
def test_a_bad_value_is_found_in_its_row(
    changes: dict[str, Any], column: str | None, rule: str, value: Any, told: str
) -> None:
    rows = make_rows(**changes)
    (problem,) = check(rows)
    assert (problem.file, problem.column, problem.rule, problem.count) == ("b.csv", column, rule, 1)
    assert told in problem.message
    example = {"key": {"id": 13}} | ({} if value is None else {"value": value})
    assert problem.examples == (example,)
    (unkeyed,) = check(rows, KEYLESS)
    assert unkeyed.examples[0]["row"] == 4


def test_bounds_belong_to_the_range() -> None:
    assert check(make_rows(size={1: 0.0, 2: 100.0})) == []


def test_a_rule_without_an_answer_passes() -> None:
    assert check(make_rows(size={0: None})) == []


def test_duplicate_keys_name_their_files() -> None:
    (first, second) = check(make_rows(id={15: 3}))
    assert [(p.file, p.rule, p.count) for p in (first, second)] == [
        ("a.csv", "unique_key", 1),
        ("b.csv", "unique_key", 1),
    ]
    assert first.examples == ({"key": {"id": 3}, "value": "2 rows in a.csv, b.csv"},)


def test_duplicate_keys_are_found_when_part_of_the_key_is_missing() -> None:
    params = PARAMS.model_copy(
        update={"data": PARAMS.data.model_copy(update={"key": ("street", "late")})}
    )
    rows = make_rows(street=dict.fromkeys(range(20)))
    found = [problem for problem in check(rows, params) if problem.rule == "unique_key"]
    assert sum(problem.count for problem in found) == 20


@pytest.mark.parametrize("column", ["size", "city"])
def test_a_column_that_is_empty_in_one_file_is_found(column: str) -> None:
    (problem,) = check(make_rows(**{column: dict.fromkeys(range(10))}))
    assert (problem.file, problem.column, problem.rule) == ("a.csv", column, "all_null")
    assert problem.count == 10


@pytest.mark.parametrize("empty", [1, 2])
def test_the_partitions_of_one_landing_count_as_one_file(empty: int) -> None:
    """A few late rows may all lack a value; but not all that came."""
    names = [f"d/partitions/2024-0{month}/july-0123456789a{month}.parquet" for month in (1, 2)]
    rows = make_rows().with_columns(pl.Series("source_file", [names[0]] * 3 + [names[1]] * 17))
    rows = rows.with_columns(
        size=pl.when(pl.col("source_file").is_in(names[:empty])).then(None).otherwise("size"),
        late=pl.lit(False),
    )
    found = {one.file for one in validate(rows, PARAMS, SCHEMA, TERMS) if one.rule == "all_null"}
    assert found == (set(names) if empty == 2 else set())


def test_everything_is_reported_at_once_and_in_order() -> None:
    rows = make_rows(size={1: -1.0, 3: -2.0, 15: 200.0}, city={4: "Rome", 5: "Rome"}, id={7: 8})
    assert [(p.file, p.column, p.rule, p.count) for p in check(rows)] == [
        ("a.csv", "city", "categories", 2),
        ("a.csv", "id", "unique_key", 2),
        ("a.csv", "size", "min", 2),
        ("b.csv", "size", "max", 1),
    ]


def test_examples_are_few_and_counts_are_whole() -> None:
    (problem,) = check(make_rows(size=dict.fromkeys(range(10), -1.0)).filter(~pl.col("late")))
    assert (problem.count, len(problem.examples)) == (5, 5)
    (problem,) = check(make_rows(city=dict.fromkeys(range(10), "Rome")))
    assert (problem.count, len(problem.examples)) == (10, 5)


def test_stale_data_is_found_and_rows_ahead_do_not_hide_it() -> None:
    params = PARAMS.model_copy(
        update={"data": PARAMS.data.model_copy(update={"as_of": datetime(2024, 4, 1, tzinfo=UTC)})}
    )
    for rows in (make_rows(), make_rows(at={0: datetime(2099, 1, 1, tzinfo=UTC)})):
        (problem,) = check(rows, params)
        assert (problem.rule, problem.column) == ("freshness", "at")
        assert "41.0 days old" in problem.message
    early = PARAMS.data.model_copy(update={"as_of": datetime(2020, 1, 1, tzinfo=UTC)})
    (problem,) = check(make_rows(), PARAMS.model_copy(update={"data": early}))
    assert "no row is dated before" in problem.message


def test_freshness_needs_a_time() -> None:
    timeless = PARAMS.model_copy(update={"data": PARAMS.data.model_copy(update={"time": None})})
    with pytest.raises(SettingsError, match=r"data\.freshness_days: needs `data\.time`"):
        check(make_rows(), timeless)


def test_too_few_rows_are_found() -> None:
    (problem,) = check(make_rows().head(4))
    assert (problem.rule, problem.count) == ("rows_min", 4)
    assert check(make_rows().head(5)) == []


def test_the_profile_tells_what_the_columns_hold() -> None:
    columns = make_profile(make_rows(city={0: None}), SCHEMA, "x").columns
    assert columns["size"] == {
        "null_share": 0.0,
        "min": 50.0,
        "max": 69.0,
        "mean": 59.5,
        "std": 5.91608,
    }
    assert columns["weight"] == {
        "null_share": 1.0,
        "min": None,
        "max": None,
        "mean": None,
        "std": None,
    }
    assert columns["city"] == {"null_share": 0.05, "shares": {"Oslo": 0.45, "Bergen": 0.5}}
    assert columns["street"]["shares"] == {"A": 0.5, "(other)": 0.5}
    assert columns["late"]["mean"] == 0.5
    assert columns["at"]["max"] == "2024-02-20T00:00:00+00:00"


@pytest.mark.parametrize(
    ("rows", "column", "rule"),
    [
        (make_rows().drop("late"), "late", "missing_column"),
        (make_rows().with_columns(more=pl.lit(1)), "more", "unexpected_column"),
        (make_rows().with_columns(pl.col("id").cast(pl.String)), "id", "type"),
    ],
)
def test_a_table_older_than_the_schema_is_found(rows: pl.DataFrame, column: str, rule: str) -> None:
    (problem,) = check(rows)
    assert (problem.column, problem.rule) == (column, rule)
    assert "make pipeline" in problem.message


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("size >", "unable to parse"),
        ("siez > 1", "siez"),
        ("size + 1", "must be true or false"),
        ("no_such_function(size)", "no_such_function"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_named(sql: str, message: str) -> None:
    rules = [{"name": "mine", "check": sql}]
    schema = Schema.model_validate({"columns": COLUMNS, "rules": rules})
    with pytest.raises(SettingsError, match=r"schema\.yaml: rules\.mine") as caught:
        validate(make_rows(), PARAMS, schema, TERMS)
    assert message in str(caught.value)


def test_the_page_shows_problems_and_escapes_what_the_data_holds() -> None:
    problems = check(make_rows(city={4: "<script>alert(1)</script>"}, size={15: -3.0}))
    page = render(problems, 20, ["a.csv", "<b>.csv"])
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;.csv" in page
    assert "rejected: 2 problems" in page
    assert "1 value below 0 kg" in page
    assert "accepted" in render([], 20, ["a.csv"])
    assert "http" not in page


def test_the_command_accepts_good_data_and_refuses_bad_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = {
        "model": {"metrics": {"accuracy": {"floor": 0.5}}, "size_mb": 1, "latency_p99_ms": 9},
        "data": TERMS.model_dump(mode="json"),
    }
    documents = {
        paths.PARAMS: PARAMS.model_dump(mode="json"),
        paths.SCHEMA: {"columns": COLUMNS, "rules": RULES},
        paths.CONTRACT: contract,
    }
    for path, document in documents.items():
        (tmp_path / path).write_text(yaml.safe_dump(document), encoding="utf-8")
    monkeypatch.chdir(make_project(tmp_path))
    for folder in (paths.INGESTED.parent, paths.REPORTS):
        folder.mkdir()

    make_rows().write_parquet(paths.INGESTED)
    assert main() == 0
    assert json.loads(paths.VALIDATION_REPORT.read_text(encoding="utf-8"))["passed"] is True
    accepted = paths.DATA_PROFILE.read_bytes()

    make_rows(size={3: -1.0}).write_parquet(paths.INGESTED)
    assert main() == 1
    assert json.loads(paths.VALIDATION_REPORT.read_text(encoding="utf-8"))["passed"] is False
    assert "1 value below 0 kg" in capsys.readouterr().err
    assert paths.DATA_PROFILE.read_bytes() == accepted

    # What is written depends on the data alone, and on none that was accepted before.
    make_rows().head(6).write_parquet(paths.INGESTED)
    assert main() == 0
    make_rows().write_parquet(paths.INGESTED)
    assert main() == 0
    assert paths.DATA_PROFILE.read_bytes() == accepted
