"""Verify that the committed `dvc.lock` is what this pipeline run wrote.

    gitops-ml verify-lock

Run it after `make pipeline`. A stage whose inputs differ from the committed ones is stale: somebody
changed something and did not commit the run. A stage with the same inputs and other outputs was
not reproduced: the machine or a library computes differently. A model of other bytes counts as
reproduced where its answers are those of the committed reports, see `core/answers.py`; it is the
model of this run, not the committed one, that the gate judges either way.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops_ml.core import answers, paths
from gitops_ml.core.dvc import DvcError, by_name, read_lock, stages_of
from gitops_ml.core.environment import check_installed
from gitops_ml.core.git import git

MEND = "run `make pipeline`, then commit dvc.lock and reports/"
TAKE_OVER = (
    "commit the dvc.lock and reports/ of this machine; those of a workflow run are in its artifact "
    "`training`"
)
INPUTS = ("cmd", "deps", "params")
# Writes the little that counts of a large file, so what it depends on may change without effect.
DISTILLING = "environment"
# What follows from a model's answers.
ANSWERS = (paths.MODELS, paths.METRICS, paths.EVALUATION, paths.GOLDEN, paths.PLOTS)


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


@dataclass(frozen=True)
class Difference:
    """How a stage differs between two locks.

    Attributes:
        stage: Its name.
        what: What is different, for people.
        not_reproduced: The outputs that differ though nobody changed an input.
    """

    stage: str
    what: str
    not_reproduced: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.stage}: {self.what}"


def compare(before: str, now: str) -> list[Difference]:
    """What a run changed in the lock, stage by stage.

    An input that is itself an output which was not reproduced makes no stage stale.

    Raises:
        LockError: If one of the texts is no lock file.
    """
    old = stages_of(before, f"{paths.DVC_LOCK} as committed")
    new = stages_of(now, str(paths.DVC_LOCK))
    found = [
        Difference(name, "the committed lock lacks this stage") for name in new.keys() - old.keys()
    ]
    found += [
        Difference(name, "no longer a stage; take its entry out of dvc.lock")
        for name in old.keys() - new.keys()
    ]
    left = set(old.keys() & new.keys())
    other: set[str] = set()
    # From a stage that was not reproduced on to those that take what it wrote.
    while unlike := [
        one for name in left if (one := _not_reproduced(name, old[name], new[name], other))
    ]:
        found += unlike
        left -= {one.stage for one in unlike}
        other |= {name for one in unlike for name in one.not_reproduced}
    for name in left:
        inputs = _changed(old[name], new[name], _inputs(name, old[name], new[name]), other)
        if inputs:
            found.append(Difference(name, f"stale, it was run with another {', '.join(inputs)}"))
    return sorted(found, key=str)


def _not_reproduced(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], other: Collection[str]
) -> Difference | None:
    outputs = _changed(old, new, ["outs"])
    if not outputs or _changed(old, new, INPUTS, other):
        return None
    causes = _changed(old, new, INPUTS)
    why = f"{', '.join(causes)} was not either" if causes else "the same inputs gave another"
    separator = ": " if causes else " "
    return Difference(name, f"not reproduced, {why}{separator}{', '.join(outputs)}", tuple(outputs))


def _inputs(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Sequence[str]:
    """The kinds of inputs that matter to a stage."""
    if name == DISTILLING and old.get("outs") == new.get("outs"):
        return ("cmd", "params")
    return INPUTS


def _changed(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    keys: Sequence[str],
    excused: Collection[str] = (),
) -> list[str]:
    """The files, parameters or commands that differ, less the excused files."""
    names: list[str] = []
    for key in keys:
        if key == "cmd":
            names += ["command"] if old.get(key) != new.get(key) else []
            continue
        before, after = by_name(old.get(key)), by_name(new.get(key))
        names += [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
    return [name for name in names if name not in excused]


def uncommitted_reports(root: Path, excused: Collection[str] = ()) -> list[str]:
    """The reports of the pipeline that are not in git as they are here; those of DVC are ignored.

    Args:
        root: The project's folder.
        excused: Outputs that may differ.

    Raises:
        LockError: If git cannot tell.
    """
    stages = stages_of(read_lock(root), str(paths.DVC_LOCK))
    outputs = [name for stage in stages.values() for name in by_name(stage.get("outs"))]
    reports = [
        name for name in outputs if Path(name).is_relative_to(paths.REPORTS) and name not in excused
    ]
    if not reports:
        return []
    status = git(root, "status", "--porcelain", "-z", "--no-renames", "--", *reports)
    if status.returncode != 0:
        raise LockError(f"git cannot tell which reports are committed: {status.stderr.strip()}")
    return [entry[3:] for entry in status.stdout.split("\0") if entry]


def tolerated(root: Path, differences: Sequence[Difference]) -> tuple[str | None, list[str]]:
    """Whether what was not reproduced answers as the committed model does.

    Args:
        root: The project's folder.
        differences: What `compare` found, at least one.

    Returns:
        What to tell if it does, else None; and the answers that differ, if they were compared.
    """
    outputs = [Path(name) for one in differences for name in one.not_reproduced]
    stale = any(not one.not_reproduced for one in differences)
    if stale or not all(any(name.is_relative_to(one) for one in ANSWERS) for name in outputs):
        return None, []
    different = answers.different(root)
    if different:
        return None, different
    return (
        f"Reproduced within a tolerance, not byte for byte: "
        f"{', '.join(map(str, outputs))}. {answers.describe(root)} "
        f"What is judged, packaged and believed from then on is the model of this run."
    ), []


def tolerance_note(root: Path) -> str | None:
    """What a report must say of a model that is not the committed one byte for byte, else None."""
    try:
        before = committed(root)
        if before is None:
            return None
        found = compare(before, read_lock(root))
    except DvcError:
        return None
    return tolerated(root, found)[0] if found else None


def verify(root: Path) -> str:
    """Hold the working tree's lock against the committed one; returns what to tell.

    Raises:
        LockError: If the lock is missing, stale or not reproduced, or a committed report differs.
        LockedVersionsError: If it differs, and other versions are installed than are locked.
        CommandError: If git is not installed.
    """
    now = read_lock(root)
    before = committed(root)
    if before is None:
        return (
            f"No {paths.DVC_LOCK} is committed yet, so there is nothing to verify. "
            f"To commit it: {MEND}."
        )
    differences = compare(before, now)
    told, excused = f"The committed {paths.DVC_LOCK} is what this run wrote.", list[str]()
    if differences:
        check_installed(root)
        text, different = tolerated(root, differences)
        if text is None:
            stale = any(not one.not_reproduced for one in differences)
            lines = "\n".join(f"  {line}" for line in (*differences, *different))
            raise LockError(
                f"The committed {paths.DVC_LOCK} is not what this run wrote:\n{lines}\n"
                f"{MEND if stale else TAKE_OVER}"
            )
        told, excused = text, [name for one in differences for name in one.not_reproduced]
    reports = uncommitted_reports(root, excused)
    if reports:
        raise LockError(f"The committed {', '.join(reports)} is not what this run wrote; {MEND}")
    return told


def run(_: argparse.Namespace) -> int:
    """Verify the lock of the current folder; 0 when it holds, 1 when it does not."""
    print(verify(Path.cwd()))
    return 0
