from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import forget_package
from scipy import stats

from gitops_ml.gate.comparison import compare, compare_means
from gitops_ml.model.metrics import Scored, measure
from gitops_ml.model.own_metrics import MetricError


def erring(errors: np.ndarray) -> Scored:
    """A regression whose predictions are off by these errors."""
    return Scored(np.zeros(len(errors)), errors)


def pair(rows: int, worse: float, seed: int = 0) -> tuple[Scored, Scored]:
    """Champion and challenger whose errors share most of their noise."""
    random = np.random.default_rng(seed)
    shared = random.gamma(2, 2, rows)
    own = random.normal(0, 0.2, (2, rows))
    return erring(shared + own[0]), erring(shared + worse + own[1])


def test_the_bounds_are_those_of_scipys_paired_percentile_bootstrap() -> None:
    champion, challenger = pair(200, worse=0.1)
    found = compare("mae", champion, challenger, margin=0.1, confidence=0.95, resamples=4000)
    expected = stats.bootstrap(
        (np.abs(challenger.prediction), np.abs(champion.prediction)),
        lambda ours, theirs, axis: ours.mean(axis=axis) - theirs.mean(axis=axis),
        paired=True,
        method="percentile",
        confidence_level=0.90,
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.003)
    assert found.high == pytest.approx(expected.high, abs=0.003)
    mean_errors = np.abs(champion.prediction).mean(), np.abs(challenger.prediction).mean()
    assert (found.champion, found.challenger) == pytest.approx(mean_errors)
    assert found.difference == pytest.approx(mean_errors[1] - mean_errors[0])


def test_each_bound_misses_the_truth_as_often_as_it_says() -> None:
    truth, trials = 0.1, 300
    found = [
        compare("mae", *pair(60, worse=truth, seed=seed), margin=0, confidence=0.9, resamples=200)
        for seed in range(trials)
    ]
    # Binomial with probability 0.1: the standard error of the share is 0.017.
    assert np.mean([one.low > truth for one in found]) == pytest.approx(0.1, abs=0.06)
    assert np.mean([one.high < truth for one in found]) == pytest.approx(0.1, abs=0.06)


def test_pairing_removes_the_noise_that_both_models_share() -> None:
    champion, challenger = pair(300, worse=0.0)
    paired = compare("mae", champion, challenger, margin=0, confidence=0.95)
    shuffled = erring(np.random.default_rng(3).permutation(challenger.prediction))
    unpaired = compare("mae", champion, shuffled, margin=0, confidence=0.95)
    assert (paired.high - paired.low) < 0.2 * (unpaired.high - unpaired.low)


def test_the_same_arguments_give_the_same_bounds() -> None:
    champion, challenger = pair(100, worse=0.05)
    first = compare("rmse", champion, challenger, margin=0.1, confidence=0.95)
    assert first == compare("rmse", champion, challenger, margin=0.1, confidence=0.95)
    other = compare("rmse", champion, challenger, margin=0.1, confidence=0.95, seed=2)
    assert (first.low, first.high) != (other.low, other.high)


@pytest.mark.parametrize(
    ("worse", "margin", "outcome", "passed"),
    [
        (-0.5, 0.0, "superior", True),
        (0.0, 0.3, "non-inferior", True),
        (0.2, 0.4, "non-inferior", True),
        (0.2, 0.22, "inconclusive", False),
        (0.5, 0.3, "inferior", False),
    ],
)
def test_the_outcome_follows_from_the_bounds_and_the_margin(
    worse: float, margin: float, outcome: str, passed: bool
) -> None:
    champion, challenger = pair(400, worse=worse)
    found = compare("mae", champion, challenger, margin=margin, confidence=0.95)
    assert (found.outcome, found.passed) == (outcome, passed)


