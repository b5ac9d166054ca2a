"""What can go wrong between upstream and the landed partitions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from gitops_ml.core.errors import GitopsError

GROUP = "lake"


class LakeError(GitopsError):
    """The landing cannot begin or go on; what landed before it stays."""


class UnfitError(LakeError):
    """What one upstream file or table holds cannot land, while others may.

    Attributes:
        problems: As JSON values, for the report.
        lines: The same for people.
    """

    def __init__(self, lines: Sequence[str], problems: Sequence[Mapping[str, Any]] = ()) -> None:
        self.lines = tuple(lines)
        self.problems = tuple(problems) or tuple({"message": line} for line in lines)
        super().__init__("\n".join(self.lines))


def needed(module: str, what: str) -> ModuleType:
    """Import a library that only some sources need.

    Args:
        module: Its name.
        what: Which sources, for the message.

    Raises:
        LakeError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise LakeError(
            f"landing from {what} needs {error.name}, which is not installed here: "
            f"run `uv sync --group {GROUP}`, then land again"
        ) from error
