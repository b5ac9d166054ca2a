"""What the model has learnt, and that it is served as it was trained: `make test-model`.

How far it may go stands in `contract.yaml` under `behaviour`.
"""

from gitops_ml.checks.model import ModelChecks


class TestModel(ModelChecks):
    """Minimum, invariance, direction, slices, learning, determinism."""
