"""What an event's change is judged against: the last commit of its base that passed the pipeline.

A commit may be on the default branch and yet be none to go by: where nothing keeps people from
pushing to it, what was pushed last may just have been blocked. Held against that, the next commit
would let it pass. So the champion, and the contract, are those of the newest commit in the base's
history whose pipeline passed when it was pushed to the base's branch. No setting says which: it is
what GitHub remembers of the runs. A run that passed the second time has passed.

On a branch for a hotfix, whoever made it may have pushed what they liked with it, and a workflow of
their own beside that. So of its commits only those count that a pull request brought there, and
else those of the default branch that it starts from, what production runs among them.

What GitHub does not remember any more, since it keeps runs for some 400 days, the branches of the
environments and the tags of releases still tell: only what had passed was delivered.

Without an answer from GitHub, a push to the default branch is not judged at all. A pull request is
then judged against its base as it is: after the merge it is judged again, by a run that asks again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import NO_COMMIT, GitError, git, is_no_commit
from gitops_ml.core.json_text import load_json
from gitops_ml.github.client import GitHub, GitHubError, connect
from gitops_ml.github.event import Event, named_base, read_event
from gitops_ml.github.pulls import came_along, was_merged
from gitops_ml.github.runs import count_runs, pushed_runs

ENVIRONMENT_BRANCHES = "refs/remotes/origin/env/"
RELEASE_TAGS = "refs/tags/release-*"
_SHORT = 10
_START = (
    "make a branch hotfix/... from the commit that production runs, and the pull request to that; "
    "docs/deliver.md says how"
)


class NotToldError(GitopsError):
    """Nobody says which commit passed last; the message says why, and what to do."""


@dataclass(frozen=True)
class Base:
    """What a change is judged against.

    Attributes:
        revision: A git revision; nothing but zeros if there is nothing to be judged against.
        notes: What a reader of the report should know about it.
        run: GitHub's number of the run that passed; None if no run is known to have.
    """

    revision: str
    notes: tuple[str, ...] = ()
    run: int | None = None


@dataclass(frozen=True)
class _History:
    """The commits that the base may be one of.

    Attributes:
        root: A folder of the working tree.
        branch: The base's branch: the default branch, or one for a hotfix.
        default: The default branch.
        named: The base that the event names.
        pushed: The commit that was pushed to a branch that is delivered; None for other events.
        commits: The named base or what was pushed, and all that led to it; what was pushed itself
            is left out, since it is what is judged. The newest first.
    """

    root: Path
    branch: str
    default: str
    named: str
    pushed: str | None
    commits: Sequence[str]

    @property
    def was_rewritten(self) -> bool:
        return self.named not in self.commits

    @property
    def is_hotfix(self) -> bool:
        return self.branch != self.default

    def line(self) -> frozenset[str]:
        """Of the commits those that were on the branch itself, not beside it and merged."""
        listed = _git(self.root, "rev-list", "--first-parent", self.pushed or self.named, "--")
        return frozenset(listed.split())


def base_of(event: Event, root: Path = Path()) -> Base:
    """What the event's change is judged against.

    Args:
        event: What the workflow runs for.
        root: A folder of the working tree, with the whole history.

    Raises:
        EventError: If the payload lacks something.
        GitError: If the named base is not in the repository.
        NotToldError: If GitHub cannot be asked about a push to the default branch.
    """
    named = named_base(event)
    if is_no_commit(named) and event.delivered_branch not in (None, event.default_branch):
        named = _start(event, root)
    if is_no_commit(named):
        return Base(named)
    history = _history(event, root, named)
    if event.name == "merge_group" and _is_queued(history):
        # Another pull request's merge, which must pass before this one gets its turn.
        return Base(history.named)
    try:
        api, repository = connect(root)
        return _newest_passed(api, repository, history)
    except GitHubError as error:
        return _without_answer(history, str(error))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return _without_answer(history, f"GitHub's answer was not understood: {error!r}")


def was_blocked(commit: str, root: Path = Path()) -> bool:
    """Whether the pipeline ran for a commit of the default branch and never passed.

    Outside of a workflow, and where GitHub does not answer, nothing is known of that: False.
    """
    try:
        event = read_event()
        api, repository = connect(root)
        runs = pushed_runs(api, repository, event.default_branch, head_sha=commit)
        ended = [run["conclusion"] for run in runs if run["status"] == "completed"]
    except (GitopsError, LookupError, TypeError, ValueError):
        return False
    return bool(ended) and "success" not in ended


def _start(event: Event, root: Path) -> str:
    """What a new branch for a hotfix starts from: the newest commit before its own of main."""
    pushed, default = event.commit("after"), f"origin/{event.default_branch}"
    start = _git(root, "merge-base", pushed, default)
    return start if start != pushed else _commit(root, f"{pushed}^")


def _history(event: Event, root: Path, named: str) -> _History:
    pushed = event.commit("after") if event.delivered_branch is not None else None
    if pushed is None:
        named = _commit(root, named)
    commits = _git(root, "rev-list", pushed or named, "--").split()
    return _History(
        root=root,
        branch=event.target,
        default=event.default_branch,
        named=named,
        pushed=pushed,
        commits=[commit for commit in commits if commit != pushed],
    )


def _commit(root: Path, revision: str) -> str:
    commit_of = f"{revision}^{{commit}}"
    done = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", commit_of)
    if done.returncode != 0:
        raise GitError(
            f"the base {revision} is not in this repository: check out with `fetch-depth: 0`, or "
            "`git fetch` it"
        )
    return done.stdout.strip()


def _is_queued(history: _History) -> bool:
    """Whether the named base is not on the default branch yet."""
    tip = f"refs/remotes/origin/{history.branch}"
    done = git(history.root, "merge-base", "--is-ancestor", history.named, tip)
    return done.returncode == 1


def _newest_passed(api: GitHub, repository: str, history: _History) -> Base:
    """Ask GitHub which commits passed, and choose the newest.

    Raises:
        GitHubError: If GitHub cannot be asked.
        GitError: If the history is not here.
        NotToldError: If nothing that a hotfix starts from has passed, or it does not start at what
            production runs.
    """
    found, elsewhere = _passed(api, repository, history)
    passed, run = found if found is not None else (_delivered(history), None)
    if passed is not None:
        _check_start(history)
        return Base(passed, _why(history, passed), run)
    if _git(history.root, "rev-parse", "--is-shallow-repository") == "true":
        raise GitError(
            f"no commit that passed is among the {len(history.commits)} of this clone, which does "
            "not hold the whole history: check out with `fetch-depth: 0`, or "
            "`git fetch --unshallow`"
        )
    if history.is_hotfix:
        raise NotToldError(
            f"no commit that {history.branch} starts from has passed the pipeline on "
            f"{history.default}, so there is nothing to be judged against: {_START}"
        )
    if elsewhere or _some_are_forgotten(api, repository):
        return _unknown(history)
    return Base(
        NO_COMMIT,
        (f"No commit of {history.branch} has passed the pipeline yet: there is no champion.",),
    )


def _passed(api: GitHub, repository: str, history: _History) -> tuple[tuple[str, int] | None, bool]:
    """The newest commit that passed, with its run; and whether others passed elsewhere.

    A branch that was renamed has its earlier runs under the earlier name: where nothing has passed
    under this one, any name will do, for what was on the branch itself.
    """
    known, line, elsewhere = frozenset(history.commits), history.line(), False
    for branch in (history.branch, history.default if history.is_hotfix else None):
        if branch is None:
            known &= line
        found = []
        for run in pushed_runs(api, repository, branch, status="success"):
            commit = str(run["head_sha"])
            if run["conclusion"] != "success" or commit == history.pushed:
                continue
            if commit not in known:
                elsewhere = elsewhere or branch is not None
                continue
            # A commit of a hotfix that nobody merged came with the branch, from whoever made it.
            own = branch in (history.default, None)
            if not own and not was_merged(api, repository, commit, history.branch):
                continue
            if commit not in line and came_along(api, repository, commit):
                continue
            if commit == history.named:
                return (commit, int(run["id"])), elsewhere
            found.append((int(run["id"]), commit))
        if found:
            newest_first = sorted(found, reverse=True)
            last = _last_of(history.root, [commit for _, commit in newest_first])
            return (last, max(run for run, commit in found if commit == last)), elsewhere
    return None, elsewhere


def _last_of(root: Path, commits: Iterable[str]) -> str:
    """The first of some commits that led to no other of them."""
    distinct = list(dict.fromkeys(commits))
    last = set(_git(root, "merge-base", "--independent", *distinct).split())
    return next(commit for commit in distinct if commit in last)


def _delivered(history: _History) -> str | None:
    """The newest commit of the history that was delivered; None if nothing tells of one."""
    delivered = set(_git(history.root, "rev-list", "--no-walk", f"--glob={RELEASE_TAGS}").split())
    branches = _git(history.root, "for-each-ref", "--format=%(refname)", ENVIRONMENT_BRANCHES)
    delivered |= {commit for name in branches.split() if (commit := _released(history.root, name))}
    found = [commit for commit in history.commits if commit in delivered]
    return _last_of(history.root, found) if found else None


def _released(root: Path, branch: str) -> str | None:
    """The commit that an environment's branch runs; None if it does not say."""
    shown = git(root, "show", f"{branch}:release.json")
    try:
        return str(load_json(shown.stdout)["source"]["commit"])
    except (LookupError, TypeError, ValueError):
        return None


