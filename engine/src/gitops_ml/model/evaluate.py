"""Measure the model on the test set, through the very code that serves it.

    gitops-ml evaluate

Writes `reports/metrics.json` (one number per metric), `reports/evaluation.json` (with intervals,
slices and a baseline that ignores the features), `reports/golden.json` (fixed rows with their
answers, which every later form of the model must repeat) and the plots.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor

from gitops_ml.core import paths
from gitops_ml.core.environment import check_installed
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.metric_catalogue import BUILT_IN
from gitops_ml.core.schema import check_against_params, load_schema
from gitops_ml.core.settings import EvaluateParams, Params, load_params
from gitops_ml.features.derive import load_derivation
from gitops_ml.features.encode import Features, class_name
from gitops_ml.features.matrix import alike_columns, evidence_groups, read_table, with_derived
from gitops_ml.model.metrics import Estimate, Scored, estimate, kind_of, measure
from gitops_ml.model.own_metrics import MetricError
from gitops_ml.model.plots import draw_plots
from gitops_ml.model.predict import score_target
from gitops_ml.model.predictor import Predictor, chosen, load_predictor
from gitops_ml.model.reproducible import same_on_all_machines
from gitops_ml.model.target import Class, target_values

Groups = NDArray[np.int64] | None

GOLDEN_ROWS = 20
# Served in float32, on other machines too.
GOLDEN_TOLERANCE = 1e-5


class EvaluateError(GitopsError):
    """The model cannot be measured as asked; the message is meant for people."""


def baseline(
    train_target: pl.Series,
    scored: Scored,
    classes: Sequence[Class] | None,
    threshold: float | None = None,
) -> Scored:
    """The answers of a model that ignores the features: the shares of the classes, or the mean.

    Args:
        train_target: The target in the training rows.
        scored: n rows with their truth.
        classes: The classes that the model knows; None for regression.
        threshold: As the model's manifest has it.
    """
    known = target_values(train_target, classes)
    nothing = np.zeros((len(known), 1)), np.zeros((len(scored), 1))
    if classes is None:
        dummy = DummyRegressor().fit(nothing[0], known)
        return Scored(scored.truth, dummy.predict(nothing[1]).astype(np.float64))
    dummy = DummyClassifier(strategy="prior").fit(nothing[0], known)
    shares = dummy.predict_proba(nothing[1])
    return Scored(scored.truth, chosen(shares, threshold), shares, len(classes))


def measure_overall(
    scored: Scored, settings: EvaluateParams, seed: int, groups: Groups
) -> dict[str, Estimate]:
    """Every metric on all rows; rows of one group are resampled together.

    Raises:
        EvaluateError: If one of them is undefined or needs probabilities that there are not.
    """
    try:
        estimates = estimate(
            settings.metrics, scored, settings.confidence, settings.resamples, seed, groups
        )
    except MetricError as error:
        raise EvaluateError(f"{paths.PARAMS}: evaluate.metrics: {error}") from error
    undefined = [
        f"{paths.TEST}: {name} is undefined on the test set: {found.reason}; make the test set "
        f"larger (split in {paths.PARAMS}) or choose other metrics"
        for name, found in estimates.items()
        if found.value is None
    ]
    undefined += [
        f"{paths.PARAMS}: evaluate.metrics: {name} is the same in each of {settings.resamples} "
        "resamples of the test set, so nobody can tell a difference from noise; weigh each row by "
        "`weights`"
        for name, found in estimates.items()
        if name not in BUILT_IN and found.value and found.low == found.high == found.value
    ]
    if undefined:
        raise EvaluateError("\n".join(undefined))
    return estimates


def measure_slices(
    frame: pl.DataFrame, scored: Scored, settings: EvaluateParams, seed: int, groups: Groups
) -> list[dict[str, Any]]:
    """Every metric inside every value of the slice columns, in the order of the values."""
    slices = []
    for column in settings.slices:
        values = frame.get_column(column)
        if values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        for value in values.unique().sort(nulls_last=True).to_list():
            rows = values.is_null() if value is None else (values == value).fill_null(False)
            mask = rows.to_numpy()
            inside = scored.take(mask)
            found = estimate(
                settings.metrics,
                inside,
                settings.confidence,
                settings.resamples,
                seed,
                None if groups is None else groups[mask],
            )
            slices.append(
                {
                    "column": column,
                    "value": value,
                    "rows": len(inside),
                    "metrics": {name: _json(one) for name, one in found.items()},
                }
            )
    return slices


def _json(found: Estimate) -> dict[str, Any]:
    return {
        key: _rounded(value) if isinstance(value, float) else value
        for key, value in found.as_json().items()
    }


def _defined(value: float) -> float | None:
    """None for what a metric does not know: never warning has no false alarms."""
    return _rounded(float(value)) if math.isfinite(value) else None


def _rounded(value: float) -> float:
    """Six significant digits: enough to judge by, and the same on other machines."""
    return float(f"{value:.6g}")


def golden(frame: pl.DataFrame, predictor: Predictor) -> dict[str, Any]:
    """Evenly spaced rows as the service would get them, with its answers."""
    places = np.linspace(0, len(frame) - 1, min(len(frame), GOLDEN_ROWS)).astype(int)
    records = [
        {name: json_value(value) for name, value in row.items()}
        for row in frame.select(predictor.features.inputs)[places].to_dicts()
    ]
    predictions = predictor.predict(predictor.features.from_records(records))
    answers = [{"prediction": label} for label in predictions.labels]
    if predictions.probabilities is not None:
        names = [class_name(value) for value in predictor.manifest["classes"]]
        for answer, row in zip(answers, predictions.probabilities.tolist(), strict=True):
            answer["probabilities"] = dict(zip(names, row, strict=True))
    return {"records": records, "predictions": answers, "tolerance": GOLDEN_TOLERANCE}


def json_value(value: Any) -> Any:
    """A value of a table as a request carries it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(
    frame: pl.DataFrame, train_target: pl.Series, predictor: Predictor, params: Params
) -> dict[str, Any]:
    """Measure a model on the test rows.

    Args:
        frame: The test rows, n > 0.
        train_target: The target in the training rows, for the baseline.
        predictor: The model as it is served.
        params: What to measure.

    Returns:
        The content of `reports/evaluation.json`.

    Raises:
        EvaluateError: If a metric is undefined on these rows or for this model.
        TableError: If a column is missing, has another type, or holds an unknown class.
        PredictionError: If the model answers with something that is no finite number.
    """
    manifest, settings = predictor.manifest, params.evaluate
    seed = manifest["seed"]
    scored = score_target(frame, predictor)
    frame = with_derived(frame, predictor.features.derivation)
    model = predictor.features
    alike = alike_columns((item.name for item in model.given), model.inputs, params)
    groups = evidence_groups(frame, params.split.columns, alike, named=bool(params.data.key))
    overall = measure_overall(scored, settings, seed, groups)
    dummy = baseline(train_target, scored, manifest["classes"], manifest.get("threshold"))
    return {
        "rows": len(scored),
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "threshold": manifest.get("threshold"),
        "metrics": {
            name: {**_json(found), "better": kind_of(name).better}
            for name, found in overall.items()
        },
        "baseline": {name: _defined(measure(name, dummy)[0]) for name in settings.metrics},
        "slices": measure_slices(frame, scored, settings, seed, groups),
    }


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _check_model(predictor: Predictor, features: Features, params: Params) -> None:
    manifest = predictor.manifest
    differs = [
        name
        for name, asked, found in (
            ("task", params.task, manifest["task"]),
            ("target", params.target, manifest["target"]),
            ("features", features, predictor.features),
        )
        if asked != found
    ]
    if differs:
        raise EvaluateError(
            f"{paths.MANIFEST}: the model was trained with another {', another '.join(differs)} "
            f"than {paths.PARAMS} and {paths.SCHEMA} have now; run `make pipeline`"
        )


