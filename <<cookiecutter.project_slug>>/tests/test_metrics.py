"""Tests of your metrics, on rows whose cost can be told in your head."""

import numpy as np
import pytest

from << cookiecutter.project_slug >>.metrics import waiting_cost, warning_cost


def test_a_missed_delay_costs_three_warnings_for_nothing() -> None:
    truth, warned = np.array([1, 0, 0, 1]), np.array([0, 1, 0, 1])
    assert warning_cost(truth, warned, np.ones(4)) == pytest.approx((3 + 1) / 4)


def test_later_than_predicted_costs_three_times() -> None:
    truth, predicted = np.array([10.0, 0.0]), np.array([0.0, 10.0])
    assert waiting_cost(truth, predicted, np.ones(2)) == pytest.approx((30 + 10) / 2)


def test_weights_of_many_resamples_give_a_number_each() -> None:
    truth, warned = np.array([1, 0]), np.array([0, 0])
    assert warning_cost(truth, warned, np.array([[1.0, 1.0], [0.0, 2.0]])).tolist() == [1.5, 0.0]
