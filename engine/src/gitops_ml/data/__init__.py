"""From landed files to a validated, split table."""
