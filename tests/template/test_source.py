"""The template's sources as they are before rendering. Every check is shown a defect as well."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ENGINE, OPTIONS, PROJECT_TEMPLATE, TEMPLATE

# In a few texts, whole paragraphs are for some choices of an option.
BLOCK = re.compile(r'^<% (?:if cookiecutter\.(\w+) [!=]= "(\w+)"|endif) %>\n', re.MULTILINE)
BLOCK_FILES = {"Makefile", "README.md", "threat-model.md"}
EXPRESSION = re.compile(r"<< ?cookiecutter\.(\w+)(?: ?\| ?\w+(?:\([^()<>]*\))?)* ?>>")
# The home folder of BentoML's images is on no machine.
MACHINE_PATH = re.compile(
    r"(?<![\w.~])/(?:root|home/(?!bentoml\b)\w|Users/\w|work/|tmp/\w*(?:dev|lab|spec))"
)
# `git@` starts the address of a repository, not of a person.
EMAIL = re.compile(r"(?<![\w.+-])(?!git@)[\w.+-]+@((?:[\w-]+\.)+[A-Za-z][\w-]*)")
RESERVED_DOMAINS = re.compile(r"(.*\.)?example\.(com|org|net)|.*\.example")


def tracked(root: Path) -> list[Path]:
    """The files below a folder that are, or are about to be, in git."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [root / name for name in listing.rstrip("\0").split("\0")]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:8192]


def name_of(path: Path) -> str:
    return str(path.relative_to(TEMPLATE))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


PROJECT_FILES = tracked(PROJECT_TEMPLATE)
PROJECT_TEXTS = [path for path in PROJECT_FILES if is_text(path)]
OWN_TEXTS = [
    path
    for path in tracked(TEMPLATE)
    if PROJECT_TEMPLATE not in path.parents and is_text(path) and path.name != "uv.lock"
]
PACKAGE_SOURCES = [path for path in PROJECT_TEXTS if path.suffix == ".py" and "/src/" in str(path)]
YAML_FILES = [path for path in PROJECT_TEXTS if path.suffix in {".yaml", ".yml"}]

each_project_text = pytest.mark.parametrize("path", PROJECT_TEXTS, ids=name_of)
each_package_source = pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=name_of)


def test_there_is_something_to_check() -> None:
    assert len(PACKAGE_SOURCES) > 0
    assert len(ENGINE_TEXTS) > 100
    assert len(YAML_FILES) > 5
    assert len(OWN_TEXTS) > 15


def test_no_file_of_the_template_is_ignored_by_git() -> None:
    """The project's own .gitignore works on the template's repository too."""
    listing = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    done = subprocess.run(listing, cwd=TEMPLATE, check=True, capture_output=True, text=True)

    assert done.stdout == ""


# Delimiters


def stray_delimiters(text: str) -> list[str]:
    """Template marks that are not part of `<< cookiecutter.x >>` with a known x."""
    unknown = [name for name in EXPRESSION.findall(text) if name not in OPTIONS]
    rest = EXPRESSION.sub("", text)
    marks = re.findall(r".*(?:<<|<%|%>|<#|#>|\{\{ ?cookiecutter).*", rest)
    return unknown + marks


@pytest.mark.parametrize(
    "defect",
    [
        "cat <<EOF",
        "cat <<< word",
        "base: {<<: *anchor}",
        "x = 1 << 3",
        "<% if cookiecutter.task %>",
        "<# note #>",
        "<< cookiecutter.projekt_slug >>",
        "<< cookiecutter >>",
        "{{ cookiecutter.project_slug }}",
        "<< cookiecutter.task",
    ],
)
def test_stray_delimiters_are_seen(defect: str) -> None:
    assert stray_delimiters(f"fine\n{defect}\nfine")


def test_expressions_are_no_stray_delimiters() -> None:
    fine = "<< cookiecutter.task >> << cookiecutter.description|upper >> ${{ github.ref }} a >> b"
    assert stray_delimiters(fine) == []


def wrong_blocks(text: str) -> list[str]:
    """Blocks for an unknown choice, and blocks that do not end."""
    choices = [(option, choice) for option, choice in BLOCK.findall(text) if option]
    wrong = [f"{o} {c}" for o, c in choices if c not in OPTIONS.get(o, [])]
    ends = text.count("<% endif %>")
    return wrong if ends == len(choices) else [*wrong, f"{len(choices)} if, {ends} endif"]


