"""From `git push` to a live answer: pipeline, image, registry, environment branch, host.

Everything runs: the workflows with act, the image and the pods with podman, the registry, nginx,
and the host's script, as often as its timer would start it. Only GitHub's API is played.
"""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake_actions
import pytest
from act import REPOSITORY, ActRun
from conftest import Bake, Run
from fake_osv import FakeOsv
from hub import BETTER, NOTHING, GitHub, Hub, make_hub, pipeline_ended
from machine import Machine, eventually
from podman import Podman, Registry, make_podman, remove_podman
from pytest_httpserver import HTTPServer

pytestmark = pytest.mark.slow

IMAGE_STEPS = [
    "Fetch the gated bento",
    "Build the image",
    "Smoke-test the image",
    "Push the image",
    "Record the release",
    "List what is in the image",
    "Log in to the registry",
    "Attest how the image was built",
    "Attest what is in the image",
    "Keep the release",
]


@dataclass
class Users:
    """People who ask the live service all the time; every answer must be one of a release's."""

    url: str
    body: bytes
    answers: list[Any]
    seen: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def asking(self) -> Iterator[Users]:
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(over,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join()
        asked = len(self.failures) + self.seen.total()
        print(f"{asked} requests sent, {len(self.failures)} failed, {dict(self.seen)} answered")
        assert self.failures == []

    def _ask(self, over: threading.Event) -> None:
        while not over.wait(0.05):
            try:
                answer = ask(self.url, self.body)
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                continue
            known = [n for n, right in enumerate(self.answers) if same(answer, right)]
            if known:
                self.seen[known[0]] += 1
            else:
                self.failures.append(f"nobody's answer: {answer}")


def ask(url: str, body: bytes) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/predict", body, headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read())


def same(answer: Any, right: Any) -> bool:
    return json.dumps(answer) == json.dumps(right) or all(
        abs(answer["probabilities"][name] - p) < 1e-5 for name, p in right["probabilities"].items()
    )


@dataclass
class World:
    """A repository, a registry, and a machine that follows the branch `env/staging`."""

    hub: Hub
    api: GitHub
    machine: Machine
    registry: Registry
    builder: Podman
    osv: FakeOsv

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.machine.port}"

    def deliver(self, commit: str, probe_seconds: int = 240) -> ActRun:
        """Run what GitHub runs when the pipeline has ended."""
        return self.run("workflow_run", pipeline_ended(commit), "deliver.yml", probe_seconds)

    def roll_back(self, environment: str, to: str = "") -> ActRun:
        """Run the workflow that a person starts by hand."""
        payload = {
            "repository": {"full_name": REPOSITORY, "default_branch": "main", "private": False},
            "inputs": {"environment": environment, "to": to},
        }
        return self.run("workflow_dispatch", payload, "rollback.yml", 120)

    def run(self, event: str, payload: Mapping[str, Any], workflow: str, seconds: int) -> ActRun:
        """Run a workflow while the machine's timer runs its script."""
        with self.followed():
            return self.hub.run(
                event,
                payload,
                "refs/heads/main",
                workflow=workflow,
                env={**self.hub.env, **self.builder.env, "TIMEOUT": str(seconds)},
                variables={
                    "CONTAINER_ENGINE": "podman",
                    "IMAGE": f"{self.registry.host}/acme/flight-delays",
                    "OSV_URL": self.osv.url,
                    "STAGING_URL": self.url,
                    "PRODUCTION_URL": self.url,
                },
            )

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Start the machine's script again and again, as its timer does."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(2):
                said, _ = self.machine.run().communicate(timeout=300)
                print(said)

        timer = threading.Thread(target=follow)
        timer.start()
        try:
            yield
        finally:
            over.set()
            timer.join()

    def golden(self) -> tuple[bytes, Any]:
        """The first golden record of the trained model as a request, and its answer."""
        golden = json.loads((self.hub.clone / "reports" / "golden.json").read_text("utf-8"))
        return json.dumps(golden["records"][0]).encode(), golden["predictions"][0]


