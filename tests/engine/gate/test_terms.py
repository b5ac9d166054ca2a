from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.metric_catalogue import BUILT_IN, declared_metrics, known_metrics
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Contract, Params
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.terms import (
    applicable_terms,
    check_contract,
    guard_clock,
    guard_outcomes,
    guard_own_metrics,
    guard_split,
)
from gitops_ml.gate.verdict import Consent

COLUMNS = ("origin", "late")
CONSENT = Consent(allow_loosening=True)


class Files(BaseRevision):
    """A base whose commits hold these files."""

    def read(self, path: Path, commit: str | None = None) -> str | None:
        return FILES.get((commit or self.commit, path.as_posix()))


FILES: dict[tuple[str, str], str] = {}


@pytest.fixture
def base() -> BaseRevision:
    FILES.clear()
    return Files(root=Path(), prefix="", revision="main", commit="tip", fork="tip")


def contract(floor: float = 0.7, **model: Any) -> Contract:
    document = {
        "model": {
            "metrics": {"roc_auc": {"floor": floor}},
            "size_mb": 10,
            "latency_p99_ms": 20,
            **model,
        },
        "data": {},
    }
    return Contract.model_validate(document)


def put(commit: str, held: Contract) -> None:
    FILES[commit, "contract.yaml"] = yaml.safe_dump(held.model_dump(mode="json"))


def changed(*changes: Mapping[str, Any]) -> Params:
    """Parameters, with some of them changed, section by section."""
    document: dict[str, Any] = {
        "task": "classification",
        "target": "late",
        "data": {"source": "data", "key": ["id"], "time": "when"},
        "split": SPLIT,
        "train": {"estimator": "sklearn.dummy.DummyClassifier"},
        "evaluate": {"metrics": ["roc_auc"]},
    }
    for change in changes:
        for name, value in change.items():
            whole = not isinstance(value, Mapping)
            document[name] = value if whole else {**document[name], **value}
    return Params.model_validate(document)


def put_params(*changes: Mapping[str, Any]) -> None:
    held = changed(*changes).model_dump(mode="json")
    FILES["tip", "params.yaml"] = yaml.safe_dump(held)


def applicable(
    log: GateLog, base: BaseRevision | None, ours: Contract, consent: Consent | None = None
) -> Any:
    return applicable_terms(log, base, ours, "classification", COLUMNS, consent or Consent())


def test_the_base_s_stricter_term_applies_and_loosening_blocks(base: BaseRevision) -> None:
    put("tip", contract(floor=0.8))
    log = GateLog()
    found = applicable(log, base, contract(floor=0.7, size_mb=9))
    assert found.terms.model.metrics["roc_auc"].floor == 0.8
    assert found.terms.model.size_mb == 9
    assert {change.term: change.effect for change in found.changes} == {
        "model.metrics.roc_auc.floor": "loosened",
        "model.size_mb": "tightened",
    }
    (reason,) = log.reasons
    assert "the contract is loosened: model.metrics.roc_auc.floor 0.8 → 0.7" in reason
    assert "--allow-loosening" in reason


def test_with_consent_the_change_s_contract_applies_and_the_report_says_so(
    base: BaseRevision,
) -> None:
    put("tip", contract(floor=0.8))
    log = GateLog()
    found = applicable(log, base, contract(floor=0.7), CONSENT)
    assert found.terms == contract(floor=0.7)
    assert log.reasons == []
    assert "consented to the loosened contract: model.metrics.roc_auc.floor" in log.notes[0]


def test_a_tightened_contract_needs_no_consent_and_applies(base: BaseRevision) -> None:
    put("tip", contract(floor=0.7))
    log = GateLog()
    assert applicable(log, base, contract(floor=0.8)).terms == contract(floor=0.8)
    assert (log.reasons, log.notes) == ([], [])


def test_without_a_model_in_the_base_the_terms_are_still_free() -> None:
    log = GateLog()
    found = applicable(log, None, contract(floor=0.1))
    assert (found.terms, found.changes, log.reasons) == (contract(floor=0.1), (), [])


