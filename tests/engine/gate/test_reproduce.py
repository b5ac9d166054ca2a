"""What a run believes, on a pipeline that runs in no time: real git, real DVC, a real remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import subcommand
from forked_dvc import forked
from tiny_pipeline import TinyProject, copy_tiny_project, make_tiny_project

from gitops_ml.core.dvc import DvcError
from gitops_ml.core.dvc_lock import verify
from gitops_ml.core.dvc_objects import hash_of
from gitops_ml.core.elsewhere import trained_by
from gitops_ml.gate.reproduce import ReproduceError, believed_lock, check_stages, reproduce
from gitops_ml.gate.run_record import RunRecord

main = subcommand("reproduce")

BASE = "origin/main"
PAYLOAD = "touch PWNED\n"
ALL = ["ingest", "validate", "split", "train", "evaluate"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(subprocess, "run", forked)
        yield make_tiny_project(tmp_path_factory.mktemp("tiny"), monkeypatch)


@pytest.fixture
def project(made: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The laptop of somebody with a branch."""
    copy = copy_tiny_project(made, tmp_path / "laptop", monkeypatch)
    copy.git("switch", "-qc", "change")
    monkeypatch.chdir(copy.root)
    return copy


Runner = Callable[[], TinyProject]


@pytest.fixture
def runner(project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Commit the branch, and clone it as a runner does."""

    def clone() -> TinyProject:
        project.commit()
        fresh = project.fresh(tmp_path / "runner")
        monkeypatch.chdir(fresh.root)
        return fresh

    return clone


def plant(project: TinyProject) -> None:
    """Another model, that runs a command when it is loaded, as if `train` had made it."""
    project.write("models/model.joblib", PAYLOAD)
    project.write("models/model.onnx", "much better than what the rows give\n" * 9)
    project.dvc("commit", "-q", "-f", "train")
    project.dvc("repro", "-q")
    (project.root / "PWNED").unlink()
    project.dvc("remote", "add", "--local", "store", str(project.store))
    project.dvc("push", "-q", "--remote", "store", "--run-cache")
    (project.root / ".dvc" / "config.local").unlink()


def forge_reports(project: TinyProject, **texts: str) -> None:
    """Other reports, with their hashes in the lock."""
    lock = (project.root / "dvc.lock").read_text(encoding="utf-8")
    for name, text in texts.items():
        path = project.root / f"reports/{name}.json"
        before = hash_of(path)
        project.write(f"reports/{name}.json", text)
        lock = lock.replace(before, hash_of(path))
    project.write("dvc.lock", lock)


def test_a_change_of_a_document_runs_nothing(project: TinyProject, runner: Runner) -> None:
    project.write("README.md", "words\n")
    here = runner()
    said = reproduce(here.root, BASE)
    assert here.ran() == []
    assert said.startswith("Made by this run: nothing.\nAs origin/main (")
    assert said.endswith("recorded it: ingest, validate, split, train, evaluate.")
    assert here.git("status", "--porcelain") == ""
    assert verify(here.root) == "The committed dvc.lock is what this run wrote."
    assert (here.root / "models" / "model.onnx").is_file()


def test_an_honest_change_runs_what_depends_on_it_without_a_token(
    project: TinyProject, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("src/code.txt", "better code\n")
    project.dvc("repro", "-q")
    here = runner()
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    said = reproduce(here.root, BASE)
    assert here.ran() == ["train", "evaluate"]
    assert said.startswith("Made by this run: train, evaluate.")
    verify(here.root)


def test_up_to_a_stage(
    project: TinyProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("rows.txt", "three\n")
    here = runner()
    assert main(["--base", BASE, "split"]) == 0
    assert here.ran() == ["ingest", "validate", "split"]
    assert "Made by this run: ingest, validate, split." in capsys.readouterr().out


@pytest.mark.parametrize("base", ["0" * 40, "origin/main"])
def test_without_a_recorded_run_everything_runs(
    project: TinyProject, runner: Runner, base: str
) -> None:
    if base == "origin/main":
        project.git("switch", "-q", "main")
        project.git("rm", "-q", "--cached", "dvc.lock")
        project.git("commit", "-qm", "No run")
        project.git("switch", "-qC", "change")
    here = runner()
    reproduce(here.root, base)
    assert here.ran() == ALL


@pytest.mark.parametrize("known", [True, False], ids=["at a desk", "no record of its run"])
def test_a_base_with_a_lock_that_is_none_is_not_believed(
    project: TinyProject, runner: Runner, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    good = (project.root / "dvc.lock").read_text(encoding="utf-8")
    project.git("switch", "-q", "main")
    project.write("dvc.lock", f"<<<<<<< HEAD\n{good}")
    project.commit()
    project.git("switch", "-qC", "change")
    project.write("dvc.lock", good)
    here = runner()
    reproduce(here.root, BASE, record=None if known else RunRecord(None, "nobody knows"))
    assert here.ran() == ALL
    said = capsys.readouterr().out
    assert "Everything is run: origin/main:dvc.lock: holds the marks of a merge conflict" in said
    verify(here.root)


def test_a_planted_model_is_not_taken_and_never_loaded(
    project: TinyProject, runner: Runner
) -> None:
    base = project.lock()["train"]["outs"]
    plant(project)
    forged = project.score()
    here = runner()
    assert here.lock()["train"]["outs"] != base
    with pytest.raises(ReproduceError, match=r"names the models .*, not reproduced: from the same"):
        reproduce(here.root, BASE)
    assert here.lock()["train"]["outs"] == base
    assert here.score() < forged
    assert not (here.root / "PWNED").exists()
    assert not (here.root / "models" / "model.joblib").exists()
    with pytest.raises(DvcError, match=r"train: not reproduced, the same inputs gave another mod"):
        verify(here.root)


def test_a_planted_model_that_answers_alike_is_not_tolerated(
    project: TinyProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another processor could have made it, by its reports; once merged, it would count."""
    model = project.root / "models" / "model.onnx"
    project.write("models/model.onnx", "x" * model.stat().st_size)
    project.dvc("commit", "-q", "-f", "train")
    project.dvc("repro", "-q")
    here = runner()
    assert main(["--base", BASE]) == 1
    said = capsys.readouterr().err
    assert "names the models" in said
    # What is advised.
    here.git("checkout", "-q", BASE, "--", "dvc.lock", "reports")
    here.commit()
    assert main(["--base", BASE]) == 0
    verify(here.root)


def merge_a_model_that_answers_alike(project: TinyProject) -> str:
    """Main names a model with a payload beside it that its run let pass; gives the run's lock."""
    made = (project.root / "dvc.lock").read_text(encoding="utf-8")
    project.git("switch", "-q", "main")
    size = (project.root / "models" / "model.onnx").stat().st_size
    plant(project)
    project.write("models/model.joblib", PAYLOAD)
    project.write("models/model.onnx", "x" * (size - len(PAYLOAD)))
    project.dvc("commit", "-q", "-f", "train")
    project.dvc("repro", "-q")
    (project.root / "PWNED").unlink()
    project.commit("Merge it")
    project.git("switch", "-qC", "change")
    return made


@pytest.mark.parametrize("known", [True, False], ids=["its run is known", "no run is known"])
def test_a_model_on_main_that_its_run_did_not_make_is_not_loaded(
    project: TinyProject, runner: Runner, *, known: bool
) -> None:
    made = merge_a_model_that_answers_alike(project)
    honest = yaml.safe_load(made)["stages"]["train"]["outs"]
    project.write("README.md", "words\n")
    here = runner()
    assert here.lock()["train"]["outs"] != honest
    reproduce(here.root, BASE, record=RunRecord(made if known else None))
    assert here.ran() == ([] if known else ["train", "evaluate"])
    assert here.lock()["train"]["outs"] == honest
    assert not (here.root / "PWNED").exists()
    assert verify(here.root).startswith("Reproduced within a tolerance")


def test_a_planted_model_beside_an_honest_change_is_trained_anew(
    project: TinyProject, runner: Runner
) -> None:
    project.write("src/code.txt", "better code\n")
    project.dvc("repro", "-q")
    plant(project)
    here = runner()
    reproduce(here.root, BASE)
    assert here.ran() == ["train", "evaluate"]
    assert not (here.root / "PWNED").exists()
    with pytest.raises(DvcError, match="train: not reproduced"):
        verify(here.root)


def test_forged_reports_are_made_again(project: TinyProject, runner: Runner) -> None:
    honest = project.score()
    forge_reports(
        project,
        metrics='{"score": 991}\n',
        evaluation='{"rows": 2, "score": 991}\n',
        golden='{"records": [1], "predictions": [991], "tolerance": 0.999}\n',
    )
    here = runner()
    assert here.score() == 991
    reproduce(here.root, BASE)
    assert here.score() == honest
    with pytest.raises(DvcError, match="evaluate: not reproduced"):
        verify(here.root)


def test_records_of_earlier_runs_are_not_believed(project: TinyProject, runner: Runner) -> None:
    """A record for inputs of which the base knows nothing: in the remote, and in the cache."""
    project.write("params.yaml", "seed: 2\n")
    project.dvc("repro", "-q")
    plant(project)
    for record in (project.root / ".dvc/cache/runs").rglob("*"):
        if record.is_file():
            assert (project.store / record.relative_to(project.root / ".dvc/cache")).is_file()
    here = runner()
    # As it is restored from a workflow's cache.
    shutil.copytree(project.root / ".dvc" / "cache", here.root / ".dvc" / "cache")
    reproduce(here.root, BASE)
    assert here.ran() == ["train", "evaluate"]
    assert not (here.root / "models" / "model.joblib").exists()


def test_an_extra_stage_in_the_lock_is_neither_believed_nor_let_pass(
    project: TinyProject, runner: Runner
) -> None:
    lock = yaml.safe_load((project.root / "dvc.lock").read_text(encoding="utf-8"))
    extra = {**lock["stages"]["train"], "outs": [{"path": "models", "md5": "0" * 32 + ".dir"}]}
    lock["stages"] = {"before": extra, **lock["stages"]}
    project.write("dvc.lock", yaml.safe_dump(lock, sort_keys=False))
    here = runner()
    with pytest.raises(ReproduceError, match="stage before: names the models 0000"):
        reproduce(here.root, BASE)
    assert here.ran() == []
    with pytest.raises(DvcError, match="before: no longer a stage; take its entry out"):
        verify(here.root)


def test_a_stage_that_is_gone_is_not_left_in_the_lock(project: TinyProject, runner: Runner) -> None:
    project.git("switch", "-q", "main")
    project.stages({"notes": {"cmd": "cp rows.txt notes.txt", "outs": ["notes.txt"]}})
    project.dvc("repro", "-q")
    project.commit()
    project.git("switch", "-qC", "change")
    project.dvc("remove", "notes")
    assert "notes" not in project.lock()
    here = runner()
    reproduce(here.root, BASE)
    assert here.ran() == []
    verify(here.root)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"train": {"frozen": True}}, "stage train: has `frozen`"),
        ({"evaluate": {"wdir": "other"}}, "stage evaluate: has `wdir`"),
        ({"split": {"frozen": "${item}"}}, "stage split: has `frozen`"),
        ({"train": {"cmd": "cp -r planted models"}}, "its command must be `gitops-ml train`, not"),
        ({"train": {"cmd": "${run}"}}, "its command must be `gitops-ml train`, not"),
        ({"train": {"outs": ["other"]}}, "models must be an output of one stage"),
        ({"more": {"cmd": "true", "outs": ["models"]}}, "train, more has it"),
        ({"train": {"deps": ["src"]}}, "data/split/train.parquet: must be among its `deps`"),
        ({"evaluate": {"deps": ["data/split"]}}, "stage evaluate: models: must be among"),
        ({"split": {"cmd": "cp -r chosen data/split"}}, "its command must be `gitops-ml split`"),
        ({"split": {"deps": ["rows.txt"]}}, "data/ingested.parquet, reports/validation.json: must"),
        ({"validate": {"cmd": "true"}}, "its command must be `gitops-ml validate`, not `true`"),
        ({"ingest": {"outs": ["x"]}}, "data/ingested.parquet must be an output of one stage"),
        ({"evaluate": {"metrics": None}}, "reports/metrics.json must be an output of one stage"),
    ],
)
def test_stages_that_leave_it_to_somebody_else_are_refused(
    tmp_path: Path, change: dict[str, dict[str, Any]], problem: str
) -> None:
    here = TinyProject(tmp_path, tmp_path, tmp_path)
    here.stages()
    check_stages(tmp_path)
    here.stages(change)
    with pytest.raises(ReproduceError) as error:
        check_stages(tmp_path)
    assert problem in str(error.value)
    assert str(error.value).startswith("dvc.yaml: ")


