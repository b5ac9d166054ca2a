from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from gitops_ml.core.dvc import DvcError, LockedOutput
from gitops_ml.core.dvc_objects import hash_of
from gitops_ml.features.encode import Feature, Features
from gitops_ml.features.matrix import TableError
from gitops_ml.gate import challenger
from gitops_ml.gate.challenger import current_model, latency_p99_ms, score

RECORDS = [{"x": 1.0}, {"x": 2.0}]


class Clock:
    """Stands still but for what a model takes: other work on the machine must not count here."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(challenger, "time", clock)
    return clock


class Slow:
    """A model that takes its time: the next of some durations in seconds, for ever."""

    manifest: dict[str, Any] = SimpleNamespace()  # type: ignore[assignment]
    features = Features((Feature("x", "number"),))

    def __init__(self, clock: Clock, durations: Iterator[float]) -> None:
        self.clock = clock
        self.durations = durations
        self.asked: list[float] = []

    def predict(self, matrix: np.ndarray) -> Any:
        self.asked.append(float(matrix[0, 0]))
        self.clock.now += next(self.durations)


def test_the_latency_is_that_of_single_rows_in_turn(clock: Clock) -> None:
    model = Slow(clock, itertools.repeat(0.001))
    assert latency_p99_ms(model, RECORDS) == pytest.approx(1)
    assert model.asked[:4] == [1, 2, 1, 2]
    assert len(model.asked) > 3 * 250


def test_a_row_in_twenty_counts_but_one_stall_does_not(clock: Clock) -> None:
    often = Slow(clock, itertools.cycle([*[0.0] * 19, 0.01]))
    assert latency_p99_ms(often, RECORDS) == pytest.approx(10)
    once = Slow(clock, itertools.chain([*[0.001] * 400, 0.05], itertools.repeat(0.001)))
    assert latency_p99_ms(once, RECORDS) == pytest.approx(1)


def test_stalls_in_each_round_do_not_count_where_no_row_has_one_in_all(clock: Clock) -> None:
    chance = random.Random(1)
    busy = Slow(clock, (0.05 if chance.random() < 0.1 else 0.001 for _ in itertools.count()))
    assert latency_p99_ms(busy, RECORDS) == pytest.approx(1)


def test_a_very_slow_model_is_not_asked_for_long(clock: Clock) -> None:
    model = Slow(clock, itertools.repeat(1.0))
    assert latency_p99_ms(model, RECORDS) == pytest.approx(1000)
    assert len(model.asked) < 30


def test_the_time_of_a_model_is_that_of_a_clock_on_the_wall() -> None:
    class Sleeper(Slow):
        def predict(self, matrix: np.ndarray) -> Any:
            time.sleep(0.002)

    assert latency_p99_ms(Sleeper(Clock(), iter(())), RECORDS) >= 2


def test_answers_are_put_beside_what_happened() -> None:
    truth = pl.Series("late", [True, False, True])
    answers = pl.DataFrame(
        {
            "prediction": [True, True, False],
            "probability_true": [0.9, 0.6, 0.2],
            "probability_false": [0.1, 0.4, 0.8],
        }
    )
    found = score(truth, answers, (False, True))
    assert found.truth.tolist() == [1, 0, 1]
    assert found.prediction.tolist() == [1, 1, 0]
    assert found.probability is not None
    assert found.probability.tolist() == [[0.1, 0.9], [0.4, 0.6], [0.8, 0.2]]
    assert found.classes == 2


def test_a_champion_that_knows_other_classes_is_wrong_where_it_names_them() -> None:
    answers = pl.DataFrame(
        {"prediction": ["a", "old"], "probability_a": [0.7, 0.2], "probability_old": [0.3, 0.8]}
    )
    found = score(pl.Series("kind", ["a", "new"]), answers, ("a", "new"))
    assert found.prediction.tolist() == [0, -1]
    assert found.probability is not None
    assert found.probability.tolist() == [[0.7, 0], [0.2, 0]]


def test_answers_without_probabilities_have_none() -> None:
    found = score(pl.Series("n", [1, 2]), pl.DataFrame({"prediction": [2, 2]}), (1, 2))
    assert (found.truth.tolist(), found.prediction.tolist()) == ([0, 1], [1, 1])
    assert found.probability is None


def test_numbers_stay_numbers() -> None:
    found = score(pl.Series("delay", [1, 2]), pl.DataFrame({"prediction": [1.5, 2.5]}), ())
    assert (found.truth.tolist(), found.prediction.tolist()) == ([1, 2], [1.5, 2.5])
    assert found.classes == 0


def test_a_class_that_no_model_knows_is_an_error() -> None:
    with pytest.raises(TableError, match="column `kind`"):
        score(pl.Series("kind", ["c"]), pl.DataFrame({"prediction": ["a"]}), ("a", "b"))


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """A project with a model, and the lock that names it."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.onnx").write_bytes(b"weights")
    output = {"path": "models", "md5": hash_of(tmp_path / "models")}
    stages = {"train": {"cmd": "gitops-ml train", "outs": [output]}}
    text = yaml.safe_dump({"schema": "2.0", "stages": stages})
    (tmp_path / "dvc.lock").write_text(text, encoding="utf-8")
    return text


def test_the_model_is_that_of_a_lock_that_names_what_is_here(
    lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenger, "check_up_to_date", lambda root, needed: lock)
    expected = LockedOutput(hash_of(tmp_path / "models"), "train")
    assert current_model(tmp_path) == expected
    (tmp_path / "models" / "model.onnx").write_bytes(b"others")
    with pytest.raises(DvcError, match=r"models: is not what dvc\.lock names"):
        current_model(tmp_path)


def test_a_lock_that_does_not_name_what_is_here_names_no_model(
    lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(root: Path, needed: Path) -> str:
        raise DvcError("these stages are stale: train")

    monkeypatch.setattr(challenger, "check_up_to_date", stale)
    with pytest.raises(DvcError, match="stale: train"):
        current_model(tmp_path)
