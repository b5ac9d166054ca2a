"""What the monitor found, as `reports/monitor.json` has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from gitops_ml.data.problems import count
from gitops_ml.monitor.drift import Drift
from gitops_ml.monitor.rule import Acting, off
from gitops_ml.monitor.watch import Watched, Window

# quiet: nothing to do; drift: the rule acts; unjudged: no window with rows enough; skipped: no log
# is named.
Status = Literal["quiet", "drift", "unjudged", "skipped"]


def skipped(why: str) -> dict[str, Any]:
    """The report of a run that had no log to read."""
    return {"status": "skipped", "headline": why}


def as_json(
    watched: Watched,
    found: tuple[Acting, ...],
    *,
    releases: list[tuple[str, int]],
    model: str,
    settings: Mapping[str, int],
    problems: tuple[str, ...],
) -> dict[str, Any]:
    """The report of a run.

    Args:
        watched: What was found, window by window.
        found: What the rule acts on.
        releases: Who answered, with the number of rows, the last one at first.
        model: The sha256 of the working tree's model.
        settings: Those of `params.yaml`.
        problems: What of the log and the labels could not be used.
    """
    status: Status = "drift" if found else "quiet"
    if all(window.why_not for window in watched.windows):
        status = "unjudged"
    end = watched.reference_end
    return {
        "status": status,
        "headline": _headline(status, found, watched),
        "model": {"sha256": model},
        "releases": [{"release": name, "rows": rows} for name, rows in releases],
        "reference": {
            "rows": watched.reference_rows,
            "windows": watched.reference_windows,
            "end": None if end is None else end.isoformat(),
        },
        "settings": dict(settings),
        "acting": [
            {
                "kind": one.signal.kind,
                "name": one.signal.name,
                "windows": [window.start.date().isoformat() for window in one.windows],
                "of": one.of,
            }
            for one in found
        ],
        "windows": [_window(window) for window in watched.windows],
        "problems": list(problems),
        "notes": list(watched.notes),
    }


def _headline(status: Status, found: tuple[Acting, ...], watched: Watched) -> str:
    judged = [window for window in watched.windows if window.why_not is None]
    if status == "unjudged":
        why = watched.windows[-1].why_not
        return f"No window can be judged yet: the last one, {_span(watched.windows[-1])}, {why}"
    if status == "quiet":
        return f"{count(len(judged), 'window')} judged, up to {judged[-1].end:%Y-%m-%d}: no drift"
    first = found[0]
    more = len(found) - 1
    others = f", and {count(more, 'thing')} more" if more else ""
    return (
        f"The {first.signal} is off in {len(first.windows)} of the last "
        f"{count(first.of, 'window')}{others}"
    )


def _span(window: Window) -> str:
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}"


def _window(window: Window) -> dict[str, Any]:
    return {
        "start": window.start.date().isoformat(),
        "end": window.end.date().isoformat(),
        "rows": window.rows,
        "labelled": window.labelled,
        "why_not": window.why_not,
        "off": [{"kind": one.kind, "name": one.name} for one in sorted(off(window))],
        "metrics": {
            name: {
                **{key: _short(getattr(one.estimate, key)) for key in ("value", "low", "high")},
                "limit": _short(one.limit),
            }
            for name, one in window.metrics.items()
        },
        "scores": {name: _drift(one) for name, one in window.scores.items()},
        "columns": {name: _drift(one) for name, one in window.columns.items()},
    }


def _drift(one: Drift) -> dict[str, float | None]:
    return {
        "psi": _short(one.index),
        "limit": _short(one.limit),
        "ratio": _short(one.ratio),
        "missing": _short(one.missing),
        "missing_before": _short(one.missing_before),
    }


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
