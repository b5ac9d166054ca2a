from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from gitops_ml.core.landed import Landing, ManifestError, Partition, newest_landings
from gitops_ml.lake.errors import LakeError
from gitops_ml.lake.store import Store, VersionTakenError, opened

ROWS = pl.DataFrame({"n": [1, 2]})
FOLDER = Path("data/landed")


def write(rows: pl.DataFrame, path: Path) -> None:
    rows.write_parquet(path)


def landing(version: int, *parts: tuple[str, str]) -> Landing:
    return Landing(
        name="july",
        version=version,
        source="up/july.csv",
        layout="l",
        landed_at=datetime(2013, 7, 1, tzinfo=UTC),
        engine="0",
        partitions=tuple(
            Partition(file=file, period="2013-07", rows=2, sha256=digest) for file, digest in parts
        ),
    )


def files() -> list[str]:
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.parquet"))


def land(version: int, rows: pl.DataFrame) -> str:
    with opened(FOLDER, write) as store:
        part = store.add(rows, "july", "2013-07")
        store.commit(landing(version, part))
    return part[0]


def test_a_landing_counts_with_its_partitions() -> None:
    file = land(1, ROWS)
    assert files() == [file]
    assert file.startswith("partitions/2013-07/july-")
    assert newest_landings(FOLDER)["july"].partitions[0].file == file
    assert [path.name for path in (FOLDER / ".landing").iterdir()] == ["lock"]


def test_a_landing_is_whole_before_it_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    linked = []
    link = os.link

    def watched(draft: Path, path: Path) -> None:
        linked.append((Landing.model_validate_json(draft.read_bytes()), path.exists()))
        link(draft, path)

    monkeypatch.setattr(os, "link", watched)
    land(1, ROWS)
    assert linked == [(newest_landings(FOLDER)["july"], False)]


def test_what_is_superseded_is_removed_at_the_end() -> None:
    first = land(1, ROWS)
    second = land(2, ROWS.head(1))
    assert files() == [second] != [first]


def test_a_version_is_written_once() -> None:
    with opened(FOLDER, write) as store:
        part = store.add(ROWS, "july", "2013-07")
        store.commit(landing(1, part))
        with pytest.raises(
            VersionTakenError, match=r"000001\.json: was written by another landing"
        ):
            store.commit(landing(1))
    assert newest_landings(FOLDER)["july"].partitions[0].file == part[0]


def test_what_a_stopped_landing_left_is_removed_and_counted() -> None:
    file = land(1, ROWS)
    (FOLDER / ".landing" / "stopped").mkdir()
    (FOLDER / ".landing" / "stopped" / "partition.parquet").touch()
    (FOLDER / "partitions" / "2013-08").mkdir()
    (FOLDER / "partitions" / "2013-08" / "july-0.parquet").touch()
    (FOLDER / "by-hand.parquet").touch()
    with opened(FOLDER, write) as store:
        assert store.mended == 2
    assert files() == ["by-hand.parquet", file]
    assert not (FOLDER / "partitions" / "2013-08").exists()


def test_nothing_is_removed_while_another_landing_is_at_work() -> None:
    land(1, ROWS)
    with (FOLDER / ".landing" / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        (FOLDER / "partitions" / "draft.parquet").touch()
        with opened(FOLDER, write) as store:
            assert store.mended == 0
        assert "partitions/draft.parquet" in files()
    with opened(FOLDER, write) as store:
        assert store.mended == 1


def test_a_partition_that_was_damaged_is_written_anew() -> None:
    file = land(1, ROWS)
    (FOLDER / file).write_bytes(b"half")
    with opened(FOLDER, write) as store:
        assert store.add(ROWS, "july", "2013-07")[0] == file
    assert pl.read_parquet(FOLDER / file).equals(ROWS)


def test_a_partition_without_a_period_lies_at_the_top() -> None:
    with opened(FOLDER, write) as store:
        assert store.add(ROWS, "july", None)[0].count("/") == 1


def test_what_cannot_be_written_is_said() -> None:
    def full(_: pl.DataFrame, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with opened(FOLDER, full) as store, pytest.raises(LakeError) as caught:
        store.add(ROWS, "july", None)
    assert "data/landed: cannot be written: No space left on device; what landed before" in str(
        caught.value
    )


def test_the_folder_must_be_one_with_a_manifest_that_can_be_read() -> None:
    land(1, ROWS)
    (FOLDER / "manifest/july/000001.json").write_text("{", encoding="utf-8")
    (FOLDER / "partitions/2013-07/other.parquet").touch()
    with pytest.raises(ManifestError), opened(FOLDER, write):
        pass
    assert "partitions/2013-07/other.parquet" in files()
    Path("rows.csv").touch()
    with pytest.raises(LakeError, match=r"rows\.csv: `data\.source` .* names a file"):
        _open(Path("rows.csv"))


def _open(folder: Path) -> Store:
    with opened(folder, write) as store:
        return store
