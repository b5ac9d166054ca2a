"""Hold the live service's rows, window by window, against the reference: columns, scores, metrics.

The columns are those that the model sees, the derived ones among them, as the same encoder gives
them. The scores are what the service answered, held against this model's answers for its test rows.
The metrics are those of the contract, for the rows of which is known what has happened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.core.settings import Contract, MetricTerms, Params
from gitops_ml.data.problems import count
from gitops_ml.features.encode import Features, Matrix, class_name
from gitops_ml.features.matrix import matrix_of
from gitops_ml.gate.base_rows import groups_of
from gitops_ml.model.metrics import Estimate, Scored, estimate, kind_of, measure
from gitops_ml.model.predict import score_target, scored_rows
from gitops_ml.model.predictor import Predictions, Predictor
from gitops_ml.monitor.drift import (
    LEAST_ROWS,
    LEAST_SPREAD,
    Bins,
    Column,
    Drift,
    Floats,
    Ints,
    Reference,
    parts,
)
from gitops_ml.monitor.labels import TRUTH
from gitops_ml.monitor.live_rows import PREDICTION, PROBABILITY, RELEASE, TIME
from gitops_ml.serving.release import DEVELOPMENT

# Windows begin on a Monday: the fifth day of 1970 was one.
_MONDAY = 4
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How many windows are judged, and shown.
SHOWN = 12
# A window is whole that has rows of this share of the days that windows of the reference have.
WHOLE = 0.8
# Of the worst window of the reference, to know how bad it was beyond doubt.
RESAMPLES = 200


@dataclass(frozen=True)
class MetricFound:
    """A metric of a window's rows, as far as their labels are known.

    Attributes:
        estimate: With its interval.
        limit: What it must not be worse than; None where nothing says.
        direction: 1 if larger is better, else -1.
    """

    estimate: Estimate
    limit: float | None
    direction: int

    @property
    def worse(self) -> bool:
        """Whether it is beyond doubt worse than the limit."""
        best = self.estimate.high if self.direction > 0 else self.estimate.low
        if best is None or self.limit is None:
            return False
        return self.direction * (best - self.limit) < 0


@dataclass
class Window:
    """What was found of the rows of one window.

    Attributes:
        number: Counted from 1970.
        start: Its first moment.
        end: The first moment after it.
        rows: How many rows it has.
        labelled: How many of them this model answered, and are known by now.
        why_not: Why it is not judged; None if it is.
        columns: By name.
        scores: By name; empty where this model answered too few rows.
        metrics: By name; empty where too few labels are known.
    """

    number: int
    start: datetime
    end: datetime
    rows: int
    labelled: int = 0
    why_not: str | None = None
    columns: dict[str, Drift] = field(default_factory=dict)
    scores: dict[str, Drift] = field(default_factory=dict)
    metrics: dict[str, MetricFound] = field(default_factory=dict)


@dataclass(frozen=True)
class Watched:
    """All that was found.

    Attributes:
        windows: The last ones, in their order.
        reference_rows: How many rows the reference has.
        reference_windows: How many windows.
        reference_end: Its last moment; None where its rows have no time.
        notes: What to know when reading it.
    """

    windows: tuple[Window, ...]
    reference_rows: int
    reference_windows: int
    reference_end: datetime | None
    notes: tuple[str, ...]


def of_this_model(release: str, manifest: dict[str, Any]) -> bool:
    """Whether a release has this model: its name ends with the first digits of the model's hash."""
    digits = str(manifest["files"][manifest["served"]])[:8]
    return release == DEVELOPMENT or bool(re.search(rf"-{digits}(-dirty)?$", release))


