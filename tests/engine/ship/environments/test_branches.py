"""Environment branches, in a real git with real rivals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_artifact import NAME
from fake_origin import World, git, make_release

from gitops_ml.ship.environments.branches import ATTEMPTS, EnvironmentBranch, commit_message
from gitops_ml.ship.environments.repository import OvertakenError, RefusedError, UnreachableError
from gitops_ml.ship.release.release import Release, ReleaseError, parse_release
from gitops_ml.ship.targets.containers import KIND

FILES = {"manifests.yaml": b"kind: Service\n", "release.json": b"{}"}


def anything(_: Release | None) -> None:
    pass


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def branch(world: World, waits: list[float]) -> EnvironmentBranch:
    return EnvironmentBranch(world.root, "staging", sleep=waits.append)


def released(world: World, number: int, commit: str = "") -> dict[str, bytes]:
    return {"release.json": json.dumps(make_release(commit or world.first, number)).encode()}


def test_the_first_release_starts_a_history_of_its_own(
    world: World, branch: EnvironmentBranch
) -> None:
    commit = branch.publish(FILES, "Release one", anything)
    assert world.files("staging") == {"manifests.yaml": "kind: Service", "release.json": "{}"}
    assert world.head("staging") == commit == branch.head()
    assert world.log("staging") == ["Release one"]
    assert git(world.origin, "log", "-1", "--format=%an", "env/staging") == "Ada"


def test_the_branch_holds_the_new_files_and_no_old_ones(
    world: World, branch: EnvironmentBranch
) -> None:
    branch.publish({**FILES, "old/service.yaml": b"x"}, "one", anything)
    branch.publish({"manifests.yaml": b"two\n"}, "two", anything)
    assert world.files("staging") == {"manifests.yaml": "two"}
    assert world.log("staging") == ["two", "one"]


def test_files_arrive_byte_for_byte(world: World, branch: EnvironmentBranch) -> None:
    """Whatever git's settings say about ends of lines."""
    git(world.root, "config", "core.autocrlf", "input")
    content = b"\x00\xff\r\n\n no end"
    branch.publish({"a b/ä.bin": content}, "one", anything)
    branch.fetch()
    assert branch.read("a b/ä.bin") == content
    assert branch.read("none") is None


def test_the_working_tree_and_its_index_are_left_alone(
    world: World, branch: EnvironmentBranch
) -> None:
    (world.root / "code.txt").write_text("changed", encoding="utf-8")
    (world.root / "staged.txt").write_text("staged", encoding="utf-8")
    git(world.root, "add", "staged.txt")
    before = git(world.root, "status", "--porcelain", "--branch")
    assert "A  staged.txt" in before
    branch.publish(FILES, "one", anything)
    assert git(world.root, "status", "--porcelain", "--branch") == before
    assert git(world.root, "branch", "--list") == "* main"


def test_the_same_files_again_are_no_new_commit(world: World, branch: EnvironmentBranch) -> None:
    first = branch.publish(FILES, "one", anything)
    assert branch.publish(FILES, "again", anything) == first
    assert world.log("staging") == ["one"]


def test_the_repositorys_hooks_do_not_run(world: World, branch: EnvironmentBranch) -> None:
    hook = world.root / ".git" / "hooks" / "pre-push"
    hook.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    branch.publish(FILES, "one", anything)
    assert world.log("staging") == ["one"]


@pytest.mark.parametrize("first", [True, False], ids=["new branch", "known branch"])
def test_a_lost_race_is_run_again_on_top_of_the_winner(
    world: World, branch: EnvironmentBranch, waits: list[float], first: bool
) -> None:
    rival = EnvironmentBranch(world.clone("rival"), "staging")
    if not first:
        branch.publish(released(world, 1), "one", anything)
    asked: list[str | None] = []

    def push_in_between(current: Release | None) -> None:
        asked.append(current and current.tag)
        if len(asked) == 1:
            rival.publish(released(world, 2), "theirs", anything)

    commit = branch.publish(released(world, 3), "ours", push_in_between)
    assert world.head("staging") == commit
    assert world.log("staging") == ["ours", "theirs", *([] if first else ["one"])]
    tags = [make_release(world.first, number)["release"] for number in (1, 2)]
    assert asked == ([None, tags[1]] if first else tags)
    assert len(waits) == 1
    assert 0.5 <= waits[0] <= 1.5


