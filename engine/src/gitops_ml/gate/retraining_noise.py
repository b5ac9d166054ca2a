"""How much two models of the same recipe differ, that only another seed tells apart.

The paired bootstrap knows the noise of the test rows. It does not know that the same recipe,
trained again, gives another model: one of many that are equally good. A margin that leaves no room
for both blocks an equivalent model without cause, and more often the more terms there are.

A term blocks when the bound of the difference, which lies the half width of its interval below it,
falls below the margin. So the margin is that half width, and on top of it what may lie between two
equivalent models, in standard deviations between seeds:

- how far below the mean a challenger falls at the share of false alarms that is asked for, divided
  by the number of terms that must hold at once (Bonferroni: whatever their dependence);
- how far above it the champion is expected to be, where it is the luckiest of several: those that
  fall short are not merged, so champions are not average.

The standard deviation is known from a few seeds only: its upper confidence bound is taken.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.derive import Derivation
from gitops_ml.features.encode import Features, Matrix
from gitops_ml.features.matrix import matrix_of, read_table, with_derived
from gitops_ml.gate.comparison import compare
from gitops_ml.model.metrics import Scored, kind_of, measure
from gitops_ml.model.predictor import chosen
from gitops_ml.model.target import Class, classes_of, target_values
from gitops_ml.model.threshold import threshold_of
from gitops_ml.model.train import fit

# Of all terms together, for an equivalent model.
FALSE_ALARMS = 0.05
# Of how many equivalent models the champion may be the luckiest.
CHAMPIONS = 20
# Of the upper bound of the standard deviation.
CONFIDENCE = 0.9
# With fewer the spread is anybody's guess.
SEEDS_LEAST = 3
# Their mean half width is known well from few pairs of models, and few draws of each.
PAIRS = 4
RESAMPLES = 250


@dataclass(frozen=True)
class Recipe:
    """All that a model is made of but its seed, and the rows that it answers for.

    Attributes:
        params: What is trained.
        features: The columns of the matrices.
        matrix: Shape (n, number of features), the training rows.
        target: Shape (n,).
        classes: What a classifier's answers mean; None for regression.
        test: The m test rows, with all derived columns.
        test_matrix: Shape (m, number of features).
        truth: Shape (m,).
    """

    params: Params
    features: Features
    matrix: Matrix
    target: NDArray[Any]
    classes: tuple[Class, ...] | None
    test: pl.DataFrame = field(repr=False)
    test_matrix: Matrix = field(repr=False)
    truth: NDArray[Any] = field(repr=False)

    @classmethod
    def read(cls, root: Path, params: Params, schema: Schema, derivation: Derivation) -> Self:
        """The recipe of a project whose data are split.

        Raises:
            TableError: If the rows are not here.
        """
        features = Features.from_schema(schema, derivation)
        columns = [*features.inputs, params.target]
        train = read_table(root / paths.TRAIN, columns)
        test = with_derived(read_table(root / paths.TEST, columns), derivation)
        column = train.get_column(params.target)
        classes = classes_of(column) if params.task == "classification" else None
        return cls(
            params,
            features,
            matrix_of(train, features),
            target_values(column, classes),
            classes,
            test,
            matrix_of(test, features),
            target_values(test.get_column(params.target), classes),
        )

    def answers(self, seed: int) -> Scored:
        """Train with a seed, and answer for the test rows.

        Raises:
            TrainError: If the estimator cannot be fitted.
        """
        settings = self.params.train.model_copy(update={"seed": seed})
        pipeline = fit(settings, self.params.task, self.features, self.matrix, self.target)
        if self.classes is None:
            return Scored(self.truth, np.asarray(pipeline.predict(self.test_matrix), np.float64))
        if not hasattr(pipeline, "predict_proba"):
            said = np.asarray(pipeline.predict(self.test_matrix))
            return Scored(self.truth, said, None, len(self.classes))
        probability = np.asarray(pipeline.predict_proba(self.test_matrix), np.float64)
        threshold = threshold_of(settings.threshold, pipeline, len(self.classes))
        prediction = chosen(probability, threshold)
        return Scored(self.truth, prediction, probability, len(self.classes))


@dataclass(frozen=True)
class Part:
    """What a term of the contract compares.

    Attributes:
        metric: By what.
        rows: Shape (m,), a mask of the test rows.
    """

    metric: str
    rows: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class Spread:
    """How much models of one recipe differ by a metric.

    Attributes:
        seeds: How many there were.
        deviation: The standard deviation of the metric between them.
        half_width: The mean distance from the difference of two of them to its bound.
    """

    seeds: int
    deviation: float
    half_width: float

    def margin(self, terms: int, false_alarms: float = FALSE_ALARMS, seeds: int = 1) -> float:
        """The least margin that an equivalent model holds as often as asked for.

        Args:
            terms: How many terms must hold at once.
            false_alarms: The share of equivalent models that any of them may block.
            seeds: How many models of each side the gate judges the mean of. With several, the
                champion's are trained anew, so that they are not the luckiest.
        """
        quantile = NormalDist().inv_cdf
        fall = quantile(1 - false_alarms / terms)
        # Where the largest of several normal numbers is expected (Blom, 1958).
        luck = quantile((CHAMPIONS - 0.375) / (CHAMPIONS + 0.25))
        # Both sides vary, each by the spread of a mean.
        room = luck + fall if seeds == 1 else fall * math.sqrt(2 / seeds)
        # The chi-squared quantile over its degrees of freedom (Wilson and Hilferty, 1931).
        spread = 2 / (9 * (self.seeds - 1))
        least = (1 - spread + quantile(1 - CONFIDENCE) * math.sqrt(spread)) ** 3
        return self.half_width + room * self.deviation / math.sqrt(least)


def retrain(recipe: Recipe, seeds: Iterable[int], seconds: float) -> list[Scored]:
    """Train with one seed after the other, while it makes a difference and the time lasts.

    Args:
        recipe: What is trained.
        seeds: With which.
        seconds: No model is begun that would, taking as long as the slowest, not be done by then.

    Raises:
        TrainError: If the estimator cannot be fitted.
    """
    start, slowest, found = time.monotonic(), 0.0, list[Scored]()
    for seed in seeds:
        begun = time.monotonic()
        if begun - start + slowest > seconds:
            break
        found.append(recipe.answers(seed))
        if len(found) > 1 and _alike(*found[-2:]):
            # Nothing in the recipe is drawn: the others would be this one again.
            break
        slowest = max(slowest, time.monotonic() - begun)
    return found


def _alike(one: Scored, other: Scored) -> bool:
    same = bool(np.array_equal(one.prediction, other.prediction))
    if one.probability is None or other.probability is None:
        return same
    return same and bool(np.array_equal(one.probability, other.probability))


def spread_of(
    part: Part, answers: Sequence[Scored], confidence: float, groups: NDArray[Any] | None
) -> Spread | None:
    """How much models of one recipe differ where a term compares them.

    Args:
        part: What it compares.
        answers: Of each model, for all test rows.
        confidence: Of the bound.
        groups: Shape (m,), rows with the same label belong together.

    Returns:
        None if they do not differ, or are too few to tell.

    Raises:
        MetricError: If the metric does not exist on these rows.
    """
    if len(answers) < SEEDS_LEAST:
        return None
    inside = [one.take(part.rows) for one in answers]
    values = [float(measure(part.metric, one)[0]) for one in inside]
    if np.ptp(values) == 0:
        return None
    duels = [
        compare(
            part.metric,
            one,
            other,
            margin=0.0,
            confidence=confidence,
            groups=None if groups is None else groups[part.rows],
            resamples=RESAMPLES,
        )
        for one, other in itertools.islice(itertools.pairwise(inside), PAIRS)
    ]
    direction = kind_of(part.metric).direction
    widths = [
        duel.difference - duel.low if direction > 0 else duel.high - duel.difference
        for duel in duels
    ]
    return Spread(len(answers), float(np.std(values, ddof=1)), float(np.mean(widths)))
