"""What DVC keeps under a hash, hashed again.

DVC believes a read-only file of its cache, and its own notes of what it has put into a working
tree: it hashes neither again. What judges, tests or packages must not, so it hashes here what it
is about to load.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, by_name, dvc_output, stages_of
from gitops_ml.core.git import git
from gitops_ml.core.json_text import load_json
from gitops_ml.core.yaml_text import load_yaml

# DVC appends this to the hash of a folder.
FOLDER = ".dir"
_FILES = Path("files/md5")
_SHOWN = 5


def hash_of(path: Path) -> str:
    """The hash that DVC gives a file, or a folder with all that is in it.

    A folder's is the MD5 of the JSON list of its files and their MD5s, sorted by name.

    Raises:
        DvcError: If it is a link to a folder, or holds one.
        OSError: If it cannot be read.
    """
    if is_linked_folder(path):
        raise DvcError(f"{path}: is a link to a folder, which DVC never makes; take it away")
    if path.is_dir():
        return _folder_hash(_files(path))
    return _md5(path)


def is_linked_folder(path: Path) -> bool:
    """Whether this is a link to a folder; what is in it can change while it is looked at."""
    return path.is_symlink() and path.is_dir()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _hasher).hexdigest()


def _hasher() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _files(folder: Path) -> dict[str, str]:
    """The MD5 of each file below a folder, by its path in the folder."""
    found = {}
    for path in folder.rglob("*"):
        if is_linked_folder(path):
            raise DvcError(f"{path}: is a link to a folder, which DVC never makes; take it away")
        if not path.is_dir():
            found[path.relative_to(folder).as_posix()] = _md5(path)
    return found


def _folder_hash(files: Mapping[str, str]) -> str:
    entries = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + FOLDER


def outputs_of(lock: str, name: str = str(paths.DVC_LOCK)) -> dict[str, str]:
    """The hash of every output that a lock names, by path.

    Args:
        lock: The content of the lock.
        name: What to call it in messages.

    Raises:
        DvcError: If it is no lock, or two of its stages name the same output.
    """
    found: dict[str, str] = {}
    for stage, entry in stages_of(lock, name).items():
        for path, output in by_name(entry.get("outs")).items():
            if path in found:
                raise DvcError(f"{name}: stage {stage}: another stage names {path}, too")
            if "md5" in output:
                found[path] = str(output["md5"])
    return found


def check_outputs(
    root: Path,
    lock: str,
    wanted: Iterable[Path] | None = None,
    name: str = str(paths.DVC_LOCK),
) -> None:
    """Make sure that outputs are byte for byte what a lock names.

    Args:
        root: The project's folder.
        lock: The content of the lock.
        wanted: Outputs, or files inside of them, that must be here; by default all that are here.
        name: What to call the lock in messages.

    Raises:
        DvcError: Naming what differs or is missing.
    """
    named = outputs_of(lock, name)
    if wanted is None:
        outputs = {path for path in named if (root / path).exists()}
    else:
        outputs = {_output_with(path, named, name) for path in wanted}
    for path in sorted(outputs):
        if not (root / path).exists():
            raise DvcError(f"{path}: not here; run `make pull`, then `make pipeline`")
        if hash_of(root / path) != named[path]:
            raise DvcError(
                f"{_differing(root, path, named[path])}: is not what {name} names, so it was not "
                f"loaded\n  recorded md5 {named[path]}\n  found    md5 {hash_of(root / path)} "
                f"({path})\ntake it away (`rm -r {path}`), then run `make pull` and `make pipeline`"
            )


def _output_with(path: Path, named: Mapping[str, str], name: str) -> str:
    for output in named:
        if path.is_relative_to(output):
            return output
    raise DvcError(f"{name}: names no {path}; run `make pipeline`")


def _differing(root: Path, path: str, expected: str) -> str:
    """The first file of an output that differs; the output itself where that is not known."""
    if not (root / path).is_dir():
        return path
    try:
        recorded = listed(object_path(cache_folder(root), expected))
    except (DvcError, OSError, ValueError):
        return path
    if _folder_hash(recorded) != expected:
        return path
    found = _files(root / path)
    unlike = sorted(f for f in {*found, *recorded} if found.get(f) != recorded.get(f))
    return f"{path}/{unlike[0]}" if unlike else path


def listed(path: Path) -> dict[str, str]:
    """What the object of a folder lists: the MD5 of each file by its path in the folder.

    Raises:
        OSError: If there is no such object.
        ValueError: If it lists nothing.
    """
    try:
        entries = load_json(path.read_text(encoding="utf-8"))
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: lists no files") from error


def cache_folder(root: Path) -> Path:
    """Where DVC's cache is.

    Raises:
        DvcError: If DVC's configuration cannot be read.
    """
    return root / settings_of(root).get("cache.dir", ".dvc/cache")


def settings_of(root: Path) -> dict[str, str]:
    """DVC's configuration, all levels together; folders as absolute paths.

    Raises:
        DvcError: If it cannot be read.
    """
    lines = dvc_output(root, "config", "--list").splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def object_path(store: Path, hash_: str) -> Path:
    """Where a cache, or a remote, keeps what has a hash."""
    return store / _FILES / hash_[:2] / hash_[2:]


def tracked_hashes(root: Path, lock: str | None) -> dict[str, str]:
    """The hash of all that DVC owns, by path: what a lock names, and what `.dvc` files do.

    Args:
        root: The project's folder.
        lock: The content of the lock, if there is one.

    Raises:
        DvcError: If the lock or one of the files is none.
    """
    found = {} if lock is None else outputs_of(lock)
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.dvc")
    for name in filter(None, listed.stdout.split("\0")):
        try:
            outputs = load_yaml((root / name).read_text(encoding="utf-8"))["outs"]
            for output in outputs:
                if "md5" in output:
                    found[(Path(name).parent / output["path"]).as_posix()] = str(output["md5"])
        except FileNotFoundError:
            continue
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise DvcError(f"{name}: is no file of DVC ({error!r}); run `dvc add` again") from error
    return found


def absent(cache: Path, hashes: Iterable[str]) -> list[str]:
    """What of these hashes a cache does not have, the files of folders included."""
    return [hash_ for hash_ in _all(cache, hashes) if not object_path(cache, hash_).exists()]


def folders_with(cache: Path, hashes: Iterable[str], files: Collection[str]) -> list[str]:
    """Those of these hashes that are of a folder with one of the files in it."""
    return [
        hash_
        for hash_ in dict.fromkeys(hashes)
        if hash_.endswith(FOLDER)
        and object_path(cache, hash_).exists()
        and not {*listed(object_path(cache, hash_)).values()}.isdisjoint(files)
    ]


def check_cache(root: Path, hashes: Iterable[str]) -> None:
    """Make sure that what the cache holds under these hashes has them; else remove it.

    Raises:
        DvcError: Naming the objects that had another hash.
    """
    cache = cache_folder(root)
    damaged = []
    for hash_ in _all(cache, hashes):
        path = object_path(cache, hash_)
        if path.exists() and _md5(path) != hash_.removesuffix(FOLDER):
            path.unlink()
            damaged.append(path)
    if damaged:
        raise DvcError(
            f"{_several(damaged)}: not what the name says: overwritten, or cut short. It was "
            "removed from the cache; run this again: a remote brings it back, or the pipeline "
            "makes it again"
        )


def _all(cache: Path, hashes: Iterable[str]) -> Iterator[str]:
    """Each hash once; after a folder's those of its files, as far as the cache lists them."""
    seen: set[str] = set()
    for hash_ in hashes:
        files: Iterable[str] = ()
        # Looked at before it is handed out, since one that is damaged is removed then.
        if hash_.endswith(FOLDER):
            path = object_path(cache, hash_)
            if path.exists() and _md5(path) == hash_.removesuffix(FOLDER):
                files = listed(path).values()
        for one in (hash_, *files):
            if one not in seen:
                seen.add(one)
                yield one


def _several(found: list[Any]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(map(str, found[:_SHOWN])) + more
