"""Fixtures for all tests; put your own here, or one in the place of the engine's by its name."""

# The settings (`params`, `schema`, `contract`) and what the pipeline made (`train_rows`, ...).
pytest_plugins = ["gitops_ml.checks.fixtures"]
