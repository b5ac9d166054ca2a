from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from gitops_ml.core.dvc import DvcError, LockedOutput
from gitops_ml.core.git import BaseRevision, find_base
from gitops_ml.gate import champion
from gitops_ml.gate.champion import Champion, ChampionError, bring_back

MODEL = LockedOutput(hash="0123.dir", stage="train")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseRevision:
    """A commit of a project that DVC cannot work with, for it was never initialised."""
    project, scratch = tmp_path / "project", tmp_path / "scratch"
    for folder in (project, scratch):
        folder.mkdir()
    for key in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (project / "params.yaml").write_text("task: regression", encoding="utf-8")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "--all"], [*identity, "commit", "-qm", "Start"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    found = find_base(project, "HEAD")
    assert found is not None
    return found


def worktrees(base: BaseRevision) -> list[str]:
    listing = subprocess.run(
        ["git", "worktree", "list"], cwd=base.root, capture_output=True, text=True, check=True
    )
    return listing.stdout.splitlines()


def test_a_champion_that_cannot_be_brought_back_leaves_nothing_behind(
    base: BaseRevision, tmp_path: Path
) -> None:
    with pytest.raises(DvcError, match="`dvc cache` failed"), bring_back(base, MODEL, base.root):
        pytest.fail("there is no champion")
    assert len(worktrees(base)) == 1
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_commit_that_is_not_there_is_named(base: BaseRevision, tmp_path: Path) -> None:
    gone = BaseRevision(base.root, base.prefix, "main", "f" * 40, "f" * 40)
    with (
        pytest.raises(ChampionError, match="git cannot check out ffff"),
        bring_back(gone, MODEL, base.root),
    ):
        pytest.fail("there is no champion")
    assert len(worktrees(base)) == 1
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_model_that_no_run_is_known_to_have_made_is_trained_again(
    base: BaseRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    def this_one(champion: Champion, home: Path, who: str) -> None:
        champion.interpreter = (sys.executable,)

    def believe(root: Path, hashes: list[str]) -> None:
        pytest.fail("the cache is believed")

    trained: list[LockedOutput] = []
    monkeypatch.setattr(Champion, "choose_interpreter", this_one)
    monkeypatch.setattr(champion, "_share_cache", lambda champion, base: None)
    monkeypatch.setattr(champion, "_reproduce", lambda champion, model: trained.append(model))
    monkeypatch.setattr(champion, "check_cache", believe)
    with bring_back(replace(base, proven=False), MODEL, base.root) as found:
        assert found.source == "reproduced"
        assert "No run is known to have made the champion's model" in found.notes[-1]
    assert trained == [MODEL]
