from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.features.declarations import DeclarationError, check_declarations

FINE = '''
import time
import numpy as np
from gitops_ml.features import derived

TABLE = {"now": 1}


@derived(type="number")
def twice(count):
    """Not now: today() is only named here."""
    return count * 2 + TABLE.get("now") * np.datetime64("2013-01-01").astype(int)


@derived(type="number")
def time_of(at):
    return at.time() * time.strptime("12", "%H").tm_hour
'''


def check(tmp_path: Path, text: str) -> None:
    file = tmp_path / "src" / "shop" / "features.py"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    check_declarations(file)


@pytest.mark.parametrize("text", [FINE, "", "def f(:\n", "x = 1\0"])
def test_what_can_be_found_and_kept_passes(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


def test_a_project_needs_no_such_file(tmp_path: Path) -> None:
    check_declarations(tmp_path / "features.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@derived\ndef a(x): ...\n", r"1: derived column `a`: name each argument of the mark"),
        ("@derived('number')\ndef a(x): ...\n", r'1: .* as in @derived\(type="number"\)'),
        (
            "class A:\n    @derived(type='number')\n    def a(self, x): ...\n",
            r"2: derived column `a`: must be a function of the module",
        ),
        (
            "def f():\n    @features.derived(type='number')\n    def a(x): ...\n",
            "2: .* inside of a class or function",
        ),
        ("@cache\n@derived(type='number')\ndef a(x): ...\n", "2: .* must be the topmost decorator"),
        (
            "@derived(type='number')\ndef a(x): ...\n@derived(type='number')\ndef a(y): ...\n",
            "3: derived column `a`: is defined in line 2 too; rename one of them",
        ),
    ],
)
def test_what_nobody_would_find_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DeclarationError, match=r"shop/features\.py:" + message):
        check(tmp_path, text)


@pytest.mark.parametrize(
    ("code", "where"),
    [
        ("datetime.now(UTC)", "2: `age`: `datetime.now(UTC)`"),
        ("datetime.datetime.today()", "`datetime.datetime.today()`"),
        ("np.datetime64('today')", "`np.datetime64('today')`"),
        ("time.time()", "`time.time()`"),
        ("time.monotonic()", "`time.monotonic()`"),
    ],
)
def test_a_clock_is_refused(tmp_path: Path, code: str, where: str) -> None:
    with pytest.raises(DeclarationError) as error:
        check(tmp_path, f"def age(at):\n    return {code} - at\n")

    assert where in str(error.value)
    assert "another value tomorrow than the model learnt from" in str(error.value)


def test_a_clock_that_is_read_on_import_is_one_too(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"features\.py:1: `np.datetime64\('now'\)` asks"):
        check(tmp_path, "NOW = np.datetime64('now')\n")
