"""Which terms apply: those of the change, or the stricter of them and the base's.

A contract counts from the first model on that was judged by it: while the base has no model, a
project still looks for its terms and may change them freely.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.metric_catalogue import (
    BUILT_IN,
    MetricDeclarationError,
    MetricKind,
    declared_metrics,
    metric_names,
    own_metrics_file,
    why_not,
)
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Contract, KeepsTestRows, Params, Task, parse_settings
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.gate.contract_changes import Change, changes_between, stricter_of
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.verdict import Consent
from gitops_ml.github.labels import LOOSEN_LABEL

ContractName = Literal["this one", "the stricter of this one and the base's"]

HOW_TO_CONSENT = (
    f"a maintainer can consent with the label `{LOOSEN_LABEL}` on the pull request, "
    "or with --allow-loosening"
)


@dataclass(frozen=True)
class ApplicableTerms:
    """The terms that apply.

    Attributes:
        terms: The contract to judge by.
        name: Whose contract it is.
        changes: Every term that differs from the base's contract.
    """

    terms: Contract
    name: ContractName
    changes: Sequence[Change]


def check_contract(
    contract: Contract,
    task: Task,
    columns: Collection[str],
    metrics: Mapping[str, MetricKind] = BUILT_IN,
) -> None:
    """Make sure that every term can be measured for this task and these test rows.

    Args:
        contract: The change's contract.
        task: What the model does.
        columns: The columns of the test rows.
        metrics: The metrics that exist here.

    Raises:
        SettingsError: With one line for every term that cannot.
    """
    problems = [
        f"{paths.CONTRACT}: {where}: {problem}"
        for where, metric in _metrics_of(contract)
        if (problem := why_not(metric, task, metrics)) is not None
    ]
    problems += [
        f"{paths.CONTRACT}: model.slices.{part.column}.{part.metric}: `{part.column}` is not a "
        "column of the test rows"
        for part in contract.model.slices
        if part.column not in columns
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def _metrics_of(contract: Contract) -> list[tuple[str, str]]:
    named = [(f"model.metrics.{name}", name) for name in contract.model.metrics]
    return named + [
        (f"model.slices.{part.column}.{part.metric}", part.metric) for part in contract.model.slices
    ]


def applicable_terms(
    log: GateLog,
    base: BaseRevision | None,
    contract: Contract,
    task: Task,
    columns: Collection[str],
    consent: Consent,
    metrics: Mapping[str, MetricKind] = BUILT_IN,
) -> ApplicableTerms:
    """Choose the terms, and block a change that loosens them without consent.

    Args:
        log: Takes the reasons and notes.
        base: The base with a model; None if there is none.
        contract: The change's contract.
        task: What the model does.
        columns: The columns of the test rows.
        consent: What a maintainer agreed to.
        metrics: The metrics that exist here.
    """
    if base is None:
        return ApplicableTerms(contract, "this one", ())
    old = _contract_of(log, base, base.commit, consent)
    if old is None:
        return ApplicableTerms(contract, "this one", ())
    changes = changes_between(old, contract)
    loosened = _loosened_here(log, base, changes, contract, consent)
    if loosened and consent.allow_loosening:
        log.notes.append(f"A maintainer consented to the loosened contract: {_named(loosened)}.")
        return ApplicableTerms(contract, "this one", changes)
    if loosened:
        log.reasons.append(f"the contract is loosened: {_named(loosened)}; {HOW_TO_CONSENT}")
    terms = _measurable(stricter_of(old, contract), contract, task, columns, metrics)
    return ApplicableTerms(terms, "the stricter of this one and the base's", changes)


def _contract_of(
    log: GateLog, base: BaseRevision, commit: str, consent: Consent
) -> Contract | None:
    text = base.read(paths.CONTRACT, commit)
    name = f"{commit[:10]}:{paths.CONTRACT}"
    if text is None:
        log.notes.append(f"The base has no {paths.CONTRACT}: only this one applies.")
        return None
    try:
        return parse_settings(text, Contract, name, _metrics_of_commit(base, commit))
    except (SettingsError, MetricDeclarationError) as error:
        why = f"the base's contract cannot be read to compare: {error}"
        _ask(log, why, consent)
        return None


def _metrics_of_commit(base: BaseRevision, commit: str) -> Mapping[str, MetricKind]:
    path = own_metrics_file(base.root)
    return {**BUILT_IN, **declared_metrics(base.read(path, commit) or "", f"{commit[:10]}:{path}")}


def guard_own_metrics(log: GateLog, base: BaseRevision | None, consent: Consent) -> None:
    """Block a change of what the base's own metrics measure, without consent.

    A term says nothing when the function behind it may say anything. Further functions and
    imports beside those that are there change no term.

    Args:
        log: Takes the reasons and notes.
        base: The base with a model; None if there is none.
        consent: What a maintainer agreed to.
    """
    if base is None or (old := _contract_of(log, base, base.commit, consent)) is None:
        return
    path = own_metrics_file(base.root)
    judged = sorted({name for _, name in _metrics_of(old)} - set(BUILT_IN))
    if not judged or base.same_file(path):
        return
    here = base.root / path
    head = here.read_text(encoding="utf-8", errors="replace") if here.is_file() else ""
    if not _only_adds(base.read(path) or "", head):
        why = f"{path} changed, which measures {', '.join(judged)} of the base's contract"
        _ask(log, why, consent)


def _only_adds(old: str, new: str) -> bool:
    """Whether code holds all statements of other code, in order, and else functions and imports."""
    before = [ast.dump(one) for one in ast.parse(old).body]
    names = {one.name for one in ast.parse(old).body if isinstance(one, ast.FunctionDef)}
    for one in ast.parse(new).body:
        if before and ast.dump(one) == before[0]:
            before.pop(0)
        elif isinstance(one, ast.FunctionDef):
            if one.name in names:
                return False
        elif not isinstance(one, ast.Import | ast.ImportFrom):
            return False
    return not before


def _loosened_here(
    log: GateLog,
    base: BaseRevision,
    changes: Sequence[Change],
    contract: Contract,
    consent: Consent,
) -> list[Change]:
    """The terms that this branch loosens; not those that the base tightened in the meantime."""
    loosened = [change for change in changes if change.effect == "loosened"]
    if not loosened or base.fork == base.commit:
        return loosened
    fork = _contract_of(log, base, base.fork, consent)
    if fork is None:
        return loosened
    here = {
        change.term for change in changes_between(fork, contract) if change.effect == "loosened"
    }
    behind = [change for change in loosened if change.term not in here]
    if behind:
        log.notes.append(
            f"The base tightened its contract since this branch left it: {_named(behind)}. "
            "Merge the base to see the terms in this branch."
        )
    return [change for change in loosened if change.term in here]


def _named(changes: Sequence[Change]) -> str:
    return ", ".join(
        f"{change.term} {'none' if change.base is None else _shown(change.base)} → "
        f"{_shown(change.head)}"
        for change in changes
    )


def _shown(value: float | bool | str | None) -> str:
    if value is None:
        return "removed"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ask(log: GateLog, why: str, consent: Consent) -> None:
    if consent.allow_loosening:
        log.notes.append(f"With a maintainer's consent: {why}.")
    else:
        log.reasons.append(f"{why}; {HOW_TO_CONSENT}")


def _measurable(
    terms: Contract,
    contract: Contract,
    task: Task,
    columns: Collection[str],
    known: Mapping[str, MetricKind],
) -> Contract:
    """Without the base's terms that nothing can measure here; losing one is a loosening."""
    names = metric_names(task, known)
    metrics = {name: part for name, part in terms.model.metrics.items() if name in names}
    slices = [
        part for part in terms.model.slices if part.metric in names and part.column in columns
    ]
    model = terms.model.model_copy(
        update={"metrics": metrics or contract.model.metrics, "slices": tuple(slices)}
    )
    return terms.model_copy(update={"model": model})