def test_a_branch_that_is_behind_a_tightened_base_loosens_nothing(base: BaseRevision) -> None:
    behind = Files(root=Path(), prefix="", revision="main", commit="tip", fork="fork")
    put("fork", contract(floor=0.7))
    put("tip", contract(floor=0.8))
    log = GateLog()
    found = applicable(log, behind, contract(floor=0.7))
    assert found.terms.model.metrics["roc_auc"].floor == 0.8
    assert log.reasons == []
    assert "tightened its contract since this branch left it" in log.notes[0]


def test_where_nothing_is_loosened_nobody_reads_where_the_branch_began(
    base: BaseRevision,
) -> None:
    behind = Files(root=Path(), prefix="", revision="main", commit="tip", fork="fork")
    FILES["fork", "contract.yaml"] = "["
    put("tip", contract(floor=0.7))
    log = GateLog()
    applicable(log, behind, contract(floor=0.8))
    assert (log.reasons, log.notes) == ([], [])


def test_a_branch_that_is_behind_cannot_hide_its_own_loosening(base: BaseRevision) -> None:
    behind = Files(root=Path(), prefix="", revision="main", commit="tip", fork="fork")
    put("fork", contract(floor=0.75))
    put("tip", contract(floor=0.8))
    log = GateLog()
    applicable(log, behind, contract(floor=0.7))
    assert "the contract is loosened" in log.reasons[0]


def test_a_base_contract_that_cannot_be_read_needs_consent(base: BaseRevision) -> None:
    FILES["tip", "contract.yaml"] = "model: 3"
    blocked, agreed = GateLog(), GateLog()
    applicable(blocked, base, contract())
    applicable(agreed, base, contract(), CONSENT)
    assert "cannot be read to compare" in blocked.reasons[0]
    assert agreed.reasons == []
    assert "With a maintainer's consent" in agreed.notes[0]


def test_a_base_without_a_contract_is_noted(base: BaseRevision) -> None:
    log = GateLog()
    assert applicable(log, base, contract()).terms == contract()
    assert "The base has no contract.yaml" in log.notes[0]


def test_base_terms_that_nothing_can_measure_here_block_as_removed(base: BaseRevision) -> None:
    gone = {"column": "airport", "metric": "roc_auc", "min_rows": 9, "floor": 0.5}
    put("tip", contract(metrics={"mae": {"ceiling": 3}}, slices=[gone]))
    log = GateLog()
    found = applicable(log, base, contract())
    assert set(found.terms.model.metrics) == {"roc_auc"}
    assert found.terms.model.slices == ()
    assert "model.metrics.mae.ceiling 3 → removed" in log.reasons[0]
    assert "model.slices.airport.roc_auc.floor" in log.reasons[0]


def test_terms_that_cannot_be_measured_are_mistakes() -> None:
    wrong = contract(
        metrics={"mae": {"ceiling": 3}},
        slices=[{"column": "airport", "metric": "roc_auc", "min_rows": 9, "floor": 0.5}],
    )
    with pytest.raises(SettingsError) as caught:
        check_contract(wrong, "classification", COLUMNS)
    first, second = str(caught.value).splitlines()
    assert "contract.yaml: model.metrics.mae: mae cannot be measured for classification" in first
    assert "`airport` is not a column of the test rows" in second
    check_contract(contract(), "classification", COLUMNS)


