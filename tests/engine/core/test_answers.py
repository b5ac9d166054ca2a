"""How far an answer may be from the committed one."""

from __future__ import annotations

import pytest

from gitops_ml.core import answers

COMMITTED = {"metrics": {"mae": {"value": 2.0, "low": 1.0, "high": 3.0}}}


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("value", 2.0001, True),
        ("value", 2.0005, False),
        ("low", 1.0005, True),
        ("low", 1.005, False),
        ("high", 2.998, True),
        ("high", 2.99, False),
        ("low", None, False),
    ],
)
def test_ends_of_intervals_may_move_further_than_metrics(
    name: str, value: float | None, same: bool
) -> None:
    now = {"metrics": {"mae": {**COMMITTED["metrics"]["mae"], name: value}}}

    found = list(answers._differences(COMMITTED, now))

    assert [line.partition(":")[0] for line in found] == ([] if same else [f"metrics.mae.{name}"])


def test_what_was_asked_may_not_move_at_all() -> None:
    asked = {"records": [{"x": 0.5}]}

    assert list(answers._differences(asked, {"records": [{"x": 0.5000001}]}))
    assert not list(answers._differences(asked, {"records": [{"x": 0.5}]}))


def test_how_closely_it_is_compared_may_not_move_at_all() -> None:
    assert list(answers._differences({"tolerance": 1e-5}, {"tolerance": 2e-5}))
    assert not list(answers._differences({"tolerance": 1e-5}, {"tolerance": 1e-5}))
