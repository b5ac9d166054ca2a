"""What a pull request touches of the judge, and how that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_actions import NAME, TOKEN, FakeActions
from pytest_httpserver import HTTPServer

from gitops_ml.core.judge_files import CODE, ENGINE, LOCKS, TESTS, WORKFLOWS
from gitops_ml.github.client import GitHub
from gitops_ml.report.touched import LISTED, NAMED, Touched, find_touched, notice


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[HTTPServer, HTTPServer]]:
    with HTTPServer() as server, HTTPServer() as storage:
        yield server, storage


@pytest.fixture
def api(servers: tuple[HTTPServer, HTTPServer]) -> FakeActions:
    for server in servers:
        server.clear()
    return FakeActions(*servers)


def found(api: FakeActions, *files: str | dict[str, Any]) -> Touched:
    api.files = [
        {"filename": file, "status": "modified"} if isinstance(file, str) else file
        for file in files
    ]
    return find_touched(GitHub(api.url, TOKEN, sleep=lambda _: None), NAME, 7)


def test_a_change_of_other_files_is_not_worth_a_word(api: FakeActions) -> None:
    touched = found(api, "README.md", "contract.yaml", "params.yaml", "data/landed/a.parquet")
    assert touched == Touched()
    assert notice(touched) == ""


def test_the_judge_s_files_are_grouped_and_counted(api: FakeActions) -> None:
    touched = found(
        api, "uv.lock", ".github/workflows/pipeline.yml", "src/late/metrics.py", "reports/g.json",
        "tests/test_model.py", "dvc.lock", "engine/src/gitops_ml/gate/gate.py",
    )  # fmt: skip
    lines = notice(touched).splitlines()
    assert lines[0] == (
        "**👀 This change touches 6 files of the judge's own. No run can stop what a change of "
        "these does, only somebody who reads it:**"
    )
    assert lines[2:] == [
        f"- {WORKFLOWS} (1): .github/workflows/pipeline.yml",
        f"- {ENGINE} (1): engine/src/gitops\\_ml/gate/gate.py",
        f"- {TESTS} (1): tests/test\\_model.py",
        f"- {LOCKS} (2): uv.lock, dvc.lock",
        f"- {CODE} (1): src/late/metrics.py",
    ]


def test_what_is_moved_away_or_removed_is_touched(api: FakeActions) -> None:
    moved = {"filename": "docs/a.md", "previous_filename": "tests/a.py", "status": "renamed"}
    removed = {"filename": "tests/b.py", "status": "removed"}
    assert found(api, moved, removed) == Touched({TESTS: ["tests/a.py", "tests/b.py"]})


def test_many_files_are_counted_over_all_pages(api: FakeActions) -> None:
    touched = found(api, *(f"src/late/m{number:03}.py" for number in range(250)))
    line = notice(touched).splitlines()[2]
    assert line.startswith(f"- {CODE} (250): src/late/m000.py, ")
    assert line.endswith(f"src/late/m009.py and {250 - NAMED} more")
    assert not touched.cut


def test_more_files_than_github_lists_are_no_secret(api: FakeActions) -> None:
    """Whoever adds 3,000 files in front of a workflow's cannot hide that one."""
    touched = found(api, *(f"docs/{number}.md" for number in range(LISTED)), "tests/x.py")
    assert touched == Touched(cut=True)
    assert "Only 3,000 of its files were looked at" in notice(touched)


def test_what_github_does_not_say_is_said(api: FakeActions) -> None:
    api.refusals[f"GET /repos/{NAME}/pulls/7/files"] = [422]
    said = notice(found(api, "uv.lock"))
    assert "is not known: " in said
    assert "refused for the test" in said


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tests/[a](https://evil.example)", "tests/\\[a\\](https:\u200b//evil.example)"),
        ("tests/<img src=x>", "tests/&lt;img src=x&gt;"),
        ("tests/@ada", "tests/@\u200bada"),
        ("tests/a\n\n## ✅ Promote", "tests/a #\u200b#\u200b ✅ Promote"),
        ("tests/a\u202egnp.exe", "tests/agnp.exe"),
        ("tests/`a`|b", "tests/\\`a\\`\\|b"),
        ("tests/" + "x" * 200, f"tests/{'x' * 74}…"),
        ("tests/**b**", "tests/\\*\\*b\\*\\*"),
    ],
)
def test_a_name_cannot_be_more_than_a_name(api: FakeActions, name: str, shown: str) -> None:
    lines = notice(found(api, name)).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(f"- {TESTS} (1): ")
    assert shown in lines[2]
