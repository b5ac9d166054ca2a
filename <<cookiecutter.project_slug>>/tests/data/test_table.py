"""The ingested table holds what landed, and what the schema and the contract say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.data.convert import DTYPES
from << cookiecutter.project_slug >>.data.ingest import find_files
from << cookiecutter.project_slug >>.data.problems import Problem
from << cookiecutter.project_slug >>.data.schema import SOURCE_FILE, Schema
from << cookiecutter.project_slug >>.data.validate import row_problems, whole_problems
from << cookiecutter.project_slug >>.settings import Contract, Params

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def broken(ingested: pl.DataFrame, schema: Schema, params: Params) -> list[Problem]:
    return row_problems(ingested, schema, params.data.key)


def told(problems: list[Problem], *rules: str) -> str:
    """The problems that break one of these rules, a line each; nothing is as it should be."""
    return "\n".join(str(problem) for problem in problems if problem.rule.startswith(rules))


def test_columns_and_types_are_the_schema_s(ingested: pl.DataFrame, schema: Schema) -> None:
    expected = {name: DTYPES[column.type] for name, column in schema.columns.items()}
    assert dict(ingested.schema) == expected | {SOURCE_FILE: pl.String()}


def test_the_table_is_made_of_the_files_that_landed(
    ingested: pl.DataFrame, params: Params, root: Path
) -> None:
    report = json.loads((root / paths.INGEST_REPORT).read_text(encoding="utf-8"))
    landed = {
        path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix(): path
        for path in find_files(root / params.data.source)
    }
    read = {file["file"]: file["sha256"] for file in report["files"]}
    assert read == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in landed.items()
    }, "the files changed: run `make pipeline`"
    rows = {file["file"]: file["rows"] for file in report["files"]}
    assert dict(ingested.group_by(SOURCE_FILE).len().iter_rows()) == rows


def test_values_keep_their_ranges(broken: list[Problem]) -> None:
    assert not told(broken, "min", "max")


def test_categories_are_known(broken: list[Problem]) -> None:
    assert not told(broken, "categories")


def test_values_are_there_where_they_must_be(broken: list[Problem]) -> None:
    assert not told(broken, "null", "all_null")


def test_no_key_comes_twice(broken: list[Problem]) -> None:
    assert not told(broken, "unique_key")


def test_the_rules_across_columns_hold(broken: list[Problem]) -> None:
    assert not told(broken, "rule.")


def test_the_data_is_fresh_and_large_enough(
    ingested: pl.DataFrame, params: Params, contract: Contract
) -> None:
    assert not told(whole_problems(ingested, params, contract.data, previous=None), "")
