"""Drift of the live service: columns, scores, metrics, and the rule that acts."""
