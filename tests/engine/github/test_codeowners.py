"""CODEOWNERS: reading it and filling it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.core.errors import GitopsError
from gitops_ml.github.codeowners import (
    CODEOWNERS,
    check_owner,
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
