"""Which hotfix is delivered: real git, and a GitHub that is played by a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_actions import NAME, TOKEN, FakeActions, as_json, pipeline_run
from fake_origin import GOLDEN, World, git, make_release
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.github.client import connect
from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.fetch import find_run
from gitops_ml.ship.hotfix import find_branch
from gitops_ml.ship.release.lineage import _commit_row

main = subcommand("plan")

BRANCH = "hotfix/broken-answers"
RULES = ("deletion", "pull_request", "required_status_checks")


class Fake(FakeActions):
    """A GitHub that knows how each commit was merged, and the rules of each branch.

    Attributes:
        careless: Whether it lists all runs, whatever is asked for.
    """

    def __init__(self, server: HTTPServer, storage: HTTPServer) -> None:
        super().__init__(server, storage)
        self.merged: dict[str, str] = {}
        self.rules = {"main": list(RULES), BRANCH: list(RULES)}
        self.careless = False

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        return [
            ("GET", "", lambda _: as_json({"default_branch": "main"})),
            ("GET", r"/commits/(\w+)/pulls", lambda _, sha: as_json(self._merges(sha))),
            (
                "GET",
                r"/rules/branches/(.+)",
                lambda _, name: as_json([{"type": one} for one in self.rules.get(name, [])]),
            ),
            *super()._routes(),
        ]

    def _pipeline_runs(self, request: Request) -> Response:
        if self.careless:
            return as_json({"total_count": len(self.runs), "workflow_runs": self.runs})
        return super()._pipeline_runs(request)

    def _merges(self, commit: str) -> list[dict[str, Any]]:
        if commit not in self.merged:
            return []
        where = {"ref": self.merged[commit]}
        return [{"number": 3, "merged_at": "now", "merge_commit_sha": commit, "base": where}]


@dataclass
class Story:
    """Production runs the first commit of main, which is ahead; a branch mends it.

    Attributes:
        world: The origin, and the clone that is the current folder.
        github: What GitHub knows.
        fix: The newest commit of the branch.
    """

    world: World
    github: Fake
    fix: str = field(init=False)

    def __post_init__(self) -> None:
        root = self.world.root
        (root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
        git(root, "add", "dvc.lock")
        git(root, "commit", "-qm", "Train")
        git(root, "push", "-q", "origin", "HEAD:main")
        self.released = git(root, "rev-parse", "HEAD")
        self.run("production", make_release(self.released, 1))
        self.ahead = self.world.commit("ahead")
        self.run("staging", make_release(self.ahead, 2))
        git(root, "switch", "-qc", BRANCH, self.released)
        self.fix = self.mend("mended")
        git(root, "switch", "-q", "--detach", "origin/main")

    def mend(self, text: str) -> str:
        """A commit that was merged to the branch by a pull request, and whose pipeline passed."""
        root = self.world.root
        (root / "mend.txt").write_text(text, encoding="utf-8")
        git(root, "add", "mend.txt")
        git(root, "commit", "-qm", text)
        git(root, "push", "-q", "origin", f"HEAD:{BRANCH}")
        commit = git(root, "rev-parse", "HEAD")
        self.github.merged[commit] = BRANCH
        number = 200 + len(self.github.runs)
        self.github.runs.append(pipeline_run(number, commit, head_branch=BRANCH))
        return commit

    def run(self, environment: str, release: dict[str, Any]) -> None:
        """Let an environment run a release."""
        files = {"release.json": json.dumps(release), "golden.json": json.dumps(GOLDEN)}
        content = {name: text.encode() for name, text in files.items()}
        branch = EnvironmentBranch(self.world.root, environment)
        branch.publish(content, "Release", lambda _: None)


@pytest.fixture
def story(
    world: World, tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Story]:
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    with HTTPServer() as storage:
        fake = Fake(httpserver, storage)
        monkeypatch.setenv("GITHUB_API_URL", fake.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
        yield Story(world, fake)
    httpserver.check_handler_errors()


def outputs(folder: Path) -> dict[str, str]:
    path = folder / "output"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.parametrize("by_branch", [False, True], ids=["commit", "branch"])
def test_a_hotfix_of_what_production_runs_is_delivered(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str], by_branch: bool
) -> None:
    assert main(["--commit", BRANCH if by_branch else story.fix]) == 0
    told = outputs(tmp_path)
    assert (told["commit"], told["deliverable"]) == (story.fix, "true")
    # What the delivery may replace, as for any that a person starts.
    assert told["staging"] == story.world.head("staging")
    assert told["production"] == story.world.head("production")
    assert f"is a hotfix of shop:{story.released[:8]}" in capsys.readouterr().out


def test_a_second_one_goes_on_from_the_first(story: Story, tmp_path: Path) -> None:
    story.run("production", make_release(story.fix, 3))
    git(story.world.root, "switch", "-q", BRANCH)
    second = story.mend("mended again")
    assert main(["--commit", second]) == 0
    assert outputs(tmp_path)["commit"] == second


def nobody_merged_it(story: Story) -> None:
    story.github.merged.clear()


def merged_elsewhere(story: Story) -> None:
    story.github.merged[story.fix] = "main"


def fewer_rules(story: Story) -> None:
    story.github.rules[BRANCH].remove("pull_request")


def pipeline_red(story: Story) -> None:
    story.github.runs[0]["conclusion"] = "failure"


def pipeline_of_an_earlier_commit(story: Story) -> None:
    story.github.runs[0]["head_sha"] = story.released
    story.github.careless = True


def pipeline_of_another_branch(story: Story) -> None:
    story.github.runs[0]["head_branch"] = "feature"


def production_moved(story: Story) -> None:
    story.run("production", make_release(story.ahead, 2))


def production_empty(story: Story) -> None:
    git(story.world.origin, "update-ref", "-d", "refs/heads/env/production")


def branch_gone(story: Story) -> None:
    git(story.world.origin, "branch", "-m", BRANCH, "feature")


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        (nobody_merged_it, f"was merged to {BRANCH} by no pull request"),
        (merged_elsewhere, f"was merged to {BRANCH} by no pull request"),
        (fewer_rules, f"does not hold {BRANCH} to: pull_request; `make github-setup APPLY=1`"),
        (pipeline_red, "the pipeline has not passed for its push"),
        (pipeline_of_an_earlier_commit, "the pipeline has not passed for its push"),
        (pipeline_of_another_branch, "the pipeline has not passed for its push"),
        (production_moved, "that production runs"),
        (production_empty, "env/production is empty"),
        (branch_gone, "which is not on main: only what was merged is delivered"),
    ],
)
def test_a_hotfix_without_all_of_the_proof_is_not_delivered(
    story: Story,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    defect: Callable[[Story], None],
    said: str,
) -> None:
    defect(story)
    assert main(["--commit", story.fix]) == 1
    assert said in capsys.readouterr().err
    assert outputs(tmp_path) == {}


def test_each_commit_since_the_release_was_merged(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    """A branch that was made with more on it than the release is not made right by one merge."""
    git(story.world.root, "switch", "-q", BRANCH)
    del story.github.merged[story.fix]
    newest = story.mend("reviewed")
    assert main(["--commit", newest]) == 1
    said = capsys.readouterr().err
    assert f"{story.fix[:12]} was merged" in said
    assert newest[:12] not in said.partition(BRANCH)[2]


def test_where_main_has_no_rules_a_hotfix_needs_none(story: Story) -> None:
    """As in a private repository whose plan has none: then nothing is protected."""
    story.github.rules.clear()
    assert main(["--commit", story.fix]) == 0


def test_a_branch_that_is_not_there_is_named(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--commit", "hotfix/none"]) == 1
    assert "COMMIT is 'hotfix/none': git knows no such commit" in capsys.readouterr().err


def test_its_bento_is_that_of_its_own_run(story: Story) -> None:
    api, name = connect(story.world.root)
    assert find_run(api, name, story.fix).number == 200


def test_its_commit_counts_as_reviewed(story: Story) -> None:
    repository = Repository(story.world.root)
    assert find_branch(repository, story.fix) == BRANCH
    row = _commit_row(repository, story.fix)
    assert (row.verdict, row.note) == ("ok", f"on {BRANCH}")
    # Another one, whose name comes first, is not the one that it is on.
    git(story.world.root, "push", "-q", "origin", f"{story.released}:refs/heads/hotfix/a")
    assert find_branch(repository, story.fix) == BRANCH
    branch_gone(story)
    assert _commit_row(repository, story.fix).verdict == "differs"
