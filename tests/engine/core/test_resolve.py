"""Merges of two trained branches, with real git and a pipeline that runs in no time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import subcommand
from conftest import PROJECT_TEMPLATE
from forked_dvc import forked
from tiny_pipeline import TinyProject, copy_tiny_project, make_tiny_project

from gitops_ml.core.dvc_lock import verify
from gitops_ml.core.resolve import Conflicts, find_conflicts
from gitops_ml.core.run import outside_git

main = subcommand("resolve")

ATTRIBUTES = (PROJECT_TEMPLATE / ".gitattributes").read_text(encoding="utf-8")
WRITTEN = ["dvc.lock", "reports/evaluation.json", "reports/golden.json", "reports/metrics.json"]
MARKED = "<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n"


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """Two branches that were both trained: `mine` has more rows, `theirs` another code."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(subprocess, "run", forked)
        project = make_tiny_project(tmp_path_factory.mktemp("tiny"), monkeypatch)
        project.git("config", "user.name", "Ada")
        project.git("config", "user.email", "ada@example.com")
        project.git("config", "core.editor", "true")
        project.write(".gitattributes", ATTRIBUTES)
        project.commit()
        for branch, name, text in (
            ("theirs", "src/code.txt", "longer code\n"),
            ("mine", "rows.txt", "one\ntwo\nthree\n"),
        ):
            project.git("switch", "-qc", branch, "main")
            project.dvc("checkout", "-q")
            project.write(name, text)
            project.dvc("repro", "-q")
            project.commit(branch)
        yield project


