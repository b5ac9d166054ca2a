"""A bento that is ready to be deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from fake_bento import TAG
from simple_di import sentinel

from gitops_ml.ship.targets.bentocloud_client import digest_of

NAME = "shop:1"
SETTINGS = ("BENTO_CLOUD_",)  # how the names of variables begin


def put_artifact(root: Path, folder: Path) -> dict[str, Any]:
    """What a release says of the bento in a folder."""
    return {"name": TAG, "digest": digest_of(folder)}


def make_client_new(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let BentoML read the address and the token again, and no settings of this machine."""
    monkeypatch.setattr(BentoMLContainer.bentocloud_client, "_cache", sentinel)
    monkeypatch.setattr(BentoMLContainer.cloud_config, "_override", folder / "cloud.yaml")
