"""DVC without its start: a copy of this process that has imported it already runs each command.

A second of every call of DVC is its imports. A test that asks it fifty times pays them once here;
what runs is DVC's own command line, in a process of its own.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_run = subprocess.run


def forked(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Like `subprocess.run`, which it is for all but `python -m dvc`."""
    words = [str(word) for word in command]
    if words[0] != sys.executable or "dvc" not in words[1:4]:
        return _run(command, **options)
    _import_dvc()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            streams = (out, err) if options.get("capture_output") else ()
            _be_dvc(words[words.index("dvc") + 1 :], options, [file.fileno() for file in streams])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            said = file.read()
            texts.append(said.decode() if options.get("text") else said)
    return subprocess.CompletedProcess(words, code, *texts)


def _import_dvc() -> None:
    """What DVC imports where it needs it."""
    for name in (
        *("dvc.cli.parser", "dvc.cachemgr", "dvc.dependency", "dvc.output", "dvc.stage.cache"),
        *("dvc.stage.loader", "dvc_data.index.checkout", "dvc_data.index.fetch"),
        *(f"dvc.repo.{one}" for one in ("checkout", "fetch", "ls_url", "push", "reproduce")),
    ):
        importlib.import_module(name)


def _be_dvc(arguments: list[str], options: dict[str, Any], streams: Sequence[int]) -> None:
    """Run DVC's command line, and end."""
    code = 255
    try:
        from dvc.cli import main
        from dvc.logger import setup

        os.chdir(options["cwd"])
        environment = dict(options["env"])
        os.environ.clear()
        os.environ.update(environment)
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
        setup()
        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@pytest.fixture
def forked_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever calls DVC in this test calls it so."""
    monkeypatch.setattr(subprocess, "run", forked)
