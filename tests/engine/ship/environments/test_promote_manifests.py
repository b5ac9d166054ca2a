"""The command that promotes, from manifests that a stand-in for kustomize renders."""

from __future__ import annotations

import errno
import os
import sys
import tempfile

import pytest
from commands import subcommand
from fake_origin import World, artifact_of, fake_render, make_release

from gitops_ml.ship.environments.promote import promote

main = subcommand("release")

KUSTOMIZE = """
import json, pathlib, sys
wanted = json.loads((pathlib.Path(sys.argv[1]) / "kustomization.yaml").read_text())
image = wanted["images"][0]
data = dict(one.split("=", 1) for one in wanted["configMapGenerator"][0]["literals"])
container = {"name": "shop", "image": f"{image['newName']}@{image['digest']}"}
print(json.dumps({"kind": "ConfigMap", "data": data}))
print("---")
print(json.dumps({"kind": "Deployment", "spec": {"containers": [container]}}))
"""


@pytest.fixture
def renderable(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A working tree with overlays, and a stand-in for kustomize."""
    for environment in ("staging", "production"):
        overlay = world.root / "deploy" / "overlays" / environment
        overlay.mkdir(parents=True)
        (overlay / "kustomization.yaml").write_text("{}", encoding="utf-8")
    outputs = world.root / "deploy" / "outputs.yaml"
    outputs.write_text("manifests.yaml: []\n", encoding="utf-8")
    program = world.folder / "kustomize.py"
    program.write_text(KUSTOMIZE, encoding="utf-8")
    monkeypatch.setenv("KUSTOMIZE", f"{sys.executable} {program}")
    monkeypatch.setenv("GITHUB_OUTPUT", str(world.folder / "outputs"))
    monkeypatch.chdir(world.root)
    return world


def test_the_command_releases_and_tells_later_steps(
    renderable: World, capsys: pytest.CaptureFixture[str]
) -> None:
    release = make_release(renderable.first)
    renderable.prepare(release)
    assert main(["--environment", "staging"]) == 0
    head = renderable.head("staging")
    assert head in capsys.readouterr().out
    assert artifact_of(release) in renderable.files("staging")["manifests.yaml"]
    outputs = (renderable.folder / "outputs").read_text(encoding="utf-8")
    assert outputs == f"released=true\nrevision={head}\n"


def test_the_command_tells_later_steps_that_it_released_nothing(renderable: World) -> None:
    newer = make_release(renderable.commit("two"), 2)
    renderable.prepare(newer)
    head = promote(renderable.root, "staging", fake_render).revision
    renderable.prepare(make_release(renderable.first))
    assert main(["--environment", "staging"]) == 0
    outputs = (renderable.folder / "outputs").read_text(encoding="utf-8")
    assert outputs == f"released=false\nrevision={head}\n"


@pytest.mark.parametrize(
    ("environment", "message"),
    [("production", "what staging proved"), ("", "choose staging or production")],
)
def test_the_command_fails_with_the_reason(
    renderable: World, capsys: pytest.CaptureFixture[str], environment: str, message: str
) -> None:
    renderable.prepare(make_release(renderable.first))
    assert main(["--environment", environment]) == 1
    assert message in capsys.readouterr().err
    assert not (renderable.folder / "outputs").exists()


def test_a_full_disk_is_named_and_the_next_run_repairs(
    renderable: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full before the push: nothing was released. After it: later steps were not told."""
    renderable.prepare(make_release(renderable.first))
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryDirectory", _full)
        assert main(["--environment", "staging"]) == 1
    assert renderable.log("staging") == []
    with monkeypatch.context() as patch:
        patch.setenv("GITHUB_OUTPUT", "/dev/full")
        assert main(["--environment", "staging"]) == 1
    assert capsys.readouterr().err.count("No space left on device") == 2
    assert main(["--environment", "staging"]) == 0
    assert len(renderable.log("staging")) == 1
    outputs = (renderable.folder / "outputs").read_text(encoding="utf-8")
    assert outputs == f"released=true\nrevision={renderable.head('staging')}\n"


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_command_says_what_is_wrong_with_the_manifests(
    renderable: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    renderable.prepare(make_release(renderable.first))
    monkeypatch.setenv("KUSTOMIZE", str(renderable.folder / "no-such-command"))
    assert main(["--environment", "staging"]) == 1
    assert "no-such-command" in capsys.readouterr().err
    assert renderable.log("staging") == []
