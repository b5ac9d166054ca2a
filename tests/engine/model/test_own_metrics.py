"""A project's own metrics: measured as built-in ones are, and every mistake said in a sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from projects import forget_package

from gitops_ml.core.settings import EvaluateParams
from gitops_ml.core.user_code import UserCodeError
from gitops_ml.model.evaluate import EvaluateError, measure_overall
from gitops_ml.model.metrics import Scored, estimate, kind_of, measure
from gitops_ml.model.own_metrics import MetricError

Write = Callable[[str], None]

HEAD = "import numpy as np\nfrom gitops_ml.model import metric\n\n"
COST = HEAD + (
    '@metric(better="smaller")\n'
    "def cost(truth, prediction, weights):\n"
    "    wrong = 3.0 * (truth > prediction) + (prediction > truth)\n"
    "    return weights @ wrong / weights.sum(axis=-1)\n"
)
ROWS = 300
_random = np.random.default_rng(1)
TRUTH = _random.integers(0, 2, ROWS)
PROBABILITY = np.column_stack([1 - (p := _random.random(ROWS)), p])
SCORED = Scored(TRUTH, PROBABILITY.argmax(axis=1), PROBABILITY, 2)


@pytest.fixture
def metrics_py(project: Path) -> Write:
    """Write `metrics.py` of the project in the current folder."""
    package = project / "src" / "flight_delays"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()

    def write(text: str) -> None:
        forget_package()
        (package / "metrics.py").write_text(text, encoding="utf-8")

    return write


def test_it_is_measured_with_an_interval_like_any_other(metrics_py: Write) -> None:
    metrics_py(COST)
    expected = np.mean(3.0 * (SCORED.prediction < TRUTH) + (SCORED.prediction > TRUTH))

    (found,) = estimate(["cost"], SCORED, 0.95, 200, 7).values()

    assert found.value == pytest.approx(expected)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert kind_of("cost").direction == -1


def test_a_function_of_one_vector_of_weights_gives_the_same_intervals(
    metrics_py: Write, caplog: pytest.LogCaptureFixture
) -> None:
    metrics_py(COST)
    at_once = estimate(["cost"], SCORED, 0.95, 200, 7)
    metrics_py(
        COST.replace("weights @ wrong / weights.sum(axis=-1)", "np.average(wrong, weights=weights)")
    )

    with caplog.at_level(logging.WARNING):
        one_by_one = estimate(["cost"], SCORED, 0.95, 200, 7)
        estimate(["cost"], SCORED, 0.95, 200, 7)

    assert one_by_one["cost"].value == pytest.approx(at_once["cost"].value)
    assert one_by_one["cost"].low == pytest.approx(at_once["cost"].low)
    (said,) = [one.message for one in caplog.records]
    assert said.startswith("src/flight_delays/metrics.py: `cost` takes one vector of weights")


def test_a_probability_is_that_of_the_second_of_two_classes(metrics_py: Write) -> None:
    metrics_py(
        HEAD
        + '@metric(better="smaller", of="probability")\ndef gap(truth, probability, weights):\n'
        "    return weights @ (truth - probability) ** 2 / weights.sum(axis=-1)\n"
    )
    assert measure("gap", SCORED) == pytest.approx(measure("brier", SCORED))
    with pytest.raises(MetricError, match="gap needs probabilities, and the model gives none"):
        measure("gap", Scored(TRUTH, TRUTH, None, 2))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return prediction",
            r"gave an array of shape \(300,\) for 300 rows; it must give one num",
        ),
        ("return None", r"`cost` failed on 300 rows: TypeError: .*"),
        ("return weights.nosuch", r"AttributeError: .*\(src/flight_delays/metrics\.py:6\)"),
        ("return '0.5'", r"`cost` failed on 300 rows: TypeError: it returned '0.5'"),
        ("import sys; sys.exit(0)", r"failed on 300 rows: SystemExit: 0 .src/flight_delays/met"),
        ("raise GeneratorExit", r"failed on 300 rows: GeneratorExit"),
        ("truth[0] = 1; return 0.0", r"ValueError: assignment destination is read-only"),
    ],
)
def test_a_mistake_inside_names_file_and_function(
    metrics_py: Write, body: str, message: str
) -> None:
    metrics_py(
        HEAD + f'@metric(better="smaller")\ndef cost(truth, prediction, weights):\n    {body}\n'
    )
    with pytest.raises(MetricError, match=message) as caught:
        measure("cost", SCORED)
    assert str(caught.value).startswith("src/flight_delays/metrics.py: `cost` ")


def test_no_number_on_the_test_set_is_an_error(metrics_py: Write) -> None:
    metrics_py(COST.replace("return weights", "return np.nan * weights"))
    settings = EvaluateParams(metrics=("cost",), resamples=100)
    with pytest.raises(
        EvaluateError, match=r"src/flight_delays/metrics\.py: `cost` gave no finite"
    ):
        measure_overall(SCORED, settings, 1, None)


def test_a_metric_that_ignores_its_weights_is_an_error(metrics_py: Write) -> None:
    metrics_py(COST.replace("weights @ wrong / weights.sum(axis=-1)", "wrong.mean()"))
    settings = EvaluateParams(metrics=("cost",), resamples=100)
    with pytest.raises(EvaluateError, match=r"cost is the same in each of 100 resamples"):
        measure_overall(SCORED, settings, 1, None)


def test_a_metric_of_chance_is_an_error(metrics_py: Write) -> None:
    body = "weights @ wrong / weights.sum(axis=-1)"
    metrics_py(COST.replace(body, body + " + np.random.default_rng().random()"))

    with pytest.raises(MetricError, match=r"`cost` gave .* and then .* for the same 300 rows; not"):
        estimate(["cost"], SCORED, 0.95, 100, 1)


def test_an_unknown_metric_lists_those_that_exist(metrics_py: Write) -> None:
    metrics_py(COST)
    with pytest.raises(MetricError, match=r"there is no metric costs; .*roc_auc, .*, cost$"):
        measure("costs", SCORED)


def test_a_module_that_cannot_be_imported_names_the_line(metrics_py: Write) -> None:
    metrics_py(COST + "\nimport no_such_module\n")
    with pytest.raises(UserCodeError, match=r"src/flight_delays/metrics\.py:9: cannot be imported"):
        measure("cost", SCORED)


def test_a_function_that_is_replaced_later_does_not_pass_for_the_metric(metrics_py: Write) -> None:
    metrics_py(COST + "\ncost = len\n")
    with pytest.raises(MetricError, match="`cost` is not what its @metric line says"):
        measure("cost", SCORED)
