"""The container image: built from the gated bento, tested as it will run, pushed by digest.

    gitops-ml image pin | build | smoke | push | login

CONTAINER_ENGINE (docker or podman) builds and runs it, IMAGE says where it is kept; both as in
`image_settings.py`. What is known of the image goes into `build/image.json`, step by step:

- pin: writes the base image's digest into `deploy/image/Dockerfile`.
- build: `bentoml containerize`, and of that what `deploy/image/Dockerfile` copies.
- smoke: runs it as the Deployment does: read-only, without privileges, with production's memory. It
  must not be root, answer as the model did and say what it was deployed as, refuse bad requests and
  stop when it is asked to.
- push: only what has passed the smoke test; then the registry is asked what it holds.
- login: lets what follows write beside the image, as an attestation is; only for a workflow, whose
  machine is thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from gitops_ml.bento.archive import fetched_tag
from gitops_ml.bento.smoke import (
    SmokeError,
    ask,
    check_golden,
    check_refusal,
    read_golden,
    wait_for,
)
from gitops_ml.bento.store import Bento, find_bento
from gitops_ml.core.base_image import DOCKERFILE, built_on, qualified, read_base
from gitops_ml.core.project import load_project
from gitops_ml.core.retry import doubling, patiently
from gitops_ml.core.run import PYTHON, NotInstalledError, said, show
from gitops_ml.core.run import run as run_command
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.github.client import NotSetUpError, find_remote
from gitops_ml.github.workflow_run import github_server
from gitops_ml.ship.image.pin import pin
from gitops_ml.ship.image.registry import DIGEST, Manifest, Registry
from gitops_ml.ship.image.settings import (
    Engine,
    Login,
    container_engine,
    image_name,
    registry_login,
)
from gitops_ml.ship.settings import DeploymentError, tell_skipped, write_outputs

RECORD = Path("build/image.json")
LABEL = "org.opencontainers.image"  # how the names of the labels begin that the build sets

PORT = 3000
KILLED = 137  # not every engine tells whether it was for the memory
# As in deploy/base/deployment.yaml or deploy/host/pod.yaml, which also set these variables.
LIMITS = (
    "--read-only",
    "--tmpfs=/tmp:size=256m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--env=BENTOML_HOME=/tmp/bentoml",
)
# Where the memory of production is limited, for which container, and how it may be written:
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
RESOURCES = Path("deploy/overlays/production/resources.yaml")
HOST_RESOURCES = Path("deploy/host/pod.yaml")
CONTAINER = "service"
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMGT]|[KMGT]i)?")
READY_SECONDS = 120.0
STOP_SECONDS = 30
ATTEMPTS = 3
WAIT_SECONDS = 2.0
LOG_LINES = 60
SAID_LENGTH = 2000

_DENIED = re.compile(
    r"denied|unauthorized|authentication required|forbidden|requested access", re.IGNORECASE
)


class TransferError(DeploymentError):
    """An image was not transferred, for reasons that may be gone the next time."""


class Container:
    """The command of a container engine.

    Args:
        engine: Which one.
        variables: More environment variables.
    """

    def __init__(self, engine: Engine, variables: Mapping[str, str] | None = None) -> None:
        self.engine = engine
        self._variables = variables

    def try_to(self, *arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes of it.

        Raises:
            DeploymentError: If the engine is not installed.
        """
        try:
            return run_command(
                [self.engine, *arguments], Path.cwd(), variables=self._variables, data=data
            )
        except NotInstalledError as error:
            raise DeploymentError(
                f"{self.engine}: not installed; install it, or set CONTAINER_ENGINE to another"
            ) from error

    def run(self, *arguments: str, data: str = "") -> str:
        """What a command prints.

        Raises:
            DeploymentError: If it fails, with what it said.
        """
        done = self.try_to(*arguments, data=data)
        if done.returncode != 0:
            raise DeploymentError(f"`{self.engine} {arguments[0]}` failed:\n{said(done)}")
        return done.stdout.strip()

    def transfer(self, *arguments: str, advice: str) -> None:
        """Run a command that talks to a registry; again where that may help.

        Raises:
            DeploymentError: If it fails every time, or is not permitted.
        """

        def once() -> None:
            done = self.try_to(*arguments)
            if done.returncode == 0:
                return
            what = f"`{self.engine} {' '.join(arguments)}` failed"
            if _DENIED.search(done.stderr):
                raise DeploymentError(f"{what}: not permitted; {advice}\n{said(done)}")
            raise TransferError(f"{what}, {ATTEMPTS} times; {advice}\n{said(done)}")

        patiently(
            once,
            lambda error: isinstance(error, TransferError),
            ATTEMPTS,
            lambda attempt, _: WAIT_SECONDS * doubling(attempt),
        )

    def image_id(self, image: str) -> str:
        """The identity of an image on this machine, as sha256:...

        Raises:
            DeploymentError: If it is not here.
        """
        found = self.run("image", "inspect", "--format", "{{.Id}}", image)
        return f"sha256:{found.removeprefix('sha256:')}"

    def digest(self, image: str) -> str:
        """The digest by which a registry has given an image.

        Raises:
            DeploymentError: If no registry has.
        """
        name = image.rpartition(":")[0]
        listed = json.loads(
            self.run("image", "inspect", "--format", "{{json .RepoDigests}}", image)
        )
        for entry in listed or ():
            repository, _, digest = entry.partition("@")
            if qualified(repository) == name and DIGEST.fullmatch(digest):
                return str(digest)
        raise DeploymentError(f"{image}: {self.engine} does not know its digest")


