from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from gitops_ml.features.encode import Matrix
from gitops_ml.model.predictor import PredictionError, Predictions
from gitops_ml.serving.batching import Batcher


class Model:
    """Answers with twice the first column; keeps the sizes of the batches it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def predict(self, matrix: Matrix) -> Predictions:
        self.batches.append(len(matrix))
        self.go_on.wait(10)
        if np.isnan(matrix).any():
            raise PredictionError("no number")
        return Predictions((2 * matrix[:, 0]).tolist(), np.stack([matrix[:, 0]] * 2, axis=1))


def rows(*values: float) -> Matrix:
    return np.array([[value, 0] for value in values], dtype=np.float32)


async def ask_while_busy(model: Model, batcher: Batcher, *matrices: Matrix) -> list[object]:
    """Ask when the model is at work already, so that the requests have to wait."""
    model.go_on.clear()
    tasks = [asyncio.create_task(batcher.predict(rows(0)))]
    while not model.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(batcher.predict(matrix)) for matrix in matrices]
    await asyncio.sleep(0.05)
    model.go_on.set()
    return list(await asyncio.gather(*tasks, return_exceptions=True))[1:]


def labels(answers: list[object]) -> list[list[float]]:
    assert all(isinstance(answer, Predictions) for answer in answers), answers
    return [answer.labels for answer in answers if isinstance(answer, Predictions)]


def test_waiting_requests_are_answered_together_each_with_its_own_rows() -> None:
    model = Model()

    answers = asyncio.run(ask_while_busy(model, Batcher(model.predict), rows(1, 2), rows(3)))

    assert model.batches == [1, 3]
    assert labels(answers) == [[2, 4], [6]]
    assert isinstance(answers[0], Predictions)
    assert answers[0].probabilities is not None
    assert answers[0].probabilities.tolist() == [[1, 1], [2, 2]]


def test_a_batch_is_closed_at_its_size() -> None:
    model = Model()
    batcher = Batcher(model.predict, rows_at_once=3)

    answers = asyncio.run(
        ask_while_busy(model, batcher, rows(1, 2), rows(3), rows(4), rows(5, 6, 7, 8))
    )

    assert model.batches == [1, 3, 1, 4]
    assert labels(answers) == [[2, 4], [6], [8], [10, 12, 14, 16]]


def test_bad_rows_fail_alone() -> None:
    model = Model()

    answers = asyncio.run(
        ask_while_busy(model, Batcher(model.predict), rows(1), rows(np.nan), rows(3))
    )

    assert labels([answers[0], answers[2]]) == [[2], [6]]
    assert isinstance(answers[1], PredictionError)


def test_a_request_alone_does_not_wait_for_company() -> None:
    model = Model()

    async def one_by_one() -> list[object]:
        batcher = Batcher(model.predict)
        return [await batcher.predict(rows(value)) for value in (1, 2)]

    assert labels(asyncio.run(one_by_one())) == [[2], [4]]
    assert model.batches == [1, 1]


def test_a_client_that_left_does_not_disturb_the_others() -> None:
    model = Model()

    async def leave() -> list[float]:
        batcher = Batcher(model.predict)
        model.go_on.clear()
        first = asyncio.create_task(batcher.predict(rows(1)))
        gone = asyncio.create_task(batcher.predict(rows(2)))
        stays = asyncio.create_task(batcher.predict(rows(3)))
        await asyncio.sleep(0.05)
        gone.cancel()
        model.go_on.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await gone
        return (await stays).labels

    assert asyncio.run(leave()) == [6]
