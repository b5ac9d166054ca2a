"""Which files of a project decide what a green run means.

Some are what the judge is made of: no run can stop a change of these, only somebody who reads it.
The others it reads. Both have an owner (`.github/CODEOWNERS`); a comment on a pull request names
the former.
"""

from __future__ import annotations

import re
from pathlib import Path

from gitops_ml.core import paths

WORKFLOWS = "workflows and settings of GitHub"
ENGINE = "engine"
TASKS = "tasks and stages"
TESTS = "tests"
LOCKS = "locks"
CODE = "code that trains and answers"
TOOLS = "settings of tools"

# The parts in the order in which people should look at them.
PARTS = (WORKFLOWS, ENGINE, TASKS, TESTS, LOCKS, CODE, TOOLS)

_FOLDERS = {
    ".dvc": TASKS,
    ".github": WORKFLOWS,
    "engine": ENGINE,
    paths.SOURCES.as_posix(): CODE,
    "tests": TESTS,
}
# GNU make takes the first of the three that is there.
_FILES = {
    **dict.fromkeys(("GNUmakefile", "makefile", "Makefile", paths.DVC_YAML.name), TASKS),
    paths.DVC_LOCK.name: LOCKS,
    paths.UV_LOCK.name: LOCKS,
}
# What is judged, and by what: the gate compares these with the base's itself.
_JUDGED = frozenset(
    path.name for path in (paths.CONTRACT, paths.CONTRACT_SCHEMA, paths.PARAMS, paths.SCHEMA)
)
_JUDGED_FOLDERS = frozenset({"data", paths.MODELS.as_posix(), paths.REPORTS.as_posix()})
_DATA_CARD = "data/README.md"
_DOCUMENT = re.compile(r".+\.(?:md|rst|txt|cff)|LICENSE|NOTICE|AUTHORS")

# What must have an owner also where it is not there yet: whoever adds it changes what runs.
NOT_THERE_YET = (
    ".github/workflows/new.yml",
    ".venv/bin/python",
    "GNUmakefile",
    "conftest.py",
    "contract.yaml",
    "data/landed/new.parquet",
    "dvc.lock",
    "dvc.yaml",
    "engine/src/gitops_ml/new.py",
    "models/manifest.json",
    "params.yaml",
    "pyproject.toml",
    "reports/gate.json",
    "schema.yaml",
    "sitecustomize.py",
    "src/new/new.py",
    "tests/conftest.py",
    "uv.lock",
    "uv.toml",
)


def part_of(path: str) -> str | None:
    """Which part of the judge a file is; None if it is none.

    A file at the top that is not known to be harmless counts as a setting: tools look there for
    theirs, and Python for `sitecustomize.py` and its like.

    Args:
        path: The file in the project, with slashes.
    """
    top, slash, _ = path.partition("/")
    if slash:
        hidden = TOOLS if top.startswith(".") else None
        return _FOLDERS.get(top, hidden)
    if top in _JUDGED or (_DOCUMENT.fullmatch(top) and not top.startswith(".")):
        return None
    return _FILES.get(top, TOOLS)


def is_read(path: str, source: Path | None = None) -> bool:
    """Whether the judge is made of a file, or reads it.

    Args:
        path: The file in the project, with slashes.
        source: Where the landed files are, `data.source` of `params.yaml`, if that is known.
    """
    if part_of(path) is not None or path in _JUDGED:
        return True
    if path == _DATA_CARD:
        return False
    landed = source is not None and Path(path).is_relative_to(source)
    return landed or path.partition("/")[0] in _JUDGED_FOLDERS
