"""Fixtures that generate projects, install their dependencies and run their pipelines.

What takes long is made once per session, whatever the number of test processes, and handed out
as private copies. The host's git, DVC, BentoML and cookiecutter settings are kept out of the tests,
and the tests out of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import pytest
from cookiecutter.main import cookiecutter
from warm_python import make_warm, warm

pytest_plugins = ("hub", "machine", "podman")

TEMPLATE = Path(__file__).resolve().parent.parent
PROJECT_TEMPLATE = TEMPLATE / "<<cookiecutter.project_slug>>"
ENGINE = TEMPLATE / "engine"
OPTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
SLUG = "flight_delays"
COMMAND_TIMEOUT = 900

Bake = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]
Once = Callable[[str, Callable[[Path], object]], Path]


# What takes longest, so that no process is left alone with it at the end.
FIRST = ("test_delivery.py", "test_host.py", "test_pipeline_workflow.py", "test_bentocloud.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares fixtures in one process: a file, and all that runs containers."""
    for item in items:
        shared = "needs_podman" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("podman" if shared else item.path.name))
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than processors: tests often wait for what they start."""
    return (os.cpu_count() or 1) + 1


def find_uv() -> str:
    """The uv that runs these tests, else the one on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        pytest.fail("uv is needed to run generated projects: run the tests with `make test`")
    return found


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all test processes of this session."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def once(shared: Path) -> Once:
    """A shared folder that is filled when first asked for; others who ask wait until it is.

    `once(name, fill)` gives the folder, which is not to be changed; `fill` gets it empty.
    """

    def make_once(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with (shared / f"{name}.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def clean_env(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The variables of every process that the tests start.

    The interpreter that runs the tests is taken off PATH, settings of the host's users are
    replaced by empty ones, and git knows an identity.
    """
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").touch()
    config = home / "cookiecutter.yaml"
    config.write_text(
        f"cookiecutters_dir: '{home / 'cookiecutters'}'\nreplay_dir: '{home / 'replay'}'\n",
        encoding="utf-8",
    )
    # With MAKELEVEL set, a project's make would print the folders that it enters and leaves.
    foreign = ("VIRTUAL_ENV", "PYTHON", "COV_", "COVERAGE_", "GIT_", "UV_PROJECT", "UV_RUN", "MAKE")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    own = Path(sys.prefix, "bin")
    others = [p for p in env["PATH"].split(os.pathsep) if Path(p) != own]
    env |= {
        "PATH": os.pathsep.join([*others, str(Path(find_uv()).parent)]),
        "COOKIECUTTER_CONFIG": str(config),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test Author",
        "GIT_AUTHOR_EMAIL": "author@example.com",
        "GIT_COMMITTER_NAME": "Test Author",
        "GIT_COMMITTER_EMAIL": "author@example.com",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-cache"),
        "BENTOML_DO_NOT_TRACK": "True",
        "MPLCONFIGDIR": str(home / "matplotlib"),
        # Threads that spin while they wait make training four times slower on a busy machine.
        "OMP_WAIT_POLICY": "passive",
        "PRE_COMMIT_HOME": str(home / "pre-commit"),
        # What mypy knows of the libraries is the same in all projects.
        "MYPY_CACHE_DIR": str(shared / "mypy"),
        # Where the action that sets uv up finds the environment that an earlier run has left.
        "STANDIN_ENVIRONMENT": str(shared / "environment" / "venv"),
    }
    return env


@pytest.fixture(scope="session")
def env_without_uv(
    clean_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """The same variables with nothing but git on PATH."""
    tools = tmp_path_factory.mktemp("tools")
    git = shutil.which("git")
    assert git is not None, "git is needed to test the template"
    (tools / "git").symlink_to(git)
    return {**clean_env, "PATH": str(tools)}


@pytest.fixture(scope="session")
def run(clean_env: Mapping[str, str]) -> Run:
    """Run a command to its end and keep what it printed."""

    def run_command(
        command: list[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        check: bool = False,
        timeout: float = COMMAND_TIMEOUT,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(clean_env if env is None else env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run_command


def generate(template: Path, folder: Path, env: Mapping[str, str], **options: str) -> Path:
    """Generate a project below `folder`, hooks included."""
    # cookiecutter takes no notice of an option that does not exist: a test would bake the default.
    unknown = set(options) - set(OPTIONS)
    assert not unknown, f"not in cookiecutter.json: {', '.join(sorted(unknown))}"
    with mock.patch.dict(os.environ, env, clear=True):
        return Path(
            cookiecutter(
                str(template), no_input=True, extra_context=options, output_dir=str(folder)
            )
        )


@pytest.fixture(scope="session")
def template(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a fresh clone would have it: this working tree less what git ignores.

    cookiecutter copies all that it finds, the caches of tools that ran in the tree included.
    """
    copy = tmp_path_factory.mktemp("template") / "template"
    listing = run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        TEMPLATE,
        check=True,
    )
    for name in listing.stdout.rstrip("\0").split("\0"):
        source, target = TEMPLATE / name, copy / name
        if source.is_symlink() or source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return copy


@pytest.fixture(scope="session")
def generated(
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    env_without_uv: Mapping[str, str],
) -> Bake:
    """A project with these options, made when first asked for; not to be changed."""
    projects: dict[tuple[tuple[str, str], ...], Path] = {}

    def generate_once(**options: str) -> Path:
        key = tuple(sorted(options.items()))
        if key not in projects:
            folder = tmp_path_factory.mktemp("generated")
            projects[key] = generate(template, folder, env_without_uv, **options)
        return projects[key]

    return generate_once


@pytest.fixture
def bake(
    generated: Bake,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    clean_env: Mapping[str, str],
) -> Bake:
    """A generated project in a folder of its own: `bake(task="regression")`.

    The hook does not find uv unless `lock=True`, which takes seconds and a package index.
    """

    def bake_project(lock: bool = False, **options: str) -> Path:
        folder = tmp_path_factory.mktemp("bake")
        if lock:
            return generate(template, folder, clean_env, **options)
        source = generated(**options)
        return Path(shutil.copytree(source, folder / source.name, symlinks=True))

    return bake_project


@pytest.fixture(scope="session")
def locked_project(template: Path, clean_env: Mapping[str, str], once: Once) -> Path:
    """The default project with its lock file; not to be changed."""
    project = once("locked", lambda folder: generate(template, folder, clean_env)) / SLUG
    assert (project / "uv.lock").is_file(), "uv could not lock the dependencies"
    return project


@pytest.fixture(scope="session")
def project_env(
    locked_project: Path, clean_env: Mapping[str, str], run: Run, once: Once
) -> Mapping[str, str]:
    """Variables of a process in a project: PATH starts with the locked dependencies' environment.

    The environment is shared, so `uv run` takes it as it is; `project_run` puts a project's own
    sources before those that it was made for.
    """
    uv = find_uv()

    def install(folder: Path) -> None:
        # Its programs run from copies of it too.
        make = [uv, "venv", "--quiet", "--relocatable", folder / "venv"]
        run(make, locked_project, check=True)
        env = {**clean_env, "UV_PROJECT_ENVIRONMENT": str(folder / "venv")}
        run([uv, "sync", "--locked", "--quiet"], locked_project, env, check=True)
        in_session = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        warm(folder / "venv", clean_env, lives_as_long_as=in_session)

    venv = once("environment", install) / "venv"
    return {
        **clean_env,
        "UV_PROJECT_ENVIRONMENT": str(venv),
        "PATH": os.pathsep.join([str(venv / "bin"), clean_env["PATH"]]),
        "UV_NO_SYNC": "1",
    }


@pytest.fixture(scope="session")
def warm_environment(
    tmp_path_factory: pytest.TempPathFactory, clean_env: Mapping[str, str]
) -> Path:
    """An environment with the libraries of the tests' own, whose programs start as forks."""
    python = make_warm(tmp_path_factory.mktemp("warm") / "venv", clean_env, os.getpid())
    return python.parent.parent


def sources_of(project: Path) -> str:
    """What PYTHONPATH must be for a project's own sources, engine included."""
    return os.pathsep.join(str(folder) for folder in (project / "src", project / "engine" / "src"))


@pytest.fixture(scope="session")
def project_run(project_env: Mapping[str, str], run: Run) -> Run:
    """Run a command in a project: `project_run(project, "dvc", "repro")`.

    Bentos are kept beside the project; `env` adds variables.
    """

    def run_in_project(
        project: Path,
        *command: str,
        env: Mapping[str, str] | None = None,
        check: bool = False,
        timeout: float = COMMAND_TIMEOUT,
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            **project_env,
            "PYTHONPATH": sources_of(project),
            "BENTOML_HOME": str(project.parent / "bentoml"),
            **(env or {}),
        }
        return run(list(command), project, variables, check=check, timeout=timeout)

    return run_in_project


@pytest.fixture(scope="session")
def _pipeline_runs(
    template: Path,
    env_without_uv: Mapping[str, str],
    locked_project: Path,
    project_run: Run,
    once: Once,
) -> Callable[[str], Path]:
    """The project of each task after its first pipeline run, made when first asked for."""

    def run_pipeline(task: str, folder: Path) -> None:
        project = generate(template, folder, env_without_uv, task=task)
        # Both tasks have the same dependencies.
        shutil.copy(locked_project / "uv.lock", project)
        project_run(project, "git", "add", "uv.lock", check=True)
        project_run(project, "git", "commit", "-q", "--amend", "--no-edit", check=True)
        project_run(project, "dvc", "repro", check=True)
        project_run(project, "git", "add", "--all", check=True)
        project_run(project, "git", "commit", "-qm", "Train the first model", check=True)

    return lambda task: once(task, lambda folder: run_pipeline(task, folder)) / SLUG


@pytest.fixture
def pipelined(
    _pipeline_runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Bake:
    """A private copy, git and DVC cache included, of a project whose pipeline has run.

    The copy has two commits: the generated project, and the first trained model.
    """

    def copy_of_run(task: str = "classification") -> Path:
        source = _pipeline_runs(task)
        copy = tmp_path_factory.mktemp("pipelined") / source.name
        shutil.copytree(source, copy, symlinks=True)
        return copy

    return copy_of_run


@pytest.fixture
def trained(
    _pipeline_runs: Callable[[str], Path],
    template: Path,
    env_without_uv: Mapping[str, str],
    project_run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bake:
    """A project of other options with the results of the default one's pipeline, uncommitted.

    The options must not be ones that the pipeline knows.
    """

    def bake_trained(**options: str) -> Path:
        source = _pipeline_runs("classification")
        project = generate(template, tmp_path_factory.mktemp("trained"), env_without_uv, **options)
        for name in (".dvc/cache", "reports"):
            shutil.copytree(source / name, project / name, dirs_exist_ok=True)
        for name in ("uv.lock", "dvc.lock"):
            shutil.copy(source / name, project)
        project_run(project, "dvc", "checkout", check=True)
        return project

    return bake_trained


@pytest.fixture
def template_repository(template: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository that holds the template in one commit."""
    repository = tmp_path_factory.mktemp("upstream") / "template"
    shutil.copytree(template, repository, symlinks=True)
    for arguments in (["init", "-q", "-b", "main"], ["add", "--all"], ["commit", "-qm", "Start"]):
        run(["git", *arguments], repository, check=True)
    return repository
