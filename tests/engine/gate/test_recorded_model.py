"""A base whose lock cannot be read keeps nobody out, and lets nobody in without a comparison."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gitops_ml.core.git import BaseRevision, find_base
from gitops_ml.gate import recorded_model as module
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.opponent import champion_of
from gitops_ml.gate.recorded_model import recorded_model

MARKED = "<<<<<<< HEAD\nstages: {}\n=======\nstages: {}\n>>>>>>> theirs\n"


def lock(number: int) -> str:
    return f"stages: {{train: {{cmd: t, outs: [{{path: models, md5: {number}.dir}}]}}}}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def commit(root: Path, text: str | None, message: str = "Change") -> str:
    path = root / "dvc.lock"
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    for command in (["add", "--all"], [*identity, "commit", "-qm", message, "--allow-empty"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    asked = ["git", "rev-parse", "HEAD"]
    return subprocess.run(asked, cwd=root, capture_output=True, text=True).stdout.strip()


def base_of(root: Path) -> BaseRevision:
    found = find_base(root, "HEAD")
    assert found is not None
    return found


def test_a_lock_that_can_be_read_is_believed(root: Path) -> None:
    commit(root, lock(1))
    newest = commit(root, lock(2))
    recorded, note = recorded_model(base_of(root))
    assert recorded is not None
    assert (recorded.model.hash, recorded.base.commit, note) == ("2.dir", newest, None)


@pytest.mark.parametrize("broken", [MARKED, "stages: [", "stages: 1"])
def test_instead_of_one_that_cannot_be_read_the_last_one_that_can_is(
    root: Path, broken: str
) -> None:
    commit(root, lock(1))
    believed = commit(root, lock(2))
    commit(root, broken)
    commit(root, broken, "Once more")
    recorded, note = recorded_model(base_of(root))
    assert recorded is not None
    assert (recorded.model.hash, recorded.base.commit) == ("2.dir", believed)
    # Each answers as that commit's, also for what it says beside the lock.
    assert (recorded.base.revision, recorded.base.fork) == (believed[:10], believed)
    assert note is not None
    assert note.startswith("HEAD:dvc.lock: ")
    assert f"the champion is the model of {believed[:10]}" in note


def test_what_the_base_s_own_run_wrote_is_the_base_s_lock(root: Path) -> None:
    commit(root, lock(1))
    commit(root, MARKED)
    recorded, note = recorded_model(replace(base_of(root), made=lock(3)))
    assert recorded is not None
    assert (recorded.model.hash, note) == ("3.dir", None)
    # An earlier commit's model is taken for no more than the base's.
    recorded, _ = recorded_model(replace(base_of(root), proven=False))
    assert recorded is not None
    assert (recorded.model.hash, recorded.base.proven) == ("1.dir", False)


def test_one_that_was_blocked_is_no_champion(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(root, lock(1))
    blocked = commit(root, lock(2))
    commit(root, MARKED)
    monkeypatch.setattr(module, "was_blocked", lambda one, _: one == blocked)
    recorded, _ = recorded_model(base_of(root))
    assert recorded is not None
    assert recorded.model.hash == "1.dir"


@pytest.mark.parametrize("before", [None, MARKED, "stages: {}\n"])
def test_without_any_that_names_a_model_there_is_no_champion(
    root: Path, before: str | None
) -> None:
    commit(root, before)
    commit(root, MARKED)
    recorded, note = recorded_model(base_of(root))
    assert recorded is None
    assert note is not None
    assert "holds the marks of a merge conflict" in note
    assert "no commit before names a model" in note


def test_a_model_that_was_taken_away_does_not_come_back(root: Path) -> None:
    commit(root, lock(1))
    commit(root, "stages: {}\n", "Start anew")
    commit(root, MARKED)
    recorded, _ = recorded_model(base_of(root))
    assert recorded is None


def test_the_report_says_so(root: Path) -> None:
    commit(root, lock(1))
    commit(root, MARKED)
    log = GateLog()
    recorded = champion_of(log, base_of(root))
    assert recorded is not None
    assert log.reasons == []
    assert len(log.notes) == 1
    assert "Nothing of it is believed: everything was run" in log.notes[0]
    commit(root, None)
    log = GateLog()
    assert champion_of(log, base_of(root)) is None
    assert log.notes == ["No champion yet: HEAD names no model. Floors only."]
