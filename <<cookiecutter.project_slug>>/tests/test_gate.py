"""Would `contract.yaml` block a model that guesses, and let this one pass? `make test-model`."""

from gitops_ml.checks.gate import GateChecks


class TestGate(GateChecks):
    """Every term of the contract can be measured, and every bound blocks."""
