"""A project of release 0.1, changed by its owner, follows by the steps that the changelog lists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from conftest import SLUG, TEMPLATE, Run

pytestmark = pytest.mark.slow

# The last commit of the template whose projects have the machinery in src/<package>.
OLD = "7408305e1c454e652223ec2549067412766c2d44"
CRUFT = [sys.executable, "-m", "cruft"]
COMMANDS = re.compile(r"^### Upgrading from 0\.1\n(?:(?!^#).*\n)*?\n((?:    .*\n)+)", re.MULTILINE)


def steps() -> list[str]:
    """The commands of the changelog's list, in order."""
    found = COMMANDS.search((TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert found is not None, "CHANGELOG.md lists no commands below 'Upgrading from 0.1'"
    return [line.strip() for line in found[1].splitlines()]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path}: {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def upstream(tmp_path: Path, run: Run) -> Path:
    """The template's repository as it was at release 0.1."""
    if run(["git", "cat-file", "-e", f"{OLD}^{{commit}}"], TEMPLATE).returncode != 0:
        pytest.skip(f"the history is too short: {OLD} is not in it; `git fetch --unshallow`")
    bare = tmp_path / "template.git"
    run(["git", "init", "-q", "--bare", "-b", "main", bare], tmp_path, check=True)
    run(["git", "push", "-q", bare, f"{OLD}:refs/heads/main"], TEMPLATE, check=True)
    return bare


@pytest.fixture
def env(clean_env: Mapping[str, str], tmp_path: Path) -> Mapping[str, str]:
    """The variables of the owner's shell, where `uvx cruft` is the locked one."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "uvx").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m "$@"\n', encoding="utf-8")
    (shims / "uvx").chmod(0o755)
    return {
        **clean_env,
        "PATH": os.pathsep.join([str(shims), clean_env["PATH"]]),
        "UV_PROJECT_ENVIRONMENT": ".venv",
    }


@pytest.fixture
def project(upstream: Path, tmp_path: Path, run: Run, env: Mapping[str, str]) -> Path:
    """A project of release 0.1, trained, with changes by its owner of every kind."""
    out = tmp_path / "work"
    out.mkdir()
    run([*CRUFT, "create", upstream.as_uri(), "--no-input", "--output-dir", out],
        tmp_path, env=env, check=True)  # fmt: skip
    project = out / SLUG
    edit_as_the_owner(project, tmp_path / "answered")
    run(["uv", "sync", "--locked", "--quiet"], project, env=env, check=True)
    run(["uv", "run", "dvc", "repro"], project, env=env, check=True)
    run(["git", "add", "--all"], project, env=env, check=True)
    run(["git", "commit", "-qm", "Make it ours"], project, env=env, check=True)
    return project


# What the owner's settings say, among what the template brings anew.
EDITS = {
    "params.yaml": "learning_rate: 0.1",
    "schema.yaml": "max: 1090",
    "contract.yaml": "floor: 0.71",
}


def edit_as_the_owner(project: Path, mark: Path) -> None:
    replace(project / "params.yaml", "learning_rate: 0.08", "learning_rate: 0.1")
    replace(project / "params.yaml", "2013-07-01T00", "2013-08-01T00")
    replace(project / "schema.yaml", "max: 1100", "max: 1090")
    replace(project / "contract.yaml", "floor: 0.74", "floor: 0.71")
    july = "flights-2013-07.parquet"
    (project / "data" / "upcoming" / july).rename(project / "data" / "landed" / july)
    (project / "notes.md").write_text("Ours.\n", encoding="utf-8")
    (project / "src" / SLUG / "mine.py").write_text(
        '"""Ours."""\n\n\ndef mine() -> int:\n    """Give an answer."""\n    return 42\n',
        encoding="utf-8",
    )
    (project / "tests" / "test_mine.py").write_text(
        f"from {SLUG}.mine import mine\n\n\ndef test_mine() -> None:\n    assert mine() == 42\n",
        encoding="utf-8",
    )
    # The machinery's own code was changed too: it leaves a mark whenever it answers.
    predict = project / "src" / SLUG / "model" / "predict.py"
    text = predict.read_text(encoding="utf-8")
    predict.write_text(
        text.replace(
            'if __name__ == "__main__":',
            f'if __name__ == "__main__":\n    Path("{mark}").touch()',
        ),
        encoding="utf-8",
    )
    assert text != predict.read_text(encoding="utf-8")


def release_today(upstream: Path, template: Path, tmp_path: Path, run: Run) -> None:
    """Let the template's main follow to what is in this working tree."""
    clone = tmp_path / "maintainers"
    run(["git", "clone", "-q", upstream, clone], tmp_path, check=True)
    for path in clone.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(template, clone, symlinks=True, dirs_exist_ok=True)
    for arguments in (["add", "--all"], ["commit", "-qm", "0.2"], ["push", "-q", "origin", "main"]):
        run(["git", *arguments], clone, check=True)


def test_the_steps_bring_the_project_along_with_all_that_is_its_owner_s(
    upstream: Path,
    project: Path,
    template: Path,
    tmp_path: Path,
    run: Run,
    env: Mapping[str, str],
) -> None:
    release_today(upstream, template, tmp_path, run)
    july = project / "data" / "landed" / "flights-2013-07.parquet"
    landed = pl.read_parquet(july)
    names = ("notes.md", f"src/{SLUG}/mine.py", "tests/test_mine.py")
    kept = {name: (project / name).read_bytes() for name in names}
    mark = tmp_path / "answered"
    mark.unlink(missing_ok=True)

    said = {step: follow(step, project, env) for step in steps()}

    # What is the owner's is as it was, the machinery is the released one ...
    for name, content in kept.items():
        assert (project / name).read_bytes() == content, name
    for name, edit in EDITS.items():
        assert edit in (project / name).read_text(encoding="utf-8"), name
    assert pl.read_parquet(july).equals(landed.drop("day_of_week"))
    assert not (project / "data" / "upcoming" / "flights-2013-07.parquet").exists()
    tracked = run(["git", "ls-files"], project, check=True).stdout.splitlines()
    assert not [name for name in tracked if name.startswith("tests/unit/")]
    assert f"src/{SLUG}/model/predict.py" not in tracked
    assert run(["git", "status", "--porcelain"], project, check=True).stdout == ""
    assert run([*CRUFT, "check"], project, env=env).returncode == 0
    doctor = run(["uv", "run", "gitops-ml", "doctor", "--json"], project, env=env)
    checks = {check["name"]: check for check in json.loads(doctor.stdout)}
    assert checks["engine"]["detail"].startswith("as released ("), checks["engine"]
    assert checks["stages"]["status"] == "ok", checks["stages"]
    # ... and the gate compared with the champion, which answered with its own old code.
    judged = said["make gate BASE=main ARGS=--allow-own-engine"]
    assert "non-inferior" in judged
    assert "Champion: " in judged
    assert "the engine of this change judged itself: main locks no gitops-ml" in judged
    assert mark.exists()


def follow(step: str, project: Path, env: Mapping[str, str]) -> str:
    """Run one command of the list as its reader's shell would; what it printed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", step],
        cwd=project,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{step}\n{done.stdout}"
    return done.stdout
