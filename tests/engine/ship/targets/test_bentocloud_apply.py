"""From a bento to a deployment: real git, BentoML's own client, a BentoCloud that is played."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from commands import subcommand
from fake_artifact_bentocloud import make_client_new, put_artifact
from fake_bento import (
    MODEL_HASH,
    PACKAGE,
    TAG,
    VERSION,
    make_files,
    make_release,
    put_into_store,
    store_in,
)
from fake_cloud import TOKEN, FakeCloud
from fake_origin import World, git
from projects import make_project
from pytest_httpserver import HTTPServer
from werkzeug import Response

from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.environments.promote import promote
from gitops_ml.ship.targets import bentocloud_client as bentocloud
from gitops_ml.ship.targets.bentocloud_client import TRIES

main = subcommand("cloud")

NAME = f"{PACKAGE.replace('_', '-')}-staging"
URL = f"https://{NAME}.bentoml.example"
DEPLOYMENT = f"""
services:
  {PACKAGE}:
    instance_type: cpu.1
    scaling: {{min_replicas: 1, max_replicas: 2}}
"""


@pytest.fixture
def cloud(
    world: World, httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeCloud]:
    """An empty BentoCloud, and a bento in the store that was released to staging."""
    fake = FakeCloud(httpserver)
    monkeypatch.setenv("BENTO_CLOUD_API_KEY", TOKEN)
    monkeypatch.setenv("BENTO_CLOUD_API_ENDPOINT", f"{fake.url}/")
    monkeypatch.setenv("GITHUB_OUTPUT", str(world.folder / "outputs"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(world.folder / "summary.md"))
    monkeypatch.setattr(bentocloud, "POLL_SECONDS", 0.001)
    make_project(world.root, "bentocloud")
    git(world.root, "commit", "-qam", "Deploy to BentoCloud")
    git(world.root, "push", "-q", "origin", "HEAD:main")
    monkeypatch.chdir(world.root)
    make_client_new(monkeypatch, tmp_path)
    with store_in(tmp_path / "store") as store:
        release(world, put_into_store(store, make_files()))
        yield fake
    httpserver.check_handler_errors()


def release(world: World, bento: Path) -> None:
    for environment in ("staging", "production"):
        path = world.root / "deploy" / f"{environment}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(DEPLOYMENT, encoding="utf-8")
    source = {"commit": world.first, "dirty": False}
    world.prepare({**make_release(source=source), "bento": put_artifact(world.root, bento)})
    promote(world.root, "staging")


@pytest.fixture
def pushed(cloud: FakeCloud) -> FakeCloud:
    """A BentoCloud that holds the bento, which this machine does not."""
    assert main(["push"]) == 0
    BentoMLContainer.bento_store.get().delete(TAG)
    return cloud


def apply(*more: str) -> int:
    return main(["apply", "--environment", "staging", "--timeout", "30", *more])


def recorded_digest(world: World) -> str:
    """What staging is to run."""
    return str(json.loads(world.files("staging")["release.json"])["bento"]["digest"])


def outputs(world: World) -> str:
    path = world.folder / "outputs"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def evidence(world: World) -> dict[str, Any]:
    return dict(json.loads((world.root / "build" / "probe.json").read_text(encoding="utf-8")))


def refused(world: World, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What is said when nothing could be deployed; the evidence says it too."""
    capsys.readouterr()
    assert apply(*more) == 1
    said = capsys.readouterr().err
    assert evidence(world)["problem"] == said.rstrip("\n")
    assert evidence(world)["proved"] is False
    assert evidence(world)["release"] == TAG
    assert "applied=true" not in outputs(world)
    assert TOKEN not in said
    return said


def test_a_push_gives_the_whole_bento(cloud: FakeCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push"]) == 0
    assert f"BentoCloud holds {TAG}" in capsys.readouterr().out
    with tarfile.open(fileobj=io.BytesIO(cloud.bentos[TAG]["tar"])) as archive:
        held = {name.removeprefix("./") for name in archive.getnames()}
    assert held >= make_files().keys()


def test_to_push_twice_is_to_push_once(cloud: FakeCloud) -> None:
    assert main(["push"]) == 0
    before = cloud.bentos[TAG]["tar"]
    cloud.requests.clear()
    assert main(["push"]) == 0
    assert cloud.bentos[TAG]["tar"] == before
    assert not [line for line in cloud.requests if not line.startswith("GET")]


def test_the_fetched_bento_is_pushed_or_the_one_that_is_named(
    cloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "--bento", f"{PACKAGE}:9"]) == 1
    assert "no such bento; run `make fetch-bento`" in capsys.readouterr().err
    fetched = Path("build", "bento", f"{PACKAGE}.bento")
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"none")
    assert main(["push"]) == 1
    assert "is no bento" in capsys.readouterr().err
    assert cloud.bentos == {}


