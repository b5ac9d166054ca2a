"""Small bentos that BentoML takes for real ones, a gate's report on them, and an engine to try."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from bentoml._internal.bento import BentoStore
from bentoml._internal.configuration.containers import BentoMLContainer
from projects import PACKAGE

MODEL = b"weights"
MODEL_HASH = hashlib.sha256(MODEL).hexdigest()
COMMIT = "c" * 40
VERSION = f"cccccccc-{MODEL_HASH[:8]}"
TAG = f"{PACKAGE}:{VERSION}"
GOLDEN: dict[str, Any] = {
    "records": [{"x": 1}, {"x": 2}],
    "predictions": [{"prediction": 10.0}, {"prediction": 20.0}],
    "tolerance": 1e-5,
}


def make_release(**changes: Any) -> dict[str, Any]:
    """The `release.json` of a bento."""
    return {
        "release": TAG,
        "source": {"commit": COMMIT, "dirty": False},
        "target": "late",
        "model": {"file": "model.onnx", "sha256": MODEL_HASH},
        "metrics": {"roc_auc": 0.8},
        **changes,
    }


def make_files(**changes: Any) -> dict[str, bytes]:
    """What is in a bento; `changes` are those of its release."""
    manifest = {"served": "model.onnx", "files": {"model.onnx": MODEL_HASH}}
    image = {"base_image": "python:3.11-slim", "python_version": "3.11"}
    information = {
        "service": "gitops_ml.serving.service:Service", "name": PACKAGE, "version": VERSION,
        "bentoml_version": "1.4.39", "creation_time": "2026-01-02T00:00:00+00:00",
        "labels": {}, "models": [], "entry_service": PACKAGE, "services": [], "envs": [],
        "schema": {}, "args": {}, "spec": 2,
        "image": {**image, "commands": [], "python_requirements": ""},
    }  # fmt: skip
    return {
        "bento.yaml": yaml.safe_dump(information, sort_keys=False).encode(),
        "env/docker/Dockerfile": b"",
        "env/python/requirements.txt": b"",
        "src/release.json": _json(make_release(**changes)),
        "src/models/manifest.json": _json(manifest),
        "src/models/model.onnx": MODEL,
        "src/reports/golden.json": _json(GOLDEN),
    }


def make_gate(**changes: Any) -> bytes:
    """The gate's report on the bento's model."""
    report = {
        "verdict": "promote", "reasons": [], "notes": [], "commit": COMMIT,
        "base": {"revision": "event", "commit": "b" * 40},
        "challenger": {"hash": "1.dir", "sha256": MODEL_HASH, "source": "working tree"},
        "champion": None, "consent": {"allow_loosening": True}, "contract": "this one",
        "contract_changes": [], "confidence": 0.95, "rows": 10, "metrics": [], "slices": [],
        "limits": [], "data": {"rows": 50}, "seconds": {}, **changes,
    }  # fmt: skip
    return _json(report)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def unpack(files: dict[str, bytes], folder: Path) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pack(files: dict[str, bytes], folder: Path) -> bytes:
    """A bento as `bentoml export` writes it."""
    tree, path = unpack(files, folder / "tree"), folder / "packed.bento"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(tree, ".")
    return path.read_bytes()


@contextmanager
def store_in(folder: Path) -> Iterator[Path]:
    """Let BentoML keep bentos in a folder while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    BentoMLContainer.bento_store.set(BentoStore(str(folder)))
    try:
        yield folder / PACKAGE
    finally:
        BentoMLContainer.bento_store.reset()


def put_into_store(store: Path, files: dict[str, bytes]) -> Path:
    """Put a bento into the store of `store_in`, as the newest; returns its folder."""
    folder = unpack(files, store / VERSION)
    (store / "latest").write_text(VERSION, encoding="utf-8")
    return folder
