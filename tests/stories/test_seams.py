"""What a newcomer adds by the page Your code is in reports, gate, comment and live service."""

from __future__ import annotations

import contextlib
import json
import re
import textwrap
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import sources_of

from gitops_ml.bento.smoke import serving, wait_for
from gitops_ml.checks.fixtures import SERVICE
from gitops_ml.model.evaluate import json_value
from gitops_ml.report.comment import Mark, Run, render
from gitops_ml.report.run_artifacts import from_folder, read_evidence
from gitops_ml.report.touched import Touched

pytestmark = pytest.mark.slow

RunProject = Callable[..., CompletedProcess[str]]
COLUMN, METRIC = "hours_planned", "false_alarm_rate"
ROWS = 40


def block(page: str, kind: str, name: str) -> str:
    """The page's block of code of a kind that names something."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^\1```", page, re.DOTALL | re.MULTILINE)
    (text,) = [textwrap.dedent(one) for _, one in found if name in one]
    return str(text)


def follow(project: Path) -> None:
    """Do what docs/your-code.md says: a column, a metric with its term, and service.py."""
    page = (project / "docs/your-code.md").read_text(encoding="utf-8")
    package = project / "src/flight_delays"
    for file, name in (("features.py", COLUMN), ("metrics.py", METRIC)):
        with (package / file).open("a", encoding="utf-8") as code:
            code.write("\n\n" + block(page, "python", f"def {name}"))
    (package / "service.py").write_text(block(page, "python", "def before"), encoding="utf-8")
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("warning_cost]", f"warning_cost, {METRIC}]"), encoding="utf-8")
    contract = project / "contract.yaml"
    document = yaml.safe_load(contract.read_text(encoding="utf-8"))
    document["model"]["metrics"] |= yaml.safe_load(block(page, "yaml", METRIC))
    contract.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def comment(reports: Path) -> str:
    """The text that the workflow Comment would show for these reports."""
    mark = Mark(run=1, attempt=1, head="0" * 40)
    run = Run(mark, "success", datetime(2024, 1, 1, tzinfo=UTC), None, "branch")
    return render(
        run, "https://example.com", read_evidence(from_folder(reports)), [], {}, Touched()
    )


def answers(project: Path, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the live service of the working tree says, over HTTP."""
    variables = {"PYTHONPATH": sources_of(project)}
    with contextlib.chdir(project), serving(SERVICE, variables) as url:
        wait_for(url, None, timeout=120)
        body = json.dumps(records).encode()
        request = urllib.request.Request(
            f"{url}/predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            found = json.load(response)
    assert isinstance(found, list)
    return found


def test_a_column_and_a_metric_as_the_page_says_are_everywhere(
    pipelined: Callable[..., Path], project_run: RunProject
) -> None:
    project = pipelined()
    follow(project)
    for check in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = project_run(project, *check)
        assert done.returncode == 0, done.stdout + done.stderr

    done = project_run(project, "dvc", "repro", check=True)

    assert re.search(rf"^  {METRIC} +0\.\d+ .*baseline undefined$", done.stdout, re.MULTILINE)
    judged = project_run(project, "gitops-ml", "gate", "--base", "HEAD")
    report = json.loads((project / "reports/gate.json").read_text(encoding="utf-8"))
    (term,) = [one for one in report["metrics"] if one["metric"] == METRIC]
    assert (term["bound"], term["margin"]) == (0.45, 0.02), judged.stdout
    assert term["low"] <= term["difference"] <= term["high"]
    # Only the latency of a busy machine may block; adding a metric needs nobody's consent.
    assert [one for one in report["reasons"] if "latency" not in one] == []
    told = comment(project / "reports")
    assert "false\\_alarm\\_rate ↓" in told
    assert COLUMN in told

    manifest = json.loads((project / "models/manifest.json").read_text(encoding="utf-8"))
    rows = pl.read_parquet(project / "data/split/test.parquet").gather_every(97).head(ROWS)
    rows.write_parquet(project / "rows.parquet")
    project_run(
        project,
        *["gitops-ml", "predict", "--rows", "rows.parquet", "--out", "scores.parquet"],
        check=True,
    )
    offline = pl.read_parquet(project / "scores.parquet")
    live = answers(
        project,
        [
            {name: json_value(value) for name, value in row.items()}
            for row in rows.select(manifest["inputs"]).to_dicts()
        ],
    )
    assert COLUMN not in manifest["inputs"]
    assert [one["prediction"] for one in live] == offline["prediction"].to_list()
    exact = offline["probability_true"].cast(pl.Float64).to_list()
    assert [one["probabilities"]["true"] for one in live] == exact
    routes = rows.select(pl.concat_str("origin", "destination", separator="-")).to_series()
    assert [one["route"] for one in live] == routes.to_list()
