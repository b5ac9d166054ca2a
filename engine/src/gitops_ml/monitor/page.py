"""The monitor's report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gitops_ml.monitor.rule import COLUMN_FACTOR, SCORE_FACTOR

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --page: #fff; --line: #d0d7de; --soft: #57606a;
  --good: #116329; --bad: #a40e26; --bad-back: #ffd8d3; --near-back: #fff1c5; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --page: #0d1117; --line: #30363d;
  --soft: #9198a1; --good: #56d364; --bad: #ff8182; --bad-back: #67060c; --near-back: #4b3a00; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: var(--text); background: var(--page); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: left;
  vertical-align: top; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-size: .9em; overflow-wrap: anywhere; }
th code { white-space: nowrap; }
small, .soft { color: var(--soft); }
.quiet { color: var(--good); }
.drift { color: var(--bad); }
td.off { background: var(--bad-back); font-weight: 600; }
td.near { background: var(--near-back); }
"""
_TITLES = {
    "quiet": "no drift",
    "drift": "drift",
    "unjudged": "nothing to judge yet",
    "skipped": "skipped",
}
# Below their limit, but not by much.
_NEAR = 0.75


def render(report: Mapping[str, Any]) -> str:
    """The whole page, from what `reports/monitor.json` holds."""
    status = str(report["status"])
    title = _TITLES[status]
    css = status if status in ("quiet", "drift") else "soft"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Monitor: {escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Monitor: <span class="{css}">{escape(title)}</span></h1>\n'
        f"<p>{escape(str(report['headline']))}.</p>\n"
        f"{''.join(_sections(report)) if 'windows' in report else ''}</body>\n</html>\n"
    )


def _sections(report: Mapping[str, Any]) -> Iterable[str]:
    windows, reference = report["windows"], report["reference"]
    if report["acting"]:
        items = "".join(
            f"<li>{escape(one['kind'])} <code>{escape(one['name'])}</code>: off in "
            f"{len(one['windows'])} of the last {one['of']} windows "
            f"({escape(', '.join(one['windows']))})</li>"
            for one in report["acting"]
        )
        yield f"<h2>What to act on</h2>\n<ul>{items}</ul>\n"
    for title, key in (("To know", "notes"), ("Left out", "problems")):
        if report[key]:
            items = "".join(f"<li>{escape(text)}</li>" for text in report[key])
            yield f"<h2>{title}</h2>\n<ul>{items}</ul>\n"
    yield "<h2>Windows</h2>\n" + _table(
        ["", *(window["start"] for window in windows)],
        [
            _row("rows", windows, lambda w: f'<td class="number">{w["rows"]:,}</td>'),
            _row("labels known", windows, lambda w: f'<td class="number">{w["labelled"]:,}</td>'),
            _row(
                "not judged",
                windows,
                lambda w: f"<td><small>{escape(w['why_not'] or '')}</small></td>",
            ),
        ],
    )
    metrics = _names(windows, "metrics")
    if metrics:
        yield (
            "<h2>Metrics</h2>\n<p>Value and interval; <strong>off</strong> where the interval lies "
            "beyond the limit.</p>\n"
        )
        yield _table(
            ["", "limit", *(window["start"] for window in windows)],
            [_metric_row(name, windows) for name in metrics],
        )
    for title, key, factor in (
        ("Scores", "scores", SCORE_FACTOR),
        ("Columns", "columns", COLUMN_FACTOR),
    ):
        names = _names(windows, key)
        if names:
            yield (
                f"<h2>{title}</h2>\n<p>The stability index (PSI), in units of the limit: the "
                "largest that the reference's own windows had, as far apart. "
                f"<strong>Off</strong> from {factor:g} on.</p>\n"
            )
            yield _table(
                ["", "limit", *(window["start"] for window in windows)],
                [_drift_row(name, key, factor, windows) for name in names],
            )
    answered = "".join(
        f"<li><code>{escape(one['release'])}</code>: {one['rows']:,} rows</li>"
        for one in report["releases"]
    )
    end = f", up to {escape(reference['end'][:10])}" if reference["end"] else ""
    yield (
        f"<h2>Who answered</h2>\n<ul>{answered}</ul>\n<p class='soft'>Held against "
        f"{reference['rows']:,} rows in {reference['windows']:,} windows of the training and test "
        f"data{end}; model <code>{escape(report['model']['sha256'][:12])}</code>.</p>\n"
    )


def _names(windows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Which there are; what is off, or nearest to it, at first."""
    worst: dict[str, float] = {}
    for window in windows:
        for name, one in window[key].items():
            worst[name] = max(worst.get(name, 0.0), one.get("ratio") or 0.0)
    return sorted(worst, key=lambda name: -worst[name])


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(
        f'<th scope="col"{" class=number" if place else ""}>{escape(text)}</th>'
        for place, text in enumerate(head)
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n'
        f"{''.join(rows)}</tbody>\n</table></div>\n"
    )


def _row(name: str, windows: Sequence[Mapping[str, Any]], cell: Any) -> str:
    return f"<tr><th scope='row'>{escape(name)}</th>{''.join(map(cell, windows))}</tr>\n"


def _metric_row(name: str, windows: Sequence[Mapping[str, Any]]) -> str:
    cells, limit = [], None
    for window in windows:
        one = window["metrics"].get(name)
        if one is None:
            cells.append("<td></td>")
            continue
        limit = one["limit"]
        css = " off" if {"kind": "metric", "name": name} in window["off"] else ""
        span = "" if one["low"] is None else f"<br><small>{one['low']:g} to {one['high']:g}</small>"
        value = "undefined" if one["value"] is None else f"{one['value']:.3g}"
        cells.append(f'<td class="number{css}">{value}{span}</td>')
    return _limited(name, limit, cells)


def _drift_row(name: str, key: str, factor: float, windows: Sequence[Mapping[str, Any]]) -> str:
    cells, limit = [], None
    for window in windows:
        one = window[key].get(name)
        if one is None:
            cells.append("<td></td>")
            continue
        limit = one["limit"]
        css = " off" if one["ratio"] >= factor else ""
        css = css or (" near" if one["ratio"] >= _NEAR * factor else "")
        told = (
            f"PSI {one['psi']:g}, missing {one['missing']:.1%}, before {one['missing_before']:.1%}"
        )
        cells.append(f'<td class="number{css}" title="{escape(told)}">{one["ratio"]:.2f}</td>')
    return _limited(name, limit, cells)


def _limited(name: str, limit: float | None, cells: Sequence[str]) -> str:
    shown = "" if limit is None else f"{limit:.3g}"
    return (
        f"<tr><th scope='row'><code>{escape(name)}</code></th>"
        f'<td class="number soft">{shown}</td>{"".join(cells)}</tr>\n'
    )
