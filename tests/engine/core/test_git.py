from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gitops_ml.core.git import GitError, below_the_top, find_base


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, text: str, name: str = "contract.yaml") -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    git(folder, "add", name)
    git(folder, "commit", "-qm", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(key, raising=False)
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


def test_a_file_is_read_as_the_base_has_it(repository: Path) -> None:
    first = commit(repository, "one")
    commit(repository, "two")
    base = find_base(repository, "HEAD~1")
    assert base is not None
    assert base.commit == first
    assert base.read(Path("contract.yaml")) == "one"
    assert base.read(Path("params.yaml")) is None
    assert not base.same_file(Path("contract.yaml"))
    assert base.same_file(Path("params.yaml"))
    (base.root / "params.yaml").write_bytes("# Größe".encode("latin1"))
    assert not base.same_file(Path("params.yaml"))
    (base.root / "params.yaml").unlink()
    (base.root / "params.yaml").mkdir()
    assert not base.same_file(Path("params.yaml"))


def test_a_project_in_a_folder_of_the_repository_is_found(repository: Path) -> None:
    commit(repository, "inside", "services/late/contract.yaml")
    base = find_base(repository / "services" / "late", "HEAD")
    assert base is not None
    assert base.prefix == "services/late/"
    assert base.read(Path("contract.yaml")) == "inside"


def test_a_project_in_a_folder_is_told_that_github_reads_the_top(repository: Path) -> None:
    folder = repository / "my services" / "late"
    folder.mkdir(parents=True)
    assert below_the_top(repository) is None
    advice = below_the_top(folder)
    assert advice is not None
    assert "the folder my services/late of a repository" in advice
    assert "`git init -b main`" in advice
    git(folder, "init", "-q")
    assert below_the_top(folder) is None


def test_the_fork_is_where_the_branch_left_the_base(repository: Path) -> None:
    fork = commit(repository, "fork")
    git(repository, "switch", "-qc", "change")
    commit(repository, "change", "other")
    git(repository, "switch", "-q", "main")
    tip = commit(repository, "tip")
    git(repository, "switch", "-q", "change")
    base = find_base(repository, "main")
    assert base is not None
    assert (base.commit, base.fork) == (tip, fork)


@pytest.mark.parametrize("revision", ["HEAD", "0" * 40, "0" * 64])
def test_before_the_first_commit_there_is_no_base(repository: Path, revision: str) -> None:
    assert find_base(repository, revision) is None


def test_the_null_commit_of_a_first_push_is_no_base(repository: Path) -> None:
    commit(repository, "one")
    assert find_base(repository, "0" * 40) is None


@pytest.mark.parametrize("revision", ["origin/main", "v1", "1234567", "--help", "HEAD~9"])
def test_an_unknown_revision_is_an_error(repository: Path, revision: str) -> None:
    commit(repository, "one")
    with pytest.raises(GitError, match="knows no such commit"):
        find_base(repository, revision)


def test_outside_a_repository_there_is_no_top(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("bare")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    assert below_the_top(folder) is None


def test_outside_a_repository_the_gate_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(GitError, match="compares with a git revision"):
        find_base(tmp_path, "HEAD")


def test_inside_a_git_hook_the_callers_index_is_left_alone(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, "one")
    monkeypatch.setenv("GIT_DIR", str(repository / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / "index-of-a-hook"))
    assert find_base(repository, "HEAD") is not None
    assert not (repository / "index-of-a-hook").exists()