@pytest.fixture
def project(diverged: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    copy = copy_tiny_project(diverged, tmp_path / "laptop", monkeypatch)
    monkeypatch.chdir(copy.root)
    return copy


def fails(project: TinyProject, *arguments: str) -> str:
    """Run a git command that must end with a conflict."""
    command = ["git", *arguments]
    done = subprocess.run(
        command, cwd=project.root, env=outside_git(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


def unmerged(project: TinyProject) -> list[str]:
    return project.git("diff", "--name-only", "--diff-filter=U").split()


def check_whole(project: TinyProject) -> None:
    """What is committed is what a run wrote for both sides' changes."""
    assert project.git("status", "--porcelain") == ""
    assert verify(project.root) == "The committed dvc.lock is what this run wrote."
    texts = [(project.root / name).read_text() for name in ("rows.txt", "src/code.txt")]
    assert texts == ["one\ntwo\nthree\n", "longer code\n"]
    assert project.score() == len("".join(texts) + "seed: 1\n") + manifest_size(project)
    assert "longer code" in (project.root / "models/model.onnx").read_text()


def manifest_size(project: TinyProject) -> int:
    return len((project.root / "models/manifest.json").read_bytes())


@pytest.mark.parametrize(
    ("start", "marks"),
    [("merge", False), ("rebase", False), ("cherry-pick", False), ("merge", True)],
)
def test_a_run_resolves_what_runs_write(
    project: TinyProject, capfd: pytest.CaptureFixture[str], start: str, marks: bool
) -> None:
    if marks:
        # As in a project that was made before `.gitattributes` said otherwise.
        project.git("rm", "-q", ".gitattributes")
        project.git("commit", "-qm", "Without attributes")
        project.git("switch", "-q", "theirs")
        project.git("rm", "-q", ".gitattributes")
        project.git("commit", "-qm", "Without attributes", "--amend")
        project.git("switch", "-q", "mine")
    fails(project, start, "theirs")
    assert unmerged(project) == WRITTEN
    assert ("<<<<<<<" in (project.root / "dvc.lock").read_text()) is marks
    assert main() == 0
    said = capfd.readouterr().out
    assert f"In conflict: {', '.join(WRITTEN)}." in said
    staged = ", ".join([*WRITTEN, "reports/validation.json"])
    assert f"Written by this run, and staged: {staged}." in said
    go_on = said.rpartition("Go on with `")[2].split("`")[0]
    assert go_on == {"merge": "git commit"}.get(start, f"git {start} --continue")
    project.git(*go_on.split()[1:], *(["--no-edit"] if start == "merge" else []))
    check_whole(project)


def test_without_marks_the_pipeline_can_be_run_in_a_merge(project: TinyProject) -> None:
    fails(project, "merge", "theirs")
    assert main(["--check"]) == 0
    project.dvc("repro", "-q")
    project.git("add", "dvc.lock", "reports")
    project.git("commit", "-q", "--no-edit")
    check_whole(project)


def test_what_only_a_person_can_resolve_comes_first(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("params.yaml", "seed: 2\n")
    project.git("commit", "-qam", "Mine")
    project.git("switch", "-q", "theirs")
    project.write("params.yaml", "seed: 3\n")
    project.git("commit", "-qam", "Theirs")
    project.git("switch", "-q", "mine")
    fails(project, "merge", "theirs")
    before = project.git("status", "--porcelain")
    files = [(project.root / name).read_bytes() for name in (*WRITTEN, "params.yaml")]

    assert main() == 1

    said = capsys.readouterr().err
    assert "no run can tell what belongs in them" in said
    assert "  params.yaml\n" in said
    assert f"left to `make resolve`: {', '.join(WRITTEN)}" in said
    assert project.git("status", "--porcelain") == before
    assert files == [(project.root / name).read_bytes() for name in (*WRITTEN, "params.yaml")]
    # As it says.
    project.write("params.yaml", "seed: 1\n")
    project.git("add", "params.yaml")
    assert main() == 0
    project.git("commit", "-q", "--no-edit")
    check_whole(project)


def test_a_run_that_fails_loses_no_side(
    project: TinyProject, capfd: pytest.CaptureFixture[str]
) -> None:
    fails(project, "merge", "theirs")
    before = project.git("ls-files", "-u")
    project.write("src/code.txt", "staged\n")
    (project.root / "rows.txt").unlink()
    assert main() == 1
    assert "The pipeline failed on what is merged" in capfd.readouterr().err
    assert project.git("ls-files", "-u") == before
    # As it says.
    project.git("checkout", "HEAD", "--", "rows.txt")
    project.git("checkout", "theirs", "--", "src/code.txt")
    assert main() == 0
    project.git("commit", "-q", "--no-edit")
    check_whole(project)


def test_what_the_run_saw_and_is_not_staged_is_named(
    project: TinyProject, capfd: pytest.CaptureFixture[str]
) -> None:
    fails(project, "merge", "theirs")
    project.write("params.yaml", "seed: 5\n")
    assert main() == 0
    assert "they are not staged: params.yaml; `git add` them" in capfd.readouterr().out


def test_a_report_that_no_stage_writes_any_more_goes(project: TinyProject) -> None:
    project.git("switch", "-q", "theirs")
    outputs = [{"reports/evaluation.json": {"cache": False}}, "reports/plots"]
    project.stages({"evaluate": {"outs": outputs}})
    project.git("rm", "-q", "reports/golden.json")
    project.dvc("repro", "-q", "--force")
    (project.root / "reports/golden.json").unlink()
    project.commit("Without golden answers")
    project.git("switch", "-q", "mine")
    project.dvc("checkout", "-q")
    fails(project, "merge", "theirs")
    assert main() == 0
    project.git("commit", "-q", "--no-edit")
    assert "reports/golden.json" not in project.git("ls-files", "reports")
    assert project.git("status", "--porcelain") in ("", "?? reports/golden.json\n")
    assert verify(project.root) == "The committed dvc.lock is what this run wrote."


def test_a_lock_that_nobody_can_read_is_made_anew(project: TinyProject) -> None:
    for branch in ("theirs", "mine"):
        project.git("switch", "-q", branch)
        project.write("dvc.lock", f"# {branch}\n{MARKED}")
        project.git("commit", "-qam", "Marks")
    fails(project, "merge", "theirs")
    assert "dvc.lock" in unmerged(project)
    assert main() == 0
    project.git("commit", "-q", "--no-edit")
    check_whole(project)


def test_where_nothing_is_in_conflict_nothing_is_done(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main() == 0
    assert capsys.readouterr().out == "Nothing to resolve: no file is in conflict.\n"
    assert project.git("status", "--porcelain") == ""


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["resolve", "check"])
def test_marks_outside_of_a_merge_are_refused_with_what_to_do(
    project: TinyProject, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    project.write("dvc.lock", MARKED)
    project.git("commit", "-qam", "Marks")
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "dvc.lock: holds the marks of a merge conflict, but git knows of none" in said
    assert (project.root / "dvc.lock").read_text() == MARKED
    # As it says.
    assert "`rm dvc.lock`, then `make pipeline`" in said
    (project.root / "dvc.lock").unlink()
    assert main(["--check"]) == 0
    project.dvc("repro", "-q")
    project.commit()
    assert verify(project.root) == "The committed dvc.lock is what this run wrote."


def test_marks_in_a_merge_are_found_before_the_pipeline_runs(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(project, "merge", "theirs")
    project.write("dvc.lock", MARKED)
    assert main(["--check"]) == 1
    assert capsys.readouterr().err.endswith("run `make resolve`\n")
    assert main() == 0


def test_a_project_inside_of_a_repository(tmp_path: Path) -> None:
    """Conflicts of the repository's other folders are a person's, too."""
    outer = TinyProject(tmp_path, tmp_path, tmp_path)
    outer.git("init", "-q", "-b", "theirs")
    outer.git("config", "user.name", "Ada")
    outer.git("config", "user.email", "ada@example.com")
    outer.commit("Start")
    for branch in ("theirs", "mine"):
        outer.git("switch", "-q", *(["-c", "mine", "HEAD^"] if branch == "mine" else ["theirs"]))
        for name in ("note.txt", "inner/note.txt", "inner/dvc.lock"):
            outer.write(name, f"stages: {{}}  # {branch}\n")
        outer.commit(branch)
    fails(outer, "merge", "theirs")
    found = find_conflicts(tmp_path / "inner")
    assert found == Conflicts(("dvc.lock",), ("note.txt", ":/note.txt"))


def test_outside_of_git_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert main() == 1
    assert "not a git repository" in capsys.readouterr().err
