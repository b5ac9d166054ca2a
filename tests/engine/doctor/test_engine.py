"""doctor's check of the engine: as released, or each file named that is not."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import subcommand
from conftest import ENGINE

from gitops_ml.doctor.engine import check_engine

FILES = {"pyproject.toml": "[project]\n", "src/one.py": "ONE = 1\n", "src/two.py": "TWO = 2\n"}
RESTORE = "uvx cruft diff | git apply --include='engine/*'"
MOVE = "move what is extra out of engine/"

Defect = Callable[[Path], object]


def to_link(path: Path) -> None:
    """Put a link to the very same content in the place of a file or a folder."""
    path.symlink_to(path.rename(path.parents[1 if path.suffix else 0].parent / f"real-{path.name}"))


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def engine(project: Path) -> Path:
    """A project's engine/, as released."""
    folder = project / "engine"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    manifest = {"version": "1.2.3", "files": hashes}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (project / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    git(project, "init", "-q")
    git(project, "add", "--all")
    return folder


def test_as_released(engine: Path, project: Path) -> None:
    check = check_engine(project)

    assert (check.name, check.status, check.detail) == ("engine", "ok", "as released (1.2.3)")


def test_what_git_ignores_is_not_the_engine_s(engine: Path, project: Path) -> None:
    (engine / "src" / "__pycache__").mkdir()
    (engine / "src" / "__pycache__" / "one.cpython-311.pyc").write_bytes(b"\0")

    assert check_engine(project).status == "ok"


@pytest.mark.parametrize(
    ("defect", "detail", "remedies"),
    [
        (lambda e: (e / "src/one.py").write_text("ONE = 2\n"), "differs: src/one.py", [RESTORE]),
        (lambda e: (e / "src/two.py").unlink(), "missing: src/two.py", [RESTORE]),
        (lambda e: (e / "src/new.py").touch(), "extra: src/new.py", [MOVE]),
        (lambda e: (e / "src/link").symlink_to("nowhere"), "extra: src/link", [MOVE]),
        (
            lambda e: (e / "src/one.py").write_bytes(b"ONE = 1\r\n"),
            "other line ends: src/one.py",
            [RESTORE],
        ),
        (lambda e: (e / "src/one.py").chmod(0o755), "executable: src/one.py", [RESTORE]),
        (lambda e: to_link(e / "src/one.py"), "a link: src/one.py", [RESTORE]),
        (
            lambda e: to_link(e / "src"),
            "a link: src/one.py, src/two.py",
            [RESTORE],
        ),
    ],
    ids=["differs", "missing", "extra", "dangling-link", "crlf", "mode", "link", "linked-folder"],
)
def test_each_file_that_is_not_as_released_is_named(
    engine: Path, project: Path, defect: Defect, detail: str, remedies: list[str]
) -> None:
    defect(engine)

    check = check_engine(project)

    assert check.status == "warn"
    assert check.detail == f"not as released (1.2.3); {detail}"
    assert [text for text in (RESTORE, MOVE) if text in check.remedy] == remedies


def test_all_of_it_is_said_at_once(engine: Path, project: Path) -> None:
    (engine / "src/one.py").write_text("ONE = 2\n")
    (engine / "pyproject.toml").write_text("")
    (engine / "src/two.py").unlink()
    (engine / "src/new.py").touch()
    git(project, "add", "engine/src/new.py")

    check = check_engine(project)

    assert check.detail == (
        "not as released (1.2.3); differs: pyproject.toml, src/one.py; missing: src/two.py; "
        "extra: src/new.py"
    )
    assert RESTORE in check.remedy
    assert MOVE in check.remedy


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (None, "engine/manifest.json: no such file"),
        ("{", "engine/manifest.json: unreadable"),
        ("[]", "engine/manifest.json: unreadable"),
        ('{"version": "1"}', "engine/manifest.json: unreadable"),
    ],
)
def test_without_its_manifest_nothing_can_be_said(
    engine: Path, project: Path, text: str | None, detail: str
) -> None:
    (engine / "manifest.json").unlink()
    if text is not None:
        (engine / "manifest.json").write_text(text, encoding="utf-8")

    check = check_engine(project)

    assert (check.status, check.remedy) == ("fail", f"`{RESTORE}` puts back what was released")
    assert detail in check.detail


def test_a_dependency_is_named_with_its_version(project: Path) -> None:
    check = check_engine(project)

    installed = importlib.metadata.version("gitops-ml")
    assert check.status == "ok"
    assert check.detail == f"gitops-ml {installed}, installed as a dependency"


def test_neither_folder_nor_dependency(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)

    check = check_engine(project)

    assert (check.status, check.remedy) == ("fail", "`make setup`")


def test_the_command_says_it_as_a_line_and_as_json(
    engine: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (engine / "src/one.py").write_text("ONE = 2\n")

    subcommand("doctor")()
    lines = capsys.readouterr().out.splitlines()
    subcommand("doctor")(["--json"])
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}

    wanted = "not as released (1.2.3); differs: src/one.py"
    at = lines.index(f"{'warn':<8} {'engine':<26} {wanted}")
    assert lines[at + 1].strip().startswith(f"do: `{RESTORE}`")
    assert found["engine"]["status"] == "warn"
    assert found["engine"]["detail"] == wanted


def test_this_repository_s_own_engine_is_as_its_manifest_says() -> None:
    check = check_engine(ENGINE.parent)

    assert (check.status, check.detail.split(" (")[0]) == ("ok", "as released")