def test_a_repeated_stage_is_looked_into(tmp_path: Path) -> None:
    here = TinyProject(tmp_path, tmp_path, tmp_path)
    here.stages({"more": {"foreach": [1], "do": {"cmd": "true", "frozen": True}}})
    with pytest.raises(ReproduceError, match="stage more: has `frozen`"):
        check_stages(tmp_path)


@pytest.mark.parametrize("text", ["", "stages: []\n", "stages: {train: 1}\n", "- :"])
def test_a_file_without_stages_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ReproduceError, match="lists no stages"):
        check_stages(tmp_path)


def test_a_stage_that_always_runs_runs(project: TinyProject, runner: Runner) -> None:
    plant(project)
    project.stages({"train": {"always_changed": True}})
    here = runner()
    with pytest.raises(ReproduceError, match="not reproduced: from the same inputs"):
        reproduce(here.root, BASE)
    assert here.ran()[0] == "train"
    assert not (here.root / "models" / "model.joblib").exists()
    assert not (here.root / "PWNED").exists()


def test_a_model_in_git_is_not_taken(project: TinyProject, runner: Runner) -> None:
    """`cache: false` leaves an output to git, and so to who wrote the change."""
    project.stages({"train": {"outs": [{"models": {"cache": False}}]}})
    project.write(".gitignore", "/data/split\n/reports/plots\n/.dvc/cache\n/.dvc/tmp\n")
    project.write("models/model.joblib", PAYLOAD)
    here = runner()
    assert (here.root / "models" / "model.joblib").exists()
    reproduce(here.root, BASE)
    assert not (here.root / "models" / "model.joblib").exists()
    assert not (here.root / "PWNED").exists()


