"""The least that makes a folder a project."""

from __future__ import annotations

from pathlib import Path

PACKAGE = "flight_delays"


def make_project(folder: Path, target: str = "kubernetes", package: str = PACKAGE) -> Path:
    """Write a `pyproject.toml` that says what the project is; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(
        f'[tool.gitops-ml]\npackage = "{package}"\ndeploy-target = "{target}"\n',
        encoding="utf-8",
    )
    return folder
