"""A pytest plugin: the project's settings, and what the pipeline made, for the checks.

    # tests/conftest.py
    pytest_plugins = ["gitops_ml.checks.fixtures"]

A project replaces a fixture by one of the same name in its own `conftest.py`. All but `root`,
`params`, `schema` and `contract` fail, and say so, where the pipeline has not run.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import polars as pl
import pytest

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, read_lock
from gitops_ml.core.dvc_objects import check_outputs
from gitops_ml.core.elsewhere import trained_by
from gitops_ml.core.schema import Column, Schema, load_schema
from gitops_ml.core.settings import Contract, Params, load_contract, load_params
from gitops_ml.data.problems import Problem
from gitops_ml.data.validate import row_problems
from gitops_ml.features.derive import Derivation, load_derivation
from gitops_ml.features.matrix import with_derived
from gitops_ml.model.metrics import Floats, Scored
from gitops_ml.model.predict import predict, score_target
from gitops_ml.model.predictor import Predictor, load_predictor, read_verified

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from gitops_ml.gate.challenger import Challenger

Made = Callable[[Path], Path]
Answer = Callable[..., Floats]

SERVICE = "gitops_ml.serving.service:Service"
MARKER = "pipeline: looks at what the pipeline wrote; run `make pipeline` first"
SOME_ROWS = 500


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of the checks known."""
    config.addinivalue_line("markers", MARKER)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let `make check` pass in a project whose tests all need the pipeline."""
    without_pipeline = session.config.option.markexpr == f"not {MARKER.partition(':')[0]}"
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and without_pipeline:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture(scope="session")
def root(pytestconfig: pytest.Config) -> Path:
    """The project's folder: the one whose `pyproject.toml` holds pytest's settings."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def params(root: Path) -> Params:
    """What `params.yaml` says."""
    return load_params(root)


@pytest.fixture(scope="session")
def schema(root: Path) -> Schema:
    """What `schema.yaml` says."""
    return load_schema(root)


@pytest.fixture(scope="session")
def derivation(root: Path, schema: Schema, params: Params) -> Derivation:
    """The derived columns of `features.py`."""
    return load_derivation(root, schema, params.target)


@pytest.fixture(scope="session")
def inputs(schema: Schema, derivation: Derivation) -> dict[str, Column]:
    """The columns that a request carries."""
    return derivation.inputs(schema)


@pytest.fixture(scope="session")
def contract(root: Path) -> Contract:
    """What `contract.yaml` says."""
    return load_contract(root)


@pytest.fixture(scope="session")
def made(root: Path) -> Made:
    """Where the pipeline wrote an output; the test fails if it did not, or not what is there.

    A model and a report are hashed before anything of them is loaded. Tables are not: to tell what
    is wrong with them is what the checks are for.
    """

    @cache
    def find(output: Path) -> Path:
        if not (root / output).exists():
            pytest.fail(f"{output} is missing: run `make pipeline` first", pytrace=False)
        if output not in (paths.INGESTED, paths.TRAIN, paths.TEST):
            try:
                check_outputs(root, read_lock(root), [output])
            except DvcError as error:
                pytest.fail(str(error), pytrace=False)
        return root / output

    return find


@pytest.fixture(scope="session")
def ingested(made: Made) -> pl.DataFrame:
    """The whole table, as it was ingested."""
    return pl.read_parquet(made(paths.INGESTED))


@pytest.fixture(scope="session")
def problems(ingested: pl.DataFrame, schema: Schema, params: Params) -> list[Problem]:
    """What the rows of the table break of the schema."""
    return row_problems(ingested, schema, params.data.key)


@pytest.fixture(scope="session")
def train_rows(made: Made, derivation: Derivation) -> pl.DataFrame:
    """The training set, with its derived columns."""
    return with_derived(pl.read_parquet(made(paths.TRAIN)), derivation)


@pytest.fixture(scope="session")
def test_rows(made: Made, derivation: Derivation) -> pl.DataFrame:
    """The test set, with its derived columns."""
    return with_derived(pl.read_parquet(made(paths.TEST)), derivation)


@pytest.fixture(scope="session")
def some_rows(test_rows: pl.DataFrame) -> pl.DataFrame:
    """Up to 500 evenly spaced test rows."""
    return test_rows.gather_every(max(1, test_rows.height // SOME_ROWS)).head(SOME_ROWS)


@pytest.fixture(scope="session")
def predictor(made: Made) -> Predictor:
    """The model as the service loads it."""
    return load_predictor(made(paths.MANIFEST).parent)


@pytest.fixture(scope="session")
def trained(predictor: Predictor, root: Path) -> Pipeline:
    """The fitted scikit-learn pipeline, loaded only if its hash is the recorded one."""
    trainer = trained_by(root)
    if trainer is not None:
        pytest.skip(f"trained elsewhere, by {trainer}: only its ONNX is loaded")
    manifest = {**predictor.manifest, "served": paths.MODEL.name}
    return joblib.load(io.BytesIO(read_verified(root / paths.MODELS, manifest)))


@pytest.fixture(scope="session")
def scored(predictor: Predictor, test_rows: pl.DataFrame) -> Scored:
    """What happened in the test rows, and what the model said."""
    return score_target(test_rows, predictor)


@pytest.fixture(scope="session")
def answer(predictor: Predictor) -> Answer:
    """The model as a function of a table, and perhaps derived columns to take from it.

    It gives one row of numbers for each row of the table.
    """
    return partial(numbers, predictor)


def numbers(predictor: Predictor, rows: pl.DataFrame, held: frozenset[str] = frozenset()) -> Floats:
    """A model's answers as numbers.

    Args:
        predictor: The model.
        rows: n rows.
        held: Derived columns to take from the rows instead of deriving them.

    Returns:
        Shape (n, number of classes) for probabilities, else (n, 1): the predicted number, or 0 and
        1 for each class in turn.
    """
    predictions = predict(predictor, rows, held)
    if predictions.probabilities is not None:
        return predictions.probabilities.astype(np.float64)
    classes = predictor.manifest["classes"]
    if classes is None:
        return np.asarray(predictions.labels, dtype=np.float64)[:, None]
    return np.array([[label == value for value in classes] for label in predictions.labels], float)


@pytest.fixture(scope="session")
def golden(made: Made) -> dict[str, Any]:
    """The golden predictions: `records`, `predictions` and `tolerance`."""
    from gitops_ml.bento.smoke import read_golden

    return read_golden(made(paths.GOLDEN))


@pytest.fixture(scope="session")
def challenger(root: Path, params: Params) -> Challenger:
    """The model as the gate judges it: what `dvc.lock` records, measured anew."""
    from gitops_ml.gate.challenger import current_model, load_challenger

    return load_challenger(root, params, current_model(root))


@pytest.fixture(scope="session")
def service(made: Made) -> Iterator[str]:
    """The address of the service of this working tree, running as it does with `make serve`."""
    from gitops_ml.bento.smoke import serving, wait_for

    made(paths.MANIFEST)
    with serving(SERVICE) as url:
        wait_for(url, None, timeout=60)
        yield url
