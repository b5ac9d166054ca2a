"""The gate, packaging and smoke tests; no stage and no service imports this package."""
