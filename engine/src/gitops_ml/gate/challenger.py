"""The model of the working tree, loaded and measured in this process, as the service would load it.

For the project's own tests, for `make contract` and for `gitops-ml answer`: the gate's judge loads
no model of a change, see `judged_model.py`. Everything is measured anew from the model file and the
test rows; no number is taken from a report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, LockedOutput, check_up_to_date, locked_output
from gitops_ml.core.dvc_objects import check_outputs
from gitops_ml.core.settings import Params
from gitops_ml.features.encode import class_name
from gitops_ml.features.matrix import read_table, with_derived
from gitops_ml.model.metrics import Scored
from gitops_ml.model.predict import as_table, predict
from gitops_ml.model.predictor import Predictor, load_predictor
from gitops_ml.model.target import target_values

_WARM_UP_CALLS = 20
_ROUNDS = 3
_CALLS_PER_ROUND = 300
_CALLS_AT_LEAST = 5
_SECONDS_PER_ROUND = 3.0


@dataclass(frozen=True)
class Challenger:
    """A verified model with its answers for the test rows.

    Attributes:
        locked: What `dvc.lock` calls it.
        predictor: The model, as the service loads it.
        size: Bytes of the file that is served.
        test: The n test rows, all columns of the schema and the derived ones.
        scored: What happened in them and what the model said.
    """

    locked: LockedOutput
    predictor: Predictor
    size: int
    test: pl.DataFrame
    scored: Scored


def current_model(root: Path) -> LockedOutput:
    """The model of `dvc.lock`, which data, settings, code and outputs here are those of.

    The outputs are hashed: DVC believes its cache and its own notes.

    Raises:
        DvcError: If there is none, something changed since, or it is not here.
    """
    lock = check_up_to_date(root, needed=paths.MODELS)
    check_outputs(root, lock, [paths.MODELS])
    locked = locked_output(lock, paths.MODELS, str(paths.DVC_LOCK))
    if locked is None:
        raise DvcError("there is no trained model to judge: run `make pipeline` first")
    return locked


def load_challenger(root: Path, params: Params, locked: LockedOutput) -> Challenger:
    """Verify the model file, load it and let it answer for the test rows.

    Raises:
        ModelError: If the file is not the one that the manifest records.
        TableError: If the test rows are missing or do not suit the schema or the model.
        PredictionError: If the model answers with something that is no finite number.
    """
    models = root / paths.MODELS
    predictor = load_predictor(models)
    test = read_table(root / paths.TEST, [*predictor.features.inputs, params.target])
    test = with_derived(test, predictor.features.derivation)
    answers = as_table(predict(predictor, test), predictor.manifest)
    classes = tuple(predictor.manifest["classes"] or ())
    return Challenger(
        locked=locked,
        predictor=predictor,
        size=(models / predictor.manifest["served"]).stat().st_size,
        test=test,
        scored=score(test.get_column(params.target), answers, classes),
    )


def score(truth: pl.Series, answers: pl.DataFrame, classes: Sequence[Any]) -> Scored:
    """Put what happened beside what a model said, be it this one or another.

    An answer that is none of the classes is wrong for every row; a class that the model does not
    know has probability 0.

    Args:
        truth: n values of the target.
        answers: n rows: `prediction` and, if the model has them, `probability_<class>`.
        classes: The classes; empty for regression.

    Raises:
        TableError: If the target holds a class that is none of them.
    """
    known = target_values(truth, classes or None)
    prediction = answers.get_column("prediction")
    if not classes:
        return Scored(known, prediction.cast(pl.Float64).to_numpy())
    names = [class_name(value) for value in classes]
    place = {name: index for index, name in enumerate(names)}
    said = np.array([place.get(class_name(value), -1) for value in prediction], dtype=np.int64)
    columns = [f"probability_{name}" for name in names]
    if not any(name.startswith("probability_") for name in answers.columns):
        return Scored(known, said, None, len(names))
    probability = np.column_stack(
        [
            answers.get_column(name).cast(pl.Float64).to_numpy()
            if name in answers.columns
            else np.zeros(len(answers))
            for name in columns
        ]
    )
    return Scored(known, said, probability, len(names))


def latency_p99_ms(predictor: Predictor, records: Sequence[Mapping[str, Any]]) -> float:
    """The time that all but one in a hundred single rows stay below, encoding included.

    Other work on the machine only ever adds time, so all rows are asked for in several rounds and
    the best time of each counts: a row that the model is slow for is slow in each round.

    Args:
        predictor: The model, as the service loads it.
        records: Rows to ask for, in turn.

    Returns:
        Milliseconds.
    """
    _round(predictor, records, _WARM_UP_CALLS, at_least=1)
    rounds = [_round(predictor, records, _CALLS_PER_ROUND, _CALLS_AT_LEAST) for _ in range(_ROUNDS)]
    # A round that took too long was ended before its last rows.
    best = [min(times) for times in zip(*rounds, strict=False)]
    return float(np.quantile(best, 0.99, method="higher")) * 1000


def _round(
    predictor: Predictor, records: Sequence[Mapping[str, Any]], calls: int, at_least: int
) -> list[float]:
    """Seconds of each of some calls, or of as many as there is time for."""
    begun = time.perf_counter()
    times: list[float] = []
    for place in range(calls):
        started = time.perf_counter()
        predictor.predict(predictor.features.from_records([records[place % len(records)]]))
        ended = time.perf_counter()
        times.append(ended - started)
        if len(times) >= at_least and ended - begun > _SECONDS_PER_ROUND:
            break
    return times
