"""What is released: `release.json`, its lineage and its publication."""
