"""The gate, packaging and smoke tests; nothing imports this package."""
