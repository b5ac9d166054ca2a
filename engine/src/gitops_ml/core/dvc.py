"""DVC, asked and told; and `dvc.lock`, what it says of the last run of the pipeline."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import holds_marks
from gitops_ml.core.run import PYTHON, Variables, run, said
from gitops_ml.core.yaml_text import load_yaml

BRING_BACK = "`make pull` brings them from the DVC remote, `make pipeline` makes them again"

# How DVC names the package that it lacks to speak a protocol.
_PACKAGE = re.compile(r"'(dvc-[a-z0-9]+)'")
_PASSWORD = re.compile(r"(://[^/@:\s]*):[^/@\s]+@")
_SUPPORT = re.compile(r"^Having any troubles\?.*$", re.MULTILINE)


class DvcError(GitopsError):
    """DVC cannot do something, or `dvc.lock` is none; the message holds its own words."""


def dvc(
    root: Path, *arguments: str, variables: Variables | None = None
) -> subprocess.CompletedProcess[str]:
    """Run DVC in a project, whatever comes of it.

    Raises:
        CommandError: If it cannot be started.
    """
    return run([*PYTHON, "dvc", *arguments], root, variables=variables)


def dvc_output(root: Path, *arguments: str) -> str:
    """What DVC prints.

    Raises:
        DvcError: If it fails.
    """
    done = dvc(root, *arguments)
    if done.returncode != 0:
        raise DvcError(f"`dvc {arguments[0]}` failed: {told(done)}")
    return done.stdout


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What DVC said, without passwords, and with what to install where it lacks something."""
    # Before it is cut: half an address would keep its password.
    errors, printed = (without_password(text) for text in (done.stderr, done.stdout))
    answer = subprocess.CompletedProcess(
        done.args, done.returncode, printed, _SUPPORT.sub("", errors)
    )
    words = said(answer)
    lacking = _PACKAGE.search(words)
    if lacking is None:
        return words
    return f"{words}\nInstall it with `uv add --group train {lacking[1]}`; docs/data.md says more."


def without_password(text: str) -> str:
    """A text whose addresses tell no password."""
    return _PASSWORD.sub(r"\1:***@", text)


@dataclass(frozen=True)
class LockedOutput:
    """What a `dvc.lock` says of an output.

    Attributes:
        hash: DVC's hash of the file or folder.
        stage: The stage that makes it.
    """

    hash: str
    stage: str


def stages_of(text: str, name: str) -> Mapping[str, Mapping[str, Any]]:
    """The stages that a lock file names.

    Args:
        text: The content of the file.
        name: What to call it in messages.

    Raises:
        DvcError: If the text is no lock file.
    """
    if holds_marks(text):
        raise DvcError(
            f"{name}: holds the marks of a merge conflict (`make resolve` says what to do)"
        )
    try:
        stages: dict[str, dict[str, Any]] = load_yaml(text)["stages"]
        for stage in stages.values():
            for key in ("deps", "params", "outs"):
                by_name(stage.get(key))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DvcError(
            f"{name}: is no DVC lock file ({error}); run `make pipeline`, then commit it"
        ) from error
    return stages


