"""Find features that know the answer: columns that predict the target almost by themselves."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params

# Honest single features stay below: the best one of the iris flowers reaches 0.94.
SUSPICIOUS_SKILL = 0.98
MAX_ROWS = 20_000
FOLDS = 3


def skills(rows: pl.DataFrame, schema: Schema, params: Params) -> dict[str, float]:
    """How well each feature predicts the target alone.

    A small decision tree sees one feature only and is judged on rows that it was not fitted to.

    Args:
        rows: Rows in the schema's types; at most `MAX_ROWS`, evenly spread, are used.
        schema: The schema of the rows.
        params: Names the task and the target.

    Returns:
        For each feature the share of the naive prediction's error that it removes: 1 is a perfect
        prediction, 0 one that is no better than the most frequent class or the mean.
    """
    known = rows.drop_nulls(params.target)
    known = known.gather_every(max(1, known.height // MAX_ROWS))
    if known.height < 2 * FOLDS:
        return {}
    target = known.get_column(params.target)
    if params.task == "classification":
        answers: NDArray[np.float64] = target.cast(pl.String).rank("dense").to_numpy()
    else:
        answers = target.cast(pl.Float64).to_numpy()
    return {
        name: _skill(_numbers(known.get_column(name)), answers, params)
        for name in schema.features()
        if name != params.target
    }


def _numbers(values: pl.Series) -> NDArray[np.float64]:
    if values.dtype == pl.String:
        values = values.rank("dense")
    return values.cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(-1, 1)


def _skill(feature: NDArray[np.float64], answers: NDArray[np.float64], params: Params) -> float:
    folds = KFold(FOLDS, shuffle=True, random_state=params.train.seed)
    if params.task == "classification":
        tree = DecisionTreeClassifier(max_leaf_nodes=64, min_samples_leaf=3, random_state=0)
        naive = float((answers != _most_frequent(answers)).mean())
        error = float((cross_val_predict(tree, feature, answers, cv=folds) != answers).mean())
    else:
        tree = DecisionTreeRegressor(max_leaf_nodes=256, min_samples_leaf=3, random_state=0)
        naive = float(answers.var())
        misses = cross_val_predict(tree, feature, answers, cv=folds) - answers
        error = float((misses**2).mean())
    return 1 - error / naive if naive > 0 else 0.0


def _most_frequent(answers: NDArray[np.float64]) -> float:
    values, counts = np.unique(answers, return_counts=True)
    return float(values[counts.argmax()])
