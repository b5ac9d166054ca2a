"""Answer for the gate: predictions, derived columns and latency of the model of this project.

    gitops-ml answer --rows rows.parquet --out FOLDER

What the gate's judge asks of the challenger, in a process of the challenger's own environment. In
the folder are afterwards `answers.parquet` (as `gitops-ml predict` writes it), `derived.parquet`
(the derived columns of the same rows) and `latency.json`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.json_text import load_json
from gitops_ml.features.matrix import TableError, read_table, with_derived
from gitops_ml.gate.challenger import latency_p99_ms
from gitops_ml.model.predict import as_table, predict
from gitops_ml.model.predictor import load_predictor

ANSWERS = Path("answers.parquet")
DERIVED = Path("derived.parquet")
LATENCY = Path("latency.json")
LATENCY_RECORDS = 100


@dataclass(frozen=True)
class Answers:
    """What a contestant gave back for n rows.

    Attributes:
        table: n rows, as `gitops-ml predict` writes them.
        derived: n rows with its derived columns; no column where it derives none.
        latency_p99_ms: What it says that a single row takes. A model can be loaded in its own
            process only, so a contestant that lies gets past a limit of resources, no more.
    """

    table: pl.DataFrame
    derived: pl.DataFrame
    latency_p99_ms: float


def write_answers(rows: Path, out: Path, models: Path) -> None:
    """Answer for the rows of a parquet file.

    Raises:
        GitopsError: If the model cannot be loaded or does not take these rows.
    """
    predictor = load_predictor(models)
    inputs = list(predictor.features.inputs)
    frame = read_table(rows, inputs)
    derived = with_derived(frame, predictor.features.derivation).drop(frame.columns)
    table = as_table(predict(predictor, frame), predictor.manifest)
    latency = latency_p99_ms(predictor, frame.select(inputs).head(LATENCY_RECORDS).to_dicts())
    out.mkdir(parents=True, exist_ok=True)
    table.write_parquet(out / ANSWERS)
    derived.write_parquet(out / DERIVED)
    (out / LATENCY).write_text(json.dumps({"p99_ms": latency}) + "\n", encoding="utf-8")


def read_answers(folder: Path, rows: int) -> Answers:
    """Read what another process wrote: nothing about it is taken for granted.

    Args:
        folder: Where it wrote.
        rows: For how many rows it was asked.

    Raises:
        TableError: If it is not what was asked for.
    """
    try:
        table = pl.read_parquet(folder / ANSWERS)
        derived = pl.read_parquet(folder / DERIVED)
        latency = float(load_json((folder / LATENCY).read_text(encoding="utf-8"))["p99_ms"])
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise TableError(f"its answers cannot be read: {type(error).__name__}: {error}") from error
    if "prediction" not in table.columns or len(table) != rows:
        raise TableError(
            f"it gave {len(table)} answers for {rows} rows, in columns {', '.join(table.columns)}"
        )
    if derived.width and len(derived) != rows:
        raise TableError(f"it gave derived columns of {len(derived)} rows, asked for {rows}")
    if not latency >= 0:
        raise TableError(f"it says that a row takes {latency} ms")
    return Answers(table, derived, latency)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--rows", type=Path, required=True, help="parquet file with the features")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")


def run(options: argparse.Namespace) -> int:
    """Answer for `--rows` into `--out`; 0 if all went well."""
    try:
        write_answers(options.rows, options.out, paths.MODELS)
    except OSError as error:
        raise GitopsError(f"{options.out}: cannot be written: {error.strerror}") from error
    return 0
