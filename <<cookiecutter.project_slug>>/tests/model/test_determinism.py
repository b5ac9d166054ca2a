"""The same rows and settings give the same model, in any process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from << cookiecutter.project_slug >> import paths

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[2]
ROWS = 5_000


def test_training_twice_gives_equal_files(train_rows: pl.DataFrame, tmp_path: Path) -> None:
    for name in (paths.PARAMS, paths.SCHEMA):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / paths.TRAIN).parent.mkdir(parents=True)
    train_rows.gather_every(max(1, train_rows.height // ROWS)).write_parquet(tmp_path / paths.TRAIN)

    # Sets of a few words are walked in different orders under these two.
    first, second = train(tmp_path, hash_seed="1"), train(tmp_path, hash_seed="6")

    assert first["files"] == second["files"]
    assert first == second


def train(folder: Path, hash_seed: str) -> dict[str, Any]:
    """Run the stage in a process of its own and read the manifest."""
    found = [str(Path(entry).resolve()) for entry in sys.path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(found), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "<< cookiecutter.project_slug >>.model.train"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / paths.MANIFEST).read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest
