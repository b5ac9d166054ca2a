"""Champion and challenger side by side: the champion's answers for the challenger's test rows."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput, locked_output, read_lock
from gitops_ml.core.environment import LockedVersionsError, locked_versions
from gitops_ml.core.git import BaseRevision, git
from gitops_ml.core.settings import Params
from gitops_ml.features.matrix import TableError
from gitops_ml.gate.base_rows import BaseRows, Split
from gitops_ml.gate.challenger import score
from gitops_ml.gate.champion import Champion, bring_back
from gitops_ml.gate.contestant import CannotScoreError, ContestantError, write_rows
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judged_model import ModelFiles
from gitops_ml.gate.judgement import Opponent
from gitops_ml.gate.recorded_model import RecordedModel, recorded_model
from gitops_ml.gate.retrain import let_retrain
from gitops_ml.gate.verdict import Consent, ModelRecord
from gitops_ml.github.labels import NEW_BASELINE_LABEL
from gitops_ml.model.predictor import ModelError, read_manifest

# Share of the challenger's test rows that must be the champion's test rows too, where the champion
# can only answer for its own.
OVERLAP_MIN = 0.5
_OWN_ROWS = "own_rows.parquet"
# Of the locked versions, and of the engine: what answers with a trained model.
_PREDICTING_PARTS = ("tables", "model", "project")
_PREDICTING_ROOMS = ("core", "features", "model")


def champion_of(log: GateLog, base: BaseRevision | None) -> RecordedModel | None:
    """The model that the base records; None, with a note, if there is none yet.

    Raises:
        GitError: If the base's history cannot be read.
    """
    if base is None:
        log.notes.append("No champion yet: there is no commit to compare with. Floors only.")
        return None
    recorded, note = recorded_model(base)
    if note is not None:
        log.notes.append(note)
    if recorded is None:
        log.notes.append(f"No champion yet: {base.revision} names no model. Floors only.")
    return recorded


@dataclass(frozen=True)
class Question:
    """What a champion is asked.

    Attributes:
        params: The change's parameters.
        test: The n test rows.
        hidden: Columns that no contestant sees.
        home: The project whose locked environment this process runs in.
        seeds: With how many seeds it trains its recipe again; 1 asks its recorded model alone.
    """

    params: Params
    test: pl.DataFrame
    hidden: frozenset[str]
    home: Path
    seeds: int = 1


def find_opponent(
    log: GateLog,
    base: BaseRevision,
    model: LockedOutput,
    challenger: ModelFiles,
    question: Question,
    consent: Consent,
    *,
    with_rows: bool = False,
) -> tuple[ModelRecord, Opponent | None, BaseRows | None]:
    """Bring the champion back and let it answer.

    A champion that cannot be compared with blocks the change, unless a maintainer accepts the
    challenger as a new baseline.

    Returns:
        What the champion is, and its answers; None if it is the challenger itself or if it cannot
        be compared with. And the base's own rows, if asked for; None if this change has the same.

    Raises:
        GitError: If DVC cannot be asked where the base's model may be.
    """
    same_rows = not with_rows or _same_rows(base)
    same_model = model.hash == challenger.locked.hash
    elsewhere = other_surroundings(base) if same_model else []
    if same_model and not elsewhere and same_rows:
        return ModelRecord(hash=model.hash, source="same"), None, None
    if elsewhere:
        log.notes.append(
            f"The same model, but {' and '.join(elsewhere)} may make it answer otherwise than at "
            "the base: it is judged like another one."
        )
    record = ModelRecord(hash=model.hash, source="not found")
    opponent, base_rows = None, None
    try:
        with bring_back(base, model, question.home) as champion:
            record = ModelRecord(hash=model.hash, source=champion.source)
            manifest = _comparable_manifest(champion, challenger)
            record = record.model_copy(update={"sha256": manifest["files"][manifest["served"]]})
            if same_model and not elsewhere:
                record = record.model_copy(update={"source": "same"})
            else:
                opponent = _answers(log, champion, challenger, question)
            if not same_rows:
                base_rows = _base_rows(champion, manifest, question.hidden)
            log.notes += champion.notes
    except ContestantError as error:
        why = f"the champion cannot be compared with: {error}"
        if consent.accept_new_baseline is None:
            log.reasons.append(
                f"{why}\na maintainer can accept this model without a comparison, with the label "
                f'`{NEW_BASELINE_LABEL}` on the pull request, or --accept-new-baseline "<reason>"'
            )
        else:
            log.notes.append(f"{why[0].upper()}{why[1:]}")
    return record, opponent, base_rows


def _same_rows(base: BaseRevision) -> bool:
    """Whether the base was trained and tested on the very rows that are here."""
    name, folder = str(paths.DVC_LOCK), paths.TEST.parent
    theirs = locked_output(base.read(paths.DVC_LOCK), folder, f"{base.revision}:{name}")
    ours = locked_output(read_lock(base.root), folder, name)
    return theirs is not None and ours is not None and theirs.hash == ours.hash


def _base_rows(
    champion: Champion, manifest: Mapping[str, Any], hidden: Collection[str]
) -> BaseRows:
    path = champion.test_rows()
    rows = Split(pl.read_parquet(path.with_name(paths.TRAIN.name)), pl.read_parquet(path))
    answers = _own_answers(champion, rows.test, hidden)
    return BaseRows(rows, answers, tuple(manifest["classes"] or ()), manifest.get("threshold"))


def _own_answers(champion: Champion, own: pl.DataFrame, hidden: Collection[str]) -> pl.DataFrame:
    asked = write_rows(own, hidden, champion.scratch / _OWN_ROWS)
    out = champion.scratch / "own_answers.parquet"
    champion.predict(asked, out)
    answers = pl.read_parquet(out)
    _check_answers(answers, len(own))
    return answers


def other_surroundings(base: BaseRevision) -> list[str]:
    """What answers with a model, beside its files, and is not the base's.

    The libraries that predict are no part of a model's hash, nor is the engine.
    """
    found = []
    lock = base.root / paths.UV_LOCK
    here = lock.read_text(encoding="utf-8") if lock.exists() else None
    if _predicting(base.read(paths.UV_LOCK)) != _predicting(here):
        found.append("other libraries")
    if not base.same_file(paths.PYTHON_VERSION):
        found.append("another Python")
    rooms = [f"engine/src/gitops_ml/{room}" for room in _PREDICTING_ROOMS]
    if git(base.root, "diff", "--quiet", base.commit, "--", *rooms).returncode == 1:
        found.append("another engine")
    return found


def _predicting(lock: str | None) -> Any:
    """What a lock says of the libraries that predict; its text where it does not say it.

    Also where they are from and what their hashes are: a version is but a name.
    """
    if lock is None:
        return None
    try:
        versions = locked_versions(lock)
    except LockedVersionsError:
        return lock
    names = {name for part in _PREDICTING_PARTS for name in versions[part]}
    return [one for one in tomllib.loads(lock)["package"] if one["name"] in names]


def _comparable_manifest(champion: Champion, challenger: ModelFiles) -> dict[str, Any]:
    try:
        theirs = read_manifest(champion.project / paths.MODELS)
    except ModelError as error:
        raise CannotScoreError(str(error)) from error
    ours = challenger.manifest
    for key in ("task", "target"):
        if theirs.get(key) != ours[key]:
            raise CannotScoreError(
                f"its {key} is `{theirs.get(key)}`, this model's is `{ours[key]}`"
            )
    return theirs


def _answers(
    log: GateLog, champion: Champion, challenger: ModelFiles, question: Question
) -> Opponent:
    asked = write_rows(question.test, question.hidden, champion.scratch / "rows.parquet")
    out = champion.scratch / "answers.parquet"
    try:
        champion.predict(asked, out)
    except CannotScoreError as error:
        opponent = _answers_for_own_rows(champion, challenger, question, str(error))
        log.notes.append(
            f"The champion cannot answer for this test set ({error}). It answered for its own; "
            f"compared on the {len(opponent.rows)} of {len(question.test)} rows that are in both."
        )
        return opponent
    everything = np.arange(len(question.test))
    return _opponent(
        challenger,
        question,
        [pl.read_parquet(out), *_retrained(champion, question, asked, len(everything))],
        everything,
    )


def _retrained(
    champion: Champion, question: Question, asked: Path, rows: int
) -> Sequence[pl.DataFrame]:
    """What the champion's recipe answers with other seeds; nothing if that is not asked."""
    if question.seeds == 1:
        return ()
    train = champion.test_rows().with_name(paths.TRAIN.name)
    try:
        return let_retrain(champion, train, asked, question.seeds, rows)
    except (CannotScoreError, TableError) as error:
        raise CannotScoreError(
            f"its recipe cannot be trained again with {question.seeds} seeds (model.seeds of "
            f"{paths.CONTRACT}): {error}"
        ) from error


