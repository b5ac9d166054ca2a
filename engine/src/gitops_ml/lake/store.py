"""Writing to the folder of the landed files, so that nothing is ever half there.

A partition is written under another name, flushed, and renamed. A landing counts from the moment
that its file of the manifest is linked into place, which fails if somebody else has taken that
version: two landings at once never both think that they came first. What a stopped landing leaves
counts for nothing, and goes when the next one runs alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from gitops_ml.core.file_hash import sha256_of
from gitops_ml.core.landed import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    PARTITIONS,
    STAGING,
    Landing,
    counted_partitions,
    has_manifest,
    newest_landings,
    version_file,
)
from gitops_ml.lake.errors import LakeError

LOCK = "lock"
_NAMED = 12

WriteTable = Callable[[pl.DataFrame, Path], None]


class VersionTakenError(LakeError):
    """Another landing has written this version meanwhile."""


@dataclass(frozen=True)
class Store:
    """The folder, while this process lands.

    Attributes:
        folder: `data.source` of params.yaml.
        staging: A folder in it that is this process's own.
        write: Writes a table with settings that give equal bytes for equal rows.
        mended: How many files were removed that a stopped landing had left.
    """

    folder: Path
    staging: Path
    write: WriteTable
    mended: int

    def add(self, rows: pl.DataFrame, name: str, period: str | None) -> tuple[str, str]:
        """Write a partition, which counts only once a landing lists it.

        Returns:
            Its file, below the folder, and its hash.

        Raises:
            LakeError: If it cannot be written, as on a full disk.
        """
        draft = self.staging / "partition.parquet"
        try:
            self.write(rows, draft)
            digest = sha256_of(draft)
            below = Path(PARTITIONS, period or "", f"{name}-{digest[:_NAMED]}.parquet")
            self._put(draft, self.folder / below)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _unwritten(self.folder, error) from error
        return below.as_posix(), digest

    def _put(self, draft: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _flush(draft)
        draft.replace(path)
        _flush(path.parent)

    def commit(self, landing: Landing) -> None:
        """Let a landing count, in one step.

        Raises:
            VersionTakenError: If its version is there already.
            LakeError: If it cannot be written.
        """
        draft = self.staging / "landing.json"
        path = version_file(self.folder, landing.name, landing.version)
        try:
            draft.write_text(landing.model_dump_json(indent=2) + "\n", encoding="utf-8")
            _flush(draft)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(draft, path)
            _flush(path.parent)
            draft.unlink()
        except FileExistsError as error:
            raise VersionTakenError(f"{path}: was written by another landing meanwhile") from error
        except OSError as error:
            raise _unwritten(self.folder, error) from error


@contextmanager
def opened(folder: Path, write: WriteTable) -> Iterator[Store]:
    """Begin and end a landing into a folder.

    What stopped landings have left is removed first, and at the end what was superseded, unless
    another landing is at work: the last one of them does it.

    Raises:
        ManifestError: If the manifest cannot be read.
        LakeError: If the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise LakeError(
            f"{folder}: `data.source` in params.yaml names a file; let it name a folder to land in"
        )
    newest_landings(folder)
    try:
        (folder / STAGING).mkdir(parents=True, exist_ok=True)
        with (folder / STAGING / LOCK).open("w", encoding="utf-8") as lock:
            mended = _clean(folder, lock.fileno())
            fcntl.flock(lock, fcntl.LOCK_SH)
            _begin_manifest(folder)
            staging = Path(tempfile.mkdtemp(dir=folder / STAGING))
            try:
                yield Store(folder, staging, write, mended)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
                _clean(folder, lock.fileno())
    except OSError as error:
        raise _unwritten(folder, error) from error


def _clean(folder: Path, lock: int) -> int:
    """Remove what counts for nothing, if nobody else lands; returns how many files that were."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    left = [path for path in (folder / STAGING).iterdir() if path.is_dir()]
    for path in left:
        shutil.rmtree(path)
    counted = counted_partitions(folder)
    if counted is None:
        return len(left)
    partitions = folder / PARTITIONS
    others = [path for path in partitions.rglob("*.parquet") if path not in counted]
    for path in others:
        path.unlink()
    for path in sorted(partitions.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return len(left) + len(others)


def _begin_manifest(folder: Path) -> None:
    """Say that there is a manifest, before the first partition is written."""
    if has_manifest(folder):
        return
    path = folder / MANIFEST / FORMAT
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder / STAGING) as staging:
        draft = Path(staging, FORMAT)
        draft.write_text(f'{{"format": {FORMAT_VERSION}}}\n', encoding="utf-8")
        _flush(draft)
        draft.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Bring a file, or what a folder lists, to the disk: it must outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritten(folder: Path, error: Exception) -> LakeError:
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return LakeError(
        f"{folder}: cannot be written: {what}; what landed before is whole, and nothing else "
        "counts: free some space or give write access there, then land again"
    )
