"""Propose `contract.yaml` from a model that was evaluated.

Floors and ceilings are the far ends of the measured intervals, so that the same model on the same
data holds them and one that is beyond noise worse does not. A margin is what may lie between two
models of the same recipe, see `retraining_noise.py`: the recipe is trained again with a few seeds,
and a slice's margin comes from what they do inside it. Where the seed makes no difference, or
there is no time for enough of them, it is a quarter of an interval's width: both models answer the
same rows, so their difference is known better than either of them. Where the contract that is
replaced lets the gate judge means of several seeds, the new one does, and its margins are those of
means. The erosion, which bounds what
all steps together may lose, is twice the margin: what one step may lose can be lost once, and as
much again is for the noise that the bound must hold, too.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError, UsageError
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.rounding import down, up
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import (
    BehaviourTerms,
    Contract,
    DataTerms,
    ModelTerms,
    Params,
    Proposal,
    load_contract,
    load_params,
    parse_settings,
)
from gitops_ml.data.freshness import freshness
from gitops_ml.data.infer import keep_old
from gitops_ml.features.derive import load_derivation
from gitops_ml.features.duplicates import repeated
from gitops_ml.features.matrix import alike_columns, read_table
from gitops_ml.gate.answer import LATENCY_RECORDS
from gitops_ml.gate.base_rows import groups_of
from gitops_ml.gate.challenger import (
    Challenger,
    current_model,
    latency_p99_ms,
    load_challenger,
)
from gitops_ml.gate.measured import measure
from gitops_ml.gate.retraining_noise import SEEDS_LEAST, Part, Recipe, retrain, spread_of
from gitops_ml.model.metrics import Scored, calibration_error, kind_of
from gitops_ml.model.own_metrics import MetricError, metrics_of

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


@dataclass(frozen=True)
class Retrained:
    """Models of the recipe that only another seed tells apart.

    Attributes:
        answers: What each says of the m test rows.
        test: These rows.
        groups: Shape (m,), rows with the same label belong together; None if each stands alone.
        confidence: Of the bound that a margin is held against.
        judged: Of how many models of each side the gate compares the mean.
    """

    answers: Sequence[Scored] = ()
    test: pl.DataFrame = dataclasses.field(default_factory=pl.DataFrame)
    groups: NDArray[Any] | None = None
    confidence: float = ModelTerms.model_fields["confidence"].default
    judged: int = 1

    def margin(self, metric: str, rows: NDArray[np.bool_], terms: int) -> float | None:
        """The margin of a term that compares these rows; None if they do not tell.

        Args:
            metric: By which.
            rows: Shape (m,), a mask.
            terms: How many there are.
        """
        try:
            spread = spread_of(Part(metric, rows), self.answers, self.confidence, self.groups)
        except MetricError:
            # Too few rows of some class: the interval is then none, or a wide one.
            return None
        return None if spread is None else spread.margin(terms, seeds=self.judged)


def retrained(root: Path, params: Params, seeds: int, seconds: float) -> Retrained:
    """Train the recipe with a few seeds.

    Args:
        root: The project's folder.
        params: What is trained.
        seeds: With how many.
        seconds: After which no more are begun.

    Raises:
        GitopsError: If it cannot be trained.
    """
    if seeds < SEEDS_LEAST:
        return Retrained()
    schema = load_schema(root)
    recipe = Recipe.read(root, params, schema, load_derivation(root, schema, params.target))
    first = params.train.seed + 1
    answers = retrain(recipe, range(first, first + seeds), seconds)
    given = (item.name for item in recipe.features.given)
    alike = alike_columns(given, recipe.features.inputs, params)
    return Retrained(answers, recipe.test, groups_of(recipe.test, params, alike))


def propose(root: Path, force: bool, seeds: int, seconds: float) -> tuple[Path | None, int]:
    """Write `contract.yaml` from the evaluated model.

    Args:
        root: The project's folder.
        force: Whether to replace a contract that is there.
        seeds: How many models margins are proposed from; with less than 3 from intervals.
        seconds: After which no more of them are trained.

    Returns:
        Where the contract that was there is kept, None if there was none; and how many models told
        the margins, 0 if they are from intervals.

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
    with metrics_of(root):
        models = retrained(root, params, seeds, seconds)
        models = dataclasses.replace(models, judged=_judged_seeds(root))
        text = contract_text(params, evaluation, challenger, rows, models)
    parse_settings(text, Contract, str(paths.CONTRACT), known_metrics(root))
    kept = keep_old(target) if target.exists() else None
    target.write_text(text, encoding="utf-8")
    return kept, len(models.answers) if len(models.answers) >= SEEDS_LEAST else 0


