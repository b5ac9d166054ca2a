"""Exchange what DVC owns with the remote, where there is one.

    python -m <package>.delivery.remote pull | push

The remote is the one at DVC_REMOTE_URL, else the default one in `.dvc/config`. Without any,
nothing is exchanged and that is said. Results travel with the run cache, so that a machine with the
same inputs takes the outputs instead of computing them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "DVC_REMOTE_URL"
NAME = "shared"
# The package that speaks a protocol, by the beginning of the remote's address.
PLUGINS = {"s3": "s3", "gs": "gs", "azure": "azure", "ssh": "ssh"}


class RemoteError(Exception):
    """The exchange failed; the message says why and what to do."""


def dvc(root: Path, *arguments: str) -> str:
    """Run DVC; gives back what it printed.

    Raises:
        RemoteError: If it fails, with what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RemoteError(f"`dvc {arguments[0]}` failed: {done.stderr.strip()}")
    return done.stdout


def address(root: Path) -> str | None:
    """The address of the remote that is set up, by DVC_REMOTE_URL or in DVC's configuration.

    Raises:
        RemoteError: If DVC's configuration cannot be read.
    """
    url = os.environ.get(VARIABLE, "").strip()
    if url:
        dvc(root, "remote", "add", "--local", "--default", "--force", NAME, url)
        return url
    for line in dvc(root, "remote", "list").splitlines():
        name, _, rest = line.partition("\t")
        if line.endswith("(default)"):
            return re.sub(r"\s*\(default\)$", "", rest).strip() or name
    return None


def exchange(root: Path, direction: str) -> str:
    """Pull from or push to the remote; returns what to tell.

    Raises:
        RemoteError: If there is a remote and the exchange with it fails.
    """
    where = address(root)
    if where is None:
        return (
            f"Skipped: no DVC remote. Set {VARIABLE} (on GitHub: a repository variable), "
            "or run `dvc remote add --default`."
        )
    commands = {"pull": ["fetch", "--run-cache"], "push": ["push", "--run-cache"]}
    try:
        dvc(root, *commands[direction])
    except RemoteError as error:
        raise RemoteError(f"{where}: {error}{_advice(where)}") from error
    return f"{direction.capitalize()}: exchanged with {where}."


def _advice(where: str) -> str:
    plugin = PLUGINS.get(where.partition("://")[0])
    if plugin is None:
        return ""
    return (
        f"\nRemotes at {plugin}:// need `uv add --group train dvc-{plugin}`, and credentials: see "
        "`README.md`"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exchange; 0 when done or skipped, 1 when it failed, 2 for a wrong call."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words not in (["pull"], ["push"]):
        print("usage: remote pull | push", file=sys.stderr)
        return 2
    try:
        print(exchange(Path.cwd(), words[0]))
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
