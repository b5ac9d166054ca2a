"""`.github/judge.sh`: the engine of the base runs, and nothing of the change gets into it.

The engine is played by a few lines that say what runs; git, uv, the lock and the environments are
real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT_TEMPLATE, Run, find_uv

SCRIPT = PROJECT_TEMPLATE / ".github" / "judge.sh"
ENGINE = """
import json, os, pathlib, sys
print(json.dumps({
    "engine": "%s", "arguments": sys.argv[1:], "folder": os.getcwd(), "json": json.__file__,
    "paths": sys.path, "file": __file__, "prefix": sys.prefix,
}))
sys.exit(int(os.environ.get("VERDICT", "0")))
"""
FILES = {
    "pyproject.toml": """
[project]
name = "late"
version = "0.1.0"
requires-python = ">=3.11"
[dependency-groups]
train = ["gitops-ml"]
dev = [{ include-group = "train" }]
[tool.uv.workspace]
members = ["engine"]
[tool.uv.sources]
gitops-ml = { workspace = true }
""",
    "engine/pyproject.toml": """
[project]
name = "gitops-ml"
version = "0.2.0"
requires-python = ">=3.11"
[project.scripts]
gitops-ml = "gitops_ml.__main__:main"
[build-system]
requires = ["uv_build>=0.9,<0.15"]
build-backend = "uv_build"
[tool.uv.build-backend]
module-name = "gitops_ml"
""",
    "engine/src/gitops_ml/__init__.py": "",
    "engine/src/gitops_ml/__main__.py": ENGINE % "base",
    ".gitignore": ".venv/\n",
}
MARK = "import os, pathlib; pathlib.Path(os.environ['MARKS'], {name!r}).touch()\n"
MARKS_SHELL = '#!/bin/sh\ntouch "$MARKS/{name}"\nexit 1\n'


def planted(name: str) -> str:
    return MARK.format(name=name)


# What a change brings along, and would run or steer the judge where it was met.
PLANTS: Mapping[str, Mapping[str, str]] = {
    "lines in the engine": {
        "engine/src/gitops_ml/__init__.py": planted("engine"),
        "engine/src/gitops_ml/__main__.py": ENGINE % "change",
    },
    "sitecustomize": {"sitecustomize.py": planted("site"), "src/sitecustomize.py": planted("src")},
    "usercustomize": {"usercustomize.py": planted("user"), "conftest.py": planted("conftest")},
    "a module like one of Python's": {"json.py": planted("json"), "src/json.py": planted("json")},
    "a module like the engine": {"gitops_ml/__init__.py": planted("root"),
                                 "src/gitops_ml/__init__.py": planted("src")},
    "settings of uv": {"uv.toml": 'index-url = "http://127.0.0.1:9/simple"\noffline = true\n'},
    "another Python": {".python-version": "3.99\n"},
    "a project that is none": {"pyproject.toml": "[[[\n", "uv.lock": "[[[\n"},
    "another command": {
        "pyproject.toml": FILES["pyproject.toml"] + '[project.scripts]\ngitops-ml = "late:main"\n',
        "src/late.py": planted("script") + "def main(): pass\n",
    },
    "another environment": {
        ".venv/bin/python": MARKS_SHELL.format(name="python"),
        ".venv/bin/gitops-ml": MARKS_SHELL.format(name="command"),
        ".venv/pyvenv.cfg": "home = /nowhere\n",
        ".venv/lib/python3.11/site-packages/planted.pth": planted("pth"),
    },
    "variables in a file": {".env": "UV_PROJECT=.\nPYTHONPATH=src\n"},
}  # fmt: skip
# Where a laptop's shell may point, after an environment was activated or a path was exported.
SURROUNDINGS = {
    "PYTHONPATH": "src:.:engine/src",
    "PYTHONSTARTUP": "sitecustomize.py",
    "VIRTUAL_ENV": ".venv",
    "UV_PROJECT": ".",
    "UV_PROJECT_ENVIRONMENT": ".venv",
    "UV_NO_SYNC": "1",
    "UV_PYTHON": ".venv/bin/python",
}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if "/bin/" in name:
            path.chmod(0o755)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A repository whose HEAD holds the base; not to be changed."""
    project = tmp_path_factory.mktemp("base") / "project"
    write(project, FILES)
    (project / ".github").mkdir()
    shutil.copy2(SCRIPT, project / ".github")
    run([find_uv(), "lock", "--quiet"], project, check=True)
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "Start"]):
        run(["git", *command], project, check=True)
    return project