def test_a_release_is_deployed_and_later_steps_are_told_where(
    world: World, pushed: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.statuses = ["image-building", "deploying", "running"]
    assert apply() == 0
    assert pushed.changes == ["POST /api/v2/deployments"]
    config = pushed.deployments[NAME]["config"]
    assert config["bento"] == TAG
    assert config["envs"] == [
        {"name": "EXPECTED_RELEASE", "value": TAG},
        {"name": "EXPECTED_MODEL_SHA256", "value": MODEL_HASH},
        {"name": "RELEASE_DIGEST", "value": recorded_digest(world)},
    ]
    service = config["services"][PACKAGE]
    assert service["instance_type"] == "cpu.1"
    assert service["scaling"]["max_replicas"] == 2
    assert outputs(world) == f"applied=true\nurl={URL}\n"
    said = capsys.readouterr().out
    assert f"{URL} runs {TAG}" in said
    for status in ("image-building", "deploying", "running"):
        assert f"deployment {NAME}: {status} with {TAG}" in said


def test_a_deployment_that_is_there_becomes_what_the_branch_says(
    world: World, pushed: FakeCloud
) -> None:
    assert apply() == 0
    old = f"{PACKAGE}:old"
    known = pushed.deployments[NAME]
    known["bento"] = old
    known["config"] = {**known["config"], "envs": [{"name": "BY_HAND", "value": "1"}]}
    pushed.bentos[old] = pushed.bentos[TAG]
    pushed.requests.clear()
    pushed.lagging = 3
    assert apply() == 0
    assert pushed.changes == [f"PUT /api/v2/deployments/{NAME}"]
    assert pushed.deployments[NAME]["bento"] == TAG
    names = [env["name"] for env in pushed.deployments[NAME]["config"]["envs"]]
    assert names == ["EXPECTED_RELEASE", "EXPECTED_MODEL_SHA256", "RELEASE_DIGEST"]
    assert pushed.lagging == 0


def enlarge(world: World) -> None:
    """Let the branch ask for a larger machine."""
    branch = EnvironmentBranch(world.root, "staging")
    branch.fetch()
    files = {name: branch.read(name) or b"" for name in ("release.json", "golden.json")}
    described = (branch.read("deployment.yaml") or b"").replace(b"cpu.1", b"cpu.4")
    branch.publish({**files, "deployment.yaml": described}, "Larger", lambda _: None)


def machine(cloud: FakeCloud) -> str:
    return str(cloud.deployments[NAME]["config"]["services"][PACKAGE]["instance_type"])


def test_it_is_the_newest_commit_of_the_branch_that_counts(
    world: World, pushed: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = world.clone("another")
    enlarge(world)
    monkeypatch.chdir(clone)
    assert apply() == 0
    assert machine(pushed) == "cpu.4"


def test_a_branch_that_goes_on_meanwhile_is_followed_to_its_end(
    world: World, pushed: FakeCloud
) -> None:
    pushed.meanwhile = lambda: enlarge(world)
    assert apply() == 0
    assert machine(pushed) == "cpu.4"
    assert pushed.changes == ["POST /api/v2/deployments", f"PUT /api/v2/deployments/{NAME}"]
    assert outputs(world) == f"applied=true\nurl={URL}\n"


def test_a_commit_that_is_built_again_is_the_bento_that_is_held(
    world: World, pushed: FakeCloud, tmp_path: Path
) -> None:
    assert apply() == 0
    head, held = world.head("staging"), pushed.bentos[TAG]["tar"]
    again = put_into_store(tmp_path / "store" / PACKAGE, make_files())
    text = (again / "bento.yaml").read_text(encoding="utf-8")
    assert "2026-01-02" in text
    (again / "bento.yaml").write_text(text.replace("2026-01-02", "2027-01-02"), encoding="utf-8")
    assert main(["push"]) == 0
    release(world, again)
    assert apply() == 0
    assert (world.head("staging"), pushed.bentos[TAG]["tar"]) == (head, held)


def test_scaled_to_zero_is_as_good_as_running(world: World, pushed: FakeCloud) -> None:
    pushed.statuses = ["scaled-to-zero"]
    assert apply() == 0


def test_without_a_token_nothing_is_done_and_that_is_said(
    world: World,
    cloud: FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BENTO_CLOUD_API_KEY", " ")
    assert main(["push"]) == 0
    assert apply() == 0
    assert outputs(world) == "applied=false\napplied=false\n"
    summary = (world.folder / "summary.md").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, summary):
        assert "Skipped" in text
        assert "the push" in text
        assert "deployment to staging" in text
        assert "set the secret BENTO_CLOUD_API_KEY" in text
    assert cloud.requests == []


def test_a_wrong_token_is_named(
    world: World,
    cloud: FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BENTO_CLOUD_API_KEY", "hush-hush")
    assert main(["push"]) == 1
    said = capsys.readouterr().err
    assert "BENTO_CLOUD_API_KEY is wrong or has expired" in said
    assert "hush" not in said + refused(world, capsys)


def test_a_bento_that_is_not_there_is_named(
    world: World, cloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(world, capsys)
    assert f"{TAG}: BentoCloud does not hold this bento" in said
    assert "deliver its commit again" in said
    assert cloud.changes == []


def test_another_bento_under_the_same_tag_is_not_deployed(
    world: World, cloud: FakeCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = BentoMLContainer.bento_store.get().get(TAG).path
    Path(changed, "src", "models", "model.onnx").write_bytes(b"other weights")
    assert main(["push"]) == 0
    said = refused(world, capsys)
    assert "BentoCloud holds another bento (sha256:" in said
    assert cloud.changes == []


def test_half_an_upload_is_not_deployed(
    world: World, pushed: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.bentos[TAG]["tar"] = pushed.bentos[TAG]["tar"][:600]
    assert "is damaged" in refused(world, capsys)
    pushed.bentos[TAG]["tar"] = b""
    assert "is damaged" in refused(world, capsys)
    assert pushed.changes == []


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (403, "quota exceeded: replicas", ["quota exceeded: replicas", "quota is used up"]),
        (402, "no credit left", ["no credit left", "quota is used up"]),
        (429, "slow down", ["slow down", "try again later"]),
        (400, "instance type cpu.1 is none", ["instance type cpu.1 is none"]),
        (500, "out of order", ["out of order"]),
        (200, "<html>", ["strange answer", "is BENTO_CLOUD_API_ENDPOINT right?"]),
        (200, '{"uid": 1}', ["strange answer"]),
    ],
)
def test_what_bentocloud_refuses_is_said(
    world: World,
    pushed: FakeCloud,
    capsys: pytest.CaptureFixture[str],
    status: int,
    text: str,
    words: list[str],
) -> None:
    pushed.refusals = {"POST /api/v2": [(status, text)]}
    said = refused(world, capsys)
    for word in [f"deployment {NAME}", *words]:
        assert word in said


def test_a_push_that_is_refused_is_said(
    cloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.refusals = {f"PUT /api/v1/bento_repositories/{PACKAGE}": [(403, "storage is full")]}
    assert main(["push"]) == 1
    assert "storage is full" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["failed", "image-build-failed", "terminated", "unhealthy"])
def test_a_deployment_that_fails_is_named_with_where_its_log_is(
    world: World, pushed: FakeCloud, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    pushed.statuses = ["deploying", status]
    said = refused(world, capsys)
    assert f"deployment {NAME}: {status} with {TAG}" in said
    assert f"{pushed.url}/deployments/{NAME}" in said


def test_a_failure_from_before_is_not_taken_for_one_of_this_release(
    world: World, pushed: FakeCloud
) -> None:
    pushed.statuses = [*["failed"] * (TRIES - 1), "deploying", "failed", "running"]
    assert apply() == 0


def test_a_deployment_that_never_runs_is_named(
    world: World, pushed: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed.statuses = ["deploying"]
    said = refused(world, capsys, "--timeout", "0.05")
    assert f"does not run {TAG} after 0.05 s, it is deploying" in said


def test_the_release_before_is_no_answer(
    world: World, pushed: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply() == 0
    (world.folder / "outputs").unlink()
    pushed.deployments[NAME]["bento"] = f"{PACKAGE}:old"
    pushed.bentos[f"{PACKAGE}:old"] = pushed.bentos[TAG]
    pushed.lagging = 1_000_000
    said = refused(world, capsys, "--timeout", "0.05")
    assert f"it is running with {PACKAGE}:old" in said


def test_a_deployment_without_an_address_is_not_there_yet(
    world: World, pushed: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = pushed._described_deployment
    answers: list[str] = []

    def late(name: str, status: str) -> Any:
        answers.append(status)
        known = pushed.deployments[name]
        known["url"] = "" if len(answers) < 5 else f"{URL}/"
        return described(name, status)

    monkeypatch.setattr(pushed, "_described_deployment", late)
    assert apply() == 0
    assert len(answers) == 5
    assert outputs(world).endswith(f"url={URL}\n")


@pytest.mark.parametrize(("stumbles", "code"), [(TRIES - 1, 0), (TRIES, 1)])
def test_a_stumble_or_two_while_waiting_are_forgiven(
    world: World, pushed: FakeCloud, stumbles: int, code: int
) -> None:
    found = (404, "record not found")  # at first there is no such deployment
    pushed.refusals = {f"GET /api/v2/deployments/{NAME}": [found, *[(502, "")] * stumbles]}
    assert apply() == code


def test_stumbles_with_answers_in_between_are_forgiven(
    pushed: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = pushed._described_deployment
    answers: list[str] = []

    def shaky(name: str, status: str) -> Any:
        answers.append(status)
        if len(answers) < 4 * TRIES:
            return Response("", 502) if len(answers) % 2 == 0 else described(name, "deploying")
        return described(name, status)

    monkeypatch.setattr(pushed, "_described_deployment", shaky)
    assert apply() == 0


def test_a_cloud_that_cannot_be_reached_is_named(
    world: World,
    cloud: FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BENTO_CLOUD_API_ENDPOINT", "http://127.0.0.1:9")
    said = refused(world, capsys)
    assert "BentoCloud cannot be reached" in said
    assert "is BENTO_CLOUD_API_ENDPOINT right?" in said


@pytest.mark.parametrize(
    "endpoint", ["http://cloud.example.com", "cloud.example.com", "ftp://127.0.0.1"]
)
def test_the_token_goes_nowhere_in_the_clear(
    world: World,
    cloud: FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    endpoint: str,
) -> None:
    monkeypatch.setenv("BENTO_CLOUD_API_ENDPOINT", endpoint)
    assert apply() == 1
    assert "BENTO_CLOUD_API_ENDPOINT: must be an address like https://" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (None, "describes no deployment"),
        (b"[", "describes no deployment"),
        (b"name: shop\n", "describes no deployment"),
        (b"name: shop\nbento: shop:1\n", f"does not describe a deployment of {TAG}"),
        (f"name: ''\nbento: {TAG}\n".encode(), "does not describe a deployment"),
    ],
)
def test_a_branch_that_describes_no_deployment_is_named(
    world: World,
    pushed: FakeCloud,
    capsys: pytest.CaptureFixture[str],
    described: bytes | None,
    words: str,
) -> None:
    branch = EnvironmentBranch(world.root, "staging")
    branch.fetch()
    files = {name: branch.read(name) or b"" for name in ("release.json", "golden.json")}
    files |= {"deployment.yaml": described} if described else {}
    head = branch.publish(files, "by hand", lambda _: None)
    assert apply() == 1
    said = capsys.readouterr().err
    assert f"env/staging at {head[:12]}: deployment.yaml: {words}" in said
    assert pushed.changes == []


@pytest.mark.parametrize("environment", ["prod", "production"])
def test_an_environment_without_a_release_is_named(
    pushed: FakeCloud, capsys: pytest.CaptureFixture[str], environment: str
) -> None:
    assert main(["apply", "--environment", environment]) == 1
    words = {"prod": "choose staging or production", "production": "env/production is empty"}
    assert words[environment] in capsys.readouterr().err
    assert VERSION not in str(pushed.deployments)
