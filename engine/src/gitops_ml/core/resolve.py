"""Resolve the merge conflicts in what a run of the pipeline writes: `dvc.lock` and its reports.

    gitops-ml resolve            # in a merge, a rebase, a cherry-pick
    gitops-ml resolve --check    # 1, and what to do, if `dvc.lock` holds the marks of a conflict

Two branches that were both trained differ in these files, and no line of either side is right
for what is merged: only another run says what belongs there. So one side is taken, the pipeline
runs, and what it wrote is staged. Whatever else is in conflict is a person's, and comes first,
since the run reads it. Until the run has ended well, git has both sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, by_name, read_lock, stages_of
from gitops_ml.core.dvc_remote import git_owned
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import GitError, git, holds_marks
from gitops_ml.core.run import PYTHON, show

# The sides of a conflict: their numbers in git's index, and what `git checkout` calls them.
SIDES = {2: "--ours", 3: "--theirs"}
# What git keeps while it is in the middle of something, and how to go on with that.
_GO_ON = {
    "rebase-merge": "git rebase --continue",
    "rebase-apply": "git rebase --continue",
    "MERGE_HEAD": "git commit",
    "CHERRY_PICK_HEAD": "git cherry-pick --continue",
    "REVERT_HEAD": "git revert --continue",
}
_PUT_RIGHT = "put them right, `git add` them, then run `make resolve`"


class ResolveError(GitopsError):
    """The conflicts cannot be resolved by a run; nothing was changed, or git has both sides."""


@dataclass(frozen=True)
class Conflicts:
    """The files in conflict.

    Attributes:
        written: Those that a run writes, relative to the project.
        others: All others of the repository; from its top, with `:/` before them, where they are
            outside of the project.
    """

    written: tuple[str, ...]
    others: tuple[str, ...]


def find_conflicts(root: Path) -> Conflicts:
    """Ask git which files are in conflict.

    Raises:
        GitError: If this is no git repository.
    """
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    # Named from the top of the repository, whatever folder it is asked in.
    unmerged = _git(root, "diff", "--no-relative", "--name-only", "--diff-filter=U", "-z")
    names = [
        name.removeprefix(prefix) if name.startswith(prefix) else f":/{name}"
        for name in unmerged.split("\0")
        if name
    ]
    known = _written_by_runs(root) if names else set()
    return Conflicts(
        tuple(name for name in names if name in known),
        tuple(name for name in names if name not in known),
    )


def _written_by_runs(root: Path) -> set[str]:
    """What runs of either side write; of outputs, git holds none but these."""
    found = {str(paths.DVC_LOCK), *git_owned(root)}
    for side in SIDES:
        try:
            found |= _outputs(_side(root, str(paths.DVC_LOCK), side) or "stages: {}")
        except DvcError:
            # A side that cannot be read names nothing; `dvc.yaml` does.
            continue
    return found


def _outputs(lock: str) -> set[str]:
    stages = stages_of(lock, str(paths.DVC_LOCK))
    return {name for stage in stages.values() for name in by_name(stage.get("outs"))}


def _side(root: Path, name: str, side: int) -> str | None:
    """The text of a side of a conflict; None where that side has no such file."""
    shown = git(root, "show", f":{side}:./{name}")
    return shown.stdout if shown.returncode == 0 else None


def check_marks(root: Path) -> None:
    """Make sure that `dvc.lock` holds no marks of a merge conflict.

    Raises:
        ResolveError: Saying how to get rid of them.
    """
    name = str(paths.DVC_LOCK)
    path = root / name
    if not path.is_file() or not holds_marks(path.read_text(encoding="utf-8", errors="replace")):
        return
    if name in find_conflicts(root).written:
        raise ResolveError(f"{name}: holds the marks of a merge conflict; run `make resolve`")
    raise ResolveError(
        f"{name}: holds the marks of a merge conflict, but git knows of none: somebody staged or "
        f"committed them. No side is here to be taken: `rm {name}`, then `make pipeline`, and "
        f"commit {name} and {paths.REPORTS}/"
    )


def resolve(root: Path) -> str:
    """Resolve what is in conflict and written by a run; returns what to tell.

    Raises:
        ResolveError: If something else is in conflict, if `dvc.lock` holds marks outside of a
            merge, or if the pipeline fails.
        GitError: If git fails.
    """
    conflicts = find_conflicts(root)
    if not conflicts.written and not conflicts.others:
        check_marks(root)
        return "Nothing to resolve: no file is in conflict."
    if conflicts.others:
        raise ResolveError(_yours(conflicts))
    _take_a_side(root, conflicts.written)
    print(
        f"In conflict: {', '.join(conflicts.written)}. The pipeline writes them anew.", flush=True
    )
    if show([*PYTHON, "dvc", "repro"], root) != 0:
        raise ResolveError(
            "The pipeline failed on what is merged; what it said is above. Put that right, then "
            "run `make resolve`. Git still has both sides, and can undo the merge."
        )
    staged = _stage(root, conflicts.written)
    said = [f"Written by this run, and staged: {', '.join(staged)}."]
    left = _split(_git(root, "diff", "--relative", "--name-only", "-z"))
    if left:
        said.append(
            f"The run saw these as they are here, but they are not staged: {', '.join(left)}; "
            "`git add` them, or take them back and run `make pipeline` again."
        )
    return "\n".join([*said, f"Go on with `{_go_on(root)}`."])


def _yours(conflicts: Conflicts) -> str:
    """What a person has to do first."""
    lines = [
        f"These files are in conflict, and no run can tell what belongs in them; {_PUT_RIGHT}:"
    ]
    lines += [f"  {name}{_hint(name)}" for name in conflicts.others]
    if conflicts.written:
        lines.append(f"What a run writes is left to `make resolve`: {', '.join(conflicts.written)}")
    return "\n".join(lines)


def _hint(name: str) -> str:
    if name == str(paths.UV_LOCK):
        return "  (pyproject.toml first, then `git checkout --ours uv.lock` and `uv lock`)"
    return ""


def _take_a_side(root: Path, names: Iterable[str]) -> None:
    """Write one side of each file, so that a run can start: ours, where it can be read."""
    for name in names:
        sides = {option: _side(root, name, side) for side, option in SIDES.items()}
        options = [
            option for option, text in sides.items() if text is not None and not holds_marks(text)
        ]
        if options:
            _git(root, "checkout", "--quiet", options[0], "--", name)
        else:
            # Without it, what needs it runs anew.
            (root / name).unlink(missing_ok=True)


def _stage(root: Path, resolved: Collection[str]) -> list[str]:
    """Stage the lock and the reports of this run, and what no stage writes any more as removed."""
    outputs = _outputs(read_lock(root))
    gone = [name for name in resolved if name != str(paths.DVC_LOCK) and name not in outputs]
    if gone:
        _git(root, "rm", "--quiet", "--force", "--cached", "--", *gone)
        for name in gone:
            (root / name).unlink(missing_ok=True)
    wanted = [str(paths.DVC_LOCK), *sorted(outputs & ({*resolved} | git_owned(root)))]
    listed = _git(
        root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted
    )
    here = sorted(set(_split(listed)))
    _git(root, "add", "--", *here)
    return here


def _split(listed: str) -> list[str]:
    return [name for name in listed.split("\0") if name]


def _go_on(root: Path) -> str:
    for name, command in _GO_ON.items():
        if (root / _git(root, "rev-parse", "--git-path", name).strip()).exists():
            return command
    return "git commit"


def _git(root: Path, *arguments: str) -> str:
    done = git(root, *arguments)
    if done.returncode != 0:
        raise GitError(f"`git {arguments[0]}` failed: {done.stderr.strip()}")
    return done.stdout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--check", action="store_true", help=f"only look whether {paths.DVC_LOCK} holds marks"
    )


def run(options: argparse.Namespace) -> int:
    """Resolve, or look; 1 where a person has to do something first."""
    root = Path.cwd()
    if not options.check:
        print(resolve(root))
        return 0
    check_marks(root)
    return 0
