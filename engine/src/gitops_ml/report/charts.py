"""Plots as text: GitHub draws them from Mermaid, in comments and in job summaries alike.

A comment cannot hold an uploaded picture, and neither a comment nor a job summary shows a `data:`
address. Mermaid needs no upload, no token and no other site. Its xychart takes one y for each step
of x, so that a line is read off at even steps. https://mermaid.js.org/syntax/xyChart.html
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from gitops_ml.report.run_artifacts import Curve

STEPS = 20
FEATURES = 10
LINES = 5
LABEL_LENGTH = 60

# Mermaid's own colour is hardly seen on white; these are, and on a dark page too.
_COLOURS = "#4f86c6, #d1495b, #3a9f6b, #e0a030, #9a6fc0"
_INIT = f'%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{_COLOURS}"}}}}}}}}%%'

_UNSAFE = re.compile(r"[^A-Za-z0-9 _.,=()%-]")


def charts(curves: Iterable[Curve], importance: Sequence[tuple[str, float]]) -> list[str]:
    """Mermaid code blocks: one for each figure, and one for the importance of the features."""
    figures: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.points:
            figures.setdefault(curve.figure, []).append(curve)
    drawn = [_figure(title, lines[:LINES]) for title, lines in figures.items()]
    return drawn + ([_bars(importance[:FEATURES])] if importance else [])


def _figure(title: str, lines: Sequence[Curve]) -> str:
    name, _, axes = title.partition(": ")
    y_label, _, x_label = axes.partition(" over ")
    low = min(x for line in lines for x, _ in line.points)
    high = max(x for line in lines for x, _ in line.points)
    if low == high:
        low, high = low - 0.5, high + 0.5
    grid = [low + (high - low) * step / STEPS for step in range(STEPS + 1)]
    values = [read_off(line.points, grid) for line in lines]
    every = [value for line in values for value in line]
    bottom, top = min(0.0, *every), max(every)
    return _block(
        f'title "{_label(name)}: {", ".join(_label(line.series) for line in lines)}"',
        f'x-axis "{_label(x_label or "x")}" {_text(low)} --> {_text(high)}',
        f'y-axis "{_label(y_label or "y")}" {_text(bottom)} --> {_text(_above(bottom, top))}',
        *(f"line [{', '.join(map(_text, line))}]" for line in values),
    )


def _bars(importance: Sequence[tuple[str, float]]) -> str:
    values = [value for _, value in importance]
    names = ", ".join(f'"{_label(feature)}"' for feature, _ in importance)
    bottom, top = min(0.0, *values), max(values)
    return _block(
        'title "Importance of the features"',
        f"x-axis [{names}]",
        f'y-axis "loss of the primary metric when shuffled" {_text(bottom)} --> '
        f"{_text(_above(bottom, top))}",
        f"bar [{', '.join(map(_text, values))}]",
        horizontal=True,
    )


def read_off(points: Sequence[tuple[float, float]], grid: Iterable[float]) -> list[float]:
    """The y at each place of x, by a straight line between neighbours; the ends reach on.

    Where a line rises at one x, as a ROC curve does, its last y counts.
    """
    line = sorted(points, key=lambda point: point[0])
    places = [x for x, _ in line]
    values = []
    for x in grid:
        after = bisect.bisect_right(places, x)
        if after == 0:
            values.append(line[0][1])
        elif after == len(line):
            values.append(line[-1][1])
        else:
            (x0, y0), (x1, y1) = line[after - 1], line[after]
            values.append(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return values


def _above(bottom: float, top: float) -> float:
    return top if top > bottom else bottom + 1


def _label(text: str) -> str:
    """Text that cannot end the label or the block."""
    return " ".join(_UNSAFE.sub(" ", text).split())[:LABEL_LENGTH].strip() or "-"


def _text(number: float) -> str:
    # Mermaid reads no exponents, and has no use for a negative zero.
    return f"{Decimal(f'{number or 0.0:.4g}'):f}"


def _block(*lines: str, horizontal: bool = False) -> str:
    head = "xychart-beta horizontal" if horizontal else "xychart-beta"
    return "\n".join(["```mermaid", _INIT, head, *(f"  {line}" for line in lines), "```"])
