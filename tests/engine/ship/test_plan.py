"""Which commit is delivered: real git, and a GitHub that is played by a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_actions import NAME, TOKEN, FakeActions, pull_request
from fake_origin import World, git
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.ship.environments.branches import EnvironmentBranch

main = subcommand("plan")


@pytest.fixture
def told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a clone; gives the folder of what later steps and the page are told."""
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    return tmp_path


def outputs(told: Path) -> dict[str, str]:
    text = (told / "output").read_text(encoding="utf-8") if (told / "output").exists() else ""
    return dict(line.split("=", 1) for line in text.splitlines())


def planned(told: Path) -> tuple[str, str]:
    """The commit, and whether it is deliverable."""
    found = outputs(told)
    return found["commit"], found["deliverable"]


def trained(world: World) -> str:
    (world.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    git(world.root, "add", "dvc.lock")
    git(world.root, "commit", "-qm", "Train")
    git(world.root, "push", "-q", "origin", "HEAD:main")
    return git(world.root, "rev-parse", "HEAD")


def test_a_commit_without_a_lock_is_not_delivered_and_says_what_to_do(
    world: World, told: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    assert main([]) == 0
    assert "is to be delivered" not in capsys.readouterr().out
    commit = git(world.root, "rev-parse", "HEAD")
    assert outputs(told) == {"commit": commit, "deliverable": "false"}
    page = (told / "page").read_text(encoding="utf-8")
    assert f"the delivery of {commit[:8]}, which names no model" in page
    assert "commit `dvc.lock` and `reports/`" in page


def test_a_commit_with_a_lock_is_delivered(
    world: World, told: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = trained(world)
    assert main([]) == 0
    assert f"{commit} is to be delivered" in capsys.readouterr().out
    assert outputs(told) == {"commit": commit, "deliverable": "true"}
    assert not (told / "page").exists()


def test_in_a_folder_of_a_repository_it_says_that_github_reads_the_top(
    world: World, told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.root / "services" / "late"
    folder.mkdir(parents=True)
    (folder / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    git(world.root, "add", "services")
    git(world.root, "commit", "-qm", "Train in a folder")
    assert main([]) == 0
    assert outputs(told)["deliverable"] == "false"
    assert "GitHub reads" not in capsys.readouterr().err
    monkeypatch.chdir(folder)
    assert main([]) == 0
    assert outputs(told)["deliverable"] == "true"
    said = capsys.readouterr().err
    assert "the project is the folder services/late of a repository, and GitHub reads" in said
    assert "copy the folder out" in said


def test_without_a_commit_it_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "there is no commit to deliver" in capsys.readouterr().err


@pytest.mark.parametrize("length", [40, 8], ids=["whole", "short"])
def test_an_earlier_commit_of_main_can_be_chosen(world: World, told: Path, length: int) -> None:
    commit = trained(world)
    world.commit("later")
    assert main(["--commit", commit[:length]]) == 0
    assert planned(told) == (commit, "true")


def test_what_each_environment_runs_is_told(world: World, told: Path) -> None:
    commit = trained(world)
    assert main(["--commit", commit]) == 0
    assert (outputs(told)["staging"], outputs(told)["production"]) == ("", "")
    other = EnvironmentBranch(world.clone("other"), "staging")
    head = other.publish({"release.json": b"{}"}, "one", lambda _: None)
    assert main(["--commit", commit]) == 0
    assert (outputs(told)["staging"], outputs(told)["production"]) == (head, "")


def test_a_commit_of_main_that_is_not_here_is_fetched(
    world: World, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.clone("earlier"))
    commit = trained(world)
    assert main(["--commit", commit]) == 0
    assert outputs(told)["commit"] == commit


@pytest.mark.parametrize("form", ["branch", "hash", "unfetched hash"])
def test_what_was_not_merged_is_not_delivered(
    world: World,
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    """Its own code would run, with all that the workflow may do."""
    clone = world.clone("elsewhere")
    git(world.root, "config", "receive.denyCurrentBranch", "ignore")
    git(world.root, "checkout", "-qb", "mine")
    (world.root / "dvc.lock").touch()
    git(world.root, "add", "dvc.lock")
    git(world.root, "commit", "-qm", "mine")
    git(world.root, "push", "-q", "origin", "mine")
    commit = git(world.root, "rev-parse", "HEAD")
    if form == "unfetched hash":
        git(world.origin, "config", "uploadpack.allowAnySHA1InWant", "true")
        monkeypatch.chdir(clone)
    assert main(["--commit", "mine" if form == "branch" else commit]) == 1
    said = capsys.readouterr().err
    assert f"the commit {commit}, which is not on main: only what was merged" in said
    assert outputs(told) == {}


@pytest.mark.parametrize("by", ["a pull request", "a push"])
def test_what_a_merge_brought_along_is_not_delivered(
    world: World,
    told: Path,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by: str,
) -> None:
    """Its run may have been for a tag `main`, with a workflow and a bento of somebody's own."""
    git(world.root, "switch", "-qc", "own")
    (world.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    git(world.root, "add", "dvc.lock")
    git(world.root, "commit", "-qm", "own")
    own = git(world.root, "rev-parse", "HEAD")
    git(world.root, "switch", "-q", "--detach", "origin/main")
    git(world.root, "merge", "-q", "--no-ff", "-m", "Merge own", own)
    git(world.root, "push", "-q", "origin", "HEAD:main")
    merge = git(world.root, "rev-parse", "HEAD")
    fake = FakeActions(httpserver, httpserver)
    facts = {"merged_at": "2026-01-02T10:00:00Z", "merge_commit_sha": merge}
    fake.pulls = [pull_request(**facts)] if by == "a pull request" else []
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    assert main(["--commit", merge]) == 0
    assert fake.requests == []
    assert main(["--commit", own]) == (1 if fake.pulls else 0)
    if fake.pulls:
        assert "which a pull request brought along" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["nothing", "e" * 40, "--force", "HEAD:dvc.lock", ""])
def test_a_commit_that_nobody_has_is_named(
    world: World, told: Path, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    trained(world)
    assert main([f"--commit={wanted}"]) == 1
    assert f"COMMIT is {wanted!r}: git knows no such commit" in capsys.readouterr().err
    assert outputs(told) == {}


def test_a_clone_without_history_says_how_to_get_it(
    world: World, told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained(world)
    world.commit("later")
    git(world.origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    monkeypatch.chdir(world.clone("shallow", "--depth=1"))
    assert main(["--commit", first]) == 1
    assert "git fetch --unshallow" in capsys.readouterr().err


def test_without_main_nothing_is_merged(
    world: World, told: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(world.origin, "update-ref", "-d", "refs/heads/main")
    assert main(["--commit", world.first]) == 1
    assert "origin has no branch main" in capsys.readouterr().err


def test_the_default_branch_may_have_another_name(
    world: World, told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What git knows of origin counts at a desk, what the event says in a workflow."""
    commit = trained(world)
    git(world.origin, "branch", "-m", "main", "trunk")
    assert main(["--commit", commit]) == 1
    assert "`git remote set-head origin --auto`" in capsys.readouterr().err
    git(world.root, "fetch", "-q", "--prune", "origin")
    git(world.root, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    assert main(["--commit", commit]) == 0
    assert planned(told) == (commit, "true")

    git(world.origin, "branch", "-m", "trunk", "release")
    event = told / "event.json"
    event.write_text(json.dumps({"repository": {"default_branch": "release"}}), encoding="utf-8")
    monkeypatch.setenv("GITHUB_EVENT_NAME", "workflow_run")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    assert main(["--commit", commit]) == 0


class Pipeline(FakeActions):
    """A repository whose pipeline has run."""

    branch = "main"

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        return [
            ("GET", "/actions/workflows/pipeline.yml/runs", self._pipeline_runs),
            *super()._routes(),
        ]

    def _pipeline_runs(self, request: Request) -> Response:
        assert request.args["event"] == "push"
        if "head_sha" in request.args:
            return super()._pipeline_runs(request)
        assert (request.args["branch"], request.args["status"]) == (self.branch, "success")
        return Response(json.dumps({"workflow_runs": self.runs}))


@pytest.fixture
def github(
    told: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    with HTTPServer() as storage:
        fake = Pipeline(httpserver, storage)
        monkeypatch.setenv("GITHUB_API_URL", fake.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
        yield fake
    httpserver.check_handler_errors()


def passed(commit: str, **changes: Any) -> dict[str, Any]:
    run = {"event": "push", "head_branch": "main", "conclusion": "success", "head_sha": commit}
    return {**run, **changes}


def test_the_newest_that_passed_is_the_newest_to_deliver(
    world: World, told: Path, github: Pipeline
) -> None:
    good = trained(world)
    red = world.commit("red")
    github.runs = [
        passed(red, conclusion="failure"),
        passed(red, event="pull_request"),
        passed(red, head_branch="other"),
        passed(good),
        passed(world.first),
    ]
    assert main(["--commit", "newest"]) == 0
    assert planned(told) == (good, "true")


def test_the_newest_is_one_of_the_default_branch(
    world: World, told: Path, github: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = trained(world)
    git(world.origin, "branch", "-m", "main", "master")
    git(world.root, "fetch", "-q", "--prune", "origin")
    git(world.root, "branch", "-m", "main", "master")
    github.branch = "master"
    github.runs = [passed(world.first), passed(good, head_branch="master")]
    assert main(["--commit", "newest"]) == 0
    assert planned(told) == (good, "true")


def test_where_none_has_passed_there_is_none_to_deliver(
    world: World, told: Path, github: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--commit", "newest"]) == 1
    assert "the pipeline has passed for no push to main yet" in capsys.readouterr().err


def test_without_an_answer_from_github_the_newest_cannot_be_told(
    world: World,
    told: Path,
    github: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "wrong")
    assert main(["--commit", "newest"]) == 1
    assert "Bad credentials" in capsys.readouterr().err
    assert outputs(told) == {}
