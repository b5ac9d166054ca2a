"""The verification of dvc.lock, against what git holds and what DVC wrote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import subcommand

from gitops_ml.core.dvc import DvcError
from gitops_ml.core.dvc_lock import LockError, tolerance_note, verify
from gitops_ml.core.environment import LockedVersionsError
from gitops_ml.core.run import outside_git

main = subcommand("verify-lock")

REPORT = "reports/noise.json"
STAGES: dict[str, dict[str, Any]] = {
    "by-command": {"cmd": "cp still.txt c.txt", "deps": ["still.txt"], "outs": ["c.txt"]},
    "by-file": {"cmd": "cp in.txt a.txt", "deps": ["in.txt"], "outs": ["a.txt"]},
    "by-parameter": {
        "cmd": "cp still.txt b.txt",
        "deps": ["still.txt"],
        "params": ["size", "kept"],
        "outs": ["b.txt"],
    },
    "gone": {"cmd": "cp still.txt d.txt", "deps": ["still.txt"], "outs": ["d.txt"]},
    # Reads a file that it does not name.
    "noisy": {
        "cmd": f"cp noise.txt {REPORT}",
        "deps": ["still.txt"],
        "outs": [{REPORT: {"cache": False}}],
    },
    "same": {
        "cmd": "cp still.txt reports/plot.txt",
        "deps": ["still.txt"],
        "outs": ["reports/plot.txt"],
    },
}


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    command = ["git", *identity, *arguments]
    subprocess.run(command, cwd=root, env=outside_git(), check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "-qm", "Change")


def reproduce(root: Path, stages: dict[str, Any], size: int, **files: str) -> None:
    """Run every stage on these files."""
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    (root / "params.yaml").write_text(f"size: {size}\nkept: 1\n", encoding="utf-8")
    for name, text in files.items():
        (root / f"{name}.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "--force"]
    subprocess.run(command, cwd=root, env=outside_git(), check=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with a run that is committed, and the dvc.lock of a later run that changed much."""
    root = tmp_path_factory.mktemp("runs")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").touch()
    (root / ".gitignore").write_text("/.dvc/cache\n/.dvc/tmp\n", encoding="utf-8")
    (root / "reports").mkdir()
    git(root, "init", "-q")
    reproduce(root, STAGES, 1, **{"in": "1", "still": "still", "noise": "1"})
    commit(root)
    command = {**STAGES["by-command"], "cmd": "cp -f still.txt c.txt"}
    new = {"cmd": "cp still.txt e.txt", "deps": ["still.txt"], "outs": ["e.txt"]}
    changed = {**STAGES, "by-command": command, "new": new}
    reproduce(root, changed, 2, **{"in": "2", "noise": "2"})
    later = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    del later["stages"]["gone"]  # as `dvc remove` does
    git(root, "reset", "-q", "--hard")
    return root, yaml.safe_dump(later)


