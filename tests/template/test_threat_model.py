"""A project's threat model: each row has a test that shows it, or the page says that nothing does.

`threats.toml` names the tests. Whether they exist is read from their files; they run where they
are.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import OPTIONS, TEMPLATE, Bake

PAGE_LINES = 120
LAST = "## What nothing stops"
# Rows of a table and items of the last section, by the bold words that they begin with.
ROW = re.compile(r"^\| \*\*(.+?)\*\* \|.*\|$", re.MULTILINE)
ITEM = re.compile(r"^- \*\*(.+?)\*\*", re.MULTILINE)
# Files and folders that a page names and git keeps; locks and tags are made later.
NAMED = re.compile(r"`((?:\.\w+/)?[\w./-]+\.(?:ya?ml|sh|json|py)|Makefile)`")


def table() -> dict[str, Any]:
    path = Path(__file__).with_name("threats.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def page_of(project: Path) -> str:
    return (project / "docs" / "threat-model.md").read_text(encoding="utf-8")


def rows(page: str) -> set[str]:
    return set(ROW.findall(page.partition(LAST)[0]))


def holes(page: str) -> set[str]:
    return set(ITEM.findall(page.partition(LAST)[2]))


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The tests of a file, those of a class behind its name, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [("", tree.body)]
    classes += [(f"{one.name}::", one.body) for one in tree.body if isinstance(one, ast.ClassDef)]
    return frozenset(
        f"{where}{node.name}"
        for where, body in classes
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def missing(shown: Mapping[str, Sequence[str]], root: Path = TEMPLATE) -> list[str]:
    """Rows without a test, and tests that are not there."""
    found = [f"{row}: no test" for row, nodes in shown.items() if not nodes]
    for row, nodes in shown.items():
        for node in nodes:
            file, _, name = node.partition("::")
            if not (root / file).is_file() or name not in defined_in(root / file):
                found.append(f"{row}: {node}")
    return found


def test_each_test_that_shows_a_row_exists() -> None:
    assert missing(table()["shown"]) == []


def test_a_row_without_a_test_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "def test_one(): ...\ndef helper(): ...\nclass TestA:\n    def test_three(self): ...\n",
        encoding="utf-8",
    )
    shown = {
        "one": ["test_a.py::test_one"],
        "none": [],
        "of a class": ["test_a.py::TestA::test_three"],
        "gone": ["test_a.py::test_two"],
        "no test": ["test_a.py::helper"],
        "no file": ["test_b.py::test_one"],
    }
    assert missing(shown, tmp_path) == [
        "none: no test",
        "gone: test_a.py::test_two",
        "no test: test_a.py::helper",
        "no file: test_b.py::test_one",
    ]


def test_every_row_of_every_project_is_shown_or_said_to_be_open(bake: Bake) -> None:
    pages = [page_of(bake(deploy_target=target)) for target in OPTIONS["deploy_target"]]
    known = table()
    assert set.union(*map(rows, pages)) == known["shown"].keys()
    assert set.union(*map(holes, pages)) == set(known["open"]["names"])
    assert len(known["open"]["names"]) == len(set(known["open"]["names"]))


def test_rows_and_items_are_read_as_they_are_written() -> None:
    page = f"| who | what |\n|---|---|\n| **A `b`: c** | **no** | |\n\n{LAST}\n\n- **D.** e\n  f\n"
    assert (rows(page), holes(page)) == ({"A `b`: c"}, {"D."})


@pytest.mark.parametrize("target", OPTIONS["deploy_target"])
def test_the_page_is_short_and_about_this_project_only(bake: Bake, target: str) -> None:
    project = bake(deploy_target=target)
    page = page_of(project)
    lines = page.splitlines()
    assert len(lines) <= PAGE_LINES
    # A row that is no row would be in no table: each has three cells.
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {4}
    assert len(rows(page)) + 2 * tables.count("|---|---|---|") == len(tables)
    assert len(holes(page)) == page.partition(LAST)[2].count("\n- ")
    # Neither this template's tests nor what another target has.
    assert not re.search(r"test_\w+|pytest|template|engine/src", page)
    names = set(NAMED.findall(page))
    assert {name for name in names if not (project / name).exists()} == set()
    others = {
        "kubernetes": ("Argo CD", "Kyverno", "admission policy", "cluster"),
        "host": ("SIGNED_BY", "the machine"),
        "bentocloud": ("BentoCloud", "BENTO_CLOUD"),
    }
    foreign = [word for other, words in others.items() if other != target for word in words]
    assert [word for word in foreign if word in page] == []
    delivers = ("env/**", "staging", "deliver", "make lineage", "hotfix")
    if target == "none":
        assert [word for word in delivers if word in page] == []
