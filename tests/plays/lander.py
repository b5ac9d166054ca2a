"""`gitops-ml` without its start: a process that has imported it forks for each call.

The call is a process of its own: it can be killed at the nth thing that it does to the landed
files, or be given a disk that is full after so many bytes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

WATCHED = frozenset(
    {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile"}
)


@dataclass(frozen=True)
class Done:
    """What came of a call: its exit code (negative: the signal), and what it said."""

    code: int
    said: str
    told: str


class Lander(AbstractContextManager["Lander"]):
    """Starts the process that forks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def start(self, project: Path, *words: str, **how: Any) -> None:
        """Call it, without waiting: `kill_at=3`, `bytes=1000`, `variables={...}`."""
        assert self._process.stdin is not None
        call = {"project": str(project), "words": words, **how}
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()

    def result(self) -> Done:
        """What came of the earliest call that was not asked about."""
        assert self._process.stdout is not None
        return Done(**json.loads(self._process.stdout.readline()))

    def __call__(self, project: Path, *words: str, **how: Any) -> Done:
        """Call it, and wait."""
        self.start(project, *words, **how)
        return self.result()


def _kill_at(number: int) -> None:
    """Kill this process at the nth thing that it does to what is below `data/`."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in WATCHED and "data/" in str(arguments[0]):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _be_called(call: dict[str, Any], out: int, err: int) -> None:
    code = 255
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.update(call.get("variables", {}))
        os.chdir(call["project"])
        if (size := call.get("bytes")) is not None:
            if call.get("kill_at") is not None:
                # The kernel kills it in the middle of writing.
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        elif call.get("kill_at") is not None:
            _kill_at(call["kill_at"])
        from gitops_ml.cli import main

        code = main(call["words"])
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import tempfile

    import adbc_driver_postgresql.dbapi
    import s3fs

    import gitops_ml.data.landing

    del adbc_driver_postgresql, s3fs, gitops_ml
    answers = os.fdopen(os.dup(1), "w")
    running: list[tuple[int, Any, Any]] = []
    os.set_blocking(0, False)
    text, ended = "", False
    while not ended or running:
        chunk = os.read(0, 1 << 16).decode() if _readable(ended) else None
        ended = ended or chunk == ""
        text += chunk or ""
        while "\n" in text:
            line, _, text = text.partition("\n")
            out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            child = os.fork()
            if child == 0:
                _be_called(json.loads(line), out.fileno(), err.fileno())
            running.append((child, out, err))
        while running and (done := os.waitpid(running[0][0], os.WNOHANG))[0]:
            _, out, err = running.pop(0)
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
            code = os.waitstatus_to_exitcode(done[1])
            answers.write(json.dumps({"code": code, "said": said[0], "told": said[1]}) + "\n")
            answers.flush()
        if running:
            time.sleep(0.005)


def _readable(ended: bool) -> bool:
    import select

    return not ended and bool(select.select([0], [], [], 0.005)[0])


if __name__ == "__main__":
    _serve()
