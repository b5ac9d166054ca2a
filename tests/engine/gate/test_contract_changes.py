from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import subcommand
from conftest import Bake
from pydantic import TypeAdapter

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import SEEDS_MAX, Contract, parse_settings
from gitops_ml.gate.contract_changes import (
    Change,
    changes_between,
    json_schema,
    stricter_of,
    terms_of,
)

main = subcommand("contract")

DOCUMENT: Mapping[str, Any] = {
    "model": {
        "metrics": {
            "roc_auc": {"floor": 0.7, "margin": 0.01, "erosion": 0.02},
            "log_loss": {"ceiling": 0.5},
        },
        "slices": [
            {
                "column": "origin",
                "metric": "roc_auc",
                "min_rows": 300,
                "floor": 0.6,
                "margin": 0.02,
                "erosion": 0.2,
            }
        ],
        "confidence": 0.95,
        "size_mb": 10,
        "latency_p99_ms": 20,
    },
    "data": {
        "freshness_days": 35,
        "row_count_change": {"min": -0.05, "max": 1.0},
        "rows_min": 1000,
        "test_rows_changed": 0.01,
        "target_drift": 0.05,
        "duplicate_rows_max": 0.02,
    },
    "behaviour": {
        "directional": [{"column": "rain", "set": 0.3, "expect": "increase"}],
        "invariant": ["origin"],
        "calibration_error_max": 0.05,
        "bias_max": 4,
    },
}


def with_value(path: str, value: Any) -> Contract:
    """The contract with one value replaced; None removes it."""
    document: Any = deepcopy(dict(DOCUMENT))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = document
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return Contract.model_validate(document)


BASE = Contract.model_validate(DOCUMENT)

CARRIER = {"column": "carrier", "metric": "roc_auc", "min_rows": 9, "floor": 0}
WIND = {"column": "wind", "set": 9, "expect": "increase"}

# For every term: a looser and a stricter value; None removes the term.
ORDERED = [
    ("model.metrics.roc_auc.floor", 0.69, 0.71),
    ("model.metrics.roc_auc.floor", None, 0.71),
    ("model.metrics.roc_auc.margin", 0.02, 0.0),
    ("model.metrics.roc_auc.margin", None, 0.0),
    ("model.metrics.roc_auc.erosion", 0.03, 0.01),
    ("model.metrics.roc_auc.erosion", None, 0.01),
    ("model.metrics.log_loss.ceiling", 0.6, 0.4),
    ("model.metrics.log_loss", None, {"ceiling": 0.5, "margin": 0.1}),
    ("model.slices.0.min_rows", 400, 200),
    ("model.slices.0.floor", 0.5, 0.65),
    ("model.slices.0.floor", None, 0.65),
    ("model.slices.0.margin", 0.05, 0.01),
    ("model.slices.0.erosion", None, 0.1),
    ("model.slices", [], [*DOCUMENT["model"]["slices"], CARRIER]),
    ("model.confidence", 0.9, 0.99),
    ("model.size_mb", 11, 9),
    ("model.latency_p99_ms", 21, 19),
    ("data.freshness_days", 36, 30),
    ("data.freshness_days", None, 30),
    ("data.row_count_change.min", -0.5, 0.0),
    ("data.row_count_change.max", 2.0, 0.5),
    ("data.row_count_change", None, {"min": 0.0, "max": 0.5}),
    ("data.rows_min", 999, 1001),
    ("data.rows_min", None, 1001),
    ("data.test_rows_changed", 0.02, 0.0),
    ("data.target_drift", 0.1, 0.0),
    ("data.duplicate_rows_max", None, 0.01),
    ("data.duplicate_rows_max", 0.03, 0.01),
    ("behaviour.directional", [], [*DOCUMENT["behaviour"]["directional"], WIND]),
    ("behaviour.invariant", [], ["origin", "carrier"]),
    ("behaviour.calibration_error_max", 0.06, 0.04),
    ("behaviour.calibration_error_max", None, 0.04),
    ("behaviour.bias_max", 5, 3),
    ("behaviour.bias_max", None, 3),
]  # fmt: skip


def test_every_term_of_the_settings_has_a_case() -> None:
    """A term that is added later must be put in order here, or it could be loosened unseen."""
    tried = {path for path, _, _ in ORDERED}
    for term in terms_of(BASE):
        # What is settled has no order, see below.
        if not term.startswith(("behaviour.directional.", "behaviour.invariant.", "model.seeds")):
            assert term.replace("slices.origin.roc_auc", "slices.0") in tried, term
    fields = json.loads(json_schema())["$defs"]
    known = {
        "MetricTerms": {"floor", "ceiling", "margin", "erosion"},
        "SliceTerms": {"floor", "ceiling", "margin", "erosion", "column", "metric", "min_rows"},
        "ModelTerms": {
            "metrics",
            "slices",
            "reference",
            "seeds",
            "confidence",
            "size_mb",
            "latency_p99_ms",
        },
        "DataTerms": {
            "freshness_days",
            "row_count_change",
            "rows_min",
            "test_rows_changed",
            "target_drift",
            "duplicate_rows_max",
        },
        "RowCountChange": {"min", "max"},
        "DirectionalTerm": {"column", "set", "expect"},
        "BehaviourTerms": {"directional", "invariant", "calibration_error_max", "bias_max"},
    }
    assert {name: set(model["properties"]) for name, model in fields.items()} == known


