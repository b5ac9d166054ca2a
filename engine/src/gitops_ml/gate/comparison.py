"""Challenger against champion on the same rows: is the difference more than noise?

Both models answer the same rows, so their errors share most of the noise. The paired bootstrap
keeps that pairing: each resample draws rows with replacement and measures *both* models on the
draw; the spread of the differences is the uncertainty of the difference (Efron & Tibshirani, An
Introduction to the Bootstrap, 1993, chapters 8 and 13, percentile interval). Rows that belong
together, such as those of one hour, are drawn together (Davison & Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8).

Where a side is several models of one recipe, its metric is their mean, on each draw, too: the more
there are, the less does the luck of a seed weigh.

The challenger need not be better. It must not be worse by more than a margin: the one-sided lower
confidence bound of its advantage must not lie below -margin (non-inferiority; Wellek, Testing
Statistical Hypotheses of Equivalence and Noninferiority, 2010, chapter 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core.metric_catalogue import BUILT_IN
from gitops_ml.gate.verdict import Outcome
from gitops_ml.model.metrics import Scored, kind_of, measure, resample_weights
from gitops_ml.model.own_metrics import MetricError

RESAMPLES = 1000
SEED = 1993
# Share of the resamples in which the metric may not exist, such as ROC AUC without one of the
# classes; they are left out.
UNDEFINED_MAX = 0.05


@dataclass(frozen=True)
class Comparison:
    """A difference and its uncertainty, in the metric's own unit.

    Attributes:
        champion: The champion's metric on the compared rows, or the mean of its models.
        challenger: The challenger's metric on the compared rows, or the mean of its models.
        difference: Challenger minus champion.
        low: One-sided lower confidence bound of the difference.
        high: One-sided upper confidence bound of the difference.
        margin: How much worse the challenger may be.
        outcome: superior: better beyond doubt. non-inferior: not worse by more than the margin.
            inferior: worse by more than the margin beyond doubt. inconclusive: these rows cannot
            tell.
    """

    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome

    @property
    def passed(self) -> bool:
        """Whether the challenger was shown to be no worse than the margin allows."""
        return self.outcome in ("superior", "non-inferior")


def compare(
    metric: str,
    champion: Scored,
    challenger: Scored,
    *,
    margin: float,
    confidence: float,
    groups: NDArray[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compare two models by one metric; arguments and errors are those of `compare_means`."""
    return compare_means(
        metric,
        [champion],
        [challenger],
        margin=margin,
        confidence=confidence,
        groups=groups,
        resamples=resamples,
        seed=seed,
    )


def compare_means(
    metric: str,
    champion: Sequence[Scored],
    challenger: Sequence[Scored],
    *,
    margin: float,
    confidence: float,
    groups: NDArray[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compare the means of two sides by one metric; the same arguments give the same answer.

    Args:
        metric: A built-in metric, or one of the project's own.
        champion: One or several models of one recipe: for each, n rows with its answers.
        challenger: The same for the other side, on the same rows, in the same order.
        margin: How much worse the challenger may be, in the metric's unit; 0 or more.
        confidence: Of each one-sided bound, e.g. 0.95.
        groups: Shape (n,), a label for each row; rows with the same label are drawn together.
            None draws rows one by one.
        resamples: Number of bootstrap resamples.
        seed: Of the draws.

    Raises:
        MetricError: If the metric does not exist on these rows or on too many resamples.
        MetricError: If it needs probabilities and one of the models has none.
    """
    rows = len(champion[0])
    values = [float(_mean(metric, side)[0]) for side in (champion, challenger)]
    if not np.isfinite(values).all():
        raise MetricError(f"{metric} does not exist on these {rows} rows")
    differences = np.concatenate(
        [
            _mean(metric, challenger, weights) - _mean(metric, champion, weights)
            for weights in resample_weights(rows, resamples, seed, groups)
        ]
    )
    defined = differences[np.isfinite(differences)]
    if len(defined) < (1 - UNDEFINED_MAX) * resamples:
        raise MetricError(
            f"{metric} does not exist in {resamples - len(defined)} of {resamples} resamples of "
            f"these {rows} rows: some class has too few"
        )
    if metric not in BUILT_IN and values[0] != values[1] and np.ptp(defined) == 0:
        raise MetricError(
            f"{metric} differs by the same number in each of {resamples} resamples, so nobody can "
            "tell a difference from noise; weigh each row by `weights`"
        )
    low, high = (float(bound) for bound in np.quantile(defined, [1 - confidence, confidence]))
    return Comparison(
        champion=values[0],
        challenger=values[1],
        difference=values[1] - values[0],
        low=low,
        high=high,
        margin=margin,
        outcome=_outcome(low, high, kind_of(metric).direction, margin),
    )


def _mean(
    metric: str, side: Sequence[Scored], weights: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """The mean metric of some models, by each draw of the rows."""
    return np.asarray(np.mean([measure(metric, one, weights) for one in side], axis=0))


def _outcome(low: float, high: float, direction: int, margin: float) -> Outcome:
    worst, best = (low, high) if direction > 0 else (-high, -low)
    if worst > 0:
        return "superior"
    if worst >= -margin:
        return "non-inferior"
    return "inferior" if best < -margin else "inconclusive"
