from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from projects import forget_package

from gitops_ml.core.settings import MetricTerms, SliceTerms
from gitops_ml.gate.judgement import Judge, Opponent, judge_limit
from gitops_ml.github.labels import NEW_BASELINE_LABEL
from gitops_ml.model.metrics import Scored

ROWS = 600
PLACE = np.arange(ROWS)
CITY = np.repeat(["north", "south", "tiny"], [300, 280, 20])
CITIES = pl.DataFrame({"city": CITY})


def erring(errors: Any) -> Scored:
    return Scored(np.zeros(ROWS), np.broadcast_to(errors, ROWS).astype(np.float64))


def noise(seed: int) -> Any:
    return 1 + np.random.default_rng(seed).normal(0, 0.1, ROWS)


def judge(challenger: Scored, champion: Scored | None = None, **options: Any) -> Judge:
    opponent = None if champion is None else Opponent(champion, PLACE)
    return Judge(challenger, opponent, confidence=0.95, **options)


def failures(findings: Sequence[Any]) -> list[str]:
    return [failure for found in findings for failure in found.failures]


def slice_terms(**terms: Any) -> list[SliceTerms]:
    return [SliceTerms(column="city", metric="mae", **{"min_rows": 100, **terms})]


def test_a_ceiling_is_broken_above_it_only() -> None:
    terms = {"mae": MetricTerms(ceiling=1.0)}
    assert failures(judge(erring(1.0)).metrics(terms)) == []
    (failure,) = failures(judge(erring(1.01)).metrics(terms))
    assert failure == "mae: 1.01 is above the ceiling 1 (model.metrics.mae)"


def test_a_floor_is_broken_below_it_only() -> None:
    truth = PLACE % 2
    right = Scored(truth, truth, None, 2)
    wrong = Scored(truth, np.where(PLACE < 60, 1 - truth, truth), None, 2)
    terms = {"accuracy": MetricTerms(floor=0.95)}
    assert failures(judge(right).metrics(terms)) == []
    (failure,) = failures(judge(wrong).metrics(terms))
    assert failure == "accuracy: 0.9 is below the floor 0.95 (model.metrics.accuracy)"


def test_a_worse_model_is_named_with_metric_difference_and_bound() -> None:
    (found,) = judge(erring(noise(1) + 0.5), erring(noise(2))).metrics(
        {"mae": MetricTerms(margin=0.1)}
    )
    assert found.outcome == "inferior"
    assert found.champion == pytest.approx(1, abs=0.02)
    (failure,) = found.failures
    assert failure.startswith("mae: worse than the champion: 1.496 against 0.9941")
    assert "allowed +0.1 (model.metrics.mae)" in failure


@pytest.mark.parametrize(("better", "sign"), [("accuracy", "-"), ("mae", "+")])
def test_a_loss_is_told_by_the_bound_that_is_worse(better: str, sign: str) -> None:
    """The bound on the side where the metric is worse, and the margin on that side."""
    if better == "mae":
        ours, theirs = erring(noise(1) + 0.5), erring(noise(2))
    else:
        truth = PLACE % 2
        often_wrong = np.where(PLACE % 7 < 3, 1 - truth, truth)
        ours, theirs = (Scored(truth, answers, None, 2) for answers in (often_wrong, truth))
    (found,) = judge(ours, theirs).metrics({better: MetricTerms(margin=0.1)})
    (failure,) = found.failures
    worst = found.low if sign == "-" else found.high
    assert f"95% bound {worst:+.4g}, allowed {sign}0.1 (" in failure
    assert found.lifted_by == NEW_BASELINE_LABEL


def test_a_bound_alone_is_lifted_by_nobody() -> None:
    (found,) = judge(erring(2.0)).metrics({"mae": MetricTerms(ceiling=1.0)})
    assert found.failures
    assert found.lifted_by is None


