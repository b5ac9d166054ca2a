"""Rollbacks on the branches of a real origin."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_origin import World, fake_render, forget_settings, git, make_release
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.github import client
from gitops_ml.ship.environments.branches import EnvironmentBranch, MovedError, Revision
from gitops_ml.ship.environments.promote import promote
from gitops_ml.ship.environments.repository import Repository, UnreachableError
from gitops_ml.ship.environments.rollback import NoReleaseError, previous, revert, roll_back
from gitops_ml.ship.release.release import parse_release
from gitops_ml.ship.targets.containers import KIND

main = subcommand("rollback")

TOKEN = "token-for-tests"
ISSUES = "/repos/acme/shop/issues"


class Past:
    """An environment that has run three releases, each of a commit of its own."""

    def __init__(self, world: World, releases: Sequence[dict[str, Any]] = ()) -> None:
        self.world = world
        self.branch = EnvironmentBranch(world.root, "staging")
        self.releases = list(releases)

    def release(self, release: dict[str, Any]) -> None:
        self.world.prepare(release)
        self.releases.append(release)
        with pytest.MonkeyPatch.context() as patch:
            # What was rolled back by hand is replaced by hand.
            patch.setenv("GITHUB_EVENT_NAME", "workflow_dispatch")
            if self.world.log("staging"):
                patch.setenv("SEEN", self.world.head("staging"))
            promote(self.world.root, "staging", fake_render)

    def tag(self, number: int) -> str:
        return str(self.releases[number - 1]["release"])

    @property
    def commits(self) -> list[str]:
        """The commits of the origin's branch, oldest first."""
        return git(self.world.origin, "rev-list", "--reverse", "env/staging").splitlines()

    @property
    def running(self) -> dict[str, Any]:
        """What the origin's branch says."""
        return dict(json.loads(self.world.files("staging")["release.json"]))