@pytest.fixture
def world(
    trained: Bake,
    clean_env: Mapping[str, str],
    run: Run,
    project_run: Run,
    podman: Podman,
    base_image: str,
    registry: Registry,
    needs_nginx: None,
    machine_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.setattr(fake_actions, "NAME", REPOSITORY)
    monkeypatch.setattr(fake_actions, "TOKEN", "token")
    project = trained(deploy_target="host")
    origin = tmp_path / "origin.git"
    with HTTPServer(threaded=True) as server, HTTPServer() as storage, HTTPServer() as known:
        api = GitHub(server, storage)
        api.pulls = []
        # It removes the images that it needs no more, so it must not be the builder's.
        own = tmp_path / "podman"
        own.mkdir()
        engine = make_podman(own, registry, clean_env, run)
        image = f"{registry.host}/acme/flight-delays"
        machine = Machine(machine_folder, project, engine, origin, "staging", image)
        hub = make_hub(project, tmp_path, clean_env, project_run, api)
        yield World(hub, api, machine, registry, podman, FakeOsv(known))
        machine.close()
        remove_podman(engine)


def test_a_push_changes_the_live_answer_and_a_broken_release_does_not(world: World) -> None:
    hub, machine = world.hub, world.machine
    first_body, first_answer = world.golden()
    first = hub.push_gated(NOTHING)
    expect_delivered(world, world.deliver(first), first)
    assert same(ask(world.url, first_body), first_answer)
    (published,) = world.api.releases
    assert published["target_commitish"] == first

    # A better model in an image that is good, but not as it is deployed, while people ask.
    hub.edit_yaml("params.yaml", lambda p: p["train"]["hyperparameters"].update(BETTER))
    hub.train()
    hub.commit("Grow larger trees, more slowly")
    second = hub.push_gated(first)
    _, second_answer = world.golden()
    assert not same(second_answer, first_answer)
    pod = machine.script.with_name("pod.yaml")
    text = pod.read_text(encoding="utf-8")
    broken = "      env:\n        - name: SERVICE_WORKERS\n          value: many\n"
    assert text.count("      env:\n") == 1
    pod.write_text(text.replace("      env:\n", broken), encoding="utf-8")
    with Users(world.url, first_body, [first_answer]).asking():
        run = world.deliver(second, probe_seconds=45)
    assert run.failed_steps() == [("staging", "Probe staging")], run.explain()
    assert run.steps["staging"]["Roll staging back"] == "success"
    assert run.jobs["staging"] == "failure"
    assert run.jobs.get("production", "skipped") == "skipped"
    for environment in ("staging", "production"):
        assert world.hub.released(environment)["source"]["commit"] == first
    (issue,) = world.api.issues
    assert second[:8] in issue["title"] + issue["body"]
    assert len(world.api.releases) == 1

    # The same commit is delivered again once that is mended.
    pod.write_text(text, encoding="utf-8")
    machine.tick()
    assert same(ask(world.url, first_body), first_answer)
    with Users(world.url, first_body, [first_answer, second_answer]).asking() as users:
        run = world.deliver(second)
        expect_delivered(world, run, second)
        eventually(lambda: users.seen[1] > 10, "nobody gets the second model's answers")
    assert users.seen[0] > 100
    assert same(ask(world.url, first_body), second_answer)
    assert len(world.api.releases) == 2
    lineage = ["make", "lineage", f"URL={world.url}", "RUN="]
    github = {
        "GITHUB_API_URL": world.api.url,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_TOKEN": fake_actions.TOKEN,
    }
    traced = hub.project_run(hub.clone, *lineage, env=github)
    assert traced.returncode == 0, traced.stdout + traced.stderr
    assert second[:8] in traced.stdout
    for what in ("image", "gate", "pull request", "pipeline run"):
        assert f"\nok      {what} " in traced.stdout, traced.stdout

    # A person wants the first one back.
    run = world.roll_back("staging")
    assert run.failed_steps() == [], run.explain()
    assert run.jobs == {"rollback": "success"}
    assert world.hub.released("staging")["source"]["commit"] == first
    assert world.hub.released("production")["source"]["commit"] == second
    assert same(ask(world.url, first_body), first_answer)


def expect_delivered(world: World, run: ActRun, commit: str) -> None:
    assert run.failed_steps() == [], run.explain()
    assert run.jobs == dict.fromkeys(("plan", "image", "audit", "staging", "production"), "success")
    assert ("Debian:13", "openssl", "3.5.1-1") in world.osv.asked
    assert [s for s in run.steps["image"] if not s.startswith(("actions/", "./"))] == IMAGE_STEPS
    assert "Roll staging back" not in _ran(run, "staging")
    assert "Publish the release" in _ran(run, "production")
    release = world.hub.released("production")
    assert release == world.hub.released("staging")
    assert release["source"] == {"commit": commit, "dirty": False}
    assert world.machine.live() == release["release"]
    image = release["image"]
    assert world.machine.status()[1]["digest"] == image["digest"]
    assert world.registry.get(f"/v2/acme/flight-delays/manifests/{image['digest']}") is not None
    for kind in ("attest", "attest-build-provenance"):
        attested = world.hub.artifact("attestations", kind).read_text(encoding="utf-8")
        assert attested.strip() == f"{image['name']}@{image['digest']}"


def _ran(run: ActRun, job: str) -> list[str]:
    return [step for step, result in run.steps[job].items() if result != "skipped"]


def test_a_commit_without_a_model_is_not_delivered_and_says_so(world: World) -> None:
    world.hub.git("rm", "-q", "dvc.lock")
    commit = world.hub.commit("Forget which model it is")
    world.hub.git("push", "-q", "origin", "HEAD:refs/heads/main")
    run = world.deliver(commit)
    assert run.returncode == 0, run.explain()
    assert run.jobs["plan"] == "success"
    assert run.jobs.get("image", "skipped") == "skipped"
    assert "commit `dvc.lock`" in run.summary
    assert world.machine.live() is None
