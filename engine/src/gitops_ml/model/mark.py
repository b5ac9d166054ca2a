"""The mark of a metric of one's own; needs nothing, so that importing it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gitops_ml.core.metric_catalogue import Better, MetricKind, MetricTask, Of

ATTRIBUTE = "_gitops_ml_metric"

F = TypeVar("F", bound=Callable[..., Any])


def metric(
    *, better: Better, of: Of = "prediction", task: MetricTask | None = None
) -> Callable[[F], F]:
    """Make a function of `src/<package>/metrics.py` a metric, called as the function.

    The function takes three arrays and returns one number:

    - truth, shape (n,): what happened. Numbers for regression; for classification places in the
      sorted list of classes, so 0 for false and 1 for true.
    - prediction, shape (n,), as the truth; or with `of="probability"` that of the second class,
      shape (n,), or of each class, shape (n, classes), where there are more than two.
    - weights, shape (n,): how much each row counts. If it takes shape (m, n) as well and then
      returns m numbers, it is measured faster: `weights @ cost / weights.sum(axis=-1)` does.

    Args:
        better: "smaller" or "larger".
        of: "prediction" or "probability".
        task: "classification" or "regression", if it makes sense for one of them only.
    """

    def mark(function: F) -> F:
        setattr(function, ATTRIBUTE, MetricKind(better, of, task))
        return function

    return mark