def test_a_linked_models_folder_is_not_taken(project: TinyProject, runner: Runner) -> None:
    project.write("planted/model.joblib", PAYLOAD)
    shutil.copy(project.root / "models" / "manifest.json", project.root / "planted")
    shutil.rmtree(project.root / "models")
    (project.root / "models").symlink_to("planted")
    project.git("add", "--force", "models")
    here = runner()
    assert (here.root / "models").is_symlink()
    with pytest.raises(DvcError):
        reproduce(here.root, BASE)
    assert not (here.root / "PWNED").exists()
    assert here.ran() == []


def test_a_file_of_dvc_for_the_model_is_refused(project: TinyProject, runner: Runner) -> None:
    plant(project)
    entry = project.lock()["train"]["outs"][0]
    project.write("models.dvc", yaml.safe_dump({"outs": [entry]}))
    here = runner()
    with pytest.raises(DvcError):
        reproduce(here.root, BASE)
    assert not (here.root / "PWNED").exists()
    project.stages({"train": {"outs": ["other"]}})
    with pytest.raises(ReproduceError, match="models must be an output of one stage"):
        reproduce(project.root, "main")


def test_what_is_a_machine_s_own_is_refused_in_git(project: TinyProject, runner: Runner) -> None:
    names = [".dvc/cache/files/md5/00/11", ".dvc/config.local", ".dvc/tmp/lock"]
    for name in names:
        project.write(name, "")
        project.git("add", "--force", name)
    here = runner()
    with pytest.raises(ReproduceError) as error:
        reproduce(here.root, BASE)
    assert str(error.value).startswith(f"{', '.join(names)}: committed")
    # The advice works.
    _, _, advice = str(error.value).partition("`git ")
    here.git(*advice.rstrip("`").split())
    reproduce(here.root, BASE)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "docs/dvc.yaml",
            "stages: {x: {cmd: touch ../PWNED ../src/more.txt, outs: [../src/more.txt]}}\n",
            "docs/dvc.yaml: DVC runs the stages of every dvc.yaml",
        ),
        (
            "docs/more.dvc",
            "wdir: ..\nouts: [{path: src/more.txt, md5: 00}]\n",
            "docs/more.dvc: names files outside of its folder",
        ),
        (
            "docs/more.dvc",
            "outs: [{path: ../src/more.txt, md5: 00}]\n",
            "docs/more.dvc: names files outside of its folder",
        ),
        ("docs/more.dvc", "outs: [{path: /src, md5: 00}]\n", "names files outside of its folder"),
        ("docs/more.dvc", "- :", "says nothing that can be read"),
    ],
)
def test_what_dvc_reads_elsewhere_is_refused(
    project: TinyProject, runner: Runner, name: str, text: str, problem: str
) -> None:
    """Nobody has to review a document, and DVC would make what another stage reads."""
    project.write(name, text)
    here = runner()
    with pytest.raises(ReproduceError) as error:
        reproduce(here.root, BASE)
    assert problem in str(error.value)
    assert here.ran() == []
    assert not (here.root / "PWNED").exists()


