"""Metrics of your own: terms of contract.yaml and params.yaml like any other.

docs/your-code.md says what a metric takes and returns.
"""

from __future__ import annotations

import numpy as np
from gitops_ml.model import metric
from numpy.typing import NDArray

# What a delay that nobody was warned of costs, beside a warning for nothing or a minute too many.
MISSED = 3.0


@metric(better="smaller", task="classification")
def warning_cost(
    truth: NDArray[np.int64], prediction: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean cost per flight of warnings for nothing (1) and of late flights without one (3)."""
    cost = MISSED * (truth > prediction) + (prediction > truth)
    return np.asarray(weights @ cost / weights.sum(axis=-1))


@metric(better="smaller", task="regression")
def waiting_cost(
    truth: NDArray[np.float64], prediction: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean cost per flight in minutes: those that it is later than predicted count three times."""
    later = truth - prediction
    cost = np.where(later > 0, MISSED * later, -later)
    return np.asarray(weights @ cost / weights.sum(axis=-1))
