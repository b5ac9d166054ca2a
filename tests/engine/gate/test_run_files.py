from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.gate.run_files import RunFilesError, take_over


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the artifacts of a run hold, and what somebody added."""
    return put(
        tmp_path / "artifacts",
        "models/manifest.json",
        "models/model.onnx",
        "reports/plots/curves/roc.csv",
        "build/late.bento",
        "dvc.lock",
    )


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"new {name}", encoding="utf-8")
    return folder


def test_the_model_its_reports_and_the_bento_are_taken_over(source: Path, tmp_path: Path) -> None:
    root = put(tmp_path / "project", "models/old.onnx", "reports/gate.json", "dvc.lock", "build/x")
    taken = take_over(source, root)
    assert [path.as_posix() for path in taken] == [
        "build/late.bento",
        "dvc.lock",
        "models/manifest.json",
        "models/model.onnx",
        "reports/plots/curves/roc.csv",
    ]
    assert (root / "dvc.lock").read_text(encoding="utf-8") == "new dvc.lock"
    # Nothing of an earlier run is left among them.
    assert not (root / "models" / "old.onnx").exists()
    assert not (root / "reports" / "gate.json").exists()
    assert (root / "build" / "x").exists()


def test_nothing_else_is_taken_over(source: Path, tmp_path: Path) -> None:
    put(source, ".git/config", ".git/hooks/post-checkout", "Makefile", "src/late/metrics.py")
    put(source, "data/split/test.parquet")  # half a folder would be one that was changed
    put(source, "contract.yaml", "build/run.sh", "data/landed/more.parquet", "uv.lock")
    root = put(tmp_path / "project", "contract.yaml")
    before = (root / "contract.yaml").read_text(encoding="utf-8")
    take_over(source, root)
    assert (root / "contract.yaml").read_text(encoding="utf-8") == before
    for name in (".git", "Makefile", "src", "build/run.sh", "data", "uv.lock"):
        assert not (root / name).exists(), name


@pytest.mark.parametrize("link", ["models", "reports", "build", "dvc.lock"])
def test_a_link_in_the_project_leads_nowhere(source: Path, tmp_path: Path, link: str) -> None:
    root, outside = tmp_path / "project", put(tmp_path / "outside", "kept")
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(outside)
    with pytest.raises(RunFilesError, match=f"{link}: is a link"):
        take_over(source, root)
    assert [path.name for path in outside.iterdir()] == ["kept"]


def test_a_link_among_the_artifacts_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "models" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(RunFilesError, match="passwd: is a link"):
        take_over(source, tmp_path / "project")


def test_artifacts_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFilesError, match="no such folder; download the artifacts"):
        take_over(tmp_path / "artifacts", tmp_path)
