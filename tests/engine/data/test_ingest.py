from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from gitops_ml.core import paths
from gitops_ml.core.landed import Landing, Partition
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.data import ingest
from gitops_ml.data.ingest import find_files, read_file, write_table
from gitops_ml.data.problems import DataError, Problem

SCHEMA = Schema.model_validate(
    {
        "columns": {
            "id": {"type": "integer", "feature": False},
            "price": {"type": "number", "nullable": True},
            "paid": {"type": "boolean"},
            "city": {"type": "category", "categories": ["Oslo", "Bergen"]},
            "note": {"type": "string", "feature": False, "nullable": True},
            "at": {"type": "datetime", "feature": False},
        }
    }
)
GOOD = """\
id,price,paid,city,note,at
1,2.5,true,Oslo,,2024-01-01
2,,no,Bergen,NA,2024-01-02T03:04:05Z
"""
TABLE = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "price": [1.5, None, float("nan")],
        "paid": [True, False, True],
        "city": ["Oslo", "Bergen", "Oslo"],
        "note": ["a", None, "c"],
        "at": [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
    }
)


def problems_of(path: Path) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        read_file(path, SCHEMA)
    assert all(problem.file == path.as_posix() for problem in caught.value.problems)
    return list(caught.value.problems)


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def parquet_file(folder: Path, rows: pl.DataFrame) -> Path:
    path = folder / "rows.parquet"
    rows.write_parquet(path)
    return path


def make_params(source: Path, key: list[str]) -> Params:
    return Params.model_validate(
        {
            "task": "classification",
            "target": "paid",
            "data": {"source": source, "key": key},
            "train": {"estimator": "sklearn.tree.DecisionTreeClassifier"},
            "evaluate": {"metrics": ["accuracy"]},
        }
    )


