"""Run the pipeline from what the base recorded, not from what the change says of itself.

    gitops-ml reproduce --base origin/main
    gitops-ml reproduce --base event split     # in a workflow: up to a stage

The `dvc.lock` of the base takes the place of the one here, and then the pipeline runs; in a
workflow it is the lock that the base's own run wrote (`gate/run_record.py`). A stage with the
base's inputs is not run: what it made is taken from the cache or the remote, by the hash in that
lock. Every other stage runs, so a model, a metric or a report that somebody made elsewhere does not
count. Records of earlier runs (DVC's run cache) are left out: others can write them.

Where the base's `pyproject.toml` names who may train in the place of a run (`trained-elsewhere`),
the model of the committed `dvc.lock` is taken from the remote, too, if it is served as ONNX.

It leaves behind the `dvc.lock` that this run made; `gitops-ml verify-lock` compares it with the
committed one. If it fails, the `dvc.lock` from before is there again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from gitops_ml.core import elsewhere, paths
from gitops_ml.core.dvc import (
    DvcError,
    by_name,
    dvc,
    dvc_output,
    locked_output,
    read_lock,
    stages_of,
)
from gitops_ml.core.dvc_lock import INPUTS, committed
from gitops_ml.core.dvc_objects import check_outputs, hash_of, outputs_of
from gitops_ml.core.dvc_remote import git_owned, pull_objects
from gitops_ml.core.git import BaseRevision, find_base, git, is_no_commit
from gitops_ml.core.run import PYTHON, show
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.gate.run_record import RunRecord, believed, go_by, record_of
from gitops_ml.github.event import read_event
from gitops_ml.github.passed import base_of

# What is believed of data and of a model was made by these commands, out of what is named here.
_MADE_BY: Mapping[str, tuple[tuple[Path, ...], tuple[Path, ...]]] = {
    "gitops-ml ingest": ((paths.INGESTED,), ()),
    "gitops-ml validate": ((paths.VALIDATION_REPORT,), (paths.INGESTED,)),
    "gitops-ml split": ((paths.TEST.parent,), (paths.INGESTED, paths.VALIDATION_REPORT)),
    "gitops-ml train": ((paths.MODELS,), (paths.TRAIN,)),
    "gitops-ml evaluate": (
        (paths.METRICS, paths.EVALUATION, paths.GOLDEN),
        (paths.MODELS, paths.TEST.parent),
    ),
}
# Of a frozen stage DVC believes what it finds; of one in another folder the lock names other files.
_REFUSED_KEYS = ("frozen", "wdir")
_TOKENS = ("GITHUB_TOKEN", "GH_TOKEN")
_LOCAL = (".dvc/config.local", ".dvc/cache", ".dvc/tmp")
_IGNORING = ".dvcignore"
# How many file names fit a command.
_AT_ONCE = 500


class ReproduceError(DvcError):
    """The run would have to believe something that it did not make; the message says what."""


def check_stages(root: Path) -> None:
    """Make sure that the stages leave nothing that is judged to somebody else.

    Raises:
        ReproduceError: Naming the stage, and what of it must be another way.
    """
    name = paths.DVC_YAML
    try:
        stages = load_yaml((root / name).read_text(encoding="utf-8"))["stages"]
        for stage, entry in stages.items():
            for key in _REFUSED_KEYS:
                if key in entry or key in (entry.get("do") or {}):
                    raise ReproduceError(
                        f"{name}: stage {stage}: has `{key}`, so what it makes cannot be held "
                        "against what is recorded; take the key out, then run `make pipeline`"
                    )
        for command, (outputs, inputs) in _MADE_BY.items():
            for output in outputs:
                _check_maker(stages, output, command, inputs)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ReproduceError(f"{name}: lists no stages ({error!r}); get it from git") from error


def _check_maker(
    stages: Mapping[str, Mapping[str, Any]], output: Path, command: str, inputs: tuple[Path, ...]
) -> None:
    makers = [
        stage
        for stage, entry in stages.items()
        if output.as_posix() in _names(entry, "outs", "metrics", "plots")
    ]
    if len(makers) != 1:
        found = ", ".join(makers) or "no stage"
        raise ReproduceError(
            f"{paths.DVC_YAML}: {output} must be an output of one stage, by its name: "
            f"`{command}`; {found} has it"
        )
    entry = stages[makers[0]]
    if entry.get("cmd") != command:
        raise ReproduceError(
            f"{paths.DVC_YAML}: stage {makers[0]}: makes {output}, so its command must be "
            f"`{command}`, not `{entry.get('cmd')}`; what is your own goes into src/"
        )
    missing = [path.as_posix() for path in inputs if path.as_posix() not in _names(entry, "deps")]
    if missing:
        raise ReproduceError(
            f"{paths.DVC_YAML}: stage {makers[0]}: {', '.join(missing)}: must be among its `deps`, "
            "else it would not run again where that changes"
        )


def _names(entry: Mapping[str, Any], *kinds: str) -> list[str]:
    """The files that a stage lists; one with options is a mapping."""
    listed = [one for kind in kinds for one in entry.get(kind) or ()]
    return [name for one in listed for name in (one if isinstance(one, dict) else (one,))]


def check_local_files(root: Path) -> None:
    """Make sure that git brought nothing that DVC takes for this machine's own.

    Raises:
        ReproduceError: Naming the files.
    """
    listed = git(root, "ls-files", "-z", "--", *_LOCAL)
    found = [name for name in listed.stdout.split("\0") if name]
    if found:
        raise ReproduceError(
            f"{', '.join(found[:5])}: committed, but DVC's cache and local settings are a "
            f"machine's own; `git rm -r --cached {' '.join(_LOCAL)} --ignore-unmatch`"
        )


def check_stage_files(root: Path) -> None:
    """Make sure that DVC takes stages from the project's own `dvc.yaml` only.

    It reads every one in any folder, also where nobody has to review a change: what such a stage
    writes into a folder that a stage here depends on is made first. A `.dvc` file, which may be
    anywhere, may name what is beside it.

    Raises:
        ReproduceError: Naming the files.
    """
    listed = git(root, "ls-files", "-z", "--", f"*{paths.DVC_YAML}", "*.dvc")
    for name in filter(None, listed.stdout.split("\0")):
        path = Path(name)
        if path.name == paths.DVC_YAML.name and path != paths.DVC_YAML:
            raise ReproduceError(
                f"{name}: DVC runs the stages of every {paths.DVC_YAML}, and only those of the one "
                "at the top are known here; move them there"
            )
        if path.suffix == ".dvc" and not _names_its_own(root / path):
            raise ReproduceError(
                f"{name}: names files outside of its folder, or says nothing that can be read; a "
                "`.dvc` file has no `wdir`, and is beside what it names: `dvc add` it again"
            )


def _names_its_own(path: Path) -> bool:
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
        names = [PurePosixPath(output["path"]) for output in document["outs"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return False
    return "wdir" not in document and all(
        not name.is_absolute() and ".." not in name.parts for name in names
    )


def check_nothing_hidden(root: Path, lock: str) -> None:
    """Make sure that DVC sees all of what the stages read.

    A committed file that a `.dvcignore` hides can change without a stage running again. DVC reads
    the one at the top, and takes no folder for an input that holds another.

    Args:
        root: The project's folder.
        lock: The `dvc.lock` that names what the stages read.

    Raises:
        ReproduceError: Naming the files.
    """
    if not (root / _IGNORING).exists():
        return
    entries = stages_of(lock, str(paths.DVC_LOCK)).values()
    read = sorted({name for entry in entries for name in by_name(entry.get("deps"))})
    listed = git(root, "ls-files", "-z", "--", *(f":(literal){name}" for name in read))
    names = [name for name in listed.stdout.split("\0") if name]
    hidden: list[str] = []
    for start in range(0, len(names), _AT_ONCE):
        hidden += dvc(root, "check-ignore", *names[start : start + _AT_ONCE]).stdout.splitlines()
    if hidden:
        raise ReproduceError(
            f"{', '.join(hidden[:5])}: read by a stage, but hidden from DVC by a `{_IGNORING}`, so "
            "no stage would run again where that changes; take the pattern out, or the file"
        )


def believed_lock(root: Path, base: BaseRevision | None) -> str | None:
    """The base's `dvc.lock`, without stages that are none any more; None if it has none.

    One that cannot be read names nothing, so everything runs.
    """
    if base is None or base.recorded() is None:
        return None
    try:
        text = believed(base) or ""
        outputs_of(text, f"{base.revision}:{paths.DVC_LOCK}")
        document = load_yaml(text)
    except DvcError as error:
        print(f"Everything is run: {error}")
        return None
    here = load_yaml((root / paths.DVC_YAML).read_text(encoding="utf-8"))["stages"]
    # Of a stage that is repeated the lock names each repetition: stage@item.
    kept = {
        name: entry for name, entry in document["stages"].items() if name.partition("@")[0] in here
    }
    return yaml.safe_dump({**document, "stages": kept}, sort_keys=False)


@contextmanager
def _in_place(root: Path, lock: str | None) -> Iterator[None]:
    """Put a lock in the place of the one here; if the block fails, put that one back."""
    path = root / paths.DVC_LOCK
    before = path.read_bytes() if path.exists() else None
    try:
        _write(path, None if lock is None else lock.encode())
        yield
    except BaseException:
        _write(path, before)
        raise


def _write(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def _drop_others(root: Path, lock: str) -> None:
    """Take away what DVC owns and is not what the lock names; DVC may believe that it is."""
    owned_by_git = git_owned(root)
    for name, hash_ in outputs_of(lock).items():
        path = root / name
        if name not in owned_by_git and path.exists() and hash_of(path) != hash_:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def reproduce(
    root: Path, revision: str, stage: str | None = None, record: RunRecord | None = None
) -> str:
    """Run the pipeline from what a revision recorded; returns what to tell.

    Args:
        root: The project's folder.
        revision: The base, any git revision.
        stage: Where to stop; by default everything runs.
        record: What the base's own run made; by default what the base's commit says.

    Raises:
        GitError: If the base cannot be read.
        ReproduceError: If a stage fails, or leaves what is judged to somebody else; or if the
            committed lock names another model than the base recorded from the same inputs.
        DvcError: If an object has another hash than its name says, or DVC cannot do something.
    """
    base = go_by(find_base(root, revision), record)
    check_stages(root)
    check_local_files(root)
    check_stage_files(root)
    recorded = believed_lock(root, base)
    trainer = elsewhere.allowed_by(base)
    theirs = _their_model(root, recorded) if trainer is not None else None
    believed = recorded if theirs is None else _with_stage(recorded, theirs)
    with _in_place(root, believed):
        print(pull_objects(root, runs=False), flush=True)
        if theirs is not None and not elsewhere.check_only_onnx(root, theirs.hash):
            print(f"The model of {trainer} did not come: `make push` there. It is trained here.")
        if believed is not None:
            dvc_output(root, "checkout", "--allow-missing")
            _drop_others(root, believed)
        command = [*PYTHON, "dvc", "repro", "--no-run-cache", *([stage] if stage else [])]
        # The stages run code that nobody has read yet.
        if show(command, root, variables=dict.fromkeys(_TOKENS)) != 0:
            raise ReproduceError("a stage failed; what it said is above")
        made = read_lock(root)
        check_nothing_hidden(root, made)
        if stage is None:
            check_outputs(root, made)
    name = str(paths.DVC_LOCK)
    taken = theirs is not None and stages_of(made, name).get(theirs.stage) == theirs.entry
    elsewhere.note(root, trainer if taken else None, theirs.hash if theirs else None)
    if recorded is not None:
        check_same_model(committed(root), recorded, made, _model_in(base))
    said = _told(base, recorded, made, theirs.stage if theirs and taken else None)
    return f"{said}\nTrained elsewhere, by {trainer}: {paths.MODELS}." if taken else said


def _model_in(base: BaseRevision | None) -> str | None:
    """The hash of the model that the base's commit names."""
    text = base.read(paths.DVC_LOCK) if base is not None else None
    try:
        found = locked_output(text, paths.MODELS, f"{paths.DVC_LOCK} of the base")
    except DvcError:
        return None
    return None if found is None else found.hash


