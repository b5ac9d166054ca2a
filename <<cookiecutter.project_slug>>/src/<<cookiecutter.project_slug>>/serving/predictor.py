"""The model behind the service: loaded only when its bytes are the recorded ones.

`models/manifest.json` says which file is served, its sha256, the features it takes and, for a
classifier, its classes. A file with another hash is never opened: joblib would run code from it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.features import Features, Matrix

MANIFEST = "manifest.json"


class ModelError(Exception):
    """There is no model to serve, or it is not the recorded one; the message is for people."""


class PredictionError(Exception):
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


class Predictor(Protocol):
    """A model that is ready to answer."""

    manifest: dict[str, Any]
    features: Features

    def predict(self, matrix: Matrix) -> Predictions:
        """Answer for every row of a matrix.

        Args:
            matrix: Shape (n, number of features), float32.

        Raises:
            PredictionError: If an answer is no finite number.
        """


class OnnxPredictor:
    """A model in ONNX Runtime: runs no code on load, and a single row costs microseconds."""

    def __init__(self, model: bytes, manifest: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One request is too little work to share between threads; more of them only spin.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        outputs = [output.name for output in self._session.get_outputs()]
        self._classes: list[Any] | None = manifest["classes"]
        # A classifier gives its labels first and its probabilities second.
        self._output = outputs[-1:] if self._classes else outputs[:1]
        self.manifest = manifest
        self.features = Features.from_manifest(manifest["features"])

    def predict(self, matrix: Matrix) -> Predictions:
        """See `Predictor.predict`."""
        (answer,) = self._session.run(self._output, {self._input: matrix})
        _must_be_finite(answer)
        if self._classes is None:
            return Predictions(answer.ravel().tolist(), None)
        return Predictions(_most_probable(answer, self._classes), answer)


class SklearnPredictor:
    """A scikit-learn pipeline, for estimators that ONNX cannot express."""

    def __init__(self, model: bytes, manifest: dict[str, Any]) -> None:
        import joblib

        self._pipeline = joblib.load(io.BytesIO(model))
        self._classes: list[Any] | None = manifest["classes"]
        self.manifest = manifest
        self.features = Features.from_manifest(manifest["features"])

    def predict(self, matrix: Matrix) -> Predictions:
        """See `Predictor.predict`."""
        if self._classes is None:
            values = np.asarray(self._pipeline.predict(matrix), dtype=np.float64)
            _must_be_finite(values)
            return Predictions(values.ravel().tolist(), None)
        if not hasattr(self._pipeline, "predict_proba"):
            return Predictions(self._pipeline.predict(matrix).tolist(), None)
        probabilities = self._pipeline.predict_proba(matrix)
        _must_be_finite(probabilities)
        return Predictions(_most_probable(probabilities, self._classes), probabilities)


def _most_probable(probabilities: NDArray[Any], classes: Sequence[Any]) -> list[Any]:
    return [classes[place] for place in probabilities.argmax(axis=1).tolist()]


def _must_be_finite(answer: NDArray[Any]) -> None:
    if not np.isfinite(answer).all():
        rows = int((~np.isfinite(answer.reshape(len(answer), -1)).all(axis=1)).sum())
        raise PredictionError(f"the model gave no finite number for {rows} of {len(answer)} rows")


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
    needed = ("task", "classes", "features", "files", "served")
    missing = [key for key in needed if not isinstance(manifest, dict) or key not in manifest]
    if missing or manifest["served"] not in manifest["files"]:
        what = f"lacks {', '.join(missing)}" if missing else "serves a file that it does not list"
        raise ModelError(f"{path}: {what}; run `make pipeline`")
    return dict(manifest)


def read_verified(models: Path, manifest: dict[str, Any]) -> bytes:
    """Read the served model file, if its hash is the recorded one.

    Raises:
        ModelError: If it is missing, unreadable or has another hash.
    """
    path = models / manifest["served"]
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
        models: The folder with `manifest.json` and the model files.

    Raises:
        ModelError: If there is no model, or its hash is not the recorded one.
    """
    manifest = read_manifest(models)
    content = read_verified(models, manifest)
    if manifest["served"].endswith(".onnx"):
        return OnnxPredictor(content, manifest)
    return SklearnPredictor(content, manifest)
