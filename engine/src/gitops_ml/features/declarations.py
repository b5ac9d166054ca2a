"""What can be seen of `features.py` without running it: how columns are declared, and clocks.

A function that is marked where nobody finds it would be no column, and nothing would say so: inside
a class or another function, below another decorator, or under a name that is given twice. A clock
gives another value tomorrow than the model learnt from, which no run of today can show; it is
looked for in the package's modules that `features.py` imports, too.

The service imports this module, which needs no library.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.user_code import shown

MARK = "derived"
# Methods of whatever object, for its class may come from anywhere: datetime, date, Timestamp.
_CLOCKS = frozenset({"now", "utcnow", "today"})
_CLOCK_TEXTS = frozenset({"now", "today"})
_COUNTERS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
# Functions of the module `time`, and how many arguments spare them the clock; None if none does.
_TIME: dict[str, int | None] = {
    **dict.fromkeys((*_COUNTERS, *(f"{name}_ns" for name in _COUNTERS)), None),
    **dict.fromkeys(("localtime", "gmtime", "ctime", "asctime"), 1),
    "strftime": 2,
}

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
    tree = _parsed(file)
    if tree is None:
        return
    problems = [f"{shown(file)}:{problem}" for problem in _lost(tree)]
    for module, parsed in _with_imported(file, tree).items():
        problems += [f"{shown(module)}:{problem}" for problem in _clocks(parsed)]
    if problems:
        raise DeclarationError("\n".join(problems))


def _parsed(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _with_imported(file: Path, tree: ast.Module) -> dict[Path, ast.Module]:
    """A module of the package, and those of the package that it needs, each with its file."""
    found = {file: tree}
    left = [file]
    while left:
        one = left.pop()
        for imported in _imported(one, found[one], file.parent):
            parsed = None if imported in found else _parsed(imported)
            if parsed is not None:
                found[imported] = parsed
                left.append(imported)
    return found


def _imported(file: Path, tree: ast.Module, package: Path) -> Iterator[Path]:
    """The files that a module of the package may import from it."""
    inside = file.relative_to(package).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                above = (package.name, *inside)
                start = (*above[: len(above) - node.level + 1], *start)
            # What is imported from a package may be a module.
            names = [start, *((*start, alias.name) for alias in node.names)]
        else:
            continue
        for name in names:
            if name[:1] == (package.name,):
                place = package.joinpath(*name[1:])
                yield from (place.with_name(f"{place.name}.py"), place / "__init__.py")


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
    names = _names_of_time(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not _is_clock(node, names):
            continue
        around = [
            one.name for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)
        ]
        place = f" `{around[-1]}`:" if around else ""
        yield (
            f"{node.lineno}:{place} `{ast.unparse(node)}` asks the clock, so that a row would get "
            "another value tomorrow than the model learnt from; give rows a column with the moment"
        )


def _names_of_time(tree: ast.Module) -> dict[str, str]:
    """What a file calls the module `time` and its functions: `time` or `time.NAME`, by its name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(
                {one.asname or one.name: "time" for one in node.names if one.name == "time"}
            )
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and not node.level:
            found.update({one.asname or one.name: f"time.{one.name}" for one in node.names})
    return found


def _is_clock(call: ast.Call, names: dict[str, str]) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        name, of = function.id, ""
        module, _, known = names.get(name, "").partition(".")
    elif isinstance(function, ast.Attribute):
        name, of = function.attr, ast.unparse(function.value)
        module, known = names.get(of, ""), name
    else:
        return False
    if module == "time" and known in _TIME:
        spared = _TIME[known]
        return spared is None or len(call.args) < spared
    first = call.args[0] if call.args else None
    if name == "datetime64":
        return isinstance(first, ast.Constant) and first.value in _CLOCK_TEXTS
    return bool(of) and name in _CLOCKS
