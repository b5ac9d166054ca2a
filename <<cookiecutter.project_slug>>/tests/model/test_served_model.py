"""The model that is served is the one that was trained, whatever its rows hold."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import pytest
from sklearn.pipeline import Pipeline

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.data.schema import Schema
from << cookiecutter.project_slug >>.model.features import class_name
from << cookiecutter.project_slug >>.model.matrix import matrix_of
from << cookiecutter.project_slug >>.model.predictor import Predictor, read_verified

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def trained(predictor: Predictor) -> Pipeline:
    """The fitted scikit-learn pipeline, loaded only if its hash is the recorded one."""
    manifest = {**predictor.manifest, "served": paths.MODEL.name}
    return joblib.load(io.BytesIO(read_verified(ROOT / paths.MODELS, manifest)))


def differing_share(trained: Pipeline, predictor: Predictor, matrix: Any) -> float:
    """The share of rows that both answer differently, relative to the size of the number."""
    served = predictor.predict(matrix)
    if served.probabilities is not None:
        difference = np.abs(served.probabilities - trained.predict_proba(matrix)).max(axis=1)
        return float(np.mean(~(difference < TOLERANCE)))
    expected = trained.predict(matrix)
    if predictor.manifest["classes"] is not None:
        labels = [predictor.manifest["classes"][place] for place in expected]
        return float(np.mean([a != b for a, b in zip(served.labels, labels, strict=True)]))
    scale = np.maximum(np.abs(expected), expected.std() or 1.0)
    difference = np.abs(np.array(served.labels) - expected) / scale
    return float(np.mean(~(difference < TOLERANCE)))


def test_it_answers_as_trained(
    trained: Pipeline, predictor: Predictor, test_rows: pl.DataFrame
) -> None:
    matrix = matrix_of(test_rows, predictor.features)
    assert differing_share(trained, predictor, matrix) == 0


def test_it_answers_as_trained_when_values_are_missing(
    trained: Pipeline, predictor: Predictor, schema: Schema, some_rows: pl.DataFrame
) -> None:
    optional = [
        name
        for name, column in schema.features().items()
        if column.nullable or column.unseen == "missing"
    ]
    if not optional:
        pytest.skip("schema.yaml has no feature that may be missing")

    off = {}
    for names in [*([name] for name in optional), optional]:
        rows = some_rows.with_columns(pl.lit(None).alias(name) for name in names)
        share = differing_share(trained, predictor, matrix_of(rows, predictor.features))
        if share > 0:
            off[", ".join(names)] = share

    assert not off, f"served and trained model differ when these are missing: {off}"


def test_it_repeats_the_golden_predictions(predictor: Predictor) -> None:
    path = ROOT / paths.GOLDEN
    if not path.exists():
        pytest.fail(f"{paths.GOLDEN} is missing: run `make pipeline` first", pytrace=False)
    golden = json.loads(path.read_text(encoding="utf-8"))
    tolerance = golden["tolerance"]

    answers = predictor.predict(predictor.features.from_records(golden["records"]))

    assert len(answers.labels) == len(golden["predictions"]) > 0
    for place, expected in enumerate(golden["predictions"]):
        if predictor.manifest["classes"] is None:
            assert answers.labels[place] == pytest.approx(expected["prediction"], rel=tolerance)
            continue
        assert answers.labels[place] == expected["prediction"]
        if answers.probabilities is not None:
            names = [class_name(value) for value in predictor.manifest["classes"]]
            found = dict(zip(names, answers.probabilities[place].tolist(), strict=True))
            assert found == pytest.approx(expected["probabilities"], abs=tolerance)
