"""The workflow that watches the live service, run with act: without a log, then with drift in it.

That a real service's log is read is in test_serving.py; what is drift, in tests/engine/monitor.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from act import REPOSITORY, ActRun
from hub import Hub

pytestmark = pytest.mark.slow


def watch(hub: Hub, **variables: str) -> ActRun:
    payload = {"repository": {"full_name": REPOSITORY, "default_branch": "main"}}
    return hub.run(
        "workflow_dispatch",
        payload,
        "refs/heads/main",
        workflow="monitor.yml",
        variables=variables,
    )


def write_log(folder: Path, project: Path) -> None:
    """The log of a service that is asked for June's flights, and gets degrees Celsius."""
    golden = json.loads((project / "reports" / "golden.json").read_text(encoding="utf-8"))
    rows = pl.read_parquet(project / "data" / "ingested.parquet").filter(
        pl.col("scheduled_hour") >= datetime(2013, 6, 3, tzinfo=UTC)
    )
    asked = rows.select(list(golden["records"][0])).with_columns(
        temperature=(pl.col("temperature") - 32) * 5 / 9
    )
    line = {
        "time": "2013-07-01T00:00:00Z",
        "release": "flight_delays:00000000-11111111",
        "records": asked.to_dicts(),
        "predictions": golden["predictions"][:1] * len(asked),
    }
    folder.mkdir()
    text = json.dumps(line, default=datetime.isoformat)
    (folder / "predictions-1-1.jsonl").write_text(f"{text}\n", encoding="utf-8")


def test_the_monitor_is_quiet_without_a_log_and_opens_an_issue_about_drift(
    hub: Hub, tmp_path: Path
) -> None:
    run = watch(hub)
    assert run.failed_steps() == [], run.explain()
    assert run.jobs == {"monitor": "success", "issue": "success"}
    assert "Monitor: skipped" in run.summary
    assert hub.api.issues == []

    write_log(tmp_path / "log", hub.clone)
    run = watch(hub, PREDICTION_LOG=str(tmp_path / "log"))
    assert run.failed_steps() == [("monitor", "Monitor")], run.explain()
    assert "Running stage" not in run.said("monitor", "Bring back the data and the model")
    (issue,) = hub.api.issues
    assert "temperature" in issue["body"]
    assert "temperature" in run.summary
    page = hub.artifact("monitor", "monitor.html").read_text(encoding="utf-8")
    assert "temperature" in page
