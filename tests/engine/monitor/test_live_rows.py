"""The prediction log is read as the service writes it; what cannot be used is named."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from gitops_ml.core.schema import Schema
from gitops_ml.monitor.live_rows import (
    NUMBER,
    PREDICTION,
    PROBABILITY,
    RELEASE,
    REQUEST,
    TIME,
    Live,
    LogError,
    read_log,
    releases,
)
from gitops_ml.serving.prediction_log import PredictionLog

NOW = datetime(2013, 8, 1, tzinfo=UTC)
RECORD = {"weight": 1.5, "items": 2, "member": None, "colour": "red"}
ANSWER = {"prediction": True, "probabilities": {"false": 0.25, "true": 0.75}}


def line(**changes: Any) -> bytes:
    whole = {
        "time": "2013-07-01T00:00:00.000000Z",
        "release": "shop:1",
        "records": [RECORD],
        "predictions": [ANSWER],
    }
    return to_json(whole | changes) + b"\n"


@pytest.fixture
def read(tmp_path: Path, shop_schema: Schema) -> Any:
    def read_lines(*lines: bytes) -> Live:
        (tmp_path / "predictions-1.jsonl").write_bytes(b"".join(lines))
        return read_log(tmp_path, shop_schema.features(), ["false", "true"], NOW)

    return read_lines


def test_what_the_service_wrote_is_read(tmp_path: Path, shop_schema: Schema) -> None:
    log = PredictionLog(tmp_path / "log", "shop:1", lambda reason, rows: None)
    log.add(to_json(RECORD), to_json(ANSWER), 1, "order 7")
    log.add(to_json([RECORD, RECORD]), to_json([ANSWER, ANSWER]), 2)
    log.close()
    found = read_log(tmp_path / "log", shop_schema.features(), ["false", "true"])
    assert found.problems == ()
    assert found.rows[REQUEST].to_list() == ["order 7", None, None]
    assert found.rows[NUMBER].to_list() == [0, 0, 1]
    assert found.rows[PREDICTION].to_list() == ["true"] * 3
    assert found.rows[PROBABILITY + "true"].to_list() == [0.75] * 3
    assert found.rows["weight"].to_list() == [1.5] * 3
    assert found.rows["member"].to_list() == [None] * 3
    assert (datetime.now(UTC) - found.rows[TIME][0]).total_seconds() < 60


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (line()[:40], "1 line left out: cut off (first: predictions-1.jsonl, line 2)"),
        (b"{}\n", "1 line left out: not a line of a prediction log"),
        (b"\xff\n", "1 line left out: not a line of a prediction log"),
        (line(predictions=[]), "1 line left out: not a line of a prediction log"),
        (line(time="2013-07-01"), "1 line left out: not a line of a prediction log"),
        (line(time="2013-08-01T00:06:00Z"), "1 row left out: rows from the future: a clock is"),
        (line(records=[7]), "1 row left out: rows that are no records"),
        (line(records=[{"items": 2}]), "rows that lack the column `weight`, `member`, `colour`"),
        (line(records=[RECORD | {"items": "two"}]), "rows whose `items` is no integer, as schema"),
        (line(records=[RECORD | {"items": 2.5}]), "rows whose `items` is no integer"),
        (line().replace(b'"items":2', b'"items":Infinity'), "rows whose `items` is no integer"),
        (line(records=[RECORD | {"items": 2**63}]), "rows whose `items` is no integer"),
        (line(records=[RECORD | {"weight": 10**400}]), "rows whose `weight` is no number"),
        (line(predictions=[ANSWER | {"probabilities": [0.5]}]), "rows that are no records"),
        (
            line(predictions=[ANSWER | {"probabilities": {"false": 0.5, "true": "much"}}]),
            "rows that are no records",
        ),
        (line(records=[RECORD | {"weight": True}]), "rows whose `weight` is no number"),
        (line(records=[RECORD | {"colour": 3}]), "rows whose `colour` is no category"),
        (line(records=[RECORD | {"member": 1}]), "rows whose `member` is no boolean"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_is_read(
    read: Any, bad: bytes, told: str
) -> None:
    found = read(line(), bad)
    assert len(found.rows) == 1
    (problem,) = found.problems
    assert told in problem


def test_a_clock_may_be_a_little_ahead(read: Any) -> None:
    assert len(read(line(time="2013-08-01T00:04:00Z")).rows) == 1


def test_releases_are_told_apart(read: Any) -> None:
    lines = [line(), line(release="shop:2", time="2013-07-02T00:00:00Z"), line()]
    found = read(*lines)
    assert releases(found.rows) == [("shop:2", 1), ("shop:1", 2)]
    assert found.rows[RELEASE].to_list() == ["shop:1", "shop:2", "shop:1"]


def test_numbers_and_moments_are_read_in_the_types_of_the_schema(
    tmp_path: Path,
) -> None:
    schema = Schema.model_validate(
        {"columns": {"at": {"type": "datetime", "feature": False}, "n": {"type": "integer"}}}
    )
    records = [{"at": "2013-07-01T12:00:00+02:00", "n": 3.0}, {"at": "2013-07-01T12:00Z", "n": 4}]
    answers = [{"prediction": 1.5}, {"prediction": 2}]
    (tmp_path / "predictions-1.jsonl").write_bytes(line(records=records, predictions=answers))
    rows = read_log(tmp_path, schema.columns, [], NOW).rows
    assert [one.isoformat() for one in rows["at"]] == [
        "2013-07-01T10:00:00+00:00",
        "2013-07-01T12:00:00+00:00",
    ]
    assert rows["n"].to_list() == [3, 4]
    assert rows[PREDICTION].to_list() == ["1.5", "2"]


def test_no_log_is_an_error_that_says_where_it_was_looked_for(
    tmp_path: Path, shop_schema: Schema, read: Any
) -> None:
    with pytest.raises(LogError, match="nowhere: no such folder"):
        read_log(tmp_path / "nowhere", shop_schema.features(), [])
    with pytest.raises(LogError, match="holds no file `predictions-"):
        read_log(tmp_path, shop_schema.features(), [])
    with pytest.raises(LogError, match=r"1 file of a prediction log, but no row .* they are empty"):
        read(b"")
    with pytest.raises(LogError, match="no row that can be used: 1 line left out: cut off"):
        read(line()[:-5])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match="is no folder"):
        read_log(tmp_path / "file", shop_schema.features(), [])
