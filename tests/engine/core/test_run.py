from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from gitops_ml.core.run import (
    PYTHON,
    CommandError,
    NoEndError,
    NotInstalledError,
    ask,
    output,
    run,
    run_bytes,
    said,
    show,
    started,
)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_what_it_reads_prints_and_answers_comes_back(tmp_path: Path) -> None:
    text = "import os, sys; print(os.getcwd(), sys.stdin.read()); print('é', file=sys.stderr)"
    done = run(program(f"{text}; sys.exit(3)"), tmp_path, data="ñ")
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path} ñ\n", "é\n")


def test_bytes_stay_as_they_are(tmp_path: Path) -> None:
    copy = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert run_bytes(program(copy), tmp_path, data=b"\xff\r\n").stdout == b"\xff\r\n"
    assert run(program(copy.replace("sys.stdin.buffer.read()", "b'\\xff'")), tmp_path).stdout == "�"


def test_variables_are_added_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GONE", "KEPT"):
        monkeypatch.setenv(name, "here")
    shown = "import os; print([os.environ.get(n) for n in ('GIT_DIR', 'GONE', 'KEPT', 'NEW')])"
    found = output(program(shown), tmp_path, variables={"GONE": None, "NEW": "there"})
    assert found.strip() == "[None, None, 'here', 'there']"


def test_what_cannot_be_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program", encoding="utf-8")
    with pytest.raises(NotInstalledError, match=r"^no-such-command: not installed"):
        run(["no-such-command", "x"], tmp_path)
    with pytest.raises(CommandError, match=r"cannot be run: .*Permission denied"):
        run([tmp_path / "text"], tmp_path)
    with pytest.raises(CommandError, match=r"cannot be run: .*nowhere") as caught:
        run(program(""), tmp_path / "nowhere")
    assert not isinstance(caught.value, NotInstalledError)


def test_what_does_not_end_is_stopped(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(NoEndError, match=r"no end after 0\.2 s"):
        run(program("import time; time.sleep(60)"), tmp_path, timeout=0.2)
    assert time.monotonic() - begin < 30


def test_a_failure_tells_the_command_and_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^`no_such_module one` failed:\n.*no_such_module"):
        output([*PYTHON, "no_such_module", "one"], tmp_path)
    long = run(program("print('a' * 3000 + 'end')"), tmp_path)
    assert (len(said(long)), said(long)[-3:]) == (2000, "end")
    assert said(run(program("raise SystemExit(4)"), tmp_path)) == "exit code 4, without a message"


def test_a_question_has_an_answer_or_none(tmp_path: Path) -> None:
    assert ask(tmp_path, *program("print(' yes ')")) == "yes"
    assert ask(tmp_path, *program("print('no'); raise SystemExit(1)")) is None
    assert ask(tmp_path, "no-such-command") is None


def test_what_people_watch_goes_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert show(program("print('seen'); raise SystemExit(5)"), tmp_path) == 5
    assert capfd.readouterr().out == "seen\n"


def test_what_runs_beside_the_block_ends_with_it(tmp_path: Path) -> None:
    text = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with (tmp_path / "log").open("w+b") as log:
        with started(program(text), tmp_path, log):
            deadline = time.monotonic() + 60
            while not (tmp_path / "log").read_text().endswith("\n"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert not Path("/proc", (tmp_path / "log").read_text().strip()).exists()
