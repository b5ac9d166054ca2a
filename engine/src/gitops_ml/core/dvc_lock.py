"""Verify that the committed `dvc.lock` is what this pipeline run wrote.

    gitops-ml verify-lock

Run it after `make pipeline`. A stage whose inputs differ from the committed ones is stale: somebody
changed something and did not commit the run. A stage with the same inputs and other outputs was
not reproduced: the machine or a library computes differently.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, by_name, read_lock, stages_of
from gitops_ml.core.git import git

MEND = "run `make pipeline`, then commit dvc.lock and reports/"
INPUTS = ("cmd", "deps", "params")


class LockError(DvcError):
    """`dvc.lock` is not what is committed; the message says which stages and what to do."""


def committed(root: Path, revision: str = "HEAD") -> str | None:
    """The text of `dvc.lock` at a revision; None if the revision has no such file.

    Raises:
        LockError: If there is no such revision.
        CommandError: If git is not installed.
    """
    known = git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if known.returncode != 0:
        raise LockError(f"{revision}: no such commit; commit first (`git commit`)")
    shown = git(root, "show", f"{revision}:./{paths.DVC_LOCK}")
    return shown.stdout if shown.returncode == 0 else None


def compare(before: str, now: str) -> list[str]:
    """What a run changed in the lock: one line for each stage that differs.

    Raises:
        LockError: If one of the texts is no lock file.
    """
    old = stages_of(before, f"{paths.DVC_LOCK} as committed")
    new = stages_of(now, str(paths.DVC_LOCK))
    problems = [f"{name}: the committed lock lacks this stage" for name in new.keys() - old.keys()]
    problems += [f"{name}: no longer a stage" for name in old.keys() - new.keys()]
    for name in old.keys() & new.keys():
        inputs = [key for key in INPUTS if old[name].get(key) != new[name].get(key)]
        if inputs:
            changed = ", ".join(_changed(old[name], new[name], inputs))
            problems.append(f"{name}: stale, it was run with another {changed}")
        elif old[name].get("outs") != new[name].get("outs"):
            changed = ", ".join(_changed(old[name], new[name], ["outs"]))
            problems.append(f"{name}: not reproduced, the same inputs gave another {changed}")
    return sorted(problems)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], keys: list[str]) -> list[str]:
    """The files, parameters or commands that differ."""
    names: list[str] = []
    for key in keys:
        if key == "cmd":
            names.append("command")
            continue
        before, after = by_name(old.get(key)), by_name(new.get(key))
        names += [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
    return names


def uncommitted_reports(root: Path) -> list[str]:
    """The reports of the pipeline that are not in git as they are here; those of DVC are ignored.

    Raises:
        LockError: If git cannot tell.
    """
    stages = stages_of(read_lock(root), str(paths.DVC_LOCK))
    outputs = [name for stage in stages.values() for name in by_name(stage.get("outs"))]
    reports = [name for name in outputs if Path(name).is_relative_to(paths.REPORTS)]
    if not reports:
        return []
    status = git(root, "status", "--porcelain", "-z", "--no-renames", "--", *reports)
    if status.returncode != 0:
        raise LockError(f"git cannot tell which reports are committed: {status.stderr.strip()}")
    return [entry[3:] for entry in status.stdout.split("\0") if entry]


def verify(root: Path) -> str:
    """Hold the working tree's lock against the committed one; returns what to tell.

    Raises:
        LockError: If the lock is missing, stale or not reproduced, or a committed report differs.
        CommandError: If git is not installed.
    """
    now = read_lock(root)
    before = committed(root)
    if before is None:
        return (
            f"No {paths.DVC_LOCK} is committed yet, so there is nothing to verify. "
            f"To commit it: {MEND}."
        )
    problems = compare(before, now)
    stale = any("not reproduced" not in problem for problem in problems)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        advice = (
            MEND
            if stale
            else "share the trained model through a DVC remote (docs/data.md says how), or "
            "commit the dvc.lock and reports/ of this machine"
        )
        raise LockError(
            f"The committed {paths.DVC_LOCK} is not what this run wrote:\n{lines}\n{advice}"
        )
    reports = uncommitted_reports(root)
    if reports:
        raise LockError(f"The committed {', '.join(reports)} is not what this run wrote; {MEND}")
    return f"The committed {paths.DVC_LOCK} is what this run wrote."


def run(_: argparse.Namespace) -> int:
    """Verify the lock of the current folder; 0 when it holds, 1 when it does not."""
    print(verify(Path.cwd()))
    return 0
