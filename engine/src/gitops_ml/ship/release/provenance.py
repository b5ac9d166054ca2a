"""What GitHub knows of a release: its pull request, the pipeline's run, the gate's verdict.

None of this is in the release's commit, so GitHub is asked again: who approved, which run of the
pipeline it was, and what the gate's report among that run's artifacts says. GitHub keeps artifacts
for some months and runs for a little longer than a year; what is gone is unknown, not wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gitops_ml.core.errors import GitopsError
from gitops_ml.gate.verdict import Consent
from gitops_ml.github.client import GitHub, NotSetUpError, connect
from gitops_ml.report.run_artifacts import ARCHIVE_BYTES
from gitops_ml.ship.fetch import Run, download, find_runs, read_gate
from gitops_ml.ship.release.assemble import find_approvers, find_pull_request, verdict_of
from gitops_ml.ship.release.release import Release
from gitops_ml.ship.targets import Found

ATTEMPTS = 2

Answer = tuple[Found, str]
Question = Callable[[GitHub, str, Release], Answer]


def look_up(root: Path, release: Release) -> dict[str, Answer]:
    """Whether GitHub says the same as a release, and a note on that, by what it is about."""
    questions: Mapping[str, Question] = {
        "gate": _gate,
        "pull request": _pull_request,
        "pipeline run": _run,
    }
    try:
        api, repository = connect(root, ATTEMPTS)
    except NotSetUpError as error:
        return dict.fromkeys(questions, ("unknown", f"GitHub cannot be asked: {error}"))
    return {
        what: _asked(question, api, repository, release) for what, question in questions.items()
    }


def _asked(question: Question, api: GitHub, repository: str, release: Release) -> Answer:
    try:
        return question(api, repository, release)
    except GitopsError as error:
        return "unknown", str(error).splitlines()[0]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return "unknown", f"GitHub's answer was not understood: {error!r}"


def _run(api: GitHub, repository: str, release: Release) -> Answer:
    """Whether a run is the pipeline's, for the commit on the default branch, and has passed."""
    claim = release.content.get("run")
    if claim is None:
        return "unknown", "the release was not recorded from a run"
    number = claim.get("id") if isinstance(claim, dict) else None
    branch, runs = find_runs(api, repository, release.commit)
    what = f"the pipeline for the commit on {branch}"
    if not runs:
        return "unknown", f"GitHub knows of no run of {what}, or not any more"
    found = next((run for run in runs if run["id"] == number), None)
    if found is None:
        others = ", ".join(str(run["id"]) for run in runs)
        return "differs", f"is no run of {what}, but {others}"
    if found["conclusion"] != "success":
        state = found["conclusion"] or found["status"]
        return "unknown", f"is a run of {what}, but was started again and is {state}"
    return "ok", f"is a run of {what} that passed"


def _gate(api: GitHub, repository: str, release: Release) -> Answer:
    """Whether the gate said so, by its report among the artifacts of the pipeline's run."""
    verdict, note = _run(api, repository, release)
    if verdict != "ok":
        return "unknown", f"its report is not looked at: the run {note}"
    number = int(release.content["run"]["id"])
    run = Run(number, f"the run {number}")
    report, _ = read_gate(download(api, repository, run, "report", ARCHIVE_BYTES))
    if (report.commit, report.challenger.sha256) != (release.commit, release.model):
        return "differs", (
            f"the report of {run.url} is about the model {report.challenger.sha256} of the commit "
            f"{report.commit}"
        )
    found = verdict_of(report)
    if found != _with_all_consents(release.content.get("gate")):
        return "differs", f"{json.dumps(found)} is the report of {run.url}"
    return "ok", f"is the report of {run.url}"


def _with_all_consents(gate: Any) -> Any:
    """What a release says of the gate; a kind of consent that came later was not given then."""
    consent = gate.get("consent") if isinstance(gate, dict) else None
    if not isinstance(consent, dict):
        return gate
    return {**gate, "consent": {**Consent().model_dump(), **consent}}


def _pull_request(api: GitHub, repository: str, release: Release) -> Answer:
    """Whether the commit came from a pull request, and those who are named have approved it."""
    claim = release.content.get("pull_request")
    found = find_pull_request(api, repository, release.commit)
    if found is None:
        if claim is None:
            return "ok", "GitHub knows of none"
        return "differs", "GitHub knows of no merged pull request that the commit came from"
    said = f"GitHub says {describe(found)}"
    if claim is None:
        return "unknown", f"was not recorded; {said}"
    named = [claim.get(key) for key in ("number", "author")] if isinstance(claim, dict) else []
    approvers = claim.get("approved_by") if isinstance(claim, dict) else None
    if named != [found["number"], found["author"]] or not isinstance(approvers, list):
        return "differs", said
    missing = [who for who in approvers if who not in found["approved_by"]]
    if not missing:
        # More may have approved it since.
        return "ok", said
    if set(missing) <= set(find_approvers(api, repository, found["number"])):
        names = ", ".join(map(str, missing))
        return "unknown", f"{said}; {names} approved it, but may not write here, or not any more"
    return "differs", said


def describe(pull: Mapping[str, Any]) -> str:
    """A pull request in words."""
    approvers = pull.get("approved_by")
    names = map(str, approvers) if isinstance(approvers, list) else ()
    approved = ", ".join(names) or "nobody"
    return f"#{pull.get('number')} by {pull.get('author')}, approved by {approved}"
