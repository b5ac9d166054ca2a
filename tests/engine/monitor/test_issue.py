"""One issue about drift, on a GitHub that remembers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.core import paths
from gitops_ml.github import client
from gitops_ml.monitor import issue

main = subcommand("monitor-issue")
ISSUES = "/repos/team/late/issues"
DRIFT: dict[str, Any] = {
    "status": "drift",
    "headline": "The column temperature is off in 2 of the last 3 windows",
    "acting": [
        {"kind": "column", "name": "temperature", "windows": ["2013-07-01", "2013-07-08"], "of": 3}
    ],
    "windows": [
        {"start": f"2013-07-{day}", "columns": {"temperature": {"psi": 7.2, "limit": 1.5}}}
        for day in ("01", "08")
    ],
    "notes": ["a note"],
    "problems": ["2 lines left out: cut off"],
}
QUIET = {"status": "quiet", "headline": "3 windows judged, up to 2013-07-22: no drift"}


class Tracker:
    """GitHub's issues; `lose` loses the answer to the next request that changes something."""

    def __init__(self, server: HTTPServer) -> None:
        self.issues: list[dict[str, Any]] = []
        self.comments: list[str] = []
        self.lose = False
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        if request.method == "GET":
            labels = {request.args["labels"]}
            found = [
                one
                for one in self.issues
                if one["state"] == "open" and labels <= set(one["labels"])
            ]
            return _json(found)
        body = request.get_json()
        if request.path == ISSUES:
            number = len(self.issues) + 1
            self.issues.append(
                {**body, "number": number, "state": "open", "html_url": f"issue-{number}"}
            )
            answer = self.issues[-1]
        elif request.path.endswith("/comments"):
            self.comments.append(body["body"])
            answer = body
        else:
            answer = self.issues[int(request.path.rpartition("/")[2]) - 1]
            answer.update(body)
        if self.lose:
            self.lose = False
            return Response(status=502)
        return _json(answer)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")


@pytest.fixture
def tracker(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.setenv("GITHUB_API_URL", httpserver.url_for("").rstrip("/"))
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/late")
    monkeypatch.setenv("GITHUB_TOKEN", "token-for-tests")
    monkeypatch.setattr(client, "LOOK_WAIT_SECONDS", 0.0)
    return Tracker(httpserver)


def say(report: dict[str, Any]) -> int:
    paths.REPORTS.mkdir(exist_ok=True)
    paths.MONITOR_REPORT.write_text(json.dumps(report), encoding="utf-8")
    return main([])


def test_it_is_opened_once_kept_up_to_date_and_closed(
    tracker: Tracker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    assert say(QUIET) == 0
    assert tracker.issues == []
    assert say(DRIFT) == 0
    (found,) = tracker.issues
    assert found["title"] == "The live data drift"
    assert "| column | temperature | 2013-07-01, 2013-07-08 | 7.2 | 1.5 |" in found["body"]
    assert "a note" in found["body"]
    assert "cut off" in found["body"]
    assert "https://github.com/team/late/actions/runs/77" in found["body"]

    assert say(DRIFT | {"notes": ["another note"]}) == 0
    assert "another note" in tracker.issues[0]["body"]
    assert (len(tracker.issues), tracker.comments) == (1, [])

    more = {**DRIFT["acting"][0], "kind": "score", "name": "probability of true"}
    windows = [
        {**one, "scores": {"probability of true": {"psi": 1.0, "limit": 0.5}}}
        for one in DRIFT["windows"]
    ]
    changed = DRIFT | {"headline": "Worse", "acting": [more, *DRIFT["acting"]], "windows": windows}
    assert say(changed) == say(changed) == 0
    assert tracker.comments == ["Worse.\n"]

    assert say({"status": "unjudged", "headline": "No window can be judged yet"}) == 0
    assert say({"status": "skipped", "headline": "Skipped"}) == 0
    assert tracker.issues[0]["state"] == "open"

    assert say(QUIET) == say(QUIET) == 0
    assert tracker.issues[0]["state"] == "closed"
    assert tracker.comments[1:] == ["It is over. 3 windows judged, up to 2013-07-22: no drift.\n"]
    assert say(DRIFT) == 0
    assert [one["state"] for one in tracker.issues] == ["closed", "open"]
    assert "opened the issue issue-2" in capsys.readouterr().out


def test_an_answer_that_gets_lost_opens_no_second_issue(tracker: Tracker) -> None:
    tracker.lose = True
    assert say(DRIFT) == 0
    assert len(tracker.issues) == 1


def test_other_issues_are_left_alone(tracker: Tracker) -> None:
    other = {"number": 1, "state": "open", "labels": ["drift"], "html_url": "issue-1"}
    tracker.issues.append({**other, "body": "The drift of continents"})
    assert say(DRIFT) == 0
    assert [one["number"] for one in tracker.issues] == [1, 2]
    assert tracker.issues[0]["body"] == "The drift of continents"


def test_what_to_run_is_what_there_is(tmp_path: Path) -> None:
    assert "`make pipeline`" in issue.what_to_do(tmp_path)
    assert "gh workflow run" not in issue.what_to_do(tmp_path)
    (tmp_path / issue.REFRESH).parent.mkdir(parents=True)
    (tmp_path / issue.REFRESH).touch()
    assert "`gh workflow run refresh.yml`" in issue.what_to_do(tmp_path)


@pytest.mark.parametrize("text", [None, "no JSON", "[]", "{}"])
def test_without_a_report_nothing_is_told(
    text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.REPORTS.mkdir()
    if text is not None:
        paths.MONITOR_REPORT.write_text(text, encoding="utf-8")
    assert main([]) == 1
    assert "make monitor" in capsys.readouterr().err
