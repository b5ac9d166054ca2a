"""The contracts of import-linter forbid each import that goes up, and what the service must not."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tomllib
from pathlib import Path

from conftest import ENGINE, TEMPLATE, Run

# From the ground up: a room imports only from those before it.
ROOMS = [
    *("core", "github", "lake", "data", "features", "model", "serving", "gate", "bento", "report"),
    *("monitor", "doctor", "ship", "checks"),
]


def lint(folder: Path, run: Run) -> str:
    """What import-linter says of a copy of the engine, on one line."""
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": os.environ["PATH"]}
    command = ["lint-imports", "--no-cache", "--config", TEMPLATE / "pyproject.toml"]
    return " ".join(run(command, folder, env=environment).stdout.split())


def test_each_import_that_goes_up_is_refused(tmp_path: Path, run: Run) -> None:
    package = tmp_path / "src" / "gitops_ml"
    shutil.copytree(ENGINE / "src" / "gitops_ml", package)
    assert "2 kept, 0 broken" in lint(tmp_path, run)

    for place, room in enumerate(ROOMS):
        (package / room / "planted.py").write_text("", encoding="utf-8")
        above = "".join(f"import gitops_ml.{other}.planted\n" for other in ROOMS[place + 1 :])
        (package / room / "planting.py").write_text(above, encoding="utf-8")
    for room in ("data", "github", "lake"):
        with (package / "serving" / "planting.py").open("a", encoding="utf-8") as file:
            file.write(f"import gitops_ml.{room}.planted\n")

    said = lint(tmp_path, run)

    assert "0 kept, 2 broken" in said
    refused = set(re.findall(r"gitops_ml\.(\w+)\.planting -> gitops_ml\.(\w+)\.planted", said))
    wanted = set(itertools.combinations(ROOMS, 2)) | {
        ("serving", room) for room in ("data", "github", "lake")
    }
    assert wanted - refused == set()


def test_every_room_has_its_place() -> None:
    settings = tomllib.loads((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    package = ENGINE / "src" / "gitops_ml"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    assert layers[::-1] == [f"gitops_ml.{room}" for room in [*ROOMS, "cli"]]
    assert rooms == set(ROOMS)
