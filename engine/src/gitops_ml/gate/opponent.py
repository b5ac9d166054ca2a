"""Champion and challenger side by side: the champion's answers for the challenger's test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput, locked_output
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.settings import Params
from gitops_ml.gate.challenger import Challenger, score
from gitops_ml.gate.champion import CannotScoreError, Champion, ChampionError, bring_back
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judgement import Opponent
from gitops_ml.gate.verdict import Consent, ModelRecord
from gitops_ml.github.labels import NEW_BASELINE_LABEL
from gitops_ml.model.predictor import ModelError, read_manifest

# Share of the challenger's test rows that must be the champion's test rows too, where the champion
# can only answer for its own.
OVERLAP_MIN = 0.5


def champion_of(log: GateLog, base: BaseRevision | None) -> LockedOutput | None:
    """The model that the base names; None, with a note, if there is none yet.

    Raises:
        GitError: If the base's `dvc.lock` cannot be read.
    """
    if base is None:
        log.notes.append("No champion yet: there is no commit to compare with. Floors only.")
        return None
    model = locked_output(
        base.read(paths.DVC_LOCK), paths.MODELS, f"{base.revision}:{paths.DVC_LOCK}"
    )
    if model is None:
        log.notes.append(f"No champion yet: {base.revision} names no model. Floors only.")
    return model


def find_opponent(
    log: GateLog,
    base: BaseRevision,
    model: LockedOutput,
    params: Params,
    challenger: Challenger,
    consent: Consent,
) -> tuple[ModelRecord, Opponent | None]:
    """Bring the champion back and let it answer.

    A champion that cannot be compared with blocks the change, unless a maintainer accepts the
    challenger as a new baseline.

    Returns:
        What the champion is, and its answers; None if it is the challenger itself or if it cannot
        be compared with.

    Raises:
        GitError: If DVC cannot be asked where the base's model may be.
    """
    if model.hash == challenger.locked.hash:
        return ModelRecord(hash=model.hash, source="same"), None
    record = ModelRecord(hash=model.hash, source="not found")
    opponent = None
    try:
        with bring_back(base, model) as champion:
            record = ModelRecord(hash=model.hash, source=champion.source)
            manifest = _comparable_manifest(champion, challenger)
            record = record.model_copy(update={"sha256": manifest["files"][manifest["served"]]})
            opponent = _answers(log, base.root, champion, params, challenger)
            log.notes += champion.notes
    except ChampionError as error:
        why = f"the champion cannot be compared with: {error}"
        if consent.accept_new_baseline is None:
            log.reasons.append(
                f"{why}\na maintainer can accept this model without a comparison, with the label "
                f'`{NEW_BASELINE_LABEL}` on the pull request, or --accept-new-baseline "<reason>"'
            )
        else:
            log.notes.append(f"{why[0].upper()}{why[1:]}")
    return record, opponent


def _comparable_manifest(champion: Champion, challenger: Challenger) -> dict[str, Any]:
    try:
        theirs = read_manifest(champion.project / paths.MODELS)
    except ModelError as error:
        raise CannotScoreError(str(error)) from error
    ours = challenger.predictor.manifest
    for key in ("task", "target"):
        if theirs.get(key) != ours[key]:
            raise CannotScoreError(
                f"its {key} is `{theirs.get(key)}`, this model's is `{ours[key]}`"
            )
    return theirs


def _answers(
    log: GateLog, root: Path, champion: Champion, params: Params, challenger: Challenger
) -> Opponent:
    out = champion.scratch / "answers.parquet"
    try:
        champion.predict((root / paths.TEST).resolve(), out)
    except CannotScoreError as error:
        opponent = _answers_for_own_rows(champion, params, challenger, str(error))
        log.notes.append(
            f"The champion cannot answer for this test set ({error}). It answered for its own; "
            f"compared on the {len(opponent.rows)} of {len(challenger.test)} rows that are in both."
        )
        return opponent
    return _opponent(challenger, params, pl.read_parquet(out), np.arange(len(challenger.test)))


def _answers_for_own_rows(
    champion: Champion, params: Params, challenger: Challenger, why: str
) -> Opponent:
    key = list(params.data.key)
    if not key:
        raise CannotScoreError(f"{why}\nand without data.key its rows cannot be paired with these")
    path = champion.test_rows()
    if path is None:
        raise CannotScoreError(f"{why}\nand its own test set is in neither the cache nor a remote")
    own = pl.read_parquet(path)
    if not set(key) <= set(own.columns):
        raise CannotScoreError(f"{why}\nand its own test set has no columns {', '.join(key)}")
    ours = challenger.test.select(key).with_row_index("row")
    theirs = own.select(key).with_row_index("answer")
    try:
        pairs = ours.join(theirs, on=key, how="inner", validate="1:1").sort("row")
    except pl.exceptions.PolarsError as error:
        raise CannotScoreError(f"{why}\nand its rows cannot be paired: {error}") from error
    if len(pairs) < OVERLAP_MIN * len(ours):
        raise CannotScoreError(
            f"{why}\nand only {len(pairs)} of {len(ours)} test rows are in its own test set"
        )
    out = champion.scratch / "own_answers.parquet"
    champion.predict(path, out)
    answers = pl.read_parquet(out)[pairs.get_column("answer")]
    return _opponent(challenger, params, answers, pairs.get_column("row").cast(pl.Int64).to_numpy())


def _opponent(challenger: Challenger, params: Params, answers: pl.DataFrame, rows: Any) -> Opponent:
    if "prediction" not in answers.columns or len(answers) != len(rows):
        raise CannotScoreError(
            f"it gave {len(answers)} answers for {len(rows)} rows, "
            f"in columns {', '.join(answers.columns)}"
        )
    truth = challenger.test.get_column(params.target)[rows]
    classes = tuple(challenger.predictor.manifest["classes"] or ())
    return Opponent(score(truth, answers, classes), rows)
