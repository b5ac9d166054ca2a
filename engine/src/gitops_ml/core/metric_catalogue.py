"""The metrics that exist, by name: what is better, and for which task. Nothing here measures.

A project's own metrics are functions in `src/<package>/metrics.py`, marked with `@metric(...)`.
They are found by reading that file, not by running it: settings are checked, and reports are
shown, where neither numpy nor the project's code may be.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project

Better = Literal["larger", "smaller"]
Of = Literal["prediction", "probability"]
MetricTask = Literal["classification", "regression"]

_MARK = "metric"
# What each argument of the mark may be.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "better": get_args(Better),
    "of": get_args(Of),
    "task": get_args(MetricTask),
}


class MetricDeclarationError(GitopsError):
    """`metrics.py` does not say what its metrics are; the message names file, line and function."""


@dataclass(frozen=True)
class MetricKind:
    """What is known of a metric without measuring it.

    Attributes:
        better: Which of two values is the better one.
        of: What it is measured on beside the truth: `prediction` or `probability`.
        task: What it can be measured for; None for whatever has what it is measured on.
    """

    better: Better
    of: Of = "prediction"
    task: MetricTask | None = None

    @property
    def direction(self) -> int:
        """+1 when larger is better, -1 when smaller is."""
        return 1 if self.better == "larger" else -1

    def suits(self, task: str) -> bool:
        """Whether it can be measured for a task."""
        if self.of == "probability" and task == "regression":
            return False
        return self.task in (None, task)


def _classification(better: Better, of: Of = "prediction") -> MetricKind:
    return MetricKind(better, of, "classification")


def _regression(better: Better) -> MetricKind:
    return MetricKind(better, "prediction", "regression")


BUILT_IN: Mapping[str, MetricKind] = {
    "accuracy": _classification("larger"),
    "balanced_accuracy": _classification("larger"),
    "f1_macro": _classification("larger"),
    "roc_auc": _classification("larger", "probability"),
    "average_precision": _classification("larger", "probability"),
    "log_loss": _classification("smaller", "probability"),
    "brier": _classification("smaller", "probability"),
    "r2": _regression("larger"),
    "mae": _regression("smaller"),
    "rmse": _regression("smaller"),
    "median_absolute_error": _regression("smaller"),
}


def metric_names(task: str, metrics: Mapping[str, MetricKind] = BUILT_IN) -> frozenset[str]:
    """The metrics that can be measured for a task."""
    return frozenset(name for name, kind in metrics.items() if kind.suits(task))


def why_not(name: str, task: str, metrics: Mapping[str, MetricKind] = BUILT_IN) -> str | None:
    """Why a metric cannot be measured for a task, and what to do; None if it can."""
    choices = f"choose from {', '.join(sorted(metric_names(task, metrics)))}"
    kind = metrics.get(name)
    if kind is None:
        return (
            f"there is no metric {name}: {choices}; or mark a function of this name with "
            f'@metric(better="smaller") or "larger" in {paths.SOURCES}/<package>/metrics.py'
        )
    return None if kind.suits(task) else f"{name} cannot be measured for {task}; {choices}"


def own_metrics_file(root: Path = Path()) -> Path:
    """Where a project's own metrics are, relative to its root; the file need not exist.

    Raises:
        SettingsError: If `pyproject.toml` does not name the package.
    """
    return paths.SOURCES / load_project(root).package / "metrics.py"


def known_metrics(root: Path = Path()) -> dict[str, MetricKind]:
    """The built-in metrics and the project's own.

    Raises:
        MetricDeclarationError: If `metrics.py` cannot be read, or a mark in it is wrong.
        SettingsError: If `pyproject.toml` does not name the package.
    """
    if not (root / paths.PYPROJECT).exists():
        return dict(BUILT_IN)
    path = own_metrics_file(root)
    try:
        text = (root / path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return dict(BUILT_IN)
    except (OSError, UnicodeDecodeError) as error:
        raise MetricDeclarationError(f"{path}: cannot be read: {error}") from error
    return {**BUILT_IN, **declared_metrics(text, str(path))}


def declared_metrics(text: str, name: str) -> dict[str, MetricKind]:
    """The metrics that Python code marks, in its order.

    Args:
        text: The code.
        name: What to call it in messages, usually its path.

    Raises:
        MetricDeclarationError: With one line for every mark that is wrong.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        said = error.msg if isinstance(error, SyntaxError) else error
        raise MetricDeclarationError(f"{name}{line}: is not valid Python: {said}") from error
    found: dict[str, MetricKind] = {}
    problems: list[str] = []
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in function.decorator_list:
            if not _is_mark(mark):
                continue
            where = f"{name}:{mark.lineno}: `{function.name}`"
            if isinstance(function, ast.AsyncFunctionDef):
                problems.append(f"{where}: must be a plain function, not an async one")
            elif function.name in BUILT_IN:
                problems.append(f"{where}: is a built-in metric; choose another name")
            elif function.name in found:
                problems.append(f"{where}: is defined twice; rename one")
            elif function not in module.body:
                problems.append(f"{where}: must be a function of the module, not inside of another")
            kind = _kind(mark, where, problems)
            if kind is not None:
                found[function.name] = kind
    if problems:
        raise MetricDeclarationError("\n".join(problems))
    return found


def _is_mark(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name == _MARK


def _kind(mark: ast.expr, where: str, problems: list[str]) -> MetricKind | None:
    """What a mark says; None, with the problems noted, if it is wrong."""
    given = mark.keywords if isinstance(mark, ast.Call) else []
    wrong = []
    values: dict[str, Any] = {}
    if isinstance(mark, ast.Call) and mark.args:
        wrong.append("name each argument, e.g. better=")
    for keyword in given:
        allowed = _CHOICES.get(keyword.arg or "**")
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if allowed is None:
            wrong.append(f"{keyword.arg or '**'} is unknown; it takes {', '.join(_CHOICES)}")
        elif value not in allowed:
            choices = " or ".join(f'"{choice}"' for choice in allowed)
            wrong.append(f"{keyword.arg} must be {choices}, written as plain text")
        else:
            values[str(keyword.arg)] = value
    if not wrong and "better" not in values:
        wrong.append('say which value is better: @metric(better="smaller") or "larger"')
    if values.get("of") == "probability" and values.get("task") == "regression":
        wrong.append("there are probabilities for classification only")
    problems += [f"{where}: @metric: {one}" for one in wrong]
    return None if wrong else MetricKind(**values)
