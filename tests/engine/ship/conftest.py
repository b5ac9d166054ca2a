"""Deployments to branches of a real git repository, away from the settings of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_origin import World, forget_settings, make_repositories


@pytest.fixture
def clean_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the caller's environment, its workflow or its git."""
    forget_settings(monkeypatch)


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an origin and a clone of it, to be copied."""
    folder = tmp_path_factory.mktemp("repositories")
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        make_repositories(folder)
    return folder


@pytest.fixture
def world(clean_settings: None, repositories: Path, tmp_path: Path) -> World:
    """An origin with a main branch and a clone of it."""
    folder = tmp_path / "world"
    shutil.copytree(repositories, folder)
    return World(folder)
