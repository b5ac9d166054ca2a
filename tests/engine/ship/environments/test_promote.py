"""Promotion to the branches of a real origin; manifests are made up."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_origin
import pytest
from fake_artifact import NAME
from fake_origin import GOLDEN, World, artifact_of, fake_render, git, make_release

import gitops_ml
from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.environments.promote import Promotion, promote
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.environments.rollback import revert, roll_back
from gitops_ml.ship.release.release import ReleaseError, read_next
from gitops_ml.ship.settings import DeploymentError, Environment
from gitops_ml.ship.targets.containers import KIND


def release_to(
    world: World, environment: Environment, release: dict[str, Any], root: Path | None = None
) -> Promotion:
    root = root or world.root
    world.prepare(release, root)
    return promote(root, environment, fake_render)


def choose(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """A person starts a delivery now, who sees what staging runs."""
    monkeypatch.setenv("GITHUB_EVENT_NAME", "workflow_dispatch")
    monkeypatch.setenv("SEEN", world.head("staging"))


def test_the_branch_gets_the_release_and_its_manifests(world: World) -> None:
    release = make_release(world.first)
    done = release_to(world, "staging", release)
    assert done.released
    assert done.revision == world.head("staging")
    assert release["release"] in done.said
    files = world.files("staging")
    assert files.keys() == {"manifests.yaml", "release.json", "golden.json"}
    assert files["manifests.yaml"] == f"# staging: {artifact_of(release)}"
    assert json.loads(files["release.json"]) == release
    assert json.loads(files["golden.json"]) == GOLDEN
    assert world.log("staging") == [f"Release {release['release']} to staging"]


def test_to_promote_twice_is_to_promote_once(world: World) -> None:
    release = make_release(world.first)
    first = release_to(world, "staging", release)
    again = release_to(world, "staging", release, world.clone("again"))
    assert again == first
    assert len(world.log("staging")) == 1


def test_a_newer_release_replaces_an_older_one(world: World) -> None:
    release_to(world, "staging", make_release(world.first, 1))
    newer = make_release(world.commit("two"), 2)
    assert release_to(world, "staging", newer).released
    assert json.loads(world.files("staging")["release.json"]) == newer


@pytest.mark.parametrize("known", [True, False], ids=["same clone", "older clone"])
def test_an_older_release_never_replaces_a_newer_one(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: bool
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    older = world.root if known else world.clone("older")
    newer = make_release(world.commit("two"), 2)
    released = release_to(world, "staging", newer)
    late = release_to(world, "staging", make_release(world.first, 1), older)
    assert not late.released
    assert late.revision == released.revision == world.head("staging")
    assert f"runs {newer['release']}, which is newer" in late.said
    page = (tmp_path / "page").read_text(encoding="utf-8")
    assert late.said in page
    assert "run the workflow Deliver by hand for this commit, should the newer one fail" in page


@pytest.mark.parametrize("newer", [True, False], ids=["lost to a newer", "lost to an older"])
def test_the_newest_wins_a_race_too(
    world: World, monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    """The rival's push comes after ours has looked, and before ours is pushed."""
    rival = world.clone("rival")
    second = make_release(world.commit("two", rival), 2)
    ours, theirs = (make_release(world.first, 1), second) if newer else (
        (second, make_release(world.first, 1))
    )  # fmt: skip
    push = Repository.push
    pushes: list[str] = []

    def overtaken(repository: Repository, commit: str, branch: str) -> None:
        pushes.append(commit)
        if len(pushes) == 1:
            assert release_to(world, "staging", theirs, rival).released
        push(repository, commit, branch)

    monkeypatch.setattr(Repository, "push", overtaken)
    monkeypatch.setattr(random, "uniform", lambda *_: 0)
    done = release_to(world, "staging", ours)
    assert done.released is not newer
    assert done.revision == world.head("staging")
    assert json.loads(world.files("staging")["release.json"]) == second
    assert len(pushes) == (2 if newer else 3)


def test_another_build_of_the_same_commit_replaces_the_first(world: World) -> None:
    release_to(world, "staging", make_release(world.first, 1))
    assert release_to(world, "staging", make_release(world.first, 2)).released
    assert len(world.log("staging")) == 2


