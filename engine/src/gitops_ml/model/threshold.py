"""From which probability on the second of two classes is the answer: a setting, or learnt.

The model answers with probabilities, and whoever asks it applies the threshold that is recorded
beside it: so the service, the metrics and the gate answer alike, from ONNX and from joblib.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError

_WRAPPERS = (
    BaseSearchCV,
    CalibratedClassifierCV,
    FixedThresholdClassifier,
    TunedThresholdClassifierCV,
)
_KEY = f"{paths.PARAMS}: train.threshold"


def threshold_of(asked: float | None, pipeline: Pipeline, classes: int) -> float | None:
    """The threshold of a fitted classifier.

    Args:
        asked: `train.threshold`; None if it is not set.
        pipeline: Fitted.
        classes: How many there are; 0 for regression.

    Returns:
        None where the most probable class is the answer.

    Raises:
        SettingsError: If it is set and learnt, or there are no two classes with probabilities.
    """
    learnt = _learnt(final_estimator(pipeline), hasattr(pipeline, "predict_proba"))
    if asked is None or not classes:
        return learnt
    if learnt is not None:
        raise SettingsError(f"{_KEY}: is {asked:g}, but the estimator brings its own: remove one")
    if classes != 2:
        raise SettingsError(f"{_KEY}: is for two classes, and the target has {classes}; remove it")
    if not hasattr(pipeline, "predict_proba"):
        raise SettingsError(
            f"{_KEY}: the estimator gives no probabilities; remove it, or choose an estimator with "
            "predict_proba"
        )
    return asked


def final_estimator(estimator: Any) -> BaseEstimator:
    """What gives the answers: the last step of a pipeline, the best one of a search."""
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif isinstance(estimator, BaseSearchCV):
            estimator = estimator.best_estimator_
        else:
            return estimator


def probability_model(estimator: Any) -> Any:
    """The fitted part of a classifier that gives the probabilities, without thresholds or searches.

    A converter need not know those, since the threshold is applied to its answers.
    """
    if isinstance(estimator, Pipeline):
        *before, (name, last) = estimator.steps
        return Pipeline([*before, (name, probability_model(last))])
    if isinstance(estimator, BaseSearchCV):
        return probability_model(estimator.best_estimator_)
    thresholds = TunedThresholdClassifierCV | FixedThresholdClassifier
    if isinstance(estimator, thresholds) and hasattr(estimator, "predict_proba"):
        return probability_model(estimator.estimator_)
    return estimator


def takes_missing(estimator: BaseEstimator) -> bool:
    """Whether an unfitted estimator takes missing values; what only wraps one does if that does."""
    if get_tags(estimator).input_tags.allow_nan:
        return True
    return isinstance(estimator, _WRAPPERS) and takes_missing(estimator.estimator)


def _learnt(estimator: BaseEstimator, has_probabilities: bool) -> float | None:
    if not isinstance(estimator, TunedThresholdClassifierCV | FixedThresholdClassifier):
        return None
    if not has_probabilities:
        return None
    tuned = isinstance(estimator, TunedThresholdClassifierCV)
    positive = estimator._curve_scorer._get_pos_label() if tuned else estimator.pos_label
    if estimator.response_method == "decision_function" or positive not in (None, 1):
        raise SettingsError(
            f"{paths.PARAMS}: train: {type(estimator).__name__}: its threshold must be one of the "
            "probability of the second class: response_method `predict_proba`, and no pos_label"
        )
    if tuned:
        return float(estimator.best_threshold_)
    return 0.5 if estimator.threshold == "auto" else float(estimator.threshold)