def _answers_for_own_rows(
    champion: Champion, challenger: ModelFiles, question: Question, why: str
) -> Opponent:
    key = list(question.params.data.key)
    if not key:
        raise CannotScoreError(f"{why}\nand without data.key its rows cannot be paired with these")
    path = champion.test_rows()
    own = pl.read_parquet(path)
    if not set(key) <= set(own.columns):
        raise CannotScoreError(f"{why}\nand its own test set has no columns {', '.join(key)}")
    ours = question.test.select(key).with_row_index("row")
    theirs = own.select(key).with_row_index("answer")
    try:
        pairs = ours.join(theirs, on=key, how="inner", validate="1:1").sort("row")
    except pl.exceptions.PolarsError as error:
        raise CannotScoreError(f"{why}\nand its rows cannot be paired: {error}") from error
    if len(pairs) < OVERLAP_MIN * len(ours):
        raise CannotScoreError(
            f"{why}\nand only {len(pairs)} of {len(ours)} test rows are in its own test set"
        )
    asked = champion.scratch / _OWN_ROWS
    tables = [
        _own_answers(champion, own, question.hidden),
        *_retrained(champion, question, asked, len(own)),
    ]
    rows = pairs.get_column("row").cast(pl.Int64).to_numpy()
    answers = pairs.get_column("answer")
    return _opponent(challenger, question, [table[answers] for table in tables], rows)


def _opponent(
    challenger: ModelFiles, question: Question, tables: Sequence[pl.DataFrame], rows: Any
) -> Opponent:
    """Put answers beside what happened: those of the recorded model first."""
    truth = question.test.get_column(question.params.target)[rows]
    for table in tables:
        _check_answers(table, len(rows))
    recorded, *retrained = (score(truth, table, challenger.classes) for table in tables)
    return Opponent(recorded, rows, retrained)


def _check_answers(answers: pl.DataFrame, rows: int) -> None:
    if "prediction" not in answers.columns or len(answers) != rows:
        raise CannotScoreError(
            f"it gave {len(answers)} answers for {rows} rows, "
            f"in columns {', '.join(answers.columns)}"
        )
