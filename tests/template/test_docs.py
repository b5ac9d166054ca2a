"""What a generated project says of itself: short, whole, and true of the project it is in."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import OPTIONS, Bake

README_LINES = 150
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TASK = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
# In a code block, or between backticks.
COMMAND = re.compile(r"^ {4,}(make .+)$|`(make [^`]+)`", re.MULTILINE)

each_target = pytest.mark.parametrize("target", OPTIONS["deploy_target"])


def pages(project: Path) -> list[Path]:
    """What the project's own people read."""
    folders = ("docs", "deploy", "data")
    below = [page for folder in folders for page in (project / folder).rglob("*.md")]
    return [project / "README.md", *sorted(below)]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(markdown: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = [heading.lower() for heading in HEADING.findall(markdown)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Links to a file that is not there, or to a heading that it does not have."""
    dead = []
    for link in LINK.findall(text(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file() or (anchor and anchor not in anchors(text(target))):
            dead.append(link)
    return dead


def unknown_tasks(markdown: str, makefile: str) -> list[str]:
    """Tasks that a page names and the Makefile does not have."""
    tasks = set(TASK.findall(makefile))
    found = []
    for block, span in COMMAND.findall(markdown):
        words = shlex.split(block or span, comments=True)[1:]
        found += [word for word in words if "=" not in word and word not in tasks]
    return found


def unlinked(project: Path) -> set[str]:
    """Pages of docs/ that the README does not lead to."""
    links = set(LINK.findall(text(project / "README.md")))
    return {f"docs/{page.name}" for page in (project / "docs").iterdir()} - links


@each_target
def test_the_pages_are_short_whole_and_true(bake: Bake, target: str) -> None:
    project = bake(deploy_target=target)
    makefile = text(project / "Makefile")
    read = pages(project)

    assert len(text(project / "README.md").splitlines()) <= README_LINES
    assert {
        str(page.relative_to(project)): dead for page in read if (dead := dead_links(page))
    } == {}
    assert unlinked(project) == set()
    named = {
        str(page.relative_to(project)): unknown
        for page in read
        if (unknown := unknown_tasks(text(page), makefile))
    }
    assert named == {}


@each_target
def test_own_data_come_first(bake: Bake, target: str) -> None:
    links = LINK.findall(text(bake(deploy_target=target) / "README.md").partition("Where to go")[2])

    assert links[0] == "docs/own-data.md"
    assert ("docs/deliver.md" in links) is (target != "none")


@pytest.mark.parametrize("defect", ["gone.md", "other.md#gone", "#gone", "docs"])
def test_dead_links_are_seen(tmp_path: Path, defect: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "other.md").write_text("## What `dvc.lock` says\n", encoding="utf-8")
    page = tmp_path / "page.md"
    fine = "# Here\n[a](other.md#what-dvclock-says) [b](#here) [c](https://example.com/x)\n"
    page.write_text(f"{fine}[d]({defect})\n", encoding="utf-8")

    assert dead_links(page) == [defect]


@pytest.mark.parametrize(
    "defect", ["    make nothing", "       make gate nothing # no", "say `make nothing`"]
)
def test_tasks_that_do_not_exist_are_seen(defect: str) -> None:
    fine = (
        "    make gate BASE=HEAD ARGS='--a \"b c\"'  # judge\n`make gate`; what users make of it\n"
    )

    assert unknown_tasks(f"{fine}{defect}\n", "gate:  ## Judge\n") == ["nothing"]


def test_a_page_without_a_way_to_it_is_seen(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("one.md", "two.md"):
        (tmp_path / "docs" / name).touch()
    (tmp_path / "README.md").write_text("[one](docs/one.md)\n", encoding="utf-8")

    assert unlinked(tmp_path) == {"docs/two.md"}
