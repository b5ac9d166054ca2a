"""The maintainers' scripts find what they import, wherever that has moved to."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from conftest import TEMPLATE

SCRIPTS = sorted((TEMPLATE / "tools").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_loaded(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    assert runpy.run_path(str(script), run_name="loaded")
