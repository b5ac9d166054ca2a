"""Whether a model that was trained again answers as the committed one did.

Another processor may add up in another order, and then the model has other bytes. What git has of
the committed model's answers is compared with those of this run: each golden prediction, and on
all test rows every metric, interval and slice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitops_ml.core import paths
from gitops_ml.core.git import git
from gitops_ml.core.json_text import load_json

# Of the number, and absolute below 1. The matrix has single precision: a linear model of some ten
# thousand rows moved by 3e-5 from one kind of processor to another.
TOLERANCE = 1e-4
# The ends of intervals are quantiles of resamples: of a small slice they move further.
INTERVAL_TOLERANCE = 1e-3
_COMPARED = (paths.GOLDEN, paths.EVALUATION, paths.METRICS)
_SHOWN = 5


def different(root: Path, revision: str = "HEAD") -> list[str]:
    """Where the reports here say something else than the committed ones, a few places of them.

    Args:
        root: The project's folder.
        revision: What they are compared with.

    Returns:
        Lines for people; none if all agree within the tolerance.
    """
    found: list[str] = []
    for path in _COMPARED:
        shown = git(root, "show", f"{revision}:./{path.as_posix()}")
        if shown.returncode != 0:
            found.append(f"{path}: is not committed, so the answers cannot be compared")
            continue
        try:
            before = load_json(shown.stdout)
            now = load_json((root / path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            found.append(f"{path}: cannot be compared: {error}")
            continue
        found += [f"{path}: {line}" for line in _differences(before, now)]
    more = len(found) - _SHOWN
    return [*found[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def describe(root: Path) -> str:
    """What was compared, and how closely."""
    golden = load_json((root / paths.GOLDEN).read_text(encoding="utf-8"))
    evaluation = load_json((root / paths.EVALUATION).read_text(encoding="utf-8"))
    return (
        f"{len(golden['predictions'])} golden predictions, and every metric, interval and slice on "
        f"{evaluation['rows']} test rows, are the committed ones to within {TOLERANCE:.0e}, "
        f"the ends of intervals to within {INTERVAL_TOLERANCE:.0e}."
    )


def _differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        for key in before:
            yield from _differences(before[key], now[key], f"{where}.{key}" if where else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(one, other, f"{where}[{place}]")
    elif not _same(before, now, _tolerance(where)):
        yield f"{where}: {_short(before)} is committed, this run has {_short(now)}"


def _tolerance(where: str) -> float:
    """How far a number may be from the committed one: not at all in what was asked."""
    if where.startswith(("records", "tolerance")):
        return 0.0
    return INTERVAL_TOLERANCE if where.endswith((".low", ".high")) else TOLERANCE


def _same(before: Any, now: Any, tolerance: float) -> bool:
    if not (isinstance(before, float) and isinstance(now, float)):
        return type(before) is type(now) and bool(before == now)
    return math.isclose(before, now, rel_tol=tolerance, abs_tol=tolerance)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
