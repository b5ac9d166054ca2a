"""`.github/CODEOWNERS`: whose review a change of some files needs.

Of the lines whose pattern matches a file, the last one counts; one without an owner takes the file
out. So everything has an owner by a first line `*`, and the lines without an owner below it are the
exceptions.

https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gitops_ml.core.errors import GitopsError

CODEOWNERS = Path(".github/CODEOWNERS")

OWNER_RULE = "@user or @organisation/team"
# The pattern of every file.
DEFAULT = "*"
# What a pattern must not hold: GitHub passes over such a line.
_NOT_READ = re.compile(r"^!|[\[\]]|\*{3}")
# A space in a pattern stands behind a backslash.
_WORD = re.compile(r"(?:\\.|[^\s\\])+")
_OWNER = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True)
class Entry:
    """One line of the file: a pattern of paths, and who owns them."""

    line: int
    pattern: str
    owners: tuple[str, ...]

    @cached_property
    def _matcher(self) -> re.Pattern[str] | None:
        return None if _NOT_READ.search(self.pattern) else re.compile(_expression(self.pattern))

    def matches(self, path: str) -> bool:
        """Whether the pattern takes in a file, given by its path in the repository."""
        return self._matcher is not None and self._matcher.fullmatch(path) is not None


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
        words = _WORD.findall(line.partition("#")[0])
        if words:
            entries.append(Entry(number, words[0], tuple(words[1:])))
    return entries


def without_owner(text: str) -> list[Entry]:
    """The lines that wait for an owner: all that have none, but for the exceptions below `*`."""
    found = []
    for entry in parse_codeowners(text):
        if not entry.owners:
            found.append(entry)
        if entry.pattern == DEFAULT:
            break
    return found


def deciding_entry(entries: Sequence[Entry], path: str) -> Entry | None:
    """The line that says who owns a file: the last one that matches; None if there is none."""
    return next((entry for entry in reversed(entries) if entry.matches(path)), None)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression for a whole path.

    As in a `.gitignore`: with a slash at the start or inside it counts from the top; `*` is
    anything but a slash, `**` any number of folders; a folder stands for all in it. Unlike there,
    `docs/*` stands for the files in `docs` only.
    """
    anchored = "/" in pattern.rstrip("/")
    parts = pattern.strip("/").split("/")
    written = [] if anchored else ["(?:.*/)?"]
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == "**":
            written.append(".*" if last else "(?:.*/)?")
        else:
            written.append(_of_one_part(part) + ("" if last else "/"))
    if pattern.endswith("/"):
        return "".join(written) + "/.*"
    return "".join(written) + ("" if parts[-1] in ("*", "**") else "(?:/.*)?")


def _of_one_part(part: str) -> str:
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        wild.get(found, re.escape(found.removeprefix("\\"))) for found in re.findall(r"\\.|.", part)
    )


def fill_in(text: str, owner: str) -> str:
    """The text with an owner on every line that has none."""
    empty = {entry.line for entry in without_owner(text)}
    lines = text.splitlines(keepends=True)
    for number in empty:
        pattern, hash_sign, comment = lines[number - 1].rstrip("\n").partition("#")
        lines[number - 1] = f"{pattern.rstrip()} {owner}"
        lines[number - 1] += f" {hash_sign}{comment}\n" if hash_sign else "\n"
    return "".join(lines)
