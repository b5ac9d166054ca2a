"""Metrics with intervals: each metric is a function of weighted rows, so that the bootstrap can
measure hundreds of resamples in one go.

The values equal scikit-learn's for the same sample weights. A resample of the rows is a vector of
counts, how often each row was drawn; the interval is the percentile interval of Efron and
Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core.metric_catalogue import BUILT_IN, MetricKind
from gitops_ml.model.own_metrics import Answers, MetricError, own_metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Probabilities are float32 where they are served; log loss takes none that is closer to 0 or 1.
_SMALLEST = float(np.finfo(np.float32).eps)
# Numbers held at once by a block of resamples: 2 MB, which a processor's cache holds.
_BLOCK = 250_000
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
_WITH_REASON = ("value", "low", "high", "reason")


@dataclass(frozen=True)
class Scored:
    """Rows with what happened and what the model said.

    Attributes:
        truth: Shape (n,): places in the list of classes, or numbers for regression.
        prediction: Shape (n,), as `truth`.
        probability: Shape (n, number of classes); None for regression and for classifiers that
            have none.
        classes: The number of classes; 0 for regression.
    """

    truth: Ints | Floats
    prediction: Ints | Floats
    probability: Floats | None = None
    classes: int = 0

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.truth)

    def take(self, rows: NDArray[np.bool_] | Ints) -> Scored:
        """Some of the rows, by mask or by place."""
        probability = None if self.probability is None else self.probability[rows]
        return Scored(self.truth[rows], self.prediction[rows], probability, self.classes)


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None

    def as_json(self) -> dict[str, float | str | None]:
        """The estimate as a JSON object, with the reason only where there is one."""
        names = ("value", "low", "high") if self.reason is None else _WITH_REASON
        return {name: getattr(self, name) for name in names}


def kind_of(name: str) -> MetricKind:
    """What is better of a built-in metric or of one of the project's own.

    Raises:
        MetricError: If there is no such metric.
        UserCodeError: If the project's own metrics cannot be imported.
    """
    return BUILT_IN[name] if name in BUILT_IN else own_metric(name).kind


def measure(name: str, scored: Scored, weights: Floats | None = None) -> Floats:
    """Compute one metric for each vector of row weights.

    Args:
        name: A built-in metric, or one of the project in the current folder.
        scored: n rows.
        weights: Shape (m, n), non-negative; None counts every row once.

    Returns:
        Shape (m,), or (1,) without weights; NaN where the metric is undefined, such as the area
        under the ROC curve of rows that are all of one class.

    Raises:
        MetricError: If there is no such metric, it needs probabilities and the model has none, or
            it is the project's own and fails.
        UserCodeError: If the project's own metrics cannot be imported.
    """
    if kind_of(name).of == "probability" and scored.probability is None:
        raise MetricError(
            f"{name} needs probabilities, and the model gives none; "
            "choose another metric or an estimator with predict_proba"
        )
    if weights is None:
        weights = np.ones((1, len(scored)))
    if name not in BUILT_IN:
        return own_metric(name).measure(_answers(name, scored), weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _METRICS[name](scored, weights)


def _answers(name: str, scored: Scored) -> Answers:
    """What a function of the project's own is called with, beside the weights."""
    if kind_of(name).of == "prediction":
        return scored.truth, scored.prediction
    probability = _probability(scored)
    return scored.truth, probability[:, 1] if scored.classes == 2 else probability


def why_undefined(name: str, scored: Scored) -> str:
    """Why a metric is no number on some rows."""
    if name not in BUILT_IN:
        return f"{own_metric(name).where} gave no finite number for {len(scored)} rows"
    if scored.classes:
        found = len(np.unique(scored.truth))
        return f"{found} of {scored.classes} classes in {len(scored)} rows"
    return f"no spread in {len(scored)} rows"


def _mean(losses: Floats, weights: Floats) -> Floats:
    return np.asarray(weights @ losses / weights.sum(axis=1))


def _accuracy(scored: Scored, weights: Floats) -> Floats:
    return _mean((scored.truth == scored.prediction).astype(np.float64), weights)


