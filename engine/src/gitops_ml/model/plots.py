"""The evaluation's plots: as data, which `dvc plots` draws and compares, and as pictures.

Every figure is one file in `curves/` with the columns figure, series, x, y (`.dvc/plots/curve.json`
says how DVC draws it) and one picture in `images/`. The same numbers give the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from sklearn.metrics import precision_recall_curve, roc_curve

from gitops_ml.core.settings import Params
from gitops_ml.features.encode import class_name
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model.metrics import Floats, Scored, equal_bins, kind_of, measure
from gitops_ml.model.predict import scored_rows
from gitops_ml.model.predictor import Predictor

POINTS = 200
CLOUD = 3_000
IMPORTANCE_ROWS = 2_000
IMPORTANCE_REPEATS = 5
IMPORTANCE_SHOWN = 20

_COLOURS = ("#2f5d8a", "#d1495b", "#3a8f6b", "#e0a030", "#7a5195", "#5b7083", "#a05a2c", "#1f9e9e")
_INK, _MUTED, _GRID = "#22303c", "#5b6b79", "#e3e8ec"


@dataclass(frozen=True)
class Curve:
    """One line of a figure; `x` and `y` have equal shapes (n,)."""

    series: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Figure:
    """Lines on common axes.

    Attributes:
        name: Of the files, without suffix.
        title: What the figure shows.
        x: What the horizontal axis means.
        y: What the vertical axis means.
        curves: At least one.
        diagonal: What the line y = x stands for, if it stands for something.
        cloud: Shapes (n,) of points to draw behind the lines, in the picture only.
    """

    name: str
    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    diagonal: str | None = None
    cloud: tuple[Floats, Floats] | None = None

    def table(self) -> pl.DataFrame:
        """The lines as rows of figure, series, x, y."""
        label = f"{self.title}: {self.y.lower()} over {self.x.lower()}"
        return pl.concat(
            pl.DataFrame({"x": curve.x, "y": curve.y}).select(
                pl.lit(label).alias("figure"),
                pl.lit(curve.series).alias("series"),
                pl.col("x", "y").round_sig_figs(6),
            )
            for curve in self.curves
        )


@dataclass(frozen=True)
class Importance:
    """How much worse the primary metric gets when one feature is shuffled."""

    feature: str
    mean: float
    deviation: float


def draw_plots(
    frame: pl.DataFrame, scored: Scored, predictor: Predictor, params: Params, folder: Path
) -> None:
    """Write all figures of the task, replacing what is in the folder.

    Args:
        frame: The test rows.
        scored: The same rows with the model's answers.
        predictor: The model.
        params: For the task, the target and the primary metric.
        folder: Where to write.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("curves", "images"):
        (folder / part).mkdir(parents=True)
    for figure in figures(scored, predictor.manifest):
        figure.table().write_csv(folder / "curves" / f"{figure.name}.csv")
        _save(_draw_figure(figure), folder / "images" / f"{figure.name}.png")
    metric = params.evaluate.metrics[0]
    ranked = importance(frame, scored, predictor, metric)
    pl.DataFrame(
        {"feature": [one.feature for one in ranked], "importance": [one.mean for one in ranked]}
    ).with_columns(pl.col("importance").round_sig_figs(6)).write_csv(folder / "importance.csv")
    _save(_draw_importance(ranked, metric), folder / "images" / "importance.png")


def figures(scored: Scored, manifest: Mapping[str, Any]) -> list[Figure]:
    """The figures of a task; ROC, precision-recall and calibration need probabilities."""
    if manifest["task"] == "regression":
        return [_predicted_against_observed(scored, manifest), _residuals(scored, manifest)]
    if scored.probability is None:
        return [_recall_by_class(scored, manifest)]
    names = [class_name(value) for value in manifest["classes"]]
    shown = [1] if len(names) == 2 else range(len(names))
    present = [place for place in shown if 0 < (scored.truth == place).sum() < len(scored)]
    target = manifest["target"]

    def per_class(build: Callable[[Floats, Floats], tuple[Floats, Floats]]) -> tuple[Curve, ...]:
        return tuple(
            Curve(
                f"{target} = {names[place]}",
                *build(
                    (scored.truth == place).astype(np.float64),
                    np.asarray(scored.probability)[:, place],
                ),
            )
            for place in present
        )

    return [
        Figure(
            "roc", "ROC", "False positive rate", "True positive rate", per_class(_roc), "guessing"
        ),
        Figure("precision_recall", "Precision and recall", "Recall", "Precision", per_class(_pr)),
        Figure(
            "calibration",
            "Calibration",
            "Predicted probability",
            "Observed share",
            per_class(_calibration),
            "perfect",
        ),
    ]


def _roc(truth: Floats, probability: Floats) -> tuple[Floats, Floats]:
    false_positives, true_positives, _ = roc_curve(truth, probability)
    return _thinned(false_positives, true_positives)


def _pr(truth: Floats, probability: Floats) -> tuple[Floats, Floats]:
    precision, recall, _ = precision_recall_curve(truth, probability)
    return _thinned(recall[::-1], precision[::-1])


def _calibration(truth: Floats, probability: Floats) -> tuple[Floats, Floats]:
    parts = equal_bins(probability, 10)
    return (
        np.array([probability[part].mean() for part in parts]),
        np.array([truth[part].mean() for part in parts]),
    )


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return _evenly(x, POINTS), _evenly(y, POINTS)


def _evenly(values: Floats, most: int) -> Floats:
    places = np.linspace(0, len(values) - 1, min(len(values), most)).astype(int)
    return np.asarray(values[places])