class Monitor:
    """The reference of a model, ready to hold windows against.

    Args:
        predictor: The model.
        params: The settings.
        contract: Names the metrics and their bounds.
        train: What it was trained on.
        test: What it was tested on.
    """

    def __init__(
        self,
        predictor: Predictor,
        params: Params,
        contract: Contract,
        train: pl.DataFrame,
        test: pl.DataFrame,
    ) -> None:
        self._predictor, self._params = predictor, params
        self._terms = contract.model.metrics
        time = params.data.time
        inputs = list(predictor.features.inputs)
        wanted = list(dict.fromkeys([*inputs, *([time] if time else [])]))
        rows = pl.concat([train.select(wanted), test.select(wanted)])
        self.rows = len(rows)
        days = params.monitor.window_days
        if time is None:
            size = max(params.monitor.min_rows, len(rows) // 20)
            self._reference = Reference(parts(len(rows), size), None)
            self._usual_days = 0.0
            self.end: datetime | None = None
        else:
            windows, covered = window_of(rows.get_column(time), days), day_of(rows.get_column(time))
            whole = days_covered(windows, covered)
            self._usual_days = WHOLE * float(np.median(list(whole.values())))
            partial = (one for one, n in whole.items() if n < self._usual_days)
            self._reference = Reference(windows, days, frozenset(partial))
            self.end = rows.get_column(time).max()  # type: ignore[assignment]
        matrix = matrix_of(rows, predictor.features)
        self._columns = [
            Column(
                name,
                _bins(predictor.features, place, matrix),
                self._reference,
                matrix[:, place].astype(np.float64),
            )
            for place, name in enumerate(predictor.features.names)
        ]
        # What a model says of rows that it was trained on is more certain than what it says live.
        tested = np.arange(len(train), len(rows), dtype=np.int64)
        manifest = predictor.manifest
        answers = predictor.predict(matrix[len(train) :])
        self._scores = [
            Column(name, bins or Bins.of_numbers(values), self._reference, values, tested)
            for name, bins, values in _score_columns(answers, manifest)
        ]
        self._worst = self._worst_windows(score_target(test, predictor), tested)

    def watch(self, live: pl.DataFrame, now: datetime, shown: int = SHOWN) -> Watched:
        """Judge the last windows.

        Args:
            live: The rows of the log, with TRUTH.
            now: A window that has not ended by then is not judged.
            shown: How many windows.
        """
        settings = self._params.monitor
        time = self._params.data.time
        # By the time that the row is about, as in the reference; else by when it was asked.
        moments = live.get_column(time if time in live.columns else TIME)
        numbers = window_of(moments, settings.window_days)
        ours = np.array(
            [of_this_model(name, self._predictor.manifest) for name in live.get_column(RELEASE)],
            dtype=np.bool_,
        )
        covered = days_covered(numbers, day_of(moments))
        found = []
        for number in np.unique(numbers)[-shown:].tolist():
            inside = numbers == number
            window = self._window(number, int(inside.sum()), covered[number], now)
            if window.why_not is None:
                self._judge(window, live.filter(pl.Series(inside)), ours[inside])
            found.append(window)
        return Watched(
            tuple(found),
            self.rows,
            len(self._reference.numbers),
            self.end,
            tuple(self._notes(found, live, ours)),
        )

    def _window(self, number: int, rows: int, covered: int, now: datetime) -> Window:
        days, least = self._params.monitor.window_days, self._params.monitor.min_rows
        start = _EPOCH + _DAY * (number * days + _MONDAY)
        window = Window(number, start, start + _DAY * days, rows)
        if window.end > now:
            window.why_not = "has not ended yet"
        elif rows < least:
            window.why_not = f"has fewer than {least:,} rows (monitor.min_rows)"
        elif covered < self._usual_days:
            window.why_not = f"has rows of {covered} of its {days} days only"
        return window

    def _judge(self, window: Window, rows: pl.DataFrame, ours: NDArray[np.bool_]) -> None:
        predictor, least = self._predictor, self._params.monitor.min_rows
        number = window.number
        matrix = matrix_of(rows, predictor.features)
        for place, column in enumerate(self._columns):
            drift = column.drift(matrix[:, place].astype(np.float64), number)
            if drift is not None:
                window.columns[column.name] = drift
        mine = rows.filter(pl.Series(ours))
        if len(mine) < least:
            return
        answers = logged(mine, predictor.manifest)
        stated = _score_columns(answers, predictor.manifest)
        for column, (_, _, values) in zip(self._scores, stated, strict=True):
            drift = column.drift(values, number)
            if drift is not None:
                window.scores[column.name] = drift
        classes = predictor.manifest["classes"]
        known = pl.col(TRUTH).is_not_null()
        if classes is not None:
            known &= pl.col(TRUTH).is_in(classes)
        labelled = mine.filter(known)
        window.labelled = len(labelled)
        if len(labelled) >= least:
            self._measure(window, labelled)

    def _measure(self, window: Window, rows: pl.DataFrame) -> None:
        manifest, settings = self._predictor.manifest, self._params.evaluate
        scored = scored_rows(rows.get_column(TRUTH), logged(rows, manifest), manifest["classes"])
        found = estimate(
            list(self._terms),
            scored,
            settings.confidence,
            settings.resamples,
            manifest["seed"],
            groups_of(rows, self._params, self._predictor.features.inputs),
        )
        for name, one in found.items():
            direction = kind_of(name).direction
            limit = _limit(self._terms[name], self._worst.get(name), direction)
            window.metrics[name] = MetricFound(one, limit, direction)

    def _worst_windows(self, scored: Scored, tested: Ints) -> dict[str, float]:
        """How bad each metric may have been in the worst window of the test rows.

        Such a window has few rows, and looks worse than it is by chance, so the far end of its
        interval counts.
        """
        windows = self._reference.windows[tested]
        numbers = [one for one in np.unique(windows) if (windows == one).sum() >= LEAST_ROWS]
        found: dict[str, float] = {}
        for name in self._terms:
            direction = kind_of(name).direction
            values = {
                number: direction * float(measure(name, scored.take(windows == number))[0])
                for number in numbers
            }
            known = {number: one for number, one in values.items() if np.isfinite(one)}
            if not known:
                continue
            inside = scored.take(windows == min(known, key=lambda number: known[number]))
            settings, seed = self._params.evaluate, self._predictor.manifest["seed"]
            one = estimate([name], inside, settings.confidence, RESAMPLES, seed)[name]
            end = one.low if direction > 0 else one.high
            found[name] = direction * min(known.values()) if end is None else end
        return found

    def _notes(
        self, windows: Sequence[Window], live: pl.DataFrame, ours: NDArray[np.bool_]
    ) -> list[str]:
        notes = []
        judged = [window for window in windows if window.why_not is None]
        others = int((~ours).sum())
        if others:
            notes.append(
                f"{count(others, 'row')} of {len(live):,} were answered by another model than that "
                "of this working tree: of them the columns are judged, not the scores and metrics. "
                "To judge these, check out the commit that the release names"
            )
        if len(self._reference.numbers) < LEAST_SPREAD + 4:
            notes.append(
                f"The reference has only {count(len(self._reference.numbers), 'window')} of "
                f"{self._params.monitor.window_days} days: what is usual is not known from it, "
                "and the limits are constants. Land more data, or make monitor.window_days smaller"
            )
        elif judged and self._reference.is_stale(judged[-1].number):
            notes.append(
                f"The reference ends {self.end:%Y-%m-%d}, too long before the last window to say "
                "what the season alone would change: land newer data and train again"
            )
        return notes


def day_of(times: pl.Series) -> Ints:
    """The day of each of n moments, counted from 1970."""
    return times.dt.epoch("d").to_numpy().astype(np.int64)


def window_of(times: pl.Series, days: int) -> Ints:
    """The window of each of n moments."""
    return np.asarray((day_of(times) - _MONDAY) // days)


def days_covered(windows: Ints, days: Ints) -> dict[int, int]:
    """Of how many days each window has rows."""
    pairs = np.unique(np.column_stack([windows, days]), axis=0)
    numbers, counts = np.unique(pairs[:, 0], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def logged(rows: pl.DataFrame, manifest: dict[str, Any]) -> Predictions:
    """What the service answered, as the model that did gives it."""
    said = rows.get_column(PREDICTION)
    classes = manifest["classes"]
    if classes is None:
        return Predictions(said.cast(pl.Float64, strict=False).to_list(), None)
    by_name = {class_name(value): value for value in classes}
    labels = [by_name.get(one, classes[0]) for one in said.to_list()]
    if not manifest["probabilities"]:
        return Predictions(labels, None)
    stated = rows.select(PROBABILITY + name for name in by_name).fill_null(0.0).to_numpy()
    return Predictions(labels, stated)


def _score_columns(
    answers: Predictions, manifest: dict[str, Any]
) -> list[tuple[str, Bins | None, Floats]]:
    """The columns of a model's answers: their names, how they are counted, and n values each."""
    classes = manifest["classes"]
    if classes is None:
        return [("prediction", None, np.asarray(answers.labels, dtype=np.float64))]
    if answers.probabilities is None:
        place = {value: float(at) for at, value in enumerate(classes)}
        codes = np.array([place[label] for label in answers.labels], dtype=np.float64)
        return [("prediction", Bins.of_categories(len(classes)), codes)]
    # Of two probabilities one says it all.
    shown = range(1, 2) if len(classes) == 2 else range(len(classes))
    return [
        (
            f"probability of {class_name(classes[at])}",
            None,
            answers.probabilities[:, at].astype(np.float64),
        )
        for at in shown
    ]


def _bins(features: Features, place: int, matrix: Matrix) -> Bins:
    feature = features.items[place]
    if feature.type == "category":
        return Bins.of_categories(len(feature.categories))
    if feature.type == "boolean":
        return Bins.of_categories(2)
    return Bins.of_numbers(matrix[:, place].astype(np.float64))


def _limit(terms: MetricTerms, worst: float | None, direction: int) -> float | None:
    """What a window may be at worst: what the contract allows, or what the reference had."""
    bound = terms.floor if direction > 0 else terms.ceiling
    known = [direction * one for one in (bound, worst) if one is not None]
    return direction * min(known) if known else None
