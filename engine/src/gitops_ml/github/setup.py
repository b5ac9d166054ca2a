"""Protects the repository on GitHub: shows what is missing, and sets it when told to.

    gitops-ml github-setup                   # show
    gitops-ml github-setup --apply           # set
    gitops-ml github-setup --owner @org/team # who reviews what CODEOWNERS lists

Setting twice has the same effect as once. Exit code 0: shown or set; 1: it could not be.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from gitops_ml.core.errors import GitopsError
from gitops_ml.github.client import GitHub, GitHubError, connect
from gitops_ml.github.codeowners import (
    CODEOWNERS,
    check_owner,
    fill_in,
    parse_codeowners,
    read_codeowners,
    without_owner,
)
from gitops_ml.github.ruleset import (
    RULESET,
    Ruleset,
    load_rulesets,
    missing_checks,
)
from gitops_ml.github.settings import (
    Change,
    Repository,
    all_settings,
    approval_problem,
    read_repository,
)


def find_owner(repository: Repository, owner: str | None) -> str:
    """Who is to own the lines of CODEOWNERS that have no owner.

    Args:
        repository: As GitHub describes it.
        owner: Who was named, if anybody was; else the person whose repository it is.

    Raises:
        GitopsError: If nobody was named and the repository is an organisation's, or if the
            name has not the form of an owner.
    """
    if owner is not None:
        return check_owner(owner)
    holder = repository.facts["owner"]
    if holder["type"] == "User":
        return check_owner(f"@{holder['login']}")
    raise GitopsError(
        f"{CODEOWNERS}: no owner yet: name the team that reviews, "
        f"e.g. OWNER=@{holder['login']}/ml-platform"
    )


def plan_codeowners(root: Path, repository: Repository, owner: str | None) -> str:
    """The text that CODEOWNERS is to have.

    Raises:
        GitopsError: If the file cannot be read or there is no owner to fill in.
    """
    text = read_codeowners(root)
    if not without_owner(text):
        return text
    return fill_in(text, find_owner(repository, owner))


def plan_settings(api: GitHub, repository: Repository, root: Path) -> dict[str, Change | None]:
    """The change that each setting needs, if any.

    Raises:
        GitopsError: If a ruleset file cannot be used.
        GitHubError: If GitHub cannot be reached or does not show a setting.
    """
    return {name: change(api, repository, root) for name, change in all_settings(root).items()}


def check_first(
    api: GitHub, repository: Repository, ruleset: Ruleset, root: Path, codeowners: str
) -> None:
    """Make sure that main's ruleset would not lock everybody out.

    Raises:
        GitopsError: If nobody may set it, no workflow reports a required check, or nobody could
            approve.
        GitopsError: If a workflow cannot be read.
        GitHubError: If GitHub cannot be reached or does not show who works here.
    """
    if not repository.administered:
        raise GitopsError(
            f"the token's owner is no administrator of {repository.name}: ask one to run this"
        )
    missing = missing_checks(ruleset, root)
    if missing:
        raise GitopsError(
            f"{RULESET}: no job that runs on pull requests is named {' or '.join(missing)}, so "
            "nothing could be merged any more: correct the name there or in .github/workflows"
        )
    problem = approval_problem(api, repository, ruleset, parse_codeowners(codeowners))
    if problem is not None:
        raise GitopsError(problem)


def show(repository: Repository, codeowners: int, changes: Mapping[str, Change | None]) -> str:
    """What is, and what is to be, line by line."""
    lines = [f"{repository.name} on GitHub"]
    owned = "as wanted" if codeowners == 0 else f"{codeowners} lines without an owner -> filled in"
    lines.append(f"  {'code owners':<26} {owned}")
    for name, change in changes.items():
        if change is None:
            lines.append(f"  {name:<26} as wanted")
            continue
        lines.append(f"  {name:<26} {change.current} -> {change.wanted}")
        lines += [f"  {'':<26}   {detail}" for detail in change.details]
    return "\n".join(lines)


def apply(api: GitHub, changes: Mapping[str, Change | None]) -> None:
    """Make every change, saying each when it is made.

    Raises:
        GitHubError: If GitHub refuses one; those before it are made, those after it are not.
    """
    for name, change in changes.items():
        if change is None:
            continue
        if not change.requests:
            print(f"not set: {name}: {'; '.join(change.details)}", flush=True)
            continue
        try:
            for request in change.requests:
                api.send(request.method, request.path, request.body)
        except GitHubError as error:
            raise GitHubError(f"{name} was not set: {error}", error.status) from error
        print(f"set: {name}", flush=True)


def protect(root: Path, owner: str | None, wanted: bool) -> None:
    """Show what is missing and, if wanted, set it.

    Raises:
        GitHubError, GitopsError: See above.
    """
    ruleset = load_rulesets(root)[RULESET]
    api, name = connect(root)
    repository = read_repository(api, name)
    before = read_codeowners(root)
    after = plan_codeowners(root, repository, owner)
    changes = plan_settings(api, repository, root)
    print(show(repository, len(without_owner(before)), changes), flush=True)
    check_first(api, repository, ruleset, root, after)
    if not wanted:
        print("Nothing was changed. With APPLY=1 it is set as shown.")
        return
    if after != before:
        (root / CODEOWNERS).write_text(after, encoding="utf-8")
        print(f"written: {CODEOWNERS}; commit and push it, it counts once it is on the main branch")
    apply(api, changes)
    print("`make doctor` checks it.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--apply", action="store_true", help="set what is missing")
    parser.add_argument("--owner", metavar="@OWNER", help="who reviews what CODEOWNERS lists")


def run(options: argparse.Namespace) -> int:
    """Run from the command line; see the module's text."""
    protect(Path(), options.owner, options.apply)
    return 0
