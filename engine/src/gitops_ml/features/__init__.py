"""From a row to the numbers that the model sees."""

from gitops_ml.features.derive import derived

__all__ = ["derived"]
