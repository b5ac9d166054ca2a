"""Train, export, predict, evaluate. `metric` marks a metric of one's own in `metrics.py`."""

from gitops_ml.model.mark import metric

__all__ = ["metric"]
