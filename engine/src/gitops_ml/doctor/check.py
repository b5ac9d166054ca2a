"""The outcome of one of doctor's checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it.

    Attributes:
        name: What was looked at.
        status: `fail` when something does not work or a gate does not hold; `skipped` when it
            could not be looked at, or is a feature that is not switched on.
        detail: What was found.
        remedy: What to do, if anything.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
