"""The project's settings, and what the pipeline made, for the tests that look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.data.schema import Schema, load_schema
from << cookiecutter.project_slug >>.settings import Contract, Params, load_contract, load_params

Made = Callable[[Path], Path]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def params(root: Path) -> Params:
    return load_params(root)


@pytest.fixture(scope="session")
def schema(root: Path) -> Schema:
    return load_schema(root)


@pytest.fixture(scope="session")
def contract(root: Path) -> Contract:
    return load_contract(root)


@pytest.fixture(scope="session")
def made(root: Path) -> Made:
    """Where the pipeline wrote an output; the test fails if it did not."""

    def find(output: Path) -> Path:
        if not (root / output).exists():
            pytest.fail(f"{output} is missing: run `make pipeline` first", pytrace=False)
        return root / output

    return find


@pytest.fixture(scope="session")
def train_rows(made: Made) -> pl.DataFrame:
    return pl.read_parquet(made(paths.TRAIN))


@pytest.fixture(scope="session")
def test_rows(made: Made) -> pl.DataFrame:
    return pl.read_parquet(made(paths.TEST))
