"""Data land from real servers, are cut off, killed, corrected and late, and nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import s3fs
from conftest import Bake
from lander import Done, Lander
from pytest_httpserver import HTTPServer
from sources import KEY, PASSWORD, SECRET, USER, Bucket, bucket_server, postgres_server
from werkzeug import Request, Response

from gitops_ml.core.landed import newest_landings
from gitops_ml.data.ingest import find_files

pytestmark = pytest.mark.slow

LANDED = Path("data/landed")
# A landing is killed at every fourth thing that it does to its files.
STRIDE = 4
KEY_COLUMNS = ["scheduled_hour", "carrier", "flight"]
MONTHS = (7, 8, 9)
Land = Callable[..., Done]


@pytest.fixture(scope="module")
def lander(clean_env: Mapping[str, str]) -> Iterator[Lander]:
    foreign = ("AWS_", "PG", "LAND_")
    with Lander({k: v for k, v in clean_env.items() if not k.startswith(foreign)}) as lander:
        yield lander


@pytest.fixture
def project(bake: Bake, tmp_path: Path) -> Path:
    """A project with little data: two months that were put there, three that have not landed."""
    project = Path(shutil.copytree(bake(), tmp_path / "flights", symlinks=True))
    for path in (project / LANDED).iterdir():
        if path.stem.endswith(("01", "02")):
            pl.read_parquet(path).gather_every(100).head(50).write_parquet(path)
        else:
            path.unlink()
    for path in (project / "data/upcoming").iterdir():
        pl.read_parquet(path).gather_every(80).head(100).write_parquet(path)
    return project


@pytest.fixture
def land(project: Path, lander: Lander) -> Land:
    def call(*words: str | Path, **how: object) -> Done:
        return lander(project, "land", "--from", *map(str, words), **how)

    return call


def upcoming(project: Path, month: int) -> pl.DataFrame:
    return pl.read_parquet(project / f"data/upcoming/flights-2013-{month:02}.parquet")


def all_upcoming(project: Path) -> pl.DataFrame:
    return pl.concat([upcoming(project, month) for month in MONTHS])


def counted(project: Path) -> dict[str, pl.DataFrame]:
    """What ingest reads of what landed, by the name of the file: each file is whole."""
    source = project / LANDED
    return {
        path.relative_to(source).as_posix(): pl.read_parquet(path) for path in find_files(source)
    }


def rows_of(project: Path, *periods: str) -> pl.DataFrame:
    """The rows that landed for some months, sorted by their key."""
    parts = [
        rows
        for name, rows in counted(project).items()
        if name.startswith(tuple(f"partitions/{period}/" for period in periods))
    ]
    return pl.concat(parts).sort(KEY_COLUMNS)


def same(rows: pl.DataFrame, expected: pl.DataFrame) -> bool:
    return rows.select(sorted(rows.columns)).equals(
        expected.select(sorted(rows.columns)).sort(KEY_COLUMNS)
    )


SUMMER = ("2013-07", "2013-08", "2013-09")


def assert_landed_once(project: Path, land: Land, *words: str, **how: object) -> None:
    """What is upstream has landed, is noted without a password, and lands no second time."""
    assert same(rows_of(project, *SUMMER), all_upcoming(project))
    manifest = {path: path.read_bytes() for path in (project / LANDED / "manifest").rglob("*.json")}
    for secret in (SECRET, PASSWORD, KEY):
        assert not any(secret.encode() in text for text in manifest.values())
    again = land(*words, **how)
    assert (again.code, again.told) == (0, "")
    assert again.said.startswith("Nothing new: all of ")
    assert manifest == {
        path: path.read_bytes() for path in (project / LANDED / "manifest").rglob("*.json")
    }


def test_a_folder_lands_and_the_pipeline_reads_it(
    project: Path, land: Land, lander: Lander
) -> None:
    done = land("data/upcoming")
    assert (done.code, done.told) == (0, "")
    assert "flights-2013-07, 2013-07: 100 rows" in done.said
    assert "`data.as_of` in params.yaml, 2013-07-01 00:00, is not after it: set it" in done.said
    assert_landed_once(project, land, "data/upcoming")
    ingested = lander(project, "ingest")
    assert ingested.said == "Read 400 rows from 5 files\n"
    assert lander(project, "validate").told.count("\n") == lander(project, "validate").told.count(
        "rows_min"
    ) + lander(project, "validate").told.count("validate:")


# A bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_server() as bucket:
        yield bucket


def test_a_bucket_lands(project: Path, land: Land, bucket: Bucket) -> None:
    client = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=bucket.endpoint)
    for path in (project / "data/upcoming").iterdir():
        client.put_file(path, f"flights/2013/{path.name}")
    place, variables = "s3://flights/2013", dict(bucket.variables)

    done = land(place, variables=variables)
    assert (done.code, done.told) == (0, "")
    assert_landed_once(project, land, place, variables=variables)
    one = newest_landings(project / LANDED)["flights-2013-07"]
    assert one.source == "s3://flights/2013/flights-2013-07.parquet"
    assert one.validator

    # One object, corrected: only it lands.
    corrected = upcoming(project, 8).head(60)
    corrected.write_parquet(project / "corrected.parquet")
    client.put_file(project / "corrected.parquet", "flights/2013/flights-2013-08.parquet")
    done = land(f"{place}/flights-2013-08.parquet", variables=variables)
    assert "2013-08: 60 rows, supersede version 1 (100 rows, landed " in done.said
    assert same(rows_of(project, "2013-08"), corrected)

    for address, other, what in (
        ("s3://nowhere/2013", {}, "s3://nowhere/2013 (endpoint http"),
        ("s3://flights/nothing", {}, "is empty: no .parquet or .csv object is below it"),
        (place, {"AWS_SECRET_ACCESS_KEY": "wrong"}, "access is refused"),
        (place, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ):
        refused = land(address, variables={**variables, **other})
        assert refused.code == 1
        assert what in refused.told
        assert SECRET not in refused.told


# PostgreSQL


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as address:
        yield address


def test_a_table_of_postgresql_lands(project: Path, land: Land, postgres: str) -> None:
    import adbc_driver_postgresql.dbapi as dbapi

    variables = {"PGUSER": USER, "PGPASSWORD": PASSWORD}
    rows = all_upcoming(project)
    with closing(dbapi.connect(postgres.replace("//", f"//{USER}:{PASSWORD}@"))) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_ingest("flights", rows, mode="create")
            # As tables are: numbers of any precision, and moments with their zone.
            cursor.execute(
                "ALTER TABLE flights ALTER COLUMN temperature TYPE numeric(6,2), "
                "ALTER COLUMN scheduled_hour TYPE timestamptz "
                "USING scheduled_hour AT TIME ZONE 'UTC'"
            )
        connection.commit()
        words = (postgres, "--table", "public.flights")

        done = land(*words, variables=variables)
        assert (done.code, done.told) == (0, "")
        assert_landed_once(project, land, *words, variables=variables)

        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM flights WHERE scheduled_hour < '2013-08-01 00:00+00'")
            cursor.execute(
                "UPDATE flights SET distance = 99 WHERE scheduled_hour = "
                "(SELECT max(scheduled_hour) FROM flights)"
            )
        connection.commit()

    # Only the newest month is read: what is gone before it stays as it landed.
    done = land(*words, "--since", "last", variables=variables)
    assert (done.code, done.told) == (0, "")
    assert [line.partition(" rows")[0] for line in done.said.splitlines()[:-1]] == [
        "public.flights, 2013-09: 100"
    ]
    assert rows_of(project, "2013-07").height == 100
    assert 99 in rows_of(project, "2013-09")["distance"]

    # All of it: July is gone.
    done = land(*words, variables=variables)
    assert "2013-07: withdrawn: 100 rows that had landed are gone upstream" in done.said
    assert not any("2013-07" in name for name in counted(project))

    for address, options, other, what in (
        (postgres, ("--table", "nothing"), {}, "#nothing: no such table: "),
        (postgres, ("--query", "SELECT FROM WHERE"), {}, "cannot be read: "),
        (
            postgres,
            ("--query", "SELECT * FROM flights WHERE false"),
            {},
            "is empty: it gives no row",
        ),
        (postgres, ("--table", "flights"), {"PGPASSWORD": "wrong"}, "access is refused: "),
        ("postgresql://127.0.0.1:9/postgres", ("--table", "flights"), {}, "cannot be reached: "),
        (postgres, (), {}, "say which rows: either TABLE=name or QUERY="),
    ):
        refused = land(address, *options, variables={**variables, **other})
        assert (refused.code, refused.said) == (1, "")
        assert what in refused.told
    told = land(
        postgres.replace("//", f"//{USER}:open-sesame@"), "--table", "flights", variables=variables
    ).told
    assert "access is refused" in told
    assert "open-sesame" not in told


def test_a_table_of_sqlite_lands(project: Path, land: Land) -> None:
    """It has no moments and no booleans: they are read by the schema."""
    rows = all_upcoming(project).with_columns(
        pl.col("scheduled_hour").dt.strftime("%Y-%m-%d %H:%M:%S"), pl.col("late").cast(pl.Int64)
    )
    with closing(sqlite3.connect(project / "flights.db")) as database:
        columns = ", ".join(f'"{name}"' for name in rows.columns)
        database.execute(f"CREATE TABLE flights ({columns})")
        marks = ", ".join("?" * len(rows.columns))
        database.executemany(f"INSERT INTO flights VALUES ({marks})", rows.rows())
        database.commit()
    words = ("sqlite:///flights.db", "--table", "flights")

    done = land(*words)
    assert (done.code, done.told) == (0, "")
    assert_landed_once(project, land, *words)
    assert "Nothing new" in land(*words, "--since", "last").said
    assert "Nothing new" in land(*words, "--since", "2014-01-01").said
    assert "no such table" in land("sqlite:///flights.db", "--table", "nothing").told
    assert "no such file: other.db" in land("sqlite:///other.db", "--table", "others").told


# A web server


def test_a_file_of_a_web_server_lands(project: Path, land: Land, httpserver: HTTPServer) -> None:
    body = all_upcoming(project).write_csv().encode()

    def answer(request: Request) -> Response:
        """A server that gives no parts of a file, and knows what a client has."""
        if request.headers.get("Authorization") != "Bearer let-me-in":
            return Response(status=401)
        if request.headers.get("If-None-Match") == '"1"':
            return Response(status=304)
        return Response(body, headers={"ETag": '"1"', "Content-Type": "text/csv"})

    httpserver.expect_request("/flights.csv").respond_with_handler(answer)
    httpserver.expect_request("/login").respond_with_data("<!DOCTYPE html><p>Who are you?</p>")
    address = httpserver.url_for("/flights.csv?key=open-sesame")
    variables = {"LAND_HTTP_TOKEN": "let-me-in"}

    done = land(address, variables=variables)
    assert (done.code, done.told) == (0, "")
    assert_landed_once(project, land, address, variables=variables)
    assert "open-sesame" not in newest_landings(project / LANDED)["flights"].model_dump_json()

    refused = land(address)
    assert "access is refused (401): set LAND_HTTP_TOKEN" in refused.told
    page = land(httpserver.url_for("/login"))
    assert (page.code, page.said) == (1, "")
    assert "is an HTML or XML page and no data" in page.told
    assert (project / "data/quarantine/login/all/report.json").is_file()
    assert "the server answers 500, 3 times" in land(httpserver.url_for("/nothing")).told
    gone = land("http://127.0.0.1:9/gone.csv")
    assert "http://127.0.0.1:9/gone.csv: cannot be reached: " in gone.told


# Good beside bad, corrected, late


def test_what_is_not_fit_is_quarantined_and_the_rest_lands(project: Path, land: Land) -> None:
    folder = project / "data/upcoming"
    july = (folder / "flights-2013-07.parquet").read_bytes()
    (folder / "flights-2013-07.parquet").write_bytes(july[: len(july) // 2])
    august = upcoming(project, 8)
    august.drop("carrier").write_parquet(folder / "flights-2013-08.parquet")
    (folder / "page.csv").write_text("<html>Not found</html>", encoding="utf-8")
    mixed = pl.concat(
        [
            upcoming(project, 9),
            august.with_columns(distance=pl.lit(-1, dtype=august["distance"].dtype)),
        ]
    )
    mixed.write_parquet(folder / "mixed.parquet")

    done = land("data/upcoming")

    assert done.code == 1
    assert "flights-2013-09, 2013-09: 100 rows" in done.said
    assert "mixed, 2013-09: 100 rows" in done.said
    for what in (
        "flights-2013-07.parquet: cannot be read as parquet, it is cut off or damaged",
        "flights-2013-08.parquet: carrier: the column is missing, but schema.yaml declares it",
        "page.csv: is an HTML or XML page",
        "mixed.parquet, 2013-08: distance: 100 values below 10",
        "kept, with report.json, in data/quarantine/mixed/2013-08/",
    ):
        assert what in done.told
    report = json.loads(
        (project / "data/quarantine/mixed/2013-08/report.json").read_text(encoding="utf-8")
    )
    assert (report["source"], report["problems"][0]["rule"]) == (
        "data/upcoming/mixed.parquet",
        "min",
    )
    assert {name.split("/")[1] for name in counted(project) if "/" in name} == {"2013-09"}

    # The same is bad again, and nothing more lands. Mended, it lands and leaves quarantine.
    again = land("data/upcoming")
    assert (again.code, again.said) == (1, "")
    (folder / "flights-2013-07.parquet").write_bytes(july)
    august.write_parquet(folder / "flights-2013-08.parquet")
    (folder / "page.csv").unlink()
    (folder / "mixed.parquet").unlink()
    assert land("data/upcoming").code == 0
    assert sorted(path.name for path in (project / "data/quarantine").iterdir()) == [
        "mixed",
        "page",
    ]


def test_a_second_source_may_not_take_a_name(project: Path, land: Land) -> None:
    land("data/upcoming/flights-2013-07.parquet")
    other = shutil.copytree(project / "data/upcoming", project / "mirror")
    upcoming(project, 7).gather_every(5).write_parquet(other / "flights-2013-07.parquet")
    one = "mirror/flights-2013-07.parquet"

    refused = land(one)
    assert refused.code == 1
    assert (
        f"{one}: would land as `flights-2013-07`, which is data/upcoming/flights-2013-07.parquet "
        "already; land it under another name with NAMED=name" in refused.told
    )
    assert rows_of(project, "2013-07").height == 100
    assert land(one, "--take-over").code == 0
    assert rows_of(project, "2013-07").height == 20


# Killed, crowded, full


def prepare_corrections(project: Path, land: Land) -> dict[str, list[pl.DataFrame]]:
    """Land July; then correct it, with a late row of June, beside August and a bad September.

    Returns:
        For each month, the rows that may be there: those before and those after.
    """
    assert land("data/upcoming/flights-2013-07.parquet").code == 0
    july = upcoming(project, 7)
    late = july.head(3).with_columns(scheduled_hour=datetime(2013, 6, 30, 5, tzinfo=UTC))
    late = late.with_columns(late["scheduled_hour"].cast(july["scheduled_hour"].dtype))
    corrected = july.tail(80)
    folder = project / "data/upcoming"
    pl.concat([corrected, late]).write_parquet(folder / "flights-2013-07.parquet")
    upcoming(project, 9).drop("late").write_parquet(folder / "flights-2013-09.parquet")
    return {"2013-06": [late], "2013-07": [july, corrected], "2013-08": [upcoming(project, 8)]}


def assert_whole(project: Path, allowed: Mapping[str, list[pl.DataFrame]]) -> set[str]:
    """Every month that counts is as before or as after, and one landing is seen whole."""
    found = counted(project)
    assert {"flights-2013-01.parquet", "flights-2013-02.parquet"} <= set(found)
    months = {name.split("/")[1] for name in found if "/" in name}
    for month in months:
        assert any(same(rows_of(project, month), rows) for rows in allowed[month])
    # The late row came with the correction: both are there, or neither is.
    assert ("2013-06" in months) == same(rows_of(project, "2013-07"), allowed["2013-07"][1])
    return months


def test_a_landing_that_is_killed_at_any_moment_loses_nothing(
    project: Path, land: Land, lander: Lander, tmp_path: Path
) -> None:
    allowed = prepare_corrections(project, land)
    moment = killed = 0
    seen = set()
    sizes = [{"bytes": size, "kill_at": 0} for size in (1_000, 6_000, 9_000)]
    while True:
        copy = Path(
            shutil.copytree(project / "data", tmp_path / "copy" / "data", symlinks=True)
        ).parent
        for name in ("params.yaml", "schema.yaml", "pyproject.toml"):
            shutil.copy(project / name, copy)
        shutil.copytree(project / "src", copy / "src")
        if sizes:
            how = sizes.pop()
        else:
            moment += STRIDE
            how = {"kill_at": moment}
        done = lander(copy, "land", "--from", "data/upcoming", **how)
        killed += done.code < 0
        seen.add(frozenset(assert_whole(copy, allowed)))

        mended = lander(copy, "land", "--from", "data/upcoming")
        assert mended.code == 1, mended
        assert "late: the column is missing" in mended.told
        assert assert_whole(copy, allowed) == set(allowed)
        for month, rows in allowed.items():
            assert same(rows_of(copy, month), rows[-1])
        files = {str(path) for path in (copy / LANDED).rglob("*.parquet")}
        assert files == {str(path) for path in find_files(copy / LANDED)}
        assert [path.name for path in (copy / LANDED / ".landing").iterdir()] == ["lock"]
        shutil.rmtree(copy)
        if done.code >= 0:
            break
    assert killed >= 20
    # It was killed before, between and after the landings.
    assert len(seen) >= 3


def test_landings_at_once_land_everything_once(project: Path, land: Land, lander: Lander) -> None:
    for month in MONTHS:
        lander.start(project, "land", "--from", f"data/upcoming/flights-2013-{month:02}.parquet")
        lander.start(project, "land", "--from", "data/upcoming")
        lander.start(project, "land", "--from", "data/upcoming", "--again")
    done = [lander.result() for _ in range(3 * len(MONTHS))]
    assert [one.code for one in done] == [0] * len(done), done
    assert_landed_once(project, land, "data/upcoming")
    told = "".join(one.said for one in done)
    # Some are told to be late, where a newer month was faster.
    landed = re.findall(r"^flights-2013-\d\d, (2013-\d\d): \d+ rows(?:, late\b.*)?$", told, re.M)
    assert sorted(landed) == [f"2013-{month:02}" for month in MONTHS]
    assert {one.version for one in newest_landings(project / LANDED).values()} == {1}


def test_a_full_disk_is_said_and_lands_nothing_half(project: Path, land: Land) -> None:
    done = land("data/upcoming", bytes=4_000)
    assert (done.code, done.said) == (1, "")
    assert "data/landed: cannot be written: " in done.told
    assert "free some space" in done.told
    assert not any("/" in name for name in counted(project))
    assert land("data/upcoming").code == 0
    assert_landed_once(project, land, "data/upcoming")


def test_what_dvc_tracks_is_tracked_after_a_landing(
    project: Path, land: Land, lander: Lander
) -> None:
    for command in (
        ["git", "rm", "--quiet", "-r", "--cached", str(LANDED)],
        [sys.executable, "-m", "dvc", "add", "--quiet", str(LANDED)],
    ):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    before = (project / "data/landed.dvc").read_text(encoding="utf-8")
    done = land("data/upcoming")
    assert (done.code, done.told) == (0, "")
    after = (project / "data/landed.dvc").read_text(encoding="utf-8")
    assert before != after
    # Five data files, three landings and the format; neither the lock nor drafts.
    assert "nfiles: 9" in after
