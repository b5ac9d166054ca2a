from __future__ import annotations

from pathlib import Path

import pytest
from fake_origin import World, git

from << cookiecutter.project_slug >>.deployment import plan


@pytest.fixture
def told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a clone; gives the folder of what later steps and the page are told."""
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    return tmp_path


def test_a_commit_without_a_lock_is_not_delivered_and_says_what_to_do(
    world: World, told: Path
) -> None:
    (world.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    assert plan.main() == 0
    commit = git(world.root, "rev-parse", "HEAD")
    output = (told / "output").read_text(encoding="utf-8")
    assert output == f"commit={commit}\ndeliverable=false\n"
    assert "commit `dvc.lock` and `reports/`" in (told / "page").read_text(encoding="utf-8")


def test_a_commit_with_a_lock_is_delivered(world: World, told: Path) -> None:
    (world.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    git(world.root, "add", "dvc.lock")
    git(world.root, "commit", "-qm", "Train")
    assert plan.main() == 0
    assert "deliverable=true\n" in (told / "output").read_text(encoding="utf-8")
    assert not (told / "page").exists()


def test_without_a_commit_it_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert plan.main() == 1
    assert "there is no commit to deliver" in capsys.readouterr().err