def test_csv_text_is_parsed_by_the_schema(tmp_path: Path) -> None:
    rows = read_file(csv_file(tmp_path, GOOD), SCHEMA).rows
    assert rows.rows() == [
        (1, 2.5, True, "Oslo", None, datetime(2024, 1, 1, tzinfo=UTC)),
        (2, None, False, "Bergen", "NA", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-01T10:00:00+02:00", datetime(2024, 1, 1, 8, tzinfo=UTC)),
        ("2024-01-01 10:00:00.5", datetime(2024, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-01-01 10:00", datetime(2024, 1, 1, 10, tzinfo=UTC)),
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_moments_are_read_in_iso_8601(tmp_path: Path, text: str, expected: datetime) -> None:
    path = csv_file(tmp_path, GOOD.replace("2024-01-01", text))
    assert read_file(path, SCHEMA).rows["at"][0] == expected


def test_parquet_gives_the_types_of_the_schema_and_nan_is_missing(tmp_path: Path) -> None:
    other_types = TABLE.with_columns(
        pl.col("id").cast(pl.Float32),
        pl.col("city").cast(pl.Categorical),
        pl.Series("at", [date(2024, 1, day) for day in (1, 2, 3)]),
    )
    rows = read_file(parquet_file(tmp_path, other_types), SCHEMA).rows
    assert rows.schema == TABLE.with_columns(pl.col("at").dt.cast_time_unit("us")).schema
    assert rows["id"].to_list() == [1, 2, 3]
    assert rows["price"].to_list() == [1.5, None, None]
    assert rows["at"].to_list() == TABLE["at"].to_list()


def test_moments_of_another_zone_become_utc(tmp_path: Path) -> None:
    oslo = TABLE.with_columns(pl.col("at").dt.convert_time_zone("Europe/Oslo"))
    rows = read_file(parquet_file(tmp_path, oslo), SCHEMA).rows
    assert rows["at"].to_list() == TABLE["at"].to_list()
    assert rows.schema["at"] == pl.Datetime("us", "UTC")


def test_spaces_around_a_number_are_no_part_of_it(tmp_path: Path) -> None:
    rows = read_file(csv_file(tmp_path, GOOD.replace("\n2,,", "\n 2 , 7.5 ,")), SCHEMA).rows
    assert rows.select("id", "price").row(1) == (2, 7.5)


def test_rows_are_counted_where_lines_do_not_tell_them(tmp_path: Path) -> None:
    text = GOOD.replace("Oslo,,", 'Oslo,"two\nlines",').replace("\n2,", "\ntwo,")
    (problem,) = problems_of(csv_file(tmp_path, text))
    assert problem.examples == ({"row": 2, "value": "two"},)


def test_line_ends_that_only_some_readers_know_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(GOOD.replace("\n", "\r").encode())
    (problem,) = problems_of(path)
    assert (problem.rule, problem.message) == (
        "unreadable",
        "has 2 rows, read were 0; check its quotes and line ends",
    )


def test_a_byte_order_mark_and_quoted_line_feeds_are_fine(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "\ufeff" + GOOD.replace("NA", '"two\nlines"'))
    assert read_file(path, SCHEMA).rows["note"].to_list() == [None, "two\nlines"]


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("id", "\n2,", "\n2.5,"),
        ("id", "\n2,", "\ntwo,"),
        ("price", "2.5", "2;5"),
        ("paid", "no,", "perhaps,"),
        ("at", "2024-01-02T03:04:05Z", "02.01.2024"),
        ("at", "2024-01-02T03:04:05Z", "2024-13-01"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(
    tmp_path: Path, column: str, good: str, bad: str
) -> None:
    (problem,) = problems_of(csv_file(tmp_path, GOOD.replace(good, bad)))
    line = 2 if column == "price" else 3
    assert (problem.column, problem.rule, problem.count) == (column, "type", 1)
    assert problem.examples == ({"line": line, "value": bad.strip("\n,")},)


def test_whole_numbers_may_be_written_with_a_fraction_of_zero(tmp_path: Path) -> None:
    rows = read_file(csv_file(tmp_path, GOOD.replace("\n2,", "\n2.0,")), SCHEMA).rows
    assert rows["id"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pl.Series(["1", "2", "3"])),
        ("price", pl.Series(["1", "2", "3"])),
        ("paid", pl.Series([1, 0, 1])),
        ("city", pl.Series([1.5, 2.5, 3.5])),
        ("at", pl.Series(["2024-01-01"] * 3)),
    ],
)
def test_a_parquet_column_of_another_type_is_a_problem(
    tmp_path: Path, column: str, values: pl.Series
) -> None:
    (problem,) = problems_of(parquet_file(tmp_path, TABLE.with_columns(values.alias(column))))
    assert (problem.column, problem.rule, problem.count) == (column, "type", 3)
    assert SCHEMA.columns[column].type in problem.message


def test_infinity_is_a_problem(tmp_path: Path) -> None:
    infinite = TABLE.with_columns(pl.Series("price", [1.0, float("inf"), float("-inf")]))
    (problem,) = problems_of(parquet_file(tmp_path, infinite))
    assert (problem.column, problem.rule, problem.count) == ("price", "infinite", 2)
    assert [example["row"] for example in problem.examples] == [2, 3]


def test_missing_and_unexpected_columns_are_reported_together(tmp_path: Path) -> None:
    other = TABLE.drop("paid").with_columns(extra=pl.lit(1))
    missing, unexpected = problems_of(parquet_file(tmp_path, other))
    assert (missing.column, missing.rule) == ("paid", "missing_column")
    assert (unexpected.column, unexpected.rule) == ("extra", "unexpected_column")
    assert "declare it" in unexpected.message


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "empty_file"),
        (GOOD.splitlines()[0].encode() + b"\n", "no_rows"),
        (GOOD.replace("Oslo", "Troms\u00f8").encode("latin-1"), "encoding"),
        (GOOD.replace(",", ";").encode(), "separator"),
        (GOOD.replace("price", "id").encode(), "duplicate_column"),
        (GOOD.replace("Oslo", '"Oslo').encode(), "bad_row"),
        (GOOD.encode() + b"\n", "bad_row"),
    ],
)
def test_broken_csv_files_are_told_apart(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    (problem,) = problems_of(path)
    assert problem.rule == rule


@pytest.mark.parametrize("row", ["3,4.5,true", "3,4.5,true,Oslo,,2024-01-01,more"])
def test_a_row_of_another_width_is_named_with_its_line(tmp_path: Path, row: str) -> None:
    (problem,) = problems_of(csv_file(tmp_path, f"{GOOD}{row}\n"))
    fields = f"{row.count(',') + 1} fields"
    assert (problem.rule, problem.count) == ("bad_row", 1)
    assert problem.examples == ({"line": 4, "value": fields},)


def test_wrong_encoding_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(GOOD.replace("Bergen", "Troms\u00f8").encode("latin-1"))
    (problem,) = problems_of(path)
    assert problem.examples == ({"line": 3, "value": "byte 0xF8"},)


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_truncated_parquet_file_is_unreadable(tmp_path: Path, keep: float) -> None:
    path = parquet_file(tmp_path, TABLE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    (problem,) = problems_of(path)
    assert problem.rule == "unreadable"
    assert "cut off or damaged" in problem.message


def test_damage_in_the_middle_of_a_parquet_file_is_found(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, pl.concat([TABLE] * 1000).with_columns(id=pl.int_range(3000)))
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + bytes(len(whole) // 2) + whole[10 + len(whole) // 2 :])
    (problem,) = problems_of(path)
    assert problem.rule == "unreadable"


def test_files_are_found_by_name_below_the_source(tmp_path: Path) -> None:
    data = ("b.csv", "a.parquet", "2024/c.csv")
    for name in (*data, ".hidden.csv", "a.parquet.dvc", ".cache/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)]
    assert found == ["2024/c.csv", "a.parquet", "b.csv"]
    assert find_files(tmp_path / "b.csv") == [tmp_path / "b.csv"]


def test_no_file_and_other_kinds_of_file_are_problems(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="no_file"):
            find_files(source)
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(DataError, match=r"rows\.xlsx: is a `\.xlsx` file"):
        find_files(tmp_path)


def test_the_table_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    for first, second in (("a", "b"), ("b", "a")):
        folder = tmp_path / first
        folder.mkdir()
        TABLE[:2].write_parquet(folder / f"{first}.parquet")
        TABLE[2:].write_parquet(folder / f"{second}.parquet")
    tables = [
        ingest.ingest(make_params(tmp_path / name, ["id"]), SCHEMA)[0].drop("source_file")
        for name in ("a", "b")
    ]
    assert tables[0].equals(tables[1])
    assert tables[0]["id"].to_list() == [1, 2, 3]


def test_without_a_key_rows_stay_as_they_came(tmp_path: Path) -> None:
    parquet_file(tmp_path, TABLE.reverse())
    rows, landed = ingest.ingest(make_params(tmp_path, []), SCHEMA)
    assert rows["id"].to_list() == [3, 2, 1]
    assert rows["source_file"].unique().to_list() == [landed[0].path.as_posix()]


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    csv_file(tmp_path, GOOD.replace("no,", "perhaps,"))
    with pytest.raises(DataError) as caught:
        ingest.ingest(make_params(tmp_path, []), SCHEMA)
    assert [problem.rule for problem in caught.value.problems] == ["empty_file", "type"]


def test_a_file_that_landed_twice_is_found(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        TABLE.write_parquet(tmp_path / name)
    with pytest.raises(DataError, match=r"b\.parquet: is the same, .* as .*a\.parquet"):
        ingest.ingest(make_params(tmp_path, []), SCHEMA)


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_table(TABLE, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_table_that_was_never_written_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make pipeline"):
        ingest.read_ingested(tmp_path / paths.INGESTED)


def landed_by_the_lake(folder: Path, *, listed: bool = True) -> Path:
    """One partition of one landing, beside a file that somebody put there."""
    path = folder / "partitions" / "2013-07" / "july-0123456789ab.parquet"
    path.parent.mkdir(parents=True)
    TABLE.head(1).write_parquet(path)
    TABLE.tail(1).write_parquet(folder / "by-hand.parquet")
    (folder / "manifest" / "july").mkdir(parents=True)
    (folder / "manifest" / "format.json").write_text('{"format": 1}\n', encoding="utf-8")
    partition = Partition(
        file=path.relative_to(folder).as_posix(),
        period="2013-07",
        rows=1,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    landing = Landing(
        name="july",
        version=1,
        source="up/july.csv",
        layout="l",
        landed_at=datetime(2024, 1, 1, tzinfo=UTC),
        engine="0",
        partitions=(partition,) if listed else (),
    )
    (folder / "manifest" / "july" / "000001.json").write_text(
        landing.model_dump_json(), encoding="utf-8"
    )
    (folder / ".landing").mkdir()
    (folder / ".landing" / "draft.parquet").touch()
    return path


def test_partitions_count_as_the_manifest_says(tmp_path: Path) -> None:
    partition = landed_by_the_lake(tmp_path)
    (partition.parent / "superseded-0123456789ab.parquet").touch()
    assert find_files(tmp_path) == [tmp_path / "by-hand.parquet", partition]


def test_partitions_that_nothing_lists_do_not_count(tmp_path: Path) -> None:
    landed_by_the_lake(tmp_path, listed=False)
    assert find_files(tmp_path) == [tmp_path / "by-hand.parquet"]


def test_without_a_manifest_every_file_counts(tmp_path: Path) -> None:
    (tmp_path / "partitions").mkdir()
    parquet_file(tmp_path / "partitions", TABLE)
    assert find_files(tmp_path) == [tmp_path / "partitions" / "rows.parquet"]


def test_a_partition_that_is_gone_is_named(tmp_path: Path) -> None:
    landed_by_the_lake(tmp_path).unlink()
    with pytest.raises(DataError, match=r"july-0123456789ab\.parquet: the manifest lists it, but"):
        find_files(tmp_path)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    landed_by_the_lake(tmp_path)
    (tmp_path / "manifest" / "july" / "000001.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"000001\.json: cannot be read"):
        find_files(tmp_path)


def test_a_partition_that_was_changed_is_named(
    tmp_path: Path, make_params: Callable[..., Params]
) -> None:
    TABLE.head(2).write_parquet(landed_by_the_lake(tmp_path))
    params = make_params("price")
    params = params.model_copy(update={"data": params.data.model_copy(update={"source": tmp_path})})
    with pytest.raises(DataError, match=r"july-.*: is not what landed: its hash"):
        ingest.ingest(params, SCHEMA)
