from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gitops_ml.core.errors import SettingsError
from gitops_ml.gate import own_engine
from gitops_ml.gate.own_engine import (
    OwnEngineError,
    judge_by_own_engine,
    own_engine_note,
    same_engine,
    unreadable,
)
from gitops_ml.gate.verdict import Consent
from gitops_ml.github.labels import OWN_ENGINE_LABEL

AGREED = Consent(own_engine=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project whose last commit has a model."""
    lock = "stages:\n  train:\n    cmd: gitops-ml train\n    outs: [{path: models, md5: 1.dir}]\n"
    (tmp_path / "dvc.lock").write_text(lock, encoding="utf-8")
    commit = ["-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-q", "-m"]
    for command in (
        ["init", "-q"],
        [*commit, "Start", "--allow-empty"],
        ["add", "--all"],
        [*commit, "Train"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_the_first_push_has_no_base_to_ask(repository: Path) -> None:
    note = own_engine_note(repository, "0" * 40, "git knows no commit", Consent())
    assert "there is no base whose engine could judge" in note


def test_a_base_without_a_model_asks_for_nothing_yet(repository: Path) -> None:
    note = own_engine_note(repository, "HEAD~1", "HEAD~1 locks no gitops-ml", Consent())
    assert "The base has no model yet" in note
    assert "HEAD~1 locks no gitops-ml" in note


def test_a_lock_that_cannot_be_read_spares_nobody_the_question(repository: Path) -> None:
    (repository / "dvc.lock").write_text("<<<<<<< HEAD\n", encoding="utf-8")
    commit = ["-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-qam", "Marks"]
    subprocess.run(["git", *commit], cwd=repository, check=True)
    with pytest.raises(OwnEngineError):
        own_engine_note(repository, "HEAD", "why", Consent())
    assert "consent" in own_engine_note(repository, "HEAD", "why", AGREED)


def test_an_engine_judges_its_own_change_with_consent_only(repository: Path) -> None:
    with pytest.raises(OwnEngineError) as refused:
        own_engine_note(repository, "HEAD", "main locks no gitops-ml", Consent())
    for words in ("main locks no gitops-ml", f"`{OWN_ENGINE_LABEL}`", "--allow-own-engine"):
        assert words in str(refused.value)
    # Another consent is none.
    with pytest.raises(OwnEngineError):
        own_engine_note(repository, "HEAD", "why", Consent(allow_loosening=True))
    note = own_engine_note(repository, "HEAD", "main locks no gitops-ml", AGREED)
    assert "consent" in note
    assert "main locks no gitops-ml" in note


def test_what_the_base_cannot_read_is_named_with_the_label_that_helps() -> None:
    error = SettingsError("contract.yaml: erosion: is not a known key")
    with pytest.raises(OwnEngineError) as refused:
        unreadable(error, Consent())
    assert "erosion: is not a known key" in str(refused.value)
    assert f"`{OWN_ENGINE_LABEL}`" in str(refused.value)
    assert "erosion: is not a known key" in unreadable(error, AGREED)


def engine(folder: Path, text: str) -> Path:
    file = folder / "engine" / "src" / "gitops_ml" / "metrics.py"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return folder


def test_engines_are_compared_file_by_file(tmp_path: Path) -> None:
    one, other = engine(tmp_path / "one", "a"), engine(tmp_path / "other", "a")
    assert same_engine(one, other)
    (one / "engine" / "src" / "gitops_ml" / "__pycache__").mkdir()
    (one / "engine" / "src" / "gitops_ml" / "__pycache__" / "x.pyc").touch()
    assert same_engine(one, other)
    (other / "engine" / "src" / "gitops_ml" / "more.py").touch()
    assert not same_engine(one, other)
    assert not same_engine(one, tmp_path)


def test_engines_that_are_dependencies_are_compared_by_the_lock(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "uv.lock").write_text("gitops-ml 0.2.0", encoding="utf-8")
    assert same_engine(one, other)
    (other / "uv.lock").write_text("gitops-ml 0.3.0", encoding="utf-8")
    assert not same_engine(one, other)


def test_the_change_s_engine_is_told_what_was_agreed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], Path]] = []

    def show(command: list[str], root: Path, variables: object) -> int:
        asked.append((command, root))
        return 1

    monkeypatch.setattr(own_engine, "show", show)
    consent = Consent(allow_loosening=True, accept_new_baseline="a label", own_engine=True)
    assert judge_by_own_engine(tmp_path, "main", "why", consent) == 1
    ((command, root),) = asked
    assert root == tmp_path
    assert command[:3] == ["uv", "run", "--locked"]
    assert command[command.index("gate") :] == [
        *("gate", "--base", "main", "--own-engine", "why", "--allow-own-engine"),
        *("--allow-loosening", "--accept-new-baseline", "a label"),
    ]