def _check_start(history: _History) -> None:
    """Make sure that a hotfix mends what production runs, as far as its branch is here.

    Raises:
        NotToldError: If it starts elsewhere: it could not be delivered.
    """
    running = _released(history.root, f"{ENVIRONMENT_BRANCHES}production")
    if history.is_hotfix and running is not None and running not in history.commits:
        raise NotToldError(
            f"{history.branch} does not start at what production runs, {running[:_SHORT]}: {_START}"
        )


def _some_are_forgotten(api: GitHub, repository: str) -> bool:
    """Whether there were more runs of the pipeline than GitHub remembers.

    It numbers them: this one's number is how many there have been.
    """
    number = os.environ.get("GITHUB_RUN_NUMBER", "")
    return not number.isdecimal() or count_runs(api, repository) < int(number)


def _why(history: _History, passed: str) -> tuple[str, ...]:
    """Why a commit is the base that the event does not name."""
    if passed == history.named:
        return ()
    chosen = f"{passed[:_SHORT]} is the last commit that passed the pipeline"
    named = history.named[:_SHORT]
    if history.pushed is None:
        return (
            f"{chosen}: the base itself, {named}, has not. Once it has, run the job again to be "
            "judged against it.",
        )
    if history.was_rewritten:
        return (f"{chosen}: {history.branch} was rewritten, and {named} does not lead here.",)
    return (f"{chosen}: {named}, which {history.branch} held before, has not.",)


