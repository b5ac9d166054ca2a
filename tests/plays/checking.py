"""Calls one of the engine's checks with the values that its fixtures would give."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any


class Values(SimpleNamespace):
    """What the checks' fixtures give, to be changed by a test."""

    def call(self, checks: type, name: str, **parameters: Any) -> None:
        """Run one check with these values."""
        check = getattr(checks(), name)
        known = vars(self) | parameters
        check(**{wanted: known[wanted] for wanted in inspect.signature(check).parameters})


def checks_of(kind: type) -> list[str]:
    """The names of the checks of a class."""
    return sorted(name for name in dir(kind) if name.startswith("test_"))