def test_a_person_can_choose_an_older_release(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_to(world, "staging", make_release(world.commit("two"), 2))
    choose(monkeypatch, world)
    older = make_release(world.first, 1)
    assert release_to(world, "staging", older).released
    assert json.loads(world.files("staging")["release.json"]) == older


def test_a_person_chose_before_what_has_happened_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_release(world.first, 1)
    release_to(world, "staging", first)
    second = make_release(world.commit("two"), 2)
    choose(monkeypatch, world)
    roll_back(EnvironmentBranch(world.root, "staging"), first["release"])
    late = release_to(world, "staging", second)
    assert not late.released
    assert "which a person rolled back to" in late.said
    assert json.loads(world.files("staging")["release.json"]) == first
    choose(monkeypatch, world)
    assert release_to(world, "staging", second).released
    older = release_to(world, "staging", first)
    assert not older.released
    assert f"runs {second['release']}, which is newer" in older.said


def test_what_a_person_rolled_back_to_stays_until_a_person_delivers(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    good, bad = make_release(world.first, 1), make_release(world.commit("two"), 2)
    for release in (good, bad):
        release_to(world, "staging", release)
    branch = EnvironmentBranch(world.root, "staging")
    roll_back(branch, "previous")
    later = world.clone("later")
    mended = make_release(world.commit("three"), 3)

    passed_by = release_to(world, "staging", mended, later)
    assert not passed_by.released
    assert passed_by.revision == world.head("staging")
    assert f"which a person rolled back to {good['release']}" in passed_by.said
    assert "run the workflow Deliver by hand" in (tmp_path / "page").read_text(encoding="utf-8")
    assert release_to(world, "staging", good, later).released
    assert json.loads(world.files("staging")["release.json"]) == good

    choose(monkeypatch, world)
    assert release_to(world, "staging", mended, later).released
    monkeypatch.delenv("GITHUB_EVENT_NAME")
    assert release_to(world, "staging", make_release(world.commit("four"), 4)).released


def test_what_a_failed_probe_rolled_back_to_makes_way_for_the_next(world: World) -> None:
    good, bad = make_release(world.first, 1), make_release(world.commit("two"), 2)
    for release in (good, bad):
        release_to(world, "staging", release)
    failed, _ = read_next(world.root)
    assert revert(EnvironmentBranch(world.root, "staging"), failed) is not None
    assert release_to(world, "staging", make_release(world.commit("three"), 3)).released


def test_what_could_not_be_probed_is_not_released(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGING_URL", "staging.example.com")
    with pytest.raises(DeploymentError, match="STAGING_URL: must be the address"):
        release_to(world, "staging", make_release(world.first))
    assert world.log("staging") == []


def test_a_commit_that_main_has_no_more_counts_as_older(world: World) -> None:
    release_to(world, "staging", make_release("e" * 40, 1))
    assert release_to(world, "staging", make_release(world.first, 2)).released


def test_a_release_of_a_commit_that_nobody_has_is_refused(world: World) -> None:
    release_to(world, "staging", make_release(world.first, 1))
    with pytest.raises(DeploymentError, match=f"{'e' * 40} is neither here nor on origin"):
        release_to(world, "staging", make_release("e" * 40, 2))


def test_a_clone_without_history_does_not_guess(world: World) -> None:
    release_to(world, "staging", make_release(world.first, 1))
    second = world.commit("two")
    shallow = world.clone("shallow", "--depth=1")
    with pytest.raises(DeploymentError, match="fetch-depth: 0"):
        release_to(world, "staging", make_release(second, 2), shallow)
    assert len(world.log("staging")) == 1


def test_production_gets_what_staging_runs(world: World) -> None:
    release = make_release(world.first)
    release_to(world, "staging", release)
    assert release_to(world, "production", release).released
    assert world.files("production")["manifests.yaml"] == f"# production: {artifact_of(release)}"


def _other_artifact(release: dict[str, Any]) -> None:
    release[KIND]["digest"] = f"sha256:{9:064x}"


def _other_model(release: dict[str, Any]) -> None:
    release["model"]["sha256"] = f"{9:064x}"


@pytest.mark.parametrize("change", [_other_artifact, _other_model])
def test_production_gets_nothing_that_staging_does_not_run(
    world: World, change: Callable[[dict[str, Any]], None]
) -> None:
    release = make_release(world.first)
    release_to(world, "staging", release)
    change(release)
    with pytest.raises(DeploymentError, match=f"(?s)what staging proved.*{9:064x}"):
        release_to(world, "production", release)
    assert world.log("production") == []


def test_what_staging_runs_now_counts_not_what_it_ran(world: World) -> None:
    """Also where a person took staging back: what it ran before is no proof of what it runs."""
    first, second = make_release(world.first, 1), make_release(world.commit("two"), 2)
    release_to(world, "staging", first)
    release_to(world, "staging", second)
    roll_back(EnvironmentBranch(world.root, "staging"), "previous")
    with pytest.raises(DeploymentError, match="what staging proved"):
        release_to(world, "production", second, world.clone("late"))
    assert world.log("production") == []


def test_a_delivery_that_ran_again_makes_the_first_ones_late_approval_pass_by(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    # The same model; an image that is built again has another digest.
    first, again = make_release(world.first, 1), make_release(world.first, 1)
    _other_artifact(again)
    release_to(world, "staging", first)
    waiting = world.clone("waiting")
    release_to(world, "staging", again)

    late = release_to(world, "production", first, waiting)

    assert not late.released
    assert "since a later delivery of the same commit gave env/staging" in late.said
    assert again[KIND]["digest"] in (tmp_path / "page").read_text(encoding="utf-8")
    assert world.log("production") == []
    assert release_to(world, "production", again, waiting).released
    # Its turn may also come after the other one has arrived there.
    assert not release_to(world, "production", first, waiting).released
    assert json.loads(world.files("production")["release.json"]) == again


def test_a_release_that_is_there_already_is_green(world: World) -> None:
    release = make_release(world.first)
    for environment in ("staging", "production", "staging", "production"):
        done = release_to(world, environment, release, world.root)
        assert done.released
        assert done.revision == world.head(environment)
    assert (len(world.log("staging")), len(world.log("production"))) == (1, 1)


def test_who_was_approved_too_late_makes_way_for_what_staging_runs_now(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    late = make_release(world.first, 1)
    release_to(world, "staging", late)
    newer = make_release(world.commit("two"), 2)
    release_to(world, "staging", newer)
    passed_by = release_to(world, "production", late, world.clone("late"))
    assert not passed_by.released
    assert f"env/staging runs {newer['release']}, which is newer" in passed_by.said
    assert "should the newer one fail" in (tmp_path / "page").read_text(encoding="utf-8")
    assert world.log("production") == []


def test_production_gets_nothing_before_staging(world: World) -> None:
    with pytest.raises(DeploymentError, match="env/staging is empty"):
        release_to(world, "production", make_release(world.first))


def test_production_gets_nothing_when_staging_cannot_be_read(world: World) -> None:
    EnvironmentBranch(world.root, "staging").publish({"release.json": b"{"}, "x", lambda _: None)
    with pytest.raises(ReleaseError, match="env/staging at"):
        release_to(world, "production", make_release(world.first))
    assert world.log("production") == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{KIND}.digest", "latest"),
        (f"{KIND}.digest", f"sha256:{'A' * 64}"),
        (f"{KIND}.digest", None),
        (f"{KIND}.name", f"{NAME} --privileged"),
        ("model.sha256", "abc"),
        ("source.commit", "main"),
        ("release", "shop:1\nRun: https://elsewhere.example.com"),
        ("release", 7),
    ],
)
def test_a_release_that_names_something_vaguely_is_refused(
    world: World, path: str, value: object
) -> None:
    release = make_release(world.first)
    place: Any = release
    *folders, name = path.split(".")
    for folder in folders:
        place = place[folder]
    place[name] = value
    with pytest.raises(ReleaseError, match=rf"build/release/release\.json: .*\n  {path} is"):
        release_to(world, "staging", release)
    assert world.log("staging") == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("release.json", None, "No such file.*make release-record"),
        ("golden.json", None, "No such file.*make release-record"),
        ("golden.json", "{", "not JSON"),
        ("golden.json", '{"records": [], "predictions": [1]}', "holds no predictions"),
        ("golden.json", '{"records": [1], "predictions": []}', "holds no predictions"),
    ],
)
def test_half_a_release_is_refused(world: World, name: str, text: str | None, problem: str) -> None:
    world.prepare(make_release(world.first))
    path = world.root / "build" / "release" / name
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(ReleaseError, match=rf"build/release/{name}: .*{problem}"):
        promote(world.root, "staging", fake_render)
    assert world.log("staging") == []


def test_manifests_cannot_take_the_place_of_the_release(world: World) -> None:
    world.prepare(make_release(world.first))
    with pytest.raises(DeploymentError, match=r"release\.json is no name for what is rendered"):
        promote(world.root, "staging", lambda *_: {"release.json": b"{}"})


KILL = """#!/bin/sh
case "$*" in
*" push "*) {before}; kill -9 $PPID; exit 1;;
esac
exec {git} "$@"
"""
PROMOTE = """
from pathlib import Path
from gitops_ml.ship.environments.promote import promote
from fake_origin import fake_render
promote(Path.cwd(), "staging", fake_render)
"""


@pytest.mark.parametrize("pushed", [False, True], ids=["before the push", "after the push"])
def test_the_next_run_repairs_one_that_was_killed(world: World, pushed: bool) -> None:
    release_to(world, "staging", make_release(world.first, 1))
    release = make_release(world.commit("two"), 2)
    world.prepare(release)
    real = shutil.which("git")
    before = f'{real} "$@"' if pushed else "true"
    program = world.folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(KILL.format(git=real, before=before), encoding="utf-8")
    program.chmod(0o755)
    sources = (Path(fake_origin.__file__).parent, Path(gitops_ml.__file__).parents[1])
    env = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, sources)),
    }
    killed = subprocess.run([sys.executable, "-c", PROMOTE], cwd=world.root, env=env, check=False)
    assert killed.returncode == -9
    assert len(world.log("staging")) == (2 if pushed else 1)

    done = promote(world.root, "staging", fake_render)

    assert done.released
    assert done.revision == world.head("staging")
    assert len(world.log("staging")) == 2
    assert json.loads(world.files("staging")["release.json"]) == release
    assert git(world.root, "status", "--porcelain", "--untracked-files=no") == ""
