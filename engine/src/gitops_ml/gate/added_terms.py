"""Terms on metrics that only the change defines, measured by a process of the change.

    gitops-ml added-terms --case FOLDER

The judge runs no code of the change, and the base's code does not know these metrics. So the
change's own process measures them, after all have answered, and says what it found. Its findings
stand beside those of the judge: they can block, they replace nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import TypeAdapter

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.settings import MetricTerms, ModelTerms, SliceTerms
from gitops_ml.gate.contestant import CannotScoreError, Contestant
from gitops_ml.gate.judgement import Judge, Opponent
from gitops_ml.gate.verdict import Finding
from gitops_ml.model.metrics import Scored

TERMS = Path("terms.json")
CHALLENGER = Path("challenger.parquet")
CHAMPION = Path("champion.parquet")
FINDINGS = Path("findings.json")

_SLICE = "slice: "
_PROBABILITY = "probability: "
_findings = TypeAdapter(tuple[Finding, ...])


class AddedTermsError(GitopsError):
    """The change's own metrics cannot be measured by its own code."""


@dataclass(frozen=True)
class AddedTerms:
    """The terms of a contract that name some metrics.

    Attributes:
        metrics: On all rows.
        slices: Inside the values of a column.
    """

    metrics: Mapping[str, MetricTerms]
    slices: Sequence[SliceTerms]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.metrics or self.slices)


def split_terms(terms: ModelTerms, added: Collection[str]) -> tuple[AddedTerms, AddedTerms]:
    """The terms that the judge can measure, and those on added metrics."""

    def part(wanted: bool) -> AddedTerms:
        return AddedTerms(
            {name: one for name, one in terms.metrics.items() if (name in added) == wanted},
            tuple(one for one in terms.slices if (one.metric in added) == wanted),
        )

    return part(False), part(True)


def measured_by_the_change(
    root: Path, home: Path, terms: AddedTerms, court: Judge, test: pl.DataFrame
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """What the change's own process finds for its own metrics.

    Args:
        root: The project's folder.
        home: The project whose locked environment this process runs in.
        terms: What it is to measure.
        court: The answers, and how they are compared.
        test: The n test rows.

    Returns:
        Findings on all rows and inside of slices; none without terms.

    Raises:
        AddedTermsError: If it fails, or finds something else than was asked.
    """
    if not terms:
        return (), ()
    with tempfile.TemporaryDirectory(prefix="added-terms-") as folder:
        case = Path(folder).resolve()
        _write_case(case, terms, court, test)
        process = Contestant(root.resolve(), case)
        process.choose_interpreter(home.resolve(), "The challenger")
        try:
            process.ask("gitops_ml", "added-terms", "--case", case)
            found = _findings.validate_json((case / FINDINGS).read_bytes())
        except (CannotScoreError, OSError, ValueError) as error:
            names = sorted({*terms.metrics, *(part.metric for part in terms.slices)})
            raise AddedTermsError(
                f"{', '.join(names)}: only this change defines it, and its own code did not "
                f"measure it: {error}"
            ) from error
    metrics = tuple(one for one in found if one.column is None)
    slices = tuple(one for one in found if one.column is not None)
    asked = {f"model.metrics.{name}" for name in terms.metrics}
    sliced = {f"model.slices.{part.column}.{part.metric}" for part in terms.slices}
    if {one.term for one in metrics} != asked or {one.term for one in slices} != sliced:
        raise AddedTermsError("the change's own code did not measure the terms that it was asked")
    return metrics, slices


def _write_case(case: Path, terms: AddedTerms, court: Judge, test: pl.DataFrame) -> None:
    columns = list(dict.fromkeys(part.column for part in terms.slices))
    groups = [] if court.groups is None else [pl.Series("group", court.groups)]
    frame = _as_frame(court.challenger).with_columns(
        *groups, *(test.get_column(name).alias(f"{_SLICE}{name}") for name in columns)
    )
    frame.write_parquet(case / CHALLENGER)
    if court.opponent is not None:
        theirs = _as_frame(court.opponent.scored)
        theirs = theirs.with_columns(pl.Series("row", court.opponent.rows))
        theirs.write_parquet(case / CHAMPION)
    document = {
        "classes": court.challenger.classes,
        "confidence": court.confidence,
        "binding": court.binding,
        "metrics": {name: part.model_dump() for name, part in terms.metrics.items()},
        "slices": [part.model_dump() for part in terms.slices],
    }
    (case / TERMS).write_text(json.dumps(document), encoding="utf-8")


def _as_frame(scored: Scored) -> pl.DataFrame:
    probability = scored.probability
    places = range(0 if probability is None else probability.shape[1])
    return pl.DataFrame(
        {
            "truth": scored.truth,
            "prediction": scored.prediction,
            **{
                f"{_PROBABILITY}{at}": probability[:, at]
                for at in places
                if probability is not None
            },
        }
    )


def _as_scored(frame: pl.DataFrame, classes: int) -> Scored:
    names = [name for name in frame.columns if name.startswith(_PROBABILITY)]
    probability = frame.select(names).to_numpy() if names else None
    return Scored(
        frame.get_column("truth").to_numpy(),
        frame.get_column("prediction").to_numpy(),
        probability,
        classes,
    )


def judge_case(case: Path, root: Path) -> tuple[Finding, ...]:
    """Judge the terms of a case with this project's own metrics.

    Args:
        case: The folder that the judge wrote.
        root: The project's folder.
    """
    document: dict[str, Any] = json.loads((case / TERMS).read_text(encoding="utf-8"))
    context = {"metrics": known_metrics(root)}
    frame = pl.read_parquet(case / CHALLENGER)
    opponent = None
    if (case / CHAMPION).exists():
        theirs = pl.read_parquet(case / CHAMPION)
        rows = theirs.get_column("row").cast(pl.Int64).to_numpy()
        opponent = Opponent(_as_scored(theirs, document["classes"]), rows)
    groups = frame.get_column("group").to_numpy() if "group" in frame.columns else None
    court = Judge(
        _as_scored(frame, document["classes"]),
        opponent,
        document["confidence"],
        None if groups is None else np.asarray(groups),
        document["binding"],
    )
    sliced = frame.select(
        pl.col(name).alias(name.removeprefix(_SLICE))
        for name in frame.columns
        if name.startswith(_SLICE)
    )
    metrics = {
        name: MetricTerms.model_validate(part, context=context)
        for name, part in document["metrics"].items()
    }
    slices = [SliceTerms.model_validate(part, context=context) for part in document["slices"]]
    return (*court.metrics(metrics), *court.slices(slices, sliced))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--case", type=Path, required=True, help="folder that the judge wrote")


def run(options: argparse.Namespace) -> int:
    """Write what was found beside the case; 0 if all could be measured."""
    found = judge_case(options.case, Path())
    (options.case / FINDINGS).write_bytes(_findings.dump_json(found))
    return 0