@pytest.mark.parametrize(
    "defect",
    [
        '<% if cookiecutter.deploy_target != "heroku" %>\nx\n<% endif %>\n',
        '<% if cookiecutter.target != "none" %>\nx\n<% endif %>\n',
        '<% if cookiecutter.deploy_target != "none" %>\nx\n',
        "x\n<% endif %>\n",
    ],
)
def test_wrong_blocks_are_seen(defect: str) -> None:
    assert wrong_blocks(defect)


def test_a_block_for_a_choice_is_right() -> None:
    block = 'x\n<% if cookiecutter.deploy_target == "host" %>\nx\n<% endif %>\n'

    assert wrong_blocks(block) == []
    assert stray_delimiters(BLOCK.sub("", block)) == []


@each_project_text
def test_delimiters_are_used_for_answers_only(path: Path) -> None:
    text = read(path)
    if path.name in BLOCK_FILES:
        assert wrong_blocks(text) == []
        text = BLOCK.sub("", text)

    assert stray_delimiters(text) == []


def test_paths_hold_no_expression_but_the_package_name() -> None:
    names = {name_of(path).replace("<<cookiecutter.project_slug>>", "") for path in PROJECT_FILES}

    assert [name for name in names if "<" in name or "{" in name] == []


def test_the_link_for_cruft_leads_to_the_project() -> None:
    link = TEMPLATE / "{{cookiecutter.project_slug}}"

    assert link.is_symlink()
    assert str(link.readlink()) == PROJECT_TEMPLATE.name


# Python


@each_package_source
def test_python_of_the_package_parses_before_rendering(path: Path) -> None:
    ast.parse(read(path), filename=name_of(path))


ENGINE_TEXTS = [path for path in tracked(ENGINE) if is_text(path)]


def rendered_marks(text: str) -> list[str]:
    """What would be rendered, or speaks of one project: the engine is the same in all of them."""
    return re.findall(
        r"<<\s?cookiecutter|<%|%>|\{\{ ?cookiecutter|\bflight_delays\.(?!bento)", text
    )


def test_marks_in_the_engine_are_seen() -> None:
    assert rendered_marks("import << cookiecutter.project_slug >>")
    assert rendered_marks("<% if x %>")
    assert rendered_marks("from flight_delays.data import x")
    assert rendered_marks("1 << 3, e.g. flight_delays:0a1b") == []


@pytest.mark.parametrize("path", ENGINE_TEXTS, ids=name_of)
def test_the_engine_is_plain_code(path: Path) -> None:
    assert rendered_marks(read(path)) == []


# Settings files


@pytest.mark.parametrize("path", YAML_FILES, ids=name_of)
def test_yaml_parses_before_rendering(path: Path) -> None:
    documents = list(yaml.safe_load_all(read(path)))
    assert documents
    assert None not in documents


def test_toml_parses_before_rendering() -> None:
    document = tomllib.loads(read(PROJECT_TEMPLATE / "pyproject.toml"))

    assert document["project"]["name"] == "<< cookiecutter.project_slug >>"


# What must not be in any file


def machine_paths(text: str) -> list[str]:
    return MACHINE_PATH.findall(text)


def foreign_addresses(text: str) -> list[str]:
    return [d for d in EMAIL.findall(text) if not RESERVED_DOMAINS.fullmatch(d)]


def test_machine_paths_and_addresses_are_seen() -> None:
    assert machine_paths("cd /root/x") and machine_paths("'/home/me/x'")  # noqa: PT018
    assert machine_paths("cd /home/bentomler")
    assert not machine_paths("deploy/root/x and ./home/x and /home/bentoml/bento")
    assert foreign_addresses("me@company.com") == ["company.com"]
    assert foreign_addresses("legit@company.com") == ["company.com"]
    assert foreign_addresses("me@badexample.com") == ["badexample.com"]
    fine = "you@example.com, x:y@late.example.com, x:y@127.0.0.1, git@github.com:a/b, a/b@01, c@1.2"
    assert foreign_addresses(fine) == []


@pytest.mark.parametrize(
    "path", [p for p in [*PROJECT_TEXTS, *OWN_TEXTS] if p != Path(__file__)], ids=name_of
)
def test_no_file_names_a_machine_or_a_person(path: Path) -> None:
    text = read(path)

    assert machine_paths(text) == []
    if path != Path(__file__).with_name("test_hooks.py"):
        assert foreign_addresses(text) == []
