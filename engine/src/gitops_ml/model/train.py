"""Fit the estimator that `params.yaml` names and write what the service loads.

    gitops-ml train

The same rows, parameters and library versions give the same bytes: nothing written here depends
on the time, the machine or the order in which sets are walked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gitops_ml.core import paths
from gitops_ml.core.environment import check_installed
from gitops_ml.core.errors import GitopsError, SettingsError
from gitops_ml.core.file_hash import sha256_of
from gitops_ml.core.project import load_project
from gitops_ml.core.schema import Schema, check_against_params, load_schema
from gitops_ml.core.settings import Params, TrainParams, load_params
from gitops_ml.core.user_code import check_imports, unless_stopped, user_code
from gitops_ml.features.derive import NOTHING_DERIVED, Derivation, load_derivation
from gitops_ml.features.encode import Features, Matrix
from gitops_ml.features.matrix import matrix_of, read_table
from gitops_ml.model.compose import ESTIMATOR, described, load_estimator
from gitops_ml.model.export import Export, export_onnx
from gitops_ml.model.reproducible import forget_machine, same_on_all_machines
from gitops_ml.model.target import Class, classes_of, target_values
from gitops_ml.model.threshold import takes_missing, threshold_of


class TrainError(GitopsError):
    """The model cannot be trained as asked; the message is meant for people."""


@dataclass(frozen=True)
class Trained:
    """A fitted model with all that is recorded about it.

    Attributes:
        pipeline: Takes the feature matrix. A classifier predicts places in `classes`.
        features: The columns of that matrix.
        classes: What a classifier's answers mean, sorted; None for regression.
        rows: The number of rows that it was fitted on.
        export: The same model as ONNX, or why there is none.
        threshold: The probability from which on the second of two classes is the answer; None for
            the most probable class.
    """

    pipeline: Pipeline
    features: Features
    classes: tuple[Class, ...] | None
    rows: int
    export: Export
    threshold: float | None = None


def build_pipeline(settings: TrainParams, task: str, features: Features) -> Pipeline:
    """Put the preprocessing before the estimator; the whole takes the feature matrix.

    Raises:
        SettingsError: As `load_estimator`.
    """
    estimator = load_estimator(settings, task)
    is_category = [item.type == "category" for item in features.items]
    numbers = [place for place, category in enumerate(is_category) if not category]
    categories = [place for place, category in enumerate(is_category) if category]
    branches: list[tuple[str, Any, list[int]]] = []
    if numbers:
        branches.append(("numbers", _number_steps(settings), numbers))
    if categories:
        sizes = [len(features.items[place].categories) for place in categories]
        branches.append(("categories", _category_step(settings, sizes), categories))
    return Pipeline([("prepare", ColumnTransformer(branches)), ("estimator", estimator)])


def _number_steps(settings: TrainParams) -> Any:
    steps: list[tuple[str, Any]] = []
    if settings.preprocessing.missing == "median":
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("missing", imputer))
    if settings.preprocessing.scale:
        steps.append(("scale", StandardScaler()))
    return Pipeline(steps) if steps else "passthrough"


def _category_step(settings: TrainParams, sizes: Sequence[int]) -> Any:
    if settings.preprocessing.categories == "ordinal":
        return "passthrough"
    # The columns are the schema's categories, seen in training or not; the code of a missing one
    # is none of them and becomes zeros.
    return OneHotEncoder(
        categories=[np.arange(size, dtype=np.float32) for size in sizes],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )


def fit(
    settings: TrainParams,
    task: str,
    features: Features,
    matrix: Matrix,
    target: NDArray[Any],
    may_be_missing: Sequence[int] = (),
) -> Pipeline:
    """Build and fit the pipeline.

    Args:
        settings: The `train` section of `params.yaml`.
        task: classification or regression.
        features: The columns of the matrix.
        matrix: Shape (n, number of features).
        target: Shape (n,).
        may_be_missing: Places of the features that can be missing in rows still to come.

    Raises:
        SettingsError: If the estimator cannot be built or does not take missing values.
        TrainError: If it cannot be fitted to this data.
    """
    pipeline = build_pipeline(settings, task, features)
    _check_missing(settings, pipeline, features, matrix, may_be_missing)
    try:
        with same_on_all_machines(pipeline):
            pipeline.fit(matrix, target)
    except BaseException as error:
        unless_stopped(error)
        # Estimators raise whatever they like for values that do not suit them.
        raise TrainError(
            f"{ESTIMATOR}: {settings.estimator} could not be fitted to {len(target)} rows: "
            f"{described(error)}{_number_hint(settings)}"
        ) from error
    forget_machine(pipeline)
    return pipeline


def _check_missing(
    settings: TrainParams,
    pipeline: Pipeline,
    features: Features,
    matrix: Matrix,
    may_be_missing: Sequence[int],
) -> None:
    if settings.preprocessing.missing != "keep":
        return
    if takes_missing(pipeline.named_steps["estimator"]):
        return
    missing = set(np.flatnonzero(np.isnan(matrix).any(axis=0)).tolist())
    missing |= {place for place in may_be_missing if features.items[place].type != "category"}
    if missing:
        names = ", ".join(features.names[place] for place in sorted(missing))
        raise SettingsError(
            f"{paths.PARAMS}: train.preprocessing.missing: `keep`, but {settings.estimator} takes "
            f"no missing values, and these columns can have some: {names}; set it to `median`"
        )


def _number_hint(settings: TrainParams) -> str:
    """YAML reads `1e-3` as text; say so when that may be what went wrong."""
    for name, value in _leaves(settings.hyperparameters):
        if isinstance(value, str) and _is_number(value):
            return f" (hint: {name} is text to YAML; write {float(value)!r} with a decimal point)"
    return ""


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def train(
    frame: pl.DataFrame, params: Params, schema: Schema, derivation: Derivation = NOTHING_DERIVED
) -> Trained:
    """Fit a model on a table and export it.

    Args:
        frame: The training rows, in the schema's types.
        params: What to train.
        schema: What a row is.
        derivation: The columns that are derived from it.

    Raises:
        SettingsError: If the settings ask for something impossible.
        TrainError: If the estimator cannot be fitted to these rows.
        TableError: If a column is missing or of another type, or the target is all of one class.
        DerivedValueError: If a column cannot be derived.
    """
    features = Features.from_schema(schema, derivation)
    declared_features = derivation.extend(schema).features().values()
    matrix = matrix_of(frame, features)
    column = frame.get_column(params.target)
    classes = classes_of(column) if params.task == "classification" else None
    target = target_values(column, classes)
    may_be_missing = [
        place
        for place, declared in enumerate(declared_features)
        if declared.nullable or declared.unseen == "missing"
    ]
    pipeline = fit(params.train, params.task, features, matrix, target, may_be_missing)
    threshold = threshold_of(params.train.threshold, pipeline, len(classes or ()))
    ranges = [(column.min, column.max) for column in declared_features]
    with same_on_all_machines():
        export = export_onnx(
            pipeline, params.task, matrix, may_be_missing, features, ranges, threshold
        )
    return Trained(pipeline, features, classes, len(frame), export, threshold)


def write(
    trained: Trained, params: Params, folder: Path, code: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write the model files and the manifest that names them by hash.

    Args:
        trained: The model.
        params: What was trained.
        folder: Where the files go.
        code: What `user_code` says of the code that trained it; None if no user's code did.

    Returns:
        The manifest.

    Raises:
        TrainError: If the fitted estimator cannot be pickled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / paths.MODEL.name
    try:
        joblib.dump(trained.pipeline, model)
    except BaseException as error:
        unless_stopped(error)
        model.unlink(missing_ok=True)
        raise TrainError(
            f"{ESTIMATOR}: {params.train.estimator} is fitted, but cannot be stored: "
            f"{described(error)}; keep functions defined inside of others, open files and "
            "connections out of its attributes"
        ) from error
    files = {model.name: sha256_of(model)}
    onnx = folder / paths.ONNX_MODEL.name
    onnx.unlink(missing_ok=True)
    if trained.export.model is not None:
        onnx.write_bytes(trained.export.model)
        files[onnx.name] = sha256_of(onnx)
    manifest = {
        "task": params.task,
        "target": params.target,
        "classes": None if trained.classes is None else list(trained.classes),
        "probabilities": has_probabilities(trained.pipeline),
        "threshold": trained.threshold,
        "estimator": params.train.estimator,
        "features": trained.features.to_manifest(),
        "inputs": list(trained.features.inputs),
        "derived": trained.features.derivation.to_manifest(),
        "derived_from": trained.features.derivation.sources_to_manifest(),
        **({} if code is None else {"user_code": dict(code)}),
        "files": files,
        "served": model.name if trained.export.model is None else onnx.name,
        "parity": trained.export.parity,
        "seed": params.train.seed,
        "rows": trained.rows,
        "versions": {name: version(name) for name in ("numpy", "onnx", "scikit-learn", "skl2onnx")},
    }
    (folder / paths.MANIFEST.name).write_text(
        json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return manifest


def write_environment(manifest: Mapping[str, Any], path: Path) -> None:
    """Write down where a model was trained: beside it, since its bytes do not depend on that.

    Args:
        manifest: The model's.
        path: The file; git ignores it and no stage knows it.
    """
    environment = {
        "sha256": manifest["files"][manifest["served"]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": manifest["versions"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")


def has_probabilities(pipeline: Pipeline) -> bool:
    """Whether a fitted model says how likely each class is."""
    return is_classifier(pipeline) and hasattr(pipeline, "predict_proba")


def run(_: argparse.Namespace) -> int:
    """Train from `params.yaml`, `schema.yaml` and the training rows; 0 if all went well."""
    check_installed(Path())
    params, schema = load_params(), load_schema()
    derivation = load_derivation(Path(), schema, params.target)
    check_against_params(derivation.extend(schema), params)
    needed = Features.from_schema(schema, derivation).inputs
    frame = read_table(paths.TRAIN, [*needed, params.target])
    package = load_project().package
    code = user_code(Path(), package)
    trained = train(frame, params, schema, derivation)
    check_imports(Path(), package)
    manifest = write(trained, params, paths.MODELS, code)
    write_environment(manifest, paths.TRAINING_ENVIRONMENT)
    print(f"Trained {manifest['estimator']} on {manifest['rows']} rows; {_parity_line(manifest)}")
    return 0


def _parity_line(manifest: dict[str, Any]) -> str:
    if "reason" in manifest["parity"]:
        return f"served by scikit-learn, since {manifest['parity']['reason']}"
    return f"served as ONNX, which differs by {manifest['parity']['max_difference']:.1e} at most"
