from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.matrix import TableError
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judged_rows import judged_rows, landed_rows, row_count


@pytest.fixture
def params(make_params: Callable[..., Params]) -> Params:
    return make_params("returned")


@pytest.fixture
def root(tmp_path: Path, make_orders: Callable[..., pl.DataFrame]) -> Path:
    """A project elsewhere than in the current folder, with landed files only."""
    (tmp_path / "data" / "landed").mkdir(parents=True)
    make_orders(100).write_parquet(tmp_path / "data" / "landed" / "orders.parquet")
    return tmp_path


def test_the_rows_come_from_the_landed_files(
    root: Path, params: Params, shop_schema: Schema
) -> None:
    log = GateLog()
    rows = landed_rows(log, root, params, shop_schema)
    test = judged_rows(log, root, params, shop_schema, rows)
    assert 0 < len(test) < 100
    assert test.columns == list(shop_schema.columns)
    assert row_count(root, rows) == 100
    assert log.notes == []


def test_without_landed_files_the_rows_are_the_change_s_and_that_is_said(
    root: Path, params: Params, shop_schema: Schema, make_orders: Callable[..., pl.DataFrame]
) -> None:
    (root / "data" / "landed" / "orders.parquet").unlink()
    log = GateLog()
    assert landed_rows(log, root, params, shop_schema) is None
    assert "its landed files are not here" in log.notes[0]
    with pytest.raises(TableError, match="make pipeline"):
        judged_rows(log, root, params, shop_schema, None)
    with pytest.raises(TableError, match=r"data/ingested\.parquet.*make pipeline"):
        row_count(root, None)
    (root / paths.TEST).parent.mkdir()
    make_orders(30).write_parquet(root / paths.TEST)
    make_orders(90).write_parquet(root / paths.INGESTED)
    assert len(judged_rows(log, root, params, shop_schema, None)) == 30
    assert row_count(root, None) == 90


@pytest.mark.parametrize("content", ["no parquet", None])
def test_other_rows_of_the_change_s_run_are_named(
    root: Path,
    params: Params,
    shop_schema: Schema,
    make_orders: Callable[..., pl.DataFrame],
    content: str | None,
) -> None:
    (root / paths.TEST).parent.mkdir()
    if content is None:
        make_orders(30).write_parquet(root / paths.TEST)
    else:
        (root / paths.TEST).write_text(content, encoding="utf-8")
    log = GateLog()
    rows = landed_rows(log, root, params, shop_schema)
    judged_rows(log, root, params, shop_schema, rows)
    assert "does not hold the rows that the landed files and the split give" in log.notes[0]
