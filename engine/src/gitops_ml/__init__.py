"""The machinery of a project: from landed data to a live, gated prediction service."""
