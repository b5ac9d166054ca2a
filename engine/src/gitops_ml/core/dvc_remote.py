"""Exchange what DVC owns with the remote, where there is one.

    gitops-ml pull
    gitops-ml push

The remote is the one at DVC_REMOTE_URL, else the default one of DVC's configuration. Without any,
nothing is exchanged and that is said. A pull brings what `dvc.lock` names, and the records of
earlier runs; and it puts what the cache holds in its place, so that a stage whose outputs
`dvc.lock` names is not run again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.core.dvc import DvcError, dvc_output, without_password

VARIABLE = "DVC_REMOTE_URL"
# The remote at DVC_REMOTE_URL has this name while it is used.
NAME = "from-the-environment"

_COMMANDS = {"pull": ("fetch", "--run-cache"), "push": ("push", "--run-cache")}


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


def default(root: Path) -> Remote | None:
    """The default remote of DVC's configuration; None if there is none.

    Raises:
        DvcError: If DVC's configuration cannot be read.
    """
    lines = dvc_output(root, "config", "--list").splitlines()
    settings = {key: value for key, _, value in (line.partition("=") for line in lines)}
    name = settings.get("core.remote")
    if not name:
        return None
    return Remote(name, settings.get(f"remote.{name.lower()}.url", name))


@contextmanager
def configured(root: Path) -> Iterator[Remote | None]:
    """The remote to exchange with; one at DVC_REMOTE_URL is unknown to DVC again afterwards.

    Raises:
        DvcError: If DVC's configuration cannot be read, or DVC does not take the address.
    """
    address = from_environment(root)
    if address is None:
        yield default(root)
        return
    settings = root / ".dvc" / "config.local"
    before = settings.read_bytes() if settings.exists() else None
    try:
        try:
            dvc_output(root, "remote", "add", "--local", "--force", NAME, address)
        except DvcError as error:
            raise DvcError(f"{VARIABLE}: {error}") from error
        yield Remote(NAME, address)
    finally:
        if before is None:
            settings.unlink(missing_ok=True)
        else:
            settings.write_bytes(before)


def exchange(root: Path, direction: str) -> str:
    """Pull from or push to the remote; returns what to tell.

    Raises:
        DvcError: If there is a remote and the exchange with it fails, or what is in the cache
            would replace something that is nowhere else.
    """
    said = _exchange(root, direction)
    if direction == "pull":
        # Not every stage is found again by the records of earlier runs: one that keeps some of its
        # outputs in git has none.
        dvc_output(root, "checkout", "--allow-missing")
    return said


def _exchange(root: Path, direction: str) -> str:
    with configured(root) as remote:
        if remote is None:
            return (
                f"Skipped: no DVC remote. Set {VARIABLE} (on GitHub: a repository variable), "
                "or run `dvc remote add --default`."
            )
        where = without_password(remote.address)
        try:
            dvc_output(root, *_COMMANDS[direction], "--remote", remote.name)
        except DvcError as error:
            raise DvcError(f"{where}: {error}") from error
    return f"{direction.capitalize()}: exchanged with {where}."


def pull(_: argparse.Namespace) -> int:
    """Pull; 0 when done or skipped."""
    print(exchange(Path.cwd(), "pull"))
    return 0


def push(_: argparse.Namespace) -> int:
    """Push; 0 when done or skipped."""
    print(exchange(Path.cwd(), "push"))
    return 0
