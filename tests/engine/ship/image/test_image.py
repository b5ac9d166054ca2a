"""Building, testing and pushing an image, with an engine that does as it is told.

The engine is a program that notes what is asked of it. The service and the registry are real HTTP
servers, the bento and BentoML's part of the build are real.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from conftest import Bake
from fake_bento import (
    COMMIT,
    GOLDEN,
    MODEL_HASH,
    TAG,
    VERSION,
    make_files,
    put_into_store,
    store_in,
)
from projects import make_project
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.bento import smoke
from gitops_ml.bento.smoke import SmokeError
from gitops_ml.core.base_image import DOCKERFILE
from gitops_ml.ship.image import image
from gitops_ml.ship.image.image import (
    ATTEMPTS,
    Container,
    check_bad_requests,
)
from gitops_ml.ship.settings import DeploymentError

main = subcommand("image")

BASE_DIGEST = f"sha256:{'b' * 64}"
IMAGE_ID = "5" * 64
MANIFEST = json.dumps({"config": {"digest": f"sha256:{IMAGE_ID}"}}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
TOKEN = "token-for-tests"

# Answers to a command are files: `<command>.out` is printed, `<command>.fails` holds how often it
# fails, `<command>.err` is what it says then. Every call is a line in `calls`.
ENGINE = """#!/bin/sh
cd "$ENGINE_STATE" || exit 125
printf '%s\\n' "$*" >> calls
env | grep -E '^(REGISTRY_AUTH_FILE|DOCKER_CONFIG)=' >> environment
name=$1
case "$1 $2" in "image inspect") name="inspect.$4" ;; esac
if [ "$name" = login ]; then cat >> password; fi
case "$2" in --file=*/Dockerfile) cat "${2#--file=}" > recipe ;; esac
left=$(cat "$name.fails" 2>/dev/null || echo 0)
if [ "$left" -gt 0 ]; then
  echo $((left - 1)) > "$name.fails"
  cat "$name.err" >&2
  exit 1
fi
[ ! -f "$name.out" ] || cat "$name.out"
"""


class Engine:
    """The engine's answers, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answers(self, command: str, text: str) -> None:
        (self.folder / f"{command}.out").write_text(text, encoding="utf-8")

    def fails(self, command: str, times: int, text: str) -> None:
        (self.folder / f"{command}.fails").write_text(str(times), encoding="utf-8")
        (self.folder / f"{command}.err").write_text(text, encoding="utf-8")

    def ends(self, running: bool = False, code: int = 0, memory: bool = False) -> None:
        state = {"Running": running, "ExitCode": code, "OOMKilled": memory}
        self.answers("inspect", json.dumps(state))

    def asked(self, command: str) -> list[str]:
        """The calls of a command."""
        path = self.folder / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] == command]

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def base_on(name: str) -> None:
    """Write the project's Dockerfile."""
    DOCKERFILE.parent.mkdir(parents=True, exist_ok=True)
    DOCKERFILE.write_text(f"ARG BUILT\nFROM ${{BUILT}} AS built\nFROM {name}\nCOPY a b\n")


