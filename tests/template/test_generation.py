"""Generated projects, for every combination of options that changes them."""

from __future__ import annotations

import ast
import itertools
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from conftest import OPTIONS, PROJECT_TEMPLATE, SLUG, TEMPLATE, Bake, Run
from cookiecutter.exceptions import FailedHookException

PYTHON_VERSIONS = ["3.11", "3.12", "3.13"]
EXPECTED_FILES = Path(__file__).with_name("expected_files.txt")
TARGETS = OPTIONS["deploy_target"]
SECTION = re.compile(r"\[(\w+): ([\w ]+)\]")

SUPPORTED = [
    *(
        {"task": task, "python_version": python_version, "license": license_name}
        for task, python_version, license_name in itertools.product(
            OPTIONS["task"], PYTHON_VERSIONS, OPTIONS["license"]
        )
    ),
    *(
        {"task": task, "deploy_target": target}
        for task, target in itertools.product(OPTIONS["task"], OPTIONS["deploy_target"])
    ),
    {"deploy_target": "host", "project_name": "Ox"},
    {"deploy_target": "none", "python_version": "3.13", "license": "proprietary"},
    {"project_name": "Ox"},
    {"project_slug": "a" * 30},
    {"project_name": "Churn", "description": "Who leaves?", "author_name": "Ada Lovelace"},
]

# Options, and what must be in the message.
UNSUPPORTED = [
    ({"python_version": "3.10"}, "python_version = '3.10'\n    rule:    one of 3.11, 3.12, 3.13"),
    ({"project_slug": "deploy"}, "not the name of one of the project's own folders"),
    ({"project_slug": "flight-delays"}, "project_slug = 'flight-delays'"),
    ({"project_slug": "sklearn"}, "not the name of a package that the project depends on"),
    ({"project_slug": "statistics"}, "standard library"),
    ({"project_slug": "a" * 31}, "at most 30 characters; this has 31"),
    ({"author_email": "nobody"}, "an e-mail address"),
    ({"author_name": ""}, "author_name = ''"),
    ({"description": 'say "hi"'}, "description = 'say \"hi\"'"),
]

LICENSE_LINES = {
    "MIT": "MIT License",
    "Apache-2.0": "Apache License",
    "BSD-3-Clause": "BSD 3-Clause License",
    "proprietary": "All rights reserved.",
}
SPDX = {"proprietary": "LicenseRef-Proprietary"}
# Words and marks of the template that must not reach a project.
# The settings of what brings a project up to date are none.
LEFTOVERS = re.compile(
    r"<<|<%|%>|<#|cookiecutter|(?<!\[tool\.)\bcruft\b|\bTODO\b|\bFIXME\b", re.IGNORECASE
)


def id_of(options: dict[str, str]) -> str:
    return "-".join(value[:12] for value in options.values())


def files_of(project: Path) -> set[str]:
    return {
        str(path.relative_to(project))
        for path in project.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project).parts
    }


def leftovers(text: str) -> list[str]:
    return LEFTOVERS.findall(text)


def expected_files(slug: str, options: Mapping[str, str] | None = None) -> set[str]:
    """The files of a project with these options, as `expected_files.txt` lists them."""
    answers = {**defaults(), **(options or {})}
    files, wanted = set(), True
    for line in EXPECTED_FILES.read_text(encoding="utf-8").splitlines():
        if section := SECTION.fullmatch(line):
            option, choices = section[1], section[2].split()
            assert set(choices) <= set(OPTIONS[option]), f"{line}: no such choice"
            wanted = answers[option] in choices
        elif line and not line.startswith("#") and wanted:
            files.add(line.replace("<slug>", slug))
    return files


def defaults() -> dict[str, str]:
    return {k: v[0] if isinstance(v, list) else v for k, v in OPTIONS.items() if k[0] != "_"}


def test_combinations_name_options_that_exist() -> None:
    named = {key for options in [*SUPPORTED, *(o for o, _ in UNSUPPORTED)] for key in options}

    assert named <= set(OPTIONS)


