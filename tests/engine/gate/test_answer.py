from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gitops_ml.features.matrix import TableError
from gitops_ml.gate.answer import ANSWERS, DERIVED, LATENCY, read_answers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a well-behaved contestant leaves behind for two rows."""
    pl.DataFrame({"prediction": [1.0, 2.0]}).write_parquet(tmp_path / ANSWERS)
    pl.DataFrame({"hour": [7, 8]}).write_parquet(tmp_path / DERIVED)
    (tmp_path / LATENCY).write_text('{"p99_ms": 1.5}', encoding="utf-8")
    return tmp_path


def test_answers_are_read_with_the_derived_columns_and_the_latency(folder: Path) -> None:
    found = read_answers(folder, 2)
    assert found.table.get_column("prediction").to_list() == [1, 2]
    assert found.derived.get_column("hour").to_list() == [7, 8]
    assert found.latency_p99_ms == 1.5


def test_a_model_may_derive_nothing(folder: Path) -> None:
    pl.DataFrame().write_parquet(folder / DERIVED)
    assert read_answers(folder, 2).derived.width == 0


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        (ANSWERS, {"prediction": [1.0]}, "gave 1 answers for 2 rows"),
        (ANSWERS, {"answer": [1.0, 2.0]}, "in columns answer"),
        (DERIVED, {"hour": [7]}, "derived columns of 1 rows, asked for 2"),
    ],
)
def test_other_answers_than_asked_for_are_refused(
    folder: Path, name: Path, columns: dict[str, Any], message: str
) -> None:
    pl.DataFrame(columns).write_parquet(folder / name)
    with pytest.raises(TableError, match=message):
        read_answers(folder, 2)


@pytest.mark.parametrize("name", [ANSWERS, DERIVED, LATENCY])
def test_answers_that_are_missing_or_no_files_of_their_kind_are_refused(
    folder: Path, name: Path
) -> None:
    (folder / name).write_text("{}", encoding="utf-8")
    with pytest.raises(TableError, match="its answers cannot be read"):
        read_answers(folder, 2)
    (folder / name).unlink()
    with pytest.raises(TableError, match="its answers cannot be read"):
        read_answers(folder, 2)


@pytest.mark.parametrize("latency", [-1, float("nan"), "fast", None])
def test_a_latency_that_is_none_is_refused(folder: Path, latency: Any) -> None:
    (folder / LATENCY).write_text(json.dumps({"p99_ms": latency}), encoding="utf-8")
    with pytest.raises(TableError):
        read_answers(folder, 2)
