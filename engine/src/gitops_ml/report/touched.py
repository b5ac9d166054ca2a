"""Which of the judge's own files a pull request touches: what no run can stop, a reader must see.

The names are the author's to choose, so they are shown as a stranger's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from gitops_ml.core.judge_files import PARTS, part_of
from gitops_ml.github.client import GitHub, GitHubError
from gitops_ml.report.run_artifacts import clean
from gitops_ml.report.verdict_report import escape

# GitHub lists no more files of a pull request.
LISTED = 3_000
# Of each part, so many files are named; of a name, so many characters are shown.
NAMED = 10
NAME_LENGTH = 80


@dataclass(frozen=True)
class Touched:
    """What a pull request touches of the judge.

    Attributes:
        files: The files of each part that has any.
        cut: Whether the pull request may touch more files than GitHub lists.
        unknown: Why it is not known; None if it is.
    """

    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cut: bool = False
    unknown: str | None = None


def find_touched(api: GitHub, repository: str, number: int) -> Touched:
    """What a pull request touches; a file that is moved counts where it was and where it is."""
    path = f"/repos/{repository}/pulls/{number}/files"
    names: dict[str, None] = {}
    count = 0
    try:
        for file in islice(api.items(path), LISTED):
            count += 1
            # One that is removed is named as well: without it another one may take effect.
            names.update(
                (str(file[key]), None) for key in ("filename", "previous_filename") if key in file
            )
    except GitHubError as error:
        return Touched(unknown=str(error))
    files: dict[str, list[str]] = {}
    for name in names:
        part = part_of(name)
        if part is not None:
            files.setdefault(part, []).append(name)
    return Touched(files, cut=count >= LISTED)


def notice(touched: Touched) -> str:
    """What stands above the verdict; empty where there is nothing to say."""
    count = sum(map(len, touched.files.values()))
    parts = []
    if count:
        files = "1 file" if count == 1 else f"{count:,} files"
        parts += [
            f"**👀 This change touches {files} of the judge's own. No run can stop what a change "
            "of these does, only somebody who reads it:**",
            "\n".join(_line(part, touched.files[part]) for part in PARTS if part in touched.files),
        ]
    if touched.cut:
        parts.append(
            f"**⚠️ Only {LISTED:,} of its files were looked at, since GitHub lists no more: others "
            "may be the judge's, too.**"
        )
    if touched.unknown is not None:
        parts.append(
            "**⚠️ Whether this change touches files of the judge is not known: "
            f"{escape(clean(touched.unknown))}**"
        )
    return "\n\n".join(parts)


def _line(part: str, names: Sequence[str]) -> str:
    shown = ", ".join(_name(name) for name in names[:NAMED])
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"- {part} ({len(names):,}): {shown}{more}"


def _name(name: str) -> str:
    line = " ".join(clean(name).split()) or "(a name that cannot be shown)"
    return escape(line if len(line) <= NAME_LENGTH else f"{line[:NAME_LENGTH]}…")
