"""`.github/CODEOWNERS`: whose review a change of some files needs.

https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.core.errors import GitopsError

CODEOWNERS = Path(".github/CODEOWNERS")

OWNER_RULE = "@user or @organisation/team"
_OWNER = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True)
class Entry:
    """One line of the file: a pattern of paths, and who owns them."""

    line: int
    pattern: str
    owners: tuple[str, ...]


def check_owner(owner: str) -> str:
    """The owner, if it has the form of one.

    Raises:
        GitopsError: If it has not.
    """
    if not _OWNER.fullmatch(owner):
        raise GitopsError(f"the owner is {owner!r}; it must be {OWNER_RULE}")
    return owner


def read_codeowners(root: Path = Path()) -> str:
    """The text of the file.

    Raises:
        GitopsError: If it is missing or cannot be read.
    """
    try:
        return (root / CODEOWNERS).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise GitopsError(f"{CODEOWNERS}: no such file; restore it from git") from error
    except (OSError, UnicodeDecodeError) as error:
        raise GitopsError(f"{CODEOWNERS}: cannot be read: {error}") from error


def parse_codeowners(text: str) -> list[Entry]:
    """The lines that say something."""
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words:
            entries.append(Entry(number, words[0], tuple(words[1:])))
    return entries


def without_owner(text: str) -> list[Entry]:
    """The lines that ask for nobody's review."""
    return [entry for entry in parse_codeowners(text) if not entry.owners]


def fill_in(text: str, owner: str) -> str:
    """The text with an owner on every line that has none."""
    empty = {entry.line for entry in without_owner(text)}
    lines = text.splitlines(keepends=True)
    for number in empty:
        pattern, hash_sign, comment = lines[number - 1].rstrip("\n").partition("#")
        lines[number - 1] = f"{pattern.rstrip()} {owner}"
        lines[number - 1] += f" {hash_sign}{comment}\n" if hash_sign else "\n"
    return "".join(lines)
