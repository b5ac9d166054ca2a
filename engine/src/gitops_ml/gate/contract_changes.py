"""The bar cannot be lowered by the change that it judges.

A change may edit `contract.yaml` too. So it is judged by the stricter of its own contract and the
base's, term by term, and every term that it loosens is named: only a maintainer can consent.

    gitops-ml contract --propose    # contract.yaml from the evaluated model
    gitops-ml contract --schema     # contract.schema.json, for editors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gitops_ml.core import paths
from gitops_ml.core.settings import Contract

Bound = int | float | bool | str

# Which of two values of a term asks for more, by the last part of the term's name.
_STRICTER: Mapping[str, Callable[[Any, Any], Any]] = {
    "floor": max,
    "ceiling": min,
    "margin": min,
    "min_rows": min,
    "confidence": max,
    "size_mb": min,
    "latency_p99_ms": min,
    "freshness_days": min,
    "row_count_change.min": max,
    "row_count_change.max": min,
    "rows_min": max,
    "calibration_error_max": min,
    "bias_max": min,
}


@dataclass(frozen=True)
class Change:
    """A term that differs between the base's contract and this one.

    Attributes:
        term: Its name, e.g. `model.metrics.roc_auc.floor`.
        base: Its value in the base's contract; None if it is not there.
        head: Its value in this contract; None if it is not there.
        effect: Whether this contract asks for less or for more.
    """

    term: str
    base: Bound | None
    head: Bound | None
    effect: Literal["loosened", "tightened"]


def terms_of(contract: Contract) -> dict[str, Bound]:
    """Every term of a contract by its name, in the order of the file."""
    terms: dict[str, Bound | None] = {}
    for name, metric in contract.model.metrics.items():
        for key, value in metric.model_dump().items():
            terms[f"model.metrics.{name}.{key}"] = value
    for part in contract.model.slices:
        for key in ("min_rows", "floor", "ceiling", "margin"):
            terms[f"model.slices.{part.column}.{part.metric}.{key}"] = getattr(part, key)
    for key in ("confidence", "size_mb", "latency_p99_ms"):
        terms[f"model.{key}"] = getattr(contract.model, key)
    change = contract.data.row_count_change
    terms["data.freshness_days"] = contract.data.freshness_days
    terms["data.row_count_change.min"] = change.min if change else None
    terms["data.row_count_change.max"] = change.max if change else None
    terms["data.rows_min"] = contract.data.rows_min
    for expected in contract.behaviour.directional:
        key = f"{expected.column} set to {json.dumps(expected.set, ensure_ascii=False)}"
        terms[f"behaviour.directional.{key}"] = expected.expect
    for column in contract.behaviour.invariant:
        terms[f"behaviour.invariant.{column}"] = True
    terms["behaviour.calibration_error_max"] = contract.behaviour.calibration_error_max
    terms["behaviour.bias_max"] = contract.behaviour.bias_max
    return {name: value for name, value in terms.items() if value is not None}


def changes_between(base: Contract, head: Contract) -> list[Change]:
    """Name every term that differs, and whether it asks for less or for more than before."""
    old, new = terms_of(base), terms_of(head)
    names = [*old, *(name for name in new if name not in old)]
    return [
        Change(name, old.get(name), new.get(name), _effect(name, old.get(name), new.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _effect(name: str, old: Bound | None, new: Bound | None) -> Literal["loosened", "tightened"]:
    if old is None:
        return "tightened"
    if new is None:
        return "loosened"
    return "tightened" if _stricter(name, old, new) == new else "loosened"


def _stricter(name: str, old: Bound, new: Bound) -> Bound:
    for ending, choose in _STRICTER.items():
        if name.endswith(f".{ending}"):
            stricter: Bound = choose(old, new)
            return stricter
    # What the model must have learnt has no order: another expectation is not a stricter one.
    return old


def stricter_of(base: Contract, head: Contract) -> Contract:
    """The contract that holds whatever either of the two asks for."""
    return Contract.model_validate(
        {
            "model": {
                "metrics": _stricter_metrics(base, head),
                "slices": _stricter_slices(base, head),
                **_stricter_values(
                    "model",
                    {key: getattr(base.model, key) for key in _MODEL_LIMITS},
                    {key: getattr(head.model, key) for key in _MODEL_LIMITS},
                ),
            },
            "data": _stricter_data(base, head),
            "behaviour": _stricter_behaviour(base, head),
        }
    )


_MODEL_LIMITS = ("confidence", "size_mb", "latency_p99_ms")


def _stricter_values(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Choose key by key; a key that only one of the two has (or is not None in) is kept."""
    merged: dict[str, Any] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        values = [side[key] for side in (old, new) if side.get(key) is not None]
        if values:
            merged[key] = values[0] if len(values) == 1 else _stricter(f"{where}.{key}", *values)
    return merged


def _stricter_metrics(base: Contract, head: Contract) -> dict[str, Any]:
    old = {name: terms.model_dump() for name, terms in base.model.metrics.items()}
    new = {name: terms.model_dump() for name, terms in head.model.metrics.items()}
    return {
        name: _stricter_values("metrics", old.get(name, {}), new.get(name, {}))
        for name in old | new
    }


def _stricter_slices(base: Contract, head: Contract) -> list[dict[str, Any]]:
    old = {(part.column, part.metric): part.model_dump() for part in base.model.slices}
    new = {(part.column, part.metric): part.model_dump() for part in head.model.slices}
    return [
        {"column": column, "metric": metric}
        | _stricter_values(
            "slices", _limits(old.get((column, metric))), _limits(new.get((column, metric)))
        )
        for column, metric in old | new
    ]


def _limits(part: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (part or {}).items() if key not in ("column", "metric")}


def _stricter_data(base: Contract, head: Contract) -> dict[str, Any]:
    old, new = base.data.model_dump(), head.data.model_dump()
    old_change, new_change = old.pop("row_count_change") or {}, new.pop("row_count_change") or {}
    merged = _stricter_values("data", old, new)
    change = _stricter_values("data.row_count_change", old_change, new_change)
    return merged | ({"row_count_change": change} if change else {})


def _stricter_behaviour(base: Contract, head: Contract) -> dict[str, Any]:
    old, new = base.behaviour, head.behaviour
    limits = ("calibration_error_max", "bias_max")
    return {
        "directional": list(dict.fromkeys([*old.directional, *new.directional])),
        "invariant": list(dict.fromkeys([*old.invariant, *new.invariant])),
        **_stricter_values(
            "behaviour",
            {key: getattr(old, key) for key in limits},
            {key: getattr(new, key) for key in limits},
        ),
    }


def json_schema() -> str:
    """The JSON schema of `contract.yaml`, as `contract.schema.json` holds it."""
    return json.dumps(Contract.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--propose", action="store_true", help="write contract.yaml from the evaluated model"
    )
    what.add_argument(
        "--schema", action="store_true", help="write contract.schema.json, for editors"
    )
    parser.add_argument("--force", action="store_true", help="replace the contract that is there")


def run(options: argparse.Namespace) -> int:
    """Write the proposed contract or the schema; 0 if all went well."""
    if options.schema:
        paths.CONTRACT_SCHEMA.write_text(json_schema(), encoding="utf-8")
        return 0
    # Only proposing needs the model.
    from gitops_ml.gate.propose import propose

    kept = propose(Path(), force=options.force)
    if kept is not None:
        print(f"The old contract is now {kept}")
    print(f"Wrote {paths.CONTRACT}. Read it and correct it: it is your promise.")
    return 0
