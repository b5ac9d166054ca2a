from __future__ import annotations

import pytest

from gitops_ml.core.retry import doubling, patiently


class Flaky:
    """A task that fails as often as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def passing(error: BaseException) -> bool:
    return isinstance(error, TimeoutError)


def test_what_passes_is_done_again_with_growing_waits() -> None:
    waits: list[float] = []
    task = Flaky(*[TimeoutError()] * 3)
    assert patiently(task, passing, 4, sleep=waits.append) == "done"
    assert (task.calls, waits) == (4, [1, 2, 4])


def test_the_last_error_is_raised_as_it_is() -> None:
    waits: list[float] = []
    task = Flaky(TimeoutError("first"), TimeoutError("second"))
    with pytest.raises(TimeoutError, match="second"):
        patiently(task, passing, 2, sleep=waits.append)
    assert waits == [1]


def test_any_other_error_is_raised_at_once() -> None:
    task = Flaky(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        patiently(task, passing, 5, sleep=pytest.fail)
    assert task.calls == 1


def test_the_wait_may_depend_on_the_error() -> None:
    waits: list[float] = []
    task = Flaky(TimeoutError(30), TimeoutError(0))
    patiently(
        task, passing, 3, lambda n, error: max(doubling(n), float(error.args[0])), waits.append
    )
    assert waits == [30, 2]
