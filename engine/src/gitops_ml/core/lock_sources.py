"""Verifies that `uv.lock` takes packages only from where the base's settings let it.

    gitops-ml verify-sources                   # by the settings of this project
    gitops-ml verify-sources --judge FOLDER    # by those of a checkout of the base

A lock names the address and the hash of every file, and uv installs what they say: a change of both
brings another host's code into the run. So this runs before anything is installed, and needs
nothing but Python. What may be named:

- files of the indexes that `[[tool.uv.index]]` (`[tool.uv]` or `uv.toml`) or the variables of uv
  name, PyPI where none replaces it. They are below the index's parent folder; PyPI's are on a host
  of their own;
- what is below an address of `package-sources` in `[tool.gitops-ml]`: also git repositories, and
  files at addresses of their own;
- folders of the project, such as the engine's.
"""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError

UV_TOML = Path("uv.toml")
PYPI = "https://pypi.org/simple"
# Where the files of an index are that keeps them on another host.
_FILES = {
    PYPI: "https://files.pythonhosted.org/packages/",
    "https://test.pypi.org/simple": "https://test-files.pythonhosted.org/packages/",
}
# By these somebody tells uv about indexes: those that replace PyPI, and more of them.
_DEFAULTS = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
_OTHERS = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")

_HASH = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LOCK_VERSION = 1
_SHOWN = 20
_PORTS = {"http": 80, "https": 443, "ssh": 22}

_WHAT_TO_DO = """\
Nothing was installed. `uv lock` writes the addresses of the configured index again. If packages
are to come from somewhere else, let a change of its own, which an owner reads, bring that first:
`package-sources = ["ADDRESS"]` in [tool.gitops-ml] of pyproject.toml. Once that is merged, and
this change is up to date with it, run again."""

Table = Mapping[str, Any]


class LockSourcesError(GitopsError):
    """A lock takes packages from elsewhere, or cannot be read."""


@dataclass(frozen=True)
class Sources:
    """Where packages may come from.

    Attributes:
        indexes: The addresses of the package indexes.
        places: What is below one of these addresses or folders may be taken, whatever it is.
    """

    indexes: tuple[str, ...]
    places: tuple[str, ...] = ()

    def knows_index(self, address: str) -> bool:
        """Whether an address is that of an index, or below a place."""
        return any(_same(address, index) for index in self.indexes) or self.knows(address)

    def knows(self, address: str) -> bool:
        """Whether an address or a path is below a place."""
        return any(_is_below(address, place) for place in self.places)

    def files_of(self, index: str) -> tuple[str, ...]:
        """The addresses below which the files of an index are."""
        if _is_folder(index):
            return (index, *self.places)
        known = (files for name, files in _FILES.items() if _same(index, name))
        return (*known, _parent(index), *self.places)

    def __str__(self) -> str:
        """All of them, as people read it."""
        return ", ".join(_shown(address) for address in (*self.indexes, *self.places))


def read_sources(root: Path, variables: Mapping[str, str]) -> Sources:
    """Where the settings of a project let packages come from.

    Args:
        root: The project's folder.
        variables: The environment.

    Raises:
        LockSourcesError: If a file cannot be read.
    """
    project = _read(root / paths.PYPROJECT)
    defaults, others = _indexes(root, project)
    told = [words for name in _DEFAULTS if (words := variables.get(name, "").split())]
    if told:
        defaults = [_address(word) for word in told[0]]
    others += [
        _address(word)
        for name in _OTHERS
        for word in variables.get(name, "").replace(",", " ").split()
    ]
    places = _texts(_table(_table(project, "tool"), "gitops-ml").get("package-sources"))
    return Sources((*(defaults or [PYPI]), *others), tuple(places))


def _indexes(root: Path, project: Table) -> tuple[list[str], list[str]]:
    """The addresses that replace PyPI, and the other ones."""
    # With a uv.toml, uv passes over [tool.uv].
    own = root / UV_TOML
    settings = _read(own) if own.is_file() else _table(_table(project, "tool"), "uv")
    entries = settings.get("index")
    named = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    defaults = [str(one.get("url")) for one in named if one.get("default") is True]
    others = [str(one.get("url")) for one in named if one.get("default") is not True]
    more = [text for key in ("extra-index-url", "find-links") for text in _texts(settings.get(key))]
    return defaults + _texts(settings.get("index-url")), others + more


