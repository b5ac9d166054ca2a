"""What doctor checks on GitHub, by the REST API; skipped, and said so, where it cannot ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.judge_files import NOT_THERE_YET, is_read
from gitops_ml.core.run import ask
from gitops_ml.core.settings import load_params
from gitops_ml.doctor.check import Check, Status
from gitops_ml.doctor.settings import settings_looks
from gitops_ml.github.client import GitHub, GitHubError, NotSetUpError, connect, find_remote
from gitops_ml.github.codeowners import (
    CODEOWNERS,
    Entry,
    deciding_entry,
    parse_codeowners,
    read_codeowners,
    without_owner,
)
from gitops_ml.github.event import default_branch
from gitops_ml.github.ruleset import (
    RULESET,
    load_ruleset,
    load_rulesets,
    missing_checks,
    required_checks,
)
from gitops_ml.github.settings import (
    SETTINGS,
    Change,
    Repository,
    approval_problem,
    current_ruleset,
    read_repository,
    ruleset_change,
    ruleset_settings,
)

# Enough to tell a bad moment from no network, without making people wait.
ATTEMPTS = 2
SET_IT = "`make github-setup` shows it, `make github-setup APPLY=1` sets it"
# So many files are named, the rest is counted.
_NAMED = 3
# The settings that only an administrator may see.
_FOR_ADMINISTRATORS = frozenset({"workflow permissions", "Dependabot alerts"})
_ASK_ADMINISTRATOR = "let an administrator of the repository run `make doctor`"


def check_rulesets(root: Path) -> Check:
    """Every ruleset file must be one that github-setup can use."""
    name = "rulesets"
    try:
        rulesets = load_rulesets(root)
    except GitopsError as error:
        return Check(name, "fail", str(error), "restore the file from git, or correct it")
    return Check(name, "ok", ", ".join(file.name for file in rulesets))


def check_required_checks(root: Path) -> Check:
    """What main's ruleset waits for must be the name of a job that runs on pull requests."""
    name = "required checks"
    try:
        ruleset = load_ruleset(root)
        missing = missing_checks(ruleset, root)
    except GitopsError as error:
        return Check(name, "fail", str(error), "restore the file from git, or correct it")
    if missing:
        return Check(
            name,
            "fail",
            f"no job that runs on pull requests is named {' or '.join(missing)}",
            f"correct the name in {RULESET} or in .github/workflows",
        )
    required = required_checks(ruleset)
    if not required:
        return Check(
            name, "fail", "none: a red pull request can be merged", f"name one in {RULESET}"
        )
    return Check(name, "ok", ", ".join(required))


def check_owned(root: Path) -> Check:
    """Somebody must own every file that the judge is made of or reads."""
    name = "code owners"
    try:
        text = read_codeowners(root)
    except GitopsError as error:
        return Check(name, "fail", str(error), "restore the file from git")
    entries = parse_codeowners(text)
    waiting = [entry.pattern for entry in without_owner(text)]
    if waiting or not entries:
        return Check(
            name,
            "fail",
            f"nobody is asked about {', '.join(waiting) or 'anything'}",
            "`make github-setup OWNER=@org/team APPLY=1`, then commit and push .github/CODEOWNERS",
        )
    unowned = _unowned(root, entries)
    if unowned:
        return Check(name, "fail", _unowned_files(unowned), _own_them(list(unowned.values())))
    owners = sorted({owner for entry in entries for owner in entry.owners})
    return Check(name, "ok", ", ".join(owners))


def _unowned(root: Path, entries: Sequence[Entry]) -> Mapping[str, Entry | None]:
    """The files that the judge is made of or reads and nobody owns, with the line that says so."""
    source = None
    with suppress(GitopsError):
        source = load_params(root).data.source
    here = (ask(root, "git", "ls-files", "-z") or "").split("\0")
    found = {}
    for path in dict.fromkeys([*filter(None, here), *NOT_THERE_YET]):
        entry = deciding_entry(entries, path)
        if (entry is None or not entry.owners) and is_read(path, source):
            found[path] = entry
    return found


