"""The model behind the service: loaded only when its bytes are the recorded ones.

`models/manifest.json` says which file is served, its sha256, the features it takes and, for a
classifier, its classes. A file with another hash is never opened: joblib would run code from it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.user_code import make_importable
from gitops_ml.features.derive import recorded_derivation
from gitops_ml.features.encode import Features, Matrix

MANIFEST = "manifest.json"


class ModelError(GitopsError):
    """There is no model to serve, or it is not the recorded one; the message is for people."""


class PredictionError(GitopsError):
    """The model answered with something that is no prediction."""


@dataclass(frozen=True)
class Predictions:
    """The answers for n rows.

    Attributes:
        labels: n JSON values, a class or a number each.
        probabilities: Shape (n, number of classes), in the manifest's order of classes; None when
            the model has none.
    """

    labels: list[Any]
    probabilities: NDArray[np.floating[Any]] | None

    def part(self, start: int, end: int) -> Predictions:
        """The answers for the rows from `start` up to `end`."""
        probabilities = None if self.probabilities is None else self.probabilities[start:end]
        return Predictions(self.labels[start:end], probabilities)


class Predictor(Protocol):
    """A model that is ready to answer.

    Attributes:
        manifest: What is recorded about it.
        features: The columns of its matrix.
        batches: Whether it answers several requests together much faster than one by one.
    """

    manifest: dict[str, Any]
    features: Features
    batches: bool

    def predict(self, matrix: Matrix) -> Predictions:
        """Answer for every row of a matrix.

        Args:
            matrix: Shape (n, number of features), float32.

        Raises:
            PredictionError: If an answer is no finite number.
        """


class OnnxPredictor:
    """A model in ONNX Runtime: runs no code on load, and a single row costs microseconds."""

    batches = False

    def __init__(self, model: bytes, manifest: dict[str, Any], features: Features) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One request is too little work to share between threads; more of them only spin.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # It warns of what converters leave behind and it removes.
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self.manifest = manifest
        self.features = features

    def predict(self, matrix: Matrix) -> Predictions:
        """See `Predictor.predict`."""
        (answer,) = self._session.run(None, {self._input: matrix})
        return _interpret(answer, self.manifest)


class SklearnPredictor:
    """A scikit-learn pipeline, for estimators that ONNX cannot express."""

    batches = True

    def __init__(self, model: bytes, manifest: dict[str, Any], features: Features) -> None:
        import joblib

        self._pipeline = joblib.load(io.BytesIO(model))
        method = "predict_proba" if manifest["probabilities"] else "predict"
        self._answer = getattr(self._pipeline, method)
        self.manifest = manifest
        self.features = features

    def predict(self, matrix: Matrix) -> Predictions:
        """See `Predictor.predict`."""
        return _interpret(np.asarray(self._answer(matrix)), self.manifest)


def _interpret(answer: NDArray[Any], manifest: Mapping[str, Any]) -> Predictions:
    """Give a model's output its meaning: probabilities, places of classes, or numbers."""
    if not np.isfinite(answer).all():
        rows = int((~np.isfinite(answer.reshape(len(answer), -1)).all(axis=1)).sum())
        raise PredictionError(f"the model gave no finite number for {rows} of {len(answer)} rows")
    classes = manifest["classes"]
    if classes is None:
        return Predictions(answer.ravel().tolist(), None)
    if not manifest["probabilities"]:
        return Predictions([classes[place] for place in answer.ravel().tolist()], None)
    places = chosen(answer, manifest.get("threshold"))
    return Predictions([classes[place] for place in places.tolist()], answer)


def chosen(probabilities: NDArray[Any], threshold: float | None) -> NDArray[np.intp]:
    """The places of the classes that are the answers.

    Args:
        probabilities: Shape (n, number of classes).
        threshold: The probability from which on the second of two classes is the answer; None for
            the most probable class.

    Returns:
        Shape (n,).
    """
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=1))
    places: NDArray[np.intp] = (probabilities[:, 1] >= threshold).astype(np.intp)
    return places


def read_manifest(models: Path) -> dict[str, Any]:
    """Read `manifest.json` of a models folder.

    Raises:
        ModelError: If it is missing or is no manifest.
    """
    path = models / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; run `make pipeline` to train a model") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; run `make pipeline`") from error
    needed = ("task", "classes", "probabilities", "features", "files", "served")
    missing = [key for key in needed if not isinstance(manifest, dict) or key not in manifest]
    if missing or manifest["served"] not in manifest["files"]:
        what = f"lacks {', '.join(missing)}" if missing else "serves a file that it does not list"
        raise ModelError(f"{path}: {what}; run `make pipeline`")
    return dict(manifest)


def read_verified(models: Path, manifest: Mapping[str, Any]) -> bytes:
    """Read the served model file, if its hash is the recorded one.

    Raises:
        ModelError: If it is missing, unreadable or has another hash.
    """
    path = models / str(manifest["served"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror}; run `make pipeline`"
        ) from error
    expected = manifest["files"][manifest["served"]]
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(
            f"{path}: is not the model that {MANIFEST} records, so it was not loaded\n"
            f"  recorded sha256 {expected}\n  found    sha256 {found}\n"
            "  run `make pipeline`, or `dvc checkout models` to get the recorded file back"
        )
    return content


def load_predictor(models: Path) -> Predictor:
    """Verify the served model file and load it.

    Args:
        models: The folder with `manifest.json` and the model files; beside it is the user's code.

    Raises:
        ModelError: If there is no model, or its hash is not the recorded one.
        UserCodeError: If columns are derived, and not by the code that trained the model.
    """
    manifest = read_manifest(models)
    content = read_verified(models, manifest)
    derivation = recorded_derivation(models.resolve().parent, manifest)
    features = Features.from_manifest(manifest["features"], derivation)
    if manifest["served"].endswith(".onnx"):
        return OnnxPredictor(content, manifest, features)
    if "user_code" in manifest:
        # The pickle may name a class of the user's.
        make_importable(models.resolve().parent, manifest["user_code"]["package"])
    return SklearnPredictor(content, manifest, features)
