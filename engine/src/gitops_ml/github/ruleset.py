"""The rulesets that protect branches: files in git, held against what GitHub has.

Each file has the form that GitHub's REST API takes and that its settings page imports and exports:
https://docs.github.com/en/rest/repos/rules#create-a-repository-ruleset

main's must be there. What it asks of pull requests, no other has to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.yaml_text import load_yaml

RULESETS = Path(".github/rulesets")
# The one that protects the default branch.
RULESET = RULESETS / "main.json"
WORKFLOWS = Path(".github/workflows")

ABSENT = "absent"

Ruleset = Mapping[str, Any]

_FIELDS = ("target", "enforcement", "conditions", "bypass_actors")


@dataclass(frozen=True)
class Difference:
    """One value of a ruleset that is not as the file says.

    Attributes:
        where: For example rules.pull_request.required_approving_review_count.
        current: What GitHub has, as JSON, or `absent`.
        wanted: What the file says, as JSON, or `absent`.
    """

    where: str
    current: str
    wanted: str

    def __str__(self) -> str:
        """The difference as people read it."""
        return f"{self.where}: {self.current} -> {self.wanted}"


def ruleset_files(root: Path = Path()) -> list[Path]:
    """The ruleset files, relative to the root: main's first, also if it is missing."""
    found = sorted(path.relative_to(root) for path in (root / RULESETS).glob("*.json"))
    return [RULESET, *(path for path in found if path != RULESET)]


def load_ruleset(root: Path = Path(), path: Path = RULESET) -> Ruleset:
    """Read one ruleset file.

    Raises:
        GitopsError: If it is missing, is not JSON or lacks a name or rules.
    """
    try:
        ruleset = json.loads((root / path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GitopsError(f"{path}: no such file; run from the project's root") from error
    except (OSError, ValueError) as error:
        raise GitopsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(ruleset, dict) or not isinstance(ruleset.get("name"), str):
        raise GitopsError(f"{path}: name: is missing")
    rules = ruleset.get("rules")
    if not isinstance(rules, list) or not all(isinstance(r, dict) and "type" in r for r in rules):
        raise GitopsError(f"{path}: rules: must be a list of rules, each with a type")
    if not rules:
        raise GitopsError(f"{path}: rules: is empty, so it protects nothing")
    return ruleset


def load_rulesets(root: Path = Path()) -> Mapping[Path, Ruleset]:
    """Read every ruleset file.

    Raises:
        GitopsError: If any cannot be used, or two have one name: by it GitHub's are found.
    """
    rulesets: dict[Path, Ruleset] = {}
    problems: list[str] = []
    for path in ruleset_files(root):
        try:
            ruleset = load_ruleset(root, path)
        except GitopsError as error:
            problems.append(str(error))
            continue
        for other, earlier in rulesets.items():
            if earlier["name"] == ruleset["name"]:
                problems.append(f"{path}: name: {ruleset['name']!r} is that of {other}")
        rulesets[path] = ruleset
    if problems:
        raise GitopsError("; ".join(problems))
    return rulesets


def _parameters(ruleset: Ruleset) -> dict[str, dict[str, Any]]:
    """The parameters of each rule, by its type."""
    return {rule["type"]: rule.get("parameters") or {} for rule in ruleset.get("rules") or []}


def parameter(ruleset: Ruleset, rule: str, name: str, default: Any) -> Any:
    """One parameter of one rule."""
    return _parameters(ruleset).get(rule, {}).get(name, default)


def required_checks(ruleset: Ruleset) -> tuple[str, ...]:
    """The names of the status checks without which nothing is merged."""
    checks = parameter(ruleset, "required_status_checks", "required_status_checks", [])
    return tuple(check["context"] for check in checks)


def bypassed_by_deploy_keys(ruleset: Ruleset) -> bool:
    """Whether a deploy key may do what the ruleset forbids to everybody else."""
    return any(_is_deploy_key(actor) for actor in ruleset.get("bypass_actors") or ())


def _is_deploy_key(value: Any) -> bool:
    return isinstance(value, dict) and value.get("actor_type") == "DeployKey"


def differences(current: Ruleset, wanted: Ruleset) -> list[Difference]:
    """Where GitHub's ruleset differs from the file's.

    Parameters that the file does not name are GitHub's to choose. Who may bypass the rules is shown
    to administrators only, and compared only where it is shown.
    """
    found: list[Difference] = []
    for field in _FIELDS:
        if field != "bypass_actors" or field in current:
            found += _compare(field, current.get(field), wanted.get(field))
    now, then = _parameters(current), _parameters(wanted)
    for rule in sorted(now.keys() | then.keys()):
        if rule not in now or rule not in then:
            present = ("present", ABSENT) if rule in now else (ABSENT, "present")
            found.append(Difference(f"rules.{rule}", *present))
            continue
        for name, value in then[rule].items():
            found += _compare(f"rules.{rule}.{name}", now[rule].get(name), value)
    return found


def _compare(where: str, current: Any, wanted: Any) -> Iterator[Difference]:
    now, then = _comparable(current), _comparable(wanted)
    if now != then:
        yield Difference(where, _shown(now), _shown(then))


def _comparable(value: Any) -> Any:
    """The value with lists sorted: in a ruleset their order has no meaning."""
    if isinstance(value, list):
        return sorted((_comparable(item) for item in value), key=_shown)
    if isinstance(value, dict):
        # Deploy keys are meant all together: whatever GitHub says there, it is no one's number.
        ignored = {"actor_id"} if _is_deploy_key(value) else set()
        return {key: _comparable(item) for key, item in value.items() if key not in ignored}
    return value


def _shown(value: Any) -> str:
    return ABSENT if value is None else json.dumps(value, sort_keys=True)


def missing_checks(ruleset: Ruleset, root: Path = Path()) -> list[str]:
    """The required checks that no workflow reports on a pull request: they would block for ever.

    Raises:
        GitopsError: If a workflow cannot be read.
    """
    reported = reported_checks(root)
    return [name for name in required_checks(ruleset) if name not in reported]


def reported_checks(root: Path = Path()) -> frozenset[str]:
    """The names under which the jobs of every pull request are reported.

    Raises:
        GitopsError: If a workflow cannot be read.
    """
    names: set[str] = set()
    for path in sorted((root / WORKFLOWS).glob("*.y*ml")):
        try:
            workflow = load_yaml(path.read_text(encoding="utf-8"))
            # YAML 1.1 reads the key `on` as the boolean true.
            triggers = workflow.get("on", workflow.get(True))
            triggers = [triggers] if isinstance(triggers, str) else triggers
            if "pull_request" in triggers:
                names |= {str(job.get("name", key)) for key, job in workflow["jobs"].items()}
        except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            name = path.relative_to(root)
            raise GitopsError(f"{name}: is not a workflow that can be read: {error}") from error
    return frozenset(names)