@pytest.mark.parametrize(("path", "looser", "stricter"), ORDERED)
def test_the_stricter_of_two_contracts_applies(path: str, looser: Any, stricter: Any) -> None:
    loose, strict = with_value(path, looser), with_value(path, stricter)
    assert stricter_of(BASE, loose) == stricter_of(loose, BASE) == BASE
    assert terms_of(stricter_of(BASE, strict)) == terms_of(strict)
    assert terms_of(stricter_of(strict, loose)) == terms_of(strict)


@pytest.mark.parametrize(("path", "looser", "stricter"), ORDERED)
def test_a_change_is_named_with_its_effect(path: str, looser: Any, stricter: Any) -> None:
    loosened = changes_between(BASE, with_value(path, looser))
    tightened = changes_between(BASE, with_value(path, stricter))
    assert {change.effect for change in loosened} == {"loosened"}
    assert {change.effect for change in tightened} == {"tightened"}
    name = path.replace("slices.0", "slices.origin.roc_auc")
    assert all(change.term.startswith(name) for change in loosened + tightened)


FIRST, SECOND = f"{'1' * 32}.dir", f"{'2' * 32}.dir"


@pytest.mark.parametrize(
    ("base", "head"),
    [(None, FIRST), (FIRST, SECOND), (FIRST, None)],
    ids=["named", "moved", "left"],
)
def test_another_reference_is_always_a_loosening_and_the_base_s_stays(
    base: str | None, head: str | None
) -> None:
    old, new = (BASE if one is None else with_value("model.reference", one) for one in (base, head))
    assert changes_between(old, new) == [
        Change("model.reference", base=base, head=head, effect="loosened")
    ]
    assert stricter_of(old, new).model.reference == base
    assert changes_between(old, old) == []


@pytest.mark.parametrize(("base", "head"), [(1, 3), (3, 1), (3, 5), (5, 3)])
def test_with_how_many_seeds_it_is_judged_no_change_decides_for_itself(
    base: int, head: int
) -> None:
    old, new = (with_value("model.seeds", one) for one in (base, head))
    assert changes_between(old, new) == [
        Change("model.seeds", base=base, head=head, effect="loosened")
    ]
    assert stricter_of(old, new).model.seeds == base


def test_a_contract_that_says_nothing_is_judged_by_the_recorded_models() -> None:
    assert BASE.model.seeds == 1
    for number in (0, SEEDS_MAX + 1):
        with pytest.raises(ValueError, match="seeds"):
            with_value("model.seeds", number)


def test_an_equal_contract_has_no_changes() -> None:
    assert changes_between(BASE, Contract.model_validate(DOCUMENT)) == []
    assert stricter_of(BASE, BASE) == BASE


def test_a_change_says_what_it_was_and_what_it_is() -> None:
    assert changes_between(BASE, with_value("model.size_mb", 12)) == [
        Change("model.size_mb", base=10, head=12, effect="loosened")
    ]
    assert changes_between(BASE, with_value("behaviour.invariant", [])) == [
        Change("behaviour.invariant.origin", base=True, head=None, effect="loosened")
    ]


def test_expecting_the_opposite_loosens() -> None:
    opposite = with_value(
        "behaviour.directional", [{"column": "rain", "set": 0.3, "expect": "decrease"}]
    )
    (change,) = changes_between(BASE, opposite)
    assert (change.base, change.head, change.effect) == ("increase", "decrease", "loosened")


def test_each_side_adds_what_the_other_lacks() -> None:
    ours = with_value("model.metrics.roc_auc", {"floor": 0.8})
    theirs = with_value("model.metrics.roc_auc", {"floor": 0.6, "margin": 0.3})
    assert stricter_of(ours, theirs).model.metrics["roc_auc"].model_dump(exclude_none=True) == {
        "floor": 0.8,
        "margin": 0.3,
    }


def test_a_slice_is_listed_once() -> None:
    twice = DOCUMENT["model"]["slices"] * 2
    document = {**DOCUMENT, "model": {**DOCUMENT["model"], "slices": twice}}
    with pytest.raises(SettingsError, match="listed twice: origin/roc_auc"):
        parse_settings(yaml.safe_dump(document), Contract, "contract.yaml")


def test_the_schema_beside_the_contract_is_the_settings_own(generated: Bake) -> None:
    kept = (generated() / "contract.schema.json").read_text(encoding="utf-8")
    assert kept == json_schema(), "run `gitops-ml contract --schema`"
    first = (generated() / "contract.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=contract.schema.json"


def test_the_schema_is_written_where_editors_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--schema"]) == 0
    assert (tmp_path / "contract.schema.json").read_text(encoding="utf-8") == json_schema()


def test_a_changed_number_of_any_kind_is_written_without_a_warning() -> None:
    ints = {"model.latency_p99_ms": 30, "data.freshness_days": 40}
    changes = [
        *changes_between(Contract.model_validate(DOCUMENT), with_value("model.size_mb", 12.5)),
        *(Change(term, 1, value, "loosened") for term, value in ints.items()),
        Change("behaviour.invariant.origin", True, None, "loosened"),
    ]
    adapter = TypeAdapter(list[Change])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = adapter.dump_json(changes)
    assert adapter.validate_json(written) == changes


def test_a_contract_that_is_there_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contract.yaml").write_text("ours", encoding="utf-8")
    assert main(["--propose"]) == 2
    assert (tmp_path / "contract.yaml").read_text(encoding="utf-8") == "ours"
    assert "FORCE=1" in capsys.readouterr().err
