"""From `git push` to a live answer on BentoCloud: only its API, and GitHub's, are played.

What is deployed there runs: the played BentoCloud unpacks the bento that was pushed and serves it.
The repository has a DVC remote, which spares its pipeline the training.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_actions
import fake_cloud
import pytest
from act import REPOSITORY, ActRun
from conftest import SLUG, Bake, Run
from hub import NOTHING, GitHub, Hub, expect_nothing_computed, make_hub, pipeline_ended
from machine import eventually
from ports import free_port
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

pytestmark = pytest.mark.slow

SERVICE = SLUG.replace("_", "-")
DIGESTS = """
import pathlib, sys
from gitops_ml.ship.targets.bentocloud_client import digest_of
print(*(digest_of(pathlib.Path(folder)) for folder in sys.argv[1:]))
"""


class Cloud(fake_cloud.FakeCloud):
    """A BentoCloud that runs what is deployed; one that does not start is `failed`."""

    def __init__(self, server: HTTPServer, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(server)
        self.folder = folder
        self.env = env
        # What serves bentos is in the environment of the project's dependencies.
        self.bentoml = shutil.which("bentoml", path=env["PATH"]) or "bentoml"
        self.services: dict[str, subprocess.Popen[bytes]] = {}

    def _deploy(self, request: Request, name: str | None = None) -> Response:
        answer = super()._deploy(request, name)
        name = name or request.json["name"]
        known = self.deployments[name]
        self.stop(name)
        known["url"] = self.start(name, known["bento"], known["config"])
        self.statuses = ["running" if self.services[name].poll() is None else "failed"]
        return answer

    def start(self, name: str, tag: str, config: Mapping[str, Any]) -> str:
        """Serve a bento with the variables of its deployment; gives its address."""
        folder = self.folder / tag.replace(":", "-")
        if not folder.exists():
            with tarfile.open(fileobj=io.BytesIO(self.bentos[tag]["tar"])) as archive:
                archive.extractall(folder, filter="data")
        port = free_port()
        places = [config, *config["services"].values()]
        variables = {one["name"]: one["value"] for p in places for one in p.get("envs") or ()}
        self.services[name] = subprocess.Popen(
            [self.bentoml, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)],
            env={**self.env, **variables, "BENTOML_HOME": str(self.folder / name)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: self.services[name].poll() is not None or ready(url), "no service", 60)
        return url

    def stop(self, name: str) -> None:
        """Stop what runs under a name, if anything does."""
        service = self.services.pop(name, None)
        if service is not None:
            service.terminate()
            service.wait(60)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=20) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@dataclass
class World:
    """A repository and a BentoCloud."""

    hub: Hub
    github: GitHub
    cloud: Cloud

    def deliver(self, commit: str, **options: Any) -> ActRun:
        """Run what GitHub runs when the pipeline has ended."""
        defaults = {
            "workflow": "deliver.yml",
            "env": {**self.hub.env, "TIMEOUT": "120"},
            "variables": {"BENTO_CLOUD_API_ENDPOINT": self.cloud.url},
            "secrets": {"BENTO_CLOUD_API_KEY": fake_cloud.TOKEN},
        }
        return self.hub.run(
            "workflow_run", pipeline_ended(commit), "refs/heads/main", **{**defaults, **options}
        )

    def live(self, environment: str) -> dict[str, Any]:
        """What the live service of an environment says that it runs."""
        url = self.cloud.deployments[f"{SERVICE}-{environment}"]["url"]
        with urllib.request.urlopen(f"{url}/release", timeout=20) as response:
            release: dict[str, Any] = json.loads(response.read())
            return release


@pytest.fixture
def world(
    trained: Bake,
    clean_env: Mapping[str, str],
    project_env: Mapping[str, str],
    project_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.setattr(fake_actions, "NAME", REPOSITORY)
    monkeypatch.setattr(fake_actions, "TOKEN", "token")
    project = trained(deploy_target="bentocloud")
    folder = tmp_path / "cloud"
    folder.mkdir()
    with (
        HTTPServer(threaded=True) as server,
        HTTPServer() as storage,
        HTTPServer(threaded=True) as bentocloud,
    ):
        github = GitHub(server, storage)
        github.pulls = []
        cloud = Cloud(bentocloud, folder, project_env)
        hub = make_hub(project, tmp_path, clean_env, project_run, github)
        yield World(hub, github, cloud)
        for name in list(cloud.services):
            cloud.stop(name)


def test_two_builds_of_one_commit_are_one_bento(
    trained: Bake, project_run: Run, tmp_path: Path
) -> None:
    project = trained(deploy_target="bentocloud")
    commit = project_run(project, "git", "rev-parse", "HEAD", check=True).stdout.strip()
    folders = []
    for home in (tmp_path / "one", tmp_path / "two"):
        env = {"BENTOML_HOME": str(home)}
        project_run(project, "make", "package", "RUN=", env=env, check=True)
        (folder,) = home.glob(f"bentos/{SLUG}/{commit[:8]}-*/")
        folders.append(folder)

    def digests() -> list[str]:
        asked = project_run(project, "python", "-c", DIGESTS, *map(str, folders), check=True)
        return asked.stdout.split()

    first, second = digests()
    assert first == second
    texts = [(folder / "bento.yaml").read_text() for folder in folders]
    assert texts[0] != texts[1], "the time of the build is there"
    changed = folders[1] / "src" / "models" / "model.onnx"
    changed.write_bytes(changed.read_bytes() + b" ")
    assert digests() == [first, digests()[1]] != [first, first]


def test_a_push_goes_live_and_a_release_that_does_not_start_is_taken_back(
    world: World, tmp_path: Path
) -> None:
    hub = world.hub
    # What DVC owns comes from a remote: no run has a cache.
    remote = {"DVC_REMOTE_URL": str(tmp_path / "remote")}
    shutil.rmtree(hub.scratch / "cache")
    run = hub.push(NOTHING, variables=remote, job="gate")
    first = hub.gated(run)
    assert "Running stage 'train'" in run.said("model", "Train and evaluate")
    assert run.steps["model"]["Push to the DVC remote"] == "success"
    run = world.deliver(first, secrets={})
    assert run.failed_steps() == [], run.explain()
    assert "BENTO_CLOUD_API_KEY" in run.summary
    assert run.jobs.get("production", "skipped") == "skipped"
    assert world.cloud.requests == []

    # With a token, the same workflow is run again.
    run = world.deliver(first)
    assert run.failed_steps() == [], run.explain()
    assert run.jobs == dict.fromkeys(("plan", "bento", "staging", "production"), "success")
    release = world.hub.released("production")
    assert release == world.hub.released("staging")
    assert release["source"] == {"commit": first, "dirty": False}
    for environment in ("staging", "production"):
        live = world.live(environment)
        assert (live["release"], live["digest"]) == (release["release"], release["bento"]["digest"])
    (published,) = world.github.releases
    assert published["target_commitish"] == first

    # The bento is good, but not as it is deployed.
    def use_many_workers(deployment: Any) -> None:
        deployment["services"][SLUG]["envs"] = [{"name": "SERVICE_WORKERS", "value": "many"}]

    hub.edit_yaml("deploy/staging.yaml", use_many_workers)
    hub.commit("Use many workers")
    shutil.rmtree(hub.scratch / "cache")
    run = hub.push(first, variables=remote, job="gate")
    second = hub.gated(run)
    expect_nothing_computed(run)
    run = world.deliver(second)
    (failed,) = run.failed_steps()
    assert failed in (("staging", "Bring it to BentoCloud"), ("staging", "Probe staging")), (
        run.explain()
    )
    assert run.steps["staging"]["Roll staging back"] == "success"
    assert run.steps["staging"]["Bring the release before to BentoCloud"] == "success"
    assert run.jobs.get("production", "skipped") == "skipped"
    for environment in ("staging", "production"):
        assert world.hub.released(environment)["source"]["commit"] == first
        assert world.live(environment)["release"] == release["release"]
    (issue,) = world.github.issues
    assert second[:8] in issue["title"] + issue["body"]
