"""What the parts of the gate collect while they judge one change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class GateLog:
    """What one judgement has found so far.

    Attributes:
        reasons: Why the change is blocked; empty while nothing speaks against it.
        notes: What a reader of the report should know.
        seconds: How long each part took.
    """

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long the block takes."""
        started = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - started, 2)
