"""Checks of the model: what it has learnt, and that it is served as it was trained.

class TestModel(ModelChecks):
    ...
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from gitops_ml.checks.fixtures import Answer
from gitops_ml.core import paths
from gitops_ml.core.metric_catalogue import BUILT_IN
from gitops_ml.core.run import PYTHON, run
from gitops_ml.core.schema import Column, Schema, check_behaviour
from gitops_ml.core.settings import Contract, Params
from gitops_ml.features.derive import Derivation
from gitops_ml.features.encode import Features, class_name
from gitops_ml.features.matrix import matrix_of, row_groups
from gitops_ml.model.evaluate import baseline
from gitops_ml.model.metrics import (
    Scored,
    calibration_error,
    calibration_error_by_chance,
    kind_of,
    measure,
    resample_weights,
)
from gitops_ml.model.predictor import Predictor, decided
from gitops_ml.model.target import target_values
from gitops_ml.model.train import fit

# How far two answers may be apart that should be the same: asked in another company, or of the
# model as it was trained and as it is served.
COMPANY_TOLERANCE = 1e-6
SERVED_TOLERANCE = 1e-4

BATCH = 40
COPIES = 25
# So many rows train a model quickly, and still well enough to see what it can learn.
TRAINING_ROWS = 5_000

# Many slices are looked at, and small ones are off by chance alone: what is broken must be so
# beyond what chance does usually, and beyond what it does once in two hundred times.
SURE = 0.995
DRAWS = 400
STANDARD_ERRORS = 3.0


@pytest.mark.pipeline
class MinimumChecks:
    """The least that a model must do: beat guessing, and answer whatever the schema allows."""

    def test_it_beats_a_model_that_ignores_the_features(
        self,
        params: Params,
        predictor: Predictor,
        train_rows: pl.DataFrame,
        test_rows: pl.DataFrame,
        scored: Scored,
    ) -> None:
        """The gain over the baseline is no luck of these test rows."""
        metric = params.evaluate.metrics[0]
        target = train_rows.get_column(params.target)
        manifest = predictor.manifest
        dummy = baseline(target, scored, manifest["classes"], manifest.get("threshold"))
        groups = row_groups(test_rows, params.split.columns)

        gains = np.concatenate(
            [
                measure(metric, scored, weights) - measure(metric, dummy, weights)
                for weights in resample_weights(len(scored), 500, params.train.seed, groups)
            ]
        )

        surely_gained = np.nanquantile(gains * kind_of(metric).direction, 0.01)
        assert surely_gained > 0, (
            f"{metric} is {measure(metric, scored)[0]:.4g} and that of a model which ignores every "
            f"feature is {measure(metric, dummy)[0]:.4g}: no certain gain"
        )

    def test_it_answers_when_all_that_may_be_missing_is(
        self, schema: Schema, some_rows: pl.DataFrame, answer: Answer
    ) -> None:
        """No nullable feature is needed for an answer."""
        optional = [name for name, column in schema.features().items() if column.nullable]
        if not optional:
            pytest.skip("schema.yaml has no nullable feature")

        numbers = answer(some_rows.with_columns(pl.lit(None).alias(name) for name in optional))

        assert np.isfinite(numbers).all()

    def test_it_answers_for_every_category_and_both_ends_of_every_range(
        self, schema: Schema, some_rows: pl.DataFrame, answer: Answer
    ) -> None:
        """What the schema allows but the data may lack."""
        row = some_rows.head(1)
        variants = []
        for name, column in schema.features().items():
            ends = [end for end in (column.min, column.max) if end is not None]
            values = list(column.categories or ends)
            if column.unseen == "missing":
                values.append("never seen before")
            if column.type == "boolean":
                values = [True, False]
            dtype = pl.String if column.type == "category" else row.schema[name]
            variants += [
                row.with_columns(pl.lit(value).cast(dtype).alias(name)) for value in values
            ]
        rows = pl.concat(variants, how="vertical_relaxed")

        numbers = answer(rows)

        assert len(numbers) == rows.height > 0
        assert np.isfinite(numbers).all()

    def test_probabilities_are_shares_of_one(self, predictor: Predictor, scored: Scored) -> None:
        """Each is between 0 and 1, those of a row sum to 1, and they decide on the prediction."""
        if scored.probability is None:
            pytest.skip("the model gives no probabilities")

        assert scored.probability.min() >= 0
        assert scored.probability.max() <= 1
        np.testing.assert_allclose(scored.probability.sum(axis=1), 1, atol=1e-5)
        expected = decided(scored.probability, predictor.manifest)
        np.testing.assert_array_equal(scored.prediction, expected)

    def test_it_does_not_answer_everyone_alike(
        self, some_rows: pl.DataFrame, answer: Answer
    ) -> None:
        """A constant has learnt nothing."""
        assert answer(some_rows).std(axis=0).max() > 0


@pytest.mark.pipeline
class InvarianceChecks:
    """What must not change an answer: its company, its place, and columns that do not matter."""

    def test_the_order_of_the_rows_does_not_matter(
        self, some_rows: pl.DataFrame, answer: Answer
    ) -> None:
        """Shuffled rows get the same answers, shuffled."""
        order = np.random.default_rng(0).permutation(some_rows.height)

        np.testing.assert_allclose(
            answer(some_rows[order]), answer(some_rows)[order], atol=COMPANY_TOLERANCE
        )

    def test_a_row_alone_gets_the_answer_that_it_gets_among_others(
        self, some_rows: pl.DataFrame, answer: Answer
    ) -> None:
        """No number is taken from the rows that are scored together."""
        rows = some_rows.head(100)
        alone = np.concatenate([answer(rows[place]) for place in range(rows.height)])

        np.testing.assert_allclose(
            alone, answer(rows), atol=COMPANY_TOLERANCE, rtol=COMPANY_TOLERANCE
        )

    def test_columns_that_are_no_features_do_not_matter(
        self, inputs: dict[str, Column], some_rows: pl.DataFrame, answer: Answer
    ) -> None:
        """The target and the key, above all, have no say, unless something is derived from it."""
        others = [name for name in some_rows.columns if name not in inputs]
        shuffled = some_rows.with_columns(pl.col(others).shuffle(seed=0))

        np.testing.assert_array_equal(answer(shuffled), answer(some_rows))

    def test_columns_that_the_contract_calls_invariant_do_not_matter(
        self,
        contract: Contract,
        schema: Schema,
        derivation: Derivation,
        some_rows: pl.DataFrame,
        answer: Answer,
    ) -> None:
        """`behaviour.invariant` of `contract.yaml`."""
        if not contract.behaviour.invariant:
            pytest.skip("contract.yaml: behaviour.invariant is empty")
        check_behaviour(contract, derivation.deciding(schema))
        expected = answer(some_rows)

        changes = {
            name: np.abs(
                answer(
                    some_rows.with_columns(pl.col(name).shuffle(seed=0)),
                    held=derivation.names & {name},
                )
                - expected
            ).max()
            for name in contract.behaviour.invariant
        }

        offenders = {name: change for name, change in changes.items() if change > COMPANY_TOLERANCE}
        assert not offenders, f"shuffling a column changes answers by up to: {offenders}"


@pytest.mark.pipeline
class DirectionChecks:
    """Directional expectations: a change of one column must move the answers the right way."""

    def test_the_answers_move_as_the_contract_expects(
        self,
        contract: Contract,
        schema: Schema,
        derivation: Derivation,
        predictor: Predictor,
        test_rows: pl.DataFrame,
        answer: Answer,
    ) -> None:
        """`behaviour.directional` of `contract.yaml`."""
        terms = contract.behaviour.directional
        if not terms:
            pytest.skip("contract.yaml: behaviour.directional is empty")
        check_behaviour(contract, derivation.deciding(schema))
        classes = predictor.manifest["classes"]
        assert classes is None or len(classes) == 2, (
            "contract.yaml: behaviour.directional: needs a number or two classes to have a "
            "direction"
        )
        before = answer(test_rows)[:, -1]

        broken = []
        for term in terms:
            dtype = test_rows.schema[term.column]
            value: Any = term.set
            if isinstance(dtype, pl.Datetime) and isinstance(value, str):
                value = datetime.fromisoformat(value)
            changed = test_rows.with_columns(pl.lit(value).cast(dtype).alias(term.column))
            moved = answer(changed, held=derivation.names & {term.column})[:, -1] - before
            if term.expect == "decrease":
                moved = -moved
            # The mean must move for certain, not by the luck of some rows.
            if not moved.mean() - 3 * moved.std() / np.sqrt(len(moved)) > 0:
                broken.append(f"{term.column} = {term.set} to {term.expect}: {moved.mean():+.4g}")
        assert not broken, f"moved the wrong way, or not surely the right way: {broken}"


@pytest.mark.pipeline
class SliceChecks:
    """Does the model treat every part of the data as it says: calibrated, and without bias?"""

    def test_probabilities_come_true_on_every_slice(
        self, params: Params, contract: Contract, test_rows: pl.DataFrame, scored: Scored
    ) -> None:
        """`behaviour.calibration_error_max` of `contract.yaml`."""
        allowed = contract.behaviour.calibration_error_max
        if allowed is None or scored.probability is None:
            pytest.skip("no behaviour.calibration_error_max in contract.yaml, or no probabilities")

        broken = {}
        for name, part in slices(params, test_rows, scored):
            error = calibration_error(part)
            usual, rare = (
                calibration_error_by_chance(part, share, seed=params.train.seed, draws=DRAWS)
                for share in (0.5, SURE)
            )
            if error - usual > allowed and error > rare:
                broken[name] = round(error, 4)

        assert not broken, f"calibration error above {allowed} and beyond chance: {broken}"

    def test_errors_cancel_out_on_every_slice(
        self, params: Params, contract: Contract, test_rows: pl.DataFrame, scored: Scored
    ) -> None:
        """`behaviour.bias_max` of `contract.yaml`."""
        allowed = contract.behaviour.bias_max
        if allowed is None:
            pytest.skip("no behaviour.bias_max in contract.yaml")
        assert params.task == "regression", "contract.yaml: behaviour.bias_max is for regression"

        broken = {}
        for name, part in slices(params, test_rows, scored):
            errors = part.prediction - part.truth
            chance = STANDARD_ERRORS * errors.std() / np.sqrt(len(part))
            if abs(errors.mean()) - (0 if name == "all rows" else chance) > allowed:
                broken[name] = round(float(errors.mean()), 3)

        assert not broken, f"mean error beyond {allowed} and beyond chance: {broken}"


@pytest.mark.pipeline
class LearningChecks:
    """Does training carry what is in the data to the estimator, and nothing else?"""

    def test_it_can_learn_a_small_batch_by_heart(
        self, params: Params, predictor: Predictor, train_rows: pl.DataFrame
    ) -> None:
        """A path that drops, scrambles or leaks away a feature cannot.

        Each row comes many times, so that neither a penalty nor a least leaf size stands in the
        way.
        """
        features = predictor.features
        classes = predictor.manifest["classes"]
        batch = one_row_per_input(train_rows, features)
        # A linear model has one degree of freedom for each feature, so it is asked for no more
        # rows.
        size = max(2, min(BATCH, len(features.names)))
        batch = with_every_class(batch, params, size) if classes else batch.sample(size, seed=1)
        target = target_values(batch.get_column(params.target), classes)
        repeated = pl.concat([batch] * COPIES)

        scored = fitted_answers(
            params, features, repeated, np.tile(target, COPIES), batch, target, len(classes or ())
        )

        learnt = gain(params, batch.get_column(params.target), scored, classes)
        assert learnt > 0.5, (
            f"{params.evaluate.metrics[0]} made up for {learnt:.0%} of guessing's error"
        )

    def test_nothing_is_learnt_from_shuffled_answers(
        self,
        params: Params,
        predictor: Predictor,
        train_rows: pl.DataFrame,
        test_rows: pl.DataFrame,
    ) -> None:
        """If it seems to, the answer reaches the model by another way than its features."""
        classes = predictor.manifest["classes"]
        rows = train_rows.sample(min(TRAINING_ROWS, train_rows.height), seed=1)
        shuffled = rows.get_column(params.target).shuffle(seed=2)
        truth = target_values(test_rows.get_column(params.target), classes)

        scored = fitted_answers(
            params,
            predictor.features,
            rows.with_columns(shuffled),
            target_values(shuffled, classes),
            test_rows,
            truth,
            len(classes or ()),
        )

        learnt = gain(params, shuffled, scored, classes)
        # By chance, a ranking of n rows is off by about one over the root of n.
        assert learnt < 0.02 + 3 / np.sqrt(test_rows.height)


@pytest.mark.pipeline
class DeterminismChecks:
    """The same rows and settings give the same model, in any process."""

    def test_training_twice_gives_equal_files(
        self, root: Path, train_rows: pl.DataFrame, tmp_path: Path
    ) -> None:
        """Files are compared by their hashes."""
        for name in (paths.PYPROJECT, paths.PARAMS, paths.SCHEMA):
            shutil.copy(root / name, tmp_path)
        shutil.copytree(root / "src", tmp_path / "src")
        (tmp_path / paths.TRAIN).parent.mkdir(parents=True)
        rows = train_rows.gather_every(max(1, train_rows.height // TRAINING_ROWS))
        rows.write_parquet(tmp_path / paths.TRAIN)

        # Sets of a few words are walked in different orders under these two.
        first, second = train(tmp_path, hash_seed="1"), train(tmp_path, hash_seed="6")

        assert first["files"] == second["files"]
        assert first == second


@pytest.mark.pipeline
class ServedModelChecks:
    """The model that is served is the one that was trained, whatever its rows hold."""

    def test_it_answers_as_trained(
        self, trained: Pipeline, predictor: Predictor, test_rows: pl.DataFrame
    ) -> None:
        """On every test row."""
        matrix = matrix_of(test_rows, predictor.features)
        assert differing_share(trained, predictor, matrix) == 0

    def test_it_answers_as_trained_when_values_are_missing(
        self, trained: Pipeline, predictor: Predictor, schema: Schema, some_rows: pl.DataFrame
    ) -> None:
        """Each feature that may be missing, by itself, and all of them together."""
        optional = [
            name
            for name, column in schema.features().items()
            if column.nullable or column.unseen == "missing"
        ]
        if not optional:
            pytest.skip("schema.yaml has no feature that may be missing")

        off = {}
        for names in [*([name] for name in optional), optional]:
            rows = some_rows.with_columns(pl.lit(None).alias(name) for name in names)
            share = differing_share(trained, predictor, matrix_of(rows, predictor.features))
            if share > 0:
                off[", ".join(names)] = share

        assert not off, f"served and trained model differ when these are missing: {off}"

    def test_it_repeats_the_golden_predictions(
        self, predictor: Predictor, golden: dict[str, Any]
    ) -> None:
        """It is the model that was evaluated."""
        tolerance = golden["tolerance"]

        answers = predictor.predict(predictor.features.from_records(golden["records"]))

        assert len(answers.labels) == len(golden["predictions"]) > 0
        for place, expected in enumerate(golden["predictions"]):
            if predictor.manifest["classes"] is None:
                assert answers.labels[place] == pytest.approx(expected["prediction"], rel=tolerance)
                continue
            assert answers.labels[place] == expected["prediction"]
            if answers.probabilities is not None:
                names = [class_name(value) for value in predictor.manifest["classes"]]
                found = dict(zip(names, answers.probabilities[place].tolist(), strict=True))
                assert found == pytest.approx(expected["probabilities"], abs=tolerance)


class ModelChecks(
    MinimumChecks,
    InvarianceChecks,
    DirectionChecks,
    SliceChecks,
    LearningChecks,
    DeterminismChecks,
    ServedModelChecks,
):
    """All checks of the model."""


def slices(params: Params, rows: pl.DataFrame, scored: Scored) -> Iterator[tuple[str, Scored]]:
    """All rows, then the rows of each value of each slice column."""
    yield "all rows", scored
    for column in params.evaluate.slices:
        for (value,), inside in rows.with_row_index("_place").group_by(column, maintain_order=True):
            yield f"{column} = {value}", scored.take(inside.get_column("_place").to_numpy())


def fitted_answers(
    params: Params,
    features: Features,
    rows: pl.DataFrame,
    target: NDArray[Any],
    asked: pl.DataFrame,
    truth: NDArray[Any],
    classes: int,
) -> Scored:
    """Fit the pipeline of `params.yaml` afresh on some rows and score others."""
    pipeline = fit(params.train, params.task, features, matrix_of(rows, features), target)
    matrix = matrix_of(asked, features)
    prediction = pipeline.predict(matrix)
    if not classes or not hasattr(pipeline, "predict_proba"):
        return Scored(truth, prediction, None, classes)
    # A small batch may lack classes.
    probability = np.zeros((len(matrix), classes))
    probability[:, pipeline.classes_] = pipeline.predict_proba(matrix)
    return Scored(truth, prediction, probability, classes)


def gain(
    params: Params, train_target: pl.Series, scored: Scored, classes: list[Any] | None
) -> float:
    """The share of a featureless model's shortfall that is made up for: 1 is perfect, 0 nothing."""
    # The best value of a project's own metric is not known.
    metric = next((name for name in params.evaluate.metrics if name in BUILT_IN), None)
    if metric is None:
        pytest.skip("params.yaml: evaluate.metrics has no built-in metric")
    best = {"mae": 0.0, "rmse": 0.0, "median_absolute_error": 0.0, "log_loss": 0.0, "brier": 0.0}
    naive = measure(metric, baseline(train_target, scored, classes))[0]
    reached = measure(metric, scored)[0]
    return float((reached - naive) / (best.get(metric, 1.0) - naive))


