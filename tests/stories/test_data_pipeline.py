"""Bad files and planted defects, end to end: each turns its check red and says why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import Bake, Run, generate

pytestmark = pytest.mark.slow

JANUARY = Path("data/landed/flights-2013-01.parquet")
STAGES = ("ingest", "validate", "split")


@pytest.fixture(scope="module")
def _small(
    template: Path,
    env_without_uv: Any,
    locked_project: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A project with two small files: what is tested here does not need all rows."""
    project = generate(template, tmp_path_factory.mktemp("small"), env_without_uv)
    shutil.copy(locked_project / "uv.lock", project)
    for path in (project / "data" / "landed").iterdir():
        if path.stem.endswith(("01", "02")):
            pl.read_parquet(path).head(2000).write_parquet(path)
        else:
            path.unlink()
    change_yaml(project / "params.yaml", lambda p: p["data"].update(as_of="2013-02-20T00:00:00Z"))
    return project


@pytest.fixture
def project(_small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_small, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="module")
def _staged(_small: Path, project_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("staged") / "project"
    shutil.copytree(_small, project, symlinks=True)
    project_run(project, "dvc", "repro", "split", check=True)
    return project


@pytest.fixture
def staged(_staged: Path, tmp_path: Path) -> Path:
    """The small project after ingest, validate and split."""
    return Path(shutil.copytree(_staged, tmp_path / "project", symlinks=True))


def change_yaml(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def change_rows(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_parquet(path)).write_parquet(path)


def cell(column: str, row: int, value: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        here = pl.int_range(pl.len()) == row
        dtype = rows.schema[column]
        return rows.with_columns(
            pl.when(here).then(pl.lit(value, dtype=dtype)).otherwise(column).alias(column)
        )

    return change


def problems_in(project: Path, report: str) -> list[tuple[str, str | None, str, int]]:
    found = json.loads((project / "reports" / report).read_text(encoding="utf-8"))["problems"]
    return [(p["file"], p["column"], p["rule"], p["count"]) for p in found]


def as_csv(project: Path, change: Callable[[list[str]], list[str]]) -> str:
    """Land ten rows as CSV, after a change to its lines (the first is the header)."""
    path = project / "data" / "landed" / "extra.csv"
    lines = pl.read_parquet(project / JANUARY).head(10).write_csv().splitlines()
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
    return "data/landed/extra.csv"


def truncate(project: Path) -> None:
    whole = (project / JANUARY).read_bytes()
    (project / JANUARY).write_bytes(whole[: len(whole) // 2])


def wrong_encoding(project: Path) -> None:
    name = as_csv(project, lambda lines: lines)
    text = (project / name).read_text(encoding="utf-8").replace("UA", "\u00dcA", 1)
    (project / name).write_bytes(text.encode("latin-1"))


def empty_file(project: Path) -> None:
    (project / "data/landed/extra.csv").touch()


def land(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    return lambda project: change_rows(project / JANUARY, change)


def land_csv(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    return lambda project: void(as_csv(project, change))


def void(_: object) -> None:
    """Drop a result."""


CSV = "data/landed/extra.csv"
PARQUET = JANUARY.as_posix()

# The defect; what the report names: file, column, rule, count; what people are told.
BAD_FILES = {
    "empty": (empty_file, (CSV, None, "empty_file", 1), "is empty"),
    "no rows": (land_csv(lambda lines: lines[:1]), (CSV, None, "no_rows", 1), "no rows"),
    "missing column": (
        land(lambda rows: rows.drop("distance")),
        (PARQUET, "distance", "missing_column", 2000),
        "the column is missing",
    ),
    "extra column": (
        land(lambda rows: rows.with_columns(tail=pl.lit("N1"))),
        (PARQUET, "tail", "unexpected_column", 2000),
        "declare it there",
    ),
    "wrong dtype": (
        land(lambda rows: rows.with_columns(pl.col("distance").cast(pl.String))),
        (PARQUET, "distance", "type", 2000),
        "holds String, but schema.yaml says integer",
    ),
    "wrong value in CSV": (
        land_csv(lambda lines: [lines[0], lines[1].replace(",UA,", ",UA,x"), *lines[2:]]),
        (CSV, "flight", "type", 1),
        "line 2: 'x1545'",
    ),
    "truncated parquet": (truncate, (PARQUET, None, "unreadable", 1), "cut off or damaged"),
    "bad row in CSV": (
        land_csv(lambda lines: [*lines[:3], lines[3] + ",7", *lines[4:]]),
        (CSV, None, "bad_row", 1),
        "line 4: '21 fields'",
    ),
    "wrong encoding": (wrong_encoding, (CSV, None, "encoding", 1), "line 2: 'byte 0xDC'"),
    "infinite": (
        land(cell("humidity", 3, float("inf"))),
        (PARQUET, "humidity", "infinite", 1),
        "row 4: 'inf'",
    ),
    "another kind": (
        lambda project: (project / "data/landed/notes.txt").touch(),
        ("data/landed/notes.txt", None, "file_type", 1),
        "move it out of the folder",
    ),
    "landed twice": (
        lambda project: void(shutil.copy(project / JANUARY, project / "data/landed/z.parquet")),
        ("data/landed/z.parquet", None, "duplicate_file", 2000),
        "is the same, byte for byte",
    ),
    "no file": (
        lambda project: shutil.rmtree(project / "data/landed"),
        ("data/landed", None, "no_file", 1),
        "no such file or folder",
    ),
}


@pytest.mark.parametrize("defect", BAD_FILES)
def test_a_bad_file_is_refused_by_ingest(project: Path, project_run: Run, defect: str) -> None:
    plant, expected, told = BAD_FILES[defect]
    plant(project)
    done = project_run(project, "gitops-ml", "ingest")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert problems_in(project, "ingest.json") == [expected]
    assert told in done.stderr
    assert done.stderr.startswith(expected[0])
    assert f"[{expected[2]}]" in done.stderr
    assert not (project / "data/ingested.parquet").exists()


def repeat_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows.head(3)])


BAD_ROWS = {
    "range": (cell("humidity", 5, 101.0), ("humidity", "max", 1), "1 value above 100 %"),
    "category": (cell("carrier", 5, "ZZ"), ("carrier", "categories", 1), "in 1 row: 'ZZ'"),
    "missing value": (cell("origin", 5, None), ("origin", "null", 1), "1 value is missing"),
    "all null": (
        lambda rows: rows.with_columns(wind_gust=pl.lit(None, pl.Float64)),
        ("wind_gust", "all_null", 2000),
        "no value in any of 2,000 rows",
    ),
    "duplicate keys": (
        repeat_rows,
        ("scheduled_hour, carrier, flight", "unique_key", 6),
        "6 rows whose key is not unique",
    ),
    "rule": (
        lambda rows: cell("late", 5, not rows["late"][5])(rows),
        (None, "rule.late_follows_from_the_delay", 1),
        "1 row breaks `late = (arrival_delay > 15)`",
    ),
}


@pytest.mark.parametrize("defect", BAD_ROWS)
def test_a_bad_row_is_refused_by_validate(project: Path, project_run: Run, defect: str) -> None:
    change, expected, told = BAD_ROWS[defect]
    change_rows(project / JANUARY, change)
    project_run(project, "gitops-ml", "ingest", check=True)
    done = project_run(project, "gitops-ml", "validate")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert problems_in(project, "validation.json") == [(PARQUET, *expected)]
    page = (project / "reports/validation.html").read_text(encoding="utf-8")
    for text in (done.stderr, page.replace("&#x27;", "'").replace("&gt;", ">")):
        assert told in text
        assert PARQUET in text
        assert expected[1] in text
    assert not (project / "reports/data_profile.json").exists()


def test_all_defects_of_all_files_are_in_one_report(project: Path, project_run: Run) -> None:
    for change, _, _ in BAD_ROWS.values():
        change_rows(project / JANUARY, change)
    change_rows(project / "data/landed/flights-2013-02.parquet", cell("distance", 1, 9))
    change_yaml(project / "params.yaml", lambda p: p["data"].update(as_of="2014-01-01T00:00:00Z"))
    change_yaml(project / "contract.yaml", lambda c: c["data"].update(rows_min=9000))
    project_run(project, "gitops-ml", "ingest", check=True)
    done = project_run(project, "gitops-ml", "validate")
    assert done.returncode == 1
    rules = {rule for _, _, rule, _ in problems_in(project, "validation.json")}
    assert rules == {
        *(expected[1] for _, expected, _ in BAD_ROWS.values()),
        "min",
        "freshness",
        "rows_min",
    }


def test_dvc_stops_at_bad_data_and_accepts_the_repaired(project: Path, project_run: Run) -> None:
    good = (project / JANUARY).read_bytes()
    change_rows(project / JANUARY, cell("carrier", 5, "ZZ"))
    done = project_run(project, "dvc", "repro", "split")
    assert done.returncode != 0
    assert "carrier: 1 value is not among the schema's categories" in done.stdout + done.stderr
    assert not (project / "data/split").exists()
    (project / JANUARY).write_bytes(good)
    project_run(project, "dvc", "repro", "split", check=True)
    again = project_run(project, "dvc", "repro", "split", check=True)
    assert "Running stage" not in again.stdout


def test_landing_a_month_moves_no_row(project: Path, project_run: Run) -> None:
    def sides() -> dict[tuple[object, ...], str]:
        return {
            key: side
            for side in ("train", "test")
            for key in pl.read_parquet(project / f"data/split/{side}.parquet")
            .select("scheduled_hour", "carrier", "flight")
            .iter_rows()
        }

    project_run(project, "dvc", "repro", "split", check=True)
    before = sides()
    upcoming = project / "data/upcoming/flights-2013-07.parquet"
    pl.read_parquet(upcoming).head(2500).write_parquet(project / "data/landed" / upcoming.name)
    project_run(project, "dvc", "repro", "split", check=True)
    after = sides()
    assert len(after) == len(before) + 2500
    assert {key: after[key] for key in before} == before
    assert set(after.values()) == {"train", "test"}


def drop_from_schema(name: str) -> Callable[[Path], None]:
    return lambda project: change_yaml(
        project / "schema.yaml", lambda schema: schema["columns"].pop(name)
    )


def change_column(name: str, **terms: Any) -> Callable[[Path], None]:
    return lambda project: change_yaml(
        project / "schema.yaml", lambda schema: schema["columns"][name].update(terms)
    )


def leak_rows(project: Path) -> None:
    """Copy test rows into the training set, each with another flight number and hour."""
    test = pl.read_parquet(project / "data/split/test.parquet")
    train = project / "data/split/train.parquet"
    copies = test.with_columns(
        pl.col("scheduled_hour") + pl.duration(days=400), flight=pl.col("flight") + 1
    )
    change_rows(train, lambda rows: pl.concat([rows, copies]))


def move_rows(columns: tuple[str, ...]) -> Callable[[Path], None]:
    """Put a few test rows into the training set as well, with some columns changed."""

    def plant(project: Path) -> None:
        some = pl.read_parquet(project / "data/split/test.parquet").head(5)
        some = some.with_columns(pl.col(name) + 1 for name in columns)
        change_rows(project / "data/split/train.parquet", lambda r: pl.concat([r, some]))

    return plant


def unseen_categories(project: Path) -> None:
    rare = pl.col("destination") == "ATL"
    change_rows(project / "data/split/train.parquet", lambda rows: rows.filter(~rare))


def one_class(project: Path) -> None:
    change_rows(project / "data/split/test.parquet", lambda rows: rows.filter("late"))


def leaky_feature(project: Path) -> None:
    change_column("arrival_delay", feature=True)(project)


def disguised_leak(project: Path) -> None:
    """A feature that the target shines through, though not to the last row."""
    noisy = pl.when(pl.int_range(pl.len()) % 500 != 0).then(pl.col("late").cast(pl.Float64) * 3)
    change_rows(
        project / "data/split/train.parquet", lambda rows: rows.with_columns(pressure=noisy)
    )


def tighten(**terms: Any) -> Callable[[Path], None]:
    return lambda project: change_yaml(
        project / "contract.yaml", lambda contract: contract["data"].update(terms)
    )


def age_data(project: Path) -> None:
    change_yaml(project / "params.yaml", lambda p: p["data"].update(as_of="2013-06-01T00:00:00Z"))


def ingested(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    return lambda project: change_rows(project / "data/ingested.parquet", change)


PLANTED = {
    "column dropped from the schema": (
        drop_from_schema("visibility"),
        "test_columns_and_types_are_the_schema_s",
    ),
    "type changed in the schema": (
        change_column("distance", type="number"),
        "test_columns_and_types_are_the_schema_s",
    ),
    "range drifted": (change_column("distance", max=500), "test_values_keep_their_ranges"),
    "category drifted": (
        change_column("carrier", categories=["UA", "AA"]),
        "test_categories_are_known",
    ),
    "missing values": (
        change_column("wind_gust", nullable=False),
        "test_values_are_there_where_they_must_be",
    ),
    "duplicate keys": (
        ingested(repeat_rows),
        "test_no_key_comes_twice",
    ),
    "broken rule": (
        ingested(lambda rows: rows.with_columns(~pl.col("late"))),
        "test_the_rules_across_columns_hold",
    ),
    "stale data": (age_data, "test_the_data_is_fresh_and_large_enough"),
    "too few rows": (
        tighten(rows_min=100_000),
        "test_the_data_is_fresh_and_large_enough",
    ),
    "file changed since": (
        land(lambda rows: rows.head(10)),
        "test_the_table_is_made_of_the_files_that_landed",
    ),
    "rows lost": (
        ingested(lambda rows: rows.head(3000)),
        "test_the_table_is_made_of_the_files_that_landed",
    ),
    "row on both sides": (move_rows(()), "test_no_key_is_on_both_sides"),
    "hour on both sides": (move_rows(("flight",)), "test_no_group_is_on_both_sides"),
    "row on the wrong side": (move_rows(("flight",)), "test_every_row_is_where_the_split_puts_it"),
    "row that was never ingested": (move_rows(("flight",)), "test_every_row_is_on_one_side"),
    "twins": (leak_rows, "test_rows_have_no_twins_on_the_other_side"),
    "test set too small": (
        lambda project: change_rows(
            project / "data/split/test.parquet", lambda rows: rows.head(300)
        ),
        "test_the_test_set_has_the_size_that_was_asked_for",
    ),
    "unseen categories": (unseen_categories, "test_the_model_saw_the_categories_of_the_test_set"),
    "a class is missing": (one_class, "test_the_classes_of_both_sides_are_the_same"),
    "leaky feature": (leaky_feature, "test_no_feature_predicts_the_target_by_itself"),
    "disguised leak": (disguised_leak, "test_no_feature_predicts_the_target_by_itself"),
}


def failed_tests(project: Path, project_run: Run) -> set[str]:
    done = project_run(project, "pytest", "-q", "tests/test_data.py", "-p", "no:cacheprovider")
    return set(
        re.findall(
            r"^(?:FAILED|ERROR) tests/test_data\.py::TestData::(\w+)", done.stdout, re.MULTILINE
        )
    )


def test_the_data_tests_are_green_on_good_data(staged: Path, project_run: Run) -> None:
    done = project_run(staged, "pytest", "-q", "tests/test_data.py", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_turns_its_data_test_red(
    staged: Path, project_run: Run, defect: str
) -> None:
    plant, expected = PLANTED[defect]
    plant(staged)
    assert expected in failed_tests(staged, project_run)


def test_every_data_test_was_seen_red(staged: Path, project_run: Run) -> None:
    listing = project_run(
        staged, "pytest", "--collect-only", "-q", "tests/test_data.py", check=True
    )
    tests = set(re.findall(r"::TestData::(\w+)", listing.stdout))
    # Broken settings stop this one's subjects before any test: see tests/engine/checks.
    proven_elsewhere = {"test_the_target_and_the_key_are_no_features"}
    assert tests - {name for _, name in PLANTED.values()} == proven_elsewhere


def test_without_outputs_the_data_tests_say_what_to_run(bake: Bake, project_run: Run) -> None:
    project = bake()
    done = project_run(project, "pytest", "-q", "tests/test_data.py", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "data/ingested.parquet is missing: run `make pipeline` first" in done.stdout
