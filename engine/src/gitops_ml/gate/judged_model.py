"""The challenger as the judge sees it: what its own process answered, beside what happened.

Nothing of the challenger's is loaded here. The file that is served is hashed, never opened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.schema import Schema
from gitops_ml.features.derive import load_derivation
from gitops_ml.features.matrix import TableError, with_derived
from gitops_ml.gate.answer import Answers, read_answers
from gitops_ml.gate.challenger import score
from gitops_ml.gate.contestant import (
    CannotScoreError,
    Contestant,
    ContestantError,
    hidden_columns,
    write_rows,
)
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.retrain import let_retrain
from gitops_ml.model.metrics import Scored
from gitops_ml.model.predictor import PredictionError, read_manifest, read_verified


@dataclass(frozen=True)
class ModelFiles:
    """A model, by what is recorded of it.

    Attributes:
        locked: What `dvc.lock` calls it.
        manifest: Its manifest.
        size: Bytes of the file that is served.
    """

    locked: LockedOutput
    manifest: Mapping[str, Any]
    size: int

    @property
    def sha256(self) -> str:
        """The hash of the file that is served."""
        return str(self.manifest["files"][self.manifest["served"]])

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes that it tells apart; none for regression."""
        return tuple(self.manifest["classes"] or ())


@dataclass(frozen=True)
class JudgedModel:
    """A model with the answers of its own process.

    Attributes:
        files: The model.
        test: The n test rows, all columns of the schema and the derived ones.
        scored: What happened in them and what the model said.
        latency_p99_ms: What its process measured for one row.
    """

    files: ModelFiles
    test: pl.DataFrame
    scored: Scored
    latency_p99_ms: float


def model_files(root: Path, locked: LockedOutput) -> ModelFiles:
    """Verify a model's files without loading them.

    Raises:
        ModelError: If there is no model, or the served file is not the recorded one.
    """
    models = root / paths.MODELS
    manifest = read_manifest(models)
    return ModelFiles(locked, manifest, len(read_verified(models, manifest)))


def let_answer(root: Path, home: Path, rows: pl.DataFrame, schema: Schema, target: str) -> Answers:
    """Let the model of a working tree answer, in a process of its own environment.

    Args:
        root: The project's folder.
        home: The project whose locked environment this process runs in.
        rows: The test rows.
        schema: Their schema.
        target: What there is to predict.

    Raises:
        ContestantError: If it does not answer, or with something else than asked for.
    """
    with tempfile.TemporaryDirectory(prefix="challenger-") as folder:
        scratch = Path(folder).resolve()
        challenger = Contestant(root.resolve(), scratch)
        challenger.choose_interpreter(home.resolve(), "The challenger")
        asked = write_rows(rows, hidden_columns(schema, target), scratch / "rows.parquet")
        try:
            challenger.ask("gitops_ml", "answer", "--rows", asked, "--out", scratch / "out")
            return read_answers(scratch / "out", len(rows))
        except (CannotScoreError, TableError) as error:
            raise ContestantError(f"the model of this change does not answer: {error}") from error


def retrained_models(
    root: Path,
    home: Path,
    train: pl.DataFrame,
    rows: pl.DataFrame,
    schema: Schema,
    target: str,
    classes: Sequence[Any],
    seeds: int,
) -> list[Scored]:
    """Let the recipe of a working tree be trained with some seeds, and answer with each model.

    Args:
        root: The project's folder.
        home: The project whose locked environment this process runs in.
        train: The rows to train on.
        rows: The n test rows.
        schema: Of all these rows.
        target: What there is to predict.
        classes: The classes that the recorded model tells apart; none for regression.
        seeds: How many models to train.

    Raises:
        ContestantError: If it does not train, or answers with something else than asked for.
    """
    with tempfile.TemporaryDirectory(prefix="challenger-") as folder:
        scratch = Path(folder).resolve()
        challenger = Contestant(root.resolve(), scratch)
        challenger.choose_interpreter(home.resolve(), "The challenger")
        hidden = hidden_columns(schema, target)
        asked = write_rows(rows, hidden, scratch / "rows.parquet")
        learnt = write_rows(train, hidden - {target}, scratch / "train.parquet")
        try:
            tables = let_retrain(challenger, learnt, asked, seeds, len(rows))
        except (CannotScoreError, TableError) as error:
            raise ContestantError(
                f"the recipe of this change cannot be trained again with {seeds} seeds "
                f"(model.seeds of {paths.CONTRACT}): {error}"
            ) from error
    scored = [score(rows.get_column(target), table, classes) for table in tables]
    for one in scored:
        _check_finite(one)
    return scored


def judged_model(
    files: ModelFiles, rows: pl.DataFrame, target: str, answers: Answers
) -> JudgedModel:
    """Put a model's answers beside what happened.

    Args:
        files: The model.
        rows: n test rows, with the derived columns that are known without the model.
        target: What there is to predict.
        answers: What its process gave back for the same rows.

    Raises:
        TableError: If the target holds a class that the model does not know.
        PredictionError: If an answer is no finite number.
    """
    scored = score(rows.get_column(target), answers.table, files.classes)
    _check_finite(scored)
    own = [name for name in answers.derived.columns if name not in rows.columns]
    return JudgedModel(
        files=files,
        test=rows.with_columns(answers.derived.select(own).iter_columns()),
        scored=scored,
        latency_p99_ms=answers.latency_p99_ms,
    )


def _check_finite(scored: Scored) -> None:
    for numbers in (scored.prediction, scored.probability):
        if numbers is not None and not np.isfinite(numbers).all():
            raise PredictionError("the model of this change answers with no finite number")


def with_known_derived(
    log: GateLog, home: Path, rows: pl.DataFrame, schema: Schema, target: str
) -> pl.DataFrame:
    """The rows with the derived columns of the judge's own `features.py`.

    A slice keeps its meaning when the change says otherwise of a column: what the base derives is
    derived by the base's code. Columns that only the change derives come with its answers.

    Args:
        log: Takes a note where the base's code cannot derive from these rows.
        home: The judge's project.
        rows: The test rows.
        schema: Their schema.
        target: What there is to predict.
    """
    try:
        return with_derived(rows, load_derivation(home, schema, target))
    except GitopsError as error:
        log.notes.append(
            "The base's features.py cannot derive its columns from these rows, so the derived "
            f"columns are those that the change's own code gives: {error}"
        )
        return rows
