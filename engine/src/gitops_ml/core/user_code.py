"""The user's own code: `src/<package>/` of a project, `<package>/` beside the engine in a bento.

Its modules are loaded from where the model is, installed or not; its hash says which code trained a
model.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError

_LONGEST = 500


class UserCodeError(GitopsError):
    """The user's code cannot be loaded; the message names the file and the line."""


def package_folder(root: Path, package: str) -> Path:
    """Where the package is, in a project or in a bento."""
    inside = root / paths.SOURCES / package
    return inside if inside.is_dir() else root / package


def source_files(folder: Path) -> list[Path]:
    """What belongs to the package, sorted by name: all but caches and hidden files."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if _belongs(path.relative_to(folder)))


def _belongs(path: Path) -> bool:
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def user_code(root: Path, package: str) -> dict[str, str]:
    """What a manifest records of the user's code: the package, and the sha256 of its files.

    The hash is of names and bytes: the same wherever the project is.
    """
    folder = package_folder(root, package)
    digest = hashlib.sha256()
    for path in source_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return {"package": package, "sha256": digest.hexdigest()}


def check_user_code(root: Path, manifest: dict[str, Any]) -> None:
    """Make sure that the user's code is the one that trained a model.

    Args:
        root: The folder of the project or of the bento.
        manifest: The model's manifest; one from before there was user code passes.

    Raises:
        UserCodeError: If it is not, with both hashes.
    """
    recorded = manifest.get("user_code")
    if recorded is None:
        return
    found = user_code(root, recorded["package"])
    if found != recorded:
        raise UserCodeError(
            f"{shown(package_folder(root, recorded['package']))}: is not the code that trained the "
            f"model\n  recorded sha256 {recorded['sha256']}\n  found    sha256 {found['sha256']}\n"
            "  run `make pipeline` to train with this code, or bring the recorded code back"
        )


def load_module(root: Path, package: str, name: str) -> ModuleType | None:
    """Import a module of the user's package.

    Args:
        root: The folder of the project or of the bento.
        package: The package's name.
        name: The module's name in it, e.g. `features`.

    Returns:
        The module; None if there is no such file.

    Raises:
        UserCodeError: If it cannot be imported.
    """
    folder = package_folder(root, package).resolve()
    file = folder / f"{name}.py"
    if not file.is_file():
        return None
    _make_importable(folder)
    try:
        module = importlib.import_module(f"{package}.{name}")
    except GitopsError:
        raise
    except BaseException as error:
        unless_stopped(error)
        where = raised_at(error, folder) or shown(file)
        raise UserCodeError(f"{where}: cannot be imported: {in_words(error)}") from error
    check_imports(root, package)
    return module


def check_imports(root: Path, package: str) -> None:
    """Make sure that nothing was imported that lies beside the user's package in `src/`.

    It can be imported there, but no stage depends on it, its hash is in no manifest, and the bento
    does not hold it.

    Args:
        root: The folder of the project; that of a bento passes, where the engine lies beside.
        package: The package's name.

    Raises:
        UserCodeError: With one line for each such file.
    """
    folder = package_folder(root, package).resolve()
    if folder.parent != (root / paths.SOURCES).resolve():
        return
    beside, inside = f"{folder.parent}{os.sep}", f"{folder}{os.sep}"
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    found = sorted(
        file for file in files if file.startswith(beside) and not file.startswith(inside)
    )
    if found:
        raise UserCodeError(
            "\n".join(
                f"{shown(Path(file))}: is imported, but no stage depends on it, and the bento does "
                f"not hold it; move it into {shown(folder)}/"
                for file in found
            )
        )


def _make_importable(folder: Path) -> None:
    """Let the package's name mean this folder, also after another project's was loaded."""
    package = folder.name
    loaded = sys.modules.get(package)
    if loaded is not None and folder not in [Path(one).resolve() for one in loaded.__path__]:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
    parent = str(folder.parent)
    if sys.path[:1] != [parent]:
        sys.path.insert(0, parent)
    importlib.invalidate_caches()


def unless_stopped(error: BaseException) -> None:
    """Go on to tell an error of code that anybody wrote, unless a person stopped the process.

    `sys.exit()` must neither end a stage as if it were done, nor stop a service; nor must the panic
    of a library in Rust, which is no `Exception` either.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error


def in_words(error: BaseException) -> str:
    """An error as one line that is not too long, whatever it says of itself."""
    try:
        said = str(error)
    except Exception as another:
        said = f"(its text fails with {type(another).__name__})"
    line = " ".join(f"{type(error).__name__}: {said}".split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def raised_at(error: BaseException, folder: Path) -> str | None:
    """The line of the user's code that an error comes from, as `file:line`; None if it is none."""
    places = [place for place in _places(error) if Path(place[0]).is_relative_to(folder)]
    return f"{shown(Path(places[-1][0]))}:{places[-1][1]}" if places else None


def _places(error: BaseException) -> Iterator[tuple[str, int]]:
    for frame in traceback.extract_tb(error.__traceback__):
        yield frame.filename, frame.lineno or 0
    if isinstance(error, SyntaxError) and error.filename:
        yield error.filename, error.lineno or 0


def shown(path: Path) -> str:
    """A file of the package as people know it: from the project's root, else from the package."""
    resolved = path.resolve()
    if resolved.is_relative_to(Path.cwd()):
        return resolved.relative_to(Path.cwd()).as_posix()
    return "/".join(resolved.parts[-2:])


def make_importable(root: Path, package: str) -> None:
    """Let a class path or a pickle name the package of the project or of the bento in a folder."""
    folder = package_folder(root, package).resolve()
    if folder.is_dir():
        _make_importable(folder)