@pytest.fixture
def engine(clean_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    state, tools = tmp_path / "engine", tmp_path / "tools"
    for folder in (state, tools):
        folder.mkdir()
    for name in ("podman", "docker"):
        (tools / name).write_text(ENGINE, encoding="utf-8")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ENGINE_STATE", str(state))
    monkeypatch.setenv("CONTAINER_ENGINE", "podman")
    monkeypatch.setenv("IMAGE", "registry.example/acme/shop")
    monkeypatch.setattr(image, "WAIT_SECONDS", 0.0)
    monkeypatch.chdir(make_project(tmp_path))
    base_on("python:3.11-slim")
    engine = Engine(state)
    engine.answers("inspect.{{.Id}}", IMAGE_ID)
    digests = [f"other.example/python@sha256:{'0' * 64}", f"python@{BASE_DIGEST}"]
    engine.answers("inspect.{{json .RepoDigests}}", json.dumps(digests))
    return engine


@pytest.fixture
def bento(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of a bento in the store."""
    home = tmp_path / "bentoml"
    # For BentoML's own program, which builds the image.
    monkeypatch.setenv("BENTOML_HOME", str(home))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "true")
    with store_in(home / "bentos") as store:
        yield put_into_store(store, make_files())


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


class Live:
    """A service that answers as the bento's model did, unless told otherwise."""

    def __init__(self, server: HTTPServer) -> None:
        self.model = MODEL_HASH
        self.digest: str | None = f"sha256:{IMAGE_ID}"
        self.predictions = {record["x"]: prediction for record, prediction in zip(
            GOLDEN["records"], GOLDEN["predictions"], strict=True
        )}  # fmt: skip
        self.refusal = 400
        self.ready = 200
        server.clear()
        server.expect_request("/readyz").respond_with_handler(lambda _: Response(status=self.ready))
        server.expect_request("/release").respond_with_handler(self._release)
        server.expect_request("/predict").respond_with_handler(self._predict)

    def _release(self, request: Request) -> Response:
        told = {"release": TAG, "model": {"sha256": self.model}, "digest": self.digest}
        return Response(json.dumps(told))

    def _predict(self, request: Request) -> Response:
        try:
            body = json.loads(request.data)
            if body == {}:
                return Response(json.dumps({"problems": ["x"]}), 422)
            records = body if isinstance(body, list) else [body]
            found = [self.predictions[one["x"]] for one in records]
        except (ValueError, TypeError):
            return Response("{}", self.refusal)
        return Response(json.dumps(found if isinstance(body, list) else found[0]))


@pytest.fixture
def live(engine: Engine, server: HTTPServer) -> Live:
    """The service in the container that the engine says it runs."""
    engine.answers("create", "container-1")
    engine.answers("port", f"127.0.0.1:{server.port}\n")
    engine.answers("exec", "1034")
    engine.answers("logs", "the container's own words")
    engine.ends()
    limit_memory("1Gi")
    return Live(server)


def limit_memory(limit: str) -> None:
    """Write what production gives the service."""
    path = Path(image.RESOURCES)
    path.parent.mkdir(parents=True, exist_ok=True)
    container = f"{{name: service, resources: {{limits: {{memory: {limit}}}}}}}"
    path.write_text(
        f"spec: {{template: {{spec: {{containers: [{{name: other}}, {container}]}}}}}}",
        encoding="utf-8",
    )


def record(**changes: Any) -> None:
    Path("build").mkdir(exist_ok=True)
    known = {
        "name": "registry.example/acme/shop", "tag": VERSION, "bento": TAG,
        "base": f"docker.io/library/python@{BASE_DIGEST}", "id": f"sha256:{IMAGE_ID}", **changes,
    }  # fmt: skip
    Path("build/image.json").write_text(json.dumps(known), encoding="utf-8")


def recorded() -> dict[str, Any]:
    return dict(json.loads(Path("build/image.json").read_text(encoding="utf-8")))


def test_an_image_is_built_on_the_digest_that_the_base_has_now(
    engine: Engine, bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/shop")
    engine.fails("pull", ATTEMPTS - 1, "connection reset")
    record(tested=f"sha256:{IMAGE_ID}", digest=DIGEST)

    assert main(["build"]) == 0

    pinned = f"docker.io/library/python@{BASE_DIGEST}"
    pull = "pull --quiet docker.io/library/python:3.11-slim"
    assert engine.asked("pull") == [pull] * ATTEMPTS
    first, shipped = engine.asked("build")
    assert f"--build-context python:3.11-slim=docker-image://{pinned}" in first
    assert f"--tag registry.example/acme/shop:{VERSION}-build" in first
    assert f"--build-arg=BUILT=registry.example/acme/shop:{VERSION}-build" in shipped
    assert f"--tag=registry.example/acme/shop:{VERSION} " in shipped
    assert engine.read("recipe") == (
        f"ARG BUILT\nFROM ${{BUILT}} AS built\nFROM {pinned}\nCOPY a b\n"
    )
    for key, value in (
        ("revision", COMMIT),
        ("version", VERSION),
        ("base.digest", BASE_DIGEST),
        ("source", "https://github.com/acme/shop"),
    ):
        assert f"--label=org.opencontainers.image.{key}={value} " in shipped
    assert recorded() == {
        "name": "registry.example/acme/shop",
        "tag": VERSION,
        "base": pinned,
        "bento": TAG,
        "id": f"sha256:{IMAGE_ID}",
    }


def test_a_pinned_base_is_what_it_is_built_on(
    engine: Engine, bento: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build"]) == 0
    assert "To enable it: run `make pin-base-image` and commit" in capsys.readouterr().out
    other = f"sha256:{'d' * 64}"
    base_on(f"mirror.example/library/python:3.11-slim@{other}")

    assert main(["build"]) == 0

    assert "Skipped" not in capsys.readouterr().out
    pinned = f"mirror.example/library/python@{other}"
    assert engine.asked("pull")[-1] == f"pull --quiet {pinned}"
    assert recorded()["base"] == pinned
    assert f"FROM {pinned}\n" in engine.read("recipe")
    assert f"python:3.11-slim=docker-image://{pinned}" in engine.asked("build")[-2]


def test_a_base_for_another_python_is_refused(
    engine: Engine, bento: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base_on("python:3.13-slim")
    assert main(["build"]) == 1
    said = capsys.readouterr().err
    assert "is built on python:3.13-slim, but" in said
    assert "was made for python:3.11-slim; name that one there" in said
    assert engine.asked("build") == []


def test_a_build_that_fails_leaves_nothing_to_push(
    engine: Engine, bento: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record()
    engine.fails("build", 1, "no space left on device")
    assert main(["build"]) == 1
    said = capfd.readouterr()
    assert f"acme/shop:{VERSION}: cannot be built; the reason is above" in said.err
    assert "no space left on device" in said.out + said.err
    assert not Path("build/image.json").exists()


def test_without_the_base_image_there_is_no_build(
    engine: Engine, bento: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.fails("pull", 99, "connection refused")
    assert main(["build"]) == 1
    said = capsys.readouterr().err
    assert f"failed, {ATTEMPTS} times; is the base image's registry reachable?" in said
    assert "connection refused" in said
    engine.fails("pull", 0, "")
    engine.answers("inspect.{{json .RepoDigests}}", "null")
    assert main(["build"]) == 1
    assert "podman does not know its digest" in capsys.readouterr().err
    assert engine.asked("build") == []


def test_a_sound_image_is_run_as_it_is_deployed(
    engine: Engine, bento: Path, live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    record()
    assert main(["smoke"]) == 0
    assert "as user 1034, gives all 2 golden predictions" in capsys.readouterr().out
    (created,) = engine.asked("create")
    for option in (
        "--read-only", f"--memory={1024**3}", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--tmpfs=/tmp:", "--publish=127.0.0.1::3000", f"--env=EXPECTED_RELEASE={TAG}",
        f"--env=EXPECTED_MODEL_SHA256={MODEL_HASH}", f"--env=RELEASE_DIGEST=sha256:{IMAGE_ID}",
    ):  # fmt: skip
        assert option in created
    assert created.endswith(f" sha256:{IMAGE_ID}")
    assert engine.asked("rm") == ["rm --force --volumes container-1"]
    assert recorded()["tested"] == f"sha256:{IMAGE_ID}"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("root", "runs as root"),
        ("other predictions", "the predictions differ"),
        ("accepts anything", "answers 200 to a request that is not JSON, not 4xx"),
        ("dies of bad requests", "answers 500 to a request that is not JSON, not 4xx"),
        ("killed when it is stopped", "ended with exit code 137, not 0"),
        ("other model", "not ready after 0 s"),
        ("no digest", f"deployed as no digest, not as sha256:{IMAGE_ID}"),
        ("never ready", "/readyz answers 503"),
        ("ended", "ended with exit code 3\n"),
        (
            "out of memory",
            "ended with exit code 1; does it need more memory than the 1Gi of production? "
            "deploy/overlays/production/resources.yaml sets the limit",
        ),
    ],
)
def test_an_image_with_a_fault_is_refused(
    engine: Engine, bento: Path, live: Live, capsys: pytest.CaptureFixture[str],
    fault: str, words: str,
) -> None:  # fmt: skip
    record(tested=f"sha256:{IMAGE_ID}")
    if fault == "root":
        engine.answers("exec", "0")
    elif fault == "other predictions":
        live.predictions[2] = {"prediction": 20.1}
    elif fault == "accepts anything":
        live.refusal = 200
    elif fault == "dies of bad requests":
        live.refusal = 500
    elif fault == "killed when it is stopped":
        engine.ends(code=137)
    elif fault in ("other model", "never ready"):
        live.model, live.ready = ("0" * 64, 200) if fault == "other model" else (MODEL_HASH, 503)
        engine.ends(running=True)
    elif fault == "no digest":
        live.digest = None
        engine.ends(running=True)
    elif fault == "ended":
        live.ready = 503
        engine.ends(code=3)
    else:
        live.ready = 503
        engine.ends(code=1, memory=True)

    assert main(["smoke", "--timeout", "0"]) == 1

    said = capsys.readouterr().err
    assert words in said
    assert "The container said:\nthe container's own words" in said
    assert engine.asked("rm") == ["rm --force --volumes container-1"]
    assert "tested" not in recorded()


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        ("512Mi", 512 * 1024**2),
        ("1.5Gi", 1536 * 1024**2),
        ("64Ki", 64 * 1024),
        ("2Ti", 2 * 1024**4),
        ("100k", 100_000),
        ("1500M", 1_500_000_000),
        ("2G", 2_000_000_000),
        ("1073741824", 1024**3),
    ],
)
def test_the_image_has_the_memory_of_production(
    engine: Engine, bento: Path, live: Live, limit: str, size: int
) -> None:
    record()
    limit_memory(limit)
    assert main(["smoke"]) == 0
    (created,) = engine.asked("create")
    assert f" --memory={size} " in created


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("[", "must limit the memory of the container 'service', e.g. `limits: {memory: 1Gi}`"),
        ("", "must limit the memory"),
        ("spec: {template: {spec: {containers: []}}}", "must limit the memory"),
        ("spec: {template: {spec: {containers: [{name: service}]}}}", "KeyError('resources')"),
        ("1 GB", "the memory limit is '1 GB', not like 1Gi or 1500M"),
        ("1g", "'1g', not like"),
        ("1.5.2Gi", "'1.5.2Gi', not like"),
        ("500m", "'500m', not like"),
    ],
)
def test_without_a_known_limit_nothing_is_run(
    engine: Engine, bento: Path, live: Live, capsys: pytest.CaptureFixture[str],
    text: str | None, words: str,
) -> None:  # fmt: skip
    record(tested=f"sha256:{IMAGE_ID}")
    if text is None:
        Path(image.RESOURCES).unlink()
    elif text[:1].isdigit():
        limit_memory(text)
    else:
        Path(image.RESOURCES).write_text(text, encoding="utf-8")

    assert main(["smoke"]) == 1

    said = capsys.readouterr().err
    assert said.startswith("deploy/overlays/production/resources.yaml: ")
    assert words in said
    assert engine.asked("create") == []


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("kubernetes", "deploy/overlays/production/resources.yaml"),
        ("host", "deploy/host/pod.yaml"),
    ],
)
def test_the_projects_own_limit_is_known(generated: Bake, target: str, file: str) -> None:
    project = generated(deploy_target=target)
    assert image.production_memory(project) == image.Memory("1Gi", 1024**3, Path(file))


