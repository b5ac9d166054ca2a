"""Programs of others, run to their end: git, DVC, uv, kubectl, BentoML, a container engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, AnyStr

from gitops_ml.core.errors import GitopsError

# What follows is a module; no file of the current folder is taken for one.
PYTHON = (sys.executable, "-P", "-m")
SAID_CHARACTERS = 2000
# Of a command that somebody waits for and that is asked for a fact.
ASK_SECONDS = 120.0
STOP_SECONDS = 20.0

# Git sets these inside its hooks; kept, they would point every call at the caller's index.
_GIT_CONTEXT = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
)

# None takes a variable away.
Variables = Mapping[str, str | None]


class CommandError(GitopsError):
    """A command cannot be run, does not end, or fails."""


class NotInstalledError(CommandError):
    """There is no such command on PATH."""


class NoEndError(CommandError):
    """The command did not end in time, and was stopped."""


def outside_git() -> dict[str, str]:
    """The environment without what git sets inside a hook."""
    return {key: value for key, value in os.environ.items() if key not in _GIT_CONTEXT}


def run_bytes(
    command: Sequence[str | Path],
    root: Path,
    *,
    variables: Variables | None = None,
    data: bytes = b"",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a folder to its end, whatever comes of it.

    Args:
        command: The program and its arguments.
        root: The folder.
        variables: What differs from this process's environment.
        data: What it reads.
        timeout: Seconds after which it is stopped; None waits for ever.

    Raises:
        NotInstalledError: If there is no such program.
        NoEndError: If it did not end in time.
        CommandError: If it cannot be started.
    """
    words = [str(word) for word in command]
    try:
        return subprocess.run(
            words,
            cwd=root,
            env=_environment(variables),
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NoEndError(f"`{_shown(words)}`: no end after {timeout:g} s") from error
    except (OSError, ValueError) as error:
        raise _not_started(words, root, error) from error


def run(
    command: Sequence[str | Path],
    root: Path,
    *,
    variables: Variables | None = None,
    data: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Like `run_bytes`, for a command that speaks UTF-8."""
    done = run_bytes(command, root, variables=variables, data=data.encode(), timeout=timeout)
    return subprocess.CompletedProcess(
        done.args,
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def output(
    command: Sequence[str | Path],
    root: Path,
    *,
    variables: Variables | None = None,
    timeout: float | None = None,
) -> str:
    """What a command prints.

    Raises:
        CommandError: If it cannot be run, does not end or fails, with what it said.
    """
    done = run(command, root, variables=variables, timeout=timeout)
    if done.returncode != 0:
        raise CommandError(f"`{_shown(done.args)}` failed:\n{said(done)}")
    return done.stdout


def ask(root: Path, *command: str) -> str | None:
    """What a command prints, stripped; None if it cannot be run, does not end or fails."""
    try:
        return output(command, root, timeout=ASK_SECONDS).strip()
    except CommandError:
        return None


def show(command: Sequence[str | Path], root: Path, *, variables: Variables | None = None) -> int:
    """Run a command that people watch: it writes to the terminal; gives back its exit code.

    Raises:
        CommandError: If it cannot be started.
    """
    words = [str(word) for word in command]
    try:
        return subprocess.run(
            words, cwd=root, env=_environment(variables), stdin=subprocess.DEVNULL, check=False
        ).returncode
    except (OSError, ValueError) as error:
        raise _not_started(words, root, error) from error


@contextmanager
def started(
    command: Sequence[str | Path], root: Path, log: IO[bytes], *, variables: Variables | None = None
) -> Iterator[None]:
    """Run a command beside the block, and stop it and all that it started at the block's end.

    Args:
        command: The program and its arguments.
        root: The folder.
        log: Where it writes.
        variables: What differs from this process's environment.

    Raises:
        CommandError: If it cannot be started.
    """
    words = [str(word) for word in command]
    try:
        process = subprocess.Popen(
            words,
            cwd=root,
            env=_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise _not_started(words, root, error) from error
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def said(done: subprocess.CompletedProcess[AnyStr]) -> str:
    """The end of what a command said: its output, then its errors."""
    parts = (
        part.decode(errors="replace") if isinstance(part, bytes) else str(part)
        for part in (done.stdout, done.stderr)
    )
    text = "\n".join(part.strip() for part in parts if part.strip())
    return text[-SAID_CHARACTERS:] or f"exit code {done.returncode}, without a message"


def _environment(variables: Variables | None) -> dict[str, str]:
    wanted = {**outside_git(), **(variables or {})}
    return {key: value for key, value in wanted.items() if value is not None}


def _not_started(words: Sequence[str], root: Path, error: Exception) -> CommandError:
    if isinstance(error, FileNotFoundError) and root.is_dir():
        return NotInstalledError(f"{words[0]}: not installed, or not on PATH")
    return CommandError(f"`{_shown(words)}`: cannot be run: {error}")


def _shown(words: Sequence[str]) -> str:
    """A command as people would type it."""
    python = len(PYTHON)
    return " ".join(words[python:] if tuple(words[:python]) == PYTHON else words)
