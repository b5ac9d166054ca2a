"""The versions of the libraries that the stages compute with, as `uv.lock` has them.

    gitops-ml environment

Writes `reports/locked_versions.json`. The stages depend on their parts of it instead of on
`uv.lock`, so that a new scikit-learn trains again and a new ruff does not. The text is the same on
every machine: where the lock has several versions of a package, for several Pythons or platforms,
all of them are named.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import below_the_top

# The parts of the file, each with the packages that it starts from: what they need is in it too.
PARTS: Mapping[str, tuple[str, ...]] = {
    "tables": ("polars",),
    "checks": ("pandera",),
    "model": ("scikit-learn", "skl2onnx", "onnx", "onnxruntime"),
    "plots": ("matplotlib",),
}
# The part of what the project itself asks for, to run or in the group `train`.
OWN_PART = "project"
TRAINING_GROUP = "train"
ENGINE = "gitops-ml"

_SEPARATOR = ", "

Package = Mapping[str, Any]
Wanted = tuple[str, str]  # a package and one of its extras; the empty one is the package itself


class LockedVersionsError(GitopsError):
    """`uv.lock` does not say the versions, or others are installed; the message says what to do."""


def locked_versions(lock: str) -> dict[str, dict[str, str]]:
    """The versions by part and by package.

    Args:
        lock: The text of `uv.lock`.

    Raises:
        LockedVersionsError: If it is no lock file, or lacks a package that the engine needs.
    """
    try:
        entries = tomllib.loads(lock)["package"]
        packages: dict[str, list[Package]] = {}
        for entry in entries:
            packages.setdefault(entry["name"], []).append(entry)
        parts = {
            part: _versions(packages, [(name, "") for name in roots])
            for part, roots in PARTS.items()
        }
        parts[OWN_PART] = _versions(packages, _own(packages))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise LockedVersionsError(
            f"{paths.UV_LOCK}: is no lock file of uv ({type(error).__name__}: {error}); "
            "get it back from git, or write it anew with `uv lock`"
        ) from error
    lacking = [name for roots in PARTS.values() for name in roots if name not in packages]
    if lacking:
        raise LockedVersionsError(
            f"{paths.UV_LOCK}: lacks {', '.join(lacking)}; run `uv lock`, then commit it"
        )
    return parts


def _own(packages: Mapping[str, Sequence[Package]]) -> list[Wanted]:
    """What the project at the lock's own folder asks for, less the engine."""
    found: list[Wanted] = []
    for package in (one for versions in packages.values() for one in versions):
        source = package["source"]
        if "." in (source.get("editable"), source.get("virtual")):
            found += _wanted(package.get("dependencies", ()))
            found += _wanted(package.get("dev-dependencies", {}).get(TRAINING_GROUP, ()))
    return [wanted for wanted in found if wanted[0] != ENGINE]


def _wanted(dependencies: Iterable[Mapping[str, Any]]) -> list[Wanted]:
    """Each package itself, and once more with each extra that is asked for."""
    return [(one["name"], extra) for one in dependencies for extra in ("", *one.get("extra", ()))]


def _versions(packages: Mapping[str, Sequence[Package]], roots: Iterable[Wanted]) -> dict[str, str]:
    """The versions of some packages and of all that they need, sorted by name."""
    found: dict[str, str] = {}
    left = list(roots)
    seen: set[Wanted] = set()
    while left:
        wanted = left.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        name, extra = wanted
        versions = packages.get(name, ())
        # What lies in the repository has no version that says what is in it.
        known = sorted({one["version"] for one in versions if "registry" in one["source"]})
        if known:
            found[name] = _SEPARATOR.join(known)
        for package in versions:
            left += _wanted(package.get("dependencies", ()))
            left += _wanted(package.get("optional-dependencies", {}).get(extra, ()))
    return dict(sorted(found.items()))


def read_locked_versions(root: Path) -> dict[str, dict[str, str]]:
    """The versions that the project's `uv.lock` has; see `locked_versions`.

    Raises:
        LockedVersionsError: Also if there is no such file.
    """
    try:
        text = (root / paths.UV_LOCK).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LockedVersionsError(
            f"{paths.UV_LOCK}: no such file; run `uv lock`, then commit it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LockedVersionsError(f"{paths.UV_LOCK}: cannot be read: {error}") from error
    return locked_versions(text)


def check_installed(root: Path) -> None:
    """Make sure that what is installed here is what the project locks.

    A project that locks nothing has no versions to differ from, and a package that is not
    installed may be one for other platforms.

    Raises:
        LockedVersionsError: If other versions are installed, or the lock cannot be read.
    """
    if not (root / paths.UV_LOCK).is_file():
        return
    different = list(_different(read_locked_versions(root)))
    if different:
        lines = "\n".join(f"  {line}" for line in different)
        raise LockedVersionsError(
            f"other environment: not the versions of {paths.UV_LOCK} are installed here:\n{lines}\n"
            f"run `uv sync --locked`, then `make pipeline`; "
            f"or lock what you want instead: `uv add`, `uv lock --upgrade-package`"
        )


def _different(parts: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    locked = {name: text for part in parts.values() for name, text in part.items()}
    for name, text in sorted(locked.items()):
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if installed not in text.split(_SEPARATOR):
            yield f"{name} {installed}, locked is {text}"


def run(_: argparse.Namespace) -> int:
    """Write the file for the project in the current folder; 0 if all went well."""
    advice = below_the_top(Path())
    if advice is not None:
        # The first stage says it, where people look when they start.
        print(f"warning: {advice}", file=sys.stderr)
    parts = read_locked_versions(Path())
    paths.LOCKED_VERSIONS.parent.mkdir(parents=True, exist_ok=True)
    paths.LOCKED_VERSIONS.write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(map(len, parts.values()))} locked versions are inputs of the stages")
    return 0