@pytest.fixture(scope="session")
def three_releases(repositories: Path, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """To be copied."""
    folder = tmp_path_factory.mktemp("past") / "world"
    shutil.copytree(repositories, folder)
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        patch.chdir(folder / "clone")
        past = Past(World(folder))
        for number in (1, 2, 3):
            past.release(make_release(past.world.commit(f"release {number}"), number))
    return past


@pytest.fixture
def past(
    clean_settings: None, three_releases: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Past:
    folder = tmp_path / "world"
    shutil.copytree(three_releases.world.folder, folder)
    monkeypatch.setenv("GITHUB_OUTPUT", str(folder / "outputs"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    found = Past(World(folder), three_releases.releases)
    monkeypatch.chdir(found.world.root)
    return found


def test_goes_back_with_every_file_and_forward_in_history(past: Past) -> None:
    before = past.world.files("staging")
    back = roll_back(past.branch, past.tag(1))
    assert back.revision == past.world.head("staging")
    assert past.running == past.releases[0]
    files = past.world.files("staging")
    assert files.keys() == before.keys()
    assert f"sha256:{1:064x}" in files["manifests.yaml"]
    assert past.world.log("staging")[0] == f"Roll staging back to {past.tag(1)}"
    assert past.world.log("staging")[1:] == [
        f"Release {past.tag(number)} to staging" for number in (3, 2, 1)
    ]


@pytest.mark.parametrize("form", ["tag", "version", "commit", "short commit"])
def test_the_target_can_be_named_in_every_way(past: Past, form: str) -> None:
    named = {
        "tag": past.tag(2),
        "version": past.tag(2).partition(":")[2],
        "commit": past.commits[1],
        "short commit": past.commits[1][:8],
    }
    assert main(["--environment", "staging", "--to", named[form]]) == 0
    assert past.running == past.releases[1]
    outputs = (past.world.folder / "outputs").read_text(encoding="utf-8")
    assert outputs == f"revision={past.world.head('staging')}\n"


@pytest.mark.parametrize("to", ["", "shop:none", "0" * 40, "--force", "HEAD~1", "main"])
def test_an_unknown_target_is_refused_with_those_there_are(
    past: Past, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    head = past.world.head("staging")
    assert main(["--environment", "staging", f"--to={to}"]) == 1
    said = capsys.readouterr().err
    assert f"TO is {to!r}" in said
    for number in (1, 2, 3):
        assert f"{past.commits[number - 1][:12]}  {past.tag(number)}" in said
    assert past.world.head("staging") == head


def test_few_characters_name_no_commit(past: Past) -> None:
    with pytest.raises(NoReleaseError):
        roll_back(past.branch, past.commits[0][:7])


def test_going_back_twice_goes_back_twice(past: Past) -> None:
    """Not forward again, to what was rolled back from."""
    roll_back(past.branch, "previous")
    assert past.running == past.releases[1]
    roll_back(past.branch, "previous")
    assert past.running == past.releases[0]
    with pytest.raises(NoReleaseError, match="no earlier release"):
        roll_back(past.branch, "previous")
    assert past.running == past.releases[0]
    assert len(past.world.log("staging")) == 5


def test_the_release_before_a_release_after_a_rollback_is_what_ran(past: Past) -> None:
    roll_back(past.branch, past.tag(1))
    past.release(make_release(past.world.commit("four"), 4))
    roll_back(past.branch, "previous")
    assert past.running == past.releases[0]


def test_another_build_of_the_same_commit_counts_as_another_release(past: Past) -> None:
    rebuilt = make_release(past.releases[2]["source"]["commit"], 3)
    rebuilt[KIND]["digest"] = f"sha256:{9:064x}"
    past.release(rebuilt)
    roll_back(past.branch, "previous")
    assert past.running == past.releases[2]


def revision(tree: str, readable: bool = True) -> Revision:
    return Revision(tree * 3, tree, "", {"release": f"shop:{tree}"} if readable else None)


@pytest.mark.parametrize(
    ("trees", "before"),
    [
        ("ba", "a"),
        ("aba", None),
        ("bcba", "a"),
        ("cba", "b"),
        ("daba", "a"),
        ("dbaba", "b"),
        ("baba", "a"),
        ("abcba", None),
        ("aa", None),
        ("a", None),
        ("c?a", "a"),
        ("?a", "a"),
        ("a?", None),
    ],
)
def test_previous_is_what_ran_before(trees: str, before: str | None) -> None:
    """Newest first; `?` is a commit whose release cannot be read."""
    history = [revision(tree, readable=tree != "?") for tree in trees]
    if before is None:
        with pytest.raises(NoReleaseError):
            previous(history)
    else:
        assert previous(history).tree == before


def test_back_to_what_runs_holds_it(past: Past) -> None:
    assert not past.branch.held()
    held = roll_back(past.branch, past.tag(3)).revision
    assert past.running == past.releases[2]
    assert past.branch.held()
    assert len(past.world.log("staging")) == 4
    assert roll_back(past.branch, past.tag(3)).revision == held == past.world.head("staging")
    roll_back(past.branch, "previous")
    assert past.running == past.releases[1]


def lose_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next push arrives, and whoever pushed is not told."""
    push = Repository.push

    def lost(repository: Repository, commit: str, branch: str) -> None:
        monkeypatch.setattr(Repository, "push", push)
        push(repository, commit, branch)
        raise UnreachableError("no answer")

    monkeypatch.setattr(Repository, "push", lost)
    monkeypatch.setattr(random, "uniform", lambda *_: 0)


def test_a_rollback_whose_answer_got_lost_is_done_once(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_an_answer(monkeypatch)
    back = roll_back(past.branch, "previous")
    assert back.revision == past.world.head("staging")
    assert past.running == past.releases[1]
    assert len(past.world.log("staging")) == 4


def test_a_failed_release_is_told_of_though_the_answer_to_the_push_got_lost(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_an_answer(monkeypatch)
    failed = parse_release(json.dumps(past.releases[2]).encode(), "failed")
    back = revert(past.branch, failed)
    assert back is not None
    assert back.release.tag == past.tag(2)
    assert len(past.world.log("staging")) == 4


def test_an_empty_branch_has_nothing_to_go_back_to(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.root)
    assert main(["--environment", "production", "--to", "previous"]) == 1
    assert "env/production is empty" in capsys.readouterr().err
    assert world.log("production") == []


def test_a_broken_release_can_be_left_but_not_gone_to(past: Past) -> None:
    broken = past.branch.publish({"release.json": b"{"}, "broken", lambda _: None)
    with pytest.raises(NoReleaseError):
        roll_back(past.branch, "broken")
    roll_back(past.branch, "previous")
    assert past.running == past.releases[2]
    assert main(["--environment", "staging", "--to", broken]) == 1
    assert past.running == past.releases[2]


class Rival:
    """Releases from another clone at the moment that ours is being rolled back."""

    def __init__(self, past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = make_release(past.releases[2]["source"]["commit"], 8)
        root = past.world.clone("rival")
        history = EnvironmentBranch.history

        def overtaken(branch: EnvironmentBranch) -> Sequence[Revision]:
            found = history(branch)
            monkeypatch.setattr(EnvironmentBranch, "history", history)
            past.world.prepare(self.release, root)
            assert promote(root, "staging", fake_render).released
            return found

        monkeypatch.setattr(EnvironmentBranch, "history", overtaken)


def test_previous_means_what_the_person_saw(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    rival = Rival(past, monkeypatch)
    with pytest.raises(MovedError, match="has moved"):
        roll_back(past.branch, "previous")
    assert past.running == rival.release


def test_a_named_target_is_gone_to_whatever_was_released_meanwhile(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rival(past, monkeypatch)
    roll_back(past.branch, past.tag(1))
    assert past.running == past.releases[0]
    assert len(past.world.log("staging")) == 5


def test_a_release_that_failed_makes_way_for_the_one_before(past: Past) -> None:
    failed = parse_release(json.dumps(past.releases[2]).encode(), "failed")
    back = revert(past.branch, failed)
    assert back is not None
    assert back.release.tag == past.tag(2)
    assert past.running == past.releases[1]
    assert revert(past.branch, failed) is None
    assert len(past.world.log("staging")) == 4


def test_what_was_released_meanwhile_is_left_alone(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = Rival(past, monkeypatch)
    failed = parse_release(json.dumps(past.releases[2]).encode(), "failed")
    assert revert(past.branch, failed) is None
    assert past.running == rival.release
    assert len(past.world.log("staging")) == 4


class Tracker:
    """GitHub's issues.

    Attributes:
        issues: As GitHub tells them.
        comments: Those of the issue 5.
        lose: How many answers to a POST get lost after it was carried out.
        posts: How many POST requests arrived.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.issues: list[dict[str, Any]] = []
        self.comments: list[dict[str, Any]] = []
        self.status = 201
        self.lose = 0
        self.posts = 0
        self.queries: list[dict[str, str]] = []
        server.expect_request(ISSUES, method="GET").respond_with_handler(self._list)
        server.expect_request(ISSUES, method="POST").respond_with_handler(self._open)
        path = f"{ISSUES}/5/comments"
        server.expect_request(path, method="GET").respond_with_handler(
            lambda _: _json(self.comments)
        )
        server.expect_request(path, method="POST").respond_with_handler(self._comment)

    def _list(self, request: Request) -> Response:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        self.queries.append(request.args.to_dict())
        return _json(self.issues)

    def _open(self, request: Request) -> Response:
        return self._take(self.issues, {**request.json, "number": 5, "html_url": "issue-5"})

    def _comment(self, request: Request) -> Response:
        return self._take(self.comments, request.json)

    def _take(self, where: list[dict[str, Any]], what: dict[str, Any]) -> Response:
        self.posts += 1
        if self.status != 201:
            return _json({"message": "No"}, self.status)
        where.append(what)
        if self.lose:
            self.lose -= 1
            return _json({"message": "Bad gateway"}, 502)
        return _json(what, 201)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


@pytest.fixture
def tracker(past: Past, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    found = Tracker(httpserver)
    monkeypatch.setenv("GITHUB_API_URL", found.url)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/shop")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    monkeypatch.setattr(client, "LOOK_WAIT_SECONDS", 0)
    return found


def probe_failed(world: World, problem: str = "row 1: expected 20, found 21") -> None:
    path = world.root / "build" / "probe.json"
    evidence = {"url": "https://late.example.com", "problem": problem}
    path.write_text(json.dumps(evidence), encoding="utf-8")


def go_back() -> int:
    return main(["--environment", "staging", "--failed"])


def test_a_rollback_opens_an_issue_with_the_evidence(past: Past, tracker: Tracker) -> None:
    probe_failed(past.world)
    assert go_back() == 0
    assert past.running == past.releases[1]
    (issue,) = tracker.issues
    assert issue["labels"] == ["rollback"]
    assert issue["title"] == "staging: a release failed"
    body = issue["body"]
    for part in (
        past.tag(2),
        f"sha256:{3:064x}",
        past.releases[2]["source"]["commit"][:12],
        "https://late.example.com".replace(":", ":\N{ZERO WIDTH SPACE}"),
        "[this run](https://github.com/acme/shop/actions/runs/7)",
        "```text\nrow 1: expected 20, found 21\n```",
    ):
        assert part.replace("_", r"\_") in body or part in body
    lines = [line.replace("\\", "") for line in body.splitlines() if line.startswith("| ")]
    for what, number in (("failed", 3), ("runs again", 2)):
        (line,) = [line for line in lines if line.startswith(f"| {what} ")]
        release = past.releases[number - 1]
        for part in (release["release"], release["source"]["commit"][:12], f"sha256:{number:064x}"):
            assert part in line.replace("\N{ZERO WIDTH SPACE}", "")
    assert tracker.queries[0] == {"state": "open", "labels": "rollback", "per_page": "100"}
    outputs = (past.world.folder / "outputs").read_text(encoding="utf-8")
    assert outputs == f"revision={past.world.head('staging')}\n"


def test_the_next_failure_comments_on_the_open_issue(
    past: Past, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert go_back() == 0
    past.release(make_release(past.world.commit("four"), 4))
    monkeypatch.setenv("GITHUB_RUN_ID", "8")
    assert go_back() == 0
    assert len(tracker.issues) == 1
    (comment,) = tracker.comments
    assert "runs/8" in comment["body"]
    assert past.tag(4) in comment["body"]


def test_a_run_that_is_repeated_says_nothing_twice(past: Past, tracker: Tracker) -> None:
    for _ in range(2):
        past.release(past.releases[2])
        assert go_back() == 0
    assert (len(tracker.issues), tracker.comments) == (1, [])


@pytest.mark.parametrize("open_issue", [False, True])
def test_an_answer_that_got_lost_is_not_written_twice(
    past: Past, tracker: Tracker, open_issue: bool
) -> None:
    if open_issue:
        tracker.issues.append(
            {"number": 5, "html_url": "issue-5", "body": "<!-- rollback staging -->"}
        )
    tracker.lose = 1
    assert go_back() == 0
    assert tracker.posts == 1
    assert (len(tracker.issues), len(tracker.comments)) == (1, int(open_issue))


@pytest.mark.parametrize(
    "other",
    [
        {"number": 3, "body": "<!-- rollback production -->"},
        {"number": 3, "body": None},
        {"number": 3, "body": "<!-- rollback staging -->", "pull_request": {}},
    ],
)
def test_other_issues_are_left_alone(past: Past, tracker: Tracker, other: dict[str, Any]) -> None:
    tracker.issues.append({"html_url": "issue-3", **other})
    assert go_back() == 0
    assert [issue["number"] for issue in tracker.issues] == [3, 5]


@pytest.mark.parametrize("status", [403, 410, 503])
def test_an_issue_that_cannot_be_written_undoes_no_rollback(
    past: Past, tracker: Tracker, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    tracker.status = status
    assert go_back() == 0
    assert past.running == past.releases[1]
    assert "issue about the rollback could not be written" in capsys.readouterr().err
    assert tracker.posts == (3 if status >= 500 else 1)


def test_without_github_the_rollback_is_done_and_the_issue_skipped(
    past: Past, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go_back() == 0
    assert past.running == past.releases[1]
    assert "Skipped: the issue about the rollback" in capsys.readouterr().out
    assert "Skipped" in (past.world.folder / "summary.md").read_text(encoding="utf-8")


def test_the_first_release_ever_stays_and_is_reported(
    past: Past, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(past.world.root, "production", lambda *_: {})
    head = past.world.head("production")
    past.world.prepare(past.releases[2])
    assert main(["--environment", "production", "--failed"]) == 1
    assert past.world.head("production") == head
    (issue,) = tracker.issues
    assert issue["title"] == "production: a release failed"
    assert "was left as it is" in issue["body"]
    assert "The probe left no evidence." in issue["body"]
    assert "runs again" not in issue["body"]


def test_what_does_not_run_any_more_needs_no_rollback(
    past: Past, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    past.world.prepare(past.releases[1])
    assert go_back() == 0
    assert "nothing to roll back" in capsys.readouterr().out
    assert past.running == past.releases[2]
    assert tracker.issues == []


def test_another_build_of_what_failed_is_left_alone(past: Past, tracker: Tracker) -> None:
    failed = json.loads(json.dumps(past.releases[2]))
    failed[KIND]["digest"] = f"sha256:{9:064x}"
    past.world.prepare(failed)
    assert go_back() == 0
    assert past.running == past.releases[2]
    assert tracker.issues == []


@pytest.mark.parametrize("released", [True, False], ids=["another release", "nothing"])
def test_where_what_failed_never_ran_there_is_nothing_to_do(
    past: Past, tracker: Tracker, released: bool
) -> None:
    if released:
        promote(past.world.root, "production", lambda *_: {})
    past.world.prepare(past.releases[1])
    assert main(["--environment", "production", "--failed"]) == 0
    assert len(past.world.log("production")) == int(released)
    assert tracker.issues == []


def test_what_a_service_said_cannot_break_out_of_the_evidence(past: Past, tracker: Tracker) -> None:
    probe_failed(past.world, "```\n@everyone <img src=x>\n````\n" + "x" * 100_000)
    assert go_back() == 0
    body = tracker.issues[0]["body"]
    assert "\n`````text\n```\n@everyone" in body
    assert body.count("\n`````") == 2
    assert len(body) < 60_000


def test_a_push_that_is_refused_fails_and_leaves_the_branch(
    past: Past, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    past.world.hook("pre-receive", "exit 1")
    assert go_back() == 1
    assert past.running == past.releases[2]
    assert "cannot push env/staging" in capsys.readouterr().err
    assert tracker.issues == []


def test_needs_to_know_what_failed(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.root)
    assert go_back() == 1
    assert "build/release/release.json" in capsys.readouterr().err
