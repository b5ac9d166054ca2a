"""The gate's verdict for people: Markdown for GitHub, plain text for a terminal.

Names and messages come from data and settings that a stranger may have written: in Markdown they
are escaped, so that they can neither break a table nor mention, link or format anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from gitops_ml.gate.verdict import Finding, Limit, Report

_HEADLINES = {
    "promote": "✅ Promote: the model holds the contract",
    "keep": "✅ Keep: the model is the champion itself, and holds the contract",
    "block": "⛔ Block: the model must not be merged or shipped",
}
SOURCES = {
    "same": "the same model",
    "cache": "taken from the DVC cache",
    "remote": "pulled from the DVC remote",
    "reproduced": "trained again from the base",
    "not found": "not found",
}
_PUNCTUATION = re.compile(r"([\\`*_\[\]{}~|$])")
# GitHub makes links of these; an invisible space after them prevents it.
_LINKS = re.compile(r"([@#]|:(?=//)|www(?=\.))")

Table = Sequence[Sequence[str]]


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "<br>".join(_escape_line(line) for line in lines if line)


def _escape_line(line: str) -> str:
    literal = _PUNCTUATION.sub(r"\\\1", html.escape(line, quote=False))
    return _LINKS.sub("\\1\N{ZERO WIDTH SPACE}", literal)


def as_markdown(report: Report) -> str:
    """The verdict first, then what led to it."""
    parts = [
        f"## {_HEADLINES[report.verdict]}",
        "\n".join(f"- {escape(reason)}" for reason in report.reasons),
        "\n\n".join(escape(remedy) for remedy in report.remedies),
        escape(_judged(report)),
        markdown_table(_metric_rows(report), text_columns=(0, 7)),
        _markdown_slices(report),
        _markdown_erosion(report),
        _markdown_base_rows(report),
        _markdown_record(report),
        "### Limits",
        markdown_table(_limit_rows(report.limits), text_columns=(0, 3)),
        _markdown_contract(report),
        _markdown_data(report),
    ]
    notes = [*_consents(report), *report.notes]
    if notes:
        parts += ["### Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    parts.append(folded("Timings", markdown_table(_timing_rows(report), text_columns=(0,))))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_text(report: Report) -> str:
    """The same for a terminal, without what is only interesting to look up."""
    parts = [
        _HEADLINES[report.verdict],
        "\n".join(f"  - {reason}".replace("\n", "\n    ") for reason in report.reasons),
        "\n".join(report.remedies),
        _judged(report),
        _aligned(_metric_rows(report)),
        _aligned(_slice_rows(report)) if report.slices else "",
        _reference(report),
        _aligned(_erosion_rows(report)) if report.erosion else "",
        _aligned(_base_row_rows(report)) if _base_findings(report) else "",
        _aligned(_limit_rows(report.limits)),
        _aligned(_contract_rows(report)) if report.contract_changes else "",
        "\n".join([*_consents(report), *report.notes]),
    ]
    return "\n\n".join(part for part in parts if part)


def _judged(report: Report) -> str:
    base = f"{report.base.revision} ({report.base.commit[:10]})" if report.base else "nothing yet"
    champion = ""
    if report.champion is not None:
        champion = f" Champion: {report.champion.hash[:10]}, {SOURCES[report.champion.source]}."
    return (
        f"Judged against {base} on {report.rows:,} test rows, by the contract: {report.contract}. "
        f"Model: {report.challenger.hash[:10]}.{champion}"
    )


def _consents(report: Report) -> list[str]:
    consents = []
    if report.consent.allow_loosening:
        consents.append("Run with a maintainer's consent to loosening.")
    if report.consent.own_engine:
        consents.append("Run with a maintainer's consent to judge with this change's own engine.")
    if report.consent.accept_new_baseline is not None:
        consents.append(
            "A maintainer accepted this model without holding it against the champion: "
            f"{report.consent.accept_new_baseline}"
        )
    return consents


def _metric_rows(report: Report) -> Table:
    return [_metric_header("metric", report), *(_metric_row(one) for one in report.metrics)]


def _slice_rows(report: Report) -> Table:
    worst_first = sorted(report.slices, key=_standing)
    return [_metric_header("slice", report), *(_metric_row(one) for one in worst_first)]


def _reference(report: Report) -> str:
    """Which model the reference is; empty without one."""
    if report.reference is None:
        return ""
    model, commit = report.reference.model, report.reference.commit
    if commit is None:
        return f"Reference: {model.hash[:10]}, this model itself, named by the contract."
    why = "named by the contract" if report.reference.named else "the first model in the history"
    return f"Reference: {model.hash[:10]} of {commit[:10]}, {why}; {SOURCES[model.source]}."


def _erosion_rows(report: Report) -> Table:
    header = _metric_header("metric", report)
    header[1], header[3] = "reference", "difference"
    header[5:] = ["allowed in total", "used", "result"]
    return [header, *(_erosion_row(one) for one in sorted(report.erosion, key=_standing))]


def _erosion_row(found: Finding) -> list[str]:
    used = "" if found.used is None else f"{found.used:.0%}"
    return [*_metric_row(found)[:6], used, _result(found)]


def _base_findings(report: Report) -> Sequence[Finding]:
    if report.on_base_rows is None:
        return ()
    return (*report.on_base_rows.metrics, *report.on_base_rows.slices)


def _base_row_rows(report: Report) -> Table:
    worst_first = sorted(_base_findings(report), key=_standing)
    header = _metric_header("on the base's test rows", report)
    header[3] = "difference"
    return [
        header,
        *(_metric_row(one) for one in worst_first),
    ]


def _metric_header(first: str, report: Report) -> list[str]:
    return [
        first,
        "champion",
        "this model",
        "difference" if report.seeds == 1 else f"difference, mean of {report.seeds} seeds",
        f"{report.confidence:.0%} bounds",
        "margin",
        "bound",
        "result",
    ]


def _metric_row(found: Finding) -> list[str]:
    rising = found.direction > 0
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
    return [
        _name(found),
        _number(found.champion),
        _number(found.challenger),
        "" if found.difference is None else f"{found.difference:+.4f}",
        interval,
        _number(found.margin),
        "" if found.bound is None else f"{'≥' if rising else '≤'} {found.bound:g}",
        _result(found),
    ]


def _name(found: Finding) -> str:
    if found.column is None:
        return f"{found.metric} {'↑' if found.direction > 0 else '↓'}"
    return f"{found.metric}, {found.column} = {found.value or 'missing'} ({found.rows:,} rows)"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _result(found: Finding) -> str:
    return f"{'❌' if found.failures else '✅'} {found.outcome or found.note or ''}".strip()


def _standing(found: Finding) -> tuple[bool, float]:
    """Failures first, then by how much worse than the champion, or how close to the bound."""
    direction = found.direction
    if found.difference is not None:
        lead = direction * found.difference
    elif found.challenger is not None and found.bound is not None:
        lead = direction * (found.challenger - found.bound)
    else:
        lead = 0.0
    return not found.failures, lead


def _limit_rows(limits: Sequence[Limit]) -> Table:
    return [
        ["limit", "measured", "allowed", "result"],
        *(
            [
                limit.name,
                f"{_quantity(limit.value)} {limit.unit}",
                " and ".join(
                    f"{sign} {bound:g}"
                    for sign, bound in (("≥", limit.minimum), ("≤", limit.maximum))
                    if bound is not None
                ),
                "❌" if limit.failures else "✅",
            ]
            for limit in limits
        ),
    ]


def _quantity(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _contract_rows(report: Report) -> Table:
    return [
        ["term", "base", "here", "effect"],
        *(
            [
                change.term,
                "" if change.base is None else str(change.base),
                "removed" if change.head is None else str(change.head),
                change.effect,
            ]
            for change in report.contract_changes
        ),
    ]


def _timing_rows(report: Report) -> Table:
    return [["step", "seconds"], *([name, f"{took:.1f}"] for name, took in report.seconds.items())]


def _markdown_slices(report: Report) -> str:
    if not report.slices:
        return ""
    failed = sum(bool(found.failures) for found in report.slices)
    summary = (
        f"Slices: {failed} of {len(report.slices)} do not hold"
        if failed
        else (f"Slices: all {len(report.slices)} hold")
    )
    return folded(
        f"{summary}; worst first",
        markdown_table(_slice_rows(report), text_columns=(0, 7)),
        unfold=failed > 0,
    )


def _markdown_erosion(report: Report) -> str:
    if report.reference is None:
        return ""
    parts = ["### Against the reference: what all steps together lost", escape(_reference(report))]
    if report.erosion:
        parts.append(markdown_table(_erosion_rows(report), text_columns=(0, 7)))
    return "\n\n".join(parts)


def _markdown_base_rows(report: Report) -> str:
    found = _base_findings(report)
    if report.on_base_rows is None or not found:
        return ""
    failed = sum(bool(one.failures) for one in found)
    where = f"On {report.on_base_rows.rows:,} test rows of the base"
    summary = (
        f"{where}: {failed} of {len(found)} terms do not hold"
        if failed
        else f"{where}: all {len(found)} terms hold"
    )
    return folded(
        f"{summary}; worst first",
        markdown_table(_base_row_rows(report), text_columns=(0, 7)),
        unfold=failed > 0,
    )


def _markdown_record(report: Report) -> str:
    if not report.record:
        return ""
    first = report.record[0]
    header = [
        "metric",
        "recorded",
        "measured",
        f"{first.rows:,} rows of both, by the base's values",
        "by these values",
        "may differ by",
        f"{first.new_rows:,} new rows",
        "better than a model that ignores the features by",
    ]
    rows = [
        [
            check.metric,
            *map(_number, (check.recorded, check.measured, check.before, check.after)),
            *map(_number, (check.allowed, check.new, check.new_advantage)),
        ]
        for check in report.record
    ]
    table = markdown_table([header, *rows], text_columns=(0,))
    return folded("What the champion says of the data that changed", table)


def _markdown_contract(report: Report) -> str:
    if not report.contract_changes:
        return ""
    table = markdown_table(_contract_rows(report), text_columns=(0, 3))
    return f"### Changes to the contract\n\n{table}"


def _markdown_data(report: Report) -> str:
    data = report.data
    if data.base_rows is None:
        lines = [f"{data.rows:,} rows."]
    elif data.base_rows == data.rows:
        lines = [f"{data.rows:,} rows, as many as in the base."]
    else:
        lines = [f"{data.rows:,} rows, {data.base_rows:,} in the base."]
    lines += [f"Schema: {change}" for change in data.schema_changes]
    return "### Data\n\n" + "\n".join(f"- {escape(line)}" for line in lines)


def folded(summary: str, content: str, unfold: bool = False) -> str:
    """Markdown that opens on a click; `unfold` shows it at once."""
    # GitHub renders Markdown inside only after an empty line.
    opening = "<details open>" if unfold else "<details>"
    return f"{opening}<summary>{html.escape(summary)}</summary>\n\n{content}\n\n</details>"


def markdown_table(rows: Table, text_columns: Sequence[int]) -> str:
    """A table whose first row is the header; columns of numbers are set to the right."""
    header, *body = rows
    ruler = ["---" if place in text_columns else "--:" for place in range(len(header))]
    lines = [[escape(cell) for cell in header], ruler, *([escape(c) for c in row] for row in body)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _aligned(rows: Table) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
