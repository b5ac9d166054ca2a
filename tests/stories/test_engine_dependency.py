"""The engine as a dependency from an index, by the steps of its README, without its folder."""

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


def version() -> str:
    manifest = json.loads((ENGINE / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["version"])
