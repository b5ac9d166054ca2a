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
    shown = time.strftime("%H", time.gmtime(0))
    return at.time() * time.strptime("12", "%H").tm_hour + int(shown)
'''


def check(tmp_path: Path, text: str) -> None:
    file = tmp_path / "src" / "shop" / "features.py"
    file.parent.mkdir(parents=True, exist_ok=True)
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
        ("datetime.now(UTC)", "`datetime.now(UTC)`"),
        ("datetime.datetime.today()", "`datetime.datetime.today()`"),
        ("np.datetime64('today')", "`np.datetime64('today')`"),
        ("time.time()", "`time.time()`"),
        ("time.monotonic()", "`time.monotonic()`"),
        ("time.localtime().tm_year", "`time.localtime()`"),
        ("int(time.strftime('%Y'))", "`time.strftime('%Y')`"),
        ("t.time_ns()", "`t.time_ns()`"),
        ("seconds()", "`seconds()`"),
    ],
)
def test_a_clock_is_refused(tmp_path: Path, code: str, where: str) -> None:
    imports = "import time\nimport time as t\nfrom time import time as seconds\n"
    with pytest.raises(DeclarationError) as error:
        check(tmp_path, f"{imports}def age(at):\n    return {code} - at\n")

    assert f"features.py:5: `age`: {where}" in str(error.value)
    assert "another value tomorrow than the model learnt from" in str(error.value)


def test_a_clock_that_is_read_on_import_is_one_too(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"features\.py:1: `np.datetime64\('now'\)` asks"):
        check(tmp_path, "NOW = np.datetime64('now')\n")


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("dates.py", "from shop.dates import age"),
        ("dates.py", "from shop import dates"),
        ("dates.py", "from . import dates"),
        ("dates.py", "import shop.dates as dates"),
        ("calendars/dates.py", "from .calendars.dates import age"),
        ("calendars/__init__.py", "from shop.calendars import age"),
    ],
)
def test_a_clock_in_a_module_that_features_imports_is_one_too(
    tmp_path: Path, file: str, imported: str
) -> None:
    place = tmp_path / "src" / "shop" / file
    place.parent.mkdir(parents=True)
    place.write_text("from datetime import date\n\ndef age(at):\n    return date.today() - at\n")

    with pytest.raises(DeclarationError, match=rf"{file}:4: `age`: `date\.today\(\)` asks"):
        check(tmp_path, f"{imported}\n")


def test_modules_are_followed_from_one_to_the_other_and_no_further(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "shop" / "parts"
    folder.mkdir(parents=True)
    (folder / "first.py").write_text("from ..second import SHIFT\nfrom . import first\n")
    (folder.parent / "second.py").write_text("import time\n\nSHIFT = time.time()\n")
    (folder.parent / "model.py").write_text("import time\n\nSTARTED = time.time()\n")

    with pytest.raises(DeclarationError) as error:
        check(tmp_path, "from .parts import first\n")

    assert "second.py:3: `time.time()` asks" in str(error.value)
    assert "model.py" not in str(error.value)
