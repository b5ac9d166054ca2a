"""The validation report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gitops_ml.data.problems import Problem, count

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #d0d7de; padding: .4rem .6rem; text-align: left;
  vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .9em; overflow-wrap: anywhere; }
.passed { color: #116329; }
.failed { color: #a40e26; }
"""


def render(problems: Sequence[Problem], rows: int, files: Sequence[str]) -> str:
    """The whole page.

    Args:
        problems: What is wrong; none if the data was accepted.
        rows: How many rows were checked.
        files: The files that they came from.
    """
    verdict = "accepted" if not problems else f"rejected: {count(len(problems), 'problem')}"
    css = "passed" if not problems else "failed"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Data {escape(verdict)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Data <span class="{css}">{escape(verdict)}</span></h1>\n'
        f"<p>{count(rows, 'row')} from {count(len(files), 'file')} held against "
        "<code>schema.yaml</code> and <code>contract.yaml</code>.</p>\n"
        f"{_problem_table(problems) if problems else ''}"
        f"<h2>Files</h2>\n<ul>\n{''.join(f'<li><code>{escape(f)}</code></li>' for f in files)}\n"
        "</ul>\n</body>\n</html>\n"
    )


def _problem_table(problems: Sequence[Problem]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("File", "Column", "Rule", "Count", "Problem"))
    body = "".join(_problem_row(problem) for problem in problems)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _problem_row(problem: Problem) -> str:
    return (
        f"<tr><td><code>{escape(problem.file)}</code></td>"
        f"<td><code>{escape(problem.column or '')}</code></td>"
        f"<td><code>{escape(problem.rule)}</code></td>"
        f'<td class="number">{problem.count:,}</td>'
        f"<td>{escape(problem.message)}{_examples(problem)}</td></tr>\n"
    )


def _examples(problem: Problem) -> str:
    if not problem.examples:
        return ""
    items = "".join(f"<li>{_example(example)}</li>" for example in problem.examples)
    return f"<ul>{items}</ul>"


def _example(example: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{escape(name)} <code>{escape(_text(value))}</code>" for name, value in example.items()
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={inner}" for name, inner in value.items())
    return str(value)
