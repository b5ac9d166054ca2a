"""The same model where something else answers with it is another challenger, not the champion."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.environment import PARTS
from gitops_ml.core.git import BaseRevision, find_base
from gitops_ml.gate import opponent
from gitops_ml.gate.champion import ChampionError
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judged_model import ModelFiles
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
