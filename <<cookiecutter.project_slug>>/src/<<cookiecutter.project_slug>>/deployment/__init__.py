"""What brings a packaged release to an environment: image, manifests, branches, rollback."""