def guard_split(log: GateLog, base: BaseRevision | None, params: Params, consent: Consent) -> None:
    """Block a change that chooses another test set without consent: it might choose an easier one.

    Args:
        log: Takes the reasons and notes.
        base: The base with a model; None if there is none.
        params: The change's parameters.
        consent: What a maintainer agreed to.
    """
    try:
        before = _params_of(base)
    except (yaml.YAMLError, ValidationError):
        _ask(log, f"the split in the base's {paths.PARAMS} cannot be read to compare", consent)
        return
    if before is None:
        return
    old = dict(_deciding(before))
    changed = [
        f"{name} {_told(old[name])} → {_told(value)}"
        for name, value in _deciding(params)
        if old[name] != value
    ]
    if changed:
        why = (
            f"the split changed ({'; '.join(changed)}): other rows are tested, and some of them "
            "the champion may have been trained on"
        )
        _ask(log, why, consent)


def guard_clock(log: GateLog, base: BaseRevision | None, params: Params, consent: Consent) -> None:
    """Block a change that judges freshness at an earlier moment without consent.

    The clock may go back for a good reason, but the data are not younger for it. Of base parameters
    that cannot be read `guard_split` tells.

    Args:
        log: Takes the reasons and notes.
        base: The base with a model; None if there is none.
        params: The change's parameters.
        consent: What a maintainer agreed to.
    """
    try:
        old = _params_of(base)
    except (yaml.YAMLError, ValidationError):
        return
    if old is None:
        return
    before, now = old.data.as_of, params.data.as_of
    if now == "now" or (before != "now" and before <= now):
        return
    why = (
        f"data.as_of went back, {_told(before)} → {_told(now)}: freshness is judged at an earlier "
        "moment, so older data pass"
    )
    _ask(log, why, consent)


