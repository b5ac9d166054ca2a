"""Propose `contract.yaml` from a model that was evaluated.

Floors and ceilings are the far ends of the measured intervals, so that the same model on the same
data holds them and one that is beyond noise worse does not. A margin is a quarter of an interval's
width: both models answer the same rows, so their difference is known better than either of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError, UsageError
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.settings import (
    Contract,
    Params,
    load_params,
    parse_settings,
)
from gitops_ml.data.infer import keep_old
from gitops_ml.features.matrix import read_table
from gitops_ml.gate.challenger import (
    Challenger,
    current_model,
    latency_p99_ms,
    load_challenger,
)
from gitops_ml.model.metrics import Scored, calibration_error, kind_of

# A margin where there is no interval to go by, relative to the value.
_MARGIN_LEAST = 0.005
_MARGIN_SHARE = 0.25
_SLICE_ROWS = 300
_SLICE_ROWS_LEAST = 30
_LATENCY_FACTOR, _LATENCY_LEAST_MS = 10, 5.0
_SIZE_FACTOR, _SIZE_LEAST_MB = 3, 1.0
_CALIBRATION_FACTOR, _CALIBRATION_LEAST = 1.5, 0.05
_FRESHNESS_FACTOR, _FRESHNESS_LEAST_DAYS = 2, 7

_HEAD = """\
# yaml-language-server: $schema=contract.schema.json
# The quality contract: what a model and its data must hold before they are merged or shipped.
# `make gate` holds the model against `model`, `make validate` the data against `data`, and
# `make test-model` what was learnt against `behaviour`; a pull request must pass all three. The
# gate judges by the stricter of this file and the one on main.

model:
  # floor/ceiling: the model's own number. margin: how much worse than the champion the challenger
  # may be (non-inferiority, on the same test rows).
  metrics:
