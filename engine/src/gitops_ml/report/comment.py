"""One comment on a pull request that always shows its newest report.

    gitops-ml comment

Runs on `workflow_run`, in the repository's own context, after a pull request's pipeline has ended:
the pipeline itself may not write, least of all for a fork. So nothing of the pull request is
checked out or run here, and what its run left behind is read as a stranger's (`run_artifacts.py`).
Which pull request it is, what its newest commit is, which files it touches and which jobs failed,
GitHub says, not the artifact.

The comment is found again by a mark that is not shown, in comments of the workflow's own account
only, and updated in place. A report is not written when the pull request is closed, has newer
commits, or shows a newer run. Exit code 0 when there is nothing to write, 1 on errors.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gitops_ml.core.errors import GitopsError
from gitops_ml.github.client import GitHub, GitHubError, connect, look_again
from gitops_ml.github.event import Event, EventError, read_event
from gitops_ml.report.markdown import details, shortened, verdict
from gitops_ml.report.run_artifacts import (
    ARCHIVE_BYTES,
    Evidence,
    EvidenceError,
    clean,
    from_archive,
    read_evidence,
)
from gitops_ml.report.touched import Touched, find_touched, notice
from gitops_ml.report.verdict_report import escape, folded, markdown_table

AUTHOR = "github-actions[bot]"
# GitHub takes 65,536 characters.
BODY_LENGTH = 65_000
POST_WAIT_SECONDS = 5.0
# Of the pipeline's artifacts, the first that is there is read.
ARTIFACTS = ("report", "data-report")

_MARK = re.compile(
    r"<!-- pipeline-report run=(\d{1,20}) attempt=(\d{1,9}) head=([0-9a-f]{40,64}) -->"
)
_RESULTS = {
    "success": "✅ passed",
    "failure": "❌ failed",
    "cancelled": "🚫 was cancelled",
    "timed_out": "❌ ran out of time",
    "startup_failure": "❌ could not start",
}
_FAILURES = frozenset(_RESULTS) - {"success"}


class NothingToWriteError(GitopsError):
    """There is no comment to write; the message says why."""


@dataclass(frozen=True, order=True)
class Mark:
    """Which run a comment shows; the later one is larger.

    Attributes:
        run: GitHub's number of the run; they rise through time.
        attempt: 1 for the first time it ran.
        head: The commit that it ran for.
    """

    run: int
    attempt: int
    head: str

    def __str__(self) -> str:
        """The mark as it stands in a comment, where it is not shown."""
        return f"<!-- pipeline-report run={self.run} attempt={self.attempt} head={self.head} -->"


@dataclass(frozen=True)
class Run:
    """A run of the pipeline that has ended.

    Attributes:
        mark: Which run.
        result: For example `success` or `failure`.
        started: When this attempt began.
        source: owner/name of the repository that the commit is in; None if it is gone.
        branch: The branch there.
    """

    mark: Mark
    result: str
    started: datetime
    source: str | None
    branch: str


@dataclass(frozen=True)
class Job:
    """A job of a run.

    Attributes:
        name: As the pull request's workflow calls it.
        result: For example `success` or `failure`.
        number: GitHub's number of the job.
        seconds: How long it took; None if it did not run.
        failed_steps: The names of the steps that failed.
    """

    name: str
    result: str
    number: int
    seconds: float | None
    failed_steps: tuple[str, ...]


def read_run(event: Event) -> Run:
    """The run that has ended.

    Raises:
        EventError: If the event lacks something.
        NothingToWriteError: If it did not run for a pull request, or did not run at all.
    """
    about = event.get("workflow_run.event")
    if about != "pull_request":
        raise NothingToWriteError(f"the pipeline ran for the event {about}, not for a pull request")
    result = str(event.get("workflow_run.conclusion"))
    if result not in _RESULTS:
        raise NothingToWriteError(f"the run ended as {result}: it ran nothing")
    try:
        return Run(
            mark=Mark(
                int(event.get("workflow_run.id")),
                int(event.get("workflow_run.run_attempt")),
                str(event.get("workflow_run.head_sha")),
            ),
            result=result,
            started=datetime.fromisoformat(event.get("workflow_run.run_started_at")),
            source=event.find("workflow_run.head_repository.full_name"),
            branch=str(event.get("workflow_run.head_branch")),
        )
    except (TypeError, ValueError) as error:
        raise EventError(f"the event workflow_run holds something unexpected: {error}") from error


def find_pull_request(api: GitHub, repository: str, run: Run, default_branch: str) -> int:
    """The number of the open pull request whose newest commit the run was for.

    GitHub does not list a fork's pull requests in the event, so they are looked up by branch. One
    branch can be in several pull requests with different bases; the one for the default branch
    counts.

    Raises:
        GitHubError: If GitHub cannot be asked.
        NothingToWriteError: If there is none.
    """
    if run.source is None:
        raise NothingToWriteError("the fork that the pull request came from is gone")
    owner = run.source.partition("/")[0]
    pulls = [
        pull
        for pull in api.items(
            f"/repos/{repository}/pulls", state="all", head=f"{owner}:{run.branch}"
        )
        if _full_name(pull["base"]) == repository and _full_name(pull["head"]) == run.source
    ]
    if not pulls:
        raise NothingToWriteError(f"no pull request comes from {owner}:{run.branch}")
    current = [pull for pull in pulls if pull["head"]["sha"] == run.mark.head]
    if not current:
        raise NothingToWriteError("the pull request has newer commits; their run reports")
    unfinished = [pull for pull in current if pull["state"] == "open"]
    if not unfinished:
        raise NothingToWriteError(f"pull request {current[0]['number']} is closed")
    main = [pull for pull in unfinished if pull["base"]["ref"] == default_branch]
    chosen = main or unfinished
    if len(chosen) > 1:
        numbers = ", ".join(str(pull["number"]) for pull in chosen)
        raise NothingToWriteError(f"pull requests {numbers} have the same commit")
    return int(chosen[0]["number"])


def _full_name(side: Mapping[str, Any]) -> str | None:
    name: str | None = (side["repo"] or {}).get("full_name")
    return name


def find_jobs(api: GitHub, repository: str, run: Run) -> list[Job]:
    """The run's jobs, in GitHub's order."""
    path = f"/repos/{repository}/actions/runs/{run.mark.run}/attempts/{run.mark.attempt}/jobs"
    return [
        Job(
            name=clean(str(job["name"])),
            result=str(job["conclusion"]),
            number=int(job["id"]),
            seconds=_seconds(job),
            failed_steps=tuple(
                clean(str(step["name"]))
                for step in job.get("steps") or ()
                if step["conclusion"] == "failure"
            ),
        )
        for job in api.items(path, "jobs")
    ]


def _seconds(job: Mapping[str, Any]) -> float | None:
    started, ended = job.get("started_at"), job.get("completed_at")
    if job["conclusion"] == "skipped" or not started or not ended:
        return None
    took = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
    return max(0.0, took.total_seconds())


def find_artifacts(api: GitHub, repository: str, run: Run) -> dict[str, Mapping[str, Any]]:
    """The newest artifact of each name.

    An artifact of an earlier attempt counts only for the data: when only the failed jobs ran again,
    the data's job did not.
    """
    newest: dict[str, Mapping[str, Any]] = {}
    for artifact in api.items(
        f"/repos/{repository}/actions/runs/{run.mark.run}/artifacts", "artifacts"
    ):
        name = artifact["name"]
        earlier = datetime.fromisoformat(artifact["created_at"]) < run.started
        if artifact["expired"] or (earlier and name != "data-report"):
            continue
        if name not in newest or artifact["id"] > newest[name]["id"]:
            newest[name] = artifact
    return newest


def download(api: GitHub, repository: str, artifacts: Mapping[str, Mapping[str, Any]]) -> Evidence:
    """What the run left behind; what cannot be read is said in the evidence.

    Raises:
        GitHubError: If GitHub cannot be reached.
    """
    name = next((name for name in ARTIFACTS if name in artifacts), None)
    if name is None:
        return Evidence(unreadable=("The run left no report behind.",))
    artifact = artifacts[name]
    if artifact["size_in_bytes"] > ARCHIVE_BYTES:
        size = f"{artifact['size_in_bytes']:,}"
        return Evidence(
            unreadable=(
                f"The artifact {name} has {size} bytes; {ARCHIVE_BYTES:,} are read at most.",
            )
        )
    path = f"/repos/{repository}/actions/artifacts/{int(artifact['id'])}/zip"
    try:
        return read_evidence(from_archive(api.download(path, ARCHIVE_BYTES)))
    except EvidenceError as error:
        return Evidence(unreadable=(f"The artifact {name} {error}.",))


def render(
    run: Run,
    address: str,
    evidence: Evidence,
    jobs: Sequence[Job],
    artifacts: Mapping[str, Mapping[str, Any]],
    touched: Touched,
) -> str:
    """The comment: what only a reader can stop, the verdict, what failed, what led to it.

    Args:
        run: The run that is reported.
        address: Of the run's page.
        evidence: What it left behind.
        jobs: Its jobs.
        artifacts: Its artifacts by name.
        touched: What the pull request touches of the judge.
    """
    headline, rest = verdict(evidence)
    state = f"[The pipeline]({address}) {_RESULTS[run.result]} for {run.mark.head[:10]}."
    failed = "\n".join(_failure(job, address) for job in jobs if job.result in _FAILURES)
    links = [
        f"[{label}]({address}/artifacts/{int(artifacts[name]['id'])})"
        for name, label in (
            ("report", "the whole report with plots"),
            ("data-report", "the report on the data"),
        )
        if name in artifacts
    ]
    parts = [
        notice(touched),
        headline or _headline(run, evidence),
        "\n\n".join(part for part in (state, failed) if part),
        rest,
        *details(evidence),
        folded("Jobs", _job_table(jobs)) if jobs else "",
        f"Artifacts: {', '.join(links)}." if links else "",
    ]
    body = "\n\n".join(part for part in parts if part)
    return shortened(f"{run.mark}\n{body}\n", BODY_LENGTH)


def _headline(run: Run, evidence: Evidence) -> str:
    if evidence.problems:
        return "## ⛔ The data break rules: nothing was trained"
    if run.result == "success":
        return "## ❔ The pipeline passed without a verdict"
    return "## ⛔ The pipeline ended before the gate's verdict"


def _failure(job: Job, address: str) -> str:
    where = f" at {', '.join(map(escape, job.failed_steps))}" if job.failed_steps else ""
    result = _RESULTS[job.result]
    return f"- [{escape(job.name)}]({address}/job/{job.number}) {result}{where}"


def _job_table(jobs: Sequence[Job]) -> str:
    rows = [[job.name, _RESULTS.get(job.result, job.result), _minutes(job.seconds)] for job in jobs]
    return markdown_table([["job", "result", "time"], *rows], text_columns=(0, 1))


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def publish(
    api: GitHub,
    repository: str,
    number: int,
    mark: Mark,
    body: str,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Show the report in the pull request's one comment.

    Two that write at once each create a comment; each then finds both, and the older comment
    remains with the newer report.

    Returns:
        What was done.

    Raises:
        GitHubError: If GitHub does not take it.
    """
    created = False

    def find_or_create() -> list[Mapping[str, Any]]:
        nonlocal created
        comments = list(_own_comments(api, repository, number))
        if not comments:
            created = True
            comments = _create(api, repository, number, body)
        return comments

    comments = look_again(find_or_create, sleep, POST_WAIT_SECONDS)
    kept, others = comments[0], comments[1:]
    newer = [one for one in comments if _is_newer(_mark_of(one), mark)]
    if not newer and kept["body"] != body:
        api.send("PATCH", f"/repos/{repository}/issues/comments/{kept['id']}", {"body": body})
    for comment in others:
        if comment not in newer:
            _delete(api, repository, comment["id"])
    if newer:
        return f"pull request {number} shows a newer run already"
    return f"{'wrote' if created else 'updated'} the comment on pull request {number}"