SPLIT = {"method": "hash", "columns": ["when"], "test_fraction": 0.2, "salt": "1"}
BY_TIME = {"method": "time", "test_from": "2024-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("before", "change", "says"),
    [
        ({}, {"split": {"test_fraction": 0.1}}, "split.test_fraction 0.2 → 0.1"),
        ({}, {"split": {"salt": "2"}}, "split.salt 1 → 2"),
        ({}, {"split": {"columns": ["origin"]}}, "split.columns [when] → [origin]"),
        ({}, {"split": BY_TIME}, "split.method hash → time"),
        ({"split": BY_TIME}, {"split": {"test_from": "2024-02-01T00:00:00Z"}}, "split.test_from"),
        ({"split": BY_TIME}, {"data": {"time": "landed"}}, "data.time when → landed"),
        ({}, {"data": {"source": "other"}}, "data.source data → other"),
        ({}, {"data": {"key": []}}, "data.key [id] → []"),
        ({"split": {"columns": []}}, {"data": {"key": ["when"]}}, "data.key [id] → [when]"),
        ({}, {"target": "lost"}, "target late → lost"),
        (
            {},
            {"task": "regression", "evaluate": {"metrics": ["mae"]}},
            "task classification → regression",
        ),
    ],
)
def test_other_test_rows_need_consent(
    base: BaseRevision, before: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    put_params(before)
    blocked, agreed = GateLog(), GateLog()
    guard_split(blocked, base, changed(before, change), Consent())
    guard_split(agreed, base, changed(before, change), CONSENT)
    assert says in blocked.reasons[0]
    assert "--allow-loosening" in blocked.reasons[0]
    assert (agreed.reasons, says in agreed.notes[0]) == ([], True)


def test_what_leaves_the_test_rows_as_they_are_needs_no_consent(base: BaseRevision) -> None:
    put_params({})
    log = GateLog()
    other: dict[str, Any] = {
        "data": {"as_of": "2024-05-01T00:00:00Z"},
        "train": {"seed": 5, "estimator": "sklearn.linear_model.LogisticRegression"},
        "evaluate": {"metrics": ["log_loss"], "resamples": 200},
    }
    guard_split(log, base, changed({}, other), Consent())
    guard_split(log, None, changed({}, {"data": {"source": "other"}}), Consent())
    assert (log.reasons, log.notes) == ([], [])


MAY, JUNE = "2024-05-01T00:00:00Z", "2024-06-01T00:00:00Z"


@pytest.mark.parametrize(
    ("before", "after", "asks"),
    [
        ("now", MAY, True),
        (JUNE, MAY, True),
        (MAY, JUNE, False),
        (MAY, MAY, False),
        (MAY, "now", False),
        ("now", "now", False),
    ],
)
def test_a_clock_that_goes_back_needs_consent(
    base: BaseRevision, before: str, after: str, asks: bool
) -> None:
    put_params({"data": {"as_of": before}})
    blocked, agreed = GateLog(), GateLog()
    params = changed({}, {"data": {"as_of": after}})
    guard_clock(blocked, base, params, Consent())
    guard_clock(agreed, base, params, CONSENT)
    assert bool(blocked.reasons) == bool(agreed.notes) == asks
    assert agreed.reasons == []
    if asks:
        assert "data.as_of went back" in blocked.reasons[0]
        assert "--allow-loosening" in blocked.reasons[0]
    guard_clock(blocked, None, params, Consent())
    assert len(blocked.reasons) == int(asks)


def rows_with(**delay: Any) -> Schema:
    columns: dict[str, Any] = {
        "id": {"type": "integer", "feature": False},
        "late": {"type": "boolean", "feature": False, "outcome": True},
        "delay": {"type": "integer", **delay} if delay else None,
    }
    return Schema.model_validate({"columns": {key: one for key, one in columns.items() if one}})


@pytest.mark.parametrize(
    ("delay", "asks"),
    [
        ({"feature": False, "outcome": True}, False),
        ({"feature": True}, True),
        # A column can be derived from it.
        ({"feature": False}, True),
        ({}, False),
    ],
)
def test_a_model_that_may_see_an_outcome_of_the_base_needs_consent(
    base: BaseRevision, delay: dict[str, Any], asks: bool
) -> None:
    held = rows_with(feature=False, outcome=True).model_dump(mode="json")
    FILES["tip", "schema.yaml"] = yaml.safe_dump(held)
    blocked, agreed = GateLog(), GateLog()
    guard_outcomes(blocked, base, rows_with(**delay), Consent())
    guard_outcomes(agreed, base, rows_with(**delay), CONSENT)
    assert bool(blocked.reasons) == bool(agreed.notes) == asks
    assert agreed.reasons == []
    if asks:
        assert "schema.yaml: `delay`: an outcome in the base" in blocked.reasons[0]
        assert "--allow-loosening" in blocked.reasons[0]
    guard_outcomes(blocked, None, rows_with(**delay), Consent())
    assert len(blocked.reasons) == int(asks)


@pytest.mark.parametrize("text", [None, "columns: 1", "<<<<<<< ours\n"])
def test_a_schema_of_the_base_that_cannot_be_read_keeps_nothing_out(
    base: BaseRevision, text: str | None
) -> None:
    if text is not None:
        FILES["tip", "schema.yaml"] = text
    log = GateLog()
    guard_outcomes(log, base, rows_with(), Consent())
    assert log.reasons == []
    assert len(log.notes) == (text is not None)


def test_base_params_that_cannot_be_read_need_consent(base: BaseRevision) -> None:
    FILES["tip", "params.yaml"] = "split: {method: dice}"
    log = GateLog()
    guard_split(log, base, changed(), Consent())
    guard_clock(log, base, changed(), Consent())
    (reason,) = log.reasons
    assert "cannot be read to compare" in reason


METRICS = "src/flight_delays/metrics.py"
COST = """import numpy as np
from gitops_ml.model import metric


@metric(better="smaller")
def cost(truth, prediction, weights):
    return 3.0
"""
KNOWN = {**BUILT_IN, **declared_metrics(COST, METRICS)}


@pytest.fixture
def with_cost(base: BaseRevision, project: Path) -> BaseRevision:
    """A base whose contract judges by a metric of its own, and a working tree alike."""
    (project / "src/flight_delays").mkdir(parents=True)
    (project / METRICS).write_text(COST, encoding="utf-8")
    FILES["tip", METRICS] = COST
    put("tip", contract(metrics={"cost": {"ceiling": 4.0}}))
    return base


def judged(base: BaseRevision, here: Contract) -> tuple[GateLog, Contract]:
    log, consent = GateLog(), Consent()
    found = applicable_terms(log, base, here, "classification", COLUMNS, consent, known_metrics())
    guard_own_metrics(log, base, consent)
    return log, found.terms


def test_a_term_of_a_metric_of_one_s_own_cannot_be_loosened_alone(with_cost: BaseRevision) -> None:
    check_contract(contract(metrics={"cost": {"ceiling": 5}}), "classification", COLUMNS, KNOWN)
    log, terms = judged(with_cost, contract(metrics={"cost": {"ceiling": 5.0}}))
    assert terms.model.metrics["cost"].ceiling == 4.0
    assert "model.metrics.cost.ceiling 4 → 5" in log.reasons[0]


def test_a_metric_that_is_gone_is_a_term_lost(with_cost: BaseRevision, project: Path) -> None:
    (project / METRICS).unlink()
    log, terms = judged(with_cost, contract())
    assert list(terms.model.metrics) == ["roc_auc"]
    assert "model.metrics.cost.ceiling 4 → removed" in log.reasons[0]
    with pytest.raises(SettingsError, match=r"model\.metrics\.cost: there is no metric cost"):
        check_contract(contract(metrics={"cost": {"ceiling": 4}}), "classification", COLUMNS)


@pytest.mark.parametrize(
    "edited",
    [
        COST.replace("3.0", "0.0"),
        COST + "\n\ndef cost(t, p, w):\n    return 0.0\n",
        COST + "\n\ncost.__code__ = (lambda t, p, w: 0.0).__code__\n",
        "",
    ],
)
def test_what_the_base_judges_by_cannot_be_changed_without_consent(
    with_cost: BaseRevision, project: Path, edited: str
) -> None:
    (project / METRICS).write_text(edited, encoding="utf-8")
    log = GateLog()
    guard_own_metrics(log, with_cost, Consent())
    assert f"{METRICS} changed, which measures cost of the base's contract" in log.reasons[0]
    log = GateLog()
    guard_own_metrics(log, with_cost, CONSENT)
    assert log.reasons == []
    assert "With a maintainer's consent" in log.notes[0]


def test_where_the_base_judges_by_none_of_its_own_metrics_any_may_change(
    base: BaseRevision, project: Path
) -> None:
    (project / "src/flight_delays").mkdir(parents=True)
    (project / METRICS).write_text("", encoding="utf-8")
    FILES["tip", METRICS] = COST
    put("tip", contract())
    log = GateLog()
    guard_own_metrics(log, base, Consent())
    assert (log.reasons, log.notes) == ([], [])


def test_another_metric_beside_it_needs_no_consent(with_cost: BaseRevision, project: Path) -> None:
    more = COST + "\nimport math\n\n\n@metric(better='larger')\ndef more(t, p, w):\n    return 1\n"
    (project / METRICS).write_text(more, encoding="utf-8")
    here = contract(metrics={"cost": {"ceiling": 4.0}, "more": {"floor": 0.5}})
    log, terms = judged(with_cost, here)
    assert log.reasons == []
    assert set(terms.model.metrics) == {"cost", "more"}
