"""Checks of the data: the table holds what landed, its two sides share nothing, nothing leaks.

class TestData(DataChecks):
    ...
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import polars as pl
import pytest

from gitops_ml.checks.fixtures import Made
from gitops_ml.core import paths
from gitops_ml.core.schema import SOURCE_FILE, Schema
from gitops_ml.core.settings import Contract, Params
from gitops_ml.data.convert import DTYPES
from gitops_ml.data.ingest import find_files
from gitops_ml.data.leakage import SUSPICIOUS_SKILL, skills
from gitops_ml.data.problems import Problem
from gitops_ml.data.split import in_test, split_columns
from gitops_ml.data.validate import whole_problems
from gitops_ml.features.derive import Derivation

# How much more often a test row may have a twin in the training set than training rows have.
TWIN_TOLERANCE = 0.01
# How many test rows may hold a category that the model never saw.
UNSEEN_MAX = 0.01


@pytest.mark.pipeline
class TableChecks:
    """The ingested table holds what landed, and what the schema and the contract say."""

    def test_columns_and_types_are_the_schema_s(
        self, ingested: pl.DataFrame, schema: Schema
    ) -> None:
        """No column more, none less, none of another type or in another place."""
        expected = {name: DTYPES[column.type] for name, column in schema.columns.items()}
        assert dict(ingested.schema) == expected | {SOURCE_FILE: pl.String()}

    def test_the_table_is_made_of_the_files_that_landed(
        self, ingested: pl.DataFrame, params: Params, root: Path, made: Made
    ) -> None:
        """Every landed file by its hash, and of each the rows that were read."""
        report = json.loads(made(paths.INGEST_REPORT).read_text(encoding="utf-8"))
        landed = {
            path.relative_to(root).as_posix()
            if path.is_relative_to(root)
            else path.as_posix(): path
            for path in find_files(root / params.data.source)
        }
        read = {file["file"]: file["sha256"] for file in report["files"]}
        assert read == {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in landed.items()
        }, "the files changed: run `make pipeline`"
        rows = {file["file"]: file["rows"] for file in report["files"]}
        assert dict(ingested.group_by(SOURCE_FILE).len().iter_rows()) == rows

    def test_values_keep_their_ranges(self, problems: list[Problem]) -> None:
        """No value is below `min` or above `max` of its column."""
        assert not told(problems, "min", "max")

    def test_categories_are_known(self, problems: list[Problem]) -> None:
        """No column holds a category that the schema does not list."""
        assert not told(problems, "categories")

    def test_values_are_there_where_they_must_be(self, problems: list[Problem]) -> None:
        """No value is missing in a column that is not nullable, and no column is all empty."""
        assert not told(problems, "null", "all_null")

    def test_no_key_comes_twice(self, problems: list[Problem]) -> None:
        """The key of `params.yaml` tells the rows apart."""
        assert not told(problems, "unique_key")

    def test_the_rules_across_columns_hold(self, problems: list[Problem]) -> None:
        """Every rule of `schema.yaml` holds in every row."""
        assert not told(problems, "rule.")

    def test_the_data_is_fresh_and_large_enough(
        self, ingested: pl.DataFrame, params: Params, contract: Contract
    ) -> None:
        """What `contract.yaml` demands of the table as a whole."""
        assert not told(whole_problems(ingested, params, contract.data), "")


@pytest.mark.pipeline
class SplitChecks:
    """The training and the test set share nothing that would flatter the model."""

    def test_every_row_is_on_one_side(
        self,
        ingested: pl.DataFrame,
        train_rows: pl.DataFrame,
        test_rows: pl.DataFrame,
        schema: Schema,
    ) -> None:
        """Both sets together are the ingested table."""
        columns = list(schema.columns)
        both = pl.concat([train_rows, test_rows]).select(columns)
        assert both.height == ingested.height
        hashes = ingested.select(columns).hash_rows().sort()
        assert hashes.equals(both.hash_rows().sort()), (
            "the sets are not made of the ingested rows: run `make pipeline`"
        )

    def test_no_key_is_on_both_sides(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params
    ) -> None:
        """No key of a test row was trained on."""
        if not params.data.key:
            pytest.skip("the rows have no key")
        both = shared(test_rows, train_rows, list(params.data.key))
        assert both.is_empty(), f"{both.height} keys, e.g. {both.head(3).rows()}"

    def test_no_group_is_on_both_sides(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params, schema: Schema
    ) -> None:
        """What belongs together is on one side; split by time, all training rows are earlier."""
        if params.split.method == "time":
            time = params.data.time or ""
            latest, earliest = (
                train_rows.select(time).max().item(),
                test_rows.select(time).min().item(),
            )
            assert latest < earliest
            return
        columns = split_columns(params, schema)
        both = shared(test_rows, train_rows, columns)
        assert both.is_empty(), f"{both.height} of {columns}, e.g. {both.head(3).rows()}"

    def test_every_row_is_where_the_split_puts_it(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params, schema: Schema
    ) -> None:
        """The side of a row follows from the row and `params.yaml` alone."""
        assert not in_test(train_rows, params, schema).any()
        assert in_test(test_rows, params, schema).all()

    def test_the_test_set_has_the_size_that_was_asked_for(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params
    ) -> None:
        """Large groups, or few, take a split far from `split.test_fraction`."""
        if params.split.method == "time":
            pytest.skip("split by time")
        share = test_rows.height / (train_rows.height + test_rows.height)
        fraction = params.split.test_fraction
        assert fraction / 2 < share < (1 + fraction) / 2

    def test_rows_have_no_twins_on_the_other_side(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params, schema: Schema
    ) -> None:
        """Rows copied from one set to the other show as twins: equal features, equal target.

        Data of few different rows has twins by nature; as many, then, inside the training set.
        """
        columns = [*schema.features(), params.target]
        within = int(train_rows.select(columns).is_duplicated().sum()) / train_rows.height
        twins = test_rows.select(columns).join(
            train_rows.select(columns).unique(), on=columns, how="semi", nulls_equal=True
        )
        noise = 3 * math.sqrt(max(within * (1 - within), 1 / test_rows.height) / test_rows.height)
        assert twins.height / test_rows.height <= within + noise + TWIN_TOLERANCE

    def test_the_model_saw_the_categories_of_the_test_set(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, schema: Schema
    ) -> None:
        """At most one test row in a hundred holds a category that no training row has."""
        unseen = {
            name: test_rows.filter(~pl.col(name).is_in(train_rows[name].unique().implode())).height
            for name, column in schema.features().items()
            if column.type == "category"
        }
        too_many = {
            name: f"{rows / test_rows.height:.1%} of the rows"
            for name, rows in unseen.items()
            if rows > max(1, UNSEEN_MAX * test_rows.height)
        }
        assert not too_many

    def test_the_classes_of_both_sides_are_the_same(
        self, train_rows: pl.DataFrame, test_rows: pl.DataFrame, params: Params
    ) -> None:
        """A class that one side lacks cannot be learnt, or not be measured."""
        if params.task == "regression":
            pytest.skip("a number has no classes")
        classes = set(train_rows[params.target].unique())
        assert len(classes) > 1
        assert set(test_rows[params.target].unique()) == classes


@pytest.mark.pipeline
class LeakageChecks:
    """No feature knows the answer."""

    def test_no_feature_predicts_the_target_by_itself(
        self, train_rows: pl.DataFrame, schema: Schema, params: Params, derivation: Derivation
    ) -> None:
        """A single column that tells the target is most often one that comes after it."""
        whole = derivation.extend(schema)
        found = skills(train_rows, whole, params)
        assert set(found) == set(whole.features())
        suspects = {name: skill for name, skill in found.items() if skill >= SUSPICIOUS_SKILL}
        assert not suspects, "known before the prediction? Else set `feature: false` in schema.yaml"

    def test_the_target_and_the_key_are_no_features(self, schema: Schema, params: Params) -> None:
        """Neither the target nor a key of one column is given to the model."""
        features = schema.features()
        assert params.target not in features
        if len(params.data.key) == 1:
            assert params.data.key[0] not in features


class DataChecks(TableChecks, SplitChecks, LeakageChecks):
    """All checks of the data."""


def told(problems: list[Problem], *rules: str) -> str:
    """The problems that break one of these rules, a line each; nothing is as it should be."""
    return "\n".join(str(problem) for problem in problems if problem.rule.startswith(rules))


def shared(one: pl.DataFrame, other: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """The groups of both tables, one row each."""
    groups = other.select(columns).unique()
    return one.select(columns).unique().join(groups, on=columns, how="semi", nulls_equal=True)