def _own_comments(api: GitHub, repository: str, number: int) -> Iterator[Mapping[str, Any]]:
    """Comments with a mark by the workflow's own account, oldest first."""
    found = [
        comment
        for comment in api.items(f"/repos/{repository}/issues/{number}/comments")
        if (comment["user"] or {}).get("login") == AUTHOR and _MARK.match(comment["body"] or "")
    ]
    yield from sorted(found, key=lambda comment: int(comment["id"]))


def _mark_of(comment: Mapping[str, Any]) -> Mark:
    match = _MARK.match(comment["body"])
    assert match is not None
    return Mark(int(match[1]), int(match[2]), match[3])


def _is_newer(one: Mark, other: Mark) -> bool:
    """Whether one run is newer; that of another commit is not, since `other` ran for the newest."""
    return one.head == other.head and one > other


def _create(api: GitHub, repository: str, number: int, body: str) -> list[Mapping[str, Any]]:
    """Create a comment; gives back all own ones."""
    api.send("POST", f"/repos/{repository}/issues/{number}/comments", {"body": body})
    comments = list(_own_comments(api, repository, number))
    if not comments:
        raise GitopsError(
            f"the comment on pull request {number} was created, but not by {AUTHOR}, so it "
            "would not be found again; run this with the workflow's own token"
        )
    return comments


