"""cruft: create, check and update against a template in a git repository, as its users have it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import ENGINE, SLUG, Run

from gitops_ml.doctor.engine import check_engine

CRUFT = [sys.executable, "-m", "cruft"]
SKIP, SKIP_ENGINE = 'skip = ["contract.yaml"]\n', 'skip = ["contract.yaml", "engine"]\n'
MINE = "# One more line at the end, by the project's owner.\n"


class Upstream:
    """The template's bare repository, and a clone that its maintainers commit to."""

    def __init__(self, clone: Path, bare: Path, run: Run) -> None:
        self.clone, self.url, self._run = clone, bare.as_uri(), run
        run(["git", "clone", "-q", "--bare", clone, bare], clone, check=True)
        run(["git", "remote", "add", "origin", self.url], clone, check=True)

    @property
    def project(self) -> Path:
        return self.clone / "<<cookiecutter.project_slug>>"

    def publish(self, message: str) -> str:
        """Commit and push what changed; the new commit."""
        for arguments in (["add", "--all"], ["commit", "-qm", message], ["push", "-q", "origin"]):
            self._run(["git", *arguments, *(["main"] if "push" in arguments else [])],
                      self.clone, check=True)  # fmt: skip
        return self._run(["git", "rev-parse", "HEAD"], self.clone, check=True).stdout.strip()


@pytest.fixture
def upstream(template_repository: Path, tmp_path: Path, run: Run) -> Upstream:
    return Upstream(template_repository, tmp_path / "template.git", run)


@pytest.fixture
def project(upstream: Upstream, tmp_path: Path, run: Run, cruft_env: Mapping[str, str]) -> Path:
    """A project that cruft made, with .cruft.json committed as its message says."""
    out = tmp_path / "work"
    out.mkdir()
    created = run(
        [*CRUFT, "create", upstream.url, "--no-input", "--output-dir", out, "--extra-context",
         json.dumps({"task": "regression", "description": "It's é & 100% <ours>."})],
        tmp_path, env=cruft_env, check=True,
    )  # fmt: skip
    assert "git add .cruft.json" in created.stdout
    project = out / SLUG
    git(run, project, "add", ".cruft.json")
    git(run, project, "commit", "-qm", "Record the template")
    return project


@pytest.fixture(params=["without-uv", pytest.param("with-uv", marks=pytest.mark.slow)])
def cruft_env(
    request: pytest.FixtureRequest,
    clean_env: Mapping[str, str],
    env_without_uv: Mapping[str, str],
) -> Mapping[str, str]:
    return env_without_uv if request.param == "without-uv" else clean_env


def git(run: Run, project: Path, *arguments: str) -> str:
    return run(["git", *arguments], project, check=True).stdout


def test_create_makes_a_project_with_one_commit_and_its_choices(project: Path, run: Run) -> None:
    state = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))

    assert state["context"]["cookiecutter"]["task"] == "regression"
    assert "task: regression" in (project / "params.yaml").read_text(encoding="utf-8")
    assert git(run, project, "log", "--format=%s").splitlines() == [
        "Record the template",
        "Start the project",
    ]
    assert git(run, project, "status", "--porcelain") == ""
    assert "<ours>" in (project / "pyproject.toml").read_text(encoding="utf-8")


def test_check_is_green_until_the_template_changes(
    project: Path, upstream: Upstream, run: Run
) -> None:
    assert run([*CRUFT, "check"], project).returncode == 0

    readme = upstream.project / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8")
    upstream.publish("Say more")

    assert run([*CRUFT, "check"], project).returncode == 1


def test_diff_is_empty_for_a_fresh_project(
    project: Path, run: Run, cruft_env: Mapping[str, str]
) -> None:
    done = run([*CRUFT, "diff", "--exit-code"], project, env=cruft_env)

    assert (done.returncode, done.stdout) == (0, "")


