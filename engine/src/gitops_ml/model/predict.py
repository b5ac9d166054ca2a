"""Score a file of rows with the model that the service would load.

    gitops-ml predict --rows rows.parquet --out scores.parquet

The answer has one row for each row of the file, in its order: `prediction`, and for a classifier
with probabilities one column `probability_<class>` for each class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.features.derive import DerivedValueError
from gitops_ml.features.encode import class_name
from gitops_ml.features.matrix import TableError, matrix_of, read_table
from gitops_ml.model.metrics import Scored
from gitops_ml.model.predictor import (
    Predictions,
    Predictor,
    load_predictor,
)
from gitops_ml.model.target import Class, target_values


def predict(
    predictor: Predictor, frame: pl.DataFrame, held: frozenset[str] = frozenset()
) -> Predictions:
    """Answer for every row of a table.

    Args:
        predictor: The model.
        frame: The rows, with the inputs of the model.
        held: Derived columns to take from the table instead of deriving them.

    Raises:
        TableError: If an input is missing from the table or has the wrong type.
        DerivedValueError: If a column cannot be derived.
        PredictionError: If the model answers with something that is no finite number.
    """
    return predictor.predict(matrix_of(frame, predictor.features, held))


def as_table(predictions: Predictions, manifest: dict[str, Any]) -> pl.DataFrame:
    """The answers as a table: `prediction`, and `probability_<class>` where there are any."""
    columns: dict[str, Any] = {"prediction": predictions.labels}
    if predictions.probabilities is not None:
        for place, value in enumerate(manifest["classes"]):
            columns[f"probability_{class_name(value)}"] = predictions.probabilities[:, place]
    return pl.DataFrame(columns)


def scored_rows(
    target: pl.Series, predictions: Predictions, classes: Sequence[Class] | None
) -> Scored:
    """Put answers beside what happened.

    Args:
        target: n values.
        predictions: The answers for the same n rows.
        classes: The classes that the model knows; None for regression.

    Raises:
        TableError: If the target holds a class that the model does not know.
    """
    truth = target_values(target, classes)
    if classes is None:
        return Scored(truth, np.asarray(predictions.labels, dtype=np.float64))
    place = {value: index for index, value in enumerate(classes)}
    labels = np.array([place[label] for label in predictions.labels], dtype=np.int64)
    if predictions.probabilities is None:
        return Scored(truth, labels, None, len(classes))
    return Scored(truth, labels, predictions.probabilities.astype(np.float64), len(classes))


def score_target(frame: pl.DataFrame, predictor: Predictor) -> Scored:
    """Answer for every row and put the answers beside the target.

    Raises:
        TableError: If a column is missing, has another type, or holds an unknown class.
        PredictionError: If the model answers with something that is no finite number.
    """
    manifest = predictor.manifest
    target = frame.get_column(manifest["target"])
    return scored_rows(target, predict(predictor, frame), manifest["classes"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--rows", type=Path, required=True, help="parquet file with the features")
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write")
    parser.add_argument("--models", type=Path, default=paths.MODELS, help="default: %(default)s")


def run(options: argparse.Namespace) -> int:
    """Score `--rows` into `--out`; 0 if all went well."""
    try:
        predictor = load_predictor(options.models)
        frame = read_table(options.rows, predictor.features.inputs)
        table = as_table(predict(predictor, frame), predictor.manifest)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(options.out)
    except (TableError, DerivedValueError) as error:
        raise TableError(_with_file(str(error), options.rows)) from error
    except OSError as error:
        raise TableError(f"{options.out}: cannot be written: {error.strerror}") from error
    print(f"Scored {len(table)} rows into {options.out}")
    return 0


def _with_file(message: str, path: Path) -> str:
    lines = message.splitlines()
    return "\n".join(line if line.startswith(str(path)) else f"{path}: {line}" for line in lines)
