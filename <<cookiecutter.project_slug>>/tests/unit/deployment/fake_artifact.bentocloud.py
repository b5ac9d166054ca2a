"""A bento that is ready to be deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_bento import TAG

from << cookiecutter.project_slug >>.deployment.bentocloud import digest_of

NAME = "shop:1"
SETTINGS = ("BENTO_CLOUD_",)  # how the names of variables begin


def put_artifact(root: Path, folder: Path) -> dict[str, Any]:
    """What a release says of the bento in a folder."""
    return {"name": TAG, "digest": digest_of(folder)}
