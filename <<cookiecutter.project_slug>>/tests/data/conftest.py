"""The whole table, for the tests that look at the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from << cookiecutter.project_slug >> import paths


@pytest.fixture(scope="session")
def ingested(made: Callable[[Path], Path]) -> pl.DataFrame:
    return pl.read_parquet(made(paths.INGESTED))
