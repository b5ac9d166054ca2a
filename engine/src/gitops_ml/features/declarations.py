"""What can be seen of `features.py` without running it: how columns are declared, and clocks.

A function that is marked where nobody finds it would be no column, and nothing would say so: inside
a class or another function, below another decorator, or under a name that is given twice. A clock
gives another value tomorrow than the model learnt from, which no run of today can show.

The service imports this module, which needs no library.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.user_code import shown

MARK = "derived"
_CLOCKS = frozenset({"now", "utcnow", "today", "time_ns", "monotonic", "perf_counter"})
_CLOCK_TEXTS = frozenset({"now", "today"})

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class DeclarationError(GitopsError):
    """`features.py` declares what cannot be found or kept; the message names file and line."""


def check_declarations(file: Path) -> None:
    """Look for declarations that would be lost, and for clocks.

    Args:
        file: The user's `features.py`; one that is not there, or is no Python, passes: whoever
            imports it tells so.

    Raises:
        DeclarationError: With one line for each.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    problems = [*_lost(tree), *_clocks(tree)]
    if problems:
        raise DeclarationError("\n".join(f"{shown(file)}:{problem}" for problem in problems))


def _lost(tree: ast.Module) -> Iterator[str]:
    inside = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, _Definition)
        for inner in ast.walk(outer)
        if inner is not outer
    }
    seen: dict[str, int] = {}
    for node in ast.walk(tree):
        marks = [one for one in getattr(node, "decorator_list", ()) if _is_mark(one)]
        if not isinstance(node, _Definition) or not marks:
            continue
        start = f"{marks[0].lineno}: derived column `{node.name}`:"
        if not isinstance(marks[0], ast.Call) or marks[0].args:
            yield f'{start} name each argument of the mark, as in @derived(type="number")'
        if id(node) in inside:
            yield f"{start} must be a function of the module, not inside of a class or function"
        if marks[0] is not node.decorator_list[0]:
            yield f"{start} @derived must be the topmost decorator"
        if node.name in seen:
            yield f"{start} is defined in line {seen[node.name]} too; rename one of them"
        seen[node.name] = node.lineno


def _is_mark(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name == MARK


def _clocks(tree: ast.Module) -> Iterator[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not _is_clock(node):
            continue
        around = [
            one.name for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)
        ]
        place = f" `{around[-1]}`:" if around else ""
        yield (
            f"{node.lineno}:{place} `{ast.unparse(node)}` asks the clock, so that a row would get "
            "another value tomorrow than the model learnt from; give rows a column with the moment"
        )


def _is_clock(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        name, of = function.id, ""
    elif isinstance(function, ast.Attribute):
        name, of = function.attr, ast.unparse(function.value)
    else:
        return False
    first = call.args[0] if call.args else None
    if name == "datetime64":
        return isinstance(first, ast.Constant) and first.value in _CLOCK_TEXTS
    return bool(of) and (name in _CLOCKS or (of, name) == ("time", "time"))