@pytest.mark.parametrize(("swap", "outcome"), [(False, "superior"), (True, "inferior")])
def test_where_larger_is_better_the_direction_turns(swap: bool, outcome: str) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 500)
    weak, strong = (
        Scored(truth, truth, np.column_stack([1 - score, score]), 2)
        for score in (random.random((2, 500)) + truth * [[0.1], [0.8]]) / 2
    )
    champion, challenger = (strong, weak) if swap else (weak, strong)
    found = compare("roc_auc", champion, challenger, margin=0.01, confidence=0.95)
    assert found.outcome == outcome
    assert (found.difference < 0) is swap


def test_a_model_that_answers_alike_holds_a_margin_of_zero() -> None:
    champion, _ = pair(50, worse=0.0)
    found = compare("mae", champion, champion, margin=0, confidence=0.95)
    assert (found.difference, found.low, found.high, found.outcome) == (0, 0, 0, "non-inferior")


def test_more_confidence_asks_for_a_wider_bound() -> None:
    champion, challenger = pair(200, worse=0.0)
    width = [
        found.high - found.low
        for confidence in (0.8, 0.95, 0.99)
        for found in [compare("mae", champion, challenger, margin=0, confidence=confidence)]
    ]
    assert width == sorted(width)
    assert width[0] < width[2]


def test_rows_of_one_group_are_one_piece_of_evidence() -> None:
    champion, challenger = pair(100, worse=0.0)
    fourfold = [erring(np.repeat(one.prediction, 4)) for one in (champion, challenger)]
    groups = np.repeat([f"hour {place}" for place in range(100)], 4)

    def width(*models: Scored, groups: np.ndarray | None = None) -> float:
        found = compare("mae", *models, margin=0, confidence=0.95, groups=groups)
        return found.high - found.low

    assert width(*fourfold, groups=groups) == pytest.approx(width(champion, challenger), rel=0.1)
    assert width(*fourfold) == pytest.approx(width(champion, challenger) / 2, rel=0.15)


def test_groups_of_unequal_size_are_drawn_whole() -> None:
    # One group holds all the difference: every draw has it wholly, or not at all.
    champion, challenger = erring(np.zeros(10)), erring(np.repeat([0.0, 1.0], [7, 3]))
    groups = np.repeat(["a", "b", "c"], [3, 4, 3])
    found = compare("mae", champion, challenger, margin=0, confidence=0.99, groups=groups)
    assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(
    ("positives", "says"), [(0, "does not exist on"), (1, "of 1000 resamples")]
)
def test_too_few_rows_of_a_class_cannot_be_judged(positives: int, says: str) -> None:
    truth = np.zeros(40, dtype=np.int64)
    truth[:positives] = 1
    score = np.linspace(0.1, 0.9, 40)
    model = Scored(truth, truth, np.column_stack([1 - score, score]), 2)
    with pytest.raises(MetricError, match=says):
        compare("roc_auc", model, model, margin=0, confidence=0.95)


def test_a_model_without_probabilities_cannot_be_compared_by_them() -> None:
    truth = np.arange(10) % 2
    model = Scored(truth, truth, None, 2)
    with pytest.raises(MetricError, match="needs probabilities"):
        compare("log_loss", model, model, margin=0, confidence=0.95)


def test_a_margin_that_the_better_bound_just_reaches_is_no_sure_loss() -> None:
    # Each draw holds the group with the larger error wholly, or not at all: 1 or 2 on the average.
    champion, challenger = erring(np.zeros(10)), erring(np.repeat([1.0, 2.0], [7, 3]))
    groups = np.repeat(["a", "b", "c"], [3, 4, 3])
    outcomes = [
        compare("mae", champion, challenger, margin=margin, confidence=0.99, groups=groups).outcome
        for margin in (0.9, 1.0, 1.9, 2.0)
    ]
    assert outcomes == ["inferior", "inconclusive", "inconclusive", "non-inferior"]


