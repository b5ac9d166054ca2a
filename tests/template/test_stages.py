"""Every stage names the code that it runs, or a change there would leave its results standing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gitops_ml.serving.release import PACKAGE

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def file_of(module: str, source: Path = SOURCE) -> Path | None:
    """The file that a module of the package is in; None if there is no such module."""
    place = source.joinpath(*module.split("."))
    found = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in found if path.is_file()), None)


def named_in(path: Path, source: Path = SOURCE) -> Iterator[str]:
    """What a file's import statements name: modules, and perhaps things inside of them."""
    package = path.relative_to(source).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def code_of(module: str, source: Path = SOURCE) -> set[str]:
    """The files of the package that run with a module, wherever in a file they are imported.

    An `__init__.py` counts once it holds more than its description.
    """
    found: set[Path] = set()
    left = [module]
    while left:
        name = left.pop()
        path = file_of(name, source)
        if name.partition(".")[0] != module.partition(".")[0] or path is None or path in found:
            continue
        found.add(path)
        # A module's packages are imported before it.
        left += [*named_in(path, source), name.rpartition(".")[0]]
    return {
        str(path.relative_to(source.parent))
        for path in found
        if path.name != "__init__.py" or does_something(path)
    }


def does_something(path: Path) -> bool:
    """Whether a file holds more than texts."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not isinstance(statement, ast.Expr) for statement in statements)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(stage: str) -> None:
    module = re.fullmatch(r"python -m ([\w.]+)", STAGES[stage]["cmd"])
    assert module
    named = [name for name in STAGES[stage]["deps"] if name.endswith(".py")]

    assert sorted(named) == sorted(code_of(module[1]))


def test_the_code_is_found_however_it_is_imported(tmp_path: Path) -> None:
    files = {
        "shop/__init__.py": '"""A shop."""\n',
        "shop/till/__init__.py": "from . import drawer\n",
        "shop/till/run.py": "from .. import paths\nfrom ..goods.price import tax\nimport json\n",
        "shop/till/drawer.py": "",
        "shop/goods/__init__.py": '"""Goods."""\n',
        "shop/goods/price.py": "def tax():\n    import shop.goods.rates as r\n    return r\n",
        "shop/goods/rates.py": "import elsewhere\n",
        "shop/goods/unused.py": "",
        "shop/paths.py": "",
    }
    for name, text in files.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(text, encoding="utf-8")

    found = code_of("shop.till.run", tmp_path / "src")

    unused = {"shop/__init__.py", "shop/goods/__init__.py", "shop/goods/unused.py"}
    assert found == {f"src/{name}" for name in set(files) - unused}


def test_this_package_is_looked_at() -> None:
    assert f"src/{PACKAGE}/settings.py" in code_of(f"{PACKAGE}.model.train")