def _judged_seeds(root: Path) -> int:
    """With how many seeds the gate trains each side, by the contract that is there."""
    try:
        return load_contract(root).model.seeds
    except GitopsError:
        # There is none yet, or it is replaced since it cannot be read.
        return 1


def contract_text(
    params: Params,
    evaluation: Mapping[str, Any],
    challenger: Challenger,
    rows: pl.DataFrame,
    models: Retrained = Retrained(),
) -> str:
    """The contract that a model holds by a little.

    Args:
        params: What was trained and measured.
        evaluation: The content of `reports/evaluation.json`.
        challenger: The evaluated model.
        rows: All rows of the data.
        models: Others of the same recipe, that tell the margins.
    """
    slices = list(_slices(params.evaluate.metrics[0], evaluation["slices"]))
    terms = len(evaluation["metrics"]) + sum(len(one.values) for one in slices)
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
            *_metric_lines(evaluation["metrics"], models, terms),
            *_slice_lines(params.evaluate.metrics[0], slices, models, terms),
            *_seeds_line(models.judged),
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


def _seeds_line(judged: int) -> Iterator[str]:
    """How many seeds the gate judges the mean of, where it is more than the recorded model."""
    if judged > 1:
        yield f"  seeds: {judged:<18} # of each side: the gate trains both recipes with them\n"


def _metric_lines(metrics: Mapping[str, Any], models: Retrained, terms: int) -> list[str]:
    lines = []
    everything = np.ones(len(models.test), dtype=np.bool_)
    for name, found in metrics.items():
        margin = margin_for(found, models.margin(name, everything, terms))
        kind, bound = bound_for(name, [found], margin)
        lines += [
            f"    {name}:\n",
            f"      {kind}: {bound:g}\n",
            f"      margin: {margin:g}\n",
            f"      erosion: {_EROSION_FACTOR * margin:g}\n",
        ]
    return lines


def margin_for(found: Mapping[str, Any], between_models: float | None = None) -> float:
    """How much worse than a champion is still noise, two digits, rounded up.

    Args:
        found: A metric's `value`, `low` and `high`.
        between_models: What may lie between two models of the same recipe; None if that is not
            known.
    """
    least = _MARGIN_LEAST * abs(found["value"])
    if between_models is not None:
        return up(max(least, between_models), 2)
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


@dataclass(frozen=True)
class _Slice:
    """A column inside whose values the primary metric is held.

    Attributes:
        column: Its name.
        min_rows: What a value must have to count.
        values: Those that have.
        found: The metric inside each.
    """

    column: str
    min_rows: int
    values: Sequence[Any]
    found: Sequence[Mapping[str, Any]]


def _slices(metric: str, slices: Sequence[Mapping[str, Any]]) -> Iterator[_Slice]:
    """The columns that have values with rows enough to measure a metric."""
    for column in dict.fromkeys(part["column"] for part in slices):
        parts = [
            part
            for part in slices
            if part["column"] == column and part["metrics"][metric]["value"] is not None
        ]
        largest = max((part["rows"] for part in parts), default=0)
        min_rows = min(_SLICE_ROWS, largest)
        if min_rows < _SLICE_ROWS_LEAST:
            continue
        parts = [part for part in parts if part["rows"] >= min_rows]
        values = [part["value"] for part in parts]
        yield _Slice(column, min_rows, values, [part["metrics"][metric] for part in parts])


def _slice_lines(metric: str, slices: Sequence[_Slice], models: Retrained, terms: int) -> list[str]:
    """The primary metric inside each value that has rows enough to measure it."""
    lines = []
    for part in slices:
        margin = max(
            margin_for(one, _margin_inside(metric, part.column, value, models, terms))
            for value, one in zip(part.values, part.found, strict=True)
        )
        kind, bound = bound_for(metric, part.found, margin)
        lines += [
            f"    - column: {json.dumps(part.column, ensure_ascii=False)}\n",
            f"      metric: {metric}\n",
            f"      min_rows: {part.min_rows}\n",
            f"      {kind}: {bound:g}\n",
            f"      margin: {margin:g}\n",
        ]
    comment = "# the same, inside each value of a column with at least min_rows test rows\n"
    return (
        [f"  slices:                   {comment}", *lines]
        if lines
        else [f"  slices: []                {comment}"]
    )


def _margin_inside(
    metric: str, column: str, value: Any, models: Retrained, terms: int
) -> float | None:
    """What may lie between two models inside a value of a column; None if they do not tell."""
    if not models.answers:
        return None
    inside = models.test.get_column(column)
    rows = inside.is_null() if value is None else (inside == value).fill_null(False)
    return models.margin(metric, rows.to_numpy(), terms)


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
