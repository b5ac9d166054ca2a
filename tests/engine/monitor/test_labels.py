"""What has happened finds its prediction: by request, by key, by all that was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.data.problems import DataError
from gitops_ml.monitor.labels import TRUTH, LabelError, Labelled, with_labels
from gitops_ml.monitor.live_rows import NUMBER, REQUEST

INPUTS = ("weight", "items", "member", "colour")


@pytest.fixture
def live() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "weight": [1.0, 2.0, None, 4.0],
            "items": [1, 2, 3, 4],
            "member": [True, None, False, True],
            "colour": ["red", "red", "green", "blue"],
            REQUEST: ["a", "b", "b", None],
            NUMBER: [0, 0, 1, 0],
        }
    )


Find = Callable[..., Labelled]


@pytest.fixture
def find(live: pl.DataFrame, shop_schema: Schema, make_params: Callable[..., Params]) -> Find:
    def find_labels(
        folder: Path | None = None, landed: pl.DataFrame | None = None, key: tuple[str, ...] = ()
    ) -> Labelled:
        params = make_params("returned")
        params = params.model_copy(update={"data": params.data.model_copy(update={"key": key})})
        return with_labels(live, shop_schema, params, INPUTS, folder, landed)

    return find_labels


def write(folder: Path, name: str = "labels.csv", **columns: list[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    table = pl.DataFrame(columns)
    path = folder / name
    table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
    return folder


def test_by_request_and_row(find: Find, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "l", request_id=["a", "b", "z"], row=[0, 1, 0], returned=[True, False, True]
    )
    found = find(folder)
    assert found.rows[TRUTH].to_list() == [True, None, False, None]
    assert found.known == 2
    assert found.problems == (
        "labels.csv: 1 label without a prediction in the log that has the same request_id, row",
    )


def test_a_request_of_one_record_needs_no_row(find: Find, tmp_path: Path) -> None:
    found = find(write(tmp_path / "l", request_id=["a", "b"], returned=["yes", "no"]))
    assert found.rows[TRUTH].to_list() == [True, False, None, None]


def test_by_the_key_where_a_request_carries_it(find: Find, tmp_path: Path) -> None:
    folder = write(tmp_path / "l", "l.parquet", items=[4, 2], returned=[True, True])
    assert find(folder, key=("items",)).rows[TRUTH].to_list() == [None, True, None, True]


def test_landed_rows_are_known_by_all_that_was_asked(find: Find, live: pl.DataFrame) -> None:
    landed = live.select(INPUTS).with_columns(returned=pl.Series([True, False, True, False]))
    landed = pl.concat([landed, landed.head(1).with_columns(returned=False), landed.tail(1)])
    found = find(landed=landed, key=("order",))
    # The first has landed with both labels, and nobody knows which is its own.
    assert found.rows[TRUTH].to_list() == [None, False, True, False]
    assert found.problems == ()


def test_labels_that_contradict_each_other_are_left_out(find: Find, tmp_path: Path) -> None:
    folder = write(tmp_path / "l", request_id=["a", "a", "b"], returned=[True, False, True])
    found = find(folder)
    assert found.rows[TRUTH].to_list() == [None, True, None, None]
    assert "1 row has labels that contradict each other" in found.problems[0]
    write(folder, "more.csv", request_id=["b"], returned=[False])
    found = find(folder)
    assert found.known == 0
    assert "1 prediction has two labels, of two files" in found.problems[-1]


def test_the_same_label_twice_is_one(find: Find, tmp_path: Path) -> None:
    folder = write(tmp_path / "l", request_id=["a", "a"], returned=[True, True])
    write(folder, "again.csv", request_id=["a"], returned=[True])
    found = find(folder)
    assert (found.known, found.problems) == (1, ())


def test_a_request_id_that_was_used_twice_names_nothing(
    live: pl.DataFrame,
    shop_schema: Schema,
    make_params: Callable[..., Params],
    tmp_path: Path,
) -> None:
    twice = pl.concat([live, live.head(1)])
    folder = write(tmp_path / "l", request_id=["a", "b"], returned=[True, True])
    found = with_labels(twice, shop_schema, make_params("returned"), INPUTS, folder, None)
    assert found.rows[TRUTH].to_list() == [None, True, None, None, None]
    assert found.problems[0].startswith("2 predictions have a request_id that another one has")


def test_no_labels_yet(find: Find, tmp_path: Path) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    for found in (find(), find(empty)):
        assert (found.known, found.problems) == (0, ())
        assert found.rows[TRUTH].dtype == pl.Boolean


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"request_id": ["a"]}, "has no column `returned`"),
        ({"items": [1], "returned": [True]}, "says of no row which prediction it is of"),
        ({"request_id": ["a"], "returned": ["perhaps"]}, "must hold boolean, found 'perhaps'"),
    ],
)
def test_files_that_cannot_be_used(
    find: Find, tmp_path: Path, columns: dict[str, list[Any]], told: str
) -> None:
    with pytest.raises(LabelError, match=told):
        find(write(tmp_path / "l", **columns))


def test_a_folder_that_is_not_there(find: Find, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find(tmp_path / "nowhere")
