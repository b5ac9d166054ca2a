from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from gitops_ml.cli import main
from gitops_ml.core.landed import newest_landings
from gitops_ml.core.schema import Schema
from gitops_ml.data.ingest import find_files
from gitops_ml.data.landing import parsed

COLUMNS: dict[str, dict[str, Any]] = {
    "n": {"type": "integer", "feature": False, "min": 0},
    "price": {"type": "number", "nullable": True},
    "paid": {"type": "boolean", "feature": False},
    "at": {"type": "datetime", "feature": False},
}
PARAMS: dict[str, Any] = {
    "task": "regression",
    "target": "n",
    "data": {"source": "data/landed", "key": [], "time": "at", "as_of": "2013-07-01T00:00:00Z"},
    "train": {"estimator": "sklearn.linear_model.Ridge"},
    "evaluate": {"metrics": ["mae"]},
}
Settings = Callable[..., None]


@pytest.fixture
def settings(project: Path) -> Settings:
    """Write the project's settings, with changes to `data` and to the columns."""

    def write(columns: dict[str, Any] | None = None, **data: Any) -> None:
        params = {**PARAMS, "data": {**PARAMS["data"], **data}}
        schema = {"columns": {**COLUMNS, **(columns or {})}}
        Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        Path("schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")

    write()
    Path("up").mkdir()
    return write


def upstream(*rows: str, name: str = "rows.csv") -> str:
    path = Path("up", name)
    path.write_text("\n".join(["n,price,paid,at", *rows]) + "\n", encoding="utf-8")
    return path.as_posix()


def landed() -> list[int]:
    return pl.concat([pl.read_parquet(path) for path in find_files(Path("data/landed"))])[
        "n"
    ].to_list()


def test_rows_land_in_the_schema_s_types(settings: Settings) -> None:
    assert main(["land", "--from", upstream("1,2.5,yes,2013-06-30", "2,,no,2013-06-01")]) == 0
    (path,) = find_files(Path("data/landed"))
    assert path.parent == Path("data/landed/partitions/2013-06")
    assert pl.read_parquet(path).schema == {
        "n": pl.Int64(),
        "price": pl.Float64(),
        "paid": pl.Boolean(),
        "at": pl.Datetime("us", "UTC"),
    }


def test_nothing_new_is_said(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    upstream("1,2.5,yes,2013-06-30")
    assert main(["land", "--from", "up"]) == 0
    assert capsys.readouterr().out == "rows, 2013-06: 1 row\n"
    assert main(["land", "--from", "up"]) == 0
    assert capsys.readouterr().out == "Nothing new: all of up has landed before (1)\n"


def test_newer_rows_than_as_of_are_pointed_out(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["land", "--from", upstream("1,2.5,yes,2013-07-01T00:00:00Z")])
    assert "newest row is of 2013-07-01 00:00; `data.as_of` in params.yaml" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,2.5,yes,2013-06-30", "up/rows.csv: n: 1 value is no integer (line 2: 'x') [type]"),
        ("-1,2.5,yes,2013-06-30", "up/rows.csv, 2013-06: n: 1 value below 0"),
        ("1,,yes,2013-06-30", "up/rows.csv: price: the column has no value in any of 1 row"),
        ("1,2.5,,2013-06-30", "up/rows.csv: paid: the column has no value in any of 1 row"),
        ("1,2.5,yes", "up/rows.csv: 1 row without exactly 4 fields"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_quarantined(
    settings: Settings, capsys: pytest.CaptureFixture[str], row: str, said: str
) -> None:
    assert main(["land", "--from", upstream(row)]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "see data/quarantine/" in told
    (report,) = Path("data/quarantine/rows").rglob("report.json")
    assert json.loads(report.read_text(encoding="utf-8"))["source"] == "up/rows.csv"


def test_a_few_late_rows_may_lack_what_a_whole_file_must_have(settings: Settings) -> None:
    upstream("1,2.5,yes,2013-06-30", "2,,no,2013-05-31")
    assert main(["land", "--from", "up"]) == 0
    assert sorted(landed()) == [1, 2]
    # But no period may lack what every row must have.
    upstream("1,2.5,yes,2013-06-30", "2,2.5,,2013-05-31")
    assert main(["land", "--from", "up", "--again"]) == 1


def test_a_changed_schema_lands_anew(settings: Settings) -> None:
    upstream("1,2.5,yes,2013-06-30")
    main(["land", "--from", "up"])
    settings({"n": {"type": "number", "feature": False}})
    main(["land", "--from", "up"])
    assert newest_landings(Path("data/landed"))["rows"].version == 2
    settings({"n": {"type": "number", "feature": False}}, partition="year")
    main(["land", "--from", "up"])
    (path,) = find_files(Path("data/landed"))
    assert path.parent.name == "2013"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say where from: make land FROM=folder, https://..."),
        (("--from", "up", "--table", "t"), "TABLE, QUERY and SINCE are for databases"),
        (("--from", "up", "--since", "last"), "TABLE, QUERY and SINCE are for databases"),
        (
            ("--from", "ftp://me:word@host/a.csv"),
            "FROM=ftp://host/a.csv: `ftp` is none of the known",
        ),
        (("--from", "data/landed/x"), "FROM=data/landed/x: is where data land"),
        (("--from", "up", "--named", "both"), "NAMED=both: names one file or table (2 were found)"),
        (("--from", "up/a.csv", "--named", "../x"), "NAMED=../x: names one file or table"),
        (
            ("--from", "sqlite:///a.db", "--table", "t", "--since", "soon"),
            "SINCE=soon: must be a day",
        ),
    ],
)
def test_a_wrong_call_says_what_is_right(
    settings: Settings, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    upstream(name="a.csv")
    upstream(name="b.csv")
    assert main(["land", *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "word" not in told


def test_since_needs_a_time(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings(time=None)
    assert main(["land", "--from", "sqlite:///a.db", "--table", "t", "--since", "last"]) == 2
    assert "SINCE needs `data.time` in params.yaml" in capsys.readouterr().err


def test_a_source_that_fails_leaves_what_landed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["land", "--from", upstream("1,2.5,yes,2013-06-30")])
    assert main(["land", "--from", "nowhere"]) == 1
    assert "nowhere: no such file or folder; nothing landed" in capsys.readouterr().err
    assert landed() == [1]


def test_what_a_database_has_no_type_for_is_parsed() -> None:
    schema = Schema.model_validate(
        {"columns": {**COLUMNS, "note": {"type": "string", "feature": False}}}
    )
    rows = pl.DataFrame(
        {
            "n": ["1", "2"],
            "price": ["2.50", None],
            "paid": [1, 0],
            "at": ["2013-07-01 00:00:00", "2013-07-02"],
            "note": ["1", "2"],
        }
    )
    typed = parsed(rows, schema)
    assert typed.rows() == [
        (1, 2.5, True, datetime(2013, 7, 1, tzinfo=UTC), "1"),
        (2, None, False, datetime(2013, 7, 2, tzinfo=UTC), "2"),
    ]
    # What would be lost stays for ingest to tell.
    lossy = rows.with_columns(n=pl.Series(["1", "x"]), paid=pl.Series([1, 2]))
    assert parsed(lossy, schema)["n"].to_list() == ["1", "x"]
    assert parsed(lossy, schema)["paid"].to_list() == [1, 2]
