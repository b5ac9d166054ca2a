"""When to act: the same thing is off in N of the last M windows, and in the latest.

One window is off now and then, by a storm or by chance, and a season moves many columns a little.
So a single window decides nothing, and neither do different things in different windows. What
weighs most is what the model's answers are worth:

- a metric counts where its interval lies beyond its limit: the contract's bound, or the worst
  window of the test rows where that was worse;
- a score counts from its limit on, the largest spread of the reference's own windows;
- a column counts from twice its limit on: a column that drifts need not touch any answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gitops_ml.core.settings import MonitorParams
from gitops_ml.monitor.watch import Window

Kind = Literal["metric", "score", "column"]
SCORE_FACTOR = 1.0
COLUMN_FACTOR = 2.0


@dataclass(frozen=True, order=True)
class Signal:
    """One thing that can be off: a metric, a score or a column."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Acting:
    """A signal that the rule acts on.

    Attributes:
        signal: Which.
        windows: Those of the last M in which it is off.
        of: How many were looked at.
    """

    signal: Signal
    windows: tuple[Window, ...]
    of: int


_WEIGHT: dict[Kind, int] = {"metric": 0, "score": 1, "column": 2}


def off(window: Window) -> set[Signal]:
    """What is off in a window."""
    found = {Signal("metric", name) for name, one in window.metrics.items() if one.worse}
    found |= {
        Signal("score", name) for name, one in window.scores.items() if one.ratio >= SCORE_FACTOR
    }
    return found | {
        Signal("column", name) for name, one in window.columns.items() if one.ratio >= COLUMN_FACTOR
    }


def acting(windows: Sequence[Window], settings: MonitorParams) -> tuple[Acting, ...]:
    """What to act on, the gravest first.

    Labels come late, so the last windows of a metric are the last of which it is known.

    Args:
        windows: In their order.
        settings: N and M.
    """
    found = []
    for kind in _WEIGHT:
        judged = [window for window in windows if _knows(window, kind)][-settings.of_last :]
        latest = {one for one in off(judged[-1]) if one.kind == kind} if judged else set()
        for signal in latest:
            inside = tuple(window for window in judged if signal in off(window))
            if len(inside) >= settings.windows:
                found.append(Acting(signal, inside, len(judged)))
    return tuple(sorted(found, key=lambda one: (_WEIGHT[one.signal.kind], one.signal.name)))


def _knows(window: Window, kind: Kind) -> bool:
    return bool({"metric": window.metrics, "score": window.scores, "column": window.columns}[kind])
