from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from gitops_ml.core.schema import Schema
from gitops_ml.features.encode import Features, class_name
from gitops_ml.features.matrix import TableError, matrix_of, read_table

ROWS = [
    {"weight": 1.5, "items": 3, "member": True, "colour": "blue"},
    {"weight": 0.1, "items": 0, "member": False, "colour": "red"},
    {"weight": None, "items": 7, "member": None, "colour": None},
    {"weight": 2, "items": 16_777_217, "member": True, "colour": "violet"},
    {"weight": float("nan"), "items": 2**40 + 1, "member": False, "colour": ""},
]
MATRIX = [
    [1.5, 3, 1, 2],
    [0.1, 0, 0, 0],
    [np.nan, 7, np.nan, -1],
    [2, 16_777_216, 1, -1],
    [np.nan, 2**40, 0, -1],
]


@pytest.fixture
def features(shop_schema: Schema) -> Features:
    return Features.from_schema(shop_schema)


def test_a_record_becomes_a_row_of_numbers_in_the_schemas_order(features: Features) -> None:
    assert features.names == ("weight", "items", "member", "colour")

    matrix = features.from_records(ROWS)

    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array(MATRIX, dtype=np.float32))


@pytest.mark.parametrize("category", [pl.String, pl.Categorical, pl.Enum])
@pytest.mark.parametrize("integer", [pl.Int64, pl.UInt64])
def test_training_and_service_see_the_same_numbers(
    features: Features, category: type[pl.DataType], integer: type[pl.DataType]
) -> None:
    values = pl.Enum(["", "red", "green", "blue", "violet"]) if category is pl.Enum else category
    frame = pl.DataFrame(
        ROWS,
        schema={"weight": pl.Float64, "items": integer, "member": pl.Boolean, "colour": values},
    )

    by_column = matrix_of(frame, features)
    by_record = features.from_records(ROWS)

    assert by_column.tobytes() == by_record.tobytes()


def test_one_record_at_a_time_gives_the_same_rows(features: Features) -> None:
    one_by_one = np.concatenate([features.from_records([row]) for row in ROWS])

    np.testing.assert_array_equal(one_by_one, features.from_records(ROWS))


def test_a_lacking_column_counts_as_missing_and_others_are_ignored(features: Features) -> None:
    matrix = features.from_records([{"items": 2, "price": 9.5}])

    np.testing.assert_array_equal(matrix, [[np.nan, 2, np.nan, -1]])


def test_no_records_make_an_empty_matrix_of_the_right_width(features: Features) -> None:
    assert features.from_records([]).shape == (0, 4)


def test_the_manifest_carries_the_features_through_json(features: Features) -> None:
    entries = json.loads(json.dumps(features.to_manifest()))

    read = Features.from_manifest(entries)

    assert read == features
    assert read.from_records(ROWS).tobytes() == features.from_records(ROWS).tobytes()
    assert entries[3] == {
        "name": "colour",
        "type": "category",
        "categories": ["red", "green", "blue"],
    }
    assert "categories" not in entries[0]


def test_an_all_null_column_is_missing_everywhere(features: Features) -> None:
    frame = pl.DataFrame(ROWS[:2]).with_columns(weight=None, colour=None)

    matrix = matrix_of(frame, features)

    assert np.isnan(matrix[:, 0]).all()
    assert (matrix[:, 3] == -1).all()


def test_every_unusable_column_is_named_at_once(features: Features) -> None:
    frame = pl.DataFrame(
        {"weight": ["heavy"], "items": [1], "member": [1], "extra": [0]},
    )

    with pytest.raises(TableError) as caught:
        matrix_of(frame, features)

    assert str(caught.value).splitlines() == [
        "column `weight`: holds String, but the model takes number",
        "column `member`: holds Int64, but the model takes boolean",
        "column `colour`: is missing",
    ]


@pytest.mark.parametrize(
    ("value", "name"), [(True, "true"), (False, "false"), (3, "3"), ("late", "late")]
)
def test_class_names_read_as_in_json(value: str | int | bool, name: str) -> None:
    assert class_name(value) == name


def test_a_table_must_exist_be_parquet_have_rows_and_the_columns(
    tmp_path, make_orders: Callable[..., pl.DataFrame]
) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(TableError, match=r"rows\.parquet: no such file"):
        read_table(path, [])

    path.write_bytes(b"no parquet")
    with pytest.raises(TableError, match=r"rows\.parquet: cannot be read as parquet"):
        read_table(path, [])

    make_orders(3).write_parquet(path)
    with pytest.raises(TableError, match=r"rows\.parquet: has no column height, width"):
        read_table(path, ["items", "height", "width"])
    assert read_table(path, ["items"]).height == 3

    make_orders(3).clear().write_parquet(path)
    with pytest.raises(TableError, match=r"rows\.parquet: has no rows"):
        read_table(path, ["items"])


def test_the_encoder_needs_no_data_frame_library() -> None:
    code = (
        "import sys\n"
        "import gitops_ml.features.encode\n"
        "heavy = {'polars', 'pandas', 'sklearn', 'pandera'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