def check_same_model(
    text: str | None, recorded: str, made: str, committed_hash: str | None = None
) -> None:
    """Make sure that the committed lock names the base's model where its inputs give that.

    One that answers alike is no other machine's: it would be believed as soon as it is merged.

    Args:
        text: The committed `dvc.lock`, if there is one.
        recorded: The base's.
        made: This run's.
        committed_hash: The model in the base's commit, where its run made one of other bytes.

    Raises:
        ReproduceError: If it names another.
    """
    name = f"{paths.DVC_LOCK} as committed"
    theirs = locked_output(text, paths.MODELS, name)
    ours = locked_output(made, paths.MODELS, str(paths.DVC_LOCK))
    base = locked_output(recorded, paths.MODELS, str(paths.DVC_LOCK))
    if text is None or theirs is None or ours is None or base is None or ours.hash != base.hash:
        return
    then = stages_of(text, name)[theirs.stage]
    now = stages_of(made, str(paths.DVC_LOCK))[ours.stage]
    same = all(then.get(key) == now.get(key) for key in INPUTS)
    if same and theirs.hash not in (ours.hash, committed_hash):
        raise ReproduceError(
            f"{name}: stage {theirs.stage}: names the {paths.MODELS} {theirs.hash}, not "
            f"reproduced: from the same inputs comes the base's, {base.hash}; get "
            f"{paths.DVC_LOCK} and {paths.REPORTS}/ of the base (`git checkout origin/main -- "
            f"{paths.DVC_LOCK} {paths.REPORTS}`), run `make reproduce`, and commit them"
        )


