"""CODEOWNERS: reading it and filling it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.core.errors import GitopsError
from gitops_ml.github.codeowners import (
    CODEOWNERS,
    check_owner,
    deciding_entry,
    fill_in,
    parse_codeowners,
    read_codeowners,
    without_owner,
)

TEXT = """\
# Who reviews.

/contract.yaml @ada @team/ml  # two
/.github/
/Makefile   # nobody yet
"""


def test_reads_patterns_and_owners() -> None:
    found = [(e.line, e.pattern, e.owners) for e in parse_codeowners(TEXT)]
    assert found == [
        (3, "/contract.yaml", ("@ada", "@team/ml")),
        (4, "/.github/", ()),
        (5, "/Makefile", ()),
    ]
    assert [entry.line for entry in without_owner(TEXT)] == [4, 5]


def test_fills_in_what_has_no_owner_and_nothing_else() -> None:
    filled = fill_in(TEXT, "@team/ops")
    assert filled == TEXT.replace("/.github/", "/.github/ @team/ops").replace(
        "/Makefile   # nobody", "/Makefile @team/ops # nobody"
    )
    assert fill_in(filled, "@other") == filled


@pytest.mark.parametrize("owner", ["@ada", "@team-1/ml_ops.eu"])
def test_accepts_users_and_teams(owner: str) -> None:
    assert check_owner(owner) == owner


@pytest.mark.parametrize("owner", ["", "ada", "@", "@-ada", "@team/", "@a b", "@a/b/c", "@ada\n"])
def test_refuses_what_is_no_owner(owner: str) -> None:
    with pytest.raises(GitopsError, match="@user or @organisation/team"):
        check_owner(owner)


def test_says_that_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(GitopsError, match="no such file"):
        read_codeowners(tmp_path)
    (tmp_path / CODEOWNERS).parent.mkdir()
    (tmp_path / CODEOWNERS).write_bytes(b"/x @\xff")
    with pytest.raises(GitopsError, match="cannot be read"):
        read_codeowners(tmp_path)


WITH_EXCEPTIONS = """\
*
/docs/  # pages
/src/ @ada
/src/notes/
"""


def test_exceptions_below_the_default_wait_for_nobody() -> None:
    assert [entry.pattern for entry in without_owner(WITH_EXCEPTIONS)] == ["*"]
    filled = fill_in(WITH_EXCEPTIONS, "@team/ml")
    assert filled == WITH_EXCEPTIONS.replace("*\n", "* @team/ml\n", 1)
    assert without_owner(filled) == []
    # What stands above the default is decided by it, and was to have an owner of its own.
    assert [e.pattern for e in without_owner("/docs/\n* @team/ml\n")] == ["/docs/"]


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("uv.lock", ("@team/ml",)),
        ("docs/a.md", ()),
        ("docs/a/b.md", ()),
        ("engine/docs/a.md", ("@team/ml",)),
        ("src/late/model.py", ("@ada",)),
        ("src/notes/todo.md", ()),
    ],
)
def test_the_last_line_that_matches_counts(path: str, owners: tuple[str, ...]) -> None:
    entry = deciding_entry(parse_codeowners(fill_in(WITH_EXCEPTIONS, "@team/ml")), path)
    assert entry is not None
    assert entry.owners == owners


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*", ["a", ".github/x", "a/b/c.py"], []),
        ("*.py", ["a.py", "src/late/a.py"], ["a.pyc", "py"]),
        ("/*", ["a", ".env"], ["a/b"]),
        ("/*.py", ["a.py"], ["src/a.py"]),
        ("docs", ["docs", "docs/a", "src/docs/a/b"], ["docs2/a", "mydocs"]),
        ("docs/", ["docs/a", "src/docs/a/b"], ["docs", "mydocs/a"]),
        ("/docs/", ["docs/a", "docs/a/b"], ["docs", "src/docs/a"]),
        ("/docs", ["docs", "docs/a/b"], ["src/docs/a", "docs.md"]),
        ("docs/*", ["docs/a"], ["docs/a/b", "src/docs/a"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["src/docs/a"]),
        ("docs/*.md", ["docs/a.md"], ["docs/a/b.md", "src/docs/a.md"]),
        ("src/late/model.py", ["src/late/model.py"], ["x/src/late/model.py"]),
        ("**/late", ["late", "src/late/a.py", "a/b/late"], ["src/lately/a"]),
        ("/src/**/model.py", ["src/model.py", "src/a/b/model.py"], ["model.py", "src/amodel.py"]),
        ("/src/*/model.py", ["src/a/model.py"], ["src/model.py", "src/a/b/model.py"]),
        ("**", ["a", "a/b"], []),
        ("data?.csv", ["data1.csv", "x/data2.csv"], ["data.csv", "data/.csv"]),
        ("a\\ b.md", ["a b.md"], ["a", "b.md"]),
        ("a+b.md", ["a+b.md"], ["aab.md"]),
        # GitHub passes over such lines.
        ("[ab].md", [], ["a.md", "[ab].md"]),
        ("!a.md", [], ["a.md", "!a.md"]),
        ("***", [], ["a", "a/b"]),
        ("/", [], ["a", "a/b"]),
    ],
)
def test_a_pattern_matches_as_on_github(
    pattern: str, matches: list[str], others: list[str]
) -> None:
    (entry,) = parse_codeowners(f"{pattern} @ada")
    assert [path for path in [*matches, *others] if entry.matches(path)] == matches
