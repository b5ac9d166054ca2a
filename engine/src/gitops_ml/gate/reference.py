"""The reference: a model that may not be undercut in total, however many small steps led there.

The champion changes with each change that passes, so a margin bounds one step only. The reference
stays: without a word in the contract it is the first model in the base's history that predicts the
same target and was not blocked, and `model.reference` of the contract names another one, which only
a maintainer can consent to. The `erosion` terms say how much worse than it a model may be. The
comparison is the champion's: the same rows, the same paired bootstrap, the same confidence.

It does not follow the best model so far by itself. Of many models that are equally good, the best
is the luckiest, and those that come after it would be blocked for no fault of theirs. The report
says when a model has won more than noise and allowance together: then it is worth moving.

    make reference      # name the model of this working tree
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import yaml

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, LockedOutput, locked_output
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import BaseRevision, GitError, git
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.settings import (
    Contract,
    MetricTerms,
    ModelTerms,
    Params,
    SliceTerms,
    parse_settings,
)
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.gate.challenger import current_model
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judgement import Judge, Opponent
from gitops_ml.gate.verdict import Consent, Finding, ModelRecord, ReferenceRecord
from gitops_ml.github.passed import was_blocked

_HERE = re.compile(r"^  reference:.*$", re.MULTILINE)
_MODEL = re.compile(r"^model:[ \t]*(?:#.*)?$", re.MULTILINE)
_MOVE = (
    "`make reference` names this model as the reference; a maintainer must consent to that, see "
    "docs/pull-requests.md"
)


# Brings a commit's model back and lets it answer, as `find_opponent` does.
Ask = Callable[[GateLog, BaseRevision, LockedOutput], tuple[ModelRecord, Opponent | None]]


@dataclass(frozen=True)
class Reference:
    """The reference of a judgement.

    Attributes:
        record: What it is.
        opponent: Its answers; None if it is the challenger or cannot be compared with.
    """

    record: ReferenceRecord
    opponent: Opponent | None = None


def find_reference(
    log: GateLog,
    base: BaseRevision | None,
    terms: ModelTerms,
    params: Params,
    challenger: str,
    champion: tuple[ModelRecord | None, Opponent | None],
    ask: Ask,
    consent: Consent,
) -> Reference | None:
    """Find the reference that the erosion terms go by, and let it answer.

    Args:
        log: Takes the reasons and notes.
        base: The base with a model; None if there is none.
        terms: What applies.
        params: The change's parameters.
        challenger: DVC's hash of the model to be judged.
        champion: The base's model and its answers, which are asked for once only.
        ask: Lets the reference answer, if it is another one.
        consent: What a maintainer agreed to.

    Returns:
        None if no term goes by it, or if there is none.

    Raises:
        GitError: If the history cannot be read.
    """
    if not any(erosion_terms(terms.metrics, terms.slices)):
        return None
    if base is None:
        log.notes.append("No reference yet: the first model that passes is what later ones erode.")
        return None
    named = terms.reference is not None
    if terms.reference == challenger:
        same = ModelRecord(hash=challenger, source="same")
        return Reference(ReferenceRecord(model=same, commit=None, named=True))
    found = locate(base, terms.reference, params)
    if found is None:
        _say_missing(log, terms.reference, consent)
        return None
    there, model = found
    record, opponent = champion
    if record is None or record.hash != model.hash:
        record, opponent = _ask(log, there, model, ask)
    # Otherwise it is there already, or it has been said that it cannot be had.
    return Reference(ReferenceRecord(model=record, commit=there.commit, named=named), opponent)


def judge_erosion(
    log: GateLog,
    reference: Reference | None,
    metrics: Mapping[str, MetricTerms],
    slices: Sequence[SliceTerms],
    court: Judge,
    test: pl.DataFrame,
) -> tuple[Finding, ...]:
    """Hold the challenger against the reference.

    Args:
        log: Takes the notes.
        reference: The reference; None without one.
        metrics: The terms of metrics on all rows.
        slices: The terms of metrics inside the values of a column.
        court: The one that held the challenger against the champion.
        test: The n test rows.

    Returns:
        A finding for each erosion term; none where there is nothing to compare with.
    """
    if reference is None or reference.opponent is None:
        return ()
    # What is served may erode, not what its recipe gives in the mean.
    against = replace(
        court, opponent=reference.opponent, against="reference", key=".erosion", retrained=()
    )
    on_all, inside = erosion_terms(metrics, slices)
    findings = (*against.metrics(on_all), *against.slices(inside, test))
    _advise(log, findings)
    return findings


def erosion_terms(
    metrics: Mapping[str, MetricTerms], slices: Sequence[SliceTerms] = ()
) -> tuple[dict[str, MetricTerms], list[SliceTerms]]:
    """The same terms, with what may be lost in total as the margin, where they say it."""
    on_all = {
        name: MetricTerms(margin=part.erosion)
        for name, part in metrics.items()
        if part.erosion is not None
    }
    inside = [
        SliceTerms(
            column=part.column, metric=part.metric, min_rows=part.min_rows, margin=part.erosion
        )
        for part in slices
        if part.erosion is not None
    ]
    return on_all, inside


def locate(
    base: BaseRevision, named: str | None, params: Params
) -> tuple[BaseRevision, LockedOutput] | None:
    """Where the reference is in the base's history.

    Args:
        base: What is judged against.
        named: The hash of the model that the contract names; None for the first one that predicts
            what the challenger does and was not blocked.
        params: The change's parameters.

    Returns:
        The commit, like a base to be judged against, and its model; None if there is no such model.

    Raises:
        GitError: If the history cannot be read.
    """
    for commit in _commits_of_models(base, named):
        try:
            model = locked_output(base.read(paths.DVC_LOCK, commit), paths.MODELS, commit)
        except DvcError:
            continue
        if model is None:
            continue
        if model.hash != named if named else not _may_be_first(base, commit, params):
            continue
        revision = f"the reference {commit[:10]}"
        there = replace(base, revision=revision, commit=commit, fork=commit, made=None, proven=True)
        return there, model
    return None


def _commits_of_models(base: BaseRevision, named: str | None) -> Iterator[str]:
    """The commits that changed the lock, of those that name a certain model, the oldest first."""
    # On the line of first parents are those that were on main; a name may be of any.
    which = ["--first-parent"] if named is None else ["-m", f"-S{named}"]
    listed = git(
        base.root,
        *("-c", "log.showSignature=false", "log", "--reverse", "--format=%H", *which, base.commit),
        *("--", paths.DVC_LOCK.as_posix()),
    )
    if listed.returncode != 0:
        raise GitError(f"the history of {paths.DVC_LOCK}: {listed.stderr.strip()}")
    yield from dict.fromkeys(listed.stdout.split())


def _may_be_first(base: BaseRevision, commit: str, params: Params) -> bool:
    """Whether a commit's model predicts the same target in the same task, and was not blocked."""
    try:
        theirs = load_yaml(base.read(paths.PARAMS, commit) or "")
        alike = (theirs["task"], theirs["target"]) == (params.task, params.target)
    except (yaml.YAMLError, KeyError, TypeError):
        return False
    return alike and (commit == base.commit or not was_blocked(commit, base.root))


