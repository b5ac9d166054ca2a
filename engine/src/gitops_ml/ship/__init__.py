"""Deliver a gated bento: plan, fetch, release, environments, targets."""
