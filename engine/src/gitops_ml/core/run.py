"""Commands that a check or a setting asks, and that may be missing on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT_SECONDS = 120


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str] | None:
    """Run a command in `root` to its end; None if it is not installed or does not end."""
    try:
        return subprocess.run(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def output(root: Path, *command: str) -> str | None:
    """What a command printed in `root`, stripped; None if it cannot be run or fails."""
    done = run(root, *command)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None
