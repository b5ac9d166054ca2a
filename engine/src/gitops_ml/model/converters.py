"""LightGBM and XGBoost to ONNX, in projects that have added them and onnxmltools.

skl2onnx converts a pipeline of any kind as soon as it knows a converter for each of its parts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

_CLASSIFIER_OPTIONS = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
_THRESHOLDS = re.compile(r"^threshold=(.+)$", re.MULTILINE)
# How many bytes each tree takes; without it LightGBM looks for the trees.
_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


# The newest operators that these converters write.
_OPERATOR_SETS = {"": 15, "ai.onnx.ml": 3}


def operator_sets(parts: Iterable[Any]) -> dict[str, int] | None:
    """Make skl2onnx know the parts of a pipeline; gives the operators to convert it with.

    Args:
        parts: The pipeline's objects, however deep inside.

    Returns:
        None for scikit-learn's own, which take the newest.
    """
    modules = {type(part).__module__.partition(".")[0] for part in parts}
    libraries = modules & {"lightgbm", "xgboost"}
    _register(libraries)
    return _OPERATOR_SETS if libraries else None


def _register(libraries: Iterable[str]) -> None:
    for library in libraries:
        try:
            if library == "lightgbm":
                from lightgbm import LGBMClassifier as Classifier
                from lightgbm import LGBMRegressor as Regressor
                from onnxmltools.convert.lightgbm.operator_converters.LightGbm import (
                    convert_lightgbm as convert,
                )
            else:
                from onnxmltools.convert.xgboost.operator_converters.XGBoost import (
                    convert_xgboost as convert,
                )
                from xgboost import XGBClassifier as Classifier
                from xgboost import XGBRegressor as Regressor
        except ImportError:
            continue
        for kind, shapes, options in (
            (Classifier, calculate_linear_classifier_output_shapes, _CLASSIFIER_OPTIONS),
            (Regressor, calculate_linear_regressor_output_shapes, None),
        ):
            update_registered_converter(
                kind, f"GitopsMl{kind.__name__}", shapes, convert, options=options, overwrite=True
            )


def round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """For each number the largest float32 number that is not above it."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest)


def round_boosters(parts: Iterable[Any]) -> None:
    """Round the thresholds of LightGBM's trees down to float32, in place.

    It keeps them in float64; for float32 numbers both answer the same.
    """
    lightgbm = sys.modules.get("lightgbm")
    if lightgbm is None:
        return
    for part in parts:
        if isinstance(part, lightgbm.LGBMModel) and part.__sklearn_is_fitted__():
            text = _SIZES.sub("", part.booster_.model_to_string(num_iteration=-1))
            part._Booster = lightgbm.Booster(model_str=_THRESHOLDS.sub(_rounded, text))


def _rounded(line: re.Match[str]) -> str:
    numbers: NDArray[np.float64] = np.array(line[1].split(), dtype=np.float64)
    return f"threshold={' '.join(repr(float(one)) for one in round_down(numbers))}"
