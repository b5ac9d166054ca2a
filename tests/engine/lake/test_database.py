from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from gitops_ml.lake.database import _refused, database_items
from gitops_ml.lake.errors import LakeError

JULY = datetime(2013, 7, 1, tzinfo=UTC)


@pytest.fixture
def address(project: Path) -> str:
    with closing(sqlite3.connect(project / "flights.db")) as database:
        database.execute('CREATE TABLE "fl""ights" (n INTEGER, at TEXT)')
        database.executemany(
            'INSERT INTO "fl""ights" VALUES (?, ?)',
            [(1, "2013-06-30 23:59"), (2, "2013-07-01T00:00:00"), (3, None), (4, "2013-07-02")],
        )
        database.execute("CREATE TABLE bare (n INTEGER)")
        database.execute("CREATE TABLE mixed (n)")
        database.executemany("INSERT INTO mixed VALUES (?)", [(1,), ("x",)])
        database.commit()
    return "sqlite:///flights.db"


def rows(
    address: str, folder: Path, since: datetime | None = None, **what: str
) -> list[int] | None:
    (item,) = database_items(address, what.get("table"), what.get("query"), "at", since)
    fetched = item.fetch(folder, None)
    return None if fetched is None else pl.read_parquet(fetched.path)["n"].to_list()


def test_a_table_or_a_query_is_read(address: str, tmp_path: Path) -> None:
    assert rows(address, tmp_path, table='fl"ights') == [1, 2, 3, 4]
    assert rows(address, tmp_path, query='SELECT n FROM "fl""ights" WHERE n > 2;') == [3, 4]
    (item,) = database_items(address, None, "SELECT 1", None, None)
    assert item.from_database
    assert item.source.startswith("sqlite:///flights.db#query-")


def test_only_newer_rows_are_read_and_those_without_a_time(address: str, tmp_path: Path) -> None:
    assert rows(address, tmp_path, JULY, table='fl"ights') == [2, 3, 4]
    later = datetime(2014, 1, 1, tzinfo=UTC)
    query = 'SELECT * FROM "fl""ights" WHERE at IS NOT NULL;'
    assert rows(address, tmp_path, later, query=query) is None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({}, "say which rows: either TABLE=name or QUERY="),
        ({"table": "a", "query": "b"}, "say which rows: either TABLE=name or QUERY="),
        ({"table": "bare"}, "#bare: is empty: it gives no row; nothing landed"),
        ({"table": "gone"}, "#gone: no such table: no such table: gone; check TABLE or QUERY"),
        ({"query": "SELECT FROM"}, "cannot be read: "),
    ],
)
def test_what_cannot_be_read_is_said(
    address: str, tmp_path: Path, what: dict[str, str], said: str
) -> None:
    with pytest.raises(LakeError) as caught:
        rows(address, tmp_path, **what)
    assert said in str(caught.value)


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"no such file: other\.db; three slashes precede"):
        rows("sqlite:///other.db", tmp_path, table="t")
    assert not Path("other.db").exists()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("[libpq] Failed to connect: password authentication failed", "access is refused"),
        ("[libpq] Failed to connect: Connection refused", "cannot be reached"),
        ('relation "flights" does not exist', "no such table"),
        ("permission denied for table flights", "access is refused"),
        ("syntax error at word", "cannot be read"),
    ],
)
def test_errors_of_a_database_are_told_apart(said: str, what: str) -> None:
    error = _refused("postgresql://db/x#t", said, "postgresql://me:word@db/x")
    assert f"postgresql://db/x#t: {what}: " in str(error)
    assert "word" not in str(error).replace("password", "")


def test_a_missing_library_is_named_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(LakeError, match="landing from PostgreSQL needs adbc_driver_postgresql"):
        rows("postgresql://127.0.0.1:9/x", tmp_path, table="t")