def _address(word: str) -> str:
    """The address of an index that a variable of uv names, as `name=address` or alone."""
    name, equals, address = word.partition("=")
    return address if equals and re.fullmatch(r"[\w.-]+", name) else word


def find_problems(lock: Table, sources: Sources) -> Iterator[str]:
    """What a lock takes from elsewhere, each with the package's name and the address.

    Raises:
        LockSourcesError: If it is no lock of the version that is known here.
    """
    packages = lock.get("package", [])
    if lock.get("version") != _LOCK_VERSION or not isinstance(packages, list):
        raise LockSourcesError(
            f"{paths.UV_LOCK}: is no lock of version {_LOCK_VERSION}, which this engine can read; "
            "`uv lock` with a version of uv that writes such ones"
        )
    for package in packages:
        if not isinstance(package, dict) or not isinstance(package.get("name"), str):
            raise LockSourcesError(f"{paths.UV_LOCK}: holds a package without a name")
        name = f"{package['name']} {package.get('version', '')}".strip()
        yield from (f"{name}: {problem}" for problem in _of_package(package, sources))


def _of_package(package: Table, sources: Sources) -> Iterator[str]:
    source = _table(package, "source")
    if not isinstance(package.get("wheels", []), list):
        yield "its files are no list"
        return
    kinds = [kind for kind in source if kind != "subdirectory"]
    kind, address = (kinds[0], source[kinds[0]]) if len(kinds) == 1 else ("", None)
    if not isinstance(address, str):
        yield "does not name one source"
    elif kind in ("directory", "editable", "virtual"):
        if not _is_inside(address):
            yield f"the folder {_shown(address)}: is outside of the project"
    elif kind == "git":
        yield from _of_git(address, sources)
    elif kind == "registry":
        if sources.knows_index(address):
            folder = address if _is_folder(address) else None
            yield from _of_files(package, sources.files_of(address), package["name"], folder)
        else:
            yield f"the index {_shown(address)}: is none that is configured ({sources})"
    elif kind in ("url", "path"):
        if sources.knows(address):
            yield from _of_files(package, sources.places)
        else:
            yield f"the file {_shown(address)}: is from no index ({sources})"
    else:
        yield f"{kind} {_shown(address)}: is a source that is not known here"


def _of_git(address: str, sources: Sources) -> Iterator[str]:
    repository, _, commit = address.partition("#")
    if not sources.knows(repository.partition("?")[0]):
        yield f"the repository {_shown(address)}: is from no index ({sources})"
    elif not _COMMIT.fullmatch(commit):
        yield f"the repository {_shown(address)}: names no commit"


def _of_files(
    package: Table, places: Sequence[str], name: str | None = None, folder: str | None = None
) -> Iterator[str]:
    """What is wrong with the files of a package whose source may be taken.

    Args:
        package: The package's entry.
        places: Below which addresses they must be.
        name: The name that they must begin with; None where the source names one file.
        folder: The folder of the project that is their index; git keeps what is in it, so uv gives
            them no hash.
    """
    wheels = package.get("wheels", [])
    for file in (*([package["sdist"]] if "sdist" in package else []), *wheels):
        if not isinstance(file, dict):
            yield "a file is not named by its address and hash"
            continue
        addresses = [str(file[key]) for key in ("url", "path") if key in file]
        if folder is not None and "path" in file and not str(file["path"]).startswith("/"):
            addresses[-1] = f"{folder}/{file['path']}"
        shown = ", ".join(map(_shown, addresses)) or "the file"
        for address in addresses:
            if not any(_is_below(address, place) for place in places):
                below = ", ".join(map(_shown, places))
                yield f"{_shown(address)}: is not a file of the configured index (below {below})"
            elif name is not None and not _is_file_of(address, name):
                yield f"{_shown(address)}: is a file of another package"
        if name is not None and not addresses:
            yield "a file is not named by its address"
        kept = folder is not None and "url" not in file
        if not kept and not _HASH.fullmatch(str(file.get("hash"))):
            yield f"{shown}: has no hash, so anything could be in its place"


def _is_file_of(address: str, name: str) -> bool:
    file = unquote(address.partition("#")[0].partition("?")[0]).rpartition("/")[2]
    return _normal(file).startswith(f"{_normal(name)}-")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def index_problems(root: Path, sources: Sources) -> Iterator[str]:
    """The indexes of a project that are none of the sources: build tools come from there, too.

    Raises:
        LockSourcesError: If a file cannot be read.
    """
    defaults, others = _indexes(root, _read(root / paths.PYPROJECT))
    for address in [*defaults, *others]:
        if not sources.knows_index(address):
            yield f"the index {_shown(address)}: is none that is configured ({sources})"


def _same(one: str, other: str) -> bool:
    place = _split(one)
    return place is not None and place == _split(other)


def _is_below(address: str, place: str) -> bool:
    """Whether an address, or a path of the project, is inside of another one."""
    inner, outer = _split(address), _split(place)
    if inner is None or outer is None or inner[0] != outer[0]:
        return False
    return inner[1][: len(outer[1])] == outer[1]


def _split(address: str) -> tuple[tuple[str, str, int | None], tuple[str, ...]] | None:
    """The server and the folders of an address; None where they are not plain to see.

    A path of the project has no server.
    """
    if re.search(r"[\\\s\x00-\x1f]", unquote(address)):
        return None
    try:
        parts = urlsplit(address.removeprefix("git+"))
        scheme = parts.scheme.lower()
        server = (scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme))
    except ValueError:
        return None
    folders = tuple(part for part in unquote(parts.path).split("/") if part)
    if ".." in folders or "." in folders or (not scheme and parts.path.startswith("/")):
        return None
    return server, folders


def _is_folder(address: str) -> bool:
    """Whether it is a path of the project, not an address on a server."""
    return "://" not in address


def _parent(index: str) -> str:
    """The address of the folder that an index is in."""
    parts = urlsplit(index)
    above = parts.path.rstrip("/").rpartition("/")[0]
    return urlunsplit((parts.scheme, parts.netloc, f"{above}/", "", ""))


def _is_inside(folder: str) -> bool:
    path = Path(folder)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in folder


def _shown(address: str) -> str:
    """An address without a password, on one line."""
    return re.sub(r"//[^/@]*@", "//***@", " ".join(address.split()))[:300]


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LockSourcesError(f"{path}: no such file; run from the project's root") from error
    except (OSError, ValueError) as error:
        raise LockSourcesError(f"{path}: cannot be read: {error}") from error


def _table(table: Table, key: str) -> Table:
    found = table.get(key)
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> list[str]:
    """A text, or the texts of a list."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def verify(root: Path, home: Path, variables: Mapping[str, str]) -> int:
    """Verify the lock of a project by the settings of another checkout of it.

    Args:
        root: The project's folder.
        home: Where the settings are.
        variables: The environment.

    Returns:
        How many packages the lock has.

    Raises:
        LockSourcesError: If something comes from elsewhere, or a file cannot be read.
    """
    sources = read_sources(home, variables)
    lock = _read(root / paths.UV_LOCK)
    found = [
        *(f"pyproject.toml or uv.toml: {problem}" for problem in index_problems(root, sources)),
        *(f"uv.lock: {problem}" for problem in find_problems(lock, sources)),
    ]
    if found:
        more = [f"... and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise LockSourcesError("\n".join([*found[:_SHOWN], *more, _WHAT_TO_DO]))
    return len(lock.get("package", []))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--judge", type=Path, metavar="FOLDER", default=Path(), help="whose settings count"
    )


def run(options: argparse.Namespace) -> int:
    """Run from the command line; see the module's text."""
    count = verify(Path(), options.judge, os.environ)
    print(f"The {count} packages of {paths.UV_LOCK} come from where they may.")
    return 0