@pytest.fixture
def project(runs: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project whose committed lock is what its run wrote."""
    root = tmp_path / "project"
    shutil.copytree(runs[0], root, ignore=shutil.ignore_patterns("cache", "tmp"))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def later(runs: tuple[Path, str]) -> str:
    return runs[1]


def test_an_equal_lock_holds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert capsys.readouterr().out == "The committed dvc.lock is what this run wrote.\n"


def test_names_each_stage_that_differs_and_why(
    project: Path, later: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "dvc.lock").write_text(later, encoding="utf-8")
    assert main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "The committed dvc.lock is not what this run wrote:",
        "  by-command: stale, it was run with another command",
        "  by-file: stale, it was run with another in.txt",
        "  by-parameter: stale, it was run with another params.yaml:size",
        "  gone: no longer a stage; take its entry out of dvc.lock",
        "  new: the committed lock lacks this stage",
        "  noisy: not reproduced, the same inputs gave another reports/noise.json",
        "run `make pipeline`, then commit dvc.lock and reports/",
    ]


@pytest.mark.parametrize("name", ["by-command", "by-file", "by-parameter", "gone", "new", "noisy"])
def test_one_stage_is_enough(project: Path, later: str, name: str) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    found = yaml.safe_load(later)["stages"].get(name)
    if found is None:
        del lock["stages"][name]
    else:
        lock["stages"][name] = found
    (project / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    with pytest.raises(LockError) as error:
        verify(project)
    said = str(error.value).splitlines()
    assert len(said) == 3
    assert said[1].startswith(f"  {name}: ")
    # To run it once more would not help where the same inputs give other outputs.
    assert ("artifact `training`" if name == "noisy" else "run `make pipeline`") in said[2]


def test_an_input_that_is_new_or_gone_is_named(project: Path) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    dependency = lock["stages"]["same"]["deps"][0]
    lock["stages"]["same"]["deps"].append({**dependency, "path": "more.txt"})
    del lock["stages"]["by-parameter"]["params"]
    (project / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    with pytest.raises(LockError) as error:
        verify(project)
    assert "same: stale, it was run with another more.txt\n" in str(error.value)
    assert "another params.yaml:kept, params.yaml:size\n" in str(error.value)


def test_without_a_lock_the_pipeline_has_not_run(project: Path) -> None:
    (project / "dvc.lock").unlink()
    with pytest.raises(DvcError, match=r"dvc.lock: no such file; run `make pipeline`"):
        verify(project)


def test_without_a_commit_there_is_nothing_to_hold_it_against(project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "-q")
    with pytest.raises(LockError, match="HEAD: no such commit"):
        verify(project)


def test_before_the_first_committed_lock_there_is_nothing_to_verify(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(project, "rm", "-q", "--cached", "dvc.lock")
    git(project, "commit", "-qm", "Change")
    assert main() == 0
    assert "nothing to verify. To commit it: run `make pipeline`" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    ["stages: {}\n=======\nstages: {}\n", "", "- 1", "schema: '2.0'", "stages: 1", "stages: [a]"]
    + [f"stages: {{a: {entry}}}" for entry in ("1", "{outs: 1}", "{deps: [{}]}", "{params: [1]}")],
)
@pytest.mark.parametrize("where", ["committed", "here"])
def test_what_is_no_lock_is_named(project: Path, text: str, where: str) -> None:
    lock = (project / "dvc.lock").read_text(encoding="utf-8")
    (project / "dvc.lock").write_text(text, encoding="utf-8")
    if where == "committed":
        commit(project)
        (project / "dvc.lock").write_text(lock, encoding="utf-8")
    name = "dvc.lock as committed" if where == "committed" else "dvc.lock"
    with pytest.raises(DvcError, match=rf"^{name}: is no DVC lock file (.|\n)*make pipeline"):
        verify(project)


def edited(root: Path) -> None:
    (root / REPORT).write_text("edited", encoding="utf-8")


def edited_and_added(root: Path) -> None:
    edited(root)
    git(root, "add", REPORT)


def deleted(root: Path) -> None:
    (root / REPORT).unlink()


def never_committed(root: Path) -> None:
    git(root, "rm", "-q", "--cached", REPORT)
    git(root, "commit", "-qm", "Change")


@pytest.mark.parametrize("defect", [edited, edited_and_added, deleted, never_committed])
def test_a_report_that_is_not_in_git_as_it_was_written_is_named(
    project: Path, defect: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    defect(project)
    assert main() == 1
    assert f"The committed {REPORT} is not what this run wrote; run" in capsys.readouterr().err


def test_other_files_in_reports_may_be_there(project: Path) -> None:
    (project / "reports" / "notes.md").write_text("mine", encoding="utf-8")
    assert "is what this run wrote" in verify(project)


def test_a_project_in_a_folder_of_its_repository_is_verified_too(project: Path, later: str) -> None:
    shutil.rmtree(project / ".git")
    git(project.parent, "init", "-q")
    commit(project.parent)
    assert "is what this run wrote" in verify(project)
    (project / "dvc.lock").write_text(later, encoding="utf-8")
    with pytest.raises(LockError, match="by-file: stale"):
        verify(project)


def test_without_git_nothing_can_be_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(project))
    assert main() == 1
    assert "git: not installed" in capsys.readouterr().err


# What a run of another machine leaves: stages by hand, since no two machines are at hand.
FILES = {
    "uv.lock": "1",
    "reports/locked_versions.json": "1",
    "models": "1",
    "reports/plots": "1",
    "reports/metrics.json": '{"mae": 1.5}\n',
    "reports/evaluation.json": '{"rows": 9, "metrics": {"mae": {"value": 1.5, "low": null}}}\n',
    "reports/golden.json": '{"records": [{"x": 0.5}], "predictions": [{"prediction": 2.5}]}\n',
}


def entries(files: dict[str, str], *names: str) -> list[dict[str, Any]]:
    return [{"path": name, "md5": files[name]} for name in names]


def lock_of(files: dict[str, str], scikit_learn: str = "1.0") -> str:
    versions = {"reports/locked_versions.json": {"model": {"scikit-learn": scikit_learn}}}
    evaluation = [name for name in files if name.startswith("reports/") and "locked" not in name]
    stages = {
        "environment": {
            "cmd": "gitops-ml environment",
            "deps": entries(files, "uv.lock"),
            "outs": entries(files, "reports/locked_versions.json"),
        },
        "evaluate": {
            "cmd": "gitops-ml evaluate",
            "deps": entries(files, "models"),
            "outs": entries(files, *evaluation),
        },
        "train": {
            "cmd": "gitops-ml train",
            "params": versions,
            "outs": entries(files, "models"),
        },
    }
    return yaml.safe_dump({"schema": "2.0", "stages": stages})


def write_run(root: Path, files: dict[str, str], **more: str) -> None:
    (root / "reports").mkdir(exist_ok=True)
    for name, text in files.items():
        if name.endswith(".json"):
            (root / name).write_text(text, encoding="utf-8")
    (root / "dvc.lock").write_text(lock_of(files, **more), encoding="utf-8")


@pytest.fixture
def committed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "committed"
    root.mkdir()
    git(root, "init", "-q")
    write_run(root, FILES)
    commit(root)
    monkeypatch.chdir(root)
    return root


def test_a_new_lock_of_dependencies_that_changes_no_version_is_not_stale(
    committed_run: Path,
) -> None:
    write_run(committed_run, {**FILES, "uv.lock": "2"})
    assert "is what this run wrote" in verify(committed_run)


def test_a_new_version_of_what_trains_is_stale_and_committing_the_run_mends_it(
    committed_run: Path,
) -> None:
    new = {**FILES, "uv.lock": "2", "reports/locked_versions.json": "2", "models": "2"}
    write_run(committed_run, new, scikit_learn="2.0")
    with pytest.raises(LockError) as error:
        verify(committed_run)
    assert str(error.value).splitlines()[1:] == [
        "  environment: stale, it was run with another uv.lock",
        "  evaluate: stale, it was run with another models",
        "  train: stale, it was run with another reports/locked_versions.json:model.scikit-learn",
        "run `make pipeline`, then commit dvc.lock and reports/",
    ]
    commit(committed_run)
    assert "is what this run wrote" in verify(committed_run)


def test_only_the_stage_that_distils_may_have_other_inputs(committed_run: Path) -> None:
    write_run(committed_run, FILES, scikit_learn="2.0")
    with pytest.raises(LockError, match="train: stale"):
        verify(committed_run)


def other_model(metric: float, answer: float, x: float = 0.5) -> dict[str, str]:
    """A run whose model has other bytes."""
    text = {
        "reports/metrics.json": FILES["reports/metrics.json"].replace("1.5", f"{metric}"),
        "reports/evaluation.json": FILES["reports/evaluation.json"].replace("1.5", f"{metric}"),
        "reports/golden.json": FILES["reports/golden.json"]
        .replace("2.5", f"{answer}")
        .replace("0.5", f"{x}"),
    }
    return {**FILES, **text, "models": "2", "reports/plots": "2"}


def test_another_model_with_the_same_answers_counts_as_reproduced_and_that_is_said(
    committed_run: Path,
) -> None:
    write_run(committed_run, other_model(1.500001, 2.500001))
    said = verify(committed_run)
    assert said.startswith("Reproduced within a tolerance, not byte for byte: ")
    assert "1 golden predictions, and every metric" in said
    assert "9 test rows, are the committed ones to within 1e-04" in said
    assert tolerance_note(committed_run) == said


@pytest.mark.parametrize(
    ("run", "where"),
    [
        (other_model(1.5, 2.51), "reports/golden.json: predictions[0].prediction: 2.5 is"),
        (other_model(1.6, 2.5), "reports/evaluation.json: metrics.mae.value: 1.5 is committed"),
        (other_model(1.5, 2.5, x=0.500001), "reports/golden.json: records[0].x: 0.5 is"),
    ],
)
def test_another_model_with_other_answers_is_not_reproduced_and_committing_it_mends_that(
    committed_run: Path, run: dict[str, str], where: str
) -> None:
    write_run(committed_run, run)
    with pytest.raises(LockError) as error:
        verify(committed_run)
    lines = str(error.value).splitlines()
    assert lines[1].startswith("  evaluate: not reproduced, models was not either: reports/")
    assert lines[2] == "  train: not reproduced, the same inputs gave another models"
    assert any(line.startswith(f"  {where}") for line in lines[3:])
    assert lines[-1].startswith("commit the dvc.lock and reports/ of this machine")
    assert tolerance_note(committed_run) is None
    commit(committed_run)
    assert "is what this run wrote" in verify(committed_run)


def test_what_is_no_answer_of_a_model_must_be_reproduced_to_the_byte(committed_run: Path) -> None:
    write_run(committed_run, {**FILES, "reports/locked_versions.json": "2"})
    with pytest.raises(LockError, match="environment: not reproduced"):
        verify(committed_run)


def test_answers_that_were_never_committed_prove_nothing(committed_run: Path) -> None:
    git(committed_run, "rm", "-q", "--cached", "reports/golden.json")
    git(committed_run, "commit", "-qm", "Change")
    write_run(committed_run, other_model(1.5, 2.5))
    with pytest.raises(LockError, match=r"golden.json: is not committed"):
        verify(committed_run)


def test_with_other_versions_installed_that_is_said_first(committed_run: Path) -> None:
    write_run(committed_run, other_model(1.5, 2.51))
    names = ("polars", "pandera", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "matplotlib")
    source = 'source = { registry = "https://pypi.org/simple" }'
    (committed_run / "uv.lock").write_text(
        "".join(f'[[package]]\nname = "{name}"\nversion = "0.1"\n{source}\n' for name in names)
    )
    with pytest.raises(LockedVersionsError, match=r"other environment(.|\n)*`uv sync --locked`"):
        verify(committed_run)


def test_without_a_committed_lock_there_is_no_tolerance_to_note(committed_run: Path) -> None:
    assert tolerance_note(committed_run) is None
    shutil.rmtree(committed_run / ".git")
    git(committed_run, "init", "-q")
    assert tolerance_note(committed_run) is None
