"""A maintainer's consent, given by a label on the pull request.

A label counts when somebody with write access set it after the last push: what was pushed later,
nobody has agreed to. The time of a push is that of the workflow runs that it started, which GitHub
keeps; the dates inside commits are whatever their author says. To consent: set the label, then run
the failed jobs again. After another push: take it off and set it again.

Whoever may write may also consent to their own pull request; reviews by code owners are what asks
for a second person. A label that a bot set does not count, since others may make a bot set it.

Without an answer from GitHub there is no consent: the safe side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gitops_ml.core.errors import GitopsError
from gitops_ml.gate.verdict import Consent
from gitops_ml.github.client import GitHub, connect, may_write
from gitops_ml.github.event import Event
from gitops_ml.github.labels import LOOSEN_LABEL, NEW_BASELINE_LABEL, OWN_ENGINE_LABEL

# refs/heads/gh-readonly-queue/main/pr-12-<commit>
_QUEUED = re.compile(r"refs/heads/gh-readonly-queue/.+/pr-(\d+)-[0-9a-f]+")


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        consent: What a maintainer agreed to.
        said: Who agreed to it, or why nobody did.
    """

    consent: Consent
    said: tuple[str, ...] = ()


def consent_of(event: Event) -> Answer:
    """Ask GitHub which labels are on the event's pull request, and who set them when.

    The pull request is the one that runs; for a merge group, the one that GitHub named it after;
    for a push to a branch that is delivered, the one whose merge was pushed. Others have none.
    """
    if event.name not in ("pull_request", "merge_group") and event.delivered_branch is None:
        return Answer(Consent())
    try:
        api, repository = connect()
        pull = _pull_request(event, api, repository)
        return Answer(Consent()) if pull is None else _labels(api, repository, pull)
    except GitopsError as error:
        return Answer(
            Consent(),
            (f"Labels on the pull request could not be read, so nobody consented: {error}",),
        )
    except (LookupError, TypeError, ValueError) as error:
        return Answer(
            Consent(),
            (f"GitHub's answer about labels was not understood, so nobody consented: {error!r}",),
        )


def _pull_request(event: Event, api: GitHub, repository: str) -> Mapping[str, Any] | None:
    if event.name == "pull_request":
        number = int(event.get("pull_request.number"))
    elif event.name == "merge_group":
        queued = _QUEUED.fullmatch(str(event.get("merge_group.head_ref")))
        if queued is None:
            return None
        number = int(queued[1])
    else:
        commit = event.get("after")
        merged = [
            int(pull["number"])
            for pull in api.items(f"/repos/{repository}/commits/{commit}/pulls")
            if pull["merged_at"] and pull["merge_commit_sha"] == commit
        ]
        if not merged:
            return None
        number = merged[0]
    pull: Mapping[str, Any] = api.get(f"/repos/{repository}/pulls/{number}")
    return pull


def _labels(api: GitHub, repository: str, pull: Mapping[str, Any]) -> Answer:
    names = {label["name"] for label in pull["labels"]}
    consent, said = Consent(), []
    for label in (LOOSEN_LABEL, NEW_BASELINE_LABEL, OWN_ENGINE_LABEL):
        if label not in names:
            continue
        who, why_not = _set_by(api, repository, pull, label)
        if who is None:
            said.append(f"The label `{label}` is no consent: {why_not}.")
            continue
        said.append(f"{who} set the label `{label}`.")
        if label == LOOSEN_LABEL:
            consent = consent.model_copy(update={"allow_loosening": True})
        elif label == OWN_ENGINE_LABEL:
            consent = consent.model_copy(update={"own_engine": True})
        else:
            reason = f"the label `{label}`, set by {who} on pull request {pull['number']}"
            consent = consent.model_copy(update={"accept_new_baseline": reason})
    return Answer(consent, tuple(said))


def _set_by(
    api: GitHub, repository: str, pull: Mapping[str, Any], label: str
) -> tuple[str | None, str]:
    """Who set a label in a way that counts; else None and why it does not count."""
    settings = [
        event
        for event in api.items(f"/repos/{repository}/issues/{pull['number']}/timeline")
        if event.get("event") == "labeled" and event["label"]["name"] == label
    ]
    if not settings:
        return None, "GitHub does not say who set it"
    last = max(settings, key=lambda event: _moment(event["created_at"]))
    actor = last.get("actor") or {}
    who = actor.get("login")
    if who is None or actor.get("type") != "User":
        return None, f"it was set by {who or 'nobody known'}, who is not a person"
    if not may_write(api, repository, who):
        return None, f"{who}, who set it, may not write to this repository"
    pushed = _pushed(api, repository, pull)
    if pushed is None:
        return None, "GitHub does not say when the last commit was pushed"
    if _moment(last["created_at"]) <= pushed:
        return None, (
            "it was set before the last push; to consent to what was pushed since, take it off, "
            "set it again and run the failed jobs again"
        )
    return str(who), ""


def _pushed(api: GitHub, repository: str, pull: Mapping[str, Any]) -> datetime | None:
    """When the pull request's last commit was pushed: its latest run was started by that."""
    head = pull["head"]
    runs = api.items(
        f"/repos/{repository}/actions/runs",
        "workflow_runs",
        event="pull_request",
        head_sha=head["sha"],
    )
    source = (head["repo"] or {}).get("full_name")
    return max(
        (
            _moment(run["created_at"])
            for run in runs
            if run["head_branch"] == head["ref"]
            and (run["head_repository"] or {}).get("full_name") == source
        ),
        default=None,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
