"""What the workflows name: the variables and secrets that they are told, and environments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.github.ruleset import WORKFLOWS

ACTIONS = Path(".github/actions")

# An expression ends at the first braces outside of its texts, which stand between apostrophes.
_EXPRESSION = re.compile(r"\$\{\{((?:'[^']*'|[^'])*?)\}\}")
# vars.NAME or vars['NAME'], not steps.vars.NAME; or else a text, to be passed over.
_NAMED = re.compile(
    r"(?<![\w.-])(?P<context>vars|secrets)\s*"
    r"(?:\.\s*(?P<name>[a-z_]\w*)|\[\s*'(?P<index>[^']+)'\s*\])|'[^']*'",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Told:
    """A value that workflows are told by GitHub's settings.

    Attributes:
        kind: In the REST API's words.
        name: In capitals: GitHub does not tell `url` from `URL`.
    """

    kind: Literal["variables", "secrets"]
    name: str

    def __str__(self) -> str:
        """The name as people read it."""
        return f"secret {self.name}" if self.kind == "secrets" else self.name


@dataclass(frozen=True)
class Named:
    """What the workflows and the composite actions of a project name.

    Attributes:
        told: Each variable and secret, with the environments of the jobs that use it.
        environments: Those that jobs name literally, sorted. An expression may mean any.
    """

    told: Mapping[Told, frozenset[str]]
    environments: tuple[str, ...]


def read_named(root: Path = Path()) -> Named:
    """Read what the workflows and the composite actions name.

    Raises:
        GitopsError: If one of them cannot be read.
    """
    told: dict[Told, frozenset[str]] = {}
    every: frozenset[str] = frozenset()
    for path in sorted((root / WORKFLOWS).glob("*.y*ml")):
        shared: set[Told] = set()
        environments: frozenset[str] = frozenset()
        for job, names in _parts(root, path):
            if job is None:
                shared |= names
                continue
            own = _environment(job)
            environments |= own
            for name in names:
                told[name] = told.get(name, frozenset()) | own
        # What stands outside of the jobs, such as `env`, is told to each of them.
        for name in shared:
            told[name] = told.get(name, frozenset()) | environments
        every |= environments
    for path in sorted((root / ACTIONS).glob("**/action.y*ml")):
        for _, names in _parts(root, path):
            # Any job may use it.
            told.update((name, every) for name in names)
    return Named(told, tuple(sorted(every)))


def _parts(root: Path, path: Path) -> Iterator[tuple[Mapping[str, Any] | None, set[Told]]]:
    """Each job of a file and what it names; and None, with what is named outside of jobs."""
    name = path.relative_to(root)
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise GitopsError(f"{name}: cannot be read: {reason}") from error
    if not isinstance(document, dict):
        raise GitopsError(f"{name}: is empty, or is no mapping of keys to values")
    jobs = document.pop("jobs", {})
    if not isinstance(jobs, dict) or not all(isinstance(job, dict) for job in jobs.values()):
        raise GitopsError(f"{name}: jobs: must map names to jobs")
    yield from ((job, set(_told(job))) for job in jobs.values())
    yield None, set(_told(document))


def _environment(job: Mapping[str, Any]) -> frozenset[str]:
    """The environment that a job names literally, if it does."""
    environment = job.get("environment")
    name = environment.get("name") if isinstance(environment, dict) else environment
    literal = isinstance(name, str) and "${{" not in name
    return frozenset({str(name)}) if literal else frozenset()


def _told(value: Any) -> Iterator[Told]:
    """The variables and secrets in the expressions of a part of a workflow."""
    if isinstance(value, list):
        for item in value:
            yield from _told(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            # A condition is an expression also without the braces.
            bare = key == "if" and isinstance(item, str) and "${{" not in item
            yield from _in_expression(item) if bare else _told(item)
    elif isinstance(value, str):
        for expression in _EXPRESSION.findall(value):
            yield from _in_expression(expression)


def _in_expression(expression: str) -> Iterator[Told]:
    for match in _NAMED.finditer(expression):
        name = match["name"] or match["index"]
        if name:
            variable = match["context"].lower() == "vars"
            yield Told("variables" if variable else "secrets", name.upper())
