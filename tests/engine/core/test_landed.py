from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gitops_ml.core.landed import (
    Landing,
    ManifestError,
    Partition,
    counted_partitions,
    is_of_the_lake,
    newest_landings,
    version_file,
)


def landing(name: str, version: int, *files: str) -> Landing:
    return Landing(
        name=name,
        version=version,
        source=f"up/{name}.csv",
        layout="l",
        landed_at=datetime(2013, 7, 1, tzinfo=UTC),
        engine="0",
        partitions=tuple(
            Partition(file=file, period="2013-07", rows=1, sha256="0") for file in files
        ),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "format.json").write_text('{"format": 1}\n', encoding="utf-8")
    return tmp_path


def write(folder: Path, one: Landing) -> Path:
    path = version_file(folder, one.name, one.version)
    path.parent.mkdir(exist_ok=True)
    path.write_text(one.model_dump_json(), encoding="utf-8")
    return path


def test_a_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    (tmp_path / "partitions").mkdir()
    assert newest_landings(tmp_path) == {}
    assert counted_partitions(tmp_path) is None


def test_the_newest_landing_of_each_name_counts(folder: Path) -> None:
    for version in (1, 2, 10):
        write(folder, landing("july", version, f"partitions/2013-07/july-{version}.parquet"))
    write(folder, landing("august", 1, "partitions/2013-08/august.parquet", "partitions/b.parquet"))
    assert {name: one.version for name, one in newest_landings(folder).items()} == {
        "august": 1,
        "july": 10,
    }
    assert sorted(counted_partitions(folder) or {}) == [
        folder / "partitions/2013-07/july-10.parquet",
        folder / "partitions/2013-08/august.parquet",
        folder / "partitions/b.parquet",
    ]


def test_what_belongs_to_the_lake(folder: Path) -> None:
    assert is_of_the_lake(folder / "manifest/july/000001.json", folder)
    assert is_of_the_lake(folder / "partitions/a.parquet", folder)
    assert not is_of_the_lake(folder / "2013/partitions/a.parquet", folder)


@pytest.mark.parametrize("text", ["", "{", "<<<<<<< ours\n{}", '{"name": "july"}'])
def test_a_damaged_manifest_is_an_error(folder: Path, text: str) -> None:
    write(folder, landing("july", 1)).write_text(text, encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"july/000001\.json: cannot be read: .*in a merge keep"
    ):
        newest_landings(folder)


@pytest.mark.parametrize(
    "file",
    ["/etc/a.parquet", "../a.parquet", "partitions/../a.parquet", "partitions/.a.parquet", "a.csv"],
)
def test_a_partition_lies_below_its_folder(file: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        landing("july", 1, file)


def test_a_misplaced_landing_is_an_error(folder: Path) -> None:
    write(folder, landing("july", 1)).rename(version_file(folder, "july", 2))
    with pytest.raises(ManifestError, match=r"000002\.json: is of july, version 1; rename it"):
        newest_landings(folder)


def test_a_newer_format_is_an_error(folder: Path) -> None:
    (folder / "manifest" / "format.json").write_text('{"format": 2}', encoding="utf-8")
    with pytest.raises(ManifestError, match="is not of format 1, which this engine reads"):
        newest_landings(folder)