def test_a_container_that_does_not_start_is_removed_too(
    engine: Engine, bento: Path, live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    record()
    engine.fails("start", 1, "no such program in the image")
    assert main(["smoke"]) == 1
    assert "`podman start` failed:\nno such program" in capsys.readouterr().err
    assert len(engine.asked("rm")) == 1


@pytest.fixture
def registry(server: HTTPServer, engine: Engine) -> HTTPServer:
    """A registry that holds the tested image, once it was pushed."""
    server.clear()
    server.expect_request(f"/v2/acme/shop/manifests/{VERSION}").respond_with_data(MANIFEST)
    return server


def record_tested(server: HTTPServer) -> str:
    """Record a tested image of the registry; gives back its name."""
    name = f"127.0.0.1:{server.port}/acme/shop"
    record(name=name, tested=f"sha256:{IMAGE_ID}")
    return name


def test_what_was_tested_is_pushed_and_known_by_its_digest(
    engine: Engine,
    registry: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", "outputs")
    name = record_tested(registry)
    engine.fails("push", ATTEMPTS - 1, "connection reset by peer")

    assert main(["push"]) == 0

    assert engine.asked("tag") == [f"tag sha256:{IMAGE_ID} {name}:{VERSION}"]
    assert engine.asked("push") == [f"push --quiet {name}:{VERSION}"] * ATTEMPTS
    assert recorded()["digest"] == DIGEST
    assert capsys.readouterr().out == f"{name}@{DIGEST}\n"
    assert Path("outputs").read_text(encoding="utf-8") == f"name={name}\ndigest={DIGEST}\n"
    assert engine.asked("login") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "not tested; run `make smoke-image`"),
        ({"tested": f"sha256:{'6' * 64}"}, "not tested"),
        ({"id": None}, "is incomplete"),
    ],
)
def test_what_was_not_tested_is_not_pushed(
    engine: Engine, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    record(**changes)
    assert main(["push"]) == 1
    assert words in capsys.readouterr().err
    assert engine.asked("push") == []


@pytest.mark.parametrize(
    ("failure", "times", "words"),
    [
        ("dial tcp: connection refused", ATTEMPTS, f"{ATTEMPTS} times; is the registry up"),
        ("denied: permission_denied: write_package", 1, "not permitted; is the registry up"),
        ("unauthorized: authentication required", 1, "not permitted"),
    ],
)
def test_a_push_that_fails_is_named(
    engine: Engine,
    registry: HTTPServer,
    capsys: pytest.CaptureFixture[str],
    failure: str,
    times: int,
    words: str,
) -> None:
    record_tested(registry)
    engine.fails("push", 99, failure)
    assert main(["push"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert failure in said
    assert len(engine.asked("push")) == times
    assert "digest" not in recorded()


def test_another_image_in_the_registry_is_refused(
    engine: Engine, server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.clear()
    path = f"/v2/acme/shop/manifests/{VERSION}"
    server.expect_oneshot_request(path).respond_with_json({"config": {"digest": "sha256:other"}})
    server.expect_oneshot_request(path).respond_with_data("", 404)
    record_tested(server)
    assert main(["push"]) == 1
    assert "holds another image" in capsys.readouterr().err
    assert "digest" not in recorded()
    assert main(["push"]) == 1
    assert "was pushed, but the registry does not hold it" in capsys.readouterr().err


def test_an_engine_that_calls_images_by_their_manifest_is_understood(
    engine: Engine, registry: HTTPServer
) -> None:
    record(name=f"127.0.0.1:{registry.port}/acme/shop", id=DIGEST, tested=DIGEST)
    assert main(["push"]) == 0
    assert recorded()["digest"] == DIGEST


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_login_is_for_the_push_alone(
    engine: Engine, registry: HTTPServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CONTAINER_ENGINE", name)
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_TOKEN", TOKEN)
    record_tested(registry)
    assert main(["push"]) == 0
    host = f"127.0.0.1:{registry.port}"
    assert engine.asked("login") == [f"login --username ada --password-stdin {host}"]
    assert engine.read("password") == TOKEN
    assert TOKEN not in engine.read("calls")
    places = {Path(line.partition("=")[2]) for line in engine.read("environment").splitlines()}
    assert len(places) == 2
    assert not any(place.exists() for place in places)


def test_a_login_that_fails_shows_no_password(
    engine: Engine,
    registry: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_TOKEN", TOKEN)
    record_tested(registry)
    engine.fails("login", 1, f"wrong: {TOKEN}")
    assert main(["push"]) == 1
    said = capsys.readouterr().err
    assert "ada cannot log in; is it up, and are REGISTRY_USER and REGISTRY_TOKEN right?" in said
    assert TOKEN not in said
    assert engine.asked("push") == []


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_what_is_added_to_the_image_finds_a_login_where_docker_keeps_it(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setenv("CONTAINER_ENGINE", name)
    monkeypatch.setenv("IMAGE", "registry.example/acme/shop")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert main(["login"]) == 0
    assert "nobody has to log in" in capsys.readouterr().out
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_TOKEN", TOKEN)

    assert main(["login"]) == 0

    assert engine.asked("login") == ["login --username ada --password-stdin registry.example"]
    assert engine.read("password") == TOKEN
    places = {line.partition("=")[2] for line in engine.read("environment").splitlines()}
    assert places == {str(tmp_path / "docker"), str(tmp_path / "docker" / "config.json")}
    engine.fails("login", 1, f"wrong: {TOKEN}")
    assert main(["login"]) == 1
    assert TOKEN not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no such file; run `make image`"), ("{", "cannot be read"), ("[]", "cannot be read")],
)
def test_a_record_that_cannot_be_read_is_named(
    engine: Engine, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    Path("build").mkdir()
    if text is not None:
        Path("build/image.json").write_text(text, encoding="utf-8")
    for step in ("smoke", "push"):
        assert main([step]) == 1
        assert words in capsys.readouterr().err


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        DeploymentError, match="podman: not installed; install it, or set CONTAINER_"
    ):
        Container("podman").run("version")


def test_a_service_that_falls_silent_at_a_bad_request_is_named(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke, "REQUEST_SECONDS", 0.2)

    def answer(request: Request) -> Response:
        if request.get_data() != b"{}":
            time.sleep(0.5)
        return Response('{"problems": ["x is missing"]}', status=422)

    httpserver.expect_request("/predict").respond_with_handler(answer)
    with pytest.raises(SmokeError, match="/predict: no answer: timed out"):
        check_bad_requests(httpserver.url_for("").rstrip("/"))
