"""The release on GitHub, which is played by a real HTTP server, and its model card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_origin import World, artifact_of, git, make_release
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.github import client
from gitops_ml.report.verdict_report import escape
from gitops_ml.ship.targets.containers import KIND, how_to_verify

main = subcommand("publish")

NAME = "acme/shop"
TOKEN = "token-for-tests"
RELEASES = f"/repos/{NAME}/releases"
EVALUATION: dict[str, Any] = {
    "rows": 12000,
    "confidence": 0.95,
    "metrics": {
        "roc_auc": {"value": 0.7744, "low": 0.758, "high": 0.789},
        "log_loss": {"value": 0.4563, "low": None, "high": None},
    },
    "baseline": {"roc_auc": 0.5, "log_loss": None},
    "slices": [
        {"column": "origin", "value": "J|K", "rows": 4232, "metrics": {"roc_auc": {"value": 0.75}}}
    ],
}
CONTRACT = """
model:
  metrics:
    roc_auc: {floor: 0.74, margin: 0.005}
    log_loss: {ceiling: 0.49}
"""
PROFILE = {
    "rows": 48199,
    "columns": {
        "origin": {"null_share": 0.0, "shares": {"EWR": 0.5, "JFK": 0.5}},
        "wind": {"null_share": 0.0125, "min": 0.0, "max": 42.5, "mean": 10.0},
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


class Releases:
    """GitHub's releases and tags; `failures` are answered to the first creations."""

    def __init__(self, server: HTTPServer) -> None:
        self.releases: list[dict[str, Any]] = []
        self.tags: dict[str, str] = {}
        self.failures: list[int] = []
        self.carry_out = False
        self.requests: list[str] = []
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.path}")
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        if request.method == "GET":
            return self._get(request.path)
        if request.method == "PATCH":
            (found,) = (one for one in self.releases if request.path.endswith(f"/{one['id']}"))
            found |= request.json
            return _json(found)
        if self.failures:
            status = self.failures.pop(0)
            if self.carry_out:
                self._create(request.json)
            return _json({"message": "out of order"}, status)
        return _json(self._create(request.json), 201)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.releases) + 1
        made = {**body, "id": number, "html_url": f"https://github.example/{number}"}
        self.releases.append(made)
        self.tags[body["tag_name"]] = body["target_commitish"]
        return made

    def _get(self, path: str) -> Response:
        tag = path.rpartition("/")[2]
        if "/git/ref/tags/" in path and tag in self.tags:
            return _json({"object": {"type": "commit", "sha": self.tags[tag]}})
        found = [one for one in self.releases if one["tag_name"] == tag]
        if "/releases/tags/" in path and found:
            return _json(found[0])
        return _json({"message": "Not Found"}, 404)

    @property
    def changes(self) -> list[str]:
        return [line for line in self.requests if not line.startswith("GET ")]


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


@pytest.fixture
def github(server: HTTPServer, monkeypatch: pytest.MonkeyPatch, world: World) -> Releases:
    server.clear()
    monkeypatch.setenv("GITHUB_API_URL", server.url_for("").rstrip("/"))
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setattr(client, "LOOK_WAIT_SECONDS", 0.0)
    return Releases(server)


