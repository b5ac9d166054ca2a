from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from commands import subcommand
from projects import PACKAGE, make_project

from gitops_ml.bento.build import build, copy_user_code, describe_release, stage
from gitops_ml.bento.store import BentoError
from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError
from gitops_ml.core.run import CommandError
from gitops_ml.core.user_code import user_code
from gitops_ml.model.predictor import ModelError, read_manifest
from gitops_ml.serving.release import read_release

main = subcommand("package")

MODEL = b"a model"
DVC = """
stages:
  ingest:
    cmd: python duplicate.py landed.txt data/ingested.parquet
    deps: [landed.txt]
    outs: [data/ingested.parquet]
  train:
    cmd: python duplicate.py data/ingested.parquet models/model.joblib
    deps: [data/ingested.parquet, params.yaml]
    outs: [models/model.joblib]
"""
COPY = """
import pathlib, sys
pathlib.Path(sys.argv[2]).parent.mkdir(exist_ok=True)
pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())
"""


def run(project: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commit(project: Path) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    run(project, "git", "add", "--all")
    run(project, "git", *who, "commit", "--quiet", "--message", "A run")


def manifest_of(model: bytes) -> dict[str, Any]:
    return {
        "task": "regression",
        "target": "price",
        "classes": None,
        "probabilities": False,
        "estimator": "shop.Model",
        "features": [{"name": "weight", "type": "number"}],
        "files": {"model.joblib": hashlib.sha256(model).hexdigest()},
        "served": "model.joblib",
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project in git, with a DVC pipeline that has run."""
    project = tmp_path_factory.mktemp("made") / "project"
    project.mkdir()
    files = {
        "landed.txt": MODEL,
        "duplicate.py": COPY.encode(),
        "dvc.yaml": DVC.encode(),
        "params.yaml": b"task: regression\n",
        "contract.yaml": b"model: {}\n",
        "schema.yaml": b"columns: {}\n",
        "models/manifest.json": json.dumps(manifest_of(MODEL)).encode(),
        "reports/metrics.json": b'{"mae": 1.5}',
        "reports/golden.json": b"{}",
        f"src/{PACKAGE}/__init__.py": b"",
    }
    make_project(project)
    for name, content in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(content)
    run(project, "git", "init", "--quiet")
    run(project, sys.executable, "-P", "-m", "dvc", "init", "--quiet")
    run(project, sys.executable, "-P", "-m", "dvc", "repro", "--quiet")
    commit(project)
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


@pytest.mark.parametrize("path", ["landed.txt", "models/model.joblib", "params.yaml"])
def test_what_dvc_lock_does_not_name_is_not_packaged(project: Path, path: str) -> None:
    (project / path).unlink()
    (project / path).write_bytes(b"task: changed\n")

    with pytest.raises((DvcError, ModelError), match=re.escape(path)) as error:
        build(project)

    assert "make pipeline" in str(error.value)


def test_the_release_names_source_model_data_and_contract(project: Path) -> None:
    release = describe_release(project, read_manifest(project / paths.MODELS))

    head = run(project, "git", "rev-parse", "HEAD").strip()
    model = hashlib.sha256(MODEL).hexdigest()
    assert release["release"] == f"{PACKAGE}:{head[:8]}-{model[:8]}"
    assert release["source"] == {"commit": head, "dirty": False}
    assert release["model"] == {"file": "model.joblib", "sha256": model}
    assert release["data"] == {
        "file": "data/ingested.parquet",
        "md5": hashlib.md5(MODEL, usedforsecurity=False).hexdigest(),
    }
    contract = hashlib.sha256((project / "contract.yaml").read_bytes()).hexdigest()
    assert release["contract"] == {"sha256": contract}
    assert release["metrics"] == {"mae": 1.5}
    assert release["features"] == ["weight"]


def test_a_lock_that_differs_only_in_what_changes_nothing_makes_no_dirty_release(
    project: Path,
) -> None:
    lock = project / "dvc.lock"
    document = yaml.safe_load(lock.read_text(encoding="utf-8"))
    noted = {"cmd": "gitops-ml environment", "deps": [{"path": "uv.lock", "md5": "1"}]}
    document["stages"]["environment"] = noted
    lock.write_text(yaml.safe_dump(document), encoding="utf-8")
    commit(project)

    noted["deps"][0]["md5"] = "2"
    lock.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert (
        describe_release(project, read_manifest(project / paths.MODELS))["source"]["dirty"] is False
    )

    document["stages"]["train"]["cmd"] = "other"
    lock.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert (
        describe_release(project, read_manifest(project / paths.MODELS))["source"]["dirty"] is True
    )


def test_the_release_of_a_changed_tree_says_so(project: Path) -> None:
    (project / "note.txt").write_text("not committed")

    release = describe_release(project, read_manifest(project / paths.MODELS))

    assert release["source"]["dirty"] is True
    assert release["release"].endswith("-dirty")


def test_without_a_commit_there_is_no_release(project: Path) -> None:
    shutil.rmtree(project / ".git")
    run(project, "git", "init", "--quiet")

    with pytest.raises(BentoError, match="no git commit"):
        describe_release(project, read_manifest(project / paths.MODELS))


def test_another_model_than_recorded_is_not_packaged(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.dumps(manifest_of(b"another model"))
    (project / "models" / "manifest.json").write_text(manifest)
    monkeypatch.chdir(project)

    assert main() == 1
    said = capsys.readouterr().err
    assert hashlib.sha256(MODEL).hexdigest() in said
    assert hashlib.sha256(b"another model").hexdigest() in said


def test_other_code_than_trained_the_model_is_not_packaged(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_of(MODEL) | {"user_code": user_code(project, PACKAGE)}
    (project / "models" / "manifest.json").write_text(json.dumps(manifest))
    (project / "src" / PACKAGE / "features.py").write_text("# edited")
    monkeypatch.chdir(project)

    assert main() == 1
    said = capsys.readouterr().err
    assert f"src/{PACKAGE}: is not the code that trained the model" in said
    assert "make pipeline" in said


def test_the_users_package_travels_whole_without_caches(project: Path, tmp_path: Path) -> None:
    package = project / "src" / PACKAGE
    for name in ("features.py", "tables/holidays.csv", "__pycache__/features.pyc", ".features.swp"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(name)

    copy_user_code(project, tmp_path / "bento")

    copied = (tmp_path / "bento").rglob("*")
    assert {path.name for path in copied if path.is_file()} == {
        "__init__.py",
        "features.py",
        "holidays.csv",
    }
    assert user_code(tmp_path / "bento", PACKAGE) == user_code(project, PACKAGE)


def test_without_metrics_there_is_no_release(project: Path) -> None:
    (project / paths.METRICS).unlink()

    with pytest.raises(BentoError, match=r"metrics\.json.*run `make pipeline`"):
        describe_release(project, read_manifest(project / paths.MODELS))


def test_without_a_lock_file_nothing_is_staged(project: Path, tmp_path: Path) -> None:
    manifest = read_manifest(project / paths.MODELS)
    release = describe_release(project, manifest)
    (tmp_path / "bento").mkdir()

    with pytest.raises(CommandError, match="uv export"):
        stage(project, tmp_path / "bento", manifest, release)


def test_the_stage_holds_what_serving_needs_and_no_more(
    locked_project: Path, project: Path, tmp_path: Path
) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(locked_project / name, project)
    shutil.copytree(locked_project / "engine", project / "engine")
    manifest = read_manifest(project / paths.MODELS)
    target = tmp_path / "bento"
    target.mkdir()
    stage(project, target, manifest, describe_release(project, manifest))

    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    engine = {PurePosixPath(file) for file in files if file.startswith("gitops_ml/")}
    rooms = {file.parts[1] for file in engine if len(file.parts) > 2}
    assert rooms == {"core", "features", "model", "serving"}
    assert PurePosixPath("gitops_ml/serving/service.py") in engine
    assert files - {str(file) for file in engine} == {
        "bentofile.yaml",
        "models/manifest.json",
        "models/model.joblib",
        "release.json",
        "reports/golden.json",
        "requirements.txt",
        "schema.yaml",
        f"{PACKAGE}/__init__.py",
    }
    assert read_release(target, manifest)["source"]["commit"]

    lines = (target / "requirements.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    assert {"bentoml", "onnxruntime", "scikit-learn"} <= pinned
    training = {"dvc", "matplotlib", "mlflow", "onnx", "pandera", "polars", "skl2onnx"}
    assert not pinned & training
    assert any("--hash=sha256:" in line for line in lines)


def test_a_model_that_changes_while_packaging_is_noticed(project: Path, tmp_path: Path) -> None:
    manifest = read_manifest(project / paths.MODELS)
    release = describe_release(project, manifest)
    (project / "models" / "model.joblib").unlink()
    (project / "models" / "model.joblib").write_bytes(b"swapped")
    (tmp_path / "bento").mkdir()

    with pytest.raises(ModelError):
        stage(project, tmp_path / "bento", manifest, release)
