"""Exchange what DVC owns with the remote, where there is one.

    gitops-ml pull
    gitops-ml push

The remote is the one at DVC_REMOTE_URL, else the default one of DVC's configuration. Without any,
nothing is exchanged and that is said. A pull brings what `dvc.lock` names, and the records of
earlier runs; and it puts what the cache holds in its place, so that a stage whose outputs
`dvc.lock` names is not run again.

Whatever DVC's configuration says, an object that comes from a remote is hashed (`verify`). DVC
drops one with another hash without a word, and never looks at what the cache already has; so both
are looked at here, and the object is named.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, dvc, dvc_output, told, without_password
from gitops_ml.core.dvc_objects import (
    absent,
    cache_folder,
    check_cache,
    folders_with,
    object_path,
    settings_of,
    tracked_hashes,
)
from gitops_ml.core.yaml_text import load_yaml

VARIABLE = "DVC_REMOTE_URL"
# The remote at DVC_REMOTE_URL has this name while it is used.
NAME = "from-the-environment"

# The only kind of remote that DVC cannot be told to verify.
_UNVERIFIED = "hdfs://"
_SKIPPED = (
    f"Skipped: no DVC remote. Set {VARIABLE} (on GitHub: a repository variable), "
    "or run `dvc remote add --default`."
)
_HASH = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
_CORRUPTED = re.compile(rf"({_HASH.pattern}) is corrupted")


@dataclass(frozen=True)
class Remote:
    """A remote that DVC knows.

    Attributes:
        name: What DVC calls it.
        address: A URL or a folder.
    """

    name: str
    address: str


def from_environment(root: Path) -> str | None:
    """The address at DVC_REMOTE_URL, a folder as an absolute path; None if there is none."""
    url = os.environ.get(VARIABLE, "").strip()
    if not url:
        return None
    return url if "://" in url else str((root / url).resolve())


def _default(settings: Mapping[str, str]) -> Remote | None:
    name = settings.get("core.remote")
    if not name:
        return None
    return Remote(name, settings.get(f"remote.{name.lower()}.url", name))


def verify_all(root: Path, settings: Mapping[str, str]) -> None:
    """Let DVC hash what comes from any remote, by its settings that are in no commit.

    Args:
        root: The project, or a git worktree of it.
        settings: DVC's configuration there.

    Raises:
        DvcError: If DVC does not take the setting.
    """
    for key, address in settings.items():
        remote = key.removesuffix(".url")
        if not (key.startswith("remote.") and remote != key) or address.startswith(_UNVERIFIED):
            continue
        if settings.get(f"{remote}.verify", "").lower() != "true":
            dvc_output(root, "config", "--local", f"{remote}.verify", "true")


@contextmanager
def configured(root: Path) -> Iterator[Remote | None]:
    """The remote to exchange with, while every remote is verified.

    DVC's own settings are as they were afterwards: one at DVC_REMOTE_URL is unknown again.

    Raises:
        DvcError: If DVC's configuration cannot be read, or DVC does not take the address.
    """
    address = from_environment(root)
    local = root / ".dvc" / "config.local"
    before = local.read_bytes() if local.exists() else None
    try:
        if address is not None:
            try:
                dvc_output(root, "remote", "add", "--local", "--force", NAME, address)
            except DvcError as error:
                raise DvcError(f"{VARIABLE}: {error}") from error
        settings = settings_of(root)
        verify_all(root, settings)
        yield _default(settings) if address is None else Remote(NAME, address)
    finally:
        if before is None:
            local.unlink(missing_ok=True)
        else:
            local.write_bytes(before)


def pull_objects(root: Path, *, runs: bool) -> str:
    """Bring into the cache what `dvc.lock` and the `.dvc` files name; returns what to tell.

    Args:
        root: The project's folder.
        runs: Whether to bring the records of earlier runs, too.

    Raises:
        DvcError: If there is a remote and the exchange with it fails, or an object in the cache or
            the remote has another hash than its name says.
    """
    hashes = _named_here(root)
    check_cache(root, hashes.values())
    with configured(root) as remote:
        if remote is None:
            return _SKIPPED
        command = ["fetch", *(["--run-cache"] if runs else []), "--remote", remote.name]
        done = dvc(root, *command)
        in_git = git_owned(root)
        cached = [hash_ for path, hash_ in hashes.items() if path not in in_git]
        cache = cache_folder(root)
        if done.returncode == 0:
            # What it says to be in neither place need not be asked for.
            known = set(_HASH.findall(done.stderr))
            lacking = [hash_ for hash_ in absent(cache, cached) if hash_ not in known]
            damaged = [hash_ for hash_ in lacking if _is_in(root, remote, hash_)]
        else:
            # It stops at a list of files that it cannot read, and at nothing else that is damaged.
            damaged = [hash_ for hash_ in _CORRUPTED.findall(done.stderr) if hash_ in cached]
        if damaged:
            raise _damage(remote, damaged, folders_with(cache, cached, damaged))
        if done.returncode != 0:
            raise DvcError(f"{without_password(remote.address)}: `dvc fetch` failed: {told(done)}")
        return _exchanged("Pull", remote)


def _named_here(root: Path) -> dict[str, str]:
    lock = root / paths.DVC_LOCK
    return tracked_hashes(root, lock.read_text(encoding="utf-8") if lock.exists() else None)


def git_owned(root: Path) -> set[str]:
    """The outputs that `dvc.yaml` leaves to git, as far as it names them without a variable."""
    try:
        stages = load_yaml((root / paths.DVC_YAML).read_text(encoding="utf-8"))["stages"]
        return {
            path
            for stage in stages.values()
            for kind in ("outs", "metrics", "plots")
            for output in stage.get(kind, ())
            if isinstance(output, dict)
            for path, options in output.items()
            if isinstance(options, dict) and options.get("cache") is False
        }
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return set()


def _is_in(root: Path, remote: Remote, hash_: str) -> bool:
    """Whether a remote has an object; not, where it cannot be asked."""
    place = object_path(Path(), hash_).as_posix()
    return dvc(root, "ls-url", f"remote://{remote.name}/{place}").returncode == 0


def _damage(remote: Remote, damaged: Sequence[str], folders: Sequence[str]) -> DvcError:
    """What to say of objects that the remote has and that did not come, so were dropped."""
    address = without_password(remote.address.rstrip("/"))
    bad, lists = (
        ", ".join(f"{address}/{object_path(Path(), hash_).as_posix()}" for hash_ in hashes)
        for hashes in (damaged, folders)
    )
    # DVC takes a folder whose list is there for complete, and would push none of its files.
    remove = f"it and {lists}, which lists it," if folders else "it"
    return DvcError(
        f"{bad}: not what the name says: overwritten, or cut short. Find out who could write "
        f"there. Remove {remove} from the remote, then run `make push` where the cache is good; "
        "where there is no such cache, `make pipeline push` makes it again"
    )


def push_objects(root: Path) -> str:
    """Send what `dvc.lock` names, and the records of runs, to the remote; returns what to tell.

    Raises:
        DvcError: If there is a remote and the exchange with it fails.
    """
    with configured(root) as remote:
        if remote is None:
            return _SKIPPED
        check_cache(root, _named_here(root).values())
        try:
            dvc_output(root, "push", "--run-cache", "--remote", remote.name)
        except DvcError as error:
            raise DvcError(f"{without_password(remote.address)}: {error}") from error
        return _exchanged("Push", remote)


def _exchanged(what: str, remote: Remote) -> str:
    return f"{what}: exchanged with {without_password(remote.address)}."


def pull(_: argparse.Namespace) -> int:
    """Pull; 0 when done or skipped."""
    root = Path.cwd()
    said = pull_objects(root, runs=True)
    # Not every stage is found again by the records of earlier runs: one that keeps some of its
    # outputs in git has none.
    dvc_output(root, "checkout", "--allow-missing")
    print(said)
    return 0


def push(_: argparse.Namespace) -> int:
    """Push; 0 when done or skipped."""
    print(push_objects(Path.cwd()))
    return 0