def test_every_choice_is_in_a_combination() -> None:
    for option, choices in OPTIONS.items():
        if isinstance(choices, list) and not option.startswith("_"):
            assert {options.get(option) for options in SUPPORTED} >= set(choices)


@pytest.mark.parametrize("options", SUPPORTED, ids=id_of)
def test_a_supported_combination(bake: Bake, run: Run, options: dict[str, str]) -> None:
    project = bake(**options)
    texts = texts_of(project)

    files = {name for name in files_of(project) if not name.startswith("engine/")}
    assert files == expected_files(project.name, options), (
        "the project's files and tests/template/expected_files.txt differ"
    )
    assert engine_of(project) == engine_of(TEMPLATE)
    assert {name: found for name, text in texts.items() if (found := leftovers(text))} == {}
    check_syntax(texts)
    check_answers(texts, {**defaults(), **options})
    check_repository(project, run)


def engine_of(folder: Path) -> dict[str, bytes]:
    """The files of the engine with what they hold, as its manifest names them."""
    engine = folder / "engine"
    names = json.loads((engine / "manifest.json").read_text(encoding="utf-8"))["files"]
    return {name: (engine / name).read_bytes() for name in ["manifest.json", *names]}


def texts_of(project: Path) -> dict[str, str]:
    """The project's own texts."""
    return {
        name: (project / name).read_text(encoding="utf-8")
        for name in files_of(project)
        if not name.startswith("engine/") and not name.endswith(".parquet")
    }