def _confusion(scored: Scored, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Weight of hits, of true rows and of predicted rows per class; each of shape (m, classes)."""
    hit = scored.truth == scored.prediction
    truth = _one_hot(scored.truth, scored.classes)
    prediction = _one_hot(scored.prediction, scored.classes)
    return weights @ (truth * hit[:, None]), weights @ truth, weights @ prediction


def _one_hot(places: Ints | Floats, classes: int) -> Floats:
    return np.asarray(places[:, None] == np.arange(classes), dtype=np.float64)


def _balanced_accuracy(scored: Scored, weights: Floats) -> Floats:
    """The mean recall of the classes that occur."""
    hits, truth, _ = _confusion(scored, weights)
    return _mean_where(hits / truth, truth > 0)


def _f1_macro(scored: Scored, weights: Floats) -> Floats:
    """The mean F1 of the classes that occur or were predicted."""
    hits, truth, prediction = _confusion(scored, weights)
    return _mean_where(2 * hits / (truth + prediction), truth + prediction > 0)


def _mean_where(values: Floats, defined: NDArray[np.bool_]) -> Floats:
    return np.asarray(np.where(defined, values, 0.0).sum(axis=1) / defined.sum(axis=1))


def _log_loss(scored: Scored, weights: Floats) -> Floats:
    probability = np.clip(_probability(scored), _SMALLEST, 1 - _SMALLEST)
    chosen = probability[np.arange(len(scored)), scored.truth.astype(np.int64)]
    return _mean(-np.log(chosen / probability.sum(axis=1)), weights)


def _brier(scored: Scored, weights: Floats) -> Floats:
    """The squared error of the second class's probability; summed over all classes if many."""
    error = _probability(scored) - _one_hot(scored.truth, scored.classes)
    if scored.classes == 2:
        return _mean(error[:, 1] ** 2, weights)
    return _mean((error**2).sum(axis=1), weights)


def _probability(scored: Scored) -> Floats:
    if scored.probability is None:
        raise MetricError("the model gives no probabilities")
    return scored.probability.astype(np.float64)


def _ranking(
    curve: Callable[[Floats, NDArray[np.bool_], Floats], Floats],
) -> Callable[[Scored, Floats], Floats]:
    """A metric of two classes: the second against the first; the mean of each against the rest."""

    def metric(scored: Scored, weights: Floats) -> Floats:
        probability = _probability(scored)
        places = [1] if scored.classes == 2 else range(scored.classes)
        values = [curve(probability[:, place], scored.truth == place, weights) for place in places]
        return np.asarray(np.mean(values, axis=0))

    return metric


def _area_under_roc(score: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """The share of pairs of a positive and a negative row that are in order; ties count half."""
    others = np.flatnonzero(~positive)
    others = others[np.argsort(score[others], kind="stable")]
    lower = _reached(weights[:, others])
    first, last = (np.searchsorted(score[others], score[positive], side) for side in _SIDES)
    below = lower[:, first]
    below += lower[:, last]
    hits = weights[:, positive]
    pairs = np.einsum("mk,mk->m", hits, below) / 2
    return np.asarray(pairs / (hits.sum(axis=1) * lower[:, -1]))


def _average_precision(score: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """The mean precision at each gain in recall, without interpolation."""
    order = np.argsort(-score, kind="stable")
    at_or_above = np.searchsorted(-score[order], -score[positive], "right")
    total = _reached(weights[:, order])[:, at_or_above]
    found = np.flatnonzero(positive)
    found = found[np.argsort(-score[found], kind="stable")]
    reached = _reached(weights[:, found])
    hits = reached[:, np.searchsorted(-score[found], -score[positive], "right")]
    precision = np.divide(hits, total, out=total, where=total > 0)
    gains = np.einsum("mk,mk->m", weights[:, positive], precision)
    return np.asarray(gains / reached[:, -1])


def _reached(weights: Floats) -> Floats:
    """The weight of the first rows, for any number of them: (m, n) gives (m, n + 1)."""
    reached = np.empty((len(weights), weights.shape[1] + 1))
    reached[:, 0] = 0
    np.cumsum(weights, axis=1, out=reached[:, 1:])
    return reached


def _errors(scored: Scored) -> Floats:
    return np.asarray(scored.truth - scored.prediction, dtype=np.float64)


def _r2(scored: Scored, weights: Floats) -> Floats:
    # Around the plain mean, so that the squares below do not cancel.
    truth = scored.truth - scored.truth.mean()
    total = weights.sum(axis=1)
    spread = weights @ truth**2 - (weights @ truth) ** 2 / total
    left = weights @ _errors(scored) ** 2
    return np.asarray(np.where(spread > 0, 1 - left / spread, np.nan))


def _mae(scored: Scored, weights: Floats) -> Floats:
    return _mean(np.abs(_errors(scored)), weights)


def _rmse(scored: Scored, weights: Floats) -> Floats:
    return np.sqrt(_mean(_errors(scored) ** 2, weights))


def _median_absolute_error(scored: Scored, weights: Floats) -> Floats:
    """The middle error, or the mean of the two in the middle."""
    errors = np.abs(_errors(scored))
    order = np.argsort(errors, kind="stable")
    errors = errors[order]
    reached = np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    lower = errors[(reached >= half).argmax(axis=1)]
    upper = errors[(reached > half).argmax(axis=1)]
    return np.asarray((lower + upper) / 2)


_METRICS: Mapping[str, Callable[[Scored, Floats], Floats]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "roc_auc": _ranking(_area_under_roc),
    "average_precision": _ranking(_average_precision),
    "log_loss": _log_loss,
    "brier": _brier,
    "r2": _r2,
    "mae": _mae,
    "rmse": _rmse,
    "median_absolute_error": _median_absolute_error,
}


def resample_counts(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn in each bootstrap resample, in blocks that fit in memory.

    The same arguments give the same counts, so two models that are measured with them are
    compared on the same resamples.

    Yields:
        Shape (b, rows); the b of all blocks add up to `resamples`.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(rows, 1))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows)
        yield counts.reshape(size, rows).astype(np.float64)


def resample_weights(
    rows: int, resamples: int, seed: int, groups: NDArray[Any] | None = None
) -> Iterator[Floats]:
    """As `resample_counts`, but rows of one group are drawn together.

    Rows that share their circumstances say less than as many independent ones; drawing whole
    groups keeps that in the interval (Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8).

    Args:
        groups: Shape (rows,), a label for each row; None draws rows one by one.

    Yields:
        Shape (b, rows); the b of all blocks add up to `resamples`.
    """
    if groups is None:
        yield from resample_counts(rows, resamples, seed)
        return
    names, label = np.unique(groups, return_inverse=True)
    for counts in resample_counts(len(names), resamples, seed):
        for part in np.array_split(counts, -(-len(counts) * rows // _BLOCK)):
            yield part[:, label]


def estimate(
    names: Sequence[str],
    scored: Scored,
    confidence: float,
    resamples: int,
    seed: int,
    groups: NDArray[Any] | None = None,
) -> dict[str, Estimate]:
    """Measure several metrics, each with its bootstrap interval, on the same resamples.

    Args:
        names: Built-in metrics, or the project's own.
        scored: n rows, n > 0.
        confidence: The share of resamples that lie inside the two-sided interval.
        resamples: How many to draw.
        seed: Of the draw.
        groups: Shape (n,), a label for each row; rows of one group are drawn together.

    Returns:
        For each name its estimate, undefined with a reason where the rows do not allow one.

    Raises:
        MetricError: If a metric needs probabilities and the model has none.
    """
    values = {name: float(measure(name, scored)[0]) for name in names}
    drawn: dict[str, list[Floats]] = {name: [] for name in names if np.isfinite(values[name])}
    if drawn:
        for weights in resample_weights(len(scored), resamples, seed, groups):
            for name, parts in drawn.items():
                parts.append(measure(name, scored, weights))
    return {
        name: _interval(values[name], np.concatenate(drawn[name]), confidence)
        if name in drawn
        else Estimate(None, None, None, why_undefined(name, scored))
        for name in names
    }


def _interval(value: float, drawn: Floats, confidence: float) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < len(drawn) / 2:
        return Estimate(value, None, None, "most resamples hold too few classes for an interval")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def calibration_error(scored: Scored, bins: int = 10) -> float:
    """Expected calibration error: how far stated probabilities are from what happens.

    The rows are cut into bins of equal size by the probability of the second class (with many
    classes: of the predicted one); the error is the mean over the rows of the absolute gap between
    a bin's mean probability and its share of hits. Naeini, Cooper and Hauskrecht (2015), with
    equal-mass bins as in Nixon et al. (2019).

    Raises:
        MetricError: If the model has no probabilities.
    """
    stated, happened = stated_and_happened(scored)
    return _binned_gap(stated, happened[None, :].astype(np.float64), bins).item()


def calibration_error_by_chance(
    scored: Scored, confidence: float, seed: int, draws: int = 200, bins: int = 10
) -> float:
    """The calibration error that a perfectly calibrated model would stay below.

    Few rows give a large error even where every probability is right. Outcomes are drawn from the
    stated probabilities, and the quantile of the resulting errors is returned; Vaicenavicius et
    al. (2019) call this a consistency resampling.

    Raises:
        MetricError: If the model has no probabilities.
    """
    stated, _ = stated_and_happened(scored)
    generator = np.random.default_rng(seed)
    happened = (generator.random((draws, len(stated))) < stated).astype(np.float64)
    return float(np.quantile(_binned_gap(stated, happened, bins), confidence))


def stated_and_happened(scored: Scored) -> tuple[Floats, NDArray[np.bool_]]:
    """The probability that calibration is about, and whether it came true; shapes (n,).

    Raises:
        MetricError: If the model has no probabilities.
    """
    probability = _probability(scored)
    if scored.classes == 2:
        return probability[:, 1], scored.truth == 1
    return probability.max(axis=1), scored.truth == probability.argmax(axis=1)


def equal_bins(values: Floats, bins: int) -> list[Ints]:
    """Places of the values, sorted and cut into at most `bins` parts of equal size."""
    order = np.argsort(values, kind="stable")
    return [part for part in np.array_split(order, bins) if len(part)]


def _binned_gap(stated: Floats, happened: Floats, bins: int) -> Floats:
    """Shape (m,) for outcomes of shape (m, n)."""
    gaps = [
        np.abs(happened[:, part].mean(axis=1) - stated[part].mean()) * len(part)
        for part in equal_bins(stated, bins)
    ]
    return np.asarray(np.sum(gaps, axis=0) / len(stated))
