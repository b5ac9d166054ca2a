"""What the repository's settings on GitHub must be for its gates to hold.

Each function looks at one setting and returns the change that is needed, or None. `github_setup`
shows and applies the changes; `doctor` reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gitops_ml.github.client import GitHub, GitHubError
from gitops_ml.github.codeowners import Entry
from gitops_ml.github.labels import LOOSEN_LABEL, NEW_BASELINE_LABEL, OWN_ENGINE_LABEL
from gitops_ml.github.ruleset import (
    ABSENT,
    RULESET,
    Ruleset,
    bypassed_by_deploy_keys,
    differences,
    load_ruleset,
    parameter,
    ruleset_files,
)
from gitops_ml.github.workflows import Told, read_named

# By these a maintainer consents on a pull request, and what to.
_LABELS = {
    LOOSEN_LABEL: "A maintainer agrees that the contract may ask for less than before",
    NEW_BASELINE_LABEL: "A maintainer agrees to a model that is not compared with the one in use",
    OWN_ENGINE_LABEL: "A maintainer has read this engine, and agrees that it judges its own change",
}
_LABEL_COLOUR = "d93f0b"
# With this secret the deliveries push; the page says how to make it.
DELIVERY_KEY = "DELIVERY_KEY"
_DELIVERY_PAGE = "docs/deliver.md, Protect the environments"
_SELECTED = {"protected_branches": False, "custom_branch_policies": True}
_WORKFLOWS = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}


@dataclass(frozen=True)
class Request:
    """One request to the REST API that changes something."""

    method: str
    path: str
    body: Any = None


@dataclass(frozen=True)
class Change:
    """One setting that is not as it must be.

    Attributes:
        current: What it is now.
        wanted: What it must be.
        requests: What makes it so, one after the other; none where something else comes first,
            which `details` says.
        details: Each value that differs, where there are several.
    """

    current: str
    wanted: str
    requests: tuple[Request, ...]
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repository:
    """What GitHub says about the repository.

    Attributes:
        name: owner/name.
        facts: GitHub's answer.
    """

    name: str
    facts: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where the REST API has it."""
        return f"/repos/{self.name}"

    @property
    def administered(self) -> bool:
        """Whether the token's owner is an administrator of the repository."""
        return bool((self.facts.get("permissions") or {}).get("admin"))


def read_repository(api: GitHub, name: str) -> Repository:
    """Ask GitHub about a repository; its name is the one that GitHub knows it by now.

    Raises:
        GitHubError: If GitHub cannot be reached or does not show it.
    """
    facts = api.get(f"/repos/{name}")
    return Repository(str(facts["full_name"]), facts)


# The path is the project's root.
Setting = Callable[[GitHub, Repository, Path], Change | None]


def current_ruleset(api: GitHub, repository: Repository, name: str) -> Ruleset | None:
    """The repository's ruleset of that name, whole; None if there is none.

    Raises:
        GitHubError: If GitHub cannot be reached or does not show it.
    """
    path = f"{repository.path}/rulesets"
    for summary in api.items(path, includes_parents="false"):
        if summary["name"] == name:
            found: Ruleset = api.get(f"{path}/{summary['id']}")
            return found
    return None


def ruleset_change(file: Path) -> Setting:
    """Branches must be protected by the ruleset of the file."""

    def change(api: GitHub, repository: Repository, root: Path) -> Change | None:
        ruleset = load_ruleset(root, file)
        current = current_ruleset(api, repository, ruleset["name"])
        path = f"{repository.path}/rulesets"
        found = [] if current is None else differences(current, ruleset)
        if current is not None and not found:
            return None
        state, details = ABSENT if current is None else "differs", tuple(map(str, found))
        missing = lacks_delivery_key(api, repository, root, ruleset)
        if missing:
            # Set now, it would turn away the deliveries themselves.
            wanted = f"as in {file}, once the deliveries have a key"
            return Change(state, wanted, (), (*details, f"{missing}: {_DELIVERY_PAGE}"))
        request = Request("POST", path, dict(ruleset))
        if current is not None:
            request = Request("PUT", f"{path}/{current['id']}", dict(ruleset))
        return Change(state, f"as in {file}", (request,), details)

    return change


def lacks_delivery_key(
    api: GitHub, repository: Repository, root: Path, ruleset: Ruleset
) -> str | None:
    """What a ruleset that only deploy keys may bypass must wait for; None if it need not.

    Raises:
        GitopsError: If a workflow cannot be read.
        GitHubError: If GitHub cannot be reached or does not show keys or names of secrets.
    """
    if not bypassed_by_deploy_keys(ruleset):
        return None
    if all(key.get("read_only", True) for key in api.items(f"{repository.path}/keys")):
        return "no deploy key may write"
    told = read_named(root).told.get(Told("secrets", DELIVERY_KEY), frozenset())
    for name in sorted(told):
        path = f"{environment_path(repository, name)}/secrets"
        if api.get_or_none(environment_path(repository, name)) is None or not any(
            secret["name"] == DELIVERY_KEY for secret in api.items(path, key="secrets")
        ):
            return f"the environment {name} has no secret {DELIVERY_KEY}"
    return None


def environment_path(repository: Repository, name: str) -> str:
    """Where the REST API has an environment."""
    return f"{repository.path}/environments/{quote(name, safe='')}"