def guard_outcomes(
    log: GateLog, base: BaseRevision | None, schema: Schema, consent: Consent
) -> None:
    """Block a change that lets the model see what is known only after the fact, without consent.

    Such a model is better in every comparison, and has nothing to go by when it is asked. Whether
    the base was right about the column, only a person knows.

    Args:
        log: Takes the reasons and notes.
        base: The base with a model; None if there is none.
        schema: The change's schema.
        consent: What a maintainer agreed to.
    """
    text = base.read(paths.SCHEMA) if base else None
    if text is None:
        return
    try:
        old = parse_settings(text, Schema, f"the base's {paths.SCHEMA}")
    except SettingsError as error:
        log.notes.append(f"Which columns are outcomes was not compared: {error}")
        return
    seen = [
        f"`{name}`"
        for name, column in old.columns.items()
        if column.outcome and name in schema.columns and not schema.columns[name].outcome
    ]
    if seen:
        why = (
            f"{paths.SCHEMA}: {', '.join(seen)}: an outcome in the base, known only after the "
            "fact, and here no more: a model that sees it looks better than it can be"
        )
        _ask(log, why, consent)


def _params_of(base: BaseRevision | None) -> Params | None:
    """The base's parameters; None without a base or such a file.

    Raises:
        YAMLError: If the file cannot be read.
        ValidationError: If it holds something else.
    """
    text = base.read(paths.PARAMS) if base else None
    return None if text is None else Params.model_validate(load_yaml(text))


def _deciding(part: BaseModel, where: str = "") -> Iterator[tuple[str, Any]]:
    """The parameters that decide which rows are tested: all that do not say that they do not."""
    for key, field in type(part).model_fields.items():
        if any(isinstance(one, KeepsTestRows) for one in field.metadata):
            continue
        value = getattr(part, key)
        if isinstance(value, BaseModel):
            yield from _deciding(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)