def read_record(root: Path) -> dict[str, Any]:
    """What is known of the image.

    Raises:
        DeploymentError: If there is no such record or it cannot be read.
    """
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
        known = all(isinstance(record[key], str) for key in ("name", "tag", "base", "bento", "id"))
    except FileNotFoundError as error:
        raise DeploymentError(f"{RECORD}: no such file; run `make image`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(f"{RECORD}: cannot be read: {error!r}; run `make image`") from error
    if not known:
        raise DeploymentError(f"{RECORD}: is incomplete; run `make image`")
    return dict(record)


def write_record(root: Path, record: Mapping[str, Any]) -> None:
    """Write down what is known of the image."""
    path = root / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def base_image_of(bento: Bento) -> str:
    """The base image, as the bento names it."""
    content = load_yaml((bento.folder / "bento.yaml").read_text(encoding="utf-8"))
    return str(content["image"]["base_image"])


def build(root: Path, bento: Bento, engine: Container, name: str) -> dict[str, Any]:
    """Build the image of a bento.

    The base image is the one that `deploy/image/Dockerfile` names by digest. Where nobody has
    pinned it, its tag is resolved once, here, and everything is built on that digest: what is
    recorded is what was used, even if the tag moves at this moment.

    BentoML builds an image with all that it takes to install; the Dockerfile copies what was
    installed.

    Args:
        root: The project's folder.
        bento: What to build it from.
        engine: What builds it.
        name: The image's name, with registry and without tag.

    Returns:
        What is known of it.

    Raises:
        DeploymentError: If the base image cannot be pulled, is for another Python than the bento,
            or the build fails.
    """
    (root / RECORD).unlink(missing_ok=True)
    base_image, base = base_image_of(bento), read_base(root)
    if qualified(base_image).rpartition("/")[2] != base.short:
        raise DeploymentError(
            f"{DOCKERFILE}: is built on {base.short}, but {bento.tag} was made for {base_image}; "
            "name that one there, then run `make pin-base-image`"
        )
    reference = base.reference
    engine.transfer("pull", "--quiet", reference, advice="is the base image's registry reachable?")
    if base.digest is None:
        tell_skipped(
            f"the image is built on what {reference} is today, which nobody has reviewed",
            f"run `make pin-base-image` and commit {DOCKERFILE}",
        )
    pinned = f"{base.name}@{base.digest or engine.digest(reference)}"
    image = f"{name}:{bento.version}"
    built = f"{image}-build"
    # The build finds this one where the bento names its base image.
    context = f"build-context={base_image}=docker-image://{pinned}"
    command = [*PYTHON, "bentoml", "containerize", bento.tag, "--backend", engine.engine]
    if show([*command, "--image-tag", built, "--opt", context], root) != 0:
        raise DeploymentError(f"{image}: cannot be built; the reason is above")
    labels = (f"--label={key}={value}" for key, value in _labels(root, bento, pinned).items())
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "Dockerfile"
        recipe.write_text(built_on(root, pinned), encoding="utf-8")
        command = [engine.engine, "build", f"--file={recipe}", f"--build-arg=BUILT={built}"]
        if show([*command, *labels, f"--tag={image}", folder], root) != 0:
            raise DeploymentError(
                f"{image}: cannot be built from {DOCKERFILE}; the reason is above"
            )
    record = {
        "name": name,
        "tag": bento.version,
        "base": pinned,
        "bento": bento.tag,
        "id": engine.image_id(image),
    }
    write_record(root, record)
    return record


def _labels(root: Path, bento: Bento, base: str) -> dict[str, str]:
    """Where the image comes from, for people and registries.

    https://github.com/opencontainers/image-spec/blob/main/annotations.md
    """
    labels = {
        "title": load_project().package,
        "version": bento.version,
        "revision": str(bento.release["source"]["commit"]),
        "base.name": base.partition("@")[0],
        "base.digest": base.partition("@")[2],
    }
    with contextlib.suppress(NotSetUpError):
        # By this GitHub's registry shows the image beside the repository.
        labels["source"] = f"{github_server()}/{find_remote(root).repository}"
    return {f"{LABEL}.{key}": value for key, value in labels.items()}


@dataclass(frozen=True)
class Memory:
    """How much memory a container may use.

    Attributes:
        limit: As it is written, e.g. 1Gi.
        size: In bytes.
        file: Which says so.
    """

    limit: str
    size: int
    file: Path


def production_memory(root: Path) -> Memory:
    """How much memory the service may use in production.

    Raises:
        DeploymentError: If the file that says it is missing, or says it otherwise.
    """
    file = HOST_RESOURCES if load_project(root).deploy_target == "host" else RESOURCES
    try:
        found = load_yaml((root / file).read_text(encoding="utf-8"))
        # A Deployment holds a pod, or it is the pod.
        pod = found["spec"].get("template", found)
        containers = pod["spec"]["containers"]
        (own,) = (one for one in containers if one["name"] == CONTAINER)
        limit = str(own["resources"]["limits"]["memory"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise DeploymentError(
            f"{file}: must limit the memory of the container {CONTAINER!r}, e.g. "
            f"`limits: {{memory: 1Gi}}`: {error!r}"
        ) from error
    quantity = QUANTITY.fullmatch(limit)
    if quantity is None:
        raise DeploymentError(f"{file}: the memory limit is {limit!r}, not like 1Gi or 1500M")
    number, unit = quantity[1], quantity[2] or ""
    power = " KMGT".index(unit[:1].upper() or " ")
    return Memory(limit, int(float(number) * (1024 if unit.endswith("i") else 1000) ** power), file)


def smoke(root: Path, engine: Container, timeout: float = READY_SECONDS) -> str:
    """Run the image as it will be deployed, and ask it.

    Returns:
        One line that says what was checked.

    Raises:
        SmokeError: At the first check that fails, with the end of the container's log.
        DeploymentError: If it cannot be run at all, or it is unknown with how much memory.
    """
    record = read_record(root)
    write_record(root, {key: value for key, value in record.items() if key != "tested"})
    memory = production_memory(root)
    bento = find_bento(record["bento"])
    expected = str(bento.release["model"]["sha256"])
    golden = read_golden(bento.golden)
    # No registry has given it a digest yet: the image's own identity stands for it.
    digest = record["id"]
    variables = {
        "EXPECTED_RELEASE": bento.tag,
        "EXPECTED_MODEL_SHA256": expected,
        "RELEASE_DIGEST": digest,
    }
    with running(engine, record["id"], variables, memory) as (container, url):
        ask = partial(wait_for, url, expected, timeout=1.0, digest=digest)
        _wait(engine, container, ask, memory, timeout)
        user = engine.run("exec", container, "id", "-u")
        if user == "0":
            raise SmokeError(f"{record['name']}: runs as root; its user must be another")
        compared = check_golden(url, golden)
        check_bad_requests(url)
        _stop(engine, container)
    write_record(root, {**record, "tested": record["id"]})
    return (
        f"{record['name']}:{record['tag']} runs read-only and as user {user}, gives all {compared} "
        "golden predictions, one by one and as a batch, refuses bad requests and stops when asked"
    )


@contextmanager
def running(
    engine: Container, image: str, variables: Mapping[str, str], memory: Memory
) -> Iterator[tuple[str, str]]:
    """Run an image while the block runs, on a free port of this machine.

    Yields:
        The container, and the service's address.

    Raises:
        SmokeError: From the block, with the end of the container's log added.
        DeploymentError: If it cannot be started.
    """
    settings = [f"--env={name}={value}" for name, value in variables.items()]
    settings.append(f"--memory={memory.size}")
    publish = f"--publish=127.0.0.1::{PORT}"
    container = engine.run("create", *LIMITS, *settings, publish, image)
    try:
        engine.run("start", container)
        address = engine.run("port", container, f"{PORT}/tcp").splitlines()[0]
        yield container, f"http://{address}"
    except SmokeError as error:
        log = engine.try_to("logs", f"--tail={LOG_LINES}", container)
        text = f"{log.stdout}{log.stderr}".strip()
        raise SmokeError(f"{error}\nThe container said:\n{text}") from error
    finally:
        engine.try_to("rm", "--force", "--volumes", container)


def _wait(
    engine: Container, container: str, ask: Callable[[], Any], memory: Memory, timeout: float
) -> None:
    """Wait until the service answers as it should, or its container has ended."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            ask()
        except SmokeError as error:
            state = _state(engine, container)
            if not state["Running"]:
                code = state["ExitCode"]
                killed = state["OOMKilled"] or code == KILLED
                why = (
                    f"; does it need more memory than the {memory.limit} of production? "
                    f"{memory.file} sets the limit"
                    if killed
                    else ""
                )
                raise SmokeError(f"the container ended with exit code {code}{why}") from error
            if time.monotonic() >= deadline:
                raise SmokeError(f"not ready after {timeout:g} s: {error}") from error
        else:
            return


def _state(engine: Container, container: str) -> dict[str, Any]:
    return dict(json.loads(engine.run("inspect", "--format", "{{json .State}}", container)))


def check_bad_requests(url: str) -> None:
    """Make sure that bad requests are refused, and that the service is none the worse for them.

    Raises:
        SmokeError: If one is not refused as it should be.
    """
    check_refusal(url)
    for body, what in ((b'{"', "a request that is not JSON"), (b"[1]", "a record that is none")):
        status, answer = ask(f"{url}/predict", body)
        if not 400 <= status < 500:
            raise SmokeError(f"{url}/predict: answers {status} to {what}, not 4xx: {answer}")
    status, answer = ask(f"{url}/readyz")
    if status != 200:
        raise SmokeError(f"{url}/readyz: answers {status} after bad requests: {answer}")


def _stop(engine: Container, container: str) -> None:
    """Ask the container to stop; requests under way would be lost if it had to be killed."""
    engine.run("stop", "-t", str(STOP_SECONDS), container)
    code = _state(engine, container)["ExitCode"]
    if code != 0:
        raise SmokeError(f"the container was asked to stop and ended with exit code {code}, not 0")


def push(root: Path, engine: Container, login: Login | None) -> dict[str, Any]:
    """Push the image that was tested, and ask the registry what it holds now.

    Returns:
        What is known of the image, its digest included.

    Raises:
        DeploymentError: If it was not tested, or the registry does not take it.
        DeploymentError: If the registry holds something else afterwards.
    """
    record = read_record(root)
    if record.get("tested") != record["id"]:
        raise DeploymentError(f"{RECORD}: the image is not tested; run `make smoke-image`")
    image = f"{record['name']}:{record['tag']}"
    engine.run("tag", record["id"], image)
    advice = "is the registry up, is IMAGE right, and may REGISTRY_USER write to it?"
    with logged_in(engine, login) as pusher:
        pusher.transfer("push", "--quiet", image, advice=advice)
    held = Registry(record["name"], login).manifest(record["tag"])
    if held is None:
        raise DeploymentError(f"{image}: was pushed, but the registry does not hold it")
    check_same(image, record["id"], held)
    record = {**record, "digest": held.digest}
    write_record(root, record)
    return record


def check_same(image: str, tested: str, held: Manifest) -> None:
    """Make sure that the registry holds the image that was tested.

    Docker with containerd's store calls an image by its manifest's digest, everything else by its
    configuration's.

    Raises:
        DeploymentError: If it holds another one.
    """
    if tested not in (held.digest, held.config):
        raise DeploymentError(
            f"{image}: the registry holds another image ({held.digest}) than the one that was "
            f"tested ({tested}); does somebody else push this tag? Run the delivery again"
        )


def log_in(engine: Container, login: Login | None) -> str:
    """Log in to a registry where docker's own programs look; what was done.

    Raises:
        DeploymentError: If the registry does not let us in.
    """
    if login is None:
        return "nobody has to log in"
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    logins = folder / "config.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not logins.exists():
        logins.write_text("{}", encoding="utf-8")
    _log_in(engine.engine, login, logins)
    return f"logged in to {login.registry} as {login.user}"


def _log_in(engine: Engine, login: Login, logins: Path) -> Container:
    """Log in to a registry; the engine that is, by a file of logins."""
    # https://docs.docker.com/reference/cli/docker/#environment-variables
    # https://docs.podman.io/en/latest/markdown/podman-login.1.html
    own = {"DOCKER_CONFIG": str(logins.parent), "REGISTRY_AUTH_FILE": str(logins)}
    pusher = Container(engine, own)
    who = ("--username", login.user, "--password-stdin", login.registry)
    done = pusher.try_to("login", *who, data=login.token)
    if done.returncode != 0:
        raise DeploymentError(
            f"{login.registry}: {login.user} cannot log in; is it up, and are REGISTRY_USER "
            f"and REGISTRY_TOKEN right?\n{said(done).replace(login.token, '***')}"
        )
    return pusher


@contextmanager
def logged_in(engine: Container, login: Login | None) -> Iterator[Container]:
    """Log in to a registry while the block runs, apart from the logins of this machine.

    Yields:
        The engine to push with.

    Raises:
        DeploymentError: If the registry does not let us in.
    """
    if login is None:
        yield engine
        return
    with tempfile.TemporaryDirectory() as folder:
        logins = Path(folder, "auth.json")
        logins.write_text("{}", encoding="utf-8")
        yield _log_in(engine.engine, login, logins)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("build", help="build it from a bento")
    step.add_argument(
        "--bento", metavar="TAG", help="default: the fetched bento, else the newest of the store"
    )
    step = steps.add_parser("smoke", help="run it and ask for the golden predictions")
    step.add_argument("--timeout", type=float, default=READY_SECONDS, help="seconds until ready")
    steps.add_parser("push", help="push it and say its digest")
    steps.add_parser("pin", help="write the base image's digest into the Dockerfile")
    steps.add_parser("login", help="log in to its registry for the programs that follow")


def run(options: argparse.Namespace) -> int:
    """Build, test or push the image, or log in to its registry; 0 if that was done."""
    root = Path.cwd()
    if options.step == "pin":
        print(pin(root))
        return 0
    engine = Container(container_engine())
    if options.step == "build":
        bento = find_bento(options.bento or fetched_tag(root) or "latest")
        record = build(root, bento, engine, image_name(root))
        print(f"{record['name']}:{record['tag']} is built from {bento.tag} on {record['base']}")
    elif options.step == "smoke":
        print(smoke(root, engine, options.timeout))
    elif options.step == "login":
        print(log_in(engine, registry_login(image_name(root))))
    else:
        record = push(root, engine, registry_login(read_record(root)["name"]))
        write_outputs(name=record["name"], digest=record["digest"])
        print(f"{record['name']}@{record['digest']}")
    return 0
