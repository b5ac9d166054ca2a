"""What doctor checks of what workflows are told on GitHub: variables, secrets, environments.

What to check is what the workflows name. Of variables and secrets only the names are looked at.

https://docs.github.com/en/rest/actions/variables, https://docs.github.com/en/rest/actions/secrets,
https://docs.github.com/en/rest/deployments/environments
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from gitops_ml.core.errors import GitopsError
from gitops_ml.doctor.check import Check, Status
from gitops_ml.github.client import GitHub, GitHubError
from gitops_ml.github.settings import DELIVERY_KEY, Repository, environment_path
from gitops_ml.github.workflows import Named, Told, read_named

# Where people approve.
PRODUCTION = "production"

# What a branch's own workflow must not be able to read: a secret of an environment, not of the
# repository.
_GUARDED = frozenset(
    Told("secrets", name) for name in (DELIVERY_KEY, "BENTO_CLOUD_API_KEY", "REGISTRY_TOKEN")
)
# Set by GitHub; looked at by a check of its own.
_ELSEWHERE = frozenset({Told("secrets", "GITHUB_TOKEN"), Told("variables", "DVC_REMOTE_URL")})
# The graver, the later.
_GRAVITY: Sequence[Status] = ("ok", "skipped", "warn", "fail")
_COMMANDS: Mapping[str, str] = {
    "variables": "`gh variable set NAME --body VALUE`",
    "secrets": "`gh secret set NAME`",
}


def settings_looks(
    api: GitHub, repository: Repository, root: Path
) -> Mapping[str, Callable[[], Check]]:
    """The checks of what the workflows name, by name; none where they name nothing."""
    try:
        named = read_named(root)
    except GitopsError as error:
        broken = Check("workflows", "fail", str(error), "correct the file, or restore it from git")
        return {broken.name: lambda: broken}
    looks: dict[str, Callable[[], Check]] = {}
    if named.told.keys() - _ELSEWHERE:
        looks["variables and secrets"] = partial(check_told, api, repository, named)
    for environment in named.environments:
        look = partial(check_environment, api, repository, environment)
        looks[f"environment {environment}"] = look
    return looks


def check_told(api: GitHub, repository: Repository, named: Named) -> Check:
    """What workflows are told by settings: each switches something on, none has to be set."""
    name = "variables and secrets"
    # Variables first.
    keys = sorted(named.told.keys() - _ELSEWHERE, key=lambda key: (key.kind == "secrets", key.name))
    told = {key: named.told[key] for key in keys}
    known = {kind: _set(api, repository, kind, told) for kind in _kinds(told)}
    guarded = [key for key in told if key in _GUARDED and told[key]]
    of_the_repository = guarded and set(
        _names(api, f"{repository.path}/actions/secrets", "secrets")
    )
    for key in (key for key in guarded if key.name in of_the_repository):
        environments = ", ".join(sorted(told[key]))
        return Check(
            name,
            "fail",
            f"{key} is the repository's: a workflow of any branch can read it",
            f"`gh secret set {key.name} --env` for {environments}, then "
            f"`gh secret delete {key.name}`",
        )
    missing = [key for key in told if key.name not in known[key.kind]]
    if missing:
        commands = " or ".join(_COMMANDS[kind] for kind in _kinds(missing))
        return Check(
            name,
            "skipped",
            f"not set: {', '.join(map(str, missing))}",
            f"the pages in docs/ say what each does; to set one: {commands}",
        )
    return Check(name, "ok", ", ".join(map(str, told)))


def _kinds(told: Iterable[Told]) -> list[str]:
    present = {key.kind for key in told}
    return [kind for kind in _COMMANDS if kind in present]


def _set(
    api: GitHub, repository: Repository, kind: str, told: Mapping[Told, frozenset[str]]
) -> set[str]:
    """The names of one kind that a job which uses them is told."""
    uses = {key.name: environments for key, environments in told.items() if key.kind == kind}
    found = set(_names(api, f"{repository.path}/actions/{kind}", kind))
    # Only an organization has some of its own.
    if (repository.facts.get("owner") or {}).get("type") == "Organization":
        found |= set(_names(api, f"{repository.path}/actions/organization-{kind}", kind))
    for environment in sorted(frozenset().union(*uses.values())):
        names = _of_environment(api, repository, environment, kind)
        found |= {name for name in names if environment in uses.get(name, ())}
    return found


def _of_environment(api: GitHub, repository: Repository, name: str, kind: str) -> set[str]:
    try:
        return set(_names(api, f"{environment_path(repository, name)}/{kind}", kind))
    except GitHubError as error:
        if error.status == httpx.codes.NOT_FOUND:
            # There is no such environment yet.
            return set()
        raise


def _names(api: GitHub, path: str, kind: str) -> Iterator[str]:
    return (str(item["name"]) for item in api.items(path, key=kind))


def check_environment(api: GitHub, repository: Repository, name: str) -> Check:
    """Somebody must be asked before production, and what nobody reviewed must not get anywhere."""
    check = f"environment {name}"
    environment = api.get_or_none(environment_path(repository, name))
    if environment is None:
        return Check(
            check,
            "skipped",
            "not there yet: the first job that names it makes it, open to every branch",
            "`make github-setup APPLY=1` makes it, for the default branch only",
        )
    found = [_branches(api, repository, name, environment)]
    if name == PRODUCTION or _reviewers(repository, environment):
        found.insert(0, _asking(repository, name, environment))
    wrong = [part for part in found if part.status != "ok"]
    if not wrong:
        return Check(check, "ok", ", ".join(part.detail for part in found))
    return Check(
        check,
        max((part.status for part in wrong), key=_GRAVITY.index),
        "; ".join(part.detail for part in wrong),
        f"Settings, Environments, {name}, {' and '.join(part.remedy for part in wrong)}",
    )


def _asking(repository: Repository, name: str, environment: Mapping[str, Any]) -> Check:
    """Whether anybody is asked before a job goes on."""
    asked = _reviewers(repository, environment)
    if asked:
        return Check(name, "ok", f"asks {', '.join(asked)}")
    plan = _plan(repository, "required reviewers take", "GitHub Enterprise")
    return Check(name, "skipped", f"nobody is asked before {name}{plan}", "Required reviewers")


def _reviewers(repository: Repository, environment: Mapping[str, Any]) -> list[str]:
    """Who is asked: people and teams, as CODEOWNERS names them."""
    organization = repository.name.partition("/")[0]
    return [
        f"@{organization}/{entry['reviewer']['slug']}"
        if entry["type"] == "Team"
        else f"@{entry['reviewer']['login']}"
        for rule in environment.get("protection_rules") or []
        if rule["type"] == "required_reviewers"
        for entry in rule.get("reviewers") or []
    ]


def _branches(
    api: GitHub, repository: Repository, name: str, environment: Mapping[str, Any]
) -> Check:
    """Which branches may deploy to an environment; the default branch alone is reviewed."""
    branch = str(repository.facts.get("default_branch"))
    remedy = f"Deployment branches and tags: {branch}"
    plan = _plan(repository, "to limit it takes", "a paid plan")
    policy = environment.get("deployment_branch_policy")
    if policy is None:
        return Check(name, "warn", f"every branch may deploy to it{plan}", remedy)
    if policy.get("protected_branches"):
        # GitHub lets every branch pass as long as none is protected.
        if next(api.items(f"{repository.path}/branches", protected="true"), None) is None:
            detail = "every branch may deploy to it: it is for protected ones, and there is none"
            return Check(name, "warn", detail, remedy)
        return Check(name, "ok", "from protected branches only")
    policies = api.items(
        f"{environment_path(repository, name)}/deployment-branch-policies", key="branch_policies"
    )
    allowed = [(p.get("type") or "branch", p["name"]) for p in policies]
    others = [" ".join(entry) for entry in allowed if entry != ("branch", branch)]
    if others:
        return Check(name, "warn", f"{', '.join(others)} may deploy to it", f"{remedy} only")
    if not allowed:
        return Check(name, "fail", "no branch may deploy to it", remedy)
    return Check(name, "ok", f"from {branch} only")


def _plan(repository: Repository, what: str, plan: str) -> str:
    """What a setting takes where it is not for everybody; GitHub does not say what there is."""
    facts = repository.facts
    if not facts.get("private") or facts.get("visibility") == "internal":
        return ""
    return f" ({what} a public repository or {plan})"
