"""How often the monitor is wrong: quiet stretches that it alarms on, drifts that it does not see.

    python tools/study_drift.py PROJECT

PROJECT is a generated project of the example data (`make setup`). For each of six moments of 2013
its model is trained on the months before, by its own stages, and the nine weeks after are its live
service: rows that nobody has changed, so whatever the rule acts on is a false alarm, or a model
that has become worse for the season. Then drifts are planted from the third week on, and the
windows are counted until the rule acts. Prints tables.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from make_sample_data import join, read_source, sample, source_folder
from numpy.typing import NDArray

from gitops_ml.cli import main as gitops_ml
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import MonitorParams, load_contract, load_params
from gitops_ml.core.user_code import make_importable
from gitops_ml.data.convert import convert
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model.predictor import Predictor, load_predictor
from gitops_ml.monitor.labels import TRUTH
from gitops_ml.monitor.live_rows import PREDICTION, PROBABILITY, RELEASE, TIME
from gitops_ml.monitor.rule import acting
from gitops_ml.monitor.watch import Monitor, Window
from gitops_ml.serving.release import DEVELOPMENT

MONTHS = (4, 5, 6, 7, 8, 9)
WEEKS = 9
# From which of them on a drift is planted.
PLANTED = 2
WITHIN = 2
AT = "scheduled_hour"
Change = Callable[[pl.DataFrame], pl.DataFrame]


def _scaled(name: str, factor: float, less: float = 0.0) -> Change:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        kind = rows.schema[name]
        return rows.with_columns(((pl.col(name) - less) * factor).cast(kind))

    return change


def _some(rows: pl.DataFrame, share: float) -> pl.Series:
    return pl.Series(np.random.default_rng(1).random(len(rows)) < share)


def _becomes(name: str, value: str | None, share: float) -> Change:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        new = pl.lit(value, dtype=rows.schema[name])
        return rows.with_columns(
            pl.when(_some(rows, share)).then(new).otherwise(pl.col(name)).alias(name)
        )

    return change


def _concept(share: float) -> Change:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(late=pl.col("late") ^ _some(rows, share))

    return change


DRIFTS: Mapping[str, Mapping[str, Change]] = {
    "unit": {
        "temperature in °C": _scaled("temperature", 1 / 1.8, 32),
        "distance in km": _scaled("distance", 1.609),
        "wind_speed in m/s": _scaled("wind_speed", 0.447),
        "visibility in km": _scaled("visibility", 1.609),
        "pressure in mmHg": _scaled("pressure", 0.75),
    },
    "categories": {
        "40 % of the flights move to EWR": _becomes("origin", "EWR", 0.4),
        "20 % of the flights move to EWR": _becomes("origin", "EWR", 0.2),
        "30 % of the destinations were never seen": _becomes("destination", "QQQ", 0.3),
        "30 % of the carriers become one": _becomes("carrier", "UA", 0.3),
    },
    "missing": {
        "humidity fails": _becomes("humidity", None, 1.0),
        "temperature fails in 30 % of the rows": _becomes("temperature", None, 0.3),
    },
    "concept, seen by its labels": {
        "40 % of what is late is not, and the other way": _concept(0.4),
        "25 %": _concept(0.25),
    },
}


class Study:
    """A model of the months before a moment, and the rows of the weeks after."""

    def __init__(self, rows: pl.DataFrame, months: int) -> None:
        """Train it in the current folder."""
        start = datetime(2013, months + 1, 1, tzinfo=UTC)
        landed = Path("data/landed")
        shutil.rmtree(landed)
        landed.mkdir()
        before = rows.filter(pl.col(AT) < start)
        before.write_parquet(landed / "flights.parquet")
        for stage in ("ingest", "split", "train"):
            with contextlib.redirect_stdout(io.StringIO()):
                assert gitops_ml([stage]) == 0
        self.predictor: Predictor = load_predictor(Path("models"))
        params = load_params()
        evaluate = params.evaluate.model_copy(update={"resamples": 200})
        params = params.model_copy(update={"evaluate": evaluate, "monitor": MonitorParams()})
        train, test = (pl.read_parquet(f"data/split/{part}.parquet") for part in ("train", "test"))
        self.monitor = Monitor(self.predictor, params, load_contract(), train, test)
        # Windows begin on Mondays.
        self.first = start + timedelta(days=-start.weekday() % 7)
        self.rows = rows.filter(
            pl.col(AT).is_between(self.first, self.first + timedelta(weeks=WEEKS), "left")
        )

    def windows(self, change: Change | None = None) -> list[Window]:
        """Every window, with a change from the third on."""
        rows = self.rows
        if change is not None:
            begin = self.first + timedelta(weeks=PLANTED)
            parts = [rows.filter(pl.col(AT) < begin), change(rows.filter(pl.col(AT) >= begin))]
            rows = pl.concat(parts)
        said = self.predictor.predict(matrix_of(rows, self.predictor.features))
        assert said.probabilities is not None
        stated: NDArray[np.float64] = said.probabilities.astype(np.float64)
        live = rows.with_columns(
            pl.Series(PREDICTION, [str(one).lower() for one in said.labels]),
            pl.Series(PROBABILITY + "false", stated[:, 0]),
            pl.Series(PROBABILITY + "true", stated[:, 1]),
            pl.lit(DEVELOPMENT).alias(RELEASE),
            pl.col(AT).alias(TIME),
            pl.col("late").alias(TRUTH),
        )
        found = self.monitor.watch(live, datetime(2014, 2, 1, tzinfo=UTC), shown=WEEKS)
        return [window for window in found.windows if window.why_not is None]


def alarms(windows: Sequence[Window], kinds: Sequence[str]) -> list[int]:
    """The windows after which the rule acts on something of these kinds."""
    return [
        place
        for place in range(len(windows))
        if any(one.signal.kind in kinds for one in acting(windows[: place + 1], MonitorParams()))
    ]


def constant(windows: Sequence[Window], limit: float = 0.2) -> int:
    """In how many windows any column has an index above the usual constant."""
    return sum(any(one.index > limit for one in w.columns.values()) for w in windows)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("project", type=Path)
    project = parser.parse_args().project.resolve()
    source = sample(join(*read_source(source_folder())))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        kept = shutil.ignore_patterns(".venv", ".git", ".dvc", "build", "uv.lock")
        shutil.copytree(project, copy, ignore=kept)
        with contextlib.chdir(copy):
            columns = load_schema().columns
            rows = pl.DataFrame(
                [convert(source[name], one.type, False) for name, one in columns.items()]
            )
            make_importable(copy, "flight_delays")
            _run(rows)
    return 0


def _run(rows: pl.DataFrame) -> None:
    kinds = ("metric", "score", "column")
    seen: dict[str, list[int | None]] = {name: [] for part in DRIFTS.values() for name in part}
    print(
        "| trained on | windows | false alarms: columns, scores | metrics | PSI > 0.2 somewhere |"
    )
    print("|---|---:|---:|---:|---:|")
    total: Counter[str] = Counter()
    for months in MONTHS:
        study = Study(rows, months)
        windows = study.windows()
        wrong = {
            "windows": len(windows),
            "drift": len(alarms(windows, ("score", "column"))),
            "metric": len(alarms(windows, ("metric",))),
            "constant": constant(windows),
        }
        total.update(wrong)
        print(f"| January to {datetime(2013, months, 1):%B} | " + _cells(wrong), flush=True)
        quiet = set(alarms(windows, kinds))
        for place in sorted(quiet):
            told = ", ".join(
                str(one.signal) for one in acting(windows[: place + 1], MonitorParams())
            )
            print(f"<!-- {windows[place].start:%Y-%m-%d}: {told} -->")
        for part in DRIFTS.values():
            for name, change in part.items():
                acts = [n for n in alarms(study.windows(change), kinds) if n >= PLANTED]
                own = [n for n in acts if n not in quiet]
                seen[name].append(own[0] - PLANTED + 1 if own else None)
    print("| **all** | " + _cells(total))
    print(
        "\n| kind | planted | acted on within two windows | later | not |\n|---|---|---:|---:|---:|"
    )
    for kind, drifts in DRIFTS.items():
        for name in drifts:
            soon = sum(one is not None and one <= WITHIN for one in seen[name])
            never = sum(one is None for one in seen[name])
            print(f"| {kind} | {name} | {soon} | {len(MONTHS) - soon - never} | {never} |")


def _cells(found: Mapping[str, int]) -> str:
    names = ("windows", "drift", "metric", "constant")
    return " | ".join(str(found[name]) for name in names) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