@pytest.fixture
def release(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A release that is prepared in the current folder."""
    monkeypatch.chdir(world.root)
    for name, text in (
        ("reports/evaluation.json", json.dumps(EVALUATION)),
        ("reports/data_profile.json", json.dumps(PROFILE)),
        ("contract.yaml", CONTRACT),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        git(world.root, "add", name)
    release = {
        **make_release(world.commit("Train")),
        "task": "classification",
        "target": "late",
        "classes": [False, True],
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
        "features": ["origin", "wind"],
        "data": {"file": "data/ingested.parquet", "md5": "1" * 32},
        "contract": {"sha256": "2" * 64},
        "gate": {"verdict": "promote", "base": "b" * 40, "consent": {}},
        "pull_request": {"number": 7, "author": "grace", "approved_by": ["ada", "bob"]},
    }
    world.prepare(release)
    return release


def tag_of(release: dict[str, Any]) -> str:
    return "release-" + str(release["release"]).partition(":")[2]


def test_the_release_is_published_once(
    github: Releases, release: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main() == 0
    (made,) = github.releases
    assert made["tag_name"] == tag_of(release)
    assert made["target_commitish"] == release["source"]["commit"]
    assert made["name"] == release["release"]
    assert capsys.readouterr().out == "published https://github.example/1\n"

    assert main() == 0
    assert len(github.changes) == 1
    assert capsys.readouterr().out == "https://github.example/1 is up to date\n"


def test_a_card_that_has_changed_is_brought_up_to_date(
    github: Releases, release: dict[str, Any], world: World
) -> None:
    assert main() == 0
    world.prepare({**release, "pull_request": None})
    assert main() == 0
    assert github.changes == [f"POST {RELEASES}", f"PATCH {RELEASES}/1"]
    assert "grace" not in github.releases[0]["body"]


def test_the_card_tells_how_well_on_what_and_from_what(
    github: Releases, release: dict[str, Any]
) -> None:
    assert main() == 0
    card = github.releases[0]["body"]
    for line in (
        "| classes | False, True |",
        "On 12,000 test rows that it was not trained on, with 95 % confidence intervals",
        r"| roc\_auc | 0.7744 | 0.758 to 0.789 | 0.5 | at least 0.74 |",
        r"| log\_loss | 0.4563 |  |  | at most 0.49 |",
        r"| origin | J\|K | 4,232 | 0.75 |  |",
        "48,199 rows in `data/ingested.parquet` (md5 11111111111111111111111111111111)",
        "| wind | 1.25 % | 0 | 42.5 |  |",
        "| origin | 0 % |  |  | 2 |",
        f"| commit | {release['source']['commit']} |",
        f"| model | sha256 {release['model']['sha256']} |",
        f"| contract | sha256 {'2' * 64} |",
        "| pull request | 7 by grace, approved by ada, bob |",
        f"| gate | promote, against {'b' * 40} |",
        f"| {KIND} | {escape(artifact_of(release))} |",
        how_to_verify(artifact_of(release)).replace("OWNER/NAME", NAME),
    ):
        assert line in card


def test_what_is_committed_is_told_not_what_lies_there(
    github: Releases, release: dict[str, Any]
) -> None:
    Path("reports/evaluation.json").write_text("{}", encoding="utf-8")
    assert main() == 0
    assert "0.7744" in github.releases[0]["body"]


@pytest.mark.parametrize("carry_out", [True, False])
def test_an_answer_that_got_lost_makes_no_second_release(
    github: Releases, release: dict[str, Any], carry_out: bool
) -> None:
    github.failures, github.carry_out = [502], carry_out
    assert main() == 0
    assert len(github.releases) == 1
    assert len([line for line in github.changes if line.startswith("POST")]) == 2 - carry_out


@pytest.mark.parametrize(("failures", "posts"), [([403], 1), ([502] * 9, 3)])
def test_a_release_that_github_does_not_take_is_an_error(
    github: Releases,
    release: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    failures: list[int],
    posts: int,
) -> None:
    github.failures = list(failures)
    assert main() == 1
    assert f"HTTP {failures[0]}" in capsys.readouterr().err
    assert len(github.changes) == posts


def test_a_tag_on_another_commit_is_left_alone(
    github: Releases, release: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    github.tags[tag_of(release)] = "e" * 40
    assert main() == 1
    assert f"the tag {tag_of(release)} is on {'e' * 40}, not on" in capsys.readouterr().err
    assert github.changes == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("reports/evaluation.json", None, "no such file; fetch the commit"),
        ("reports/evaluation.json", "{", "cannot be read"),
        ("reports/evaluation.json", "[]", "must hold an object"),
        ("reports/evaluation.json", "{}", "is malformed"),
        ("contract.yaml", "model: [", "cannot be read"),
        ("contract.yaml", "model: [1]", "is malformed"),
        ("reports/data_profile.json", '{"rows": 1}', "is malformed"),
    ],
)
def test_reports_that_cannot_be_told_are_named(
    github: Releases,
    release: dict[str, Any],
    world: World,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str | None,
    words: str,
) -> None:
    if text is None:
        git(world.root, "rm", "-q", name)
    else:
        Path(name).write_text(text, encoding="utf-8")
        git(world.root, "add", name)
    world.prepare({**release, "source": {"commit": world.commit("Break"), "dirty": False}})
    assert main() == 1
    said = capsys.readouterr().err
    assert name in said
    assert words in said
    assert github.changes == []


def test_without_a_release_or_github_there_is_nothing_to_publish(
    github: Releases,
    release: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("build/release/release.json").unlink()
    assert main() == 1
    assert "run `make release-record`" in capsys.readouterr().err
