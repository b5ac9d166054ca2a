"""Environment branches: promote, probe, roll back."""
