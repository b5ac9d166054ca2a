"""The user's code: modules of `src/<package>/`, imported from the project that is worked on."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project


class OwnCodeError(GitopsError):
    """A module of the user's cannot be imported; the message names file and line."""


def make_importable(root: Path = Path()) -> None:
    """Let `import <package>` find the project's own folder first; a bento holds it already."""
    source = (root / paths.SOURCES).resolve()
    if source.is_dir() and str(source) not in sys.path:
        sys.path.insert(0, str(source))


def import_own(name: str, root: Path = Path()) -> ModuleType | None:
    """Import a module of the user's package from the project at `root`.

    Args:
        name: The module, e.g. `metrics`.

    Returns:
        None if the package has no such file.

    Raises:
        OwnCodeError: If the module fails while it is imported.
        ProjectError: If `pyproject.toml` does not name the package.
    """
    package = load_project(root).package
    file = (root / paths.SOURCES / package / f"{name}.py").resolve()
    if not file.is_file():
        return None
    make_importable(root)
    _forget_other(package, file.parent)
    try:
        return importlib.import_module(f"{package}.{name}")
    except Exception as error:
        where = paths.SOURCES / package / f"{name}.py"
        raise OwnCodeError(f"{place_of(error, file) or where}: {describe(error)}") from error


def _forget_other(package: str, folder: Path) -> None:
    """Drop what was imported under this name from elsewhere, such as another checkout."""
    known = sys.modules.get(package)
    if known is None or folder in (Path(one).resolve() for one in getattr(known, "__path__", ())):
        return
    for name in [one for one in sys.modules if one == package or one.startswith(f"{package}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def place_of(error: BaseException, file: Path) -> str | None:
    """The line of a file that an error comes from, as `src/…/metrics.py:12`; None without one."""
    line = None
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line = error.lineno
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(file):
            line = frame.lineno
    if line is None:
        return None
    return f"{Path(*file.parts[-3:])}:{line}"


def describe(error: BaseException) -> str:
    """An error on one line, e.g. `KeyError: 'x'`."""
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