def test_a_file_of_dvc_may_name_what_is_beside_it(project: TinyProject, runner: Runner) -> None:
    project.write("docs/film.txt", "moving\n")
    project.dvc("add", "-q", "docs/film.txt")
    project.dvc("remote", "add", "--local", "store", str(project.store))
    project.dvc("push", "-q", "--remote", "store")
    (project.root / ".dvc" / "config.local").unlink()
    here = runner()
    reproduce(here.root, BASE)
    assert (here.root / "docs" / "film.txt").is_file()


@pytest.mark.parametrize("pattern", ["more.txt", "src/m*"])
def test_what_a_stage_reads_is_not_hidden_from_dvc(
    project: TinyProject, runner: Runner, pattern: str
) -> None:
    """Hidden, a file of `src/` could change without the model being trained again."""
    project.write(".dvcignore", f"{pattern}\n")
    project.write("src/more.txt", "other code\n")
    here = runner()
    with pytest.raises(
        ReproduceError, match=r"^src/more\.txt: read by a stage, but hidden from DVC"
    ):
        reproduce(here.root, BASE)


@pytest.mark.parametrize(
    "settings",
    [
        "[core]\n    remote = other\n['remote \"other\"']\n    url = {planted}\n",
        "[core]\n    remote = other\n"
        "['remote \"other\"']\n    url = {planted}\n    verify = false\n",
        "[cache]\n    dir = {planted}\n    type = symlink\n",
    ],
)
def test_another_remote_or_cache_gives_no_other_model(
    project: TinyProject,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    settings: str,
) -> None:
    """The objects of the base's hashes, with another content, where the change says."""
    planted = tmp_path / "planted"
    for source in (project.store / "files").rglob("*"):
        if source.is_file():
            target = planted / source.relative_to(project.store)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(PAYLOAD, encoding="utf-8")
            target.chmod(0o444)
    project.write(".dvc/config", settings.format(planted=planted))
    monkeypatch.delenv("DVC_REMOTE_URL")
    here = runner()
    with pytest.raises(DvcError, match="not what the name says: overwritten, or cut short"):
        reproduce(here.root, BASE)
    assert here.ran() == []
    assert not (here.root / "models").exists()


