"""Upstream data land here as partitions with a manifest."""