def run(_: argparse.Namespace) -> int:
    """Evaluate from `params.yaml`, the model and the test rows; 0 if all went well."""
    check_installed(Path())
    params, schema = load_params(), load_schema()
    derivation = load_derivation(Path(), schema, params.target)
    check_against_params(derivation.extend(schema), params)
    predictor = load_predictor(paths.MODELS)
    features = Features.from_schema(schema, derivation)
    _check_model(predictor, features, params)
    given_slices = [name for name in params.evaluate.slices if name in schema.columns]
    needed = [*features.inputs, params.target, *given_slices, *params.split.columns]
    frame = read_table(paths.TEST, needed)
    train_target = read_table(paths.TRAIN, [params.target]).get_column(params.target)
    with same_on_all_machines():
        report = evaluate(frame, train_target, predictor, params)
        _write(paths.EVALUATION, report)
        _write(paths.METRICS, {name: one["value"] for name, one in report["metrics"].items()})
        _write(paths.GOLDEN, golden(frame, predictor))
        draw_plots(frame, score_target(frame, predictor), predictor, params, paths.PLOTS)
    _print_summary(report)
    return 0


def _print_summary(report: dict[str, Any]) -> None:
    print(f"Measured on {report['rows']} test rows, {report['confidence']:.0%} intervals:")
    for name, found in report["metrics"].items():
        low, high = found["low"], found["high"]
        interval = "no interval" if low is None else f"{low:.4g} to {high:.4g}"
        naive = report["baseline"][name]
        print(
            f"  {name:<22} {found['value']:<9.4g} {interval:<20} "
            f"baseline {'undefined' if naive is None else format(naive, '.4g')}"
        )
