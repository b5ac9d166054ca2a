"""What the pipeline wrote, for the tests that look at the data."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.data.schema import Schema, load_schema
from << cookiecutter.project_slug >>.settings import Contract, Params, load_contract, load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def params() -> Params:
    return load_params(ROOT)


@pytest.fixture(scope="session")
def schema() -> Schema:
    return load_schema(ROOT)


@pytest.fixture(scope="session")
def contract() -> Contract:
    return load_contract(ROOT)


def read_output(path: Path) -> pl.DataFrame:
    if not (ROOT / path).exists():
        pytest.fail(f"{path} is missing: run `make pipeline` first", pytrace=False)
    return pl.read_parquet(ROOT / path)


@pytest.fixture(scope="session")
def ingested() -> pl.DataFrame:
    return read_output(paths.INGESTED)


@pytest.fixture(scope="session")
def train() -> pl.DataFrame:
    return read_output(paths.TRAIN)


@pytest.fixture(scope="session")
def test_set() -> pl.DataFrame:
    return read_output(paths.TEST)
