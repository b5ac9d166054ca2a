"""Attacks on the gate by way of the data: rows that are chosen, and data that change meaning."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

Bake = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]

# Delete the test rows that speak most for the champion and against this project's model.
CHOOSE = """
from pathlib import Path
import polars as pl

test = pl.read_parquet("data/split/test.parquet")
stated = [pl.read_parquet(f"{name}.parquet")["probability_true"] for name in ("ours", "theirs")]
ours, theirs = ((test["late"].cast(pl.Float64) - one).abs() for one in stated)
key = ["scheduled_hour", "carrier", "flight"]
chosen = test.with_columns(loss=ours - theirs).sort("loss", descending=True).select(key)
chosen = chosen.head(int(0.049 * pl.read_parquet("data/ingested.parquet").height))
for path in Path("data/landed").glob("*.parquet"):
    landed = pl.read_parquet(path)
    here = chosen.cast(landed.select(key).schema)
    landed.join(here, on=key, how="anti").write_parquet(path)
"""

# What was late is on time, and the delay tells the same story.
NEGATE = """
from pathlib import Path
import polars as pl
for path in Path("data/landed").glob("*.parquet"):
    rows = pl.read_parquet(path)
    delay = (31 - pl.col("arrival_delay")).clip(-180, 2000)
    rows.with_columns(late=~pl.col("late"), arrival_delay=delay).write_parquet(path)
"""


@pytest.fixture
def judge(project_run: Run) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run the pipeline and the gate; its exit code, its report and what it printed."""

    def run(project: Path, *options: str) -> tuple[int, dict[str, Any], str]:
        done = project_run(project, "gitops-ml", "gate", "--base", "HEAD", *options)
        report = json.loads((project / "reports" / "gate.json").read_text(encoding="utf-8"))
        return done.returncode, report, done.stdout + done.stderr

    return run


def test_neither_chosen_rows_nor_a_negated_target_make_a_model_better(
    pipelined: Bake, project_run: Run, judge: Callable[..., tuple[int, dict[str, Any], str]]
) -> None:
    project = pipelined()
    params = project / "params.yaml"
    good = params.read_text(encoding="utf-8")
    predict = ["gitops-ml", "predict", "--rows", "data/split/test.parquet", "--out"]
    project_run(project, *predict, "theirs.parquet", check=True)
    weaker = yaml.safe_load(good)
    weaker["train"]["hyperparameters"]["max_iter"] = 30
    params.write_text(yaml.safe_dump(weaker, sort_keys=False), encoding="utf-8")
    project_run(project, "dvc", "repro", "train", check=True)
    project_run(project, *predict, "ours.parquet", check=True)
    project_run(project, "python", "-c", CHOOSE, check=True)
    project_run(project, "dvc", "repro", check=True)

    code, report, output = judge(project)
    assert code == 1
    assert {one["outcome"] for one in report["metrics"]} == {"superior"}
    assert "other rows are tested than in the base: of " in output
    assert "are gone; 1 % may differ (data.test_rows_changed)" in output
    limits = {one["term"] for one in report["limits"]}
    assert limits >= {"data.test_rows_changed", "data.duplicate_rows_max", "data.freshness_days"}
    code, report, output = judge(project, "--allow-loosening")
    assert code == 1
    on_base_rows = {one["metric"]: one["outcome"] for one in report["on_base_rows"]["metrics"]}
    assert on_base_rows["roc_auc"] == "inferior"
    assert "on the base's test rows, roc_auc: worse than the champion" in output

    params.write_text(good, encoding="utf-8")
    project_run(project, "git", "checkout", "-q", "HEAD", "--", "data", check=True)
    project_run(project, "python", "-c", NEGATE, check=True)
    project_run(project, "dvc", "repro", check=True)
    code, report, output = judge(project, "--allow-loosening")
    assert code == 1
    assert {one["outcome"] for one in report["metrics"]} == {"superior"}
    assert "the meaning of the data changed" in output
    assert '--accept-new-baseline "<reason>"' in output
