"""Hold the live service's predictions against what its model was trained on, and say what to do.

    gitops-ml monitor --log /var/log/predictions --labels labels/

The prediction log is the folder that PREDICTION_LOG_DIR of the service names, or a copy of it, or
an address that DVC can read (s3://…); by default the variable PREDICTION_LOG says where. Labels
come from files (--labels, PREDICTION_LABELS) and from data that have landed since. Writes
`reports/monitor.json` and `reports/monitor.html`. Settings: `monitor` in `params.yaml`.

It exits with 0 where nothing is off, where no window can be judged yet, and where no log is named,
which it says; with 3 where the rule acts; with 1 where the log, the labels or the model cannot be
read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.run import PYTHON, CommandError, output
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import load_contract, load_params
from gitops_ml.data.ingest import read_ingested
from gitops_ml.data.problems import write_json
from gitops_ml.features.encode import class_name
from gitops_ml.features.matrix import read_table
from gitops_ml.model.predictor import load_predictor
from gitops_ml.monitor.issue import as_markdown
from gitops_ml.monitor.labels import with_labels
from gitops_ml.monitor.live_rows import read_log, releases
from gitops_ml.monitor.page import render
from gitops_ml.monitor.report import as_json, skipped
from gitops_ml.monitor.rule import acting
from gitops_ml.monitor.watch import Monitor
from gitops_ml.report.verdict_report import escape

LOG, LABELS = "PREDICTION_LOG", "PREDICTION_LABELS"
DRIFT = 3
HOW_TO_ENABLE = (
    f"set {LOG} (in a workflow: the repository variable `{LOG}`) to the folder that "
    "PREDICTION_LOG_DIR of the service names, or to the address that its files are copied to, for "
    "example `s3://bucket/predictions`"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--log", help=f"folder or address of the log; default: ${LOG}")
    parser.add_argument("--labels", help=f"folder or address of labels; default: ${LABELS}")
    parser.add_argument(
        "--now", type=_moment, help="judge as at this moment, e.g. 2013-08-01T00:00:00Z"
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def monitor(log: Path, labels: Path | None, now: datetime) -> dict[str, Any]:
    """Judge the log of the current folder's project.

    Args:
        log: The folder of the log.
        labels: A folder or a file of labels; None without.
        now: What the clock says.

    Returns:
        The content of `reports/monitor.json`.

    Raises:
        GitopsError: If the log, the labels, the model or the data cannot be read.
    """
    params, contract, schema = load_params(), load_contract(), load_schema()
    predictor = load_predictor(paths.MODELS)
    manifest, inputs = predictor.manifest, predictor.features.inputs
    time = [params.data.time] if params.data.time else []
    train = read_table(paths.TRAIN, [*inputs, *time])
    test = read_table(paths.TEST, [*inputs, *time, params.target])
    with_probabilities = manifest["probabilities"] and manifest["classes"]
    names = [class_name(one) for one in manifest["classes"]] if with_probabilities else []
    live = read_log(log, {name: schema.columns[name] for name in inputs}, names, now)
    known = with_labels(live.rows, schema, params, inputs, labels, _landed())
    watched = Monitor(predictor, params, contract, train, test).watch(known.rows, now)
    return as_json(
        watched,
        acting(watched.windows, params.monitor),
        releases=releases(live.rows),
        model=str(manifest["files"][manifest["served"]]),
        settings=params.monitor.model_dump(),
        problems=(*live.problems, *known.problems),
    )


def _landed() -> pl.DataFrame | None:
    return read_ingested() if paths.INGESTED.exists() else None


def _fetched(address: str, stack: ExitStack) -> Path:
    """A folder as it is; what is elsewhere, in a folder that lives as long as `stack`.

    Raises:
        GitopsError: If it cannot be fetched.
    """
    if "://" not in address:
        return Path(address)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "fetched"
    try:
        output([*PYTHON, "dvc", "get-url", "--quiet", address, str(folder)], Path())
    except CommandError as error:
        raise GitopsError(f"{address}: cannot be fetched: {error}") from error
    return folder


def run(options: argparse.Namespace) -> int:
    """Judge and write the reports; 0 if nothing is off or nothing can be judged, 3 if it drifts."""
    log = options.log or os.environ.get(LOG)
    if not log:
        report = skipped(f"Skipped: no prediction log is named. To enable it: {HOW_TO_ENABLE}")
    else:
        labels = options.labels or os.environ.get(LABELS)
        now = options.now or datetime.now(UTC)
        with ExitStack() as stack:
            folder = _fetched(log, stack)
            report = monitor(folder, _fetched(labels, stack) if labels else None, now)
    write_json(paths.MONITOR_REPORT, report)
    paths.MONITOR_PAGE.write_text(render(report), encoding="utf-8")
    for line in (*report.get("problems", ()), *report.get("notes", ())):
        print(line)
    print(report["headline"])
    _summarise(report)
    return DRIFT if report["status"] == "drift" else 0


def _summarise(report: dict[str, Any]) -> None:
    """On the workflow's page, where there is one."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    told = [report["headline"], *report.get("notes", ()), *report.get("problems", ())]
    text = as_markdown(report) if report["status"] == "drift" else "\n\n".join(map(escape, told))
    try:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(f"## Monitor: {report['status']}\n\n{text}\n")
    except OSError as error:
        raise GitopsError(f"GITHUB_STEP_SUMMARY is {target}: {error}") from error
