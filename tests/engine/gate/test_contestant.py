from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest
from projects import PACKAGE

from gitops_ml.core.schema import Schema
from gitops_ml.gate.contestant import CannotScoreError, Contestant, hidden_columns, write_rows


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("engine/src/gitops_ml/model/predict.py", ("gitops_ml", "predict")),
        # The engine as a dependency: no folder.
        (f"src/{PACKAGE}/model.py", ("gitops_ml", "predict")),
        # Of release 0.1.
        (f"src/{PACKAGE}/model/predict.py", (f"{PACKAGE}.model.predict",)),
    ],
)
def test_a_contestant_answers_with_what_its_own_commit_has(
    tmp_path: Path, file: str, command: tuple[str, ...]
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()

    assert tuple(Contestant(tmp_path, tmp_path)._predict_command()) == command


def test_the_target_and_all_outcomes_are_hidden(shop_schema: Schema, tmp_path: Path) -> None:
    document = shop_schema.model_dump(exclude_defaults=True)
    document["columns"]["stars"]["outcome"] = True
    hidden = hidden_columns(Schema.model_validate(document), "returned")
    assert hidden == {"returned", "stars"}
    rows = pl.DataFrame({"weight": [1.0], "returned": [True], "order": [1]})
    written = pl.read_parquet(write_rows(rows, hidden, tmp_path / "rows.parquet"))
    assert written.columns == ["weight", "order"]


def test_a_contestant_is_told_no_token_and_no_file_that_steers_a_workflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "says.py").write_text(
        "import os, sys\nraise SystemExit(str([k for k in os.environ if 'GITHUB' in k or "
        "'AWS' in k or 'UV_NO' in k]) + str(sys.argv[1:]))",
        encoding="utf-8",
    )
    for name in ("GITHUB_TOKEN", "GITHUB_ENV", "AWS_SECRET_ACCESS_KEY", "UV_NO_SYNC"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(CannotScoreError) as told:
        Contestant(tmp_path, tmp_path).ask("says", "--rows", tmp_path)
    assert str(told.value) == f"[]['--rows', '{tmp_path}']"


def test_another_lock_means_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    for folder in (home, project):
        folder.mkdir()
        (folder / "uv.lock").write_text("numpy 2.0", encoding="utf-8")
    same = Contestant(project, tmp_path)
    same.choose_interpreter(home, "The challenger")
    assert same.interpreter == (sys.executable,)

    (project / ".python-version").write_text("3.12\n", encoding="utf-8")
    newer = Contestant(project, tmp_path)
    newer.choose_interpreter(home, "The challenger")
    assert newer.interpreter[:3] == ("uv", "run", "--locked")
    (project / ".python-version").unlink()

    # The same version from another file is another environment, too.
    (project / "uv.lock").write_text("numpy 2.0 from elsewhere", encoding="utf-8")
    other = Contestant(project, tmp_path)
    other.choose_interpreter(home, "The challenger")
    assert other.interpreter[:3] == ("uv", "run", "--locked")
    assert other.notes == []

    monkeypatch.setenv("PATH", "")
    without = Contestant(project, tmp_path)
    without.choose_interpreter(home, "The challenger")
    assert without.interpreter == (sys.executable,)
    assert "uv is not installed" in without.notes[0]

    # A project that locks nothing has nothing to set up.
    (project / "uv.lock").unlink()
    unlocked = Contestant(project, tmp_path)
    unlocked.choose_interpreter(home, "The challenger")
    assert (unlocked.interpreter, unlocked.notes) == ((sys.executable,), [])
