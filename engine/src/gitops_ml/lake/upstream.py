"""What a source is to the landing: a list of items, each of which can be fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gitops_ml.lake.address import name_of
from gitops_ml.lake.errors import LakeError, UnfitError

DATA_SUFFIXES = frozenset({".parquet", ".csv"})
_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
_PARQUET = b"PAR1"
_HEAD = 512


@dataclass(frozen=True)
class Fetched:
    """What came from upstream.

    Attributes:
        path: The file, .parquet or .csv.
        validator: By which the source tells next time that nothing changed.
    """

    path: Path
    validator: str | None = None


# Into a folder, given the validator of what has landed; None if nothing changed since.
Fetch = Callable[[Path, str | None], Fetched | None]


@dataclass(frozen=True)
class Item:
    """One upstream file, table or query.

    Attributes:
        name: What its partitions are called after.
        source: Where it is, without credentials.
        fetch: Brings it here.
        validator: By which the source tells that nothing changed, where it is known beforehand.
        from_database: Its rows have no order, and a database's types.
        since: Only rows from here on are read; those before stay as they landed.
    """

    name: str
    source: str
    fetch: Fetch
    validator: str | None = None
    from_database: bool = False
    since: datetime | None = None


def local_items(place: Path) -> list[Item]:
    """The data files of a folder, or one file.

    Raises:
        LakeError: If there is none.
    """
    if not place.exists():
        raise LakeError(f"{place}: no such file or folder; nothing landed")
    if place.is_file():
        if place.suffix.lower() not in DATA_SUFFIXES:
            raise LakeError(f"{place}: data files are .parquet or .csv: convert it first")
        return [_local_item(place, place.name)]
    found = sorted(path for path in place.rglob("*") if _is_data(path, place))
    if not found:
        raise LakeError(f"{place}: is empty: it holds no .parquet or .csv file")
    return [_local_item(path, path.relative_to(place).as_posix()) for path in found]


def _is_data(path: Path, place: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
    return not hidden and path.suffix.lower() in DATA_SUFFIXES and path.is_file()


def _local_item(path: Path, name: str) -> Item:
    def fetch(folder: Path, _: str | None) -> Fetched:
        # A copy, so that what is hashed is what is read, even if somebody writes there meanwhile.
        copy = folder / f"upstream{path.suffix.lower()}"
        shutil.copyfile(path, copy)
        check_page(copy, path.as_posix())
        return Fetched(copy)

    here = path.resolve()
    root = Path.cwd().resolve()
    shown = here.relative_to(root) if here.is_relative_to(root) else here
    return Item(name_of(name), shown.as_posix(), fetch)


def check_page(path: Path, shown: str) -> None:
    """Make sure that a file is not a page for people, as servers answer instead of data.

    Raises:
        UnfitError: If it is HTML or XML.
    """
    if head(path).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        raise UnfitError(
            [
                f"{shown}: is an HTML or XML page and no data: look at it in a browser; it may ask "
                "for a login, or the address may be that of a page about the data"
            ]
        )


def suffix_by_content(path: Path) -> str:
    """`.parquet` or `.csv`, by how a file begins."""
    return ".parquet" if head(path).startswith(_PARQUET) else ".csv"


def head(path: Path) -> bytes:
    """How a file begins."""
    with path.open("rb") as stream:
        return stream.read(_HEAD)
