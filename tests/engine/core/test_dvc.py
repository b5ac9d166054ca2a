from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gitops_ml.core.dvc import (
    DvcError,
    LockedOutput,
    Status,
    check_up_to_date,
    dvc_output,
    locked_output,
    read_lock,
    read_status,
    status,
)
from gitops_ml.core.run import outside_git

LOCK = """
schema: '2.0'
stages:
  split:
    outs: [{path: data/split, md5: aaa.dir}]
  fit:
    outs: [{path: models, md5: bbb.dir}]
"""
PIPELINE = """
stages:
  split:
    cmd: mkdir -p rows && cp landed.txt code.py rows
    deps: [landed.txt, code.py]
    outs: [rows]
  fit:
    cmd: cp rows/landed.txt model.txt
    deps: [rows/landed.txt]
    params: [size]
    outs: [model.txt]
    metrics:
      - report.json: {cache: false}
"""
MODELS = Path("models")


def test_the_lock_names_an_output_and_its_stage() -> None:
    assert locked_output(LOCK, MODELS, "dvc.lock") == LockedOutput(hash="bbb.dir", stage="fit")


@pytest.mark.parametrize("lock", [None, "stages: {}", LOCK.replace("path: models", "path: m")])
def test_before_the_first_run_the_lock_names_none(lock: str | None) -> None:
    assert locked_output(lock, MODELS, "dvc.lock") is None


@pytest.mark.parametrize(
    "lock", ["", "stages: [", "stages: 3", "- a", "schema: '2.0'", "stages: {fit: {outs: [{}]}}"]
)
def test_a_damaged_lock_is_an_error(lock: str) -> None:
    with pytest.raises(DvcError, match=r"main:dvc\.lock: is no DVC lock file"):
        locked_output(lock, MODELS, "main:dvc.lock")


def test_an_output_without_a_hash_is_an_error() -> None:
    with pytest.raises(DvcError, match=r"dvc\.lock: stage fit: models: has no hash"):
        locked_output(LOCK.replace(", md5: bbb.dir", ""), MODELS, "dvc.lock")


def test_what_changed_is_told_from_what_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ingested.parquet").touch()
    found = read_status(
        tmp_path,
        {
            "ingest": [
                {"changed deps": {"src/mine.py": "deleted", "data/landed": "deleted"}},
                {"changed outs": {"data/ingested.parquet": "not in cache"}},
            ],
            "data/landed.dvc": [{"changed outs": {"data/landed": "deleted"}}],
            "train": [
                {"changed deps": {"params.yaml": {"train": "modified", "task": "new"}}},
                {
                    "changed outs": {
                        "models": "deleted",
                        "plots": "not in cache",
                        "reports/a.json": "modified",
                    }
                },
                "changed command",
            ],
            "evaluate": [{"changed deps": {"models/manifest.json": "deleted"}}],
        },
    )
    assert found == Status(
        changed={
            "ingest": ("src/mine.py (deleted)",),
            "train": ("params.yaml (train, task)", "reports/a.json (modified)", "changed command"),
        },
        absent=("data/landed", "models", "plots"),
    )
    assert read_status(tmp_path, {}) == Status({}, ())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that has run."""
    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    for name, text in {
        "landed.txt": "data",
        "code.py": "x = 1",
        "params.yaml": "size: 1\n",
        "dvc.yaml": PIPELINE.replace(
            "cp rows/landed.txt model.txt", "cp rows/landed.txt model.txt && echo 1 > report.json"
        ),
    }.items():
        (root / name).write_text(text, encoding="utf-8")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"],
                    [sys.executable, "-m", "dvc", "repro", "-q"]):  # fmt: skip
        subprocess.run(command, cwd=root, check=True, env=outside_git())
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


def test_an_untouched_run_is_up_to_date_with_and_without_the_cache(project: Path) -> None:
    assert check_up_to_date(project) == (project / "dvc.lock").read_text(encoding="utf-8")
    shutil.rmtree(project / ".dvc" / "cache")
    assert status(project) == Status({}, ())


@pytest.mark.parametrize("cache", [True, False])
def test_outputs_that_are_not_here_are_not_changed(project: Path, cache: bool) -> None:
    shutil.rmtree(project / "rows")
    (project / "model.txt").unlink()
    if not cache:
        shutil.rmtree(project / ".dvc" / "cache")
    assert status(project) == Status({}, ("model.txt", "rows"))
    with pytest.raises(DvcError, match=r"^not here: model\.txt, rows; `make pull` .*make pipeline"):
        check_up_to_date(project)


@pytest.mark.parametrize(
    ("name", "text", "stage"),
    [
        ("landed.txt", "other", "split: landed.txt (modified)"),
        ("code.py", None, "split: code.py (deleted)"),
        ("params.yaml", "size: 2", "fit: params.yaml (size)"),
        ("model.txt", "mine", "fit: model.txt (modified)"),
        ("report.json", "{}", "fit: report.json (modified)"),
    ],
)
def test_what_changed_is_stale(project: Path, name: str, text: str | None, stage: str) -> None:
    if text is None:
        (project / name).unlink()
    else:
        (project / name).unlink()
        (project / name).write_text(text, encoding="utf-8")
    with pytest.raises(DvcError) as caught:
        check_up_to_date(project)
    assert f"\n  {stage}\nrun `make pipeline`" in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "# Größe".encode("latin1"), None])
def test_a_lock_that_is_no_text_is_told_of(project: Path, content: bytes | None) -> None:
    lock = project / "dvc.lock"
    lock.unlink()
    if content is None:
        lock.mkdir()
    else:
        lock.write_bytes(content)
    with pytest.raises(DvcError, match=r"^dvc\.lock: cannot be read: .*get it back from git"):
        read_lock(project)


def test_without_a_lock_nothing_is_up_to_date(project: Path) -> None:
    (project / "dvc.lock").unlink()
    with pytest.raises(DvcError, match=r"^dvc\.lock: no such file; run `make pipeline`"):
        check_up_to_date(project)


def test_a_pipeline_that_dvc_cannot_read_is_named(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: 1", encoding="utf-8")
    with pytest.raises(DvcError, match="`dvc status` failed: "):
        status(project)


@pytest.mark.parametrize("fill", ["", "x" * 1990])
def test_a_password_that_dvc_repeats_is_not_shown(project: Path, fill: str) -> None:
    with pytest.raises(DvcError) as caught:
        dvc_output(project, "config", f"--no-such=foo://ada:secret@host{fill}")
    assert "ada:***@host" in str(caught.value) or fill
    assert "secret" not in str(caught.value)
