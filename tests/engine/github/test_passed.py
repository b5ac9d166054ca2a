"""Which commit passed last, asked of a GitHub that is played and of a repository that is real."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_actions import BASE, NAME, TOKEN, FakeActions, pipeline_run, pull_request
from pytest_httpserver import HTTPServer

from gitops_ml.core.git import NO_COMMIT, GitError
from gitops_ml.github import passed
from gitops_ml.github.client import GitHub, connect
from gitops_ml.github.event import Event
from gitops_ml.github.passed import Base, NotToldError, base_of, was_blocked
from gitops_ml.github.runs import pushed_runs

REPOSITORY = {"default_branch": "main"}
RUNS = f"GET /repos/{NAME}/actions/workflows/pipeline.yml/runs"


@dataclass
class World:
    """A repository, and a GitHub that remembers runs of its pipeline."""

    root: Path
    api: FakeActions

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.com")
        return subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def commit(self, message: str) -> str:
        self.git("commit", "--allow-empty", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def ran(self, commit: str, conclusion: str | None = "success", **changes: Any) -> None:
        """Let the pipeline have run for a commit that was pushed to main."""
        status = "in_progress" if conclusion is None else "completed"
        number = 100 + len(self.api.runs)
        facts = {"conclusion": conclusion, "status": status, **changes}
        self.api.runs.append(pipeline_run(number, commit, **facts))

    def pushed(self, before: str, after: str | None = None) -> Base:
        """What a push to main is judged against, while its own run is under way."""
        after = after or self.git("rev-parse", "HEAD")
        self.ran(after, None)
        payload = {"ref": "refs/heads/main", "before": before, "after": after}
        return base_of(Event("push", {"repository": REPOSITORY, **payload}), self.root)

    def merged(self, commit: str, branch: str) -> None:
        """Let a pull request have brought a commit to a branch."""
        base = {"ref": branch, "sha": BASE, "repo": {"full_name": NAME}}
        facts = {"merged_at": "2026-01-02T10:00:00Z", "merge_commit_sha": commit}
        self.api.pulls.append(pull_request(number=9, base=base, **facts))

    def deliver(self, commit: str) -> None:
        """Let production run a commit."""
        here = self.git("rev-parse", "--abbrev-ref", "HEAD")
        self.git("checkout", "-q", "--orphan", "env")
        (self.root / "release.json").write_text(json.dumps({"source": {"commit": commit}}))
        self.git("add", "release.json")
        self.git("update-ref", "refs/remotes/origin/env/production", self.commit("Release"))
        self.git("checkout", "-q", here)

    def pull_request(self, base: str, ref: str = "main") -> Base:
        pull = {"number": 7, "base": {"sha": base, "ref": ref}}
        event = Event("pull_request", {"repository": REPOSITORY, "pull_request": pull})
        return base_of(event, self.root)


@pytest.fixture
def world(tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> World:
    fake = FakeActions(httpserver, httpserver)
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_RUN_NUMBER", "1")
    monkeypatch.setattr(passed, "connect", lambda root: connect(root, attempts=1))
    world = World(tmp_path / "repository", fake)
    world.root.mkdir()
    world.git("init", "-q", "-b", "main")
    return world


def test_after_a_commit_that_passed_it_is_the_base(world: World) -> None:
    a = world.commit("A")
    world.ran(a)
    world.commit("B")
    assert world.pushed(a) == Base(a, run=100)


def test_after_a_blocked_commit_the_one_before_it_is_the_base(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, "failure")
    world.commit("C")
    base = world.pushed(b)
    assert base.revision == a
    (note,) = base.notes
    assert f"{a[:10]} is the last commit that passed the pipeline" in note
    assert f"{b[:10]}, which main held before, has not" in note


@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "timed_out", None])
def test_only_success_is_passing(world: World, conclusion: str | None) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, conclusion)
    world.commit("C")
    assert world.pushed(b).revision == a


def test_only_success_is_passing_whatever_github_lists(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfiltered(
        api: GitHub, repository: str, branch: str | None, **_: str
    ) -> Iterator[dict[str, Any]]:
        return pushed_runs(api, repository, branch)

    monkeypatch.setattr(passed, "pushed_runs", unfiltered)
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, "failure")
    world.commit("C")
    assert world.pushed(b).revision == a


class TestHotfix:
    """A branch that starts at an earlier commit of main, which is ahead."""

    def pushed(self, world: World, before: str) -> Base:
        after = world.git("rev-parse", "HEAD")
        payload = {"ref": "refs/heads/hotfix/one", "before": before, "after": after}
        world.ran(after, None, head_branch="hotfix/one")
        return base_of(Event("push", {"repository": REPOSITORY, **payload}), world.root)

    @pytest.fixture
    def released(self, world: World) -> str:
        first = world.commit("A")
        released = world.commit("B")
        ahead = world.commit("C")
        for commit in (first, released, ahead):
            world.ran(commit)
        world.git("update-ref", "refs/remotes/origin/main", ahead)
        world.git("switch", "-qc", "hotfix/one", released)
        return released

    def test_it_is_held_against_what_was_released_not_against_main(
        self, world: World, released: str
    ) -> None:
        fix = world.commit("Mend")
        assert self.pushed(world, released).revision == released
        world.merged(fix, "hotfix/one")
        world.api.runs[-1] |= {"conclusion": "success", "status": "completed"}
        world.commit("Mend more")
        assert self.pushed(world, fix).revision == fix
        assert world.pull_request(fix, "hotfix/one").revision == fix

    def test_a_new_branch_starts_where_it_left_main(self, world: World, released: str) -> None:
        world.commit("Pushed with the branch")
        assert self.pushed(world, NO_COMMIT).revision == released

    def test_a_new_branch_without_commits_is_held_against_the_one_before(
        self, world: World, released: str
    ) -> None:
        before = world.git("rev-parse", f"{released}^")
        assert self.pushed(world, NO_COMMIT).revision == before

    def test_what_passed_on_a_branch_of_one_s_own_is_not_gone_by(
        self, world: World, released: str
    ) -> None:
        """Its workflow may have been anything; the merge brings that commit, but not its proof."""
        world.git("switch", "-qc", "own", released)
        own = world.commit("With a workflow that is green")
        world.ran(own, head_branch="own")
        world.commit("As if it had not been")
        world.git("switch", "-q", "hotfix/one")
        red = world.commit("Blocked")
        world.git("merge", "-q", "--no-ff", "-m", "Merge own", "own")
        assert self.pushed(world, red).revision == released

    def test_what_the_branch_was_made_with_is_not_gone_by(
        self, world: World, released: str
    ) -> None:
        own = world.commit("Nobody merged it")
        world.ran(own, head_branch="hotfix/one")
        assert world.pull_request(own, "hotfix/one").revision == released
        world.commit("Merged")
        assert self.pushed(world, own).revision == released
        world.merged(own, "hotfix/two")
        assert world.pull_request(own, "hotfix/one").revision == released

    def test_a_branch_from_before_what_production_runs_is_not_judged(
        self, world: World, released: str
    ) -> None:
        world.deliver(released)
        assert world.pull_request(released, "hotfix/one").revision == released
        earlier = world.git("rev-parse", f"{released}^")
        with pytest.raises(NotToldError, match="does not start at what production runs"):
            world.pull_request(earlier, "hotfix/old")

    def test_a_branch_of_which_nothing_passed_is_not_judged(
        self, world: World, released: str
    ) -> None:
        world.api.runs = [run for run in world.api.runs if run["head_sha"] != released]
        world.git("checkout", "-q", "--orphan", "elsewhere")
        alone = world.commit("Nothing of main")
        with pytest.raises(NotToldError, match="no commit that hotfix/one starts from has passed"):
            world.pull_request(alone, "hotfix/one")

    def test_another_branch_is_still_held_against_main(self, world: World, released: str) -> None:
        payload = {"ref": "refs/heads/feature", "before": NO_COMMIT, "after": released}
        found = base_of(Event("push", {"repository": REPOSITORY, **payload}), world.root)
        assert found.revision == world.git("rev-parse", "origin/main")


def test_a_run_that_passed_the_second_time_has_passed(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, "success", run_attempt=2)
    world.commit("C")
    assert world.pushed(b) == Base(b, run=101)


def test_the_judged_commit_s_own_runs_do_not_count(world: World) -> None:
    """It may have passed before: on another day, or before main was moved away and back."""
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b)
    assert world.pushed(a, b).revision == a


def test_a_whole_page_of_failures_hides_nothing(world: World) -> None:
    a = world.commit("A")
    world.ran(a)
    last = a
    for number in range(3):
        last = world.commit(f"Red {number}")
    # What passed elsewhere fills the first pages of what GitHub lists.
    for number in range(250):
        world.ran(f"{number:040x}")
        world.ran(last, "failure")
    world.commit("Head")
    assert world.pushed(last).revision == a
    assert world.api.requests.count(RUNS) == 3


def test_the_newest_of_those_that_passed_is_the_base_in_whatever_order_they_ran(
    world: World,
) -> None:
    a, b, c = (world.commit(name) for name in "ABC")
    world.ran(b)
    world.ran(a)
    world.ran(c, "failure")
    world.commit("D")
    assert world.pushed(c).revision == b


def test_runs_of_other_branches_and_events_say_nothing(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, head_branch="faster")
    world.ran(b, event="workflow_dispatch")
    world.ran(b, event="pull_request")
    world.commit("C")
    assert world.pushed(b).revision == a


def test_main_that_was_merged_into_the_branch_that_became_main_is_not_forgotten(
    world: World,
) -> None:
    """After such a merge, what main held is not on the line of first parents."""
    a = world.commit("A")
    world.git("branch", "side")
    b = world.commit("B")
    world.ran(a)
    world.ran(b)
    world.git("checkout", "-q", "side")
    world.commit("Beside")
    world.git("merge", "-q", "--no-ff", "-m", "Merge main", "main")
    world.commit("More")
    assert world.pushed(NO_COMMIT.replace("0", "e")).revision == b


def test_what_a_merge_brought_along_is_not_gone_by(world: World) -> None:
    """GitHub tells of the run for a tag `main` as of one for the branch; its workflow was free."""
    a = world.commit("A")
    world.ran(a)
    world.git("switch", "-qc", "own")
    own = world.commit("With a workflow that is green")
    world.ran(own, head_branch="main")
    world.commit("As if it had not been")
    world.git("switch", "-q", "main")
    red = world.commit("Blocked")
    world.ran(red, "failure")
    world.git("merge", "-q", "--no-ff", "-m", "Merge own", "own")
    merge = world.git("rev-parse", "HEAD")
    world.api.pulls = [pull_request(merged_at="2026-01-02T10:00:00Z", merge_commit_sha=merge)]
    assert world.pushed(red).revision == a


def test_a_branch_that_was_rewritten_goes_back_to_what_is_left_of_it(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b)
    world.git("reset", "-q", "--hard", a)
    world.commit("Another B")
    base = world.pushed(b)
    assert base.revision == a
    assert "main was rewritten" in base.notes[0]


def test_what_passed_and_was_rewritten_away_is_not_the_newest_when_it_is_merged_again(
    world: World,
) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b)
    world.git("branch", "away")
    world.git("reset", "-q", "--hard", a)
    c = world.commit("C")
    world.ran(c)
    world.git("merge", "-q", "--no-ff", "-m", "Merge", "away")
    world.ran(world.git("rev-parse", "HEAD"), "failure")
    red = world.git("rev-parse", "HEAD")
    world.commit("D")
    assert world.pushed(red).revision == c


def test_a_history_of_which_nothing_is_left_is_judged_against_its_parent(world: World) -> None:
    gone = world.commit("A")
    world.ran(gone)
    world.git("checkout", "-q", "--orphan", "new")
    rewritten = world.commit("A, rewritten")
    world.commit("B")
    base = world.pushed(gone)
    assert base.revision == rewritten
    assert "GitHub remembers no commit of this history" in base.notes[0]


def test_a_first_push_is_judged_against_nothing_and_asks_nobody(world: World) -> None:
    world.commit("A")
    assert world.pushed(NO_COMMIT) == Base(NO_COMMIT)
    assert world.api.requests == []


def test_while_nothing_has_passed_there_is_no_champion(world: World) -> None:
    a = world.commit("A")
    world.ran(a, "failure")
    world.commit("B")
    base = world.pushed(a)
    assert base.revision == NO_COMMIT
    assert base.notes == ("No commit of main has passed the pipeline yet: there is no champion.",)


def test_runs_that_github_forgot_are_missed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_RUN_NUMBER", "12")
    a = world.commit("A")
    world.ran(a, "failure")
    world.commit("B")
    base = world.pushed(a)
    assert base.revision == a
    assert "though some may have" in base.notes[0]


def test_a_release_tells_what_github_forgot(world: World) -> None:
    a, b, c = (world.commit(name) for name in "ABC")
    world.git("tag", "release-1", a)
    world.git("tag", "-a", "-m", "", "release-2", b)
    world.git("tag", "other", c)
    world.ran(c, "failure")
    world.commit("D")
    assert world.pushed(c).revision == b


def test_an_environment_s_branch_tells_what_github_forgot(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.git("checkout", "-q", "--orphan", "env")
    (world.root / "release.json").write_text(json.dumps({"source": {"commit": a}}))
    world.git("add", "release.json")
    world.git("update-ref", "refs/remotes/origin/env/staging", world.commit("Release"))
    world.git("update-ref", "refs/remotes/origin/env/broken", b)
    world.git("checkout", "-q", "main")
    world.ran(b, "failure")
    world.commit("C")
    assert world.pushed(b).revision == a


def test_a_branch_that_was_renamed_keeps_its_champion(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a, head_branch="master")
    world.ran(b, "failure")
    world.commit("C")
    assert world.pushed(b).revision == a


def test_a_branch_that_was_renamed_goes_by_no_run_of_what_was_merged_to_it(world: World) -> None:
    a = world.commit("A")
    world.ran(a, head_branch="master")
    world.git("switch", "-qc", "own")
    world.ran(world.commit("With a workflow that is green"), head_branch="own")
    world.git("switch", "-q", "main")
    world.git("merge", "-q", "--no-ff", "-m", "Merge own", "own")
    merge = world.git("rev-parse", "HEAD")
    world.ran(merge, "failure")
    world.commit("B")
    assert world.pushed(merge).revision == a


def test_a_pull_request_is_judged_against_its_base_where_that_passed(world: World) -> None:
    a = world.commit("A")
    world.ran(a)
    assert world.pull_request(a) == Base(a, run=100)


@pytest.mark.parametrize("conclusion", ["failure", None])
def test_a_pull_request_to_a_red_main_is_judged_against_what_passed(
    world: World, conclusion: str | None
) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, conclusion)
    base = world.pull_request(b)
    assert base.revision == a
    assert f"the base itself, {b[:10]}, has not" in base.notes[0]


def test_a_pull_request_to_another_branch_is_judged_as_if_it_were_to_the_default_branch(
    world: World,
) -> None:
    """Its check is one of its commit, and stays if it is then to be merged to main."""
    a = world.commit("A")
    world.ran(a)
    world.git("update-ref", "refs/remotes/origin/main", a)
    b = world.commit("B")
    world.ran(b, head_branch="develop")
    assert world.pull_request(b, "develop") == Base(a, run=100)
    assert world.pull_request(b).revision == a


def test_another_branch_is_judged_against_what_passed_on_the_default_branch(world: World) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, "failure")
    world.git("update-ref", "refs/remotes/origin/main", b)
    event = Event("push", {"repository": REPOSITORY, "ref": "refs/heads/faster", "before": a})
    assert base_of(event, world.root).revision == a


def test_a_queue_s_first_entry_is_judged_against_what_passed_and_the_next_one_against_it(
    world: World,
) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, "failure")
    world.git("update-ref", "refs/remotes/origin/main", b)
    first = world.commit("The first in the queue")

    def group(base: str) -> Base:
        event = Event("merge_group", {"repository": REPOSITORY, "merge_group": {"base_sha": base}})
        return base_of(event, world.root)

    assert group(b).revision == a
    assert group(first) == Base(first)


@pytest.mark.parametrize("status", [403, 500])
def test_without_an_answer_a_push_to_main_is_not_judged(world: World, status: int) -> None:
    a = world.commit("A")
    world.ran(a)
    world.commit("B")
    world.api.refusals[RUNS] = [status]
    with pytest.raises(NotToldError, match=r"run the job again.*`actions: read`"):
        world.pushed(a)


def test_without_an_answer_what_was_delivered_is_known_to_have_passed(world: World) -> None:
    a = world.commit("A")
    world.git("tag", "release-1", a)
    b = world.commit("B")
    world.api.refusals[RUNS] = [500, 500]
    assert world.pushed(a, b) == Base(a)
    world.commit("C")
    with pytest.raises(NotToldError):
        world.pushed(b)


def test_without_a_token_a_push_to_main_is_not_judged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = world.commit("A")
    world.commit("B")
    monkeypatch.setenv("GITHUB_TOKEN", "")
    monkeypatch.delenv("GH_TOKEN", raising=False)
    with pytest.raises(NotToldError, match="needs GITHUB_TOKEN"):
        world.pushed(a)


@pytest.mark.parametrize("missing", ["conclusion", "head_sha", "id"])
def test_an_answer_that_is_not_understood_is_none(world: World, missing: str) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a, status="success")
    del world.api.runs[0][missing]
    world.commit("C")
    with pytest.raises(NotToldError, match=f"was not understood: KeyError.'{missing}'"):
        world.pushed(b)


def test_without_an_answer_a_pull_request_is_judged_against_its_base(world: World) -> None:
    a = world.commit("A")
    world.api.refusals[RUNS] = [500]
    base = world.pull_request(a)
    assert base.revision == a
    assert "The run after the merge asks again" in base.notes[0]


def test_half_a_history_is_not_searched_in_vain(world: World, tmp_path: Path) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(a)
    world.ran(b, "failure")
    world.commit("C")
    shallow = tmp_path / "shallow"
    world.git("clone", "-q", "--depth", "2", f"file://{world.root}", str(shallow))
    world.root = shallow
    with pytest.raises(GitError, match="fetch-depth: 0"):
        world.pushed(b)


def test_a_base_that_is_not_in_the_repository_is_named(world: World) -> None:
    world.commit("A")
    with pytest.raises(GitError, match="e" * 40):
        world.pull_request("e" * 40)


@pytest.fixture
def event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "event.json"
    path.write_text(json.dumps({"repository": REPOSITORY}), encoding="utf-8")
    monkeypatch.setenv("GITHUB_EVENT_NAME", "push")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(path))


@pytest.mark.usefixtures("event")
@pytest.mark.parametrize(
    ("conclusions", "blocked"),
    [
        ([], False),
        ([None], False),
        (["failure"], True),
        (["failure", None], True),
        (["failure", "success"], False),
    ],
)
def test_a_commit_was_blocked_when_its_pipeline_ran_and_never_passed(
    world: World, conclusions: list[str | None], blocked: bool
) -> None:
    a, b = world.commit("A"), world.commit("B")
    world.ran(b, "failure")
    world.ran(a, "failure", head_branch="faster")
    for conclusion in conclusions:
        world.ran(a, conclusion)
    assert was_blocked(a, world.root) is blocked


@pytest.mark.usefixtures("event")
def test_without_an_answer_a_commit_is_not_said_to_be_blocked(world: World) -> None:
    a = world.commit("A")
    world.ran(a, "failure")
    world.api.refusals[RUNS] = [403]
    assert not was_blocked(a, world.root)


def test_outside_of_a_workflow_nobody_is_asked_whether_a_commit_was_blocked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
    assert not was_blocked(world.commit("A"), world.root)
    assert world.api.requests == []
