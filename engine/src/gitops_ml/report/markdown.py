"""The report that people read on GitHub: in a comment and in the job summary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gitops_ml.core.metric_catalogue import BUILT_IN
from gitops_ml.report.charts import charts
from gitops_ml.report.run_artifacts import DataProblem, Evidence, TrainingEnvironment
from gitops_ml.report.verdict_report import as_markdown, escape, folded, markdown_table

_LEFT = "\n\nShortened: the whole report is in the artifact.\n"


def verdict(evidence: Evidence) -> tuple[str, str]:
    """The gate's headline and the rest of its report; both empty if it gave no verdict."""
    if evidence.gate is None:
        return "", ""
    headline, _, rest = as_markdown(evidence.gate).partition("\n\n")
    return headline, rest.strip()


def details(evidence: Evidence) -> list[str]:
    """What there is beside the verdict: problems of the data first, then metrics and plots."""
    parts = []
    if evidence.problems:
        parts += ["### The data break rules", _problem_table(evidence.problems)]
    if evidence.evaluation is not None:
        parts.append(folded("All metrics of this model", _metric_table(evidence)))
    if evidence.environment is not None:
        where = _environment_table(evidence.environment)
        parts.append(folded("Where this model was trained", where))
    plots = charts(evidence.curves, evidence.importance)
    if plots:
        parts.append(folded("Plots", "\n\n".join(plots)))
    if evidence.unreadable:
        parts += [
            "### Not read",
            "\n".join(f"- {escape(problem)}" for problem in evidence.unreadable),
        ]
    return parts


def _problem_table(problems: Sequence[DataProblem]) -> str:
    rows = [
        [problem.file, problem.column or "", problem.rule, f"{problem.count:,}", problem.message]
        for problem in problems
    ]
    header = ["file", "column", "rule", "count", "what is wrong"]
    return markdown_table([header, *rows], text_columns=(0, 1, 2, 4))


def _metric_table(evidence: Evidence) -> str:
    evaluation = evidence.evaluation
    assert evaluation is not None
    rows = []
    for name, found in evaluation.metrics.items():
        better = BUILT_IN[name].better if name in BUILT_IN else found.better
        arrow = {"larger": " ↑", "smaller": " ↓", None: ""}[better]
        interval = ""
        if found.low is not None and found.high is not None:
            interval = f"{found.low:.4g} to {found.high:.4g}"
        rows.append(
            [name + arrow, _number(found.value), interval, _number(evaluation.baseline.get(name))]
        )
    header = ["metric", "value", f"{evaluation.confidence:.0%} interval", "without features"]
    table = markdown_table([header, *rows], text_columns=(0,))
    if evaluation.threshold is None:
        return table
    return f"{table}\n\nThe second class is the answer from {evaluation.threshold:.4g} on."


def _environment_table(environment: TrainingEnvironment) -> str:
    cores = "unknown" if environment.cores is None else str(environment.cores)
    rows = [
        ["Python", environment.python],
        ["platform", environment.platform],
        ["cores", cores],
        *([name, number] for name, number in environment.versions.items()),
    ]
    return markdown_table([["what", "value"], *rows], text_columns=(0, 1))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def shortened(text: str, most: int) -> str:
    """Text of at most `most` characters: whole lines, no plot cut in two, folded parts closed."""
    if len(text) <= most:
        return text
    budget = most - len(_LEFT) - 200
    kept: list[str] = []
    length = 0
    for line in text.splitlines():
        length += len(line) + 1
        if length > budget:
            break
        kept.append(line)
    if sum(line.startswith("```") for line in kept) % 2:
        last = max(place for place, line in enumerate(kept) if line.startswith("```"))
        kept = kept[:last]
    body = "\n".join(kept)
    opened = len(re.findall(r"<details", body)) - len(re.findall(r"</details>", body))
    return body + "\n\n</details>" * opened + _LEFT
