"""What doctor checks of the engine: whether it is as released. Needs no network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from gitops_ml.core.run import ask
from gitops_ml.doctor.check import Check

ENGINE = "engine"
MANIFEST = "manifest.json"
DISTRIBUTION = "gitops-ml"

# Puts back what differs or is missing, from the commit of the template that the project follows.
_RESTORE = f"`uvx cruft diff | git apply --include='{ENGINE}/*'` puts back what was released"


def check_engine(root: Path) -> Check:
    """The engine's files must be the released ones, or the engine a dependency of the project.

    Its manifest names each file with its sha256; all are plain files, and none is executable. Files
    there that git ignores do not count.
    """
    folder = root / ENGINE
    if not folder.is_dir():
        return _check_dependency()
    manifest = folder / MANIFEST
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
        version, released = str(document["version"]), dict(document["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
        return Check(ENGINE, "fail", f"{ENGINE}/{MANIFEST}: {reason}", _RESTORE)
    found = _differences(root, released)
    if not any(found.values()):
        return Check(ENGINE, "ok", f"as released ({version})")
    said = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
    remedies = [_RESTORE] if any(found[what] for what in found if what != "extra") else []
    if found["extra"]:
        remedies.append(f"move what is extra out of {ENGINE}/ (`git mv` to src/)")
    return Check(
        ENGINE, "warn", f"not as released ({version}); {'; '.join(said)}", "; ".join(remedies)
    )


def _differences(root: Path, released: Mapping[str, str]) -> dict[str, list[str]]:
    """The files that are not as the manifest says, by what is wrong with them."""
    folder = root / ENGINE
    # A folder that is a link makes links of all that is in it.
    above = {name: [name, *map(str, PurePosixPath(name).parents[:-1])] for name in released}
    links = {name for name in released if any((folder / one).is_symlink() for one in above[name])}
    here = {name for name in released if (folder / name).is_file()} - links
    content = {name: (folder / name).read_bytes() for name in here}
    differs = {name for name in here if _sha256(content[name]) != released[name]}
    # As git for Windows writes them.
    line_ends = {
        name for name in differs if _sha256(content[name].replace(b"\r\n", b"\n")) == released[name]
    }
    # Where files have no such bit, git does not look at it either.
    has_bits = ask(root, "git", "config", "core.fileMode") != "false"
    executable = {name for name in here if has_bits and os.access(folder / name, os.X_OK)}
    listed = ask(
        root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ENGINE
    )
    known = {name.removeprefix(f"{ENGINE}/") for name in (listed or "").split("\0") if name}
    folders = {one for names in above.values() for one in names}
    extra = {name for name in known - {*folders, MANIFEST} if os.path.lexists(folder / name)}
    return {
        "differs": sorted(differs - line_ends),
        "other line ends": sorted(line_ends),
        "executable": sorted(executable),
        "a link": sorted(links),
        "missing": sorted(set(released) - here - links),
        "extra": sorted(extra),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_dependency() -> Check:
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return Check(
            ENGINE, "fail", f"neither {ENGINE}/ nor {DISTRIBUTION} is there", "`make setup`"
        )
    return Check(ENGINE, "ok", f"{DISTRIBUTION} {version}, installed as a dependency")