def _recall_by_class(scored: Scored, manifest: Mapping[str, Any]) -> Figure:
    places = np.unique(scored.truth)
    recall = [float((scored.prediction[scored.truth == place] == place).mean()) for place in places]
    return Figure(
        "recall",
        "Recall of each class",
        f"Place in {', '.join(class_name(value) for value in manifest['classes'])}",
        "Recall",
        (Curve("recall", places.astype(np.float64), np.array(recall)),),
    )


def _predicted_against_observed(scored: Scored, manifest: Mapping[str, Any]) -> Figure:
    parts = equal_bins(scored.prediction.astype(np.float64), 20)
    return Figure(
        "predicted_observed",
        f"Predicted and observed {manifest['target']}",
        "Predicted",
        "Observed",
        (
            Curve(
                "mean of a twentieth of the rows",
                np.array([scored.prediction[part].mean() for part in parts]),
                np.array([scored.truth[part].mean() for part in parts]),
            ),
        ),
        "perfect",
        (scored.prediction.astype(np.float64), scored.truth.astype(np.float64)),
    )


def _residuals(scored: Scored, manifest: Mapping[str, Any]) -> Figure:
    residuals = np.asarray(scored.truth - scored.prediction, dtype=np.float64)
    low, high = np.quantile(residuals, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    share, edges = np.histogram(residuals, bins=60, range=(low, high))
    return Figure(
        "residuals",
        "Residuals",
        f"Observed minus predicted {manifest['target']}, middle 99 %",
        "Share of rows",
        (Curve("share", (edges[1:] + edges[:-1]) / 2, share / len(residuals)),),
    )


def importance(
    frame: pl.DataFrame, scored: Scored, predictor: Predictor, metric: str
) -> list[Importance]:
    """Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019), largest first.

    Each feature is shuffled among up to `IMPORTANCE_ROWS` evenly spaced rows, several times; its
    importance is by how much the metric gets worse, in the metric's unit.
    """
    rows = np.linspace(0, len(frame) - 1, min(len(frame), IMPORTANCE_ROWS)).astype(int)
    matrix = matrix_of(frame[rows], predictor.features)
    target = frame.get_column(predictor.manifest["target"])[rows]
    classes = predictor.manifest["classes"]
    before = measure(metric, scored.take(rows))[0]
    direction = kind_of(metric).direction
    generator = np.random.default_rng(predictor.manifest["seed"])
    found = []
    for place, name in enumerate(predictor.features.names):
        losses = []
        for _ in range(IMPORTANCE_REPEATS):
            shuffled = matrix.copy()
            shuffled[:, place] = generator.permutation(shuffled[:, place])
            worse = scored_rows(target, predictor.predict(shuffled), classes)
            losses.append(direction * (before - measure(metric, worse)[0]))
        found.append(Importance(name, float(np.mean(losses)), float(np.std(losses))))
    return sorted(found, key=lambda one: -one.mean)


def _canvas(title: str) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(6.4, 4.8), dpi=120, layout="constrained", facecolor="white")
    axes = canvas.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=12)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return canvas, axes


def _draw_figure(figure: Figure) -> Canvas:
    canvas, axes = _canvas(figure.title)
    axes.set_xlabel(figure.x, color=_MUTED)
    axes.set_ylabel(figure.y, color=_MUTED)
    if figure.cloud is not None:
        x, y = (_evenly(values, CLOUD) for values in figure.cloud)
        axes.scatter(x, y, s=7, alpha=0.25, color=_COLOURS[0], linewidths=0, label="one row")
        axes.set_xlim(*_padded(np.quantile(x, [0.002, 0.998])))
        axes.set_ylim(*_padded(np.quantile(y, [0.005, 0.995])))
    if figure.diagonal is not None:
        ends = _ends(figure)
        axes.plot(
            ends, ends, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), label=figure.diagonal
        )
    # Few points are drawn as points, since each of them is a group of rows.
    marker = "o" if max(len(curve.x) for curve in figure.curves) <= 20 else ""
    colours = _COLOURS[1:2] if figure.cloud is not None else _COLOURS
    for place, curve in enumerate(figure.curves):
        colour = colours[place % len(colours)]
        axes.plot(
            curve.x,
            curve.y,
            color=colour,
            linewidth=2,
            marker=marker,
            markersize=5,
            label=curve.series,
        )
    if len(axes.get_lines()) > 1:
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    return canvas


def _ends(figure: Figure) -> tuple[float, float]:
    values = np.concatenate([curve.x for curve in figure.curves])
    return (0.0, 1.0) if figure.cloud is None else (float(values.min()), float(values.max()))


def _padded(ends: Floats) -> tuple[float, float]:
    low, high = float(ends[0]), float(ends[1])
    margin = (high - low) * 0.05 or 0.5
    return low - margin, high + margin


def _draw_importance(ranked: Sequence[Importance], metric: str) -> Canvas:
    shown = ranked[:IMPORTANCE_SHOWN]
    canvas, axes = _canvas("Importance of the features")
    axes.barh(
        [one.feature for one in shown],
        [one.mean for one in shown],
        xerr=[one.deviation for one in shown],
        color=_COLOURS[0],
        ecolor=_MUTED,
        error_kw={"elinewidth": 1},
        height=0.7,
    )
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=_INK, labelsize=9)
    axes.set_xlabel(f"How much worse {metric} gets when the feature is shuffled", color=_MUTED)
    return canvas


def _save(canvas: Canvas, path: Path) -> None:
    # No software version in the file: the same picture has the same bytes.
    canvas.savefig(path, metadata={"Software": None})