def by_name(entries: Any) -> dict[str, Any]:
    """Entries of a lock by file name, or by file and parameter."""
    if isinstance(entries, dict):
        return {
            f"{file}:{key}": value
            for file, values in entries.items()
            for key, value in _flat(values).items()
        }
    return {entry["path"]: entry for entry in entries or ()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by their dotted names; a group that is empty is there too."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def locked_output(text: str | None, path: Path, name: str) -> LockedOutput | None:
    """What a lock says of an output of the pipeline.

    Args:
        text: The content of the lock; None if there is none.
        path: The output.
        name: What to call the lock in messages.

    Returns:
        None if it does not name it: the pipeline never ran.

    Raises:
        DvcError: If the text is no lock file.
    """
    if text is None:
        return None
    for stage, entry in stages_of(text, name).items():
        found = by_name(entry.get("outs")).get(path.as_posix())
        if found is not None:
            if "md5" not in found:
                raise DvcError(f"{name}: stage {stage}: {path}: has no hash")
            return LockedOutput(str(found["md5"]), str(stage))
    return None


def read_lock(root: Path) -> str:
    """The text of the project's `dvc.lock`.

    Raises:
        DvcError: If there is none.
    """
    try:
        return (root / paths.DVC_LOCK).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DvcError(f"{paths.DVC_LOCK}: no such file; run `make pipeline`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DvcError(
            f"{paths.DVC_LOCK}: cannot be read: {error}; get it back from git, or run "
            "`make pipeline` without it"
        ) from error


@dataclass(frozen=True)
class Status:
    """How a working tree differs from its `dvc.lock`.

    An output that is not here is not changed: a fresh clone has none. One of which only the cache
    has no copy is neither. An input that git owns and that is gone is changed.

    Attributes:
        changed: What differs, by stage.
        absent: The files and folders of DVC that are not here.
    """

    changed: Mapping[str, tuple[str, ...]]
    absent: tuple[str, ...]


def read_status(root: Path, document: Mapping[str, Any]) -> Status:
    """Read what `dvc status --json` prints.

    Args:
        root: The project.
        document: For each stage a list of texts, or of mappings from a kind of change (of `deps`
            or `outs`) to what changed and how.
    """
    entries = list(_entries(document))
    # Without a copy in the cache DVC does not look whether the output is here, nor whether it
    # changed; it does look at the inputs of the stages that come after.
    absent = {
        path
        for _, kind, path, how in entries
        if kind == "changed outs"
        and (how == "deleted" or (how == "not in cache" and not (root / path).exists()))
    }
    changed: dict[str, list[str]] = {}
    for stage, kind, path, how in entries:
        if how == "not in cache" or (how == "deleted" and _within(path, absent)):
            continue
        changed.setdefault(stage, []).append(f"{path} ({how})" if path else kind)
    return Status(
        {stage: tuple(dict.fromkeys(found)) for stage, found in changed.items()},
        tuple(sorted(absent)),
    )


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Stage, kind of change, what changed, how; the last two are empty for a changed command."""
    for stage, changes in document.items():
        for change in changes:
            if not isinstance(change, Mapping):
                yield stage, str(change), "", ""
                continue
            for kind, found in change.items():
                for path, how in found.items():
                    # Of a settings file DVC says which keys changed and how.
                    shown = ", ".join(how) if isinstance(how, Mapping) else str(how)
                    yield stage, kind, path, shown


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def status(root: Path) -> Status:
    """Ask DVC how the working tree differs from `dvc.lock`.

    Raises:
        DvcError: If DVC cannot tell.
    """
    printed = dvc_output(root, "status", "--json")
    try:
        return read_status(root, json.loads(printed or "{}"))
    except (ValueError, AttributeError, TypeError) as error:
        raise DvcError(f"`dvc status` prints something unexpected: {error!r}") from error


def check_up_to_date(root: Path, needed: Path | None = None) -> str:
    """Make sure that data, settings, code and outputs are those of `dvc.lock`; gives back its text.

    Args:
        root: The project's folder.
        needed: The one output that must be here; None for all of them.

    Raises:
        DvcError: If there is no lock, something changed since, or outputs are not here.
    """
    lock = read_lock(root)
    found = status(root)
    if found.changed:
        raise DvcError(
            f"{paths.DVC_LOCK} does not name what is here; these stages are stale:\n"
            + "\n".join(f"  {stage}: {'; '.join(why)}" for stage, why in found.changed.items())
            + "\nrun `make pipeline`, and commit dvc.lock and reports/ with your change"
        )
    absent = [name for name in found.absent if needed is None or Path(name) == needed]
    if absent:
        raise DvcError(f"not here: {', '.join(absent)}; {BRING_BACK}")
    return lock