def test_on_a_laptop_the_lock_from_before_is_there_again_after_a_failure(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("src/code.txt", "better code\n")
    project.dvc("repro", "-q")
    mine = (project.root / "dvc.lock").read_bytes()
    (project.root / "rows.txt").unlink()
    assert main(["--base", "main"]) == 1
    assert "a stage failed" in capsys.readouterr().err
    assert (project.root / "dvc.lock").read_bytes() == mine


def test_what_lies_in_the_place_of_an_output_is_not_taken_for_it(project: TinyProject) -> None:
    """DVC notes what it has put where; here the note says more than is true."""
    model = project.root / "models" / "model.onnx"
    project.dvc("status")
    before = model.stat()
    content = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(bytes(len(content)))
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.dvc("status").startswith("Data and pipelines are up to date")
    reproduce(project.root, "main")
    assert model.read_bytes() == content


def test_a_base_without_stages_of_its_own_names_nothing(project: TinyProject) -> None:
    assert believed_lock(project.root, None) is None


def overwrite(project: TinyProject, hash_: str, content: bytes) -> Path:
    """Overwrite an object of the remote, as read-only as it was."""
    path = project.object(hash_)
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    return path


def model_objects(project: TinyProject) -> tuple[str, str]:
    """The hashes of the base's models folder and of the model in it."""
    return (project.lock()["train"]["outs"][0]["md5"], hash_of(project.root / "models/model.onnx"))


@pytest.mark.parametrize("kind", ["model", "list", "truncated list"])
def test_an_overwritten_object_of_the_remote_is_named_and_can_be_mended(
    project: TinyProject,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    folder, model = model_objects(project)
    spoilt = folder if "list" in kind else model
    content = project.object(spoilt).read_bytes()
    # A list of files with other hashes, which the remote has: DVC would put them in their place.
    other = content.replace(model.encode(), hash_of(project.root / "rows.txt").encode())
    path = overwrite(
        project,
        spoilt,
        content[: len(content) // 2] if "truncated" in kind else other if "list" in kind else b"x",
    )
    project.write("README.md", "words\n")
    here = runner()
    assert main(["--base", BASE]) == 1
    said = capsys.readouterr().err
    assert f"{path}: not what the name says: overwritten, or cut short" in said
    assert here.ran() == []
    assert not (here.root / "models").exists()

    # A laptop's pull says it, too, without a cache of its own; what is advised mends it.
    assert subcommand("pull")() == 1
    assert str(path) in capsys.readouterr().err
    path.unlink()
    project.object(folder).unlink(missing_ok=True)
    monkeypatch.chdir(project.root)
    assert subcommand("push")() == 0
    monkeypatch.chdir(here.root)
    assert main(["--base", BASE]) == 0
    assert here.ran() == []


def test_a_file_that_the_remote_has_lost_is_not_called_damaged(
    project: TinyProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = model_objects(project)
    project.object(model).unlink()
    runner()
    assert main(["--base", BASE]) == 1
    said = capsys.readouterr().err
    assert f"{project.store}: `dvc fetch` failed: " in said
    assert f"failed to transfer '{model}'" in said
    assert "not what the name says" not in said


def test_a_damaged_cache_is_named_and_the_next_run_mends_it(
    project: TinyProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = model_objects(project)
    here = runner()
    shutil.copytree(project.root / ".dvc" / "cache", here.root / ".dvc" / "cache")
    damaged = here.root / ".dvc/cache/files/md5" / model[:2] / model[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"other")
    damaged.chmod(0o444)
    assert main(["--base", BASE]) == 1
    said = capsys.readouterr().err
    assert f"{damaged.relative_to(here.root)}: not what the name says" in said
    assert not (here.root / "models").exists()
    assert main(["--base", BASE]) == 0
    assert here.ran() == []
    assert hash_of(here.root / "models" / "model.onnx") == model


def allow(project: TinyProject, where: str = "main") -> None:
    """Let somebody train elsewhere, on main or only on the branch."""
    if where == "main":
        project.git("switch", "-q", "main")
    text = (project.root / "pyproject.toml").read_text(encoding="utf-8")
    project.write("pyproject.toml", f'{text}trained-elsewhere = "gpu-cluster"\n')
    project.commit("Allow")
    if where == "main":
        project.git("switch", "-qC", "change")


def train_elsewhere(project: TinyProject, *, served: str = "model.onnx") -> str:
    """Another seed, trained where it fits, pushed; gives back the model's hash."""
    project.write("params.yaml", "seed: 2\n")
    project.dvc("repro", "-q")
    project.write("models/model.onnx", "# trained for a week\n")
    manifest = json.loads((project.root / "models/manifest.json").read_text(encoding="utf-8"))
    files = {served: "1"}
    project.write(
        "models/manifest.json", json.dumps({**manifest, "served": served, "files": files})
    )
    project.write(f"models/{served}", "# trained for a week\n")
    project.dvc("commit", "-q", "-f", "train")
    project.dvc("repro", "-q")
    project.dvc("remote", "add", "--local", "store", str(project.store))
    project.dvc("push", "-q", "--remote", "store")
    (project.root / ".dvc" / "config.local").unlink()
    return str(project.lock()["train"]["outs"][0]["md5"])


def test_a_model_of_elsewhere_counts_where_the_base_says_so(
    project: TinyProject, runner: Runner
) -> None:
    allow(project)
    model = train_elsewhere(project)
    here = runner()
    said = reproduce(here.root, BASE)
    # Its reports are made here all the same.
    assert here.ran() == ["evaluate"]
    assert said.startswith("Made by this run: evaluate.")
    assert said.endswith("Trained elsewhere, by gpu-cluster: models.")
    assert hash_of(here.root / "models") == model
    assert trained_by(here.root) == "gpu-cluster"
    verify(here.root)


def test_a_change_cannot_allow_it_to_itself(project: TinyProject, runner: Runner) -> None:
    allow(project, "the change")
    model = train_elsewhere(project)
    here = runner()
    reproduce(here.root, BASE)
    assert here.ran() == ["train", "evaluate"]
    assert hash_of(here.root / "models") != model
    assert trained_by(here.root) is None


def test_a_pickle_of_elsewhere_is_refused_before_it_is_loaded(
    project: TinyProject, runner: Runner
) -> None:
    allow(project)
    train_elsewhere(project, served="model.joblib")
    here = runner()
    with pytest.raises(DvcError, match=r"serves model.joblib: only ONNX is loaded"):
        reproduce(here.root, BASE)
    assert here.ran() == []


def test_what_elsewhere_did_not_push_is_trained_here(
    project: TinyProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    allow(project)
    model = train_elsewhere(project)
    project.object(model).unlink()
    here = runner()
    reproduce(here.root, BASE)
    assert "The model of gpu-cluster did not come: `make push` there" in capsys.readouterr().out
    assert here.ran() == ["train", "evaluate"]
    assert trained_by(here.root) is None


def test_a_model_of_elsewhere_for_other_inputs_is_trained_here(
    project: TinyProject, runner: Runner
) -> None:
    allow(project)
    train_elsewhere(project)
    project.write("params.yaml", "seed: 3\n")
    here = runner()
    reproduce(here.root, BASE)
    assert here.ran() == ["train", "evaluate"]
    assert trained_by(here.root) is None