def check_syntax(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if name.endswith(".py"):
            ast.parse(text, filename=name)
        elif name.endswith((".yaml", ".yml")):
            assert all(part for part in yaml.safe_load_all(text)), name
        elif name.endswith(".toml"):
            tomllib.loads(text)
        elif name.endswith(".json"):
            json.loads(text)


def test_the_files_of_a_choice_are_told_apart() -> None:
    files = {target: expected_files(SLUG, {"deploy_target": target}) for target in TARGETS}

    assert "deploy/argocd/staging.yaml" in files["kubernetes"] - files["host"]
    assert "deploy/base/deployment.yaml" in files["kubernetes"] - files["host"]
    assert "deploy/host/pod.yaml" in files["host"] - files["kubernetes"]
    assert "deploy/staging.yaml" in files["bentocloud"] - files["kubernetes"] - files["host"]
    assert not [name for name in files["none"] if "deploy" in name or "rollback" in name]


def test_without_a_target_nothing_speaks_of_deployment(bake: Bake) -> None:
    assert "gitops-ml release" in texts_of(bake())["Makefile"]

    texts = texts_of(bake(deploy_target="none"))

    spoken = re.compile(r"gitops-ml release|deploy/|deliver\.yml|rollback\.yml")
    assert [name for name, text in texts.items() if spoken.search(text)] == []


def test_on_bentocloud_nothing_speaks_of_containers(bake: Bake) -> None:
    spoken = re.compile(r"CONTAINER_ENGINE|image build|kustomize|deploy/overlays|registry_login")
    assert spoken.search(texts_of(bake())["Makefile"])

    texts = texts_of(bake(deploy_target="bentocloud"))

    assert [name for name, text in texts.items() if spoken.search(text)] == []


def check_answers(texts: dict[str, str], answers: dict[str, str]) -> None:
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    assert project["description"] == answers["description"]
    assert project["authors"] == [
        {"name": answers["author_name"], "email": answers["author_email"]}
    ]
    assert project["requires-python"].startswith(f">={answers['python_version']},")
    assert project["license"] == SPDX.get(answers["license"], answers["license"])
    assert texts[".python-version"] == f"{answers['python_version']}\n"
    assert yaml.safe_load(texts["params.yaml"])["task"] == answers["task"]
    metrics = yaml.safe_load(texts["contract.yaml"])["model"]["metrics"]
    assert ("mae" in metrics) is (answers["task"] == "regression")
    assert LICENSE_LINES[answers["license"]] in texts["LICENSE"]
    assert (answers["author_name"] in texts["LICENSE"]) is (answers["license"] != "Apache-2.0")
    assert answers["project_name"] in texts["README.md"]


def check_repository(project: Path, run: Run) -> None:
    def git(*arguments: str) -> str:
        return run(["git", *arguments], project, check=True).stdout.strip()

    assert git("log", "--format=%s <%ae>") == "Start the project <author@example.com>"
    assert git("branch", "--show-current") == "main"
    assert git("status", "--porcelain", "--ignored") == ""
    assert set(git("ls-files").splitlines()) == files_of(project)


@pytest.mark.parametrize(("options", "message"), UNSUPPORTED, ids=lambda value: str(value)[:40])
def test_an_unsupported_combination(
    bake: Bake, capfd: pytest.CaptureFixture[str], options: dict[str, str], message: str
) -> None:
    with pytest.raises(FailedHookException):
        bake(**options)

    assert message in capfd.readouterr().err


@pytest.mark.parametrize("option", ["task", "deploy_target", "license"])
def test_an_unknown_choice_is_refused_with_the_choices(bake: Bake, option: str) -> None:
    with pytest.raises(ValueError, match=OPTIONS[option][0]):
        bake(**{option: "other"})


def test_an_option_that_does_not_exist_is_no_combination(bake: Bake) -> None:
    with pytest.raises(AssertionError, match=r"not in cookiecutter\.json"):
        bake(tasks="regression")


@pytest.mark.parametrize(
    "defect", ["<< x", "<% if %>", "{{cookiecutter.x}}", "Cookiecutter", "a cruft file", "# TODO"]
)
def test_leftovers_are_seen(defect: str) -> None:
    assert leftovers(f"fine\n{defect}\nfine")
    assert not leftovers("fine\n[tool.cruft]\nfine")


def test_generating_twice_gives_the_same_bytes(bake: Bake) -> None:
    first, second = bake(), bake()

    assert {name: (first / name).read_bytes() for name in files_of(first)} == {
        name: (second / name).read_bytes() for name in files_of(second)
    }


def test_data_files_are_the_template_s_byte_by_byte(bake: Bake) -> None:
    project = bake()
    originals = {
        str(path.relative_to(PROJECT_TEMPLATE)): path.read_bytes()
        for path in (PROJECT_TEMPLATE / "data").rglob("*.parquet")
    }

    assert len(originals) == 9
    assert {name: (project / name).read_bytes() for name in originals} == originals


def test_scripts_stay_executable(bake: Bake) -> None:
    project = bake()
    for path in PROJECT_TEMPLATE.rglob("*"):
        name = str(path.relative_to(PROJECT_TEMPLATE)).replace(PROJECT_TEMPLATE.name, SLUG)
        if path.is_file() and (project / name).is_file():
            assert (project / name).stat().st_mode & 0o111 == path.stat().st_mode & 0o111, name


def test_the_template_s_own_files_stay_out(bake: Bake) -> None:
    assert not {"hooks", "tools", "cookiecutter.json", "CHANGELOG.md"} & {
        path.name for path in bake().iterdir()
    }


@pytest.mark.parametrize("where", ["path", "file-url"])
def test_it_generates_from_a_git_repository(
    template_repository: Path, tmp_path: Path, run: Run, where: str
) -> None:
    bare = tmp_path / "template.git"
    run(["git", "clone", "-q", "--bare", template_repository, bare], tmp_path, check=True)
    source = str(template_repository) if where == "path" else bare.as_uri()
    out = tmp_path / "out"

    generate_by_command(run, source, out)

    own = {name for name in files_of(out / SLUG) if not name.startswith("engine/")}
    assert own - {"uv.lock"} == expected_files(SLUG)
    assert engine_of(out / SLUG) == engine_of(TEMPLATE)


def generate_by_command(run: Run, source: str, out: Path) -> None:
    command = [sys.executable, "-m", "cookiecutter", source, "--no-input", "--output-dir", str(out)]
    run(command, out.parent, check=True)
