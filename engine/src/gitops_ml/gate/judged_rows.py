"""The test rows: made by the judge from the landed files, not taken from the change's run."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc import dvc, read_lock
from gitops_ml.core.dvc_objects import check_outputs
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.data.ingest import ingest
from gitops_ml.data.problems import DataError
from gitops_ml.data.split import split
from gitops_ml.features.matrix import TableError, read_table
from gitops_ml.gate.gate_log import GateLog


def landed_rows(log: GateLog, root: Path, params: Params, schema: Schema) -> pl.DataFrame | None:
    """All rows of the landed files; None, with a note, where they are not here or cannot be read.

    Args:
        log: Takes the note.
        root: The project's folder.
        params: Where the data are, and how they are split.
        schema: What a row is.
    """
    source = params.data.model_copy(update={"source": root / params.data.source})
    try:
        rows, _ = ingest(params.model_copy(update={"data": source}), schema)
    except DataError as error:
        log.notes.append(
            f"The test rows are those of the change's own run ({paths.TEST}): its landed files "
            f"are not here to be split again: {error}"
        )
        return None
    return rows


def judged_rows(
    log: GateLog, root: Path, params: Params, schema: Schema, rows: pl.DataFrame | None
) -> pl.DataFrame:
    """The rows that a change is judged on, with the schema's columns.

    Args:
        log: Takes a note where the change's own run had others.
        root: The project's folder.
        params: How the data are split; another split than the base's is for `guard_split`.
        schema: What a row is.
        rows: All rows; None to take what the change's run split off.

    Raises:
        DataError: If one of the two sides would be empty, or a row cannot be placed.
        TableError: If there are no test rows.
    """
    path = root / paths.TEST
    if rows is None:
        _bring(root, paths.TEST.parent)
        return read_table(path, schema.columns)
    _, test = split(rows, params, schema)
    if path.exists():
        try:
            same = pl.read_parquet(path).equals(test)
        except (pl.exceptions.PolarsError, OSError):
            same = False
        if not same:
            log.notes.append(
                f"{paths.TEST} does not hold the rows that the landed files and the split give; "
                "judged on the latter."
            )
    return test


def _bring(root: Path, output: Path) -> None:
    """Take an output that is not here from DVC's cache, if it is there.

    Raises:
        DvcError: If the cache holds something else than `dvc.lock` names.
    """
    if not (root / output).exists() and dvc(root, "checkout", output.as_posix()).returncode == 0:
        check_outputs(root, read_lock(root), [output])


def training_rows(
    root: Path, params: Params, schema: Schema, rows: pl.DataFrame | None
) -> pl.DataFrame:
    """The rows that a change trains on; arguments and errors are those of `judged_rows`."""
    if rows is None:
        _bring(root, paths.TEST.parent)
        return read_table(root / paths.TRAIN, schema.columns)
    train, _ = split(rows, params, schema)
    return train


def all_rows(root: Path, schema: Schema, rows: pl.DataFrame | None) -> pl.DataFrame:
    """All rows of the data; where the landed files are not here, those that the run ingested.

    Raises:
        TableError: If there are none.
    """
    if rows is not None:
        return rows
    _bring(root, paths.INGESTED)
    return read_table(root / paths.INGESTED, schema.columns)


def row_count(root: Path, rows: pl.DataFrame | None) -> int:
    """How many rows the data have.

    Raises:
        TableError: If nothing here says it.
    """
    if rows is not None:
        return len(rows)
    path = root / paths.INGESTED
    _bring(root, paths.INGESTED)
    try:
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path}: cannot be read: {error}; run `make pipeline`") from error
