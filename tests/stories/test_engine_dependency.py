"""The engine as a dependency, by the steps of its README, without its folder."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ENGINE, Bake, Run, find_uv

pytestmark = pytest.mark.slow

SECTION = "## As a dependency instead of a folder\n"
URL = "https://packages.example.com/simple"
BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)


@pytest.fixture
def index(tmp_path: Path, run: Run) -> Iterator[str]:
    """A package index on this machine that holds the engine's wheel; its address."""
    source = tmp_path / "source"
    shutil.copytree(ENGINE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    wheels = tmp_path / "index" / "simple" / "gitops-ml"
    run([find_uv(), "build", "--quiet", "--wheel", source, "--out-dir", wheels], tmp_path,
        check=True)  # fmt: skip
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


def instructions() -> tuple[str, str, list[str]]:
    """The README's entry for an index, its line for the engine's source, and its commands."""
    text = (ENGINE / "README.md").read_text(encoding="utf-8").split(SECTION)[1]
    entry, sources, commands, _ = (
        re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in BLOCK.findall(text)
    )
    return entry, sources.splitlines()[0], commands.splitlines()


def test_a_project_without_the_folder_locks_trains_and_is_judged(
    index: str, pipelined: Bake, run: Run
) -> None:
    project = pipelined()
    entry, source, commands = instructions()
    assert URL in entry
    settings = project / "pyproject.toml"
    text = settings.read_text(encoding="utf-8")
    line = "gitops-ml = { workspace = true }"
    assert text.count(line) == 1
    settings.write_text(
        text.replace(line, source) + "\n" + entry.replace(URL, index), encoding="utf-8"
    )

    for command in commands:
        run(["bash", "-c", command], project, check=True)
    run(["git", "add", "--all"], project, check=True)
    run(["git", "commit", "-qm", "Take the engine from the index"], project, check=True)

    assert not (project / "engine").exists()
    assert "engine/" not in (project / "dvc.yaml").read_text(encoding="utf-8")
    lock = (project / "uv.lock").read_text(encoding="utf-8")
    assert (
        f'name = "gitops-ml"\nversion = "{version()}"\nsource = {{ registry = "{index}" }}' in lock
    )
    shown = run(["uv", "run", "gitops-ml", "--help"], project, check=True)
    assert "usage: gitops-ml COMMAND" in shown.stdout
    told = run(["uv", "run", "gitops-ml", "doctor", "--json"], project).stdout
    checks = {check["name"]: check for check in json.loads(told)}
    assert checks["engine"]["detail"] == f"gitops-ml {version()}, installed as a dependency"
    assert checks["stages"]["status"] == "ok"

    # A change of parameters is held against a champion whose commit has no folder either.
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("learning_rate: 0.08", "learning_rate: 0.09"), encoding="utf-8")
    run(["make", "pipeline"], project, check=True)
    judged = run(["make", "gate", "BASE=main"], project)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "Champion: " in judged.stdout
    assert (project / "reports" / "gate.json").is_file()


def test_a_tag_of_a_git_repository_is_a_source_as_well(tmp_path: Path, run: Run) -> None:
    """The README's line, with a repository on this machine; `uv lock` follows a newer tag."""
    repository = tmp_path / "template"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    shutil.copytree(ENGINE, repository / "engine", ignore=ignored)
    run(["git", "init", "-q"], repository, check=True)

    def release(number: str) -> None:
        settings = repository / "engine" / "pyproject.toml"
        text = re.sub(r'(?m)^version = ".*"', f'version = "{number}"', settings.read_text("utf-8"))
        settings.write_text(text, encoding="utf-8")
        run(["git", "add", "--all"], repository, check=True)
        run(["git", "commit", "-qm", number], repository, check=True)
        run(["git", "tag", number], repository, check=True)

    release(version())
    release("99.0.0")
    project = tmp_path / "project"
    project.mkdir()
    line = git_line().replace("https://github.com/OWNER/TEMPLATE", repository.as_uri())
    settings = project / "pyproject.toml"
    settings.write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        f'dependencies = ["gitops-ml[comment]"]\n[tool.uv.sources]\n{line}\n',
        encoding="utf-8",
    )
    uv = find_uv()

    def doctor_says() -> str:
        run([uv, "sync", "--quiet"], project, check=True)
        program = (
            "from pathlib import Path; from gitops_ml.doctor.engine import check_engine; "
            "print(check_engine(Path()).detail)"
        )
        return run([uv, "run", "python", "-c", program], project, check=True).stdout

    assert doctor_says() == f"gitops-ml {version()}, installed as a dependency\n"
    lock = (project / "uv.lock").read_text(encoding="utf-8")
    assert f"{repository.as_uri()}?subdirectory=engine&tag={version()}#" in lock
    assert "usage: gitops-ml" in run([uv, "run", "gitops-ml", "--help"], project, check=True).stdout
    settings.write_text(settings.read_text("utf-8").replace(version(), "99.0.0"), encoding="utf-8")
    assert doctor_says() == "gitops-ml 99.0.0, installed as a dependency\n"


def git_line() -> str:
    """The README's line for the engine's source in git."""
    text = (ENGINE / "README.md").read_text(encoding="utf-8").split(SECTION)[1]
    (line,) = re.findall(r"(?m)^    (gitops-ml = \{ git = .*\})$", text)
    return str(line)


def version() -> str:
    manifest = json.loads((ENGINE / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["version"])