"""


def propose(root: Path, force: bool) -> Path | None:
    """Write `contract.yaml` from the evaluated model.

    Args:
        root: The project's folder.
        force: Whether to replace a contract that is there.

    Returns:
        Where the contract that was there is kept; None if there was none.

    Raises:
        UsageError: If there is a contract already.
        GitopsError: If there is no evaluated model to go by, or the parameters or the schema are
            wrong.
    """
    target = root / paths.CONTRACT
    if target.exists() and not force:
        raise UsageError(
            f"{target}: is there already and was not touched; `make contract FORCE=1` replaces it "
            "and keeps the old one beside it"
        )
    params = load_params(root)
    try:
        evaluation = json.loads((root / paths.EVALUATION).read_text(encoding="utf-8"))
        challenger = load_challenger(root, params, current_model(root))
        rows = read_table(root / paths.INGESTED, [params.data.time] if params.data.time else [])
    except (OSError, ValueError) as error:
        raise GitopsError(f"{paths.EVALUATION}: {error}; run `make pipeline`") from error
    text = contract_text(params, evaluation, challenger, rows)
    parse_settings(text, Contract, str(paths.CONTRACT), known_metrics(root))
    kept = keep_old(target) if target.exists() else None
    target.write_text(text, encoding="utf-8")
    return kept


def contract_text(
    params: Params, evaluation: Mapping[str, Any], challenger: Challenger, rows: pl.DataFrame
) -> str:
    """The contract that a model holds by a little.

    Args:
        params: What was trained and measured.
        evaluation: The content of `reports/evaluation.json`.
        challenger: The evaluated model.
        rows: All rows of the data.
    """
    inputs = list(challenger.predictor.features.inputs)
    records = challenger.test.select(inputs).head(100).to_dicts()
    latency = latency_p99_ms(challenger.predictor, records)
    return "".join(
        [
            _HEAD,
            *_metric_lines(evaluation["metrics"]),
            *_slice_lines(params.evaluate.metrics[0], evaluation["slices"]),
            "  confidence: 0.95          "
            "# of the one-sided bound that the margin is held against\n",
            f"  size_mb: {_up(max(_SIZE_LEAST_MB, _SIZE_FACTOR * challenger.size / 1e6), 1):g}\n",
            f"  latency_p99_ms: {_up(max(_LATENCY_LEAST_MS, _LATENCY_FACTOR * latency), 1):g}"
            "         # one row, in process, on the machine that runs the gate\n\n",
            "data:\n",
            *_freshness_lines(params, rows),
            "  row_count_change: {min: -0.05, max: 1.0}   "
            "# against the last accepted version of the data\n",
            f"  rows_min: {max(1, int(_down(len(rows) / 2, 1)))}\n\n",
            "behaviour:                  # what the model must have learnt, beyond its metrics\n",
            "  directional: []           # e.g. {column: age, set: 80, expect: increase}\n",
            "  invariant: []             # columns that must not matter\n",
            *_behaviour_lines(params, challenger),
        ]
    )


def _metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, found in metrics.items():
        margin = margin_for(found)
        kind, bound = bound_for(name, [found], margin)
        lines += [f"    {name}:\n", f"      {kind}: {bound:g}\n", f"      margin: {margin:g}\n"]
    return lines


def margin_for(found: Mapping[str, Any]) -> float:
    """How much worse than a champion is still noise, two digits, rounded up.

    Args:
        found: A metric's `value`, `low` and `high`.
    """
    least = _MARGIN_LEAST * abs(found["value"])
    if found["low"] is None:
        return _up(least, 2)
    return _up(max(least, _MARGIN_SHARE * (found["high"] - found["low"])), 2)


def bound_for(metric: str, found: Sequence[Mapping[str, Any]], margin: float) -> tuple[str, float]:
    """The floor or the ceiling that all of some measurements hold, rounded away from them.

    Args:
        metric: What was measured.
        found: For each measurement its `value`, `low` and `high`.
        margin: The least distance from a measured value.
    """
    if kind_of(metric).better == "larger":
        lows = [one["value"] if one["low"] is None else one["low"] for one in found]
        return "floor", _down(min(*lows, *(one["value"] - margin for one in found)), 3)
    highs = [one["value"] if one["high"] is None else one["high"] for one in found]
    return "ceiling", _up(max(*highs, *(one["value"] + margin for one in found)), 3)


def _slice_lines(metric: str, slices: Sequence[Mapping[str, Any]]) -> list[str]:
    """The primary metric inside each value that has rows enough to measure it."""
    lines = []
    for column in dict.fromkeys(part["column"] for part in slices):
        parts = [
            part
            for part in slices
            if part["column"] == column and part["metrics"][metric]["value"] is not None
        ]
        largest = max((part["rows"] for part in parts), default=0)
        min_rows = min(_SLICE_ROWS, largest)
        found = [part["metrics"][metric] for part in parts if part["rows"] >= min_rows]
        if min_rows < _SLICE_ROWS_LEAST:
            continue
        margin = max(margin_for(one) for one in found)
        kind, bound = bound_for(metric, found, margin)
        lines += [
            f"    - column: {json.dumps(column, ensure_ascii=False)}\n",
            f"      metric: {metric}\n",
            f"      min_rows: {min_rows}\n",
            f"      {kind}: {bound:g}\n",
            f"      margin: {margin:g}\n",
        ]
    comment = "# the same, inside each value of a column with at least min_rows test rows\n"
    return (
        [f"  slices:                   {comment}", *lines]
        if lines
        else [f"  slices: []                {comment}"]
    )


def _freshness_lines(params: Params, rows: pl.DataFrame) -> list[str]:
    if params.data.time is None:
        return []
    as_of = datetime.now(UTC) if params.data.as_of == "now" else params.data.as_of
    times = rows.get_column(params.data.time)
    newest = times.filter(times <= as_of).max()
    if not isinstance(newest, datetime):
        return []
    age = (as_of - newest) / timedelta(days=1)
    days = _up(max(_FRESHNESS_LEAST_DAYS, _FRESHNESS_FACTOR * age), 2)
    return [f"  freshness_days: {days:g}      # age of the newest row at `data.as_of`\n"]


def _behaviour_lines(params: Params, challenger: Challenger) -> list[str]:
    parts = [challenger.scored]
    for column in params.evaluate.slices:
        values = challenger.test.get_column(column)
        parts += [
            challenger.scored.take(np.asarray(values == value, dtype=np.bool_))
            for value in values.drop_nulls().unique().sort()
        ]
    # On fewer rows the tests allow for chance anyway.
    parts = [parts[0], *(part for part in parts[1:] if len(part) >= _SLICE_ROWS)]
    if params.task == "regression":
        worst = max(_bias(part) for part in parts)
        return [
            f"  bias_max: {_up(worst, 2):g}           "
            "# |mean error| in the target's unit, also on each slice column\n"
        ]
    if challenger.scored.probability is None:
        return []
    worst = max(calibration_error(part) for part in parts)
    allowed = min(1.0, _up(max(_CALIBRATION_LEAST, _CALIBRATION_FACTOR * worst), 2))
    return [
        f"  calibration_error_max: {allowed:g}   "
        "# expected calibration error, also on each slice column\n"
    ]


def _bias(part: Scored) -> float:
    """The mean error that this model may show on other rows: two standard errors further out."""
    errors = np.asarray(part.prediction - part.truth, dtype=np.float64)
    spread = errors.std(ddof=1) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return float(abs(errors.mean()) + 2 * spread)


def _up(value: float, digits: int) -> float:
    return _rounded(value, digits, math.ceil)


def _down(value: float, digits: int) -> float:
    return _rounded(value, digits, math.floor)


def _rounded(value: float, digits: int, rounding: Any) -> float:
    """Keep some significant digits, rounded in one direction."""
    if value == 0:
        return 0.0
    places = digits - 1 - math.floor(math.log10(abs(value)))
    # Rounded first, so that 0.15 is not 0.15000000000000002 and then 0.16.
    return round(float(rounding(round(value * 10.0**places, 6))) / 10.0**places, max(places, 0))