def _unowned_files(unowned: Collection[str]) -> str:
    first = ", ".join(list(unowned)[:_NAMED])
    more = f" and {len(unowned) - _NAMED} more" if len(unowned) > _NAMED else ""
    return f"nobody is asked about {first}{more}, which the gate reads or runs"


def _own_them(deciding: Collection[Entry | None]) -> str:
    """What to write in CODEOWNERS so that these lines decide otherwise."""
    lines = {entry.line: entry.pattern for entry in deciding if entry is not None}
    advice = ["write `* @org/team` above all other lines"] if None in deciding else []
    advice += [f"take line {line} (`{lines[line]}`) away" for line in sorted(lines)]
    return f"in {CODEOWNERS}, {' and '.join(advice)}; commit and push it"


def check_github(root: Path) -> Iterator[Check]:
    """Every check of what protects the repository on GitHub, in order."""
    yield check_rulesets(root)
    yield check_required_checks(root)
    try:
        find_remote(root)
        yield check_owned(root)
        api, name = connect(root, ATTEMPTS)
        repository = read_repository(api, name)
    except NotSetUpError as error:
        found, _, remedy = str(error).partition(": ")
        yield Check("GitHub", "skipped", found, remedy)
        return
    except GitHubError as error:
        # No answer at all is no fault of the repository.
        status: Status = "skipped" if error.status is None else "fail"
        yield Check("GitHub", status, str(error), "check the network, the remote and the token")
        return
    yield Check("GitHub", "ok", repository.name)
    for check, look in _looks(api, repository, root).items():
        yield _guarded(check, look)


def _looks(api: GitHub, repository: Repository, root: Path) -> Mapping[str, Callable[[], Check]]:
    return {
        "default branch": lambda: check_default_branch(repository, root),
        "Actions": lambda: check_actions(api, repository),
        **{name: partial(check_setting, api, repository, root, name) for name in SETTINGS},
        **{
            name: partial(check_ruleset, api, repository, root, file, name)
            for file, name in ruleset_settings(root).items()
        },
        "code owners on GitHub": lambda: check_codeowners_errors(api, repository),
        "approvals": lambda: check_approvals(api, repository, root),
        "dependency review": lambda: check_dependency_review(api, repository),
        "DVC remote of workflows": lambda: check_remote_variable(api, repository),
        **settings_looks(api, repository, root),
    }


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """The outcome of a check, also if GitHub refuses to answer or a file cannot be read."""
    try:
        return look()
    except GitHubError as error:
        if error.status == httpx.codes.FORBIDDEN and "upgrade" in str(error).lower():
            remedy = "make the repository public, or move it to a plan that has this"
            return Check(name, "fail", str(error), remedy)
        if error.status in (None, httpx.codes.FORBIDDEN):
            return Check(name, "skipped", str(error), _ASK_ADMINISTRATOR)
        return Check(name, "fail", str(error), "see what GitHub says")
    except GitopsError as error:
        return Check(name, "fail", str(error), "restore the file from git, or correct it")


def check_default_branch(repository: Repository, root: Path) -> Check:
    """What is protected and delivered is GitHub's default branch: git must know it here, too."""
    branch, here = str(repository.facts.get("default_branch")), default_branch(root)
    if branch != here:
        remedy = (
            "`git fetch`, then `git remote set-head origin --auto`; or rename it to "
            f"{here} on GitHub (Settings, General, Default branch)"
        )
        return Check("default branch", "fail", f"{branch}, but here {here} is taken for it", remedy)
    return Check("default branch", "ok", branch)


def check_actions(api: GitHub, repository: Repository) -> Check:
    """Workflows must run at all."""
    if not repository.administered:
        return Check("Actions", "skipped", "shown to administrators only", _ASK_ADMINISTRATOR)
    if not api.get(f"{repository.path}/actions/permissions").get("enabled"):
        remedy = "Settings, Actions, General: allow actions"
        return Check("Actions", "fail", "no workflow runs", remedy)
    return Check("Actions", "ok", "enabled")


