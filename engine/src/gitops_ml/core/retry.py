"""What may fail for the moment is done again, a few times, with growing waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

T = TypeVar("T")
# The seconds to wait after an attempt (1 for the first) that failed with an error.
Wait = Callable[[int, BaseException], float]


def doubling(attempt: int, error: BaseException | None = None) -> float:
    """1, 2, 4, ... seconds."""
    return float(2 ** (attempt - 1))


def patiently(
    task: Callable[[], T],
    passes: Callable[[BaseException], bool],
    attempts: int,
    wait: Wait = doubling,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Do something that may fail for the moment; the last error is raised as it is.

    Args:
        task: What to do.
        passes: Whether an error may be gone the next time; any other is raised at once.
        attempts: How often it is done at most.
        wait: How long to wait after each.
        sleep: Waits for a number of seconds.
    """

    def seconds(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        assert error is not None
        return wait(state.attempt_number, error)

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        retry=retry_if_exception(passes),
        wait=seconds,
        sleep=sleep,
        reraise=True,
    )
    return retrying(task)
