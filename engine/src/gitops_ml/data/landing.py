"""Land what is new upstream into the folder that `data.source` names.

    gitops-ml land --from data/upcoming
    gitops-ml land --from https://example.com/flights.csv
    gitops-ml land --from s3://bucket/flights
    gitops-ml land --from postgresql://db.example.com/flights --table flights --since last

What landed before and is the same upstream stays as it is; what was corrected upstream supersedes
what landed; what does not fit schema.yaml is kept in data/quarantine/ with a report, while the rest
lands.
Passwords come from the environment: PGPASSWORD, AWS_SECRET_ACCESS_KEY, LAND_HTTP_TOKEN.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc import dvc_output
from gitops_ml.core.errors import UsageError
from gitops_ml.core.landed import newest_landings
from gitops_ml.core.schema import SOURCE_FILE, Schema, check_against_params, load_schema
from gitops_ml.core.settings import Params, load_params
from gitops_ml.data.convert import convert, present
from gitops_ml.data.ingest import read_file, write_table
from gitops_ml.data.problems import DataError, Problem
from gitops_ml.data.validate import (
    all_null_problem,
    check_rules,
    empty_columns,
    row_problems,
)
from gitops_ml.lake import partition
from gitops_ml.lake.address import public, split
from gitops_ml.lake.bucket import SCHEME, bucket_items
from gitops_ml.lake.database import SCHEMES, database_items
from gitops_ml.lake.errors import LakeError, UnfitError
from gitops_ml.lake.land import Outcome, Rules, Tables, land
from gitops_ml.lake.upstream import Item, local_items
from gitops_ml.lake.web import web_items

LAST = "last"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")
_HASHED = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be asked for; `make land` has a variable of the same name for each."""
    parser.add_argument("--from", dest="source", help="folder, file, or address of the source")
    parser.add_argument("--table", help="of a database, perhaps with its schema: sales.orders")
    parser.add_argument("--query", help="of a database, instead of a table: SELECT ...")
    parser.add_argument(
        "--since",
        help="of a database: read rows from this day on, or from the newest landed period (`last`)",
    )
    parser.add_argument("--named", dest="name", help="what the one file or table lands as")
    parser.add_argument("--take-over", action="store_true", help="the source has moved")
    parser.add_argument("--again", action="store_true", help="read also what has not changed")


def tables(schema: Schema, params: Params) -> Tables:
    """How this project reads, checks and writes a table."""

    def read(path: Path, shown: str, from_database: bool) -> pl.DataFrame:
        if from_database:
            write_table(parsed(pl.read_parquet(path), schema), path)
        try:
            rows = read_file(path, schema).rows.select(list(schema.columns))
        except DataError as error:
            raise _unfit(error.problems, shown) from error
        # Of a table only the newest rows may have been read.
        named = rows.with_columns(pl.lit(shown).alias(SOURCE_FILE))
        empty = set() if from_database else empty_columns(named, schema)
        if empty:
            raise _unfit([all_null_problem(named, *place) for place in sorted(empty)], shown)
        return rows

    def check(rows: pl.DataFrame, shown: str) -> None:
        named = rows.with_columns(pl.lit(shown).alias(SOURCE_FILE))
        problems = [
            problem
            for problem in row_problems(named, schema, params.data.key)
            # A few late rows may all lack a value; whole files were looked at when they were read.
            if problem.rule != "all_null" or not schema.columns[problem.column or ""].nullable
        ]
        if problems:
            raise _unfit(problems, shown)

    return Tables(read, check, write_table, _layout(schema, params))


def _unfit(problems: Sequence[Problem], shown: str) -> UnfitError:
    told = [problem.model_copy(update={"file": shown}) for problem in problems]
    return UnfitError([str(one) for one in told], [one.model_dump(mode="json") for one in told])


def _layout(schema: Schema, params: Params) -> str:
    columns = {name: column.type for name, column in schema.columns.items()}
    cut = params.data.partition if params.data.time else None
    text = json.dumps([columns, params.data.time, cut])
    return hashlib.sha256(text.encode()).hexdigest()[:_HASHED]