def one_row_per_input(rows: pl.DataFrame, features: Features) -> pl.DataFrame:
    """Rows with equal features and different targets cannot be told apart by any model."""
    return rows.unique(subset=list(features.names), keep="first", maintain_order=True)


def with_every_class(rows: pl.DataFrame, params: Params, size: int) -> pl.DataFrame:
    """About as many rows of each class, `size` in all, but one of each at least."""
    each = max(1, size // rows.get_column(params.target).n_unique())
    return rows.group_by(params.target, maintain_order=True).head(each)


def train(folder: Path, hash_seed: str) -> dict[str, Any]:
    """Run the stage in a process of its own and read the manifest."""
    found = [str(Path(entry).resolve()) for entry in sys.path]
    variables = {"PYTHONPATH": os.pathsep.join(found), "PYTHONHASHSEED": hash_seed}
    done = run([*PYTHON, "gitops_ml", "train"], folder, variables=variables)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / paths.MANIFEST).read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest


def differing_share(trained: Pipeline, predictor: Predictor, matrix: Any) -> float:
    """The share of rows that both answer differently, relative to the size of the number."""
    served = predictor.predict(matrix)
    if served.probabilities is not None:
        difference = np.abs(served.probabilities - trained.predict_proba(matrix)).max(axis=1)
        return float(np.mean(~(difference < SERVED_TOLERANCE)))
    expected = trained.predict(matrix)
    if predictor.manifest["classes"] is not None:
        labels = [predictor.manifest["classes"][place] for place in expected]
        return float(np.mean([a != b for a, b in zip(served.labels, labels, strict=True)]))
    scale = np.maximum(np.abs(expected), expected.std() or 1.0)
    difference = np.abs(np.array(served.labels) - expected) / scale
    return float(np.mean(~(difference < SERVED_TOLERANCE)))
