from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import subcommand

from gitops_ml.bento.store import BentoError
from gitops_ml.bento.verify import locked_hash, packaged_hash, verify
from gitops_ml.core.dvc import DvcError
from gitops_ml.core.dvc_objects import hash_of
from gitops_ml.core.errors import GitopsError
from gitops_ml.gate.verdict import Consent, DataChanges, ModelRecord, Report, Verdict

main = subcommand("verify-bento")

MODEL = b"a trained model"
SHA256 = hashlib.sha256(MODEL).hexdigest()


def manifest(sha256: str = SHA256) -> bytes:
    described = {"task": "regression", "classes": None, "probabilities": False, "features": {}}
    served = {"served": "model.onnx", "files": {"model.onnx": sha256}}
    return json.dumps({**described, **served}).encode()


def bento(path: Path, files: Mapping[str, bytes], prefix: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def good_bento(path: Path) -> Path:
    return bento(path, {"src/models/manifest.json": manifest(), "src/models/model.onnx": MODEL})


def gate(path: Path, verdict: Verdict = "promote", sha256: str | None = SHA256) -> Path:
    report = Report(
        verdict=verdict,
        reasons=(),
        notes=(),
        commit="c" * 40,
        base=None,
        challenger=ModelRecord(hash="1.dir", sha256=sha256, source="working tree"),
        champion=None,
        consent=Consent(),
        contract="this one",
        contract_changes=(),
        confidence=0.95,
        rows=10,
        metrics=(),
        slices=(),
        limits=(),
        data=DataChanges(rows=10),
        seconds={},
    )
    path.write_text(report.model_dump_json(), encoding="utf-8")
    return path


@pytest.mark.parametrize("verdict", ["promote", "keep"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_gated_model_passes(tmp_path: Path, verdict: Verdict, prefix: str) -> None:
    files = {"src/models/manifest.json": manifest(), "src/models/model.onnx": MODEL}
    archive = bento(tmp_path / "it.bento", files, prefix)
    assert SHA256 in verify(archive, gate(tmp_path / "gate.json", verdict), SHA256)


def test_a_model_that_the_lock_does_not_name_is_refused(tmp_path: Path) -> None:
    other = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(BentoError, match=f"holds the model {SHA256}, but dvc.lock names {other}"):
        verify(good_bento(tmp_path / "it.bento"), gate(tmp_path / "gate.json"), other)


def lock(root: Path) -> Path:
    """Write the model of the lock; gives back its file."""
    (root / "models").mkdir()
    (root / "models" / "manifest.json").write_bytes(manifest())
    (root / "models" / "model.onnx").write_bytes(MODEL)
    output = {"path": "models", "hash": "md5", "md5": hash_of(root / "models")}
    document = {"stages": {"train": {"cmd": "gitops-ml train", "outs": [output]}}}
    (root / "dvc.lock").write_text(json.dumps(document), encoding="utf-8")
    return root / "models" / "model.onnx"


def test_the_locked_model_is_hashed_not_believed(tmp_path: Path) -> None:
    model = lock(tmp_path)
    assert locked_hash(tmp_path) == SHA256
    # As good as its manifest, and yet another than the lock names.
    other = MODEL + b"!"
    model.write_bytes(other)
    files = {**json.loads(manifest()), "task": "regression"}
    files["files"]["model.onnx"] = hashlib.sha256(other).hexdigest()
    model.with_name("manifest.json").write_text(json.dumps(files), encoding="utf-8")
    with pytest.raises(DvcError, match=r"^models.*: is not what dvc.lock names"):
        locked_hash(tmp_path)


def test_another_model_is_refused_with_both_hashes(tmp_path: Path) -> None:
    other = hashlib.sha256(b"another").hexdigest()
    verdict = gate(tmp_path / "gate.json", sha256=other)
    with pytest.raises(BentoError, match=f"holds the model {SHA256}, but .* passed {other}"):
        verify(good_bento(tmp_path / "it.bento"), verdict, SHA256)


def test_a_verdict_without_a_hash_passes_nothing(tmp_path: Path) -> None:
    verdict = gate(tmp_path / "gate.json", sha256=None)
    with pytest.raises(BentoError, match="the gate passed None"):
        verify(good_bento(tmp_path / "it.bento"), verdict, SHA256)


def test_a_blocked_model_is_refused(tmp_path: Path) -> None:
    verdict = gate(tmp_path / "gate.json", "block")
    with pytest.raises(BentoError, match="the gate blocked this model"):
        verify(good_bento(tmp_path / "it.bento"), verdict, SHA256)


def test_a_model_that_was_exchanged_in_the_bento_is_refused(tmp_path: Path) -> None:
    files = {"src/models/manifest.json": manifest(), "src/models/model.onnx": MODEL + b"!"}
    with pytest.raises(BentoError, match=f"its manifest records {SHA256}"):
        packaged_hash(bento(tmp_path / "it.bento", files))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "lacks 'src/models/manifest.json'"),
        ({"src/models/manifest.json": b"{"}, "manifest.json cannot be read"),
        ({"src/models/manifest.json": b"[]"}, "manifest.json cannot be read"),
        ({"src/models/manifest.json": b"{}"}, "'served'"),
        ({"src/models/manifest.json": manifest()}, "lacks 'src/models/model.onnx'"),
    ],
)
def test_an_incomplete_bento_is_named(
    tmp_path: Path, files: Mapping[str, bytes], problem: str
) -> None:
    with pytest.raises(BentoError, match=problem):
        packaged_hash(bento(tmp_path / "it.bento", files))


def test_a_truncated_bento_is_named(tmp_path: Path) -> None:
    archive = good_bento(tmp_path / "it.bento")
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(BentoError, match="is no bento, or is damaged"):
        packaged_hash(archive)


def test_a_missing_bento_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(BentoError, match="no such file; run `make package export-bento`"):
        packaged_hash(tmp_path / "it.bento")


@pytest.mark.parametrize("content", [None, "", "{}", "[1]"])
def test_without_a_verdict_nothing_passes(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "gate.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(GitopsError, match="run `make gate"):
        verify(good_bento(tmp_path / "it.bento"), path, SHA256)


def test_the_command_tells_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    gate(tmp_path / "reports" / "gate.json")
    good_bento(tmp_path / "it.bento")
    lock(tmp_path)
    assert main(["it.bento"]) == 0
    gate(tmp_path / "reports" / "gate.json", "block")
    assert main(["it.bento"]) == 1
    assert "blocked" in capsys.readouterr().err