@pytest.mark.parametrize("common", [0, 1])
def test_a_model_that_shares_no_test_row_is_not_taken_for_as_good(common: int) -> None:
    rows = PLACE[:common]
    court = Judge(erring(1.0), Opponent(erring(1.0).take(rows), rows), confidence=0.95)
    (found,) = court.metrics({"mae": MetricTerms(margin=0.1)})
    if common:
        assert (found.outcome, found.failures) == ("non-inferior", ())
    else:
        (failure,) = found.failures
        assert "not compared: " in failure
        assert "0 rows in common with the champion" in failure


def test_noise_within_the_margin_passes() -> None:
    (found,) = judge(erring(noise(1)), erring(noise(2))).metrics({"mae": MetricTerms(margin=0.05)})
    assert (found.outcome, found.failures) == ("non-inferior", ())


def test_where_doubt_is_no_failure_only_a_sure_loss_is() -> None:
    terms = {"mae": MetricTerms(margin=0.05)}
    (unsure,) = judge(erring(noise(2) + 0.05), erring(noise(1)), doubtful=False).metrics(terms)
    assert (unsure.outcome, unsure.failures) == ("inconclusive", ())
    (lost,) = judge(erring(noise(2) + 0.2), erring(noise(1)), doubtful=False).metrics(terms)
    assert lost.outcome == "inferior"
    assert lost.failures


def test_a_difference_that_the_rows_cannot_tell_from_the_margin_does_not_pass() -> None:
    champion = erring(noise(1))
    challenger = erring(noise(2) + 0.05)
    (found,) = judge(challenger, champion).metrics({"mae": MetricTerms(margin=0.05)})
    assert found.outcome == "inconclusive"
    assert "not shown to be as good as the champion" in found.failures[0]


def test_without_a_margin_the_champion_is_shown_but_holds_nothing_back() -> None:
    (found,) = judge(erring(2.0), erring(1.0)).metrics({"mae": MetricTerms(ceiling=3.0)})
    assert (found.champion, found.outcome, found.failures) == (1.0, None, ())


def test_a_regression_in_one_slice_is_found_though_the_whole_is_better() -> None:
    champion = erring(noise(1))
    challenger = erring(noise(2) - np.where(CITY == "south", -0.3, 0.5))
    test = pl.DataFrame({"city": CITY})
    court = judge(challenger, champion)
    assert failures(court.metrics({"mae": MetricTerms(margin=0.0)})) == []
    north, south = court.slices(slice_terms(margin=0.1), test)
    assert (north.value, north.rows, north.outcome) == ("north", 300, "superior")
    assert (south.value, south.rows, south.outcome) == ("south", 280, "inferior")
    assert south.failures[0].startswith("mae where city is south: worse than the champion")


def test_a_slice_has_bounds_of_its_own() -> None:
    challenger = erring(np.where(CITY == "south", 2.0, 1.0))
    (failure,) = failures(
        judge(challenger).slices(slice_terms(ceiling=1.5), pl.DataFrame({"city": CITY}))
    )
    assert failure.startswith("mae where city is south: 2 is above the ceiling 1.5")


def test_slices_with_too_few_rows_are_left_out_and_missing_values_are_a_slice() -> None:
    city = pl.Series(np.where(CITY == "south", None, CITY), dtype=pl.String)
    found = judge(erring(1.0)).slices(slice_terms(ceiling=0.5), pl.DataFrame({"city": city}))
    assert [(one.value, one.rows) for one in found] == [("north", 300), (None, 280)]
    assert "mae where city is missing" in found[1].failures[0]


def test_boolean_slices_are_judged_by_value() -> None:
    test = pl.DataFrame({"city": CITY == "north"})
    # As many rows as it takes are enough.
    found = judge(erring(1.0)).slices(slice_terms(ceiling=2, min_rows=300), test)
    assert [(one.value, one.rows) for one in found] == [("false", 300), ("true", 300)]


def test_a_slice_term_that_checks_nothing_fails() -> None:
    (found,) = judge(erring(1.0)).slices(
        slice_terms(ceiling=9, min_rows=301), pl.DataFrame({"city": CITY})
    )
    assert found.rows == 0
    (failure,) = found.failures
    assert "no value of `city` has 301 test rows (the largest has 300)" in failure