def test_who_won_can_make_the_loser_give_up(world: World, branch: EnvironmentBranch) -> None:
    rival = EnvironmentBranch(world.clone("rival"), "staging")

    def give_up(current: Release | None) -> None:
        if current is not None:
            raise LookupError(current.tag)
        rival.publish(released(world, 2), "theirs", anything)

    with pytest.raises(LookupError, match=make_release(world.first, 2)["release"]):
        branch.publish(released(world, 1), "ours", give_up)
    assert world.log("staging") == ["theirs"]


def test_a_race_that_is_always_lost_ends(
    world: World, branch: EnvironmentBranch, waits: list[float]
) -> None:
    rival = EnvironmentBranch(world.clone("rival"), "staging")
    rounds: list[int] = []

    def always_push(_: Release | None) -> None:
        rounds.append(len(rounds))
        rival.publish(released(world, 10 + len(rounds)), "theirs", anything)

    with pytest.raises(OvertakenError, match="env/staging"):
        branch.publish(released(world, 1), "ours", always_push)
    assert len(rounds) == ATTEMPTS == 5
    assert len(waits) == ATTEMPTS - 1
    assert waits == sorted(waits) or max(waits) > 4
    assert world.log("staging") == ["theirs"] * ATTEMPTS


def test_a_race_that_the_server_notices_is_run_again_too(
    world: World, branch: EnvironmentBranch, waits: list[float]
) -> None:
    """Two pushes that arrive at once both pass git's first check."""
    branch.publish(released(world, 1), "one", anything)
    rival = EnvironmentBranch(world.clone("rival"), "staging")
    theirs = rival.publish(released(world, 2), "theirs", anything)
    git(world.origin, "update-ref", "refs/heads/env/staging", f"{theirs}~1")
    world.hook(
        "pre-receive",
        f"test -e once || env -u GIT_QUARANTINE_PATH git update-ref refs/heads/env/staging {theirs}"
        "; touch once",
    )
    branch.publish(released(world, 3), "ours", anything)
    assert world.log("staging") == ["ours", "theirs", "one"]
    assert len(waits) == 1


def test_a_protected_branch_is_named_with_the_servers_words(
    world: World, branch: EnvironmentBranch, waits: list[float]
) -> None:
    world.hook("pre-receive", "echo 'GH006: Protected branch update failed' >&2; exit 1")
    with pytest.raises(RefusedError, match=r"(?s)rules.*env/\*\*.*GH006: Protected") as caught:
        branch.publish(FILES, "one", anything)
    assert "env/staging" in str(caught.value)
    assert waits == []
    assert world.log("staging") == []


def test_an_unreachable_remote_is_tried_again_and_named(
    world: World, branch: EnvironmentBranch, waits: list[float]
) -> None:
    git(world.root, "remote", "set-url", "origin", str(world.folder / "gone.git"))
    with pytest.raises(UnreachableError, match=r"origin: it cannot be reached(?s:.*)gone\.git"):
        branch.publish(FILES, "one", anything)
    assert len(waits) == ATTEMPTS - 1


def test_a_remote_that_comes_back_is_read(world: World, branch: EnvironmentBranch) -> None:
    branch.publish(FILES, "one", anything)
    moved = world.folder / "moved.git"
    world.origin.rename(moved)
    reader = EnvironmentBranch(world.root, "staging", sleep=lambda _: _back(moved, world.origin))
    reader.fetch()
    assert reader.head() == world.head("staging")


def test_a_remote_that_comes_back_gets_the_release(world: World) -> None:
    moved = world.folder / "moved.git"
    world.origin.rename(moved)
    branch = EnvironmentBranch(world.root, "staging", sleep=lambda _: _back(moved, world.origin))
    branch.publish(FILES, "one", anything)
    assert world.log("staging") == ["one"]


def _back(moved: Path, origin: Path) -> None:
    moved.rename(origin)


def test_nothing_released_is_nothing_and_no_error(branch: EnvironmentBranch) -> None:
    branch.fetch()
    assert branch.head() is None
    assert branch.release() is None
    assert branch.read("release.json") is None
    assert branch.history() == []


def test_a_branch_that_was_deleted_is_forgotten(world: World, branch: EnvironmentBranch) -> None:
    branch.publish(FILES, "one", anything)
    git(world.origin, "update-ref", "-d", "refs/heads/env/staging")
    branch.fetch()
    assert branch.head() is None