def _say_missing(log: GateLog, named: str | None, consent: Consent) -> None:
    if named is None:
        log.notes.append("No reference yet: no model in the base's history predicts this target.")
        return
    why = f"{paths.CONTRACT}: model.reference: no commit of the base has the model {named}"
    if consent.accept_new_baseline is None:
        log.reasons.append(f"{why}; {_MOVE}")
    else:
        log.notes.append(f"{why}.")


def _ask(
    log: GateLog, there: BaseRevision, model: LockedOutput, ask: Ask
) -> tuple[ModelRecord, Opponent | None]:
    aside = GateLog()
    record, opponent = ask(aside, there, model)
    log.notes += [_of_reference(note) for note in aside.notes]
    log.reasons += [f"{_of_reference(reason)}\nor {_MOVE}" for reason in aside.reasons]
    if record.source == "not found" and not aside.reasons:
        log.notes.append(f"The next change will meet the same reference, unless it moves: {_MOVE}.")
    return record, opponent


def _of_reference(text: str) -> str:
    """What is said of a champion and the base, said of the reference and its commit."""
    return text.replace("champion", "reference").replace("the base", "its commit")


def _advise(log: GateLog, findings: Sequence[Finding]) -> None:
    if any(found.failures for found in findings):
        log.notes.append(
            "Each step may have been small: together they lost more than the contract allows since "
            f"the reference. Whoever accepts the loss moves the reference: {_MOVE}."
        )
    elif any(_gained(found) for found in findings):
        log.notes.append(
            "This model is better than the reference by more than may be lost again. To keep what "
            f"was won, move the reference: {_MOVE}."
        )


def _gained(found: Finding) -> bool:
    worst = found.low if found.direction > 0 else found.high
    return worst is not None and found.margin is not None and found.direction * worst > found.margin


def name_reference(root: Path) -> str:
    """Let `contract.yaml` name the working tree's model as the reference; gives its hash.

    Raises:
        GitopsError: If there is no model that is up to date, or no place for the line.
    """
    model = current_model(root).hash
    path = root / paths.CONTRACT
    line = f"  reference: {model}"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GitopsError(f"{path}: cannot be read: {error}; run `make contract`") from error
    if _HERE.search(text):
        text = _HERE.sub(line, text, count=1)
    else:
        text = _MODEL.sub(lambda found: f"{found[0]}\n{line}", text, count=1)
    written = parse_settings(text, Contract, str(paths.CONTRACT), known_metrics(root))
    if written.model.reference != model:
        raise GitopsError(f"{path}: write below `model:` yourself:\n{line}")
    path.write_text(text, encoding="utf-8")
    return model