def test_a_metric_that_does_not_exist_fails_as_a_whole_but_not_in_a_slice() -> None:
    truth = np.zeros(ROWS, dtype=np.int64)
    score = np.linspace(0, 1, ROWS)
    one_class = Scored(truth, truth, np.column_stack([1 - score, score]), 2)
    (whole,) = judge(one_class).metrics({"roc_auc": MetricTerms(floor=0.5)})
    assert whole.failures == ("roc_auc: does not exist on these 600 rows (model.metrics.roc_auc)",)
    terms = [SliceTerms(column="city", metric="roc_auc", min_rows=100, floor=0.5)]
    north, _ = judge(one_class).slices(terms, pl.DataFrame({"city": CITY}))
    assert (north.failures, north.note) == ((), "does not exist on these 300 rows")


def test_a_comparison_that_is_impossible_blocks() -> None:
    truth = PLACE % 2
    score = np.random.default_rng(1).random(ROWS)
    ours = Scored(truth, truth, np.column_stack([1 - score, score]), 2)
    theirs = Scored(truth, truth, None, 2)
    (found,) = judge(ours, theirs).metrics({"roc_auc": MetricTerms(margin=0.1)})
    assert "not compared: the champion: roc_auc needs probabilities" in found.failures[0]


def test_with_a_new_baseline_the_comparison_is_shown_but_does_not_bind() -> None:
    court = judge(erring(noise(1) + 0.5), erring(noise(2)), binding=False)
    (found,) = court.metrics({"mae": MetricTerms(margin=0.1, ceiling=9)})
    assert (found.outcome, found.failures) == ("inferior", ())
    (broken,) = court.metrics({"mae": MetricTerms(margin=0.1, ceiling=1)})
    assert "above the ceiling" in broken.failures[0]


def test_only_rows_that_both_models_answered_are_compared() -> None:
    # The challenger is far worse, but only on rows that the champion never answered.
    challenger = erring(noise(1) + np.where(PLACE >= 400, 5.0, 0.0))
    champion = erring(noise(2)).take(PLACE[:400])
    court = Judge(challenger, Opponent(champion, PLACE[:400]), confidence=0.95)
    (found,) = court.metrics({"mae": MetricTerms(margin=0.05)})
    assert found.outcome == "non-inferior"
    assert found.challenger == pytest.approx(1 + 5 / 3, abs=0.05)
    north, south = court.slices(slice_terms(margin=0.05), pl.DataFrame({"city": CITY}))
    assert north.outcome == "non-inferior"
    assert south.outcome == "non-inferior"
    (tiny,) = court.slices(
        slice_terms(margin=0.05, min_rows=15), pl.DataFrame({"city": np.array(["x"] * ROWS)})
    )[:1]
    assert tiny.outcome == "non-inferior"


def test_rows_that_belong_together_widen_the_bounds() -> None:
    champion, challenger = (erring(np.repeat(noise(seed)[:60], 10)) for seed in (1, 2))
    terms = {"mae": MetricTerms(margin=0.05)}
    (alone,) = judge(challenger, champion).metrics(terms)
    (grouped,) = judge(challenger, champion, groups=np.repeat(np.arange(60), 10)).metrics(terms)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.9, "less than 1"), (1.0, None), (2.0, None), (2.1, "more than 2")],
)
def test_a_limit_holds_at_its_bounds_and_between_them(value: float, says: str | None) -> None:
    limit = judge_limit("model.size_mb", "size", value, "MB", minimum=1, maximum=2)
    if says is None:
        assert limit.failures == ()
    else:
        assert limit.failures == (f"size: {value} MB is {says} (model.size_mb)",)


