"""What the data lose in small steps is added up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gitops_ml.core import paths
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import DataTerms, ModelTerms, Params
from gitops_ml.data.profile import make_profile
from gitops_ml.gate.data_drift import (
    ROWS_TERM,
    TERM,
    distance,
    judge_data_drift,
    reference_commit,
)
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.reference import Reference
from gitops_ml.gate.verdict import Consent, Limit, ModelRecord, ReferenceRecord

SCHEMA = Schema.model_validate(
    {
        "columns": {
            "late": {"type": "boolean", "feature": False},
            "carrier": {"type": "category", "categories": ["AA", "UA"]},
            "heat": {"type": "number", "nullable": True},
        }
    }
)
PARAMS = Params.model_validate(
    {
        "task": "classification",
        "target": "late",
        "data": {"source": "data"},
        "train": {"estimator": "sklearn.dummy.DummyClassifier"},
        "evaluate": {"metrics": ["roc_auc"]},
    }
)
STEP = {"min": -0.05, "max": 1.0}
MODEL = ModelTerms.model_validate(
    {"metrics": {"roc_auc": {"floor": 0.5}}, "size_mb": 1, "latency_p99_ms": 1}
)


def flights(rows: int = 10_000) -> pl.DataFrame:
    draw = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "late": draw.random(rows) < 0.212,
            "carrier": draw.choice(["AA", "UA"], rows),
            "heat": draw.normal(50, 10, rows),
        }
    )


def without_late(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    """Some rows fewer, all of them late."""
    late = rows["late"].arg_true().head(int(share * len(rows)))
    return rows.with_row_index("n").filter(~pl.col("n").is_in(late.implode())).drop("n")


class History:
    """A repository whose commits each have a profile of their data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits: list[str] = []
        self._git("init", "-q")

    def _git(self, *words: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        command = ["git", *identity, *words]
        return subprocess.run(
            command, cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, rows: pl.DataFrame | None, text: str = "") -> None:
        told = text if rows is None else make_profile(rows, SCHEMA, "0").model_dump_json()
        path = self.root / paths.DATA_PROFILE
        path.parent.mkdir(exist_ok=True)
        path.write_text(told, encoding="utf-8")
        self._git("add", "--all", "--force")
        self._git("commit", "-qm", "Step", "--allow-empty")
        self.commits.append(self._git("rev-parse", "HEAD"))

    @property
    def base(self) -> BaseRevision:
        head = self.commits[-1]
        return BaseRevision(root=self.root, prefix="", revision="main", commit=head, fork=head)

    def judge(
        self, rows: pl.DataFrame, consent: Consent | None = None, **terms: Any
    ) -> tuple[dict[str, Limit], GateLog]:
        log = GateLog()
        found = judge_data_drift(
            log,
            rows,
            self.base,
            self.commits[0],
            SCHEMA,
            PARAMS,
            DataTerms.model_validate(terms),
            consent or Consent(),
        )
        return {limit.term: limit for limit in found}, log


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def test_five_small_deletions_of_one_class_do_not_pass(history: History) -> None:
    rows, passed = flights(), 0
    history.commit(rows)
    for _ in range(5):
        rows = without_late(rows, 0.049)
        limits, _log = history.judge(rows, row_count_change=STEP)
        passed += not any(limit.failures for limit in limits.values())
        history.commit(rows)
    assert rows["late"].mean() == pytest.approx(0.0, abs=0.01)
    assert passed == 1
    assert limits[TERM].value > 0.2
    (why,) = limits[TERM].failures
    assert why.startswith(f"`late` is distributed otherwise than in the data of the reference "
                          f"{history.commits[0][:10]}: it moved by 0.2")  # fmt: skip
    assert "0.05 may (data.target_drift). If it is meant, a maintainer can consent" in why
    assert "`make reference`" in why


def test_new_rows_do_not_hide_what_is_deleted(history: History) -> None:
    rows = flights()
    history.commit(rows)
    grown = pl.concat([without_late(rows, 0.15), flights(3000)])
    history.commit(grown)
    limits, _ = history.judge(grown, row_count_change=STEP)
    assert limits[ROWS_TERM].failures == ()
    assert limits[TERM].failures


def test_what_no_target_tells_the_number_of_rows_does(history: History) -> None:
    rows = flights()
    history.commit(rows)
    for _ in range(2):
        rows = rows.head(int(0.951 * len(rows)))
        limits, _ = history.judge(rows, row_count_change=STEP)
        history.commit(rows)
    assert limits[TERM].failures == ()
    (why,) = limits[ROWS_TERM].failures
    assert why.startswith("9,044 rows are left of 10,000 that the reference")
    assert "-9.56 % in all steps together; -5 % may (data.row_count_change)" in why
    # Against the base alone, that is another limit.
    history.commits = history.commits[:1]
    limits, _ = history.judge(rows, row_count_change=STEP)
    assert ROWS_TERM not in limits


def test_new_rows_of_the_same_kind_pass(history: History) -> None:
    history.commit(flights())
    limits, log = history.judge(flights(15_000), row_count_change=STEP)
    assert limits[TERM].value < 0.02
    assert (limits[TERM].failures, log.notes) == ((), [])


def test_with_consent_it_is_a_note(history: History) -> None:
    history.commit(flights())
    limits, log = history.judge(
        without_late(flights(), 0.1), Consent(allow_loosening=True), row_count_change=STEP
    )
    assert limits[TERM].failures == ()
    assert log.notes[0].startswith("With a maintainer's consent: `late` is distributed otherwise")


def test_columns_that_moved_are_named(history: History) -> None:
    history.commit(flights())
    moved = flights().with_columns(pl.lit("AA").alias("carrier"), pl.col("heat") + 5)
    _, log = history.judge(moved)
    (note,) = log.notes
    assert "standard deviations: `heat` 0.51, `carrier` 0.49." in note


@pytest.mark.parametrize("text", ["", "no JSON", '{"rows": 10}'])
def test_a_reference_that_does_not_tell_is_noted(history: History, text: str) -> None:
    history.commit(None, text)
    limits, log = history.judge(flights())
    assert limits == {}
    assert "has no reports/data_profile.json that can be read" in log.notes[0]


def test_without_a_reference_nothing_is_asked(history: History) -> None:
    history.commit(flights())
    log = GateLog()
    some = (SCHEMA, PARAMS, DataTerms(), Consent())
    assert judge_data_drift(log, flights(), history.base, None, *some) == ()
    assert judge_data_drift(log, flights(), None, history.commits[0], *some) == ()
    assert judge_data_drift(log, flights().head(0), history.base, "", *some) == ()
    assert log.notes == []


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"null_share": 0.0, "mean": 0.2}, {"null_share": 0.0, "mean": 0.5}, 0.3),
        ({"null_share": 0.0, "mean": 0.2}, {"null_share": 0.4, "mean": 0.2}, 0.4),
        (
            {"null_share": 0.0, "shares": {"a": 1.0}},
            {"null_share": 0.1, "shares": {"a": 0.7, "b": 0.2}},
            0.3,
        ),
        (
            {"null_share": 0.0, "min": 0, "max": 9, "mean": 4.0, "std": 2.0},
            {"null_share": 0.0, "min": 0, "max": 9, "mean": 5.0, "std": 2.0},
            0.5,
        ),
        (
            {"null_share": 0.0, "min": 4, "max": 4, "mean": 4.0, "std": 0.0},
            {"null_share": 0.0, "min": 5, "max": 5, "mean": 5.0, "std": 0.0},
            1.0,
        ),
        (
            {"null_share": 0.0, "min": 0, "max": 9, "mean": 4.0},
            {"null_share": 0.0, "min": 0, "max": 9, "mean": 5.0, "std": 2.0},
            None,
        ),
        ({"null_share": 0.0, "min": "2013", "max": "2014"}, {"null_share": 0.0}, None),
    ],
)
def test_how_far_a_column_moved(
    before: dict[str, Any], now: dict[str, Any], expected: float | None
) -> None:
    assert distance(before, now) == (None if expected is None else pytest.approx(expected))


def test_the_reference_is_that_of_erosion(history: History) -> None:
    same = ModelRecord(hash=32 * "0" + ".dir", source="same")
    known = Reference(ReferenceRecord(model=same, commit="abc", named=False))
    assert reference_commit(None, known, MODEL, PARAMS, "x") == "abc"
    assert reference_commit(None, None, MODEL, PARAMS, "x") is None
    outs = [{"path": "models", "md5": same.hash}]
    lock = {"schema": "2.0", "stages": {"train": {"cmd": "gitops-ml train", "outs": outs}}}
    (history.root / paths.DVC_LOCK).write_text(json.dumps(lock), encoding="utf-8")
    params = PARAMS.model_dump(mode="json")
    (history.root / paths.PARAMS).write_text(json.dumps(params), encoding="utf-8")
    history.commit(flights())
    history.commit(flights())
    found = reference_commit(history.base, None, MODEL, PARAMS, "x")
    assert found == history.commits[0]
    itself = MODEL.model_copy(update={"reference": same.hash})
    assert reference_commit(history.base, None, itself, PARAMS, same.hash) is None
    other = MODEL.model_copy(update={"reference": 32 * "1" + ".dir"})
    assert reference_commit(history.base, None, other, PARAMS, "x") is None
