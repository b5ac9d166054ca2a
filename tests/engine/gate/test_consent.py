"""A maintainer's consent by a label, against a GitHub that is played by a real HTTP server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_actions import HEAD, NAME, TOKEN, FakeActions, pipeline_run, pull_request
from pytest_httpserver import HTTPServer

from gitops_ml.gate.consent import Answer, consent_of
from gitops_ml.gate.run_record import RunRecord
from gitops_ml.gate.verdict import Consent
from gitops_ml.github.event import Event
from gitops_ml.github.labels import LOOSEN_LABEL, NEW_BASELINE_LABEL, OWN_ENGINE_LABEL
from gitops_ml.report import judge as gate

main = subcommand("gate")

PUSHED, LATER, LATEST = "2026-01-02T10:00:00Z", "2026-01-02T10:05:00Z", "2026-01-02T10:09:00Z"
REPOSITORY = {"default_branch": "main"}
PULL_REQUEST = Event("pull_request", {"repository": REPOSITORY, "pull_request": {"number": 7}})
MERGED = "c" * 40
PUSH = Event("push", {"repository": REPOSITORY, "ref": "refs/heads/main", "after": MERGED})
QUEUE = "refs/heads/gh-readonly-queue/main/pr-7-" + "d" * 40
GROUP = Event("merge_group", {"repository": REPOSITORY, "merge_group": {"head_ref": QUEUE}})
NO_ONE = Consent()


def labelled(
    label: str = LOOSEN_LABEL, who: str = "ada", when: str = LATER, kind: str = "User"
) -> dict[str, Any]:
    return {
        "event": "labeled",
        "label": {"name": label},
        "actor": {"login": who, "type": kind},
        "created_at": when,
    }


def run(when: str = PUSHED, **changes: Any) -> dict[str, Any]:
    return {
        "event": "pull_request",
        "head_sha": HEAD,
        "head_branch": "faster",
        "head_repository": {"full_name": "guest/late"},
        "created_at": when,
        **changes,
    }


@pytest.fixture
def api(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeActions:
    fake = FakeActions(httpserver, httpserver)
    fake.pulls = [pull_request(labels=[{"name": "bug"}, {"name": LOOSEN_LABEL}])]
    fake.timeline = [{"event": "committed"}, labelled()]
    fake.runs = [run()]
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    return fake


def refused(answer: Answer) -> str:
    assert answer.consent == NO_ONE
    (why,) = answer.said
    return why


@pytest.mark.parametrize("who", ["ada", "grace"])
def test_a_label_by_somebody_who_may_write_is_consent(api: FakeActions, who: str) -> None:
    api.timeline = [labelled(who=who)]
    answer = consent_of(PULL_REQUEST)
    assert answer.consent == Consent(allow_loosening=True)
    assert answer.said == (f"{who} set the label `{LOOSEN_LABEL}`.",)
    assert api.changes == []


def test_a_new_baseline_has_a_label_of_its_own(api: FakeActions) -> None:
    api.pulls = [pull_request(labels=[{"name": NEW_BASELINE_LABEL}])]
    api.timeline = [labelled(NEW_BASELINE_LABEL)]
    consent = consent_of(PULL_REQUEST).consent
    assert not consent.allow_loosening
    assert consent.accept_new_baseline is not None
    assert "set by ada on pull request 7" in consent.accept_new_baseline


def test_a_change_s_own_engine_has_a_label_of_its_own(api: FakeActions) -> None:
    api.pulls = [pull_request(labels=[{"name": OWN_ENGINE_LABEL}])]
    api.timeline = [labelled(OWN_ENGINE_LABEL)]
    assert consent_of(PULL_REQUEST).consent == Consent(own_engine=True)


def test_a_label_that_does_not_count_takes_nothing_from_another(api: FakeActions) -> None:
    names = (LOOSEN_LABEL, NEW_BASELINE_LABEL, OWN_ENGINE_LABEL)
    api.pulls = [pull_request(labels=[{"name": name} for name in names])]
    api.timeline = [labelled(LOOSEN_LABEL, who="guest"), labelled(OWN_ENGINE_LABEL)]
    answer = consent_of(PULL_REQUEST)
    assert answer.consent == Consent(own_engine=True)
    assert len(answer.said) == 3


def test_without_the_label_nobody_is_asked_further(api: FakeActions) -> None:
    api.pulls = [pull_request(labels=[{"name": "bug"}])]
    assert consent_of(PULL_REQUEST) == Answer(NO_ONE)
    assert api.requests == [f"GET /repos/{NAME}/pulls/7"]


@pytest.mark.parametrize("who", ["guest", "stranger"])
def test_a_label_by_somebody_who_may_not_write_is_none(api: FakeActions, who: str) -> None:
    api.timeline = [labelled(who=who)]
    assert f"{who}, who set it, may not write" in refused(consent_of(PULL_REQUEST))


def test_a_label_by_a_bot_is_none(api: FakeActions) -> None:
    api.permissions["helper[bot]"] = "write"
    api.timeline = [labelled(who="helper[bot]", kind="Bot")]
    assert "set by helper[bot], who is not a person" in refused(consent_of(PULL_REQUEST))
    api.timeline[0]["actor"] = None
    assert "set by nobody known, who is not a person" in refused(consent_of(PULL_REQUEST))


def test_who_set_the_label_last_counts(api: FakeActions) -> None:
    settings = [labelled(when=LATER), labelled(who="guest", when=LATEST)]
    for api.timeline in (settings, settings[::-1]):
        assert "guest" in refused(consent_of(PULL_REQUEST))


@pytest.mark.parametrize("when", [PUSHED, "2026-01-02T09:00:00Z"])
def test_a_label_from_before_the_last_push_is_none(api: FakeActions, when: str) -> None:
    api.timeline = [labelled(when=when)]
    assert "before the last push" in refused(consent_of(PULL_REQUEST))


def test_a_commit_that_comes_back_needs_the_label_again(api: FakeActions) -> None:
    """It ran before the label was set, gave way to another commit, and was pushed once more."""
    api.runs = [run(PUSHED), run(LATEST)]
    assert "before the last push" in refused(consent_of(PULL_REQUEST))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"head_branch": "other"},
        {"head_repository": {"full_name": "other/late"}},
        {"head_repository": None},
        {"event": "push"},
        {"head_sha": "e" * 40},
    ],
)
def test_runs_elsewhere_say_nothing_about_the_last_push(
    api: FakeActions, elsewhere: dict[str, Any]
) -> None:
    api.runs = [run("2026-01-01T00:00:00Z", **elsewhere)]
    assert "does not say when" in refused(consent_of(PULL_REQUEST))


def test_a_push_to_the_default_branch_has_its_pull_request_s_consent(api: FakeActions) -> None:
    assert consent_of(PUSH) == Answer(NO_ONE), "not merged"
    api.pulls[0] |= {"merged_at": LATEST, "merge_commit_sha": MERGED, "state": "closed"}
    assert consent_of(PUSH).consent.allow_loosening
    api.pulls[0]["merge_commit_sha"] = "f" * 40
    assert consent_of(PUSH) == Answer(NO_ONE), "another merge"


def test_a_merge_group_has_its_pull_request_s_consent(api: FakeActions) -> None:
    assert consent_of(GROUP).consent.allow_loosening


def test_other_events_ask_nobody(api: FakeActions) -> None:
    other = Event("push", {"repository": REPOSITORY, "ref": "refs/heads/faster"})
    assert consent_of(other) == Answer(NO_ONE)
    assert consent_of(Event("schedule", {"repository": REPOSITORY})) == Answer(NO_ONE)
    assert api.requests == []


def test_without_a_token_nobody_consented(
    api: FakeActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.delenv("GH_TOKEN", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "there is no token" in refused(consent_of(PULL_REQUEST))
    assert api.requests == []


def test_a_refusal_is_no_consent(api: FakeActions) -> None:
    api.refusals[f"GET /repos/{NAME}/issues/7/timeline"] = [403]
    assert "HTTP 403" in refused(consent_of(PULL_REQUEST))


@pytest.mark.parametrize("broken", [{"labels": None}, {"labels": [{}]}, {"head": {}}])
def test_an_answer_that_is_not_understood_is_no_consent(
    api: FakeActions, broken: dict[str, Any]
) -> None:
    api.pulls[0] |= broken
    assert "was not understood" in refused(consent_of(PULL_REQUEST))


def commit_in(folder: Path) -> str:
    """Make a repository with one commit."""
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.com")
    for command in (("init", "-q"), (*identity, "commit", "-qm", "Start", "--allow-empty")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True)
    return head.stdout.strip()


def test_the_gate_takes_base_and_consent_from_the_event(
    api: FakeActions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, Consent, RunRecord | None]] = []

    def judge(
        root: Path, revision: str, consent: Consent, home: Path | None, record: RunRecord | None
    ) -> None:
        asked.append((revision, consent, record))
        raise OSError("far enough")

    base = commit_in(tmp_path)
    api.runs.append(pipeline_run(1, base))
    event = tmp_path / "event.json"
    pull = {"number": 7, "base": {"sha": base, "ref": "main"}}
    payload = {"repository": REPOSITORY, "pull_request": pull}
    event.write_text(json.dumps(payload), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setattr(gate, "judge", judge)
    assert main(["--base", "event"]) == 2
    assert main(["--base", base]) == 2
    no_artifact = RunRecord(None, "its run, 1, left no artifact `training`")
    assert asked == [
        (base, Consent(allow_loosening=True), no_artifact),
        (base, Consent(), None),
    ]
