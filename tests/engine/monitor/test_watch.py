"""A stable stretch stays quiet; what is planted is acted on within two windows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from live_flights import Flights, between, july

from gitops_ml.core.settings import MonitorParams, load_contract, load_params
from gitops_ml.features.matrix import matrix_of
from gitops_ml.monitor.labels import TRUTH
from gitops_ml.monitor.live_rows import PREDICTION, PROBABILITY, RELEASE, TIME
from gitops_ml.monitor.rule import Signal, acting, off
from gitops_ml.monitor.watch import Monitor, Window, of_this_model

Change = Callable[[pl.DataFrame], pl.DataFrame]
END = datetime(2013, 12, 1, tzinfo=UTC)


def live(flights: Flights, rows: pl.DataFrame, release: str | None = None) -> pl.DataFrame:
    """What `read_log` makes of the rows, with what happened."""
    said = flights.predictor.predict(matrix_of(rows, flights.predictor.features))
    assert said.probabilities is not None
    return rows.with_columns(
        pl.Series(PREDICTION, [str(one).lower() for one in said.labels]),
        pl.Series(PROBABILITY + "false", said.probabilities[:, 0].astype(np.float64)),
        pl.Series(PROBABILITY + "true", said.probabilities[:, 1].astype(np.float64)),
        pl.lit(release or flights.release).alias(RELEASE),
        pl.col("scheduled_hour").alias(TIME),
        pl.col("late").alias(TRUTH),
    )


@pytest.fixture
def make_monitor(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Monitor]:
    monkeypatch.chdir(flights.root)

    def make(**settings: Any) -> Monitor:
        params, contract = load_params(), load_contract()
        params = params.model_copy(update={"monitor": MonitorParams(**settings)})
        train, test = (pl.read_parquet(f"data/split/{part}.parquet") for part in ("train", "test"))
        evaluate = params.evaluate.model_copy(update={"resamples": 100})
        return Monitor(
            flights.predictor,
            params.model_copy(update={"evaluate": evaluate}),
            contract,
            train,
            test,
        )

    return make


def alarms(windows: tuple[Window, ...], settings: MonitorParams) -> list[int]:
    """The windows after which the rule acts, had each been the latest; unended ones left out."""
    judged = [window for window in windows if window.why_not is None]
    return [n for n in range(len(judged)) if acting(judged[: n + 1], settings)]


@pytest.mark.parametrize(("days", "least", "wanted"), [(7, 200, 13), (1, 100, 55)])
def test_three_later_months_are_quiet_though_the_season_moves_on(
    flights: Flights, make_monitor: Callable[..., Monitor], days: int, least: int, wanted: int
) -> None:
    monitor = make_monitor(window_days=days, min_rows=least)
    rows = live(flights, flights.later if days == 7 else between(flights.later, july(1), 60))
    found = monitor.watch(rows, END, shown=1000)
    judged = [window for window in found.windows if window.why_not is None]
    assert len(judged) >= wanted
    assert 50 * len(alarms(found.windows, MonitorParams())) <= len(judged)
    # The usual constant would have cried every week.
    usual = [window for window in judged if any(d.index > 0.25 for d in window.columns.values())]
    assert len(usual) == len(judged)


def celsius(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns((pl.col("temperature") - 32) / 1.8)


def kilometres(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns((pl.col("distance") * 1.609).cast(pl.Int64))


def moved(rows: pl.DataFrame) -> pl.DataFrame:
    """Four in ten flights leave from Newark instead."""
    other = pl.Series(np.random.default_rng(1).random(len(rows)) < 0.4)
    newark = pl.when(other).then(pl.lit("EWR")).otherwise("origin").alias("origin")
    return rows.with_columns(newark)


def unseen(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit("QQQ").alias("destination"))


def no_gauge(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit(None, dtype=pl.Float64).alias("humidity"))


def other_world(rows: pl.DataFrame) -> pl.DataFrame:
    """What was late four times in ten is not any more, and the other way round."""
    swapped = pl.Series(np.random.default_rng(2).random(len(rows)) < 0.4)
    return rows.with_columns(late=pl.col("late") ^ swapped)


PLANTED: dict[str, tuple[Change, Signal]] = {
    "unit: Fahrenheit to Celsius": (celsius, Signal("column", "temperature")),
    "unit: miles to kilometres": (kilometres, Signal("column", "distance")),
    "categories: Newark takes over": (moved, Signal("column", "origin")),
    "categories: one that was never seen": (unseen, Signal("column", "destination")),
    "a gauge that fails": (no_gauge, Signal("column", "humidity")),
    "concept": (other_world, Signal("metric", "log_loss")),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_acts_within_two_windows(
    flights: Flights, make_monitor: Callable[..., Monitor], name: str
) -> None:
    change, signal = PLANTED[name]
    monitor = make_monitor()
    before, after = between(flights.later, july(1), 14), between(flights.later, july(15), 14)
    rows = pl.concat([before, change(after)])
    found = monitor.watch(live(flights, rows), END)
    assert alarms(found.windows, MonitorParams()) == [3]
    assert signal in {one.signal for one in acting(found.windows, MonitorParams())}


def test_what_drifts_the_answers_counts_sooner_than_a_column(
    flights: Flights, make_monitor: Callable[..., Monitor]
) -> None:
    monitor = make_monitor()
    rows = between(flights.later, july(1), 14).with_columns(pl.lit(9.9).alias("precipitation"))
    found = acting(monitor.watch(live(flights, rows), END).windows, MonitorParams())
    kinds = [one.signal.kind for one in found]
    assert kinds.index("score") < kinds.index("column")


def test_a_window_with_too_few_rows_or_that_runs_still_is_not_judged(
    flights: Flights, make_monitor: Callable[..., Monitor]
) -> None:
    rows = pl.concat(
        [
            between(flights.later, july(1), 7).head(199),
            between(flights.later, july(8), 7),
            between(flights.later, july(15), 2),
            between(flights.later, july(22), 7),
        ]
    )
    found = make_monitor().watch(live(flights, rows), july(27))
    assert [window.why_not for window in found.windows] == [
        "has fewer than 200 rows (monitor.min_rows)",
        None,
        "has rows of 2 of its 7 days only",
        "has not ended yet",
    ]
    judged = [bool(window.columns) for window in found.windows]
    assert judged == [False, True, False, False]
    assert set(found.windows[1].columns) == set(flights.predictor.features.names)


def test_of_another_model_only_the_columns_are_judged(
    flights: Flights, make_monitor: Callable[..., Monitor]
) -> None:
    rows = between(flights.later, july(1), 7)
    other = "flight_delays:0123abcd-ffffffff"
    (window,) = (found := make_monitor().watch(live(flights, rows, other), END)).windows
    assert window.columns
    assert window.scores == window.metrics == {}
    assert window.labelled == 0
    assert f"{len(rows):,} rows of {len(rows):,} were answered by another model" in found.notes[0]


def test_a_release_is_known_by_the_model_in_its_name() -> None:
    manifest = {"served": "m.onnx", "files": {"m.onnx": "89abcdef" + "0" * 56}}
    assert of_this_model("late:01234567-89abcdef", manifest)
    assert of_this_model("late:01234567-89abcdef-dirty", manifest)
    assert of_this_model("development", manifest)
    assert not of_this_model("late:89abcdef-01234567", manifest)


def test_an_old_reference_says_that_it_is(
    flights: Flights, make_monitor: Callable[..., Monitor]
) -> None:
    rows = between(flights.later, july(1), 7).with_columns(
        pl.col("scheduled_hour").dt.offset_by("20w")
    )
    found = make_monitor().watch(live(flights, rows), datetime(2014, 1, 1, tzinfo=UTC))
    assert "land newer data and train again" in found.notes[0]


def test_rows_without_a_time_are_held_against_random_parts(
    flights: Flights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(flights.root)
    params, contract = load_params(), load_contract()
    params = params.model_copy(update={"data": params.data.model_copy(update={"time": None})})
    train, test = (pl.read_parquet(f"data/split/{part}.parquet") for part in ("train", "test"))
    half = np.random.default_rng(3).random(len(train)) < 0.5
    monitor = Monitor(flights.predictor, params, contract, train.filter(pl.Series(half)), test)
    asked = pl.lit(july(3)).alias(TIME)
    same = live(flights, train.filter(pl.Series(~half)).sample(3000, seed=4)).with_columns(asked)
    (quiet,) = monitor.watch(same, END).windows
    assert off(quiet) == set()
    (window,) = monitor.watch(live(flights, kilometres(same)).with_columns(asked), END).windows
    assert Signal("column", "distance") in off(window)


def test_labels_of_a_class_that_the_model_does_not_know_are_left_out(
    flights: Flights, make_monitor: Callable[..., Monitor], tmp_path: Path
) -> None:
    rows = live(flights, between(flights.later, july(1), 7))
    some = pl.Series(np.arange(len(rows)) < 300)
    known = rows.with_columns(pl.when(some).then(TRUTH).otherwise(None).alias(TRUTH))
    (window,) = make_monitor().watch(known, END).windows
    assert window.labelled == 300
    assert set(window.metrics) == {"roc_auc", "average_precision", "log_loss", "warning_cost"}
