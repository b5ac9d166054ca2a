"""Where the trees of a model split: the same on both sides of an export, and rows to show it.

A tree asks `x <= threshold`. Every x is float32, as the matrix is; scikit-learn keeps thresholds in
float64 and ONNX in float32. A threshold that is rounded up lets one float32 number more through:
the rounded one itself. Rounded down, both answer the same for every float32 number.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from gitops_ml.features.encode import Features, Matrix
from gitops_ml.model.converters import round_boosters, round_down

SPLITS = 5_000
_BASE_ROWS = 2_000
# One split: the tensor that it looks at, the column of that tensor, the number that it is compared
# to, a row that comes to it, and the feature that the column comes from.
_SPLIT = np.dtype(
    [("input", "i8"), ("column", "i8"), ("threshold", "f4"), ("row", "i8"), ("feature", "i8")]
)
_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")


def evenly(size: int, most: int) -> NDArray[np.int64]:
    """Up to `most` evenly spaced places in a list of a size, with both of its ends."""
    return np.linspace(0, size - 1, min(size, most)).astype(np.int64)


def in_single_precision(pipeline: Pipeline) -> tuple[Pipeline, list[Any]]:
    """Copy a fitted pipeline, with thresholds that float32 holds and the same answers.

    The converter rounds the thresholds of scikit-learn's other trees down by itself; those of
    histogram gradient boosting and of LightGBM it rounds to the nearest.

    Returns:
        The copy, and all objects that it is made of, however deep inside another one.
    """
    copied: dict[int, Any] = {}
    result: Pipeline = copy.deepcopy(pipeline, copied)
    parts = list(copied.values())
    round_boosters(parts)
    for part in parts:
        if isinstance(part, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
            # One inside another may be the unfitted pattern of those that were fitted.
            for trees in getattr(part, "_predictors", ()):
                for tree in trees:
                    tree.nodes["num_threshold"] = round_down(tree.nodes["num_threshold"])
    return result, parts


@dataclass(frozen=True)
class _Trees:
    """The trees of one node of an ONNX graph, one entry per tree node.

    Attributes:
        feature: The column of the trees' own input that is compared.
        threshold: What it is compared to.
        splits: Whether it compares; False for a leaf.
        missing_left: Whether a missing value counts as below the threshold.
        left: The entry of the child for values up to the threshold; a leaf's is the leaf.
        right: The entry of the other child.
        roots: The entries that trees start with.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    splits: NDArray[np.bool_]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    roots: NDArray[np.int64]

    @classmethod
    def of(cls, node: Any) -> _Trees:
        found = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        tree = np.array(found["nodes_treeids"], dtype=np.int64)
        own = np.array(found["nodes_nodeids"], dtype=np.int64)
        # Converters of trees write `x <= threshold` or `x < threshold`: both border on the same
        # numbers.
        splits = np.array([mode != b"LEAF" for mode in found["nodes_modes"]])
        size = own.max() + 1
        order = np.argsort(tree * size + own)

        def entries(name: str) -> NDArray[np.int64]:
            child = tree * size + np.array(found[name], dtype=np.int64)
            places = order[np.searchsorted((tree * size + own)[order], child)]
            return np.where(splits, places, np.arange(len(own)))

        return cls(
            feature=np.array(found["nodes_featureids"], dtype=np.int64),
            threshold=np.array(found["nodes_values"], dtype=np.float32),
            splits=splits,
            missing_left=np.array(
                found.get("nodes_missing_value_tracks_true") or np.zeros(len(own)), dtype=bool
            ),
            left=entries("nodes_truenodeids"),
            right=entries("nodes_falsenodeids"),
            roots=np.unique(tree, return_index=True)[1],
        )

    def row_at_each(self, inputs: Matrix) -> NDArray[np.int64]:
        """For each entry the last row that comes to it, or -1.

        Args:
            inputs: Shape (n, columns of the trees' own input).
        """
        found = np.full(len(self.feature), -1)
        rows = np.arange(len(inputs))[:, None]
        at = np.broadcast_to(self.roots, (len(inputs), len(self.roots)))
        while True:
            found[at] = rows
            value = inputs[rows, self.feature[at]]
            left = (value <= self.threshold[at]) | (np.isnan(value) & self.missing_left[at])
            following = np.where(left, self.left[at], self.right[at])
            if np.array_equal(following, at):
                return found
            at = following

    def distinct_splits(self, inputs: Matrix) -> NDArray[np.void]:
        """Every column and threshold that splits compare, with a row that comes to such a split.

        Args:
            inputs: Shape (n, columns of the trees' own input).

        Returns:
            Entries of `_SPLIT`, sorted by column and threshold; their rows are places in the n
            rows, evenly spread where no row comes to the split.
        """
        row = self.row_at_each(inputs)
        wanted = np.flatnonzero(self.splits & np.isfinite(self.threshold))
        keys = (row[wanted] < 0, self.threshold[wanted], self.feature[wanted])
        wanted = wanted[np.lexsort(keys)]
        found = np.zeros(len(wanted), dtype=_SPLIT)
        found["column"], found["threshold"] = self.feature[wanted], self.threshold[wanted]
        found["row"] = np.where(row[wanted] < 0, np.arange(len(wanted)) % len(inputs), row[wanted])
        named = found[["column", "threshold"]]
        is_first = np.ones(len(found), dtype=bool)
        is_first[1:] = named[1:] != named[:-1]
        return found[is_first]