def test_update_brings_the_template_s_changes_and_keeps_the_owner_s(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    edit_as_the_owner(project)
    git(run, project, "add", "--all")
    git(run, project, "commit", "-qm", "Make it ours")
    before = files_of(run, project)
    history = git(run, project, "log", "--format=%H")
    commit = change_the_template(upstream)

    done = run([*CRUFT, "update", "--skip-apply-ask"], project, env=cruft_env, check=True)

    assert "been updated" in done.stdout
    # What the template changed is there ...
    assert "seed: 77" in text(project, "params.yaml")
    assert "/new-folder/" in text(project, ".gitignore")
    assert text(project, "NEW.md") == "For the owners of Flight Delays.\n"
    assert not (project / ".gitattributes").exists()
    # ... what the owner changed as well ...
    assert "learning_rate: 0.5" in text(project, "params.yaml")
    assert text(project, "Makefile").endswith(MINE)
    assert text(project, "mine.md") == "mine\n"
    assert not (project / "data" / "upcoming" / "flights-2013-07.parquet").exists()
    # ... and nothing else: no variants, no lock, no repository of the renderings.
    assert set(listed(project)) == (before | {"NEW.md"}) - {".gitattributes"}
    assert git(run, project, "log", "--format=%H") == history
    assert json.loads(text(project, ".cruft.json"))["commit"] == commit
    assert run([*CRUFT, "check"], project).returncode == 0


def edit_as_the_owner(project: Path) -> None:
    replace(project / "params.yaml", "learning_rate: 0.08", "learning_rate: 0.5")
    (project / "Makefile").write_text(text(project, "Makefile") + MINE, encoding="utf-8")
    (project / "mine.md").write_text("mine\n", encoding="utf-8")
    (project / "data" / "upcoming" / "flights-2013-07.parquet").unlink()


def change_the_template(upstream: Upstream) -> str:
    replace(upstream.project / "params.regression.yaml", "seed: 2013", "seed: 77")
    ignored = upstream.project / ".gitignore"
    ignored.write_text("/new-folder/\n" + ignored.read_text(encoding="utf-8"), encoding="utf-8")
    (upstream.project / "NEW.md").write_text(
        "For the owners of << cookiecutter.project_name >>.\n", encoding="utf-8"
    )
    (upstream.project / ".gitattributes").unlink()
    return upstream.publish("Change this and that")


def test_a_change_of_the_engine_reaches_a_project_in_engine_alone(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    change_the_engine(upstream, run)

    run([*CRUFT, "update", "--skip-apply-ask"], project, env=cruft_env, check=True)

    changed = git(run, project, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert {line[3:] for line in changed} == {
        ".cruft.json",
        "engine/manifest.json",
        "engine/src/gitops_ml/cli.py",
        "engine/src/gitops_ml/new.py",
    }
    assert not (project / "engine").is_symlink()
    assert text(project, "engine/src/gitops_ml/new.py") == "NEW = '<< not rendered >>'\n"
    git(run, project, "add", "--all")
    assert check_engine(project).detail.startswith("as released (")


def test_an_update_brings_no_engine_to_a_project_that_has_it_as_a_dependency(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    git(run, project, "rm", "-rq", "engine")
    replace(project / "pyproject.toml", SKIP, SKIP_ENGINE)
    git(run, project, "commit", "-qam", "Take the engine from the index")
    assert f"    [tool.cruft]\n    {SKIP_ENGINE}" in text(ENGINE, "README.md")
    change_the_engine(upstream, run)

    run([*CRUFT, "update", "--skip-apply-ask"], project, env=cruft_env, check=True)

    assert not (project / "engine").exists()
    assert run([*CRUFT, "check"], project).returncode == 0


def test_what_was_changed_in_the_engine_is_put_back_as_doctor_says(
    project: Path, run: Run, cruft_env: Mapping[str, str], tmp_path: Path
) -> None:
    (project / "engine" / "src" / "gitops_ml" / "cli.py").write_text("changed\n", encoding="utf-8")
    git(run, project, "commit", "-qam", "Change the engine")
    replace(project / "params.yaml", "learning_rate: 0.08", "learning_rate: 0.5")
    git(run, project, "commit", "-qam", "Learn faster")
    check = check_engine(project)
    assert check.detail.endswith("differs: src/gitops_ml/cli.py")

    advice = check.remedy.split("`")[1]
    (tmp_path / "uvx").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m "$@"\n')
    (tmp_path / "uvx").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), cruft_env["PATH"], os.defpath])
    run(["/bin/bash", "-c", advice], project, env={**cruft_env, "PATH": path}, check=True)

    assert check_engine(project).status == "ok"
    assert "learning_rate: 0.5" in text(project, "params.yaml")


def change_the_engine(upstream: Upstream, run: Run) -> None:
    engine = upstream.clone / "engine"
    (engine / "src" / "gitops_ml" / "new.py").write_text(
        "NEW = '<< not rendered >>'\n", encoding="utf-8"
    )
    cli = engine / "src" / "gitops_ml" / "cli.py"
    cli.write_text(cli.read_text(encoding="utf-8") + "# More.\n", encoding="utf-8")
    tool = upstream.clone / "tools" / "engine_manifest.py"
    run([sys.executable, tool], upstream.clone, check=True)
    upstream.publish("Change the engine")


def test_an_update_that_meets_the_owner_s_change_loses_neither(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    replace(project / "params.yaml", "seed: 2013", "seed: 1")
    git(run, project, "commit", "-qam", "Choose our seed")
    replace(upstream.project / "params.regression.yaml", "seed: 2013", "seed: 77")
    upstream.publish("Choose another seed")

    run([*CRUFT, "update", "--skip-apply-ask"], project, env=cruft_env)

    merged = text(project, "params.yaml")
    assert "<<<<<<< ours\n  seed: 1\n=======\n  seed: 77\n>>>>>>> theirs" in merged
    assert git(run, project, "show", "HEAD:params.yaml").count("seed: 1\n") == 1


def test_an_update_does_not_touch_what_was_promised(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    replace(project / "contract.yaml", "ceiling: 26.5", "ceiling: 26.1")
    git(run, project, "commit", "-qam", "Promise something else")
    promised = text(project, "contract.yaml")
    shipped = upstream.project / "contract.regression.yaml"
    shipped.write_text(shipped.read_text("utf-8").replace("margin: ", "margin: 1"), "utf-8")
    change_the_template(upstream)

    run([*CRUFT, "update", "--skip-apply-ask"], project, env=cruft_env, check=True)

    assert "seed: 77" in text(project, "params.yaml")
    assert text(project, "contract.yaml") == promised
    assert run([*CRUFT, "check"], project).returncode == 0


def test_update_refuses_a_tree_that_is_not_clean(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    change_the_template(upstream)
    edit_as_the_owner(project)
    before = {name: (project / name).read_bytes() for name in listed(project)}

    done = run([*CRUFT, "update", "--skip-apply-ask"], project, env=cruft_env)

    assert "unclean git project" in done.stdout
    assert {name: (project / name).read_bytes() for name in listed(project)} == before


def test_an_answer_can_be_changed_by_an_update(
    project: Path, upstream: Upstream, run: Run, cruft_env: Mapping[str, str]
) -> None:
    run(
        [*CRUFT, "update", "--skip-apply-ask",
         "--variables-to-update", '{"license": "Apache-2.0"}'],
        project, env=cruft_env, check=True,
    )  # fmt: skip

    assert "Apache License" in text(project, "LICENSE")
    assert 'license = "Apache-2.0"' in text(project, "pyproject.toml")
    assert not list(project.glob("LICENSE.*"))


def test_create_refuses_bad_answers_and_leaves_nothing(
    upstream: Upstream, tmp_path: Path, run: Run, cruft_env: Mapping[str, str]
) -> None:
    out = tmp_path / "refused"
    out.mkdir()

    done = run(
        [*CRUFT, "create", upstream.url, "--no-input", "--output-dir", out, "--extra-context",
         '{"project_slug": "numpy", "author_email": "nobody"}'],
        tmp_path, env=cruft_env,
    )  # fmt: skip

    assert done.returncode != 0
    assert "2 answers cannot be used" in done.stderr
    assert not list(out.iterdir())


def text(project: Path, name: str) -> str:
    return (project / name).read_text(encoding="utf-8")


def replace(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(old) == 1
    path.write_text(content.replace(old, new), encoding="utf-8")


def files_of(run: Run, project: Path) -> set[str]:
    return set(git(run, project, "ls-files").splitlines())


def listed(project: Path) -> list[str]:
    relative = (path.relative_to(project) for path in project.rglob("*") if path.is_file())
    return [str(path) for path in relative if ".git" not in path.parts]
