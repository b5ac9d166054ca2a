"""Python programs, started as forks of one process that has imported their libraries.

The imports take longer than most of what is asked of the programs. Each program still has a
process of its own, with its folder, its variables and its own copy of the engine.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any, NoReturn

# Not the engine, whose sources differ from call to call; and not polars or ONNX Runtime, which
# start threads when imported, and a fork leaves all threads but one behind.
LIBRARIES = (
    "joblib",
    "pydantic",
    "pytest",
    "scipy.stats",
    "skl2onnx",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "yaml",
)


class Forks:
    """Runs the programs of an environment, one after the other.

    Args:
        python: The environment's interpreter.
        env: The variables of all calls.
    """

    def __init__(self, python: Path, env: Mapping[str, str]) -> None:
        self.server = subprocess.Popen(
            [str(python), __file__],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, folder: Path, *command: str, path: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and keep what it printed, its errors among the rest.

        Args:
            folder: Where.
            command: The name of a console script of the environment, and its arguments.
            path: Its PYTHONPATH.
            env: More variables.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        order = {"folder": str(folder), "command": command, "path": path, "env": env or {}}
        print(json.dumps(order), file=self.server.stdin, flush=True)
        answer = json.loads(self.server.stdout.readline())
        return subprocess.CompletedProcess(command, answer["status"], answer["said"], "")

    def close(self) -> None:
        """Stop."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(60)


def serve() -> None:
    """Answer each line of the standard input, an order, with a line."""
    del sys.path[0]  # the folder of this file
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if child == 0:
                become(json.loads(line), output)
            _, status = os.waitpid(child, 0)
            output.seek(0)
            said = output.read().decode(errors="replace")
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "said": said}), flush=True)


def become(order: Mapping[str, Any], output: IO[bytes]) -> NoReturn:
    """Be the program that was ordered, as if it had been started for it."""
    status: object = 1
    try:
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        os.environ |= {"PYTHONPATH": order["path"], **order["env"]}
        os.chdir(order["folder"])
        sys.path[:0] = order["path"].split(os.pathsep)
        sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
        sys.argv = list(order["command"])
        (program,) = entry_points(group="console_scripts", name=sys.argv[0])
        status = program.load()()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        if isinstance(status, str):
            print(status, file=sys.stderr)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if isinstance(status, str) else int(status or 0))


if __name__ == "__main__":
    serve()