def split_rows(
    model: bytes, matrix: Matrix, features: Features, may_be_missing: Sequence[int] = ()
) -> Matrix:
    """Rows on both sides of every split on a number, that come to the split where any row does.

    A split is looked for in the matrix, in front of what scales or selects its columns.

    Args:
        model: An exported model.
        matrix: Shape (n, number of features).
        features: The columns of the matrix.
        may_be_missing: Places of features that can be missing.

    Returns:
        Four rows for each column and threshold, equal but for that column: the two float32
        numbers up to where the model splits, and the two that follow; then the same rows once
        more with that column missing, where it can be. For up to `SPLITS` of them, evenly chosen.
    """
    loaded = onnx.load_model_from_string(model)
    nodes = [node for node in loaded.graph.node if node.op_type in _TREES]
    base = matrix[evenly(len(matrix), _BASE_ROWS)]
    ends = _observed_ends(matrix, features)
    inputs = [_Input(loaded, name) for name in dict.fromkeys(node.input[0] for node in nodes)]
    found = [np.zeros(0, dtype=_SPLIT)]
    for place, prepare in enumerate(inputs):
        prepared = prepare(base)
        source = _sources(prepare, base[:: max(1, len(base) // 20)], ends)
        for node in (node for node in nodes if node.input[0] == prepare.name):
            splits = _Trees.of(node).distinct_splits(prepared)
            splits["input"] = place
            splits["feature"] = source[splits["column"]]
            found.append(splits[splits["feature"] >= 0])
    splits = np.concatenate(found)
    splits = splits[evenly(len(splits), SPLITS)]
    parts = [np.empty((0, matrix.shape[1]), dtype=np.float32)]
    for place, prepare in enumerate(inputs):
        own = splits[splits["input"] == place]
        parts.append(_beside(prepare, base[own["row"]], own, ends))
    return np.concatenate([*parts, _without(base, splits, may_be_missing)])


def _without(base: Matrix, splits: NDArray[np.void], places: Sequence[int]) -> Matrix:
    """The rows that come to splits, without the value that is compared there, if it can lack."""
    lacking = splits[np.isin(splits["feature"], places)]
    rows: Matrix = base[lacking["row"]]
    rows[np.arange(len(rows)), lacking["feature"]] = np.nan
    return rows


class _Input:
    """Computes what the trees see of a row."""

    def __init__(self, model: Any, name: str) -> None:
        self.name = name
        self._session = None
        if name != model.graph.input[0].name:
            part = select_model_inputs_outputs(model, outputs=[name])
            self._session = onnxruntime.InferenceSession(
                part.SerializeToString(), providers=["CPUExecutionProvider"]
            )

    def __call__(self, rows: Matrix) -> Matrix:
        if self._session is None:
            return rows
        (found,) = self._session.run(None, {"features": rows})
        return np.asarray(found, dtype=np.float32).reshape(len(rows), -1)


def _observed_ends(matrix: Matrix, features: Features) -> Matrix:
    """The smallest and the largest finite value of each feature, shape (2, number of features).

    NaN for a category, which has no values in between, and for a feature that does not vary.
    """
    found = np.full((2, matrix.shape[1]), np.nan, dtype=np.float32)
    for place, feature in enumerate(features.items):
        values = matrix[np.isfinite(matrix[:, place]), place]
        if feature.type != "category" and len(values) and values.min() < values.max():
            found[:, place] = values.min(), values.max()
    return found


def _sources(prepare: _Input, base: Matrix, ends: Matrix) -> NDArray[np.int64]:
    """The feature that each column of the trees' input comes from: the first that changes it.

    Returns:
        Shape (columns of the trees' input,); -1 where there is none.
    """
    found = np.full(prepare(base).shape[1], -1)
    for place in np.flatnonzero(np.isfinite(ends[0]))[::-1]:
        low, high = base.copy(), base.copy()
        low[:, place], high[:, place] = ends[:, place]
        same = np.isclose(prepare(low), prepare(high), rtol=0, atol=0, equal_nan=True)
        found[~same.all(axis=0)] = place
    return found


def _beside(prepare: _Input, rows: Matrix, splits: NDArray[np.void], ends: Matrix) -> Matrix:
    """Find, by halving, the neighbouring float32 numbers between which each split lies.

    Args:
        prepare: Computes what the trees see of a row.
        rows: Shape (number of splits, number of features).
        splits: Entries of `_SPLIT`, one for each row.
        ends: The values between which each feature varies, shape (2, number of features).

    Returns:
        Shape (4 * number of splits found, number of features).
    """
    if not len(rows):
        return rows
    every = np.arange(len(rows))

    def below(values: NDArray[np.float32]) -> NDArray[np.bool_]:
        varied = rows.copy()
        varied[every, splits["feature"]] = values
        result: NDArray[np.bool_] = prepare(varied)[every, splits["column"]] <= splits["threshold"]
        return result

    low, high = ends[:, splits["feature"]]
    at_low = below(low)
    crossed = at_low != below(high)
    first, last = _rank(low), _rank(high)
    while (last - first > 1).any():
        middle = (first + last) // 2
        same = below(_of_rank(middle)) == at_low
        first, last = np.where(same, middle, first), np.where(same, last, middle)
    parts = []
    for rank in (first - 1, first, last, last + 1):
        varied = rows.copy()
        varied[every, splits["feature"]] = _of_rank(rank)
        parts.append(varied[crossed])
    return np.concatenate(parts)


def _rank(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number the float32 numbers in their order, without gaps; 0 is 0."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _of_rank(ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """The float32 number of each rank."""
    sizes = np.abs(ranks).astype(np.int32).view(np.float32)
    return np.where(ranks < 0, -sizes, sizes)
