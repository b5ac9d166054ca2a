"""GitHub: its API, and the settings that protect the repository."""