@dataclass(frozen=True)
class _TheirModel:
    """What the committed `dvc.lock` says of the stage that makes the model."""

    stage: str
    hash: str
    entry: Mapping[str, Any]


def _their_model(root: Path, recorded: str | None) -> _TheirModel | None:
    """The model of the committed `dvc.lock`; None if it is the base's, or if there is none."""
    text, name = committed(root), f"{paths.DVC_LOCK} as committed"
    found = locked_output(text, paths.MODELS, name)
    if text is None or found is None:
        return None
    outputs_of(text, name)
    if recorded is not None and outputs_of(recorded).get(paths.MODELS.as_posix()) == found.hash:
        return None
    return _TheirModel(found.stage, found.hash, stages_of(text, name)[found.stage])


def _with_stage(lock: str | None, model: _TheirModel) -> str:
    document: dict[str, Any] = {"schema": "2.0", "stages": {}}
    if lock is not None:
        document = load_yaml(lock)
    document["stages"][model.stage] = dict(model.entry)
    return yaml.safe_dump(document, sort_keys=False)


def _told(base: BaseRevision | None, believed: str | None, made: str, theirs: str | None) -> str:
    """Which stages ran, and which did not and why."""
    name = str(paths.DVC_LOCK)
    before = stages_of(believed, name) if believed is not None else {}
    now = stages_of(made, name)
    taken = [stage for stage, entry in now.items() if before.get(stage) == entry]
    ran = [stage for stage in now if stage not in taken and stage != theirs]
    lines = [f"Made by this run: {', '.join(ran) or 'nothing'}."]
    if base is not None and taken:
        lines.append(f"As {base.revision} ({base.commit[:8]}) recorded it: {', '.join(taken)}.")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("stage", nargs="?", help="where to stop; by default everything runs")
    parser.add_argument(
        "--base",
        required=True,
        help="git revision that is believed: origin/main; in a workflow, `event` takes the last "
        "commit of its event's base that passed the pipeline",
    )


def run(options: argparse.Namespace) -> int:
    """Run the pipeline of the current folder; 0 if all went well."""
    root, revision, record = Path(), options.base, None
    if options.base == "event":
        base = base_of(read_event())
        revision, record = base.revision, record_of(base, root)
        if record.why is not None and not is_no_commit(revision):
            print(f"No model is taken from {revision}, it is trained here: {record.why}.")
    print(reproduce(root, revision, options.stage, record))
    return 0
