"""Adaptive batching: requests that wait for the model are answered together.

While the model works on one batch, the requests that arrive make up the next one. So a batch is as
large as the load makes it: alone, a request goes straight through, and nobody ever waits for
company. It pays where a call costs much and a row little, as in scikit-learn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gitops_ml.features.encode import Matrix
from gitops_ml.model.predictor import Predictions

ROWS_AT_ONCE = 1_000


@dataclass
class _Waiting:
    matrix: Matrix
    answer: asyncio.Future[Predictions]


class Batcher:
    """Asks a model in another thread, one batch at a time.

    Args:
        predict: The model; shape (n, number of features) in, n predictions out.
        rows_at_once: At how many rows a batch is closed.
    """

    def __init__(
        self, predict: Callable[[Matrix], Predictions], rows_at_once: int = ROWS_AT_ONCE
    ) -> None:
        self._predict = predict
        self._rows_at_once = rows_at_once
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def predict(self, matrix: Matrix) -> Predictions:
        """Answer for every row of a matrix.

        Raises:
            Exception: What the model raises for these rows; those of others play no part.
        """
        waiting = _Waiting(matrix, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        while self._queue:
            await self._answer(self._take())

    def _take(self) -> list[_Waiting]:
        batch = [self._queue.popleft()]
        rows = len(batch[0].matrix)
        while self._queue and rows + len(self._queue[0].matrix) <= self._rows_at_once:
            batch.append(self._queue.popleft())
            rows += len(batch[-1].matrix)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        matrix = np.concatenate([waiting.matrix for waiting in batch])
        try:
            predictions = await asyncio.to_thread(self._predict, matrix)
        except Exception as error:
            if len(batch) > 1:  # find out whose rows they were
                for waiting in batch:
                    await self._answer([waiting])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.matrix)
            if not waiting.answer.done():  # the client may be gone
                waiting.answer.set_result(predictions.part(start, end))
            start = end
