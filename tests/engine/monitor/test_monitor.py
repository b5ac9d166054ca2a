"""The command: a log in, a report and a page out, and an exit code that says what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from commands import subcommand
from live_flights import Flights, between, july, write_log

from gitops_ml.core import paths
from gitops_ml.monitor.monitor import DRIFT, LABELS, LOG

main = subcommand("monitor")
NOW = ["--now", "2013-08-01T00:00:00Z"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (LOG, LABELS, "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.MONITOR_REPORT.read_text(encoding="utf-8"))
    return found


def page() -> str:
    return paths.MONITOR_PAGE.read_text(encoding="utf-8")


def in_celsius(record: dict[str, Any]) -> dict[str, Any]:
    cold = record["temperature"]
    return {**record, "temperature": None if cold is None else (cold - 32) / 1.8}


def test_a_quiet_log_with_landed_labels(
    flights: Flights, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = between(flights.later, july(1), 14)
    write_log(here / "log", flights.lines(rows))
    ingested = pl.read_parquet(paths.INGESTED)
    landed = rows.select(ingested.columns[:-1]).with_columns(source_file=pl.lit("late.parquet"))
    pl.concat([ingested, landed.cast(dict(ingested.schema))]).write_parquet(paths.INGESTED)
    monkeypatch.setenv(LOG, "log")
    assert main(NOW) == 0
    found = report()
    assert found["status"] == "quiet"
    assert found["headline"] == "2 windows judged, up to 2013-07-15: no drift"
    assert found["releases"] == [{"release": flights.release, "rows": len(rows)}]
    assert found["settings"] == {"window_days": 7, "min_rows": 200, "windows": 2, "of_last": 3}
    for window in found["windows"]:
        assert window["labelled"] > 0.95 * window["rows"]
        assert set(window["scores"]) == {"probability of true"}
        assert window["metrics"]["roc_auc"]["value"] > 0.6
    assert 'Monitor: <span class="quiet">no drift</span>' in page()


def test_a_log_that_drifts_is_told_with_its_evidence(
    flights: Flights, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = between(flights.later, july(1), 14)
    log = write_log(here / "log", flights.lines(rows, in_celsius))
    labels = here / "labels"
    labels.mkdir()
    said = {"request_id": [f"request-{n}" for n in range(len(rows))], "late": rows["late"]}
    pl.DataFrame(said).write_csv(labels / "late.csv")
    assert main(["--log", str(log), "--labels", str(labels), *NOW]) == DRIFT
    found = report()
    assert found["status"] == "drift"
    acting = {(one["kind"], one["name"]): one for one in found["acting"]}
    assert acting["column", "temperature"]["windows"] == ["2013-07-01", "2013-07-08"]
    assert found["windows"][0]["labelled"] == found["windows"][0]["rows"]
    assert "off in 2 of the last 2 windows" in capsys.readouterr().out
    shown = page()
    assert "<h2>What to act on</h2>" in shown
    assert 'class="number off"' in shown
    assert "http" not in shown.replace('charset="utf-8"', "")
    assert "prefers-color-scheme: dark" in shown


def test_what_was_left_out_is_told(
    flights: Flights, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = between(flights.later, july(1), 7)
    lines = flights.lines(rows, release="flight_delays:00000000-ffffffff")
    write_log(here / "log", [*lines, lines[0][:50]])
    assert main(["--log", "log", *NOW]) == 0
    told = capsys.readouterr().out
    assert "1 line left out: cut off" in told
    assert "were answered by another model" in told
    assert "1 line left out: cut off" in page()
    assert report()["windows"][0]["scores"] == {}


def test_nothing_to_judge_yet(flights: Flights, here: Path) -> None:
    write_log(here / "log", flights.lines(flights.later.head(50)))
    assert main(["--log", "log", *NOW]) == 0
    assert report()["status"] == "unjudged"
    assert "has fewer than 200 rows (monitor.min_rows)" in report()["headline"]
    assert "nothing to judge yet" in page()


def test_without_a_log_it_is_skipped_and_says_how_to_enable_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    assert main([]) == 0
    summary = (here / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## Monitor: skipped")
    assert "PREDICTION" in summary
    assert report()["status"] == "skipped"
    told = capsys.readouterr().out
    assert "the repository variable `PREDICTION_LOG`" in told
    assert "PREDICTION_LOG_DIR" in told
    assert 'Monitor: <span class="soft">skipped</span>' in page()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--log", "nowhere"], "nowhere: no such folder"),
        (["--log", "odd://bucket/log"], "odd://bucket/log: cannot be fetched"),
    ],
)
def test_a_log_that_is_named_but_not_there(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main(options) == 1
    assert told in capsys.readouterr().err
    assert not paths.MONITOR_REPORT.exists()


def test_settings_are_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = paths.PARAMS.read_text(encoding="utf-8")
    paths.PARAMS.write_text(text + "\nmonitor: {windows: 4, of_last: 3}\n", encoding="utf-8")
    assert main(["--log", "log"]) == 1
    assert "params.yaml: monitor: windows: 4 of the last 3 cannot be" in capsys.readouterr().err