@pytest.fixture
def change(base: Path, tmp_path: Path, run: Run) -> Callable[[Mapping[str, str]], Path]:
    """Commit a change of some files on top of the base, in a repository of its own."""

    def commit(files: Mapping[str, str]) -> Path:
        project = tmp_path / "project"
        shutil.copytree(base, project)
        write(project, files)
        run(["git", "add", "--all", "--force"], project, check=True)
        run(["git", "commit", "-qm", "Change", "--allow-empty"], project, check=True)
        return project

    return commit


@pytest.fixture
def judge(
    clean_env: Mapping[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script in a project, as `make gate` does."""
    (tmp_path / "marks").mkdir()
    (tmp_path / "scratch").mkdir()

    def run_script(
        project: Path, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        env = {
            **clean_env,
            "MARKS": str(tmp_path / "marks"),
            "TMPDIR": str(tmp_path / "scratch"),
            "JUDGE": "HEAD~1",
            **variables,
        }
        return subprocess.run(
            ["sh", ".github/judge.sh", *(arguments or ("gate", "--base", "HEAD~1"))],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run_script


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def worktrees(project: Path) -> int:
    listing = subprocess.run(
        ["git", "worktree", "list"], cwd=project, capture_output=True, text=True, check=True
    )
    return len(listing.stdout.splitlines())


@pytest.mark.parametrize("plant", PLANTS)
def test_nothing_that_a_change_plants_gets_into_the_judge(
    change: Callable[[Mapping[str, str]], Path],
    judge: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    plant: str,
) -> None:
    project = change(PLANTS[plant])
    answer = said(judge(project, **SURROUNDINGS))
    assert answer["engine"] == "base"
    assert answer["folder"] == str(project)
    assert answer["arguments"][:4] == ["gate", "--base", "HEAD~1", "--judge"]
    assert not [path for path in answer["paths"] if Path(path).is_relative_to(project)]
    assert not Path(answer["prefix"]).is_relative_to(project)
    assert [path.name for path in (tmp_path / "marks").iterdir()] == []
    # Nothing is left behind.
    assert worktrees(project) == 1
    assert list((tmp_path / "scratch").glob("judge-*")) == []


def test_without_a_judge_the_change_s_own_engine_runs(
    change: Callable[[Mapping[str, str]], Path],
    judge: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """What is planted does run where nothing keeps it out: the tests above could be red."""
    answer = said(judge(change(PLANTS["lines in the engine"]), "summary", JUDGE=""))
    assert (answer["engine"], answer["arguments"]) == ("change", ["summary"])
    assert [path.name for path in (tmp_path / "marks").iterdir()] == ["engine"]


def test_the_hooks_of_the_repository_do_not_run(
    change: Callable[[Mapping[str, str]], Path],
    judge: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    project = change({})
    hook = project / ".git" / "hooks" / "post-checkout"
    hook.write_text(MARKS_SHELL.format(name="hook"), encoding="utf-8")
    hook.chmod(0o755)
    assert said(judge(project))["engine"] == "base"
    assert list((tmp_path / "marks").iterdir()) == []


def test_the_verdict_is_the_exit_code_and_other_commands_get_no_judge_of_their_own(
    change: Callable[[Mapping[str, str]], Path],
    judge: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    project = change({})
    done = judge(project, "verify-bento", "build/late.bento", VERDICT="1")
    assert done.returncode == 1
    assert json.loads(done.stdout)["arguments"] == ["verify-bento", "build/late.bento"]
    assert worktrees(project) == 1


def test_a_project_in_a_folder_of_its_repository_is_found_in_the_base(
    base: Path, judge: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, run: Run
) -> None:
    repository = tmp_path / "repository"
    project = repository / "models" / "late"
    shutil.copytree(base, project, ignore=shutil.ignore_patterns(".git"))
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "Start"]):
        run(["git", *command], repository, check=True)
    answer = said(judge(project, JUDGE="HEAD"))
    assert Path(answer["arguments"][4]).parts[-3:] == ("base", "models", "late")


@pytest.mark.parametrize(
    ("revision", "why"),
    [("0" * 40, f"git knows no commit {'0' * 40}"), ("HEAD~1", "HEAD~1 locks no gitops-ml")],
    ids=["no such commit", "no engine at the base"],
)
def test_where_the_base_has_no_engine_the_change_s_own_one_must_ask(
    base: Path,
    judge: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    run: Run,
    revision: str,
    why: str,
) -> None:
    project = tmp_path / "project"
    shutil.copytree(base, project)
    run(["git", "rm", "-q", "--cached", "uv.lock"], project, check=True)
    run(["git", "commit", "-qm", "An old project"], project, check=True)
    run(["git", "add", "--all"], project, check=True)
    run(["git", "commit", "-qm", "Update the engine"], project, check=True)
    answer = said(judge(project, JUDGE=revision))
    assert answer["arguments"] == ["gate", "--base", "HEAD~1", "--own-engine", why]
    assert said(judge(project, "summary", JUDGE=revision))["arguments"] == ["summary"]


@pytest.mark.parametrize("broken", ["marks", "not locked"])
def test_where_the_base_s_environment_cannot_be_made_the_change_s_own_engine_must_ask(
    base: Path,
    judge: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    run: Run,
    broken: str,
) -> None:
    """It is not judged by what happens to fit, and the change that mends it is not kept out."""
    project = tmp_path / "project"
    shutil.copytree(base, project)
    name = "uv.lock" if broken == "marks" else "pyproject.toml"
    text = (project / name).read_text(encoding="utf-8")
    spoilt = {
        "marks": f"<<<<<<< HEAD\n{text}",
        "not locked": text.replace('train = ["gitops-ml"]', 'train = ["gitops-ml", "polars"]'),
    }[broken]
    (project / name).write_text(spoilt, encoding="utf-8")
    run(["git", "commit", "-qam", "Spoil it"], project, check=True)
    (project / name).write_text(text, encoding="utf-8")
    run(["git", "commit", "-qam", "Mend it"], project, check=True)
    why = "the environment of the base, HEAD~1, cannot be made"
    answer = said(judge(project))
    assert answer["arguments"] == ["gate", "--base", "HEAD~1", "--own-engine", why]
    assert worktrees(project) == 1
    refused = judge(project, "verify-bento", "build/late.bento")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"verify-bento was not run: {why}" in refused.stderr
    write(project, {"reports/gate.json": '{\n  "consent": {"own_engine": true}}'})
    assert said(judge(project, "summary"))["arguments"] == ["summary"]
    assert list((tmp_path / "scratch").glob("judge-*")) == []


# `verify-sources`: before anything is installed.

BARE = """
import json, os, pathlib, sys
def main():
    print(json.dumps({"engine": "%s", "arguments": sys.argv[1:], "paths": sys.path}))
    return int(os.environ.get("VERDICT", "0"))
"""
LOCK_SOURCES = "engine/src/gitops_ml/core/lock_sources.py"


@pytest.fixture(scope="module")
def verifying(base: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """As `base`, with an engine that knows where packages may come from; not to be changed."""
    project = tmp_path_factory.mktemp("verifying") / "project"
    shutil.copytree(base, project)
    write(project, {"engine/src/gitops_ml/cli.py": BARE % "base", LOCK_SOURCES: ""})
    run(["git", "add", "--all"], project, check=True)
    run(["git", "commit", "-qm", "Verify"], project, check=True)
    return project


@pytest.fixture
def verify(
    judge: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `verify-sources` where any call of uv leaves a mark and fails."""
    tools = tmp_path / "tools"
    write(tmp_path, {"tools/bin/uv": MARKS_SHELL.format(name="uv")})

    def run_script(
        project: Path, env: Mapping[str, str], **variables: str
    ) -> subprocess.CompletedProcess[str]:
        path = f"{tools / 'bin'}:{env['PATH']}"
        return judge(project, "verify-sources", **{"PATH": path, **variables})

    return run_script


@pytest.mark.parametrize("plant", PLANTS)
def test_the_base_verifies_a_lock_before_anything_is_installed(
    verifying: Path,
    verify: Callable[..., subprocess.CompletedProcess[str]],
    clean_env: Mapping[str, str],
    tmp_path: Path,
    run: Run,
    plant: str,
) -> None:
    project = tmp_path / "project"
    shutil.copytree(verifying, project)
    write(project, {**PLANTS[plant], "tomllib.py": planted("tomllib")})
    write(project, {"engine/src/gitops_ml/cli.py": BARE % "change"})
    run(["git", "add", "--all", "--force"], project, check=True)
    run(["git", "commit", "-qm", "Change"], project, check=True)
    answer = said(verify(project, clean_env, **SURROUNDINGS))
    assert answer["engine"] == "base"
    assert answer["arguments"][:2] == ["verify-sources", "--judge"]
    assert Path(answer["arguments"][2]).name == "base"
    assert not [path for path in answer["paths"] if Path(path).is_relative_to(project)]
    assert list((tmp_path / "marks").iterdir()) == []
    assert worktrees(project) == 1


def test_a_refusal_of_the_lock_is_the_exit_code(
    verifying: Path,
    verify: Callable[..., subprocess.CompletedProcess[str]],
    clean_env: Mapping[str, str],
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    shutil.copytree(verifying, project)
    for revision in ("HEAD", ""):
        assert verify(project, clean_env, JUDGE=revision, VERDICT="1").returncode == 1
    assert list((tmp_path / "marks").iterdir()) == []


def test_without_an_engine_of_the_base_the_change_s_own_one_verifies(
    verifying: Path,
    verify: Callable[..., subprocess.CompletedProcess[str]],
    clean_env: Mapping[str, str],
    tmp_path: Path,
) -> None:
    """The base is from before engines could; but its settings count."""
    project = tmp_path / "project"
    shutil.copytree(verifying, project)
    old = verify(project, clean_env, JUDGE="HEAD~1")
    assert said(old)["arguments"][:2] == ["verify-sources", "--judge"]
    assert "The engine of this change verifies its own lock: that of HEAD~1" in old.stderr
    nowhere = verify(project, clean_env, JUDGE="0" * 40)
    assert said(nowhere)["arguments"] == ["verify-sources"]
    assert f"verifies its own lock: git knows no commit {'0' * 40}" in nowhere.stderr
    assert said(verify(project, clean_env, JUDGE=""))["arguments"] == ["verify-sources"]
    assert list((tmp_path / "marks").iterdir()) == []


def test_an_old_python_is_named(
    verifying: Path,
    verify: Callable[..., subprocess.CompletedProcess[str]],
    clean_env: Mapping[str, str],
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    shutil.copytree(verifying, project)
    write(tmp_path, {"tools/bin/python3": "#!/bin/sh\nexit 1\n"})
    done = verify(project, clean_env)
    assert done.returncode == 2
    assert "python3 is missing or older than 3.11" in done.stderr
    assert worktrees(project) == 1


def test_a_lock_of_another_host_is_refused_by_the_engine_itself(
    locked_project: Path,
    verify: Callable[..., subprocess.CompletedProcess[str]],
    clean_env: Mapping[str, str],
    tmp_path: Path,
    run: Run,
) -> None:
    """The real engine, the real lock: one address of it is another host's."""
    project = tmp_path / "project"
    shutil.copytree(locked_project, project, symlinks=True)
    run(["git", "add", "--all"], project, check=True)
    run(["git", "commit", "-qm", "Lock", "--allow-empty"], project, check=True)
    assert "come from where they may" in verify(project, clean_env, JUDGE="HEAD").stdout
    lock = project / "uv.lock"
    text = lock.read_text(encoding="utf-8")
    host = "https://files.pythonhosted.org/"
    lock.write_text(text.replace(host, "https://files.evil.example/", 1), encoding="utf-8")
    done = verify(project, clean_env, JUDGE="HEAD")
    assert done.returncode == 1
    assert done.stderr.count("https://files.evil.example/") == 1
    assert "Nothing was installed." in done.stderr
    assert list((tmp_path / "marks").iterdir()) == []
