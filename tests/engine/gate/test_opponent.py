"""The same model where something else answers with it is another challenger, not the champion."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.environment import PARTS
from gitops_ml.core.git import BaseRevision, find_base
from gitops_ml.core.settings import Params
from gitops_ml.gate import opponent
from gitops_ml.gate.champion import ChampionError
from gitops_ml.gate.contestant import CannotScoreError
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judged_model import ModelFiles
from gitops_ml.gate.judgement import Opponent
from gitops_ml.gate.opponent import Question, find_opponent, other_surroundings
from gitops_ml.gate.verdict import Consent, ModelRecord

MODEL = LockedOutput("1.dir", "train")
FILES = ModelFiles(MODEL, {"task": "regression", "target": "y", "classes": None}, 1)
PREDICTS = "engine/src/gitops_ml/model/predictor.py"
SHIPS = "engine/src/gitops_ml/ship/plan.py"


def package(name: str, version: str = "1.0", sha256: str = "a") -> str:
    source = 'source = { registry = "https://pypi.org/simple" }'
    wheel = f'wheels = [{{ url = "https://pypi.org/{name}.whl", hash = "sha256:{sha256}" }}]'
    return f'[[package]]\nname = "{name}"\nversion = "{version}"\n{source}\n{wheel}\n'


def lock(**changed: tuple[str, str]) -> str:
    names = [*(name for names in PARTS.values() for name in names), "ruff"]
    packages = (package(name, *changed.get(name, ("1.0", "a"))) for name in names)
    return "\n".join(["version = 1\n", *packages])


@pytest.fixture
def base(tmp_path: Path) -> BaseRevision:
    """A commit that is checked out, unchanged."""
    for name, text in (("uv.lock", lock()), (PREDICTS, "old"), (SHIPS, "old")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "--all"], [*identity, "commit", "-qm", "Start"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    found = find_base(tmp_path, "HEAD")
    assert found is not None
    return found


def test_nothing_else_answers_where_nothing_changed(base: BaseRevision) -> None:
    assert other_surroundings(base) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        # ONNX Runtime is no part of a model's hash, and polars reads the rows.
        ("uv.lock", lock(onnxruntime=("1.1", "b")), ["other libraries"]),
        ("uv.lock", lock(polars=("1.1", "b")), ["other libraries"]),
        # The same version, from another file.
        ("uv.lock", lock(onnxruntime=("1.0", "b")), ["other libraries"]),
        ("uv.lock", "no lock", ["other libraries"]),
        ("uv.lock", lock(ruff=("2.0", "b")), []),
        (".python-version", "3.12\n", ["another Python"]),
        (PREDICTS, "new", ["another engine"]),
        (SHIPS, "new", []),
    ],
)
def test_what_answers_is_compared_and_nothing_else(
    base: BaseRevision, name: str, text: str, found: list[str]
) -> None:
    (base.root / name).write_text(text, encoding="utf-8")
    assert other_surroundings(base) == found


def judged(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch
) -> tuple[GateLog, ModelRecord, list[BaseRevision]]:
    """Judge the base's own model; gives back what was brought back for it, too."""
    asked: list[BaseRevision] = []

    @contextmanager
    def bring_back(base: BaseRevision, model: LockedOutput, home: Path) -> Iterator[Any]:
        asked.append(base)
        raise ChampionError("not in this test")
        yield

    monkeypatch.setattr(opponent, "bring_back", bring_back)
    log = GateLog()
    question = Question(None, pl.DataFrame(), frozenset(), base.root)  # type: ignore[arg-type]
    record, *_ = find_opponent(log, base, MODEL, FILES, question, Consent())
    return log, record, asked


