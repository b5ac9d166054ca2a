"""Propose `contract.yaml` from a model that was evaluated.

Floors and ceilings are the far ends of the measured intervals, so that the same model on the same
data holds them and one that is beyond noise worse does not. A margin is a quarter of an interval's
width: both models answer the same rows, so their difference is known better than either of them.
The erosion, which bounds what all steps together may lose, is twice the margin: what one step may
lose can be lost once, and as much again is for the noise that the bound must hold, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError, UsageError
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.rounding import down, up
from gitops_ml.core.settings import (
    BehaviourTerms,
    Contract,
    DataTerms,
    ModelTerms,
    Params,
    Proposal,
    load_params,
    parse_settings,
)
from gitops_ml.data.freshness import freshness
from gitops_ml.data.infer import keep_old
from gitops_ml.features.duplicates import repeated
from gitops_ml.features.matrix import alike_columns, read_table
from gitops_ml.gate.answer import LATENCY_RECORDS
from gitops_ml.gate.challenger import (
    Challenger,
    current_model,
    latency_p99_ms,
    load_challenger,
)
from gitops_ml.gate.measured import measure
from gitops_ml.model.metrics import Scored, calibration_error, kind_of

# A margin where there is no interval to go by, relative to the value.
_MARGIN_LEAST = 0.005
_MARGIN_SHARE = 0.25
_EROSION_FACTOR = 2
_SLICE_ROWS = 300
_SLICE_ROWS_LEAST = 30
# From this share on, rows that repeat others say nothing.
_ALIKE_BY_NATURE = 0.5

_HEAD = """\
# yaml-language-server: $schema=contract.schema.json
# The quality contract: what a model and its data must hold before they are merged or shipped.
# `make gate` holds the model against `model`, `make validate` the data against `data`, and
# `make test-model` what was learnt against `behaviour`; a pull request must pass all three. The
# gate judges by the stricter of this file and the one on main.

model:
  # floor/ceiling: the model's own number. margin: how much worse than the champion the challenger
  # may be (non-inferiority, on the same test rows): in one step. erosion: how much worse than the
  # reference it may be: in all steps together; `make reference` moves the reference.
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
    records = challenger.test.select(inputs).head(LATENCY_RECORDS).to_dicts()
    latency = latency_p99_ms(challenger.predictor, records)
    measured: Mapping[str, float | None] = {
        **measure(challenger.size, latency, len(rows)),
        "data.freshness_days": _age_days(params, rows),
        "data.duplicate_rows_max": _repeated_share(params, challenger, rows),
        **_behaviour(params, challenger),
    }
    return "".join(
        [
            _HEAD,
            *_metric_lines(evaluation["metrics"]),
            *_slice_lines(params.evaluate.metrics[0], evaluation["slices"]),
            *proposed_lines("model", ModelTerms, measured),
            "\ndata:\n",
            *proposed_lines("data", DataTerms, measured),
            "\nbehaviour:                  # what the model must have learnt, beyond its metrics\n",
            *proposed_lines("behaviour", BehaviourTerms, measured),
        ]
    )


def proposed_lines(
    section: str, terms: type[BaseModel], measured: Mapping[str, float | None]
) -> Iterator[str]:
    """A line for each term of a section that says what to propose.

    Args:
        section: Its name in the contract.
        terms: What it holds.
        measured: Numbers by the names of terms; one without gets no line.
    """
    for key, field in terms.model_fields.items():
        proposal = next((one for one in field.metadata if isinstance(one, Proposal)), None)
        if proposal is None:
            continue
        text = proposal.of
        if not isinstance(text, str):
            number = measured[f"{section}.{key}"]
            if number is None:
                continue
            value = text(number)
            text = str(value) if isinstance(value, int) else f"{value:g}"
        line = f"  {key}: {text}"
        yield f"{line:<27} # {proposal.note}\n" if proposal.note else f"{line}\n"


def _metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, found in metrics.items():
        margin = margin_for(found)
        kind, bound = bound_for(name, [found], margin)
        lines += [
            f"    {name}:\n",
            f"      {kind}: {bound:g}\n",
            f"      margin: {margin:g}\n",
            f"      erosion: {_EROSION_FACTOR * margin:g}\n",
        ]
    return lines


def margin_for(found: Mapping[str, Any]) -> float:
    """How much worse than a champion is still noise, two digits, rounded up.

    Args:
        found: A metric's `value`, `low` and `high`.
    """
    least = _MARGIN_LEAST * abs(found["value"])
    if found["low"] is None:
        return up(least, 2)
    return up(max(least, _MARGIN_SHARE * (found["high"] - found["low"])), 2)


def bound_for(metric: str, found: Sequence[Mapping[str, Any]], margin: float) -> tuple[str, float]:
    """The floor or the ceiling that all of some measurements hold, rounded away from them.

    Args:
        metric: What was measured.
        found: For each measurement its `value`, `low` and `high`.
        margin: The least distance from a measured value.
    """
    if kind_of(metric).better == "larger":
        lows = [one["value"] if one["low"] is None else one["low"] for one in found]
        return "floor", down(min(*lows, *(one["value"] - margin for one in found)), 3)
    highs = [one["value"] if one["high"] is None else one["high"] for one in found]
    return "ceiling", up(max(*highs, *(one["value"] + margin for one in found)), 3)


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


def _age_days(params: Params, rows: pl.DataFrame) -> float | None:
    """How old the newest row is, in days; None if rows have no date."""
    if params.data.time is None:
        return None
    return freshness(rows.get_column(params.data.time), params).days


def _repeated_share(params: Params, challenger: Challenger, rows: pl.DataFrame) -> float | None:
    """The share of rows that repeat another one; None where most are alike by nature."""
    model = challenger.predictor.features
    alike = alike_columns((item.name for item in model.given), model.inputs, params)
    share = int(repeated(rows, alike).sum()) / max(len(rows), 1)
    return share if share < _ALIKE_BY_NATURE else None


def _behaviour(params: Params, challenger: Challenger) -> dict[str, float | None]:
    """The worst bias or calibration error, overall and in the slices."""
    parts = [challenger.scored]
    for column in params.evaluate.slices:
        values = challenger.test.get_column(column)
        parts += [
            challenger.scored.take(np.asarray(values == value, dtype=np.bool_))
            for value in values.drop_nulls().unique().sort()
        ]
    # On fewer rows the tests allow for chance anyway.
    parts = [parts[0], *(part for part in parts[1:] if len(part) >= _SLICE_ROWS)]
    regression = params.task == "regression"
    calibrated = not regression and challenger.scored.probability is not None
    return {
        "behaviour.bias_max": max(map(_bias, parts)) if regression else None,
        "behaviour.calibration_error_max": (
            max(map(calibration_error, parts)) if calibrated else None
        ),
    }


def _bias(part: Scored) -> float:
    """The mean error that this model may show on other rows: two standard errors further out."""
    errors = np.asarray(part.prediction - part.truth, dtype=np.float64)
    spread = errors.std(ddof=1) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return float(abs(errors.mean()) + 2 * spread)
