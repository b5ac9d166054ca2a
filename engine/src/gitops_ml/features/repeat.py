"""Derive the columns once more, as another machine would: what a service will do some day.

    python -m gitops_ml.features.repeat PROJECT FOLDER

A function can lean on what only this run has: on other rows, on earlier calls, on the time zone of
the machine, on the seed of `hash()`, on the folder that it was started in. So a process of its own
derives the columns again, in another folder and time zone, with another seed, from the rows in
another order and in two parts; each value must be the same.

In the folder are the rows, as a table; afterwards the derived columns, or which of them failed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import polars as pl

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.run import PYTHON, Variables, run, said
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import load_params
from gitops_ml.features.derive import Derivation, DerivedValueError, load_derivation
from gitops_ml.features.matrix import with_derived

_ROWS, _DERIVED, _FAILED = "rows.parquet", "derived.parquet", "failed.json"
# As POSIX writes it, which needs no table of zones: 13 hours and three quarters ahead of UTC.
_TIME_ZONE = "ELSEWHERE-13:45"


class RepeatError(GitopsError):
    """The other process did not do its work.

    Attributes:
        column: The derived column whose function failed there; None if it was none.
    """

    def __init__(self, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.column = column


def derive_elsewhere(root: Path, rows: pl.DataFrame, derivation: Derivation) -> pl.DataFrame:
    """Derive all columns in another process.

    Args:
        root: The project.
        rows: n rows with the sources of the derivation.
        derivation: What to derive.

    Returns:
        n rows with the derived columns.

    Raises:
        RepeatError: If a function fails there, or the process does.
    """
    sources = [source.name for source in derivation.sources]
    with tempfile.TemporaryDirectory(prefix="derive-") as name:
        folder = Path(name)
        rows.select(sources).write_parquet(folder / _ROWS)
        command = [*PYTHON, __name__, str(root.resolve()), str(folder)]
        done = run(command, folder, variables=_elsewhere())
        if (folder / _FAILED).is_file():
            failed = json.loads((folder / _FAILED).read_text(encoding="utf-8"))
            raise RepeatError(failed["problem"], failed["column"])
        if done.returncode != 0 or not (folder / _DERIVED).is_file():
            raise RepeatError(f"columns cannot be derived in another process:\n{said(done)}")
        return pl.read_parquet(folder / _DERIVED)


def _elsewhere() -> Variables:
    """What differs there from the environment of this process."""
    here = os.environ.get("PYTHONHASHSEED")
    return {"PYTHONHASHSEED": "2" if here == "1" else "1", "TZ": _TIME_ZONE}


def repeat(root: Path, folder: Path) -> None:
    """Derive the columns of the rows in a folder, from the last to the first, in two halves."""
    derivation = load_derivation(root, load_schema(root), load_params(root).target)
    rows = pl.read_parquet(folder / _ROWS).reverse()
    middle = rows.height // 2
    try:
        parts = [with_derived(part, derivation) for part in (rows[:middle], rows[middle:])]
    except DerivedValueError as error:
        failed = {"column": error.column, "problem": error.problem}
        (folder / _FAILED).write_text(json.dumps(failed), encoding="utf-8")
        return
    derived = pl.concat(parts).reverse().select(column.name for column in derivation.columns)
    derived.write_parquet(folder / _DERIVED)


if __name__ == "__main__":
    repeat(*map(Path, sys.argv[1:]))