def parsed(rows: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """What a database hands over as text or numbers because it has no type of its own for it.

    SQLite has neither moments nor booleans, and PostgreSQL's numbers of any precision come as text.
    A column stays as it is where a value would be lost.
    """
    for name, column in schema.columns.items():
        if name not in rows.columns or column.type in ("category", "string"):
            continue
        values = rows.get_column(name)
        is_flag = column.type == "boolean" and values.dtype.is_integer()
        if values.dtype == pl.String or is_flag:
            words = present(values.cast(pl.String), column.type)
            typed = convert(words, column.type, from_text=True)
            if typed is not None and typed.null_count() == words.null_count():
                rows = rows.with_columns(typed.alias(name))
    return rows


def find_items(options: argparse.Namespace, params: Params) -> list[Item]:
    """What there is upstream.

    Raises:
        UsageError: If the words of the call do not go together.
        LakeError: If there is nothing, or it cannot be looked at.
    """
    source: str = options.source
    scheme = split(source).scheme.lower() if "://" in source else ""
    if scheme not in SCHEMES and (options.table or options.query or options.since):
        raise UsageError("TABLE, QUERY and SINCE are for databases: sqlite:/// or postgresql://")
    if scheme in SCHEMES:
        items = _from_database(options, params)
    elif scheme in ("http", "https"):
        items = web_items(source)
    elif source.startswith(SCHEME):
        items = bucket_items(source)
    elif scheme:
        raise UsageError(
            f"FROM={public(source)}: `{scheme}` is none of the known kinds: a folder or file, "
            f"http, https, s3, {', '.join(SCHEMES)}"
        )
    else:
        items = local_items(_outside(Path(source), params.data.source))
    if options.name is None:
        return items
    if len(items) > 1 or not _NAME.fullmatch(options.name):
        raise UsageError(
            f"NAMED={options.name}: names one file or table ({len(items)} were found), with "
            "letters, digits and ._=-"
        )
    return [replace(items[0], name=options.name)]


def _from_database(options: argparse.Namespace, params: Params) -> list[Item]:
    def items(since: datetime | None) -> list[Item]:
        return database_items(options.source, options.table, options.query, params.data.time, since)

    found = items(None)
    if options.since is None:
        return found
    if params.data.time is None:
        raise UsageError(f"SINCE needs `data.time` in {paths.PARAMS}, the column that dates a row")
    if options.since == LAST:
        since = _newest(found[0].source, params.data.source)
    else:
        try:
            since = datetime.fromisoformat(options.since)
        except ValueError as error:
            raise UsageError(
                f"SINCE={options.since}: must be a day like 2013-06-01, or last"
            ) from (error)
        since = since.replace(tzinfo=UTC) if since.tzinfo is None else since.astimezone(UTC)
    # A period is read whole, or the rows of it that landed would seem to be gone upstream.
    return items(None if since is None else partition.start_of(since, params.data.partition))


def _newest(source: str, folder: Path) -> datetime | None:
    """The time of the newest row that landed from a source."""
    times = [
        part.latest
        for landing in newest_landings(folder).values()
        if landing.source == source
        for part in landing.partitions
        if part.latest is not None
    ]
    return max(times, default=None)


def _outside(place: Path, folder: Path) -> Path:
    if place.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"FROM={place}: is where data land; name a place outside of {folder}")
    return place


def _tell(outcome: Outcome, source: str, params: Params) -> None:
    for line in outcome.landed:
        print(line)
    for line in outcome.bad:
        print(line, file=sys.stderr)
    as_of = params.data.as_of
    if isinstance(as_of, datetime) and outcome.newest is not None and outcome.newest >= as_of:
        print(
            f"the newest row is of {outcome.newest:%Y-%m-%d %H:%M}; `data.as_of` in "
            f"{paths.PARAMS}, {as_of:%Y-%m-%d %H:%M}, is not after it: set it"
        )
    if not outcome.landed and not outcome.bad:
        print(f"Nothing new: all of {public(source)} has landed before ({outcome.unchanged})")


def run(options: argparse.Namespace) -> int:
    """Land, and say what came of it; 1 if something was not fit."""
    if not options.source:
        raise UsageError(
            "say where from: make land FROM=folder, https://..., s3://bucket/folder, "
            "sqlite:///file.db TABLE=name or postgresql://host/database TABLE=name"
        )
    params, schema = load_params(), load_schema()
    check_against_params(schema, params, whole=False)
    check_rules(schema)
    data = params.data
    rules = Rules(data.time, data.partition, data.key, options.take_over, options.again)
    outcome = Outcome()
    try:
        land(data.source, find_items(options, params), tables(schema, params), rules, outcome)
    except LakeError:
        _tell_stopped(outcome)
        raise
    tracked = data.source.with_name(f"{data.source.name}.dvc")
    if tracked.is_file():
        dvc_output(Path(), "add", data.source.as_posix())
        print(f"{tracked} names what is there now")
    _tell(outcome, options.source, params)
    if outcome.bad:
        print(f"land: what is said above did not land; see {paths.QUARANTINE}/", file=sys.stderr)
        return 1
    return 0


def _tell_stopped(outcome: Outcome) -> None:
    """What had landed before the landing was stopped."""
    for line in [*outcome.landed, *outcome.bad]:
        print(line, file=sys.stderr)
