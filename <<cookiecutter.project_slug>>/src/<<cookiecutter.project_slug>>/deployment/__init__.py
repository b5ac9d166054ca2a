"""What brings a packaged release to an environment: artifact, branches, rollback."""