def test_the_same_model_is_the_champion_itself(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, record, asked = judged(base, monkeypatch)
    assert (record.source, asked, log.reasons) == ("same", [], [])


def test_the_same_model_in_another_environment_is_judged(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base.root / "uv.lock").write_text(lock(onnxruntime=("1.1", "b")), encoding="utf-8")
    log, record, asked = judged(base, monkeypatch)
    assert (record.source, asked) == ("not found", [base])
    assert "The same model, but other libraries may make it answer otherwise" in log.notes[0]
    assert len(log.reasons) == 1


TEST = pl.DataFrame({"id": range(20), "x": [1.0] * 20, "y": [float(row) for row in range(20)]})
PARAMS = Params.model_validate(
    {
        "task": "regression",
        "target": "y",
        "data": {"source": "data", "key": ["id"]},
        "train": {"estimator": "sklearn.dummy.DummyRegressor"},
        "evaluate": {"metrics": ["mae"]},
    }
)


@dataclass
class Played:
    """A champion that answers 7 to each row, and takes no other rows than its own."""

    project: Path
    own: pl.DataFrame
    source: str = "cache"
    notes: list[str] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        return self.project

    def test_rows(self) -> Path:
        self.own.write_parquet(self.project / "test.parquet")
        return self.project / "test.parquet"

    def predict(self, rows: Path, out: Path) -> None:
        asked = pl.read_parquet(rows)
        if asked.get_column("id").to_list() != self.own.get_column("id").to_list():
            raise CannotScoreError("it needs another column")
        asked.select(prediction=pl.repeat(7.0, pl.len())).write_parquet(out)


def held_against(
    base: BaseRevision,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    own: pl.DataFrame = TEST,
    consent: Consent | None = None,
    **manifest: Any,
) -> tuple[GateLog, Opponent | None]:
    """Hold another model against a champion with a manifest and test rows of its own."""
    theirs = {
        **{"task": "regression", "target": "y", "classes": None, "probabilities": False},
        **{"features": [], "served": "model.onnx", "files": {"model.onnx": "0"}},
        **manifest,
    }
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "manifest.json").write_text(json.dumps(theirs), encoding="utf-8")

    @contextmanager
    def bring_back(base: BaseRevision, model: LockedOutput, home: Path) -> Iterator[Any]:
        yield Played(folder, own)

    monkeypatch.setattr(opponent, "bring_back", bring_back)
    log = GateLog()
    question = Question(PARAMS, TEST, frozenset({"y"}), base.root)
    other = LockedOutput("2.dir", "train")
    _, found, _ = find_opponent(log, base, other, FILES, question, consent or Consent())
    return log, found


def test_a_champion_answers_for_all_rows_where_it_can(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log, found = held_against(base, monkeypatch, tmp_path / "champion")
    assert log.reasons == []
    assert found is not None
    assert found.rows.tolist() == list(range(20))
    assert set(found.scored.prediction) == {7.0}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"task": "classification"}, "its task is `classification`, this model's is `regression`"),
        ({"target": "z"}, "its target is `z`, this model's is `y`"),
    ],
)
def test_a_champion_of_another_task_or_target_cannot_be_compared_with(
    base: BaseRevision,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    manifest: dict[str, str],
    said: str,
) -> None:
    log, found = held_against(base, monkeypatch, tmp_path / "champion", **manifest)
    assert found is None
    (reason,) = log.reasons
    assert reason.startswith(f"the champion cannot be compared with: {said}")
    assert "--accept-new-baseline" in reason

    consent = Consent(accept_new_baseline="another question")
    log, found = held_against(base, monkeypatch, tmp_path / "again", consent=consent, **manifest)
    assert (found, log.reasons) == (None, [])
    assert log.notes == [f"The champion cannot be compared with: {said}"]


def test_rows_that_both_test_are_compared_where_they_are_half_of_them(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = TEST.with_columns(pl.col("id") + 10)
    log, found = held_against(base, monkeypatch, tmp_path / "champion", own)
    assert log.reasons == []
    assert found is not None
    assert found.rows.tolist() == list(range(10, 20))
    assert found.scored.truth.tolist() == list(range(10, 20))
    assert "compared on the 10 of 20 rows that are in both" in log.notes[0]


def test_too_few_rows_that_both_test_are_no_comparison(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = TEST.with_columns(pl.col("id") + 11)
    log, found = held_against(base, monkeypatch, tmp_path / "champion", own)
    assert found is None
    (reason,) = log.reasons
    assert "only 9 of 20 test rows are in its own test set" in reason
