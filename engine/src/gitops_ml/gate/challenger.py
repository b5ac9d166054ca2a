"""The challenger: the model of the working tree, as the service would load it.

Everything is measured anew from the model file and the test rows. No number is taken from a
report, since the change under judgement could have written it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import LockedModel, locked_model, outside_git
from gitops_ml.core.settings import Params
from gitops_ml.features.encode import class_name
from gitops_ml.features.matrix import read_table, with_derived
from gitops_ml.model.metrics import Scored
from gitops_ml.model.predict import as_table, predict
from gitops_ml.model.predictor import Predictor, load_predictor
from gitops_ml.model.target import target_values

_NOT_CACHED = "not in cache"

_WARM_UP_CALLS = 20
_ROUNDS = 3
_CALLS_PER_ROUND = 300
_CALLS_AT_LEAST = 5
_SECONDS_PER_ROUND = 3.0


class StaleError(GitopsError):
    """The working tree is not what `dvc.lock` says; the message says how to mend it."""


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

    locked: LockedModel
    predictor: Predictor
    size: int
    test: pl.DataFrame
    scored: Scored


def check_up_to_date(root: Path) -> LockedModel:
    """Make sure that data, settings, code and model are the ones that `dvc.lock` records.

    Raises:
        StaleError: If the pipeline has not run since one of them changed.
        BaseError: If `dvc.lock` cannot be read.
    """
    lock = root / paths.DVC_LOCK
    text = lock.read_text(encoding="utf-8") if lock.exists() else None
    locked = locked_model(text, str(paths.DVC_LOCK))
    if locked is None:
        raise StaleError("there is no trained model to judge: run `make pipeline` first")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=root,
        env=outside_git(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StaleError(f"`dvc status` failed:\n{done.stderr.strip()}")
    stale = stale_stages(json.loads(done.stdout or "{}"))
    if stale:
        raise StaleError(
            "the model is not the one that the working tree describes; these stages are stale:\n"
            + "\n".join(f"  {stage}: {'; '.join(why)}" for stage, why in stale.items())
            + "\nrun `make pipeline`, and commit dvc.lock and reports/ with your change"
        )
    return locked


def stale_stages(status: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Why each stage must run again.

    Args:
        status: What `dvc status --json` printed: for each stage a list of texts, or of mappings
            from a kind of change to what changed and how.
    """
    stale: dict[str, list[str]] = {}
    for stage, changes in status.items():
        why = [reason for change in changes for reason in _reasons(change)]
        if why:
            stale[stage] = why
    return stale


def _reasons(change: Any) -> list[str]:
    if not isinstance(change, Mapping):
        return [str(change)]
    reasons = []
    for kind, entries in change.items():
        for name, how in entries.items():
            # The file is the recorded one; only DVC has no copy of it to share.
            if how == _NOT_CACHED:
                continue
            reasons.append(f"{kind}: {name} ({_flat(how)})")
    return reasons


def _flat(how: Any) -> str:
    """Of a settings file DVC says which keys changed and how: `{"train": "modified"}`."""
    return ", ".join(how) if isinstance(how, Mapping) else str(how)


def load_challenger(root: Path, params: Params, locked: LockedModel) -> Challenger:
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

    Other work on the machine only ever adds time, so the best of several rounds is taken: a slow
    model is slow in each.

    Args:
        predictor: The model, as the service loads it.
        records: Rows to ask for, in turn.

    Returns:
        Milliseconds.
    """
    calls = 0

    def call() -> float:
        nonlocal calls
        record = records[calls % len(records)]
        calls += 1
        started = time.perf_counter()
        predictor.predict(predictor.features.from_records([record]))
        return time.perf_counter() - started

    begun = time.perf_counter()
    for _ in range(_WARM_UP_CALLS):
        call()
        if time.perf_counter() - begun > _SECONDS_PER_ROUND:
            break
    return min(_round(call) for _ in range(_ROUNDS)) * 1000


def _round(call: Any) -> float:
    begun = time.perf_counter()
    times: list[float] = []
    while len(times) < _CALLS_PER_ROUND:
        times.append(call())
        if len(times) >= _CALLS_AT_LEAST and time.perf_counter() - begun > _SECONDS_PER_ROUND:
            break
    return float(np.quantile(times, 0.99, method="higher"))
