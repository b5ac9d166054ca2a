"""What the gate takes over from the job that trained: the model, the bento and their reports.

They were written by code that nobody has read yet, so they are brought in by name, as plain files:
a `.git/config`, or a link that leads out of the project, would have git run something.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError

BUILD = Path("build")
_FOLDERS = (paths.MODELS, paths.REPORTS)
_FILES = (paths.DVC_LOCK,)
_BENTOS = "*.bento"


class RunFilesError(GitopsError):
    """What a run left behind is not what the gate takes over."""


def take_over(source: Path, root: Path) -> list[Path]:
    """Copy what a run left behind into a project.

    Args:
        source: The folder that its artifacts were downloaded to, outside of the project.
        root: The project's folder.

    Returns:
        The files, relative to the project, sorted.

    Raises:
        RunFilesError: If a link is in the way.
    """
    if not source.is_dir():
        raise RunFilesError(f"{source}: no such folder; download the artifacts of the run to it")
    taken = sorted(path.relative_to(source) for path in _wanted(source))
    for name in taken:
        _refuse_links(source, name)
        _refuse_links(root, name)
    for folder in _FOLDERS:
        _refuse_links(root, folder)
        if any(name.is_relative_to(folder) for name in taken):
            shutil.rmtree(root / folder, ignore_errors=True)
    for name in taken:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, root / name)
    return taken


def _wanted(source: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from (path for path in (source / folder).rglob("*") if not path.is_dir())
    yield from (source / name for name in _FILES if (source / name).exists())
    yield from (source / BUILD).glob(_BENTOS)


def _refuse_links(folder: Path, name: Path) -> None:
    for part in [name, *name.parents][:-1]:
        if (folder / part).is_symlink():
            raise RunFilesError(f"{folder / part}: is a link; the gate takes over plain files only")
