"""What each event of a workflow names as its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand

from gitops_ml.github.event import Event, EventError, named_base, read_event

main = subcommand("gate")

BASE, HEAD, NONE = "b" * 40, "a" * 40, "0" * 40
REPOSITORY = {"default_branch": "trunk"}


@pytest.mark.parametrize(
    ("name", "payload", "base"),
    [
        ("pull_request", {"pull_request": {"base": {"sha": BASE}}}, BASE),
        ("merge_group", {"merge_group": {"base_sha": BASE}}, BASE),
        ("push", {"ref": "refs/heads/trunk", "before": BASE}, BASE),
        ("push", {"ref": "refs/heads/trunk", "before": NONE}, NONE),
        ("push", {"ref": "refs/heads/faster", "before": BASE}, "origin/trunk"),
        ("push", {"ref": "refs/heads/faster", "before": NONE}, "origin/trunk"),
        ("workflow_dispatch", {}, "origin/trunk"),
        ("schedule", {}, "origin/trunk"),
    ],
)
def test_the_named_base_an_event(name: str, payload: dict[str, Any], base: str) -> None:
    assert named_base(Event(name, {"repository": REPOSITORY, **payload})) == base


def test_a_schedule_that_does_not_name_the_repository_runs_on_its_default_branch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_REF_NAME", "trunk")
    assert named_base(Event("schedule", {})) == "origin/trunk"


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("pull_request", {}, "has no pull_request.base.sha"),
        ("pull_request", {"pull_request": {"base": {"sha": "--help"}}}, "'--help', not a commit"),
        ("push", {"ref": "refs/heads/trunk", "repository": REPOSITORY}, "has no before"),
        ("push", {"ref": "refs/heads/trunk"}, "has no repository.default_branch"),
    ],
)
def test_what_an_event_lacks_is_named(name: str, payload: dict[str, Any], said: str) -> None:
    with pytest.raises(EventError, match=said):
        named_base(Event(name, payload))


def describe(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> None:
    path = folder / "event.json"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("GITHUB_EVENT_NAME", name)
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(path))


def test_the_event_is_read_from_the_runner_s_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    describe(monkeypatch, tmp_path, "push", json.dumps({"after": HEAD}))
    assert read_event() == Event("push", {"after": HEAD})


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_holds_no_event_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    describe(monkeypatch, tmp_path, "push", text)
    with pytest.raises(EventError, match="GITHUB_EVENT_PATH"):
        read_event()


def test_the_gate_says_that_there_is_no_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_EVENT_NAME", raising=False)
    assert main(["--base", "event"]) == 2
    assert "this is no workflow run" in capsys.readouterr().err