def test_a_branch_whose_name_ends_alike_is_another(world: World, branch: EnvironmentBranch) -> None:
    other = f"refs/heads/a/refs/heads/{branch.name}"
    git(world.origin, "update-ref", other, world.first)
    branch.fetch()
    assert branch.head() is None
    branch.publish(FILES, "one", anything)
    assert world.log("staging") == ["one"]
    EnvironmentBranch(world.clone("rival"), "staging").publish({}, "two", anything)
    branch.fetch()
    assert branch.head() == world.head("staging")


def test_reads_what_others_released_later(world: World, branch: EnvironmentBranch) -> None:
    branch.publish(released(world, 1), "one", anything)
    rival = EnvironmentBranch(world.clone("rival"), "staging")
    second = rival.publish(released(world, 2), "two", anything)
    assert branch.head() != second
    branch.fetch()
    assert branch.head() == second
    found = branch.release()
    assert found is not None
    assert found.tag == make_release(world.first, 2)["release"]


Broken = Callable[[World], dict[str, bytes]]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"release.json/x": b"{}"}, "no such file"),
        ({"release.json": b"{"}, "not JSON"),
        ({"release.json": b"[" * 200_000}, "nests too deeply"),
        ({"release.json": b"[]"}, "must hold a JSON object"),
        ({"release.json": b'{"release": "shop:1"}'}, f"{KIND}.digest is missing"),
        ({"release.json": b"\xff\xfe"}, "not JSON"),
        ({"manifests.yaml": b"x"}, "no such file"),
        ({}, "no such file"),
    ],
)
def test_a_broken_release_is_named_and_can_be_replaced(
    world: World,
    branch: EnvironmentBranch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, bytes],
    problem: str,
) -> None:
    broken = branch.publish(files, "broken", anything)
    with pytest.raises(ReleaseError, match=problem) as caught:
        branch.release()
    assert f"env/staging at {broken[:12]}: release.json" in str(caught.value)
    asked: list[Release | None] = []
    branch.publish(released(world, 1), "mended", asked.append)
    assert asked == [None]
    assert broken[:12] in capsys.readouterr().err
    assert world.log("staging") == ["mended", "broken"]


def test_the_history_tells_every_release_newest_first(
    world: World, branch: EnvironmentBranch
) -> None:
    one = branch.publish(released(world, 1), "Release one", anything)
    branch.publish({"release.json": b"{\n\n"}, "Broken", anything)
    branch.publish({"other.txt": b"x"}, "Without", anything)
    branch.publish(released(world, 2), "Release two", anything)
    history = branch.history()
    tags = [make_release(world.first, number)["release"] for number in (2, 1)]
    assert [r.subject for r in history] == ["Release two", "Without", "Broken", "Release one"]
    assert [r.tag for r in history] == [tags[0], "", "", tags[1]]
    assert [r.release is None for r in history] == [False, True, True, False]
    assert history[-1].commit == one
    assert history[-1].tree == git(world.root, "rev-parse", f"{one}^{{tree}}")


def test_restores_an_earlier_commit_with_every_file(
    world: World, branch: EnvironmentBranch
) -> None:
    branch.publish({**released(world, 1), "only.yaml": b"one"}, "one", anything)
    before = world.files("staging")
    branch.publish(released(world, 2), "two", anything)
    branch.restore(branch.history()[1], "back", anything)
    assert world.files("staging") == before
    assert world.log("staging") == ["back", "two", "one"]


def test_the_message_tells_programs_what_is_deployed(
    world: World, branch: EnvironmentBranch, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(make_release(world.first)).encode()
    release = parse_release(text, "here")
    assert "Run:" not in commit_message("Release it", release)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/shop")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    branch.publish(FILES, commit_message("Release it", release), anything)
    trailers = git(world.origin, "log", "-1", "--format=%(trailers:only,unfold)", "env/staging")
    assert trailers.splitlines() == [
        f"Source: {world.first}",
        f"{KIND.title()}: {NAME}@sha256:{1:064x}",
        "Run: https://github.com/acme/shop/actions/runs/7",
    ]
    assert world.log("staging") == ["Release it"]
    assert not branch.held()
    branch.publish({}, commit_message("Roll back", release, held=True), anything)
    assert branch.held()
    trailers = git(world.origin, "log", "-1", "--format=%(trailers:key=Held)", "env/staging")
    assert trailers == "Held: yes"
