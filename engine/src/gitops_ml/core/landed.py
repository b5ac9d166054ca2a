"""What has landed: the manifest beside the landed files, and which of the files it lets count.

    data/landed/                          `data.source` of params.yaml
      flights-2013-01.parquet             put there by hand: always counts
      manifest/format.json                there is a manifest
      manifest/flights-2013-07/000001.json   what the first landing of that file brought
      manifest/flights-2013-07/000002.json   a correction of it, which supersedes the first
      partitions/2013-07/flights-2013-07-1f2e3d4c5b6a.parquet

One file of the manifest is one landing of one upstream file, table or query. It is written whole,
in one step, after its partitions, so that a landing counts with all its partitions or with none.
Below `partitions/` only what the newest landing of each name lists counts; a folder without a
manifest is read as it is.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gitops_ml.core.errors import GitopsError

MANIFEST = "manifest"
PARTITIONS = "partitions"
FORMAT = "format.json"
STAGING = ".landing"
FORMAT_VERSION = 1
# A partition's file; the group is what it landed as.
PARTITION_FILE = r"/partitions/(?:[^/]+/)?([^/]+)-[0-9a-f]{12}\.parquet$"


class ManifestError(GitopsError):
    """The manifest cannot be read; the message says which file and what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Partition(_Model):
    """The rows of one landing that belong to one period.

    Attributes:
        file: Below the folder of the landed files, with slashes.
        period: E.g. `2013-07`; `undated` for rows without a time, None where rows have none.
        rows: How many.
        earliest: The time of the oldest row.
        latest: The time of the newest row.
        sha256: Of the file.
    """

    # It leads to no other place, and to no hidden one.
    file: Annotated[str, Field(pattern=rf"^{PARTITIONS}/(?:[^/.][^/]*/)?[^/.][^/]*\.parquet$")]
    period: str | None
    rows: int
    earliest: datetime | None = None
    latest: datetime | None = None
    sha256: str


class Landing(_Model):
    """One version of what came from one upstream file, table or query.

    Attributes:
        name: What the partitions are called after.
        version: 1 for the first; each supersedes the one before.
        source: Where it came from, without credentials.
        sha256: Of what was read upstream; None for a database.
        validator: By which the source says that nothing changed (an ETag); None if it cannot.
        layout: Hash of the columns' types and of how rows are cut into partitions.
        landed_at: When.
        engine: By what version of the engine.
        quarantined: The periods that upstream had and that were not fit to land.
        partitions: What counts.
    """

    name: str
    version: int
    source: str
    sha256: str | None = None
    validator: str | None = None
    layout: str
    landed_at: datetime
    engine: str
    quarantined: tuple[str, ...] = ()
    partitions: tuple[Partition, ...]


def has_manifest(folder: Path) -> bool:
    """Whether anything was ever landed into a folder by `make land`."""
    return (folder / MANIFEST / FORMAT).is_file()


def version_file(folder: Path, name: str, version: int) -> Path:
    """Where a version is written down."""
    return folder / MANIFEST / name / f"{version:06d}.json"


def newest_landings(folder: Path) -> dict[str, Landing]:
    """The newest landing of each name.

    Raises:
        ManifestError: If a file of the manifest is damaged, in conflict, or of a newer format.
    """
    found: dict[str, Landing] = {}
    if not has_manifest(folder):
        return found
    _check_format(folder / MANIFEST / FORMAT)
    for versions in sorted(path for path in (folder / MANIFEST).iterdir() if path.is_dir()):
        newest = max(versions.glob("[0-9]*.json"), default=None)
        if newest is not None:
            found[versions.name] = _read(newest)
    return found


def _check_format(path: Path) -> None:
    text = path.read_text(encoding="utf-8").strip()
    if text != f'{{"format": {FORMAT_VERSION}}}':
        raise ManifestError(
            f"{path}: is not of format {FORMAT_VERSION}, which this engine reads; "
            "update the project, or get the file back from git or DVC"
        )


def _read(path: Path) -> Landing:
    try:
        landing = Landing.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise ManifestError(
            f"{path}: cannot be read: {what}; in a merge keep one side of it, else get it back "
            "from git or DVC, then `make land` again"
        ) from error
    if version_file(path.parents[2], landing.name, landing.version) != path:
        raise ManifestError(f"{path}: is of {landing.name}, version {landing.version}; rename it")
    return landing


def counted_partitions(folder: Path) -> dict[Path, Partition] | None:
    """The partitions that count, by their files; None if there is no manifest.

    Raises:
        ManifestError: If the manifest cannot be read.
    """
    if not has_manifest(folder):
        return None
    landings = newest_landings(folder).values()
    return {folder / part.file: part for landing in landings for part in landing.partitions}


def is_of_the_lake(path: Path, folder: Path) -> bool:
    """Whether a file of a folder with a manifest belongs to the manifest or is a partition."""
    return path.relative_to(folder).parts[0] in (MANIFEST, PARTITIONS)
