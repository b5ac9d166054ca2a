"""The service of this working tree, started for these tests: `make test-model`."""

from gitops_ml.checks.service import ServiceChecks


class TestService(ServiceChecks):
    """It answers as the model does, and refuses what does not fit `schema.yaml`."""