OWN = """
import numpy as np
from gitops_ml.model import metric


@metric(better="smaller")
def bias(truth, prediction, weights):
    return weights @ (prediction - truth) / weights.sum(axis=-1)


@metric(better="smaller")
def deaf(truth, prediction, weights):
    return np.mean(prediction - truth)


@metric(better="smaller")
def picky(truth, prediction, weights):
    if len(truth) < 300:
        raise ValueError("too few")
    return np.nan if len(truth) == 300 else bias(truth, prediction, weights)
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
def test_a_metric_of_one_s_own_is_judged_like_any_other() -> None:
    terms = {"bias": MetricTerms(ceiling=1.2, margin=0.1)}
    (found,) = judge(erring(noise(1) + 0.5), erring(noise(2))).metrics(terms)
    assert (found.better, found.direction, found.outcome) == ("smaller", -1, "inferior")
    above, worse = found.failures
    assert above == "bias: 1.496 is above the ceiling 1.2 (model.metrics.bias)"
    assert worse.startswith("bias: worse than the champion: 1.496 against 0.9941")


@pytest.mark.usefixtures("own_metrics")
def test_a_metric_of_one_s_own_that_fails_or_gives_no_number_never_passes() -> None:
    terms = [SliceTerms(column="city", metric="picky", min_rows=100, ceiling=5.0)]
    found = judge(erring(1.0)).slices(terms, pl.DataFrame({"city": CITY}))
    north, south = (one.failures for one in found)
    assert "`picky` gave no finite number for 300 rows" in north[0]
    assert "src/flight_delays/metrics.py: `picky` failed on 280 rows: ValueError: too" in south[0]


@pytest.mark.usefixtures("own_metrics")
def test_a_metric_that_ignores_its_weights_compares_nothing() -> None:
    terms = {"deaf": MetricTerms(margin=0.1)}
    (found,) = judge(erring(noise(1)), erring(noise(2))).metrics(terms)
    assert "differs by the same number in each of 1000 resamples" in found.failures[0]


def several(*errors: float) -> list[Scored]:
    """Models of one recipe, by their mean error."""
    return [erring(noise(seed) - 1 + by) for seed, by in enumerate(errors)]


def court(challenger: float, retrained: Sequence[float], others: Sequence[float]) -> Judge:
    """A challenger and its retrained models against a champion that errs by 1, and others of it."""
    opponent = Opponent(erring(noise(9)), PLACE, several(*others))
    return Judge(erring(noise(8) - 1 + challenger), opponent, 0.95, retrained=several(*retrained))


def test_the_luck_of_a_seed_neither_blocks_nor_helps_where_means_are_judged() -> None:
    terms = {"mae": MetricTerms(margin=0.1)}
    unlucky, lucky = 1.3, 0.7
    (found,) = court(unlucky, (1, 1.02, 0.98), (1.01, 1, 0.99)).metrics(terms)
    assert (found.outcome, found.failures) == ("non-inferior", ())
    (found,) = court(lucky, (1.3, 1.28, 1.32), (1.01, 1, 0.99)).metrics(terms)
    assert found.outcome == "inferior"
    assert " in the mean of 3 seeds, difference +0.3, " in found.failures[0]
    # The champion's luck counts as little.
    (found,) = court(1.3, (1.3, 1.28, 1.32), (1.31, 1.29, 1.3)).metrics(terms)
    assert found.outcome == "non-inferior"
    (plain,) = replace(court(unlucky, (1, 1), (1, 1)), retrained=()).metrics(terms)
    assert plain.outcome == "inferior"


def test_a_bound_is_held_by_the_model_that_is_recorded() -> None:
    terms = {"mae": MetricTerms(ceiling=1.2, margin=0.1)}
    (found,) = court(1.3, (1, 1), (1, 1)).metrics(terms)
    assert found.challenger == pytest.approx(1.3, abs=0.02)
    assert [why.split(" (")[0] for why in found.failures] == ["mae: 1.3 is above the ceiling 1.2"]


def test_means_are_judged_inside_slices_and_on_common_rows_too() -> None:
    south = (CITY == "south") * 0.5
    ours = [erring(noise(1) + south), erring(noise(2) + south)]
    there = np.arange(300, ROWS)
    theirs = [erring(noise(seed)).take(PLACE >= 300) for seed in (3, 4)]
    opponent = Opponent(erring(noise(5)).take(PLACE >= 300), there, theirs)
    judges = Judge(erring(noise(6)), opponent, 0.95, retrained=ours)
    found = {one.value: one for one in judges.slices(slice_terms(margin=0.1), CITIES)}
    assert found["south"].outcome == "inferior"
    assert found["north"].outcome is None
