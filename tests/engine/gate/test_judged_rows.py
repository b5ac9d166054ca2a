from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pytest
import yaml

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.matrix import TableError
from gitops_ml.gate import judged_rows as module
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judged_rows import (
    all_rows,
    judged_rows,
    landed_rows,
    row_count,
    training_rows,
)


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


def test_the_rows_that_a_change_trains_on_are_all_others(
    root: Path, params: Params, shop_schema: Schema, make_orders: Callable[..., pl.DataFrame]
) -> None:
    log = GateLog()
    rows = landed_rows(log, root, params, shop_schema)
    test = judged_rows(log, root, params, shop_schema, rows)
    train = training_rows(root, params, shop_schema, rows)
    assert rows is not None
    assert len(train) + len(test) == len(all_rows(root, shop_schema, rows)) == 100
    assert train.join(test, on="order", how="inner").is_empty()
    # Where nobody has the landed files, those of the run count.
    (root / paths.TRAIN).parent.mkdir(exist_ok=True)
    make_orders(60).write_parquet(root / paths.TRAIN)
    make_orders(90).write_parquet(root / paths.INGESTED)
    assert len(training_rows(root, params, shop_schema, None)) == 60
    assert len(all_rows(root, shop_schema, None)) == 90


@pytest.fixture
def recorded(root: Path, make_orders: Callable[..., pl.DataFrame]) -> bytes:
    """The table that `dvc.lock` names, which is not here."""
    path = root / paths.INGESTED
    make_orders(90).write_parquet(path)
    content = path.read_bytes()
    path.unlink()
    entry = {"path": paths.INGESTED.as_posix(), "hash": "md5", "size": len(content)}
    out = {**entry, "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}
    lock = {"schema": "2.0", "stages": {"ingest": {"cmd": "ingest", "outs": [out]}}}
    (root / paths.DVC_LOCK).write_text(yaml.safe_dump(lock), encoding="utf-8")
    return content


def cached(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> list[str]:
    """Play DVC, whose cache holds this; gives what it is asked to bring."""
    asked: list[str] = []

    def dvc(root: Path, *words: str) -> CompletedProcess[str]:
        asked.append(words[-1])
        if content is not None:
            (root / words[-1]).write_bytes(content)
        return CompletedProcess(words, 0 if content is not None else 1, "", "")

    monkeypatch.setattr(module, "dvc", dvc)
    return asked


def test_what_is_not_here_comes_from_the_cache_by_its_hash(
    root: Path, recorded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cached(monkeypatch, recorded)
    assert row_count(root, None) == 90
    # What is here is asked of nobody.
    assert row_count(root, None) == 90
    assert asked == [paths.INGESTED.as_posix()]


def test_what_the_cache_holds_in_the_place_of_something_else_is_refused(
    root: Path, recorded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(monkeypatch, recorded[:-1] + b"?")
    with pytest.raises(DvcError, match=r"data/ingested\.parquet"):
        row_count(root, None)


def test_what_nobody_has_is_missed(
    root: Path, recorded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(monkeypatch, None)
    with pytest.raises(TableError, match="make pipeline"):
        row_count(root, None)