def environment_change(name: str) -> Setting:
    """An environment must be there, and not for every branch: its secrets would be everybody's.

    Which branches it is for stays as it is, where somebody has chosen; doctor says what it is.
    """

    def change(api: GitHub, repository: Repository, root: Path) -> Change | None:
        path = environment_path(repository, name)
        branch = str(repository.facts.get("default_branch"))
        policies = f"{path}/deployment-branch-policies"
        found = api.get_or_none(path)
        policy = (found or {}).get("deployment_branch_policy")
        allow = Request("POST", policies, {"name": branch, "type": "branch"})
        if policy is not None:
            if policy.get("protected_branches") or any(api.items(policies, key="branch_policies")):
                return None
            return Change("for no branch", f"for {branch} only", (allow,))
        body = {**_protection(found or {}), "deployment_branch_policy": _SELECTED}
        return Change(
            ABSENT if found is None else "for every branch",
            f"for {branch} only",
            (Request("PUT", path, body), allow),
        )

    return change


def _protection(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What protects an environment already, as it must be sent with every change to stay."""
    kept: dict[str, Any] = {}
    for rule in environment.get("protection_rules") or ():
        if rule["type"] == "wait_timer":
            kept["wait_timer"] = rule["wait_timer"]
        if rule["type"] == "required_reviewers":
            kept["prevent_self_review"] = bool(rule.get("prevent_self_review"))
            kept["reviewers"] = [
                {"type": entry["type"], "id": entry["reviewer"]["id"]}
                for entry in rule.get("reviewers") or ()
            ]
    return kept


def squash_change(api: GitHub, repository: Repository, root: Path) -> Change | None:
    """The ways of merging that main's ruleset allows must not all be switched off."""
    allowed = parameter(load_ruleset(root), "pull_request", "allowed_merge_methods", [])
    if "squash" not in allowed or repository.facts.get("allow_squash_merge") is not False:
        return None
    return Change("off", "on", (Request("PATCH", repository.path, {"allow_squash_merge": True}),))


def label_change(label: str) -> Setting:
    """A label by which a maintainer consents must exist."""

    def change(api: GitHub, repository: Repository, root: Path) -> Change | None:
        path = f"{repository.path}/labels"
        if api.get_or_none(f"{path}/{quote(label)}") is not None:
            return None
        body = {"name": label, "color": _LABEL_COLOUR, "description": _LABELS[label]}
        return Change(ABSENT, "present", (Request("POST", path, body),))

    return change


def workflow_permissions_change(api: GitHub, repository: Repository, root: Path) -> Change | None:
    """A workflow that asks for nothing must get a token that reads, and none may approve."""
    path = f"{repository.path}/actions/permissions/workflow"
    current = {name: value for name, value in api.get(path).items() if name in _WORKFLOWS}
    if current == _WORKFLOWS:
        return None
    request = Request("PUT", path, _WORKFLOWS)
    return Change(_permissions(current), _permissions(_WORKFLOWS), (request,))


def _permissions(values: Mapping[str, Any]) -> str:
    may = "may" if values.get("can_approve_pull_request_reviews") else "may not"
    return f"{values.get('default_workflow_permissions')}, {may} approve pull requests"


def alerts_change(api: GitHub, repository: Repository, root: Path) -> Change | None:
    """Dependabot alerts must be on; they bring the dependency graph with them."""
    path = f"{repository.path}/vulnerability-alerts"
    try:
        api.get(path)
    except GitHubError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        return Change("off", "on", (Request("PUT", path),))
    return None


SETTINGS: Mapping[str, Setting] = {
    **{f"label {label}": label_change(label) for label in _LABELS},
    "workflow permissions": workflow_permissions_change,
    "Dependabot alerts": alerts_change,
    "squash merging": squash_change,
}


def ruleset_settings(root: Path) -> Mapping[Path, str]:
    """What the setting of each ruleset file is called."""
    return {file: f"ruleset {file.stem}" for file in ruleset_files(root)}


def all_settings(root: Path) -> Mapping[str, Setting]:
    """Every setting, the rulesets last: nothing that the others need is locked out by them.

    Raises:
        GitopsError: If a workflow cannot be read.
    """
    rulesets = ruleset_settings(root).items()
    environments = read_named(root).environments
    return {
        **SETTINGS,
        **{f"environment {name}": environment_change(name) for name in environments},
        **{name: ruleset_change(file) for file, name in rulesets},
    }


def approval_problem(
    api: GitHub, repository: Repository, ruleset: Ruleset, entries: list[Entry]
) -> str | None:
    """Why some pull requests could never be approved, if that is so.

    GitHub lets nobody approve a pull request of their own, so every approval that the ruleset asks
    for needs a second person.

    Raises:
        GitHubError: If GitHub cannot be reached or does not show who works here.
    """
    if not parameter(ruleset, "pull_request", "required_approving_review_count", 0):
        return None
    relax = (
        f"or, in {RULESET}, set required_approving_review_count to 0 and "
        "require_code_owner_review and require_last_push_approval to false"
    )
    path = f"{repository.path}/collaborators"
    people = [p for p in api.items(path) if (p.get("permissions") or {}).get("push")]
    if len(people) < 2:
        return (
            "one person works here, and nobody can approve a pull request of their own: invite a "
            f"second one with write access, {relax}"
        )
    alone = [e for e in entries if len(e.owners) == 1 and "/" not in e.owners[0]]
    if alone and parameter(ruleset, "pull_request", "require_code_owner_review", False):
        owner, pattern = alone[0].owners[0], alone[0].pattern
        return (
            f"{owner} owns {pattern} alone, and cannot approve a change of it of their own: add a "
            f"second owner or a team in CODEOWNERS, {relax}"
        )
    return None
