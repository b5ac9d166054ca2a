"""The fitted pipeline as ONNX, which loads without running code and answers single rows fast.

An exported model takes one input, `features` of shape (n, number of features) in float32, and
gives one output:

- `probabilities`, shape (n, number of classes): a classifier that has them
- `labels`, shape (n,): the places of the classes, from a classifier that has no probabilities
- `values`, shape (n,) or (n, 1): regression

It is kept only where it gives the answers that scikit-learn gives.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from gitops_ml.features.encode import UNSEEN, Features, Matrix
from gitops_ml.model.converters import operator_sets
from gitops_ml.model.predictor import SLACK, chosen
from gitops_ml.model.threshold import probability_model
from gitops_ml.model.thresholds import evenly, in_single_precision, split_rows

# It warns of what converters leave behind and it removes.
onnxruntime.set_default_logger_severity(3)

TOLERANCE = 1e-5
PARITY_ROWS = 10_000
_PROBES = 20

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Export:
    """An ONNX model, or the reason why there is none.

    Attributes:
        model: The serialised model; None if it could not be made or answers differently.
        parity: `{"max_difference": …, "rows": …}` or `{"reason": …}`.
    """

    model: bytes | None
    parity: dict[str, Any]


def export_onnx(
    pipeline: Pipeline,
    task: str,
    matrix: Matrix,
    may_be_missing: Sequence[int],
    features: Features,
    ranges: Sequence[Range] = (),
    threshold: float | None = None,
) -> Export:
    """Convert a fitted pipeline, and compare the answers of both.

    Args:
        pipeline: Fitted on the matrix.
        task: classification or regression.
        matrix: Shape (n, number of features); up to `PARITY_ROWS` evenly spaced rows are compared.
        may_be_missing: Places of features that can be missing; each is compared missing as well.
        features: The columns of the matrix.
        ranges: The smallest and the largest value that each feature may have, where it is known.
        threshold: From which probability on the second of two classes is the answer; None for the
            most probable class.
    """
    try:
        model = convert(pipeline, task, len(features.items))
    except Exception as error:
        # Converters fail in their own many ways; the joblib file is served then.
        first_line = next(iter(str(error).strip().splitlines()), "")
        return Export(None, {"reason": f"it cannot be converted to ONNX: {first_line[:200]}"})
    observed = spaced_rows(matrix)
    try:
        rows = np.concatenate(
            [
                observed,
                missing_rows(matrix, may_be_missing, features),
                end_rows(matrix, features, ranges),
                split_rows(model, matrix, features, may_be_missing),
            ]
        )
        difference = largest_difference(pipeline, task, model, rows, len(observed), threshold)
    except Exception as error:
        return Export(None, {"reason": f"ONNX Runtime cannot run it: {str(error)[:200]}"})
    if np.isinf(difference):
        reason = "ONNX gives some rows another class, or no finite number"
        return Export(None, {"reason": reason})
    if not difference <= TOLERANCE:
        reason = f"ONNX answers differ by {difference:.1e}, more than {TOLERANCE:.0e}"
        return Export(None, {"reason": reason})
    return Export(model, {"max_difference": difference, "rows": len(rows)})


def convert(pipeline: Pipeline, task: str, width: int) -> bytes:
    """Convert a fitted pipeline to a model with the input and the output described above.

    Raises:
        Exception: Whatever the converter raises for what it does not know.
    """
    pipeline, parts = in_single_precision(probability_model(pipeline))
    for part in parts:
        if isinstance(part, OneVsRestClassifier):
            _refuse_certainty(part)
    wanted = _wanted_output(pipeline, task)
    with_probabilities = wanted == "probabilities"
    # Divided by the scale, as scikit-learn does, and not multiplied by one over it.
    options: dict[Any, dict[str, Any]] = {StandardScaler: {"div": "div"}}
    if with_probabilities:
        options[id(pipeline)] = {"zipmap": False}
    with warnings.catch_warnings(), _quiet("skl2onnx"):
        warnings.simplefilter("ignore")
        model = to_onnx(
            pipeline,
            initial_types=[("features", FloatTensorType([None, width]))],
            name="model",
            options=options,
            target_opset=operator_sets(parts),
        )
        # A classifier gives its labels first and its probabilities second.
        name = model.graph.output[1 if with_probabilities else 0].name
        model = select_model_inputs_outputs(model, outputs=[name])
    _rename(model.graph, name, wanted)
    # The converter lists the operator sets in the order of a Python set, which changes from
    # process to process.
    imported = sorted(model.opset_import, key=lambda one: str(one.domain))
    del model.opset_import[:]
    model.opset_import.extend(imported)
    return bytes(model.SerializeToString(deterministic=True))


def _refuse_certainty(one_for_each: OneVsRestClassifier) -> None:
    """Refuse models that can all be certain that a row is not of their class.

    The converter divides by the sum of what they say, which is 0 then. No table needs to hold such
    a row. Models that decide by a continuous score are never that certain.
    """
    models = getattr(one_for_each, "estimators_", ())
    if len(models) > 1 and not all(hasattr(model, "decision_function") for model in models):
        raise ValueError("OneVsRestClassifier: its parts can all be certain of another class")


def _wanted_output(pipeline: Pipeline, task: str) -> str:
    if task == "regression":
        return "values"
    return "probabilities" if hasattr(pipeline, "predict_proba") else "labels"


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for output in graph.output:
        if output.name == old:
            output.name = new


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger for the length of a block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def spaced_rows(matrix: Matrix) -> Matrix:
    """Up to `PARITY_ROWS` evenly spaced rows."""
    rows: Matrix = matrix[evenly(len(matrix), PARITY_ROWS)]
    return rows


def missing_rows(matrix: Matrix, may_be_missing: Sequence[int], features: Features) -> Matrix:
    """The first few rows with each feature missing that can be, and with all of them at once.

    Args:
        matrix: Shape (n, number of features).
        may_be_missing: Places of features that can be missing in rows to come.
        features: The columns of the matrix.
    """
    parts = []
    missing = {
        place: UNSEEN if features.items[place].type == "category" else np.nan
        for place in may_be_missing
    }
    for places in [*([place] for place in missing), list(missing)]:
        probes = matrix[:_PROBES].copy()
        for place in places:
            probes[:, place] = missing[place]
        parts.append(probes)
    return np.concatenate(parts)


def end_rows(matrix: Matrix, features: Features, ranges: Sequence[Range]) -> Matrix:
    """Rows that hold what a feature can at most and at least be, and each of its categories.

    Args:
        matrix: Shape (n, number of features).
        features: The columns of the matrix.
        ranges: As of `export_onnx`; what occurs in the matrix counts as well.

    Returns:
        One row for each such value, equal but for that value to one of evenly spaced rows.
    """
    values: list[tuple[int, float]] = []
    for place, feature in enumerate(features.items):
        if feature.type == "category":
            found = {float(code) for code in range(len(feature.categories))}
        else:
            known = matrix[np.isfinite(matrix[:, place]), place]
            allowed = ranges[place] if ranges else ()
            found = {float(np.float32(end)) for end in allowed if end is not None}
            found |= {float(known.min()), float(known.max())} if len(known) else set()
        values += [(place, value) for value in sorted(found)]
    rows: Matrix = matrix[np.linspace(0, len(matrix) - 1, len(values)).astype(int)]
    for row, (place, value) in zip(rows, values, strict=True):
        row[place] = value
    return rows


def largest_difference(
    pipeline: Pipeline,
    task: str,
    model: bytes,
    matrix: Matrix,
    observed: int | None = None,
    threshold: float | None = None,
) -> float:
    """How far ONNX Runtime is from scikit-learn on the same rows.

    Args:
        pipeline: Fitted.
        task: classification or regression.
        model: The exported model.
        matrix: Shape (n, number of features).
        observed: How many of the first rows are real, and say what is usual; None if all are.
        threshold: As of `export_onnx`.

    Returns:
        The largest difference of a probability, or of a number relative to its size or to the
        standard deviation of the usual numbers, whichever is larger; infinite when a classifier
        answers with another class all the same, or when an answer is not finite.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": matrix})
    output = session.get_outputs()[0].name
    if output == "labels":
        return 0.0 if np.array_equal(found.ravel(), pipeline.predict(matrix)) else np.inf
    answer = pipeline.predict_proba if output == "probabilities" else pipeline.predict
    expected = np.asarray(answer(matrix), dtype=np.float64)
    difference = np.abs(found.reshape(expected.shape) - expected)
    if task == "regression":
        difference /= np.maximum(np.abs(expected), expected[:observed].std() or 1.0)
    largest = float(np.nan_to_num(difference, nan=np.inf).max())
    if output == "probabilities" and largest <= TOLERANCE:
        same = chosen(found, threshold, SLACK) == chosen(expected, threshold)
        return largest if same.all() else np.inf
    return largest
