"""The tools that generated projects bring: all pass on bakes, and a defect makes each fail."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT_TEMPLATE, SLUG, TEMPLATE, Bake, Run

pytestmark = pytest.mark.slow

BAKES = [
    {"task": "classification"},
    {"task": "regression"},
    {"deploy_target": "host"},
    {"deploy_target": "bentocloud"},
    {"deploy_target": "none"},
    {"project_slug": "ab"},
    {"project_slug": "z" * 30, "task": "regression", "license": "proprietary"},
]


@pytest.mark.parametrize("options", BAKES, ids=lambda options: "-".join(options.values())[:20])
def test_lint_format_and_types_are_clean(
    bake: Bake, project_run: Run, options: dict[str, str]
) -> None:
    project = bake(**options)

    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = project_run(project, *command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("command", "defect"),
    [
        (["ruff", "check"], "import os\n"),
        (["ruff", "format", "--check"], "x = {  'a':1 }\n"),
        (["mypy"], 'def length(text: str) -> int:\n    """Say how long."""\n    return text\n'),
        (["mypy"], 'def length(text):\n    """Say how long."""\n    return len(text)\n'),
    ],
    ids=["unused-import", "format", "wrong-type", "no-type"],
)
def test_a_defect_in_the_package_is_seen(
    bake: Bake, project_run: Run, command: list[str], defect: str
) -> None:
    project = bake()
    (project / "src" / SLUG / "defect.py").write_text(defect, encoding="utf-8")

    done = project_run(project, *command)

    assert done.returncode == 1
    assert "defect.py" in done.stdout


def test_make_check_tests_and_measures_the_user_s_code_alone(bake: Bake, project_run: Run) -> None:
    project = bake()

    done = project_run(project, "make", "check", check=True)

    # The engine's checks need a pipeline: they are left out.
    assert re.search(r"= [1-9]\d* passed, [1-9]\d+ deselected in ", done.stdout), done.stdout
    measured = re.findall(r"^(\S+\.py) +\d", done.stdout, re.MULTILINE)
    names = ("__init__", "features", "metrics", "model")
    assert set(measured) == {f"src/{SLUG}/{name}.py" for name in names}


@pytest.mark.parametrize(
    ("name", "defect", "words"),
    [
        (f"src/{SLUG}/defect.py", "raise ValueError\n", "test_every_module_can_be_imported"),
        (
            f"src/{SLUG}/defect.py",
            'def halve(number: float) -> float:\n    """Divide by two, often."""\n'
            + "    number /= 2\n" * 30
            + "    return number\n",
            "Required test coverage of 85.0% not reached",
        ),
        ("tests/test_defect.py", "def test_it() -> None:\n    assert 1 == 2\n", "test_defect.py"),
        ("tests/test_defect.py", "def test_it(number) -> None:\n    pass\n", "no-untyped-def"),
    ],
    ids=["no-import", "untested", "failing-test", "untyped-test"],
)
def test_make_check_sees_a_defect_in_code_or_tests(
    bake: Bake, project_run: Run, name: str, defect: str, words: str
) -> None:
    project = bake()
    (project / name).write_text(defect, encoding="utf-8")

    done = project_run(project, "make", "check")

    assert done.returncode != 0
    assert words in done.stdout


@pytest.fixture(scope="module")
def _hooked(
    generated: Bake,
    locked_project: Path,
    project_run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    project = tmp_path_factory.mktemp("hooked") / SLUG
    shutil.copytree(generated(), project, symlinks=True)
    shutil.copy(locked_project / "uv.lock", project)
    project_run(project, "git", "add", "--all", check=True)
    project_run(project, "git", "commit", "-qm", "Lock", check=True)
    return project


@pytest.fixture
def hooked(_hooked: Path, tmp_path: Path) -> Path:
    """A project with its lock committed."""
    return Path(shutil.copytree(_hooked, tmp_path / SLUG, symlinks=True))


def test_the_git_hooks_pass_and_leave_the_tree_as_it_is(hooked: Path, project_run: Run) -> None:
    done = project_run(hooked, "pre-commit", "run", "--all-files", "--color", "never")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped" not in done.stdout
    assert project_run(hooked, "git", "status", "--porcelain").stdout == ""


def test_the_git_hooks_run_on_commit(hooked: Path, project_run: Run) -> None:
    project_run(hooked, "pre-commit", "install", check=True)
    (hooked / "mine.py").write_text("import os\n", encoding="utf-8")
    project_run(hooked, "git", "add", "mine.py", check=True)

    refused = project_run(hooked, "git", "commit", "-m", "Try")

    assert refused.returncode != 0
    assert project_run(hooked, "git", "log", "--format=%s").stdout.startswith("Lock\n")


def test_data_that_people_add_are_committed_byte_by_byte(
    hooked: Path, project_run: Run, tmp_path: Path
) -> None:
    odd = b"a,b \r\n1,  \r\n\r\n2,3"
    (hooked / "data" / "landed" / "more.csv").write_bytes(odd)
    project_run(hooked, "pre-commit", "install", check=True)
    project_run(hooked, "git", "add", "--all", check=True)
    project_run(hooked, "git", "commit", "-m", "Add data", check=True)

    project_run(tmp_path, "git", "clone", "-q", str(hooked), "clone", check=True)

    assert (tmp_path / "clone" / "data" / "landed" / "more.csv").read_bytes() == odd


def test_what_the_pipeline_writes_passes_the_git_hooks(pipelined: Bake, project_run: Run) -> None:
    project = pipelined("classification")

    done = project_run(project, "pre-commit", "run", "--all-files", "--color", "never")

    assert done.returncode == 0, done.stdout + done.stderr
    assert project_run(project, "git", "status", "--porcelain").stdout == ""
    assert project_run(project, "dvc", "status").stdout.strip() == (
        "Data and pipelines are up to date."
    )


def test_setup_makes_a_clone_ready_to_work_in(
    hooked: Path, run: Run, clean_env: Mapping[str, str], tmp_path: Path
) -> None:
    run(["git", "clone", "-q", hooked, "clone"], tmp_path, check=True)
    clone = tmp_path / "clone"

    run(["make", "setup"], clone, check=True)

    assert (clone / ".git" / "hooks" / "pre-commit").is_file()
    imported = run(
        ["uv", "run", "python", "-c", f"import {SLUG}; print({SLUG}.__file__)"], clone, check=True
    )
    assert imported.stdout.strip() == str(clone / "src" / SLUG / "__init__.py")
    assert run(["git", "status", "--porcelain"], clone).stdout == ""


def overwrite(name: str, content: str) -> Callable[[Path], None]:
    def plant(project: Path) -> None:
        (project / name).write_text(content, encoding="utf-8")

    return plant


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def plant(project: Path) -> None:
        text = (project / name).read_text(encoding="utf-8")
        assert old in text
        (project / name).write_text(text.replace(old, new), encoding="utf-8")

    return plant


KEY_HEADER = "-----BEGIN RSA " + "PRIVATE KEY-----\n"
CONFLICT = "<<<" + "<<<< ours\na\n" + "====" + "===\nb\n" + ">>>" + ">>>> theirs\n"
# One defect for every hook.
DEFECTS: Mapping[str, Callable[[Path], None]] = {
    "trailing-whitespace": overwrite("notes.md", "text   \n"),
    "end-of-file": overwrite("notes.md", "text"),
    "merge-conflict": overwrite("notes.md", CONFLICT),
    "large-files": overwrite("big.txt", "x" * 1_100_000),
    "private-key": overwrite("key.txt", KEY_HEADER),
    "yaml": replace("schema.yaml", "columns:", "columns: ["),
    "toml": replace("pyproject.toml", "[project]", "[project"),
    "json": overwrite("notes.json", '{"a": 1,}\n'),
    "lock": replace("pyproject.toml", '"pytest>=', '"pytest-timeout", "pytest>='),
    "stages": replace("params.yaml", "  source: data/landed", "  sauce: data/landed"),
    "workflows": replace(".github/workflows/pipeline.yml", "runs-on: ", "run-on: "),
    "actions": replace(".github/actions/setup/action.yml", "using: ", "uses: "),
    "dependabot": replace(".github/dependabot.yml", "interval: weekly", "interval: fortnightly"),
    "workflow-security": replace(
        ".github/workflows/pipeline.yml",
        "make gate BASE=event",
        "make gate BASE=${{ github.head_ref }}",
    ),
    "lint": overwrite("src/flight_delays/defect.py", "import os\n\nprint(undefined)\n"),
    "format": overwrite("src/flight_delays/defect.py", "x = {  'a':1 }\n"),
    "types": overwrite("src/flight_delays/defect.py", "x: int = 'a'\n"),
}


def test_every_git_hook_has_a_defect() -> None:
    config = yaml.safe_load((PROJECT_TEMPLATE / ".pre-commit-config.yaml").read_text("utf-8"))

    assert [hook["id"] for repo in config["repos"] for hook in repo["hooks"]] == list(DEFECTS)


@pytest.mark.parametrize("hook", DEFECTS)
def test_a_git_hook_refuses_its_defect(hooked: Path, project_run: Run, hook: str) -> None:
    DEFECTS[hook](hooked)
    project_run(hooked, "git", "add", "--all", check=True)
    # A merge is what brings conflict markers, and the hook looks at files of a merge only.
    (hooked / ".git" / "MERGE_MSG").write_text("Merge", encoding="utf-8")
    (hooked / ".git" / "MERGE_HEAD").write_text(
        project_run(hooked, "git", "rev-parse", "HEAD").stdout, encoding="utf-8"
    )

    done = project_run(hooked, "pre-commit", "run", hook, "--color", "never")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "Failed" in done.stdout


def test_the_dvc_skeleton_is_what_dvc_makes(bake: Bake, project_run: Run, tmp_path: Path) -> None:
    project = bake()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    project_run(fresh, "git", "init", "-q", check=True)
    project_run(fresh, "dvc", "init", "-q", check=True)

    made = {p.name for p in (fresh / ".dvc").iterdir() if p.is_file()}
    assert made == {p.name for p in (project / ".dvc").iterdir() if p.is_file()}
    ignored = (fresh / ".dvc" / ".gitignore").read_text(encoding="utf-8")
    assert (project / ".dvc" / ".gitignore").read_text(encoding="utf-8") == ignored
    stages = project_run(project, "dvc", "stage", "list", "--name-only", check=True).stdout.split()
    assert stages == ["environment", "ingest", "validate", "split", "train", "evaluate"]


def test_git_ignores_all_that_dvc_owns_before_dvc_has_run(bake: Bake, project_run: Run) -> None:
    project = bake()
    document = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))
    entries = [
        entry if isinstance(entry, dict) else {entry: {}}
        for stage in document["stages"].values()
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
    ]
    owned = [
        name for entry in entries for name, settings in entry.items() if settings.get("cache", True)
    ]

    assert len(owned) >= 5
    for name in owned:
        (project / name).mkdir(parents=True)
        (project / name / "content").touch()
    assert project_run(project, "git", "status", "--porcelain").stdout == ""


def test_the_template_s_own_git_hooks_pass(
    template_repository: Path, run: Run, clean_env: Mapping[str, str]
) -> None:
    env = {
        **clean_env,
        "PATH": os.pathsep.join([str(Path(sys.prefix, "bin")), clean_env["PATH"]]),
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "UV_NO_SYNC": "1",
    }

    command = ["pre-commit", "run", "--all-files", "--color", "never"]
    done = run(command, template_repository, env=env)

    assert done.returncode == 0, done.stdout + done.stderr
    assert run(["git", "status", "--porcelain"], template_repository).stdout == ""


def test_the_template_s_git_hooks_are_those_of_the_project_and_more() -> None:
    def hooks(path: Path) -> set[str]:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {hook["id"] for repo in config["repos"] for hook in repo["hooks"]}

    name = ".pre-commit-config.yaml"
    assert hooks(PROJECT_TEMPLATE / name) - {"stages"} <= hooks(TEMPLATE / name)
