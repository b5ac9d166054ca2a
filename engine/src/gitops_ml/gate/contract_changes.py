"""The terms cannot be loosened by the change that they judge.

A change may edit `contract.yaml` too. So it is judged by the stricter of its own contract and the
base's, term by term, and every term that it loosens is named: only a maintainer can consent.

    gitops-ml contract --propose    # contract.yaml from the evaluated model
    gitops-ml contract --reference  # make the model of this working tree the reference
    gitops-ml contract --schema     # contract.schema.json, for editors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gitops_ml.core import paths
from gitops_ml.core.settings import Contract, DirectionalTerm, SliceTerms, Stricter

Bound = int | float | bool | str


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


@dataclass(frozen=True)
class Term:
    """A term of a contract.

    Attributes:
        value: What it asks for.
        stricter: Which of two values asks for more; None if they have no order.
    """

    value: Bound
    stricter: Stricter | None = None


def terms_of(contract: Contract) -> dict[str, Bound]:
    """Every term of a contract by its name, in the order of the file."""
    return {name: term.value for name, term in _terms(contract, "")}


def _terms(part: BaseModel, where: str) -> Iterator[tuple[str, Term]]:
    """The terms of a part of a contract: what its fields say, and the parts that they hold."""
    for key, field in type(part).model_fields.items():
        value = getattr(part, key)
        stricter = _order(field)
        if value is None:
            continue
        if stricter is not None:
            yield f"{where}{key}", Term(value, stricter)
        elif isinstance(value, BaseModel):
            yield from _terms(value, f"{where}{key}.")
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _terms(inner, f"{where}{key}.{name}.")
        elif isinstance(value, tuple):
            for inner in value:
                yield from _listed(inner, f"{where}{key}.")


def _listed(entry: Any, where: str) -> Iterator[tuple[str, Term]]:
    """The terms of an entry of a list."""
    if isinstance(entry, SliceTerms):
        yield from _terms(entry, f"{where}{entry.column}.{entry.metric}.")
    elif isinstance(entry, DirectionalTerm):
        name = f"{entry.column} set to {json.dumps(entry.set, ensure_ascii=False)}"
        yield f"{where}{name}", Term(entry.expect)
    else:
        yield f"{where}{entry}", Term(True)


def _order(field: FieldInfo) -> Stricter | None:
    return next((one for one in field.metadata if isinstance(one, Stricter)), None)


def changes_between(base: Contract, head: Contract) -> list[Change]:
    """Name every term that differs, and whether it asks for less or for more than before."""
    old, new = dict(_terms(base, "")), dict(_terms(head, ""))
    found = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if before != after:
            was, now = (None if term is None else term.value for term in (before, after))
            found.append(Change(name, was, now, _effect(before, after)))
    return found


def _effect(old: Term | None, new: Term | None) -> Literal["loosened", "tightened"]:
    if old is None:
        settled = new is not None and new.stricter is not None and new.stricter.settled
        return "loosened" if settled else "tightened"
    # What the model must have learnt has no order: another expectation is not a stricter one.
    if new is None or old.stricter is None:
        return "loosened"
    return "tightened" if old.stricter.of(old.value, new.value) == new.value else "loosened"


def stricter_of(base: Contract, head: Contract) -> Contract:
    """The contract that holds whatever either of the two asks for."""
    return type(base).model_validate(_merged(base, head))


def _merged(old: BaseModel, new: BaseModel) -> dict[str, Any]:
    """What either of two parts of a contract asks for."""
    return {
        key: _stricter_value(_order(field), getattr(old, key), getattr(new, key))
        for key, field in type(old).model_fields.items()
    }


def _stricter_value(stricter: Stricter | None, old: Any, new: Any) -> Any:
    if stricter is not None and stricter.settled:
        return old
    if old is None or new is None:
        return new if old is None else old
    if stricter is not None:
        return stricter.of(old, new)
    if isinstance(old, BaseModel):
        return _merged(old, new)
    if isinstance(old, Mapping):
        return {
            name: _stricter_value(None, old.get(name), new.get(name)) for name in {**old, **new}
        }
    if isinstance(old, tuple):
        named = [{_name_of(entry): entry for entry in side} for side in (old, new)]
        return list(_stricter_value(None, *named).values())
    # The name of a slice's column or metric, by which the two were found.
    return old


def _name_of(entry: Any) -> Any:
    """By what an entry of a list is known: a slice by its place, any other by all that it says."""
    return (entry.column, entry.metric) if isinstance(entry, SliceTerms) else entry


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
        "--reference",
        action="store_true",
        help="let contract.yaml name the model of this working tree as the reference",
    )
    what.add_argument(
        "--schema", action="store_true", help="write contract.schema.json, for editors"
    )
    parser.add_argument("--force", action="store_true", help="replace the contract that is there")
    parser.add_argument(
        "--seeds",
        type=int,
        default=12,
        help="how many models of other seeds tell the margins; 0 takes the intervals (default: 12)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=300,
        help="after which no more of them are trained (default: 300)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the proposed contract, the reference or the schema; 0 if all went well."""
    if options.schema:
        paths.CONTRACT_SCHEMA.write_text(json_schema(), encoding="utf-8")
        return 0
    if options.reference:
        from gitops_ml.gate.reference import name_reference

        print(f"{paths.CONTRACT}: {name_reference(Path())} is the reference now")
        print("On a pull request, a maintainer must consent to that with a label.")
        return 0
    # Only proposing needs the model.
    from gitops_ml.gate.propose import propose

    kept, models = propose(Path(), options.force, options.seeds, options.seconds)
    if kept is not None:
        print(f"The old contract is now {kept}")
    if models:
        print(f"Margins leave room for what lies between {models} models of other seeds.")
    print(f"Wrote {paths.CONTRACT}. Read it and correct it: it is your promise.")
    return 0
