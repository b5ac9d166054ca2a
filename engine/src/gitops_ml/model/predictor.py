"""The model behind the service: loaded only when its bytes are the recorded ones.

`models/manifest.json` says which file is served, its sha256, the features it takes and, for a
classifier, its classes. A file with another hash is never opened: joblib would run code from it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.json_text import load_json
from gitops_ml.core.user_code import (
    in_words,
    make_importable,
    package_folder,
    raised_at,
    unless_stopped,
)
from gitops_ml.features.derive import recorded_derivation
from gitops_ml.features.encode import Features, Matrix

MANIFEST = "manifest.json"
ONNX = ".onnx"  # how the name of a served file ends
# Probabilities that ONNX gives in single precision and that are no further apart count as equal:
# what a forest adds up to 0.5 in scikit-learn is 0.49999997 there.
SLACK = 1e-6
# How far the probabilities of a row may be from a sum of one.
SHARES_TOLERANCE = 1e-3


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
            PredictionError: If an answer is no finite number, or the estimator fails.
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

    def __init__(
        self,
        model: bytes,
        manifest: dict[str, Any],
        features: Features,
        folder: Path | None = None,
    ) -> None:
        """Load it.

        Args:
            model: A pickled pipeline.
            manifest: What is recorded about it.
            features: The columns of its matrix.
            folder: The user's package, to name lines of it.

        Raises:
            ModelError: If it cannot be loaded.
        """
        import joblib

        self._folder = folder
        try:
            self._pipeline = joblib.load(io.BytesIO(model))
        except BaseException as error:
            unless_stopped(error)
            raise ModelError(
                f"{manifest['served']}: cannot be loaded: {self._told(error)}; run `make pipeline`"
            ) from error
        self._method = "predict_proba" if manifest["probabilities"] else "predict"
        self._answer = getattr(self._pipeline, self._method)
        self.manifest = manifest
        self.features = features

    def predict(self, matrix: Matrix) -> Predictions:
        """See `Predictor.predict`."""
        try:
            answer = np.asarray(self._answer(matrix))
        except BaseException as error:
            unless_stopped(error)
            raise self._wrong(f"fails on {len(matrix)} rows: {self._told(error)}") from error
        problem = _unusable(answer, len(matrix), self.manifest)
        if problem is not None:
            raise self._wrong(problem)
        return _interpret(answer, self.manifest)

    def _told(self, error: BaseException) -> str:
        where = None if self._folder is None else raised_at(error, self._folder)
        return f"{in_words(error)} ({where})" if where else in_words(error)

    def _wrong(self, what: str) -> PredictionError:
        return PredictionError(f"{self.manifest.get('estimator')}: {self._method}: {what}")


def _unusable(answer: NDArray[Any], rows: int, manifest: Mapping[str, Any]) -> str | None:
    """Why the output of a model that anybody wrote cannot be read; None if it can."""
    classes = manifest["classes"]
    if manifest["probabilities"]:
        wanted, fits = f"shape ({rows}, {len(classes)})", answer.shape == (rows, len(classes))
    else:
        wanted, fits = f"shape ({rows},)", answer.shape in ((rows,), (rows, 1))
    if not fits:
        return f"gives an array of shape {answer.shape}; it must give {wanted}"
    if answer.dtype.kind not in "biuf":
        return f"gives {answer.dtype}; it must give numbers"
    if manifest["probabilities"]:
        off = np.abs(answer.sum(axis=1) - 1) > SHARES_TOLERANCE
        off |= (answer < -SHARES_TOLERANCE).any(axis=1)
        return f"gives {answer[off][0].tolist()}, which are no shares of one" if off.any() else None
    if classes is None:
        return None
    places = answer[np.isfinite(answer)]
    known = np.isin(places, np.arange(len(classes)))
    if not known.all():
        return (
            f"gives {places[~known][0]}; the classes that it was fitted on are the whole numbers "
            f"0 to {len(classes) - 1}"
        )
    return None


def _interpret(answer: NDArray[Any], manifest: Mapping[str, Any]) -> Predictions:
    """Give a model's output its meaning: probabilities, places of classes, or numbers."""
    if not np.isfinite(answer).all():
        rows = int((~np.isfinite(answer.reshape(len(answer), -1)).all(axis=1)).sum())
        raise PredictionError(f"the model gave no finite number for {rows} of {len(answer)} rows")
    classes = manifest["classes"]
    if classes is None:
        return Predictions(answer.ravel().tolist(), None)
    if not manifest["probabilities"]:
        places = answer.ravel().astype(np.intp)
        return Predictions([classes[place] for place in places.tolist()], None)
    places = decided(answer, manifest)
    return Predictions([classes[place] for place in places.tolist()], answer)


def decided(probabilities: NDArray[Any], manifest: Mapping[str, Any]) -> NDArray[np.intp]:
    """The places of the classes that a model of this manifest answers with; see `chosen`."""
    slack = SLACK if str(manifest.get("served")).endswith(ONNX) else 0.0
    return chosen(probabilities, manifest.get("threshold"), slack)


def chosen(
    probabilities: NDArray[Any], threshold: float | None, slack: float = 0.0
) -> NDArray[np.intp]:
    """The places of the classes that are the answers.

    Args:
        probabilities: Shape (n, number of classes).
        threshold: The probability from which on the second of two classes is the answer; None for
            the most probable class, and the first of several that are as probable.
        slack: How far apart two probabilities may be and still be equal.

    Returns:
        Shape (n,).
    """
    if threshold is not None:
        places: NDArray[np.intp] = (probabilities[:, 1] >= threshold - slack).astype(np.intp)
        return places
    if slack:
        return np.asarray(
            (probabilities >= probabilities.max(axis=1, keepdims=True) - slack).argmax(axis=1)
        )
    return np.asarray(probabilities.argmax(axis=1))


def read_manifest(models: Path) -> dict[str, Any]:
    """Read `manifest.json` of a models folder.

    Raises:
        ModelError: If it is missing or is no manifest.
    """
    path = models / MANIFEST
    try:
        manifest = load_json(path.read_text(encoding="utf-8"))
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
    folder = None
    if "user_code" in manifest and not manifest["served"].endswith(ONNX):
        # The pickle may name a class of the user's.
        root, package = models.resolve().parent, manifest["user_code"]["package"]
        make_importable(root, package)
        folder = package_folder(root, package)
    return predictor_of(content, manifest, features, folder)


def predictor_of(
    content: bytes, manifest: dict[str, Any], features: Features, folder: Path | None = None
) -> Predictor:
    """The model of a served file; arguments and errors are those of `SklearnPredictor`."""
    if manifest["served"].endswith(ONNX):
        return OnnxPredictor(content, manifest, features)
    return SklearnPredictor(content, manifest, features, folder)