def _unknown(history: _History) -> Base:
    """What is left to go by where commits have passed that nobody can tell any more."""
    named = history.named
    if history.was_rewritten:
        parent = git(history.root, "rev-parse", "--verify", "--quiet", f"{history.pushed}^1")
        named = parent.stdout.strip() or NO_COMMIT
    against = "nothing" if is_no_commit(named) else named[:_SHORT]
    return Base(
        named,
        (
            f"GitHub remembers no commit of this history of {history.branch} that passed the "
            f"pipeline, though some may have: judged against {against}, whatever came of it.",
        ),
    )


def _without_answer(history: _History, why: str) -> Base:
    if not history.was_rewritten and _delivered(history) == history.named:
        return Base(history.named)
    if history.pushed is None:
        return Base(
            history.named,
            (
                f"GitHub does not say whether the base has passed the pipeline ({why}): judged "
                "against it as it is. The run after the merge asks again.",
            ),
        )
    raise NotToldError(
        f"GitHub does not say which commit of {history.branch} passed the pipeline last, and only "
        f"that one's model is the champion: {why}\nrun the job again; in a workflow it needs "
        "GITHUB_TOKEN and the permission `actions: read`"
    )


def _git(root: Path, *arguments: str) -> str:
    done = git(root, *arguments)
    if done.returncode != 0:
        raise GitError(
            f"`git {' '.join(arguments[:2])}` failed: {done.stderr.strip()}; is the whole history "
            "here? Check out with `fetch-depth: 0`"
        )
    return done.stdout.strip()
