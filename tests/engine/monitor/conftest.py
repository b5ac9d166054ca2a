"""The flights' project, trained once for all tests of the monitor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import PROJECT_TEMPLATE
from live_flights import Flights, make_flights


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Flights:
    """July to September come after what its model was trained on."""
    return Flights(make_flights(PROJECT_TEMPLATE, tmp_path_factory.mktemp("flights")))


@pytest.fixture
def here(flights: Flights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, and the current folder."""
    copy = tmp_path / "flights"
    shutil.copytree(flights.root, copy)
    monkeypatch.chdir(copy)
    return copy
