"""What is recorded of a release: from a real bento and repository, and a GitHub that is played."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_actions import NAME, TOKEN, FakeActions
from fake_artifact import put_artifact
from fake_bento import (
    GOLDEN,
    MODEL_HASH,
    TAG,
    VERSION,
    make_files,
    make_gate,
    make_release,
    put_into_store,
    store_in,
)
from fake_origin import World, git
from pytest_httpserver import HTTPServer
from werkzeug import Response

from gitops_ml.github.client import connect
from gitops_ml.ship.release.assemble import find_pull_request
from gitops_ml.ship.release.release import read_next
from gitops_ml.ship.targets.containers import KIND

main = subcommand("release-record")

PARAMS = b"seed: 1\n"


class Reviewed(FakeActions):
    """A repository whose commits come from pull requests."""

    def __init__(self, server: HTTPServer, storage: HTTPServer) -> None:
        super().__init__(server, storage)
        self.reviews: list[dict[str, Any]] = []

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        return [
            ("GET", r"/pulls/(\d+)/reviews", lambda _, number: Response(json.dumps(self.reviews))),
            *super()._routes(),
        ]


def pull(number: int = 7, **changes: Any) -> dict[str, Any]:
    return {
        "number": number,
        "user": {"login": "grace"},
        "merged_at": "2026-01-02T10:00:00Z",
        "merge_commit_sha": "e" * 40,
        **changes,
    }


def review(login: str, state: str) -> dict[str, Any]:
    return {"user": {"login": login}, "state": state}


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


@pytest.fixture
def github(server: HTTPServer, monkeypatch: pytest.MonkeyPatch, world: World) -> Reviewed:
    server.clear()
    fake = Reviewed(server, server)
    fake.pulls = [pull()]
    fake.reviews = [review("ada", "APPROVED")]
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    return fake


class Pushed:
    """A project with a fetched bento that was made ready to be deployed."""

    def __init__(self, world: World, store: Path) -> None:
        self.root = world.root
        (self.root / "params.yaml").write_bytes(PARAMS)
        git(self.root, "add", "params.yaml")
        git(self.root, "commit", "-qm", "Set the parameters")
        self.commit = git(self.root, "rev-parse", "HEAD")
        self.store = store
        self.package()
        self.gate()
        self.write("build/bento/run.json", b'{"id": 100}')

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def package(self, **changes: Any) -> None:
        source = {"commit": self.commit, "dirty": False}
        bento = put_into_store(self.store, make_files(**{"source": source, **changes}))
        self.artifact = put_artifact(self.root, bento)

    def gate(self, name: str = "build/bento/gate.json", **changes: Any) -> None:
        self.write(name, make_gate(**{"commit": self.commit, **changes}))

    @property
    def release(self) -> dict[str, Any]:
        path = self.root / "build" / "release" / "release.json"
        return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture
def pushed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pushed]:
    monkeypatch.chdir(world.root)
    with store_in(tmp_path / "store") as store:
        yield Pushed(world, store)


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert main() == 1
    return capsys.readouterr().err


def test_a_release_tells_all_that_it_is_made_of(github: Reviewed, pushed: Pushed) -> None:
    assert main() == 0

    assert pushed.release == {
        **make_release(source={"commit": pushed.commit, "dirty": False}),
        KIND: pushed.artifact,
        "gate": {
            "verdict": "promote",
            "base": "b" * 40,
            "consent": {
                "allow_loosening": True,
                "accept_new_baseline": None,
                "own_engine": False,
            },
        },
        "params": {"sha256": hashlib.sha256(PARAMS).hexdigest()},
        "pull_request": {"number": 7, "author": "grace", "approved_by": ["ada"]},
        "run": {"id": 100},
    }
    release, files = read_next(pushed.root)
    assert (release.tag, release.model) == (TAG, MODEL_HASH)
    assert json.loads(files["golden.json"]) == GOLDEN


def test_the_same_release_gives_the_same_bytes(github: Reviewed, pushed: Pushed) -> None:
    assert main() == 0
    before = read_next(pushed.root)[1]
    assert main() == 0
    assert read_next(pushed.root)[1] == before


def test_what_is_committed_counts_not_what_lies_there(github: Reviewed, pushed: Pushed) -> None:
    pushed.write("params.yaml", b"seed: 2\n")
    assert main() == 0
    assert pushed.release["params"] == {"sha256": hashlib.sha256(PARAMS).hexdigest()}


def test_outside_github_there_is_no_pull_request_and_no_run(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (pushed.root / "build" / "bento" / "run.json").unlink()
    assert main() == 0
    assert (pushed.release["pull_request"], pushed.release["run"]) == (None, None)
    assert "Not recorded, who approved" in capsys.readouterr().out


def test_the_gate_of_this_working_tree_counts_without_a_fetched_one(
    github: Reviewed, pushed: Pushed
) -> None:
    (pushed.root / "build" / "bento" / "gate.json").unlink()
    pushed.gate("reports/gate.json", verdict="keep", base=None)
    assert main() == 0
    assert pushed.release["gate"]["verdict"] == "keep"
    assert pushed.release["gate"]["base"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "block"}, "verdict is block; this must not be released"),
        ({"commit": "e" * 40}, f"of the commit {'e' * 40}, but {TAG} holds"),
        (
            {"challenger": {"hash": "1.dir", "sha256": "f" * 64, "source": "cache"}},
            f"is about the model {'f' * 64}",
        ),
        ({"rows": "many"}, "is no report of the gate"),
    ],
)
def test_without_the_gates_consent_nothing_is_recorded(
    github: Reviewed,
    pushed: Pushed,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: str,
) -> None:
    pushed.gate(**changes)
    assert words in refused(capsys)
    assert not (pushed.root / "build" / "release").exists()


def test_a_gate_that_was_never_asked_is_named(
    github: Reviewed, pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    (pushed.root / "build" / "bento" / "gate.json").unlink()
    assert "reports/gate.json: cannot be read" in refused(capsys)


def test_what_is_in_no_commit_is_no_release(
    github: Reviewed, pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.package(source={"commit": pushed.commit, "dirty": True})
    assert "files that are in no commit" in refused(capsys)
    pushed.package(source={"commit": "e" * 40, "dirty": False})
    pushed.gate(commit="e" * 40)
    assert f"params.yaml: is not in the commit {'e' * 40}" in refused(capsys)


def test_a_run_that_cannot_be_read_is_named(
    github: Reviewed, pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.write("build/bento/run.json", b'{"id": null}')
    assert "run.json: cannot be read" in refused(capsys)


def test_golden_predictions_that_are_missing_are_named(
    github: Reviewed, pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    (pushed.store / VERSION / "src" / "reports" / "golden.json").write_text('{"records": []}')
    assert "golden.json" in refused(capsys)


def test_github_that_fails_is_no_reason_to_forget_the_reviewer(
    github: Reviewed, pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("pulls/7/reviews", "collaborators/ada/permission"):
        github.refusals = {f"GET /repos/{NAME}/{path}": [403]}
        assert "may not do this" in refused(capsys)


def test_a_full_disk_is_named(
    github: Reviewed, pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.write("build/release", b"in the way")
    assert "build/release: cannot be written" in refused(capsys)


@pytest.mark.parametrize(
    ("reviews", "approved"),
    [
        ([], []),
        ([review("ada", "COMMENTED")], []),
        ([review("grace", "APPROVED"), review("ada", "APPROVED")], ["ada", "grace"]),
        ([review("ada", "APPROVED"), review("ada", "COMMENTED")], ["ada"]),
        ([review("ada", "APPROVED"), review("ada", "CHANGES_REQUESTED")], []),
        ([review("ada", "APPROVED"), review("ada", "DISMISSED")], []),
        ([review("ada", "CHANGES_REQUESTED"), review("ada", "APPROVED")], ["ada"]),
        ([review("ada", "DISMISSED"), review("ada", "APPROVED")], ["ada"]),
        ([review("ada", "DISMISSED")], []),
        ([{**review("", "APPROVED"), "user": None}], []),
    ],
)
def test_of_each_reviewer_the_last_verdict_counts(
    github: Reviewed, reviews: list[dict[str, Any]], approved: list[str]
) -> None:
    github.reviews = reviews
    found = find_pull_request(*connect(), "e" * 40)
    assert found == {"number": 7, "author": "grace", "approved_by": approved}


@pytest.mark.parametrize(
    ("permission", "counts"),
    [("admin", True), ("write", True), ("read", False), ("none", False), (None, False)],
)
def test_a_stranger_can_approve_but_that_is_no_approval(
    github: Reviewed, permission: str | None, counts: bool
) -> None:
    github.reviews = [review("ada", "APPROVED"), review("bob", "APPROVED")]
    if permission is not None:
        github.permissions["bob"] = permission
    found = find_pull_request(*connect(), "e" * 40)
    assert found is not None
    assert found["approved_by"] == (["ada", "bob"] if counts else ["ada"])


@pytest.mark.parametrize(
    ("pulls", "number"),
    [
        ([], None),
        ([pull(merged_at=None)], None),
        ([pull(5, merge_commit_sha="f" * 40), pull(9)], 9),
        ([pull(9, merge_commit_sha="f" * 40), pull(5, merge_commit_sha="f" * 40)], 5),
    ],
)
def test_the_pull_request_that_put_the_commit_there_counts(
    github: Reviewed, pulls: list[dict[str, Any]], number: int | None
) -> None:
    github.pulls = pulls
    found = find_pull_request(*connect(), "e" * 40)
    assert (found and found["number"]) == number