def check_setting(api: GitHub, repository: Repository, root: Path, name: str) -> Check:
    """A setting must be as `make github-setup` leaves it."""
    if name in _FOR_ADMINISTRATORS and not repository.administered:
        return Check(name, "skipped", "shown to administrators only", _ASK_ADMINISTRATOR)
    change = SETTINGS[name](api, repository, root)
    return Check(name, "ok", "as wanted") if change is None else _not_as_wanted(name, change)


def _not_as_wanted(name: str, change: Change) -> Check:
    detail = "; ".join((f"{change.current}, wanted: {change.wanted}", *change.details))
    return Check(name, "fail", detail, SET_IT)


def check_ruleset(api: GitHub, repository: Repository, root: Path, file: Path, name: str) -> Check:
    """GitHub must have the ruleset of the file."""
    change = ruleset_change(file)(api, repository, root)
    if change is not None and not change.requests:
        found = f"{change.current}: whoever may write here may deploy, since {change.details[-1]}"
        return Check(name, "warn", found.partition(": docs/")[0], "docs/deliver.md says how")
    if change is not None:
        return _not_as_wanted(name, change)
    if not repository.administered:
        ruleset = load_ruleset(root, file)
        current: Mapping[str, Any] = current_ruleset(api, repository, ruleset["name"]) or {}
        if "bypass_actors" not in current:
            detail = f"as in {file}, as far as it is shown: not who may bypass it"
            return Check(name, "warn", detail, _ASK_ADMINISTRATOR)
    return Check(name, "ok", f"as in {file}")


def check_codeowners_errors(api: GitHub, repository: Repository) -> Check:
    """Owners who do not exist or may not write are asked for nothing, silently."""
    name = "code owners on GitHub"
    answer = api.get_or_none(f"{repository.path}/codeowners/errors")
    if answer is None:
        return Check(
            name, "fail", f"there is no {CODEOWNERS} on the default branch", "commit and push it"
        )
    errors = [f"line {e['line']}: {e['kind']}: {e['source'].strip()}" for e in answer["errors"]]
    if errors:
        remedy = f"correct {CODEOWNERS}: owners must exist and have write access"
        return Check(name, "fail", "; ".join(errors), remedy)
    return Check(name, "ok", "every owner exists and may write")


def check_approvals(api: GitHub, repository: Repository, root: Path) -> Check:
    """There must be somebody who can approve."""
    entries = parse_codeowners(read_codeowners(root))
    problem = approval_problem(api, repository, load_ruleset(root), entries)
    if problem is not None:
        found, _, remedy = problem.partition(": ")
        return Check("approvals", "warn", found, remedy)
    return Check("approvals", "ok", "every pull request can be approved by somebody")


def check_dependency_review(api: GitHub, repository: Repository) -> Check:
    """GitHub must be able to compare the dependencies of two revisions."""
    name, branch = "dependency review", repository.facts.get("default_branch")
    try:
        api.get(f"{repository.path}/dependency-graph/compare/{branch}...{branch}")
    except GitHubError as error:
        if error.status not in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
            raise
        return Check(
            name,
            "skipped",
            "GitHub does not compare the dependencies of this repository",
            "enable the dependency graph (`make github-setup APPLY=1`) and, in a private "
            "repository, GitHub Code Security",
        )
    return Check(name, "ok", "available")


def check_remote_variable(api: GitHub, repository: Repository) -> Check:
    """The workflows share data and models through a DVC remote, once they know it."""
    name = "DVC remote of workflows"
    if api.get_or_none(f"{repository.path}/actions/variables/DVC_REMOTE_URL") is None:
        return Check(
            name,
            "skipped",
            "none: what DVC keeps stays in the cache of Actions",
            "`gh variable set DVC_REMOTE_URL --body URL`",
        )
    return Check(name, "ok", "DVC_REMOTE_URL is set")
