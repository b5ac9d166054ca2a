"""Every stage names the code that it runs, or a change there would leave its results standing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ENGINE, PROJECT_TEMPLATE

from gitops_ml.cli import COMMANDS

SOURCE = ENGINE / "src"
DVC = (PROJECT_TEMPLATE / "dvc.yaml").read_text(encoding="utf-8")
STAGES = yaml.safe_load(DVC)["stages"]
ROOMS = "engine/src/gitops_ml/"


def file_of(module: str, source: Path = SOURCE) -> Path | None:
    """The file that a module of the engine is in; None if there is no such module."""
    place = source.joinpath(*module.split("."))
    found = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in found if path.is_file()), None)


def named_in(path: Path) -> Iterator[str]:
    """What a file's import statements name: modules, and perhaps things inside of them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(module: str, source: Path = SOURCE) -> set[str]:
    """The rooms whose code runs with a module, wherever in a file they are imported."""
    found: set[Path] = set()
    left = [module]
    while left:
        path = file_of(left.pop(), source)
        if path is not None and path not in found:
            found.add(path)
            left += named_in(path)
    places = (path.relative_to(source).parts for path in found)
    return {parts[1] for parts in places if len(parts) > 2}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_users_code_if_it_runs_it(stage: str) -> None:
    module = f"gitops_ml.{COMMANDS[STAGES[stage]['cmd'].split()[1]].module}"
    users = "src/<< cookiecutter.project_slug >>"

    assert (users in STAGES[stage]["deps"]) == ("features" in rooms_of(module))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_that_it_runs(stage: str) -> None:
    program, command = STAGES[stage]["cmd"].split()
    assert program == "gitops-ml"
    deps = [name for name in STAGES[stage]["deps"] if name.startswith(ROOMS)]

    assert sorted(deps) == sorted(
        f"{ROOMS}{room}" for room in rooms_of(f"gitops_ml.{COMMANDS[command].module}")
    )


def test_no_stage_depends_on_what_judges_or_ships() -> None:
    """Their changes retrain nothing."""
    rooms = {name for stage in STAGES.values() for name in stage["deps"] if "gitops_ml" in name}
    assert rooms == {f"{ROOMS}{room}" for room in ("core", "data", "features", "model")}


def test_the_pipeline_fits_on_a_screen_or_two() -> None:
    assert len(DVC.splitlines()) < 90


def test_rooms_are_found_wherever_they_are_imported(tmp_path: Path) -> None:
    files = {
        "shop/__init__.py": "",
        "shop/till/__init__.py": "",
        "shop/till/run.py": "def pay():\n    from shop.goods import price\n",
        "shop/goods/__init__.py": "",
        "shop/goods/price.py": "import shop.tax.rates\n",
        "shop/tax/__init__.py": "",
        "shop/tax/rates.py": "import elsewhere\n",
        "shop/unused/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    assert rooms_of("shop.till.run", tmp_path) == {"till", "goods", "tax"}


def test_no_stage_runs_again_for_a_setting_of_the_monitor() -> None:
    read = [key for stage in STAGES.values() for key in stage.get("params", [])]
    named = {key.partition(".")[0] for key in read if isinstance(key, str)}
    assert {"data", "train", "evaluate"} <= named
    assert "monitor" not in named
    paths = [name for stage in STAGES.values() for name in stage["deps"]]
    assert "params.yaml" not in paths
    assert not any("gitops_ml/monitor" in name for name in paths)
