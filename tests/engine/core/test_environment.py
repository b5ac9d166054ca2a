"""Which versions are inputs of the stages, and what happens when others are installed."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from commands import subcommand
from conftest import ENGINE, Run, find_uv

from gitops_ml.core import paths
from gitops_ml.core.environment import (
    PARTS,
    LockedVersionsError,
    check_installed,
    locked_versions,
)

main = subcommand("environment")

INDEX = 'source = { registry = "https://pypi.org/simple" }\n'


def package(name: str, number: str = "1.0", needs: str = "", source: str = INDEX) -> str:
    return f'[[package]]\nname = "{name}"\nversion = "{number}"\n{source}{needs}\n'


def lock(own: str = "", *more: str) -> str:
    """A lock with all that the engine needs, and a project that asks for more."""
    roots = [package(name) for names in PARTS.values() for name in names if name != "scikit-learn"]
    parts = [
        "version = 1\n",
        package("shop", source='source = { editable = "." }\n', needs=own),
        package("gitops-ml", source='source = { editable = "engine" }\n'),
        *roots,
        package("scikit-learn", needs='dependencies = [{ name = "numpy" }]\n'),
        package("numpy", version("numpy")),
        package("ruff"),
    ]
    return "\n".join([*parts, *more])


def test_what_computes_is_named_with_what_it_needs_and_tools_are_not() -> None:
    parts = locked_versions(lock())
    assert parts["model"]["numpy"] == version("numpy")
    assert parts["tables"] == {"polars": "1.0"}
    assert parts["project"] == {}
    assert "ruff" not in json.dumps(parts)
    assert "numpy" not in parts["tables"]


def test_the_project_s_own_libraries_are_named_with_their_extras() -> None:
    own = (
        'dependencies = [{ name = "boost", extra = ["fast"] }, { name = "gitops-ml" }]\n'
        "[package.dev-dependencies]\n"
        'train = [{ name = "tuner" }, { name = "gitops-ml" }]\ndev = [{ name = "ruff" }]\n'
    )
    boost = (
        '[package.optional-dependencies]\nfast = [{ name = "turbo" }]\nslow = [{ name = "ox" }]\n'
    )
    found = locked_versions(
        lock(own, package("boost", needs=boost), package("turbo"), package("ox"), package("tuner"))
    )
    assert found["project"] == {"boost": "1.0", "tuner": "1.0", "turbo": "1.0"}


def test_every_version_for_some_python_or_platform_is_named() -> None:
    both = locked_versions(lock("", package("numpy", "0.9")))
    assert both["model"]["numpy"] == f"0.9, {version('numpy')}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< HEAD", "is no lock file of uv"),
        ("version = 1", "is no lock file of uv"),
        ('package = ["numpy"]', "is no lock file of uv"),
        (lock().replace('"onnx"', '"other"'), "lacks onnx; run `uv lock`"),
    ],
)
def test_what_is_no_lock_of_a_project_is_named(text: str, said: str) -> None:
    with pytest.raises(LockedVersionsError, match=f"^uv.lock: {said}"):
        locked_versions(text)


def test_without_a_lock_the_stage_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 1
    assert capsys.readouterr().err == "uv.lock: no such file; run `uv lock`, then commit it\n"


def test_only_a_version_that_counts_changes_the_file(project: Path) -> None:
    def written(text: str) -> bytes:
        (project / "uv.lock").write_text(text, encoding="utf-8")
        assert main() == 0
        return (project / paths.LOCKED_VERSIONS).read_bytes()

    before = written(lock())
    assert (
        written(lock().replace('name = "ruff"\nversion = "1.0"', 'name = "ruff"\nversion = "2"'))
        == before
    )
    newer = lock().replace(
        'name = "scikit-learn"\nversion = "1.0"', 'name = "scikit-learn"\nversion = "2"'
    )
    assert written(newer) != before


def test_the_first_stage_says_that_github_reads_the_top_of_a_repository_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "late"
    folder.mkdir()
    monkeypatch.chdir(folder)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    main()
    assert "warning: the project is the folder late of a repository" in capsys.readouterr().err
    subprocess.run(["git", "init", "-q", folder], check=True)
    main()
    assert "warning" not in capsys.readouterr().err


def test_other_installed_versions_are_refused_with_what_helps(project: Path) -> None:
    check_installed(project)
    text = "version = 1\n" + "".join(
        package(name, version(name)) for names in PARTS.values() for name in names
    )
    (project / "uv.lock").write_text(text, encoding="utf-8")
    check_installed(project)
    other = text.replace(f'"{version("polars")}"', '"0.1"', 1)
    (project / "uv.lock").write_text(other, encoding="utf-8")
    with pytest.raises(LockedVersionsError) as error:
        check_installed(project)
    assert f"  polars {version('polars')}, locked is 0.1\nrun `uv sync --locked`" in str(
        error.value
    )


def test_what_is_for_other_platforms_need_not_be_installed(project: Path) -> None:
    versions = {name: version(name) for names in PARTS.values() for name in names}
    text = "".join(package(*one) for one in versions.items())
    own = 'dependencies = [{ name = "not-for-this-platform" }]\n'
    shop = package("shop", source='source = { virtual = "." }\n', needs=own)
    (project / "uv.lock").write_text(
        text + shop + package("not-for-this-platform"), encoding="utf-8"
    )
    check_installed(project)


def write_wheel(folder: Path, name: str, number: str) -> None:
    """A package without content."""
    folder.mkdir(exist_ok=True)
    stem = f"{name.replace('-', '_')}-{number}"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_what_is_advised_brings_the_locked_versions_back(tmp_path: Path, run: Run) -> None:
    wheels, project = tmp_path / "wheels", tmp_path / "shop"
    names = [name for part in PARTS.values() for name in part]
    for name in names:
        write_wheel(wheels, name, "2.0")
    write_wheel(wheels, "polars", "1.0")
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        f"dependencies = {json.dumps(names)}\n"
        f'[[tool.uv.index]]\nurl = "{wheels.as_uri()}"\nformat = "flat"\ndefault = true\n',
        encoding="utf-8",
    )
    uv = find_uv()

    def check() -> str:
        program = (
            "from pathlib import Path; from gitops_ml.core.environment import check_installed; "
            "check_installed(Path())"
        )
        source = {"PYTHONPATH": str(ENGINE / "src")}
        done = run([project / ".venv" / "bin" / "python", "-c", program], project, env=source)
        return done.stderr

    run([uv, "sync", "--quiet"], project, check=True)
    assert check() == ""
    older = [uv, "pip", "install", "--quiet", "--no-index", "--find-links", wheels, "polars==1.0"]
    run(older, project, check=True)

    said = check()

    assert "other environment" in said
    assert "  polars 1.0, locked is 2.0\n" in said
    advice = re.search(r"run `uv (.*?)`", said)
    assert advice is not None
    run([uv, *advice[1].split()], project, check=True)
    assert check() == ""