def _delete(api: GitHub, repository: str, comment: int) -> None:
    try:
        api.send("DELETE", f"/repos/{repository}/issues/comments/{comment}")
    except GitHubError as error:
        if error.status != 404:
            raise


def report_run() -> str:
    """Report the run that this workflow run is about; returns what was done.

    Raises:
        EventError: If the event cannot be read.
        GitHubError: If GitHub cannot be reached or refuses.
        NothingToWriteError: If there is no comment to write.
    """
    event = read_event()
    run = read_run(event)
    api, repository = connect()
    number = find_pull_request(api, repository, run, event.default_branch)
    jobs = find_jobs(api, repository, run)
    artifacts = find_artifacts(api, repository, run)
    evidence = download(api, repository, artifacts)
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    address = f"{server}/{repository}/actions/runs/{run.mark.run}"
    touched = find_touched(api, repository, number)
    body = render(run, address, evidence, jobs, artifacts, touched)
    # The download took its time: look again.
    if find_pull_request(api, repository, run, event.default_branch) != number:
        raise NothingToWriteError("the pull request changed in the meantime")
    return publish(api, repository, number, run.mark, body)


def run(_: argparse.Namespace) -> int:
    """Report; 0 also when there is nothing to write."""
    try:
        print(report_run())
    except NothingToWriteError as reason:
        print(f"No comment: {reason}.")
    except GitopsError as error:
        raise GitopsError(f"The report could not be written: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise GitopsError(
            f"The report could not be written: GitHub's answer was not understood: {error!r}"
        ) from error
    return 0
