"""The least that makes a folder a project."""

from __future__ import annotations

import sys
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


def forget_package() -> None:
    """Let the next import of a project's package read its files anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
