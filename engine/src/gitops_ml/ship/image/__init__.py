"""The container image and its registry."""
