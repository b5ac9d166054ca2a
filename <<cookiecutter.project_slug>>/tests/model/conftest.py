"""What the pipeline made, as the tests of the model see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.model.metrics import Floats, Scored
from << cookiecutter.project_slug >>.model.predict import predict, score_target
from << cookiecutter.project_slug >>.model.predictor import Predictor, load_predictor

Answer = Callable[[pl.DataFrame], Floats]


@pytest.fixture(scope="session")
def predictor(made: Callable[[Path], Path]) -> Predictor:
    """The model as the service loads it."""
    return load_predictor(made(paths.MANIFEST).parent)


@pytest.fixture(scope="session")
def scored(predictor: Predictor, test_rows: pl.DataFrame) -> Scored:
    return score_target(test_rows, predictor)


@pytest.fixture(scope="session")
def answer(predictor: Predictor) -> Answer:
    """One row of numbers for each row of a table.

    Shape (n, number of classes) for probabilities, else (n, 1): the predicted number, or 0 and 1
    for each class in turn.
    """

    def numbers(rows: pl.DataFrame) -> Floats:
        predictions = predict(predictor, rows)
        if predictions.probabilities is not None:
            return predictions.probabilities.astype(np.float64)
        classes = predictor.manifest["classes"]
        if classes is None:
            return np.asarray(predictions.labels, dtype=np.float64)[:, None]
        return np.array(
            [[label == value for value in classes] for label in predictions.labels], float
        )

    return numbers


@pytest.fixture(scope="session")
def some_rows(test_rows: pl.DataFrame) -> pl.DataFrame:
    """Up to 500 evenly spaced test rows."""
    return test_rows.gather_every(max(1, test_rows.height // 500)).head(500)
