"""Sources that are a table or a query of a database.

postgresql://host:port/database      libpq's variables and files say the rest: PGUSER, PGPASSWORD
sqlite:///relative/file.db           sqlite:////absolute/file.db
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from gitops_ml.lake.address import digest, name_of, public, told
from gitops_ml.lake.errors import LakeError, needed
from gitops_ml.lake.upstream import Fetched, Item

POSTGRES = ("postgresql", "postgres")
SQLITE = "sqlite"
SCHEMES = (*POSTGRES, SQLITE)
CONNECT_SECONDS = "30"


def database_items(
    address: str, table: str | None, query: str | None, time: str | None, since: datetime | None
) -> list[Item]:
    """The one table or query.

    Args:
        address: Of the database.
        table: Its name, perhaps with its schema's: `sales.orders`.
        query: A SELECT statement, if it is not a table.
        time: The column that dates a row.
        since: The beginning of the day from which on rows are read; None for all.

    Raises:
        LakeError: If neither or both are given.
    """
    if (table is None) == (query is None):
        raise LakeError(
            f"{public(address)}: say which rows: either TABLE=name or QUERY='SELECT ...'"
        )
    statement = _statement(table, query)
    if since is not None and time is not None:
        statement = _newer(statement, time, since, urlsplit(address).scheme)
    what = table or f"query-{digest(query or '')}"
    shown = f"{public(address)}#{what}"

    def fetch(folder: Path, _: str | None) -> Fetched | None:
        reads = _from_sqlite if urlsplit(address).scheme == SQLITE else _from_postgres
        rows = reads(address, statement, shown)
        if rows.is_empty():
            if since is not None:
                return None
            raise LakeError(f"{shown}: is empty: it gives no row; nothing landed")
        path = folder / "table.parquet"
        rows.write_parquet(path)
        return Fetched(path)

    return [Item(name_of(what), shown, fetch, from_database=True, since=since)]


def _statement(table: str | None, query: str | None) -> str:
    if table is not None:
        quoted = ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))
        return f"SELECT * FROM {quoted}"
    return (query or "").strip().rstrip(";")


def _newer(statement: str, time: str, since: datetime, scheme: str) -> str:
    column = '"' + time.replace('"', '""') + '"'
    # SQLite keeps moments as text: a day is smaller than any moment of it.
    moment = (
        f"{since:%Y-%m-%d}" if scheme == SQLITE else f"{since.astimezone(UTC):%Y-%m-%d %H:%M}+00"
    )
    undated = f" OR {column} IS NULL"
    return f"SELECT * FROM ({statement}) AS landed WHERE {column} >= '{moment}'{undated}"


def _from_sqlite(address: str, statement: str, shown: str) -> pl.DataFrame:
    """Read with Python's own SQLite.

    Raises:
        LakeError: If there is no such file or table, or the statement is wrong.
    """
    path = Path(urlsplit(address).path.removeprefix("/"))
    if not path.is_file():
        raise LakeError(f"{shown}: no such file: {path}; three slashes precede a relative path")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return pl.read_database(statement, connection, infer_schema_length=None)
    except sqlite3.Error as error:
        raise _refused(shown, str(error), address) from error
    except pl.exceptions.PolarsError as error:
        raise LakeError(
            f"{shown}: a column holds values of several types: {told(error, address)}; "
            "CAST it in QUERY"
        ) from error


def _from_postgres(address: str, statement: str, shown: str) -> pl.DataFrame:
    """Read with ADBC, which hands over columns.

    Raises:
        LakeError: If the server is not there, refuses, or cannot do what the statement says.
    """
    dbapi = needed("adbc_driver_postgresql.dbapi", "PostgreSQL")
    # libpq waits for ever for a server that does not answer.
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    try:
        with dbapi.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            rows: pl.DataFrame = cursor.fetch_polars()
    except dbapi.Error as error:
        raise _refused(shown, str(error), address) from error
    # Numbers of any precision, JSON and the like come as text that says what it stands for.
    return rows.with_columns(
        rows.get_column(name).ext.storage()
        for name, dtype in rows.schema.items()
        if isinstance(dtype, pl.BaseExtension)
    )


_REASONS = (
    (
        ("password authentication failed", "no password supplied", "role ", "pg_hba"),
        "access is refused",
        "set PGUSER and PGPASSWORD of somebody who may read it",
    ),
    (
        ("failed to connect", "could not translate", "connection refused"),
        "cannot be reached",
        "check host, port, database and the network",
    ),
    (("no such table", "relation ", "undefined table"), "no such table", "check TABLE or QUERY"),
    (("permission denied",), "access is refused", "let the user SELECT from it"),
)


def _refused(shown: str, said: str, address: str) -> LakeError:
    """What a database's error comes down to."""
    told_of = told(said, address)
    for words, what, remedy in _REASONS:
        if any(word in said.lower() for word in words):
            return LakeError(f"{shown}: {what}: {told_of}; {remedy}")
    return LakeError(f"{shown}: cannot be read: {told_of}; check TABLE or QUERY")
