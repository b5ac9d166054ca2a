"""Metrics of your own, for params.yaml and contract.yaml to name; docs/your-code.md shows how."""

import numpy as np
from gitops_ml.model import metric
from numpy.typing import NDArray

MISSED = 3.0  # what a delay without a warning costs, beside a warning for nothing


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
