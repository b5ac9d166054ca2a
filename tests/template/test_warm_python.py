"""Programs that are forks behave as if they had been started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from machine import eventually

TELL = """\
import json, os, sys
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "said": sys.stdin.read(),
    "prefix": sys.prefix, "executable": sys.executable, "parent": os.getppid(),
    "imported": "sklearn.ensemble" in sys.modules, "mine": os.environ.get("MINE"),
    "path": sys.path[:2], "name": __name__,
}))
sys.exit(7)
"""


@pytest.fixture
def start(
    warm_environment: Path, clean_env: Mapping[str, str], tmp_path: Path
) -> Callable[..., subprocess.Popen[str]]:
    """Start a program in a folder of its own: `start(source, *arguments, python, env)`."""

    def start_program(
        source: str,
        *arguments: str,
        python: Path = warm_environment / "bin" / "python",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        script = tmp_path / "bin" / "pytest"
        script.parent.mkdir(exist_ok=True)
        script.write_text(source, encoding="utf-8")
        return subprocess.Popen(
            [python, script, *arguments],
            cwd=tmp_path,
            env={**clean_env, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start_program


def test_a_program_is_a_fork_and_cannot_tell(
    start: Callable[..., subprocess.Popen[str]], warm_environment: Path, tmp_path: Path
) -> None:
    own = {"MINE": "yes", "PYTHONPATH": "/nowhere"}
    program = start(TELL, "one", "two words", env=own)
    told = json.loads(program.communicate("hello")[0])
    assert program.returncode == 7
    assert told["imported"]
    assert told["parent"] != program.pid
    assert told["arguments"] == ["one", "two words"]
    assert (told["folder"], told["said"], told["mine"]) == (str(tmp_path), "hello", "yes")
    assert told["prefix"] == str(warm_environment)
    assert told["executable"] == str(warm_environment / "bin" / "python")
    assert told["path"] == [str(tmp_path / "bin"), "/nowhere"]
    assert told["name"] == "__main__"


def test_a_copy_of_the_environment_is_one_of_its_own(
    start: Callable[..., subprocess.Popen[str]], warm_environment: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(warm_environment, tmp_path / "copy", symlinks=True)
    told = json.loads(start(TELL, python=copy / "bin" / "python").communicate("")[0])
    assert told["imported"]
    assert told["prefix"] == str(copy)


@pytest.mark.parametrize("what", ["variable", "file", "limit", "program"])
def test_what_would_make_a_difference_is_started(
    start: Callable[..., subprocess.Popen[str]], what: str
) -> None:
    reading, writing = os.pipe()
    if what == "variable":
        program = start(TELL, env={"OMP_NUM_THREADS": "1"})
    elif what == "file":
        program = start(TELL, pass_fds=[reading])
    elif what == "limit":
        # A shell, since Python may not be made to run between a fork and a start in threads.
        limited = ["bash", "-c", 'ulimit -n 99; exec "$@"', "_"]
        known = start(TELL)
        known.communicate("")
        program = subprocess.Popen(
            [*limited, *map(str, known.args)],
            env={**os.environ, "PYTHONPATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    else:
        known = start(TELL)
        known.communicate("")
        python, script = map(str, known.args)
        source = Path(script).rename(Path(script).with_name("other"))
        program = subprocess.Popen(
            [python, source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    told = json.loads(program.communicate("")[0])
    os.close(reading)
    os.close(writing)
    assert not told["imported"]
    assert told["parent"] == os.getpid()
    assert program.returncode == 7


def test_errors_are_told_as_ever(start: Callable[..., subprocess.Popen[str]]) -> None:
    program = start("raise ValueError('nothing')")
    said, errors = program.communicate()
    assert (said, program.returncode) == ("", 1)
    assert errors.startswith("Traceback (most recent call last):")
    assert errors.endswith("ValueError: nothing\n")
    program = start("import sys; sys.exit('no')")
    assert program.communicate()[1] == "no\n"
    assert program.returncode == 1


def test_a_signal_reaches_the_program_and_its_end_whoever_started_it(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    program = start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.terminate()
    assert program.wait(20) == 3
    program = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert program.wait(20) == -signal.SIGKILL


def test_nothing_is_left_of_a_program_that_is_killed(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    program = start(
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    assert program.stdout is not None
    started = [int(number) for number in program.stdout.readline().split()]
    program.kill()
    program.wait()
    eventually(lambda: not any(map(is_running, started)), "it runs on")


def is_running(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
