from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from gitops_ml import cli
from gitops_ml.cli import COMMANDS, Command, main
from gitops_ml.core.errors import GitopsError, UsageError

Stub = Callable[[BaseException | int], None]
# What the extra `comment` names, and what these bring along.
COMMENT = {
    *("annotated_types", "anyio", "certifi", "h11", "httpcore", "httpx", "idna", "pydantic"),
    *("pydantic_core", "typing_extensions", "typing_inspection", "yaml", "_yaml", "tenacity"),
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """The command `stub`, whose module ends as it is told to."""

    def make(end: BaseException | int) -> None:
        def run(options: argparse.Namespace) -> int:
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setitem(sys.modules, "gitops_ml.stub", SimpleNamespace(run=run, __doc__="Stub"))
        monkeypatch.setattr(cli, "COMMANDS", {"stub": Command("stub", "stands in")})

    return make


def exit_of(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return stopped.value.code


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--help") == 0
    said = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in said
        assert command.description in said
    assert "\n  130  interrupted" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_refuses_what_it_does_not_know(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: gitops-ml {name} [-h]")
    assert f"    gitops-ml {name}" in said, "the module's text shows no call"
    assert "exit codes:" in said
    assert exit_of(name, "--no-such-option") == 2
    assert f"usage: gitops-ml {name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("nonsense",), "invalid choice: 'nonsense'"),
        (("ingest", "more"), "unrecognized arguments: more"),
        (("verify-bento",), "the following arguments are required: BENTO"),
        (("gate",), "the following arguments are required: --base"),
    ],
)
def test_a_wrong_call_shows_the_right_one(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: gitops-ml")
    assert message in said


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (GitopsError("x.yaml: no such file"), 1, "x.yaml: no such file\n"),
        (UsageError("say more"), 2, "usage: gitops-ml stub [-h]\ngitops-ml stub: say more\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1,
         "a.txt: No such file or directory\n"),
        (OSError("a disk's own words"), 1, "a disk's own words\n"),
        (KeyboardInterrupt(), 130, "gitops-ml stub: interrupted\n"),
        (ValueError("a bug"), None, ""),
    ],
)  # fmt: skip
def test_how_a_command_ends_is_its_exit_code(
    stub: Stub,
    capsys: pytest.CaptureFixture[str],
    end: BaseException | int,
    code: int | None,
    message: str,
) -> None:
    stub(end)
    if code is None:
        with pytest.raises(ValueError, match="a bug"):
            main(["stub"])
        return
    assert main(["stub"]) == code
    assert capsys.readouterr().err == message


def test_a_library_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.delitem(sys.modules, "gitops_ml.data.split", raising=False)
    assert main(["split"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gitops-ml split: needs polars, which is not installed")


def test_the_list_of_commands_needs_no_library() -> None:
    loaded = python(
        "import sys; before = set(sys.modules); import gitops_ml.cli as cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print('\\nloaded', *{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    foreign = set(loaded.splitlines()[-1].split()[1:]) - sys.stdlib_module_names
    assert foreign == {"gitops_ml"}


def test_commenting_needs_no_more_than_its_extra() -> None:
    said = python(
        f"""
import os, sys
ALLOWED = {COMMENT | {"gitops_ml"}!r} | sys.stdlib_module_names

class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Only())
os.environ.pop("GITHUB_EVENT_NAME", None)
from gitops_ml import cli
print(cli.main(["train"]), cli.main(["comment"]))
"""
    )
    assert said == "1 1\n"


def test_python_runs_the_command_as_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gitops_ml", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: gitops-ml COMMAND [ARGUMENT ...]")