@pytest.mark.parametrize(("seed", "undefined"), [(1, 1), (7, 2)])
def test_one_resample_in_twenty_may_lack_a_class_and_no_more(seed: int, undefined: int) -> None:
    truth = np.zeros(40, dtype=np.int64)
    truth[:3] = 1
    score = np.linspace(0.1, 0.9, 40)
    model = Scored(truth, truth, np.column_stack([1 - score, score]), 2)

    def run() -> float:
        return compare(
            "roc_auc", model, model, margin=0, confidence=0.9, resamples=20, seed=seed
        ).difference

    if undefined == 1:
        assert run() == 0
    else:
        with pytest.raises(MetricError, match="does not exist in 2 of 20 resamples"):
            run()


OWN = """
import numpy as np
from gitops_ml.model import metric


@metric(better="smaller")
def bias(truth, prediction, weights):
    return weights @ (prediction - truth) / weights.sum(axis=-1)


@metric(better="smaller")
def deaf(truth, prediction, weights):
    return np.mean(prediction - truth)
"""


@pytest.fixture
def own_metrics(project: Path) -> None:
    """A project with metrics of its own."""
    package = project / "src" / "flight_delays"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "metrics.py").write_text(OWN, encoding="utf-8")
    forget_package()


@pytest.mark.usefixtures("own_metrics")
def test_a_metric_of_one_s_own_that_hears_no_weights_tells_nothing_from_noise() -> None:
    champion, challenger = pair(50, worse=0.1)
    with pytest.raises(MetricError, match="deaf differs by the same number in each"):
        compare("deaf", champion, challenger, margin=1, confidence=0.95)
    # Where both answer alike, there is no difference that could be noise.
    assert compare("deaf", champion, champion, margin=0, confidence=0.95).passed
    assert compare("bias", champion, challenger, margin=1, confidence=0.95).passed


def test_a_built_in_metric_may_differ_by_the_same_number_everywhere() -> None:
    found = compare("mae", erring(np.zeros(9)), erring(np.ones(9)), margin=1, confidence=0.95)
    assert (found.low, found.high, found.outcome) == (1, 1, "non-inferior")


def test_several_models_of_a_side_are_compared_by_their_means() -> None:
    champion, challenger = pair(400, worse=0.2, seed=1)
    lucky, unlucky = (pair(400, worse=by, seed=2)[1] for by in (-0.5, 0.5))
    found = compare_means(
        "mae", [champion, lucky], [challenger, unlucky], margin=0.1, confidence=0.95
    )
    alone = {
        name: float(measure("mae", one)[0])
        for name, one in {
            "champion": champion, "lucky": lucky, "challenger": challenger, "unlucky": unlucky
        }.items()
    }  # fmt: skip
    assert found.champion == pytest.approx((alone["champion"] + alone["lucky"]) / 2)
    assert found.challenger == pytest.approx((alone["challenger"] + alone["unlucky"]) / 2)
    assert found.low < found.difference < found.high
    # So it is on each draw of the rows: their middle is that of the two differences.
    middle = [
        compare_means("mae", *models, margin=0.1, confidence=0.5).low
        for models in (
            ([champion, lucky], [challenger, unlucky]),
            ([champion], [challenger]),
            ([lucky], [unlucky]),
        )
    ]
    assert middle[0] == pytest.approx((middle[1] + middle[2]) / 2, abs=0.01)


def test_the_mean_of_models_that_are_alike_is_each_of_them() -> None:
    champion, challenger = pair(300, worse=0.1, seed=1)
    one = compare("rmse", champion, challenger, margin=0.1, confidence=0.95)
    mean = compare_means("rmse", [champion] * 3, [challenger] * 2, margin=0.1, confidence=0.95)
    assert (mean.low, mean.high) == pytest.approx((one.low, one.high))
    assert mean.outcome == one.outcome


def test_a_metric_that_one_of_several_models_lacks_is_not_compared() -> None:
    truth = np.arange(100) % 2
    said = np.column_stack([1 - truth, truth]) * 0.8 + 0.1
    stated, silent = Scored(truth, truth, said, 2), Scored(truth, truth, None, 2)
    with pytest.raises(MetricError, match="needs probabilities"):
        compare_means("log_loss", [stated, silent], [stated] * 2, margin=0, confidence=0.95)
