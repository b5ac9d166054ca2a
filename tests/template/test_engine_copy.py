"""Every project holds the released engine, whatever the template's working tree holds."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ENGINE, OPTIONS, SLUG, TEMPLATE, Bake, Run

PROJECT = "<<cookiecutter.project_slug>>"
OTHER_OPTIONS = [
    {"task": "regression", "deploy_target": "host", "license": "proprietary"},
    {"deploy_target": "bentocloud", "python_version": "3.13", "project_name": "Ox"},
    {"deploy_target": "none", "project_slug": "gitops", "description": "Of <ours> & {{ yours }}."},
]
# What tools and people leave below engine/; the last is not ignored by any git.
LEFTOVERS = (
    "__pycache__/conftest.cpython-311.pyc",
    "src/gitops_ml/__pycache__/cli.cpython-311.pyc",
    "src/gitops_ml/gate/__pycache__/gate.cpython-311.pyc",
    ".venv/bin/activate",
    ".venv/lib/python3.11/site-packages/other/__init__.py",
    "dist/gitops_ml-0.2.0-py3-none-any.whl",
    "build/lib/gitops_ml/cli.py",
    "src/gitops_ml.egg-info/PKG-INFO",
    ".mypy_cache/3.11/gitops_ml.data.json",
    ".pytest_cache/CACHEDIR.TAG",
    ".ruff_cache/.gitignore",
    ".coverage",
    "src/gitops_ml/scratch.py",
)

Breakage = Callable[[Path], object]


def load_manifest_tool() -> ModuleType:
    """Import tools/engine_manifest.py from its file."""
    path = TEMPLATE / "tools" / "engine_manifest.py"
    spec = importlib.util.spec_from_file_location("engine_manifest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_manifest_tool()


def tree(folder: Path) -> dict[str, tuple[bool, bytes]]:
    """Each file below a folder: whether it is executable, and its bytes; links are none."""
    assert not folder.is_symlink()
    found = {}
    for path in folder.rglob("*"):
        assert not path.is_symlink(), path
        if path.is_file():
            executable = bool(path.stat().st_mode & stat.S_IXUSR)
            found[path.relative_to(folder).as_posix()] = (executable, path.read_bytes())
        else:
            assert any(path.iterdir()), f"{path} is empty"
    return found


def cookiecutter_command(template: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "--output-dir",
            str(out), *options]  # fmt: skip


@pytest.fixture
def own_template(template: Path, tmp_path: Path) -> Path:
    """A copy of the template that a test may break."""
    copy = tmp_path / "template"
    shutil.copytree(template, copy, symlinks=True)
    return copy


@pytest.fixture
def littered(own_template: Path) -> Path:
    """The template after its maintainer built, tested and tried things below engine/."""
    engine = own_template / "engine"
    for name in LEFTOVERS:
        (engine / name).parent.mkdir(parents=True, exist_ok=True)
        (engine / name).write_text("left over", encoding="utf-8")
    (engine / "build" / "latest").symlink_to("lib", target_is_directory=True)
    (engine / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (engine / "empty" / "folder").mkdir(parents=True)
    return own_template


# The same bytes in every project


@pytest.mark.parametrize("options", OTHER_OPTIONS, ids=lambda options: options["deploy_target"])
def test_any_two_bakes_have_the_same_engine(generated: Bake, options: dict[str, str]) -> None:
    engine = tree(generated() / "engine")

    assert tree(generated(**options) / "engine") == engine
    assert {name: content for name, (_, content) in engine.items()} == {
        name: (ENGINE / name).read_bytes() for name in [*tool.files_of(ENGINE), tool.MANIFEST]
    }


def test_what_lies_around_in_the_template_does_not_come_along(
    littered: Path, generated: Bake, tmp_path: Path, run: Run, env_without_uv: Mapping[str, str]
) -> None:
    before = tree_with_links(littered / "engine")

    run(cookiecutter_command(littered, tmp_path), tmp_path, env=env_without_uv, check=True)

    assert tree(tmp_path / SLUG / "engine") == tree(generated() / "engine")
    assert run(["git", "status", "--porcelain"], tmp_path / SLUG, check=True).stdout == ""
    # What links point at, and the template itself, are left alone.
    assert Path(sys.executable).exists()
    assert tree_with_links(littered / "engine") == before


@pytest.mark.parametrize(
    ("name", "target", "relative"),
    [("loop", ".", True), ("src/up", "../src", False), ("lock", "nowhere", True),
     ("pipe", None, False)],
)  # fmt: skip
def test_what_cannot_be_copied_is_named_before_anything_is(
    own_template: Path,
    tmp_path: Path,
    run: Run,
    env_without_uv: Mapping[str, str],
    name: str,
    target: str | None,
    relative: bool,
) -> None:
    left = own_template / "engine" / name
    if target is None:
        os.mkfifo(left)
    else:
        left.symlink_to(target)
    out = tmp_path / "out"
    template = own_template.relative_to(tmp_path) if relative else own_template
    env = {**env_without_uv, "PWD": str(tmp_path)}

    done = run(cookiecutter_command(template, out), tmp_path, env=env)

    assert done.returncode != 0
    assert f"the template's engine/{name} cannot be copied" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(out.iterdir())
    left.unlink()
    if target == "nowhere":  # and with it gone:
        run(cookiecutter_command(template, out), tmp_path, env=env, check=True)


def tree_with_links(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_executable_bits_are_kept_and_none_is_added(
    own_template: Path, tmp_path: Path, run: Run, env_without_uv: Mapping[str, str]
) -> None:
    script = own_template / "engine" / "src" / "gitops_ml" / "__main__.py"
    script.chmod(0o755)

    run(cookiecutter_command(own_template, tmp_path), tmp_path, env=env_without_uv, check=True)

    engine = tree(tmp_path / SLUG / "engine")
    assert [name for name, (executable, _) in engine.items() if executable] == [
        "src/gitops_ml/__main__.py"
    ]
    recorded = run(["git", "ls-files", "-s", "engine"], tmp_path / SLUG, check=True).stdout
    modes = {line.split("\t")[1]: line.split()[0] for line in recorded.splitlines()}
    assert modes.pop("engine/src/gitops_ml/__main__.py") == "100755"
    assert set(modes.values()) == {"100644"}


def test_cruft_makes_the_same_engine(
    template_repository: Path,
    generated: Bake,
    tmp_path: Path,
    run: Run,
    env_without_uv: Mapping[str, str],
) -> None:
    command = [sys.executable, "-m", "cruft", "create", template_repository.as_uri(), "--no-input",
               "--output-dir", str(tmp_path)]  # fmt: skip

    run(command, tmp_path, env=env_without_uv, check=True)

    assert tree(tmp_path / SLUG / "engine") == tree(generated() / "engine")


# A template whose symbolic links, or files, were lost


def as_text(template: Path) -> None:
    """As unzipping, or a checkout without core.symlinks, leaves it."""
    link = template / PROJECT / "engine"
    link.unlink()
    link.write_text("../engine", encoding="utf-8")


def no_link(template: Path) -> None:
    (template / PROJECT / "engine").unlink()


def no_manifest(template: Path) -> None:
    (template / "engine" / "manifest.json").unlink()


def no_room(template: Path) -> None:
    shutil.rmtree(template / "engine" / "src" / "gitops_ml" / "features")


LOST = "the template's symbolic links were lost"
LACKS = "engine/ lacks src/gitops_ml/features/__init__.py, src/gitops_ml/features/"


@pytest.mark.parametrize(
    ("breakage", "said"),
    [(as_text, LOST), (no_link, LOST), (no_manifest, LOST), (no_room, LACKS)],
)
def test_a_template_without_its_engine_is_refused_and_nothing_is_left(
    own_template: Path,
    tmp_path: Path,
    run: Run,
    env_without_uv: Mapping[str, str],
    breakage: Breakage,
    said: str,
) -> None:
    breakage(own_template)
    out = tmp_path / "out"

    done = run(cookiecutter_command(own_template, out), tmp_path, env=env_without_uv)

    assert done.returncode != 0
    assert said in done.stderr
    assert "`git clone`" in done.stderr
    assert not list(out.iterdir())


def test_over_an_older_project_a_refusal_keeps_what_was_there(
    own_template: Path, tmp_path: Path, run: Run, env_without_uv: Mapping[str, str]
) -> None:
    command = cookiecutter_command(own_template, tmp_path)
    run(command, tmp_path, env=env_without_uv, check=True)
    project = tmp_path / SLUG
    (project / "mine.txt").write_text("mine", encoding="utf-8")
    as_text(own_template)

    done = run([*command, "--overwrite-if-exists"], tmp_path, env=env_without_uv)

    assert done.returncode != 0
    assert (project / "mine.txt").read_text(encoding="utf-8") == "mine"
    assert run(["git", "log", "--format=%s"], project).stdout == "Start the project\n"


def test_over_an_older_project_the_engine_is_replaced_and_nothing_else_of_the_owner_s(
    own_template: Path,
    generated: Bake,
    tmp_path: Path,
    run: Run,
    env_without_uv: Mapping[str, str],
) -> None:
    command = cookiecutter_command(own_template, tmp_path)
    run(command, tmp_path, env=env_without_uv, check=True)
    project = tmp_path / SLUG
    (project / "engine" / "src" / "gitops_ml" / "cli.py").write_text("changed\n", encoding="utf-8")
    (project / "src" / SLUG / "mine.py").write_text("MINE = 1\n", encoding="utf-8")

    run([*command, "--overwrite-if-exists"], tmp_path, env=env_without_uv, check=True)

    assert tree(project / "engine") == tree(generated() / "engine")
    assert (project / "src" / SLUG / "mine.py").read_text(encoding="utf-8") == "MINE = 1\n"


# The manifest


@pytest.fixture
def own_engine(tmp_path: Path) -> Path:
    """A small engine in a git repository of its own, with its manifest."""
    engine = tmp_path / "template" / "engine"
    files = {
        "pyproject.toml": '[project]\nname = "gitops-ml"\nversion = "1.2.3"\n',
        "src/one.py": "ONE = 1\n",
        ".gitignore": "__pycache__/\n",
    }
    for name, text in files.items():
        (engine / name).parent.mkdir(parents=True, exist_ok=True)
        (engine / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=engine.parent, check=True)
    assert tool.main([], engine) == 0
    return engine


def test_this_engine_s_manifest_is_current() -> None:
    assert tool.main(["--check"]) == 0
    described = json.loads((ENGINE / tool.MANIFEST).read_text(encoding="utf-8"))
    assert {"pyproject.toml", "README.md", "src/gitops_ml/cli.py"} < set(described["files"])


def test_a_manifest_that_was_just_written_is_current(own_engine: Path) -> None:
    assert tool.main(["--check"], own_engine) == 0
    described = json.loads((own_engine / tool.MANIFEST).read_text(encoding="utf-8"))
    assert described["version"] == "1.2.3"
    assert set(described["files"]) == {".gitignore", "pyproject.toml", "src/one.py"}


@pytest.mark.parametrize(
    "defect",
    [
        lambda e: (e / "src" / "one.py").write_text("ONE = 2\n"),
        lambda e: (e / "src" / "one.py").unlink(),
        lambda e: (e / "src" / "two.py").touch(),
        lambda e: (e / "src" / "one.py").rename(e / "src" / "uno.py"),
        lambda e: (e / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n'),
        lambda e: (e / tool.MANIFEST).unlink(),
        lambda e: (e / tool.MANIFEST).write_text("{}"),
    ],
    ids=["changed", "removed", "added", "renamed", "version", "no-manifest", "empty-manifest"],
)
def test_a_manifest_that_is_not_current_is_told_of(
    own_engine: Path, capsys: pytest.CaptureFixture[str], defect: Breakage
) -> None:
    defect(own_engine)

    assert tool.main(["--check"], own_engine) == 1
    assert "engine/manifest.json is not current: run `make format`" in capsys.readouterr().err
    assert tool.main([], own_engine) == 0
    assert tool.main(["--check"], own_engine) == 0


def test_what_git_ignores_does_not_belong_to_the_engine(own_engine: Path) -> None:
    (own_engine / "src" / "__pycache__").mkdir()
    (own_engine / "src" / "__pycache__" / "one.pyc").touch()

    assert tool.main(["--check"], own_engine) == 0


def test_the_options_of_the_comparison_exist() -> None:
    named = set(itertools.chain.from_iterable(OTHER_OPTIONS))

    assert named <= set(OPTIONS)
    assert {options["deploy_target"] for options in OTHER_OPTIONS} | {"kubernetes"} == set(
        OPTIONS["deploy_target"]
    )
