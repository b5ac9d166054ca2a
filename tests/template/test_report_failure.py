"""The nightly workflow's reporter, against a real HTTP server that plays GitHub's API."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import TEMPLATE
from pytest_httpserver import HTTPServer

SCRIPT = TEMPLATE / "tools" / "report_failure.py"
ISSUES = "/repos/team/template/issues"


@pytest.fixture
def variables(httpserver: HTTPServer) -> dict[str, str]:
    return {
        "GITHUB_API_URL": httpserver.url_for("").rstrip("/"),
        "GITHUB_REPOSITORY": "team/template",
        "GITHUB_RUN_ID": "42",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_SHA": "abc123",
        "GITHUB_TOKEN": "token",
        "GITHUB_WORKFLOW": "Nightly",
    }


def report(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT)], env=variables, capture_output=True, text=True, check=False
    )


def list_issues(httpserver: HTTPServer, *pages: list[dict[str, object]]) -> None:
    for number, page in enumerate([*pages, []], start=1):
        query = {"state": "open", "per_page": "100", "page": str(number)}
        httpserver.expect_request(ISSUES, method="GET", query_string=query).respond_with_json(page)


def test_opens_an_issue_that_links_the_run(
    httpserver: HTTPServer, variables: dict[str, str]
) -> None:
    list_issues(httpserver, [{"title": "Something else", "number": 1}])
    httpserver.expect_request(ISSUES, method="POST").respond_with_json({"html_url": "u/2"})
    done = report(variables)
    assert (done.returncode, done.stdout.strip()) == (0, "u/2")
    sent = [request for request, _ in httpserver.log if request.method == "POST"]
    assert [request.path for request in sent] == [ISSUES]
    assert sent[0].headers["Authorization"] == "Bearer token"
    assert "https://github.example/team/template/actions/runs/42" in sent[0].json["body"]
    assert "abc123" in sent[0].json["body"]


def test_comments_on_the_issue_that_is_open(
    httpserver: HTTPServer, variables: dict[str, str]
) -> None:
    ours = "The nightly workflow Nightly fails"
    pull = {"title": ours, "number": 6, "pull_request": {}}
    other = {"title": "The nightly workflow Mutation fails", "number": 5}
    list_issues(httpserver, [other, pull], [{"title": ours, "number": 7}])
    httpserver.expect_request(f"{ISSUES}/7/comments", method="POST").respond_with_json(
        {"html_url": "u/7#1"}
    )
    done = report(variables)
    assert (done.returncode, done.stdout.strip()) == (0, "u/7#1")


def test_a_refused_report_fails_the_step(httpserver: HTTPServer, variables: dict[str, str]) -> None:
    httpserver.expect_request(ISSUES).respond_with_data("no such permission", status=403)
    done = report(variables)
    assert done.returncode == 1
    assert "HTTP 403: no such permission" in done.stderr


def test_an_unreachable_api_fails_the_step(variables: dict[str, str]) -> None:
    done = report(variables | {"GITHUB_API_URL": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert "could not be reported" in done.stderr


def test_missing_variables_are_named(variables: dict[str, str]) -> None:
    done = report(variables | {"GITHUB_TOKEN": "", "GITHUB_SHA": ""})
    assert done.returncode == 1
    assert "not set: GITHUB_SHA, GITHUB_TOKEN" in done.stderr
