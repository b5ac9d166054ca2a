#!/usr/bin/env python3
"""Keep this machine on the release that the environment branch names.

Run by a timer, as root. There are two slots, blue and green, each a pod with a port of its own on
loopback. nginx sends requests to blue while the file `blue-is-live` is in the state folder, and to
green while it is not: renaming that file is all that ever moves traffic. A new release starts in
the idle slot, must say that it is the expected release with the expected model, deployed by the
expected digest, and must give the golden predictions; only then is traffic moved, and the old slot
drained and removed. Until then the live slot is not touched, whatever fails and wherever this
program is stopped: the next run starts the idle slot anew. A release that starts but does not
answer as it should is remembered in `refused.json` and not tried again while that is there and
`pod.yaml` is the same. The
same release with another image is another deployment, and rolled out as one.

What runs in a slot is in `<slot>.json`, so that a service that died, or a machine that was
restarted, is healed without git and without the registry.

The branch says which release runs, and nothing of how: the pod is this machine's own, `pod.yaml`
beside this program, and gets the names and hashes of `release.json` once each has the form that it
must have. Whoever may write to the branch chooses among the images called IMAGE, no more. When
`pod.yaml` changes, the release that is live is rolled out anew.

Settings, from the environment:
    REPOSITORY       where git fetches from
    IMAGE            the only image that may run here, without tag and digest
    SIGNED_BY        owner/name on GitHub, whose deliveries must have signed how the image was built
                     (default: not looked at); `gh` verifies it, with GH_TOKEN
    SIGNED_REF       the branch whose workflow must have signed (default: refs/heads/main)
    ENVIRONMENT      the branch is env/<ENVIRONMENT> (default: production)
    FRONT_DOOR       where nginx listens (default: http://127.0.0.1)
    STATE_DIRECTORY  set by systemd (default: /var/lib/<< cookiecutter.project_slug >>)
    BLUE_PORT        where the slots answer on loopback, as in the configuration of nginx
    GREEN_PORT       (default: 3001 and 3002)
    READY_SECONDS    how long a release may take to start (default: 120)
    DRAIN_SECONDS    how long the old slot still answers what it has begun (default: 15)

Exit status: 0 when the machine runs what the branch names, 1 when it does not.
Needs git, podman 4.3 or later and Python 3.9 or later, of which only the standard library; with
SIGNED_BY also gh 2.70 or later.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import math
import os
import re
import resource
import shutil
import signal
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

NAME = "<< cookiecutter.project_slug >>"
SLOTS = {"blue": 3001, "green": 3002}
REFUSED = "refused.json"
POD = Path(__file__).with_name("pod.yaml")
# What is read of the branch, and how many bytes of it at most; and how much git may write to disk.
FILES = {"release.json": 1_000_000, "golden.json": 16_000_000}
FETCHED_BYTES = 64_000_000
# What is taken from `release.json`. No sign of it means anything to YAML between double quotes.
FORMS = {
    "release": r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+",
    "model.sha256": "[0-9a-f]{64}",
    "image.name": r"[A-Za-z0-9._:/-]+",
    "image.digest": "sha256:[0-9a-f]{64}",
}

# The only workflow that signs.
SIGNER = ".github/workflows/deliver.yml"

GIT_SECONDS = 120.0
SIGNATURE_SECONDS = 120.0
PODMAN_SECONDS = 120.0
PULL_SECONDS = 1800.0
REQUEST_SECONDS = 10.0
FRONT_DOOR_SECONDS = 10.0
PATIENCE_SECONDS = 20.0  # with a live service that runs but does not answer
STOP_SECONDS = 30
POLL_SECONDS = 0.3
MOST_TOLERANCE = 1e-4  # with more of it, another model's answers would pass

CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
# What is on loopback is asked directly, whatever proxy the machine has for the rest.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PullError(Exception):
    """The machine does not run what the branch names; the message says why and what to do."""


class RefusedError(PullError):
    """The release itself is at fault: it started, but does not answer as it should."""


@dataclass(frozen=True)
class Settings:
    """What the environment sets."""

    repository: str
    image: str
    signed_by: str
    signed_ref: str
    branch: str
    front_door: str
    state: Path
    ports: Mapping[str, int]
    pod: str
    ready_seconds: float
    drain_seconds: float


@dataclass(frozen=True)
class Deployment:
    """A release as it runs in one slot.

    Attributes:
        revision: The commit of the branch.
        release: What its `release.json` says.
        golden: What its `golden.json` says.
        port: Where the slot answers on loopback.
        pod: What podman is to play.
    """

    revision: str
    release: dict[str, Any]
    golden: dict[str, Any]
    port: int
    pod: str

    @property
    def name(self) -> str:
        """The name of the release."""
        return str(self.release["release"])

    @property
    def model(self) -> str:
        """The sha256 of the model file."""
        return str(self.release["model"]["sha256"])

    @property
    def repository(self) -> str:
        """The image without its digest."""
        return str(self.release["image"]["name"])

    @property
    def digest(self) -> str:
        """The image's digest, which the slot is told and answers."""
        return str(self.release["image"]["digest"])

    @property
    def image(self) -> str:
        """The image by its digest."""
        return f"{self.repository}@{self.digest}"

    @property
    def url(self) -> str:
        """Where the slot answers."""
        return f"http://127.0.0.1:{self.port}"


def say(message: str) -> None:
    """Tell the journal."""
    print(message, flush=True)


def warn(message: str) -> None:
    """Tell the journal of what needs somebody's attention."""
    print(message, file=sys.stderr, flush=True)


# Settings and state


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        PullError: If one is missing or cannot be used.
    """
    repository = environment.get("REPOSITORY", "")
    if not repository or repository.startswith("-"):
        raise PullError("REPOSITORY: must be the address that git fetches from; set it")
    image = environment.get("IMAGE", "")
    if not re.fullmatch(FORMS["image.name"], image):
        raise PullError(
            f"IMAGE: {image!r} names no image; set it to the only one that may run here, without "
            "tag and digest, e.g. ghcr.io/owner/name"
        )
    signed_by = environment.get("SIGNED_BY", "")
    if not re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)?", signed_by):
        raise PullError(f"SIGNED_BY: {signed_by!r} names no repository, e.g. owner/name")
    signed_ref = environment.get("SIGNED_REF") or "refs/heads/main"
    if not re.fullmatch(r"refs/heads/[A-Za-z0-9._/-]+", signed_ref):
        raise PullError(f"SIGNED_REF: {signed_ref!r} names no branch, e.g. refs/heads/main")
    name = environment.get("ENVIRONMENT") or "production"
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise PullError(f"ENVIRONMENT: {name!r} names no environment, e.g. production")
    front_door = (environment.get("FRONT_DOOR") or "http://127.0.0.1").rstrip("/")
    if not re.match(r"https?://[^/]", front_door):
        raise PullError(f"FRONT_DOOR: {front_door!r} is no address, e.g. http://127.0.0.1")
    ports = {slot: _port(environment, f"{slot.upper()}_PORT", SLOTS[slot]) for slot in SLOTS}
    if ports["blue"] == ports["green"]:
        raise PullError(f"BLUE_PORT, GREEN_PORT: both are {ports['blue']}; take two")
    return Settings(
        repository=repository,
        image=image,
        signed_by=signed_by,
        signed_ref=signed_ref,
        branch=f"env/{name}",
        front_door=front_door,
        state=Path(environment.get("STATE_DIRECTORY") or f"/var/lib/{NAME}"),
        ports=ports,
        pod=read_pod(),
        ready_seconds=_seconds(environment, "READY_SECONDS", 120.0),
        drain_seconds=_seconds(environment, "DRAIN_SECONDS", 15.0),
    )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    given = environment.get(name)
    try:
        seconds = float(given) if given else default
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise PullError(f"{name}: {given!r} is no number of seconds")
    return seconds


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,5}", given) or not 0 < int(given) < 65536:
        raise PullError(f"{name}: {given!r} is no port, e.g. {default}")
    return int(given)


def read_pod() -> str:
    """This machine's pod.

    Raises:
        PullError: If it cannot be read.
    """
    try:
        return POD.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PullError(f"{POD}: cannot be read: {error}; copy it from deploy/host") from error


def render(settings: Settings, slot: str, release: Mapping[str, Any]) -> str:
    """This machine's pod with what is its own of a slot and of a release that was checked.

    Raises:
        PullError: If the pod has no place for one of them, or a place for something else.
    """
    model, image = release["model"], release["image"]
    values = {
        "digest": image["digest"],
        "image": f"{image['name']}@{image['digest']}",
        "model": model["sha256"],
        "port": settings.ports[slot],
        "release": release["release"],
        "slot": slot,
    }
    missing = [name for name in values if f"${{{name}}}" not in settings.pod]
    if missing:
        raise PullError(f"{POD}: nowhere says ${{{missing[0]}}}; copy it from deploy/host")
    try:
        return string.Template(settings.pod).substitute(values)
    except (KeyError, ValueError) as error:
        raise PullError(f"{POD}: a `$` in it stands for nothing: {error}; write `$$`") from error


@contextlib.contextmanager
def locked(state: Path) -> Iterator[bool]:
    """Hold the lock of the state folder; false if another run holds it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def write_json(path: Path, value: Any) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        OSError: If it cannot be written; what was there before still is.
    """
    draft = path.with_suffix(".new")
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(state: Path, slot: str) -> Deployment | None:
    """What was last started in a slot; none if that is unknown."""
    path = state / f"{slot}.json"
    try:
        record = Deployment(**json.loads(path.read_text(encoding="utf-8")))
        check_release(record.release)
        check_golden_file(record.golden)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, TypeError, PullError) as error:
        warn(f"{path}: what runs in this slot is unknown, it cannot be read: {error}")
        return None
    return record


def live_slot(state: Path) -> str:
    """The slot that nginx sends requests to."""
    return "blue" if (state / "blue-is-live").exists() else "green"


def other(slot: str) -> str:
    """The other slot."""
    return "green" if slot == "blue" else "blue"


def switch(state: Path, slot: str) -> None:
    """Send requests to a slot from now on.

    The file is renamed, not made anew, so that a full disk cannot stop the way back.

    Raises:
        OSError: If that is not possible; traffic was not moved then.
    """
    flag = state / f"{slot}-is-live"
    try:
        (state / f"{other(slot)}-is-live").replace(flag)
    except FileNotFoundError:
        flag.touch()
    _sync_folder(state)


# Tools


def run(
    command: Sequence[str],
    seconds: float,
    given: str | None = None,
    errors: bool = False,
    most: int | None = None,
) -> str:
    """Run a tool and give back what it printed.

    Args:
        command: The tool and its arguments.
        seconds: How long it may take.
        given: Its standard input.
        errors: Whether what it prints as errors belongs to it.
        most: How many bytes it may write to one file; as many as it likes by default.

    Raises:
        PullError: If it is not installed, fails or takes too long, with what it said.
    """
    what = CREDENTIALS.sub("", " ".join(command[:3]))
    environment = {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15",
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            input=given or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            preexec_fn=None if most is None else lambda: _limit_files(most),
        )
    except FileNotFoundError as error:
        raise PullError(f"{command[0]}: not installed") from error
    except subprocess.TimeoutExpired as error:
        raise PullError(f"`{what}`: no answer within {seconds:g} s") from error
    if done.returncode != 0:
        said = ((done.stderr or "").strip() or done.stdout.strip())[-2000:]
        raise PullError(CREDENTIALS.sub("", f"`{what}` failed ({done.returncode}): {said}"))
    return done.stdout


def _limit_files(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


# Git: what should run


def head(settings: Settings) -> str | None:
    """The newest commit of the environment branch; none if there is no such branch.

    Raises:
        PullError: If git cannot be reached.
    """
    reference = f"refs/heads/{settings.branch}"
    said = run(["git", "ls-remote", settings.repository, reference], GIT_SECONDS)
    for line in said.splitlines():
        commit, _, found = line.partition("\t")
        if found == reference:
            return commit
    return None


def fetch(settings: Settings) -> tuple[str, dict[str, str]]:
    """Fetch the environment branch.

    The clone is thrown away each time, so that no run depends on what a killed one left behind.

    Returns:
        The commit, and what its files hold.

    Raises:
        PullError: If git cannot be reached, or the commit lacks a file.
    """
    clone = settings.state / "fetch"
    shutil.rmtree(clone, ignore_errors=True)
    git = ["git", "-C", str(clone)]
    try:
        run(["git", "init", "--quiet", "--bare", "--template=", str(clone)], GIT_SECONDS)
        reference = f"refs/heads/{settings.branch}"
        options = ["--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"]
        command = [*git, "fetch", *options, settings.repository, reference]
        run(command, GIT_SECONDS, most=FETCHED_BYTES)
        commit = run([*git, "rev-parse", "FETCH_HEAD"], GIT_SECONDS).strip()
        place = f"{settings.branch} {commit[:8]}"
        return commit, {name: read_file(git, place, name) for name in FILES}
    finally:
        shutil.rmtree(clone, ignore_errors=True)


def read_file(git: Sequence[str], place: str, name: str) -> str:
    """A file of the commit that was fetched.

    Args:
        git: The command.
        place: What to call the commit.
        name: Of the file.

    Raises:
        PullError: If it is missing, is no plain file, or is larger than any such file.
    """
    listed = run([*git, "ls-tree", "--long", "FETCH_HEAD", "--", name], GIT_SECONDS)
    if not listed:
        raise PullError(f"{place}: has no {name}")
    # <mode> <type> <hash> <size>, a tab, and the name.
    mode, _, blob, size = listed.partition("\t")[0].split()
    if mode != "100644":
        raise PullError(f"{place}: {name} is no plain file, its mode is {mode}")
    if int(size) > FILES[name]:
        raise PullError(f"{place}: {name} has {size} bytes, more than {FILES[name]}")
    return run([*git, "cat-file", "blob", blob], GIT_SECONDS)


def verify(settings: Settings, commit: str, files: Mapping[str, str]) -> dict[str, Deployment]:
    """Make sure that the files of a commit name a release that may run here.

    Returns:
        The release for each slot.

    Raises:
        PullError: Naming the file, and what is wrong with it.
    """
    parsed = {}
    for name, check in (("release.json", check_release), ("golden.json", check_golden_file)):
        try:
            parsed[name] = json.loads(files[name])
            check(parsed[name])
        except (ValueError, RecursionError, PullError) as error:
            raise PullError(f"commit {commit[:8]}, {name}: {error}; nothing was changed") from error
    release, golden = parsed["release.json"], parsed["golden.json"]
    name = release["image"]["name"]
    if name != settings.image:
        raise PullError(
            f"commit {commit[:8]}, release.json: image.name is {name}, and only IMAGE, "
            f"{settings.image}, may run here; nothing was changed"
        )
    return {
        slot: Deployment(
            commit, release, golden, settings.ports[slot], render(settings, slot, release)
        )
        for slot in SLOTS
    }


def check_release(release: Any) -> None:
    """Make sure that `release.json` names release, model and image.

    Raises:
        PullError: Naming the key.
    """
    for key, pattern in FORMS.items():
        value = release
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise PullError(f"{key} is {value!r}, not like {pattern}")


def check_golden_file(golden: Any) -> None:
    """Make sure that there are golden predictions, one for each record.

    Raises:
        PullError: If not.
    """
    golden = golden if isinstance(golden, dict) else {}
    records, predictions = golden.get("records"), golden.get("predictions")
    if not isinstance(records, list) or not isinstance(predictions, list):
        raise PullError("records and predictions must be lists")
    if not records or len(records) != len(predictions):
        raise PullError(f"{len(records)} records and {len(predictions)} predictions")
    tolerance = golden.get("tolerance")
    if not isinstance(tolerance, (int, float)) or not 0 <= tolerance <= MOST_TOLERANCE:
        raise PullError(f"tolerance is {tolerance!r}, must be at most {MOST_TOLERANCE}")


def check_signature(settings: Settings, deployment: Deployment) -> None:
    """Make sure that the delivery of the right branch signed how the image was built.

    Raises:
        PullError: If it did not, or that cannot be told; it may be told the next time.
    """
    if not settings.signed_by:
        return
    workflow = f"{settings.signed_by}/{SIGNER}"
    command = ["gh", "attestation", "verify", f"oci://{deployment.image}"]
    command += ["--repo", settings.signed_by, "--signer-workflow", workflow]
    # Any branch has such a workflow, and may have changed it.
    command += ["--source-ref", settings.signed_ref]
    try:
        run(command, SIGNATURE_SECONDS)
    except PullError as error:
        raise PullError(
            f"{deployment.name}: {deployment.image} is not known to be built by {workflow} on "
            f"{settings.signed_ref}, so it is not started: {error}; it takes gh 2.70 or later "
            "(https://cli.github.com), GH_TOKEN, and deliveries that sign (the variable ATTEST)"
        ) from error


# Podman: what does run


def pods(slot: str) -> list[str]:
    """The pods in a slot; podman is asked, since its versions name pods differently."""
    label = f"label=slot={NAME}-{slot}"
    return run(["podman", "pod", "ps", "--quiet", "--filter", label], PODMAN_SECONDS).split()


def is_running(slot: str) -> bool:
    """Whether a container of a slot runs."""
    filters = ["--filter", f"label=slot={NAME}-{slot}", "--filter", "status=running"]
    return bool(run(["podman", "ps", "--quiet", *filters], PODMAN_SECONDS).strip())


def remove(slot: str) -> None:
    """Stop and remove the pods in a slot, if there are any.

    Raises:
        PullError: If podman fails.
    """
    found = pods(slot)
    if found:
        stop = ["podman", "pod", "rm", "--force", "--time", str(STOP_SECONDS)]
        run([*stop, *found], PODMAN_SECONDS)


def start(slot: str, deployment: Deployment) -> None:
    """Start a release in a slot, in place of what is there.

    Raises:
        PullError: If the image cannot be pulled, or podman cannot start it.
    """
    obtain(deployment.image)
    remove(slot)
    run(["podman", "kube", "play", "--replace", "-"], PODMAN_SECONDS, deployment.pod)


def obtain(image: str) -> None:
    """Pull an image by its digest, unless it is here.

    Raises:
        PullError: If the registry cannot be reached or has no such image, or the disk is full.
    """
    try:
        run(["podman", "image", "exists", image], PODMAN_SECONDS)
    except PullError:
        say(f"Pulling {image} ...")
        run(["podman", "pull", "--quiet", image], PULL_SECONDS)


def remove_old_images(kept: Sequence[Deployment]) -> None:
    """Remove the images of older releases: they would fill the disk in the end."""
    listing = run(["podman", "image", "ls", "--no-trunc", "--format", "json"], PODMAN_SECONDS)
    keep = {deployment.image for deployment in kept}
    names = tuple(f"{deployment.repository}@" for deployment in kept)
    for image in json.loads(listing or "[]"):
        found = set(image.get("RepoDigests") or ())
        if keep.isdisjoint(found) and any(name.startswith(names) for name in found):
            try:
                run(["podman", "image", "rm", image["Id"]], PODMAN_SECONDS)
            except PullError as error:
                warn(f"an old image stays: {error}")


def evidence(slot: str) -> str:
    """The last lines that a slot's containers logged."""
    try:
        found = pods(slot)
        command = ["podman", "pod", "logs", "--tail", "20"]
        logs = [run([*command, pod], PODMAN_SECONDS, errors=True) for pod in found]
    except PullError as error:
        return f"its log cannot be read: {error}"
    return "it logged:\n" + "".join(logs).rstrip() if found else "its pod is gone"


# HTTP: is it what it should be


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    """Send a request; POST when there is a body.

    Returns:
        The status, and the answer from JSON (none when it is no JSON).

    Raises:
        OSError: If there is no answer.
    """
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    try:
        try:
            with OPENER.open(request, timeout=REQUEST_SECONDS) as response:
                status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
    except http.client.HTTPException as error:
        raise OSError(f"{url}: not HTTP: {error!r}") from error
    try:
        return status, json.loads(answer)
    except ValueError:
        return status, None


def difference(url: str, deployment: Deployment) -> str:
    """What `/release` says other than the deployment; empty if it says the same.

    Raises:
        OSError: If there is no answer.
    """
    status, told = ask(f"{url}/release")
    if status != 200 or not isinstance(told, dict):
        return f"/release answers {status}"
    model = told.get("model")
    found = (told.get("release"), model.get("sha256") if isinstance(model, dict) else None)
    if found != (deployment.name, deployment.model):
        return f"it is {found[0]} with the model {found[1]}"
    if told.get("digest") != deployment.digest:
        return f"it is deployed as {told.get('digest') or 'no digest'}, not as {deployment.digest}"
    return ""


def wait_until_ready(deployment: Deployment, seconds: float) -> None:
    """Wait until a slot is ready and is the release that it should be.

    Raises:
        RefusedError: If the time is over before, or it is another release.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            status, _ = ask(f"{deployment.url}/readyz")
            state = f"/readyz answers {status}"
            if status == 200:
                state = difference(deployment.url, deployment)
                if not state:
                    return
                if state.startswith("it is"):
                    break
        except OSError as error:
            state = f"no answer: {error}"
        if time.monotonic() >= deadline:
            state = f"not ready after {seconds:g} s: {state}"
            break
        time.sleep(POLL_SECONDS)
    raise RefusedError(
        f"{deployment.url} should be {deployment.name} with the model {deployment.model}: {state}"
    )


def check_golden(deployment: Deployment) -> None:
    """Compare a slot's predictions with the golden ones, one by one and as a batch.

    Raises:
        RefusedError: Naming the first that differs, or if there is no answer.
    """
    golden, url = deployment.golden, f"{deployment.url}/predict"
    records, expected = golden["records"], golden["predictions"]
    requests = [(records[i], expected[i]) for i in range(len(records))]
    requests.append((records, expected))
    for number, (body, right) in enumerate(requests):
        what = f"golden record {number}" if number < len(records) else "all golden records at once"
        try:
            status, found = ask(url, body)
        except OSError as error:
            raise RefusedError(f"{url}: no answer to {what}: {error}") from error
        if status != 200 or not same(without_additions(found, right), right, golden["tolerance"]):
            said = f"expected {json.dumps(right)}, found {status} {json.dumps(found)}"
            raise RefusedError(f"{url}: wrong prediction for {what}: {said[:1000]}")


def without_additions(found: Any, expected: Any) -> Any:
    """Answers without what the service's own code adds to those of the model."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [without_additions(found[i], expected[i]) for i in range(len(expected))]
    if isinstance(found, dict) and isinstance(expected, dict):
        return {key: value for key, value in found.items() if key in expected}
    return found


def same(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether two answers agree: numbers within the tolerance (relative above one), else equal."""
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(same(found[i], expected[i], tolerance) for i in range(len(expected)))
        )
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(same(found[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, bool) or not isinstance(expected, (int, float)):
        return type(found) is type(expected) and bool(found == expected)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return False
    return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)


def check_nginx(settings: Settings) -> None:
    """Make sure that nginx answers at all, before a release is started for nothing.

    Raises:
        PullError: If it does not.
    """
    try:
        ask(f"{settings.front_door}/release")
    except OSError as error:
        raise PullError(
            f"{settings.front_door}: nginx does not answer ({error}); "
            "see `systemctl status nginx`, FRONT_DOOR; nothing was changed"
        ) from error


def check_front_door(settings: Settings, deployment: Deployment) -> None:
    """Wait until nginx sends requests to a release.

    Raises:
        PullError: If it does not.
    """
    deadline = time.monotonic() + FRONT_DOOR_SECONDS
    while True:
        try:
            state = difference(settings.front_door, deployment)
            advice = f"can nginx look into {settings.state}, and does its configuration name it?"
        except OSError as error:
            state, advice = f"no answer: {error}", "see `systemctl status nginx`, FRONT_DOOR"
        if not state:
            return
        if time.monotonic() >= deadline:
            raise PullError(
                f"{settings.front_door} should be {deployment.name} by now: {state}; {advice}"
            )
        time.sleep(POLL_SECONDS)


# One run


def heal(slot: str, deployment: Deployment, settings: Settings) -> None:
    """Start the live release again if it does not answer.

    Raises:
        PullError: If it cannot be started.
    """
    try:
        wait_until_ready(deployment, PATIENCE_SECONDS if is_running(slot) else 0.0)
    except RefusedError as error:
        warn(f"{deployment.name} in {slot} is started again: {error}; {evidence(slot)}")
        start(slot, deployment)
        wait_until_ready(deployment, settings.ready_seconds)
        say(f"{deployment.name} answers again in {slot}")


def roll_out(slot: str, deployment: Deployment, settings: Settings) -> None:
    """Start a release in the idle slot, prove it there, and send it the requests.

    Raises:
        PullError: If it cannot be started, or nginx does not follow.
        RefusedError: If it does not answer as it should.
        OSError: If the disk is full. In each case the other slot gets the requests as before.
    """
    check_nginx(settings)
    try:
        start(slot, deployment)
        try:
            wait_until_ready(deployment, settings.ready_seconds)
            check_golden(deployment)
        except RefusedError as error:
            raise RefusedError(f"{error}; {evidence(slot)}") from error
        # Until now the slot's record names the release before, whose image stays for a rollback.
        write_json(settings.state / f"{slot}.json", asdict(deployment))
        switch(settings.state, slot)
        try:
            check_front_door(settings, deployment)
        except BaseException:
            switch(settings.state, other(slot))
            raise
    except BaseException:
        if live_slot(settings.state) != slot:
            clear(slot)
        raise


def clear(slot: str) -> None:
    """Remove what failed to start; if that fails too, the next run does it."""
    try:
        remove(slot)
    except PullError as error:
        warn(f"{slot} could not be cleared: {error}")


def tidy(live: str, settings: Settings) -> None:
    """Remove the pods of the slot that gets no requests, and the images that nobody needs.

    Raises:
        PullError: If podman fails.
    """
    idle = other(live)
    if pods(idle):
        time.sleep(settings.drain_seconds)
        remove(idle)
    kept = [read_record(settings.state, slot) for slot in SLOTS]
    remove_old_images([deployment for deployment in kept if deployment])


def follow(settings: Settings, current: Deployment | None, live: str) -> None:
    """Bring the machine to what the branch names.

    Raises:
        PullError: If that is not possible; the live release answers as before.
        OSError: If the disk is full; likewise.
    """
    commit = head(settings)
    if commit is None:
        if current is not None:
            raise PullError(f"{settings.branch}: gone; {current.name} runs on")
        say(f"{settings.branch} does not exist yet: there is nothing to run")
        return
    wanted = render(settings, live, current.release) if current else None
    if current is None or commit != current.revision or current.pod != wanted:
        current, live = update(settings, current, live, commit)
    check_front_door(settings, current)
    tidy(live, settings)
    say(f"{current.name} is live in {live} ({settings.branch} {current.revision[:8]})")


def update(
    settings: Settings, current: Deployment | None, live: str, commit: str
) -> tuple[Deployment, str]:
    """Fetch, verify and roll out a commit.

    Returns:
        What is live now, and in which slot.

    Raises:
        PullError: If that is not possible; the live release answers as before.
        OSError: If the disk is full; likewise.
    """
    reason = refusal(settings, commit)
    if reason:
        raise PullError(
            f"{settings.branch} {commit[:8]} was refused and is not tried again, unless you delete "
            f"{settings.state / REFUSED}: {reason}"
        )
    commit, files = fetch(settings)
    slots = verify(settings, commit, files)
    candidate = slots[live]
    if current and asdict(candidate) == {**asdict(current), "revision": commit}:
        write_json(settings.state / f"{live}.json", asdict(candidate))
        return candidate, live
    idle = other(live)
    candidate = slots[idle]
    check_signature(settings, candidate)
    say(f"Rolling out {candidate.name} ({settings.branch} {commit[:8]}) in {idle}")
    try:
        roll_out(idle, candidate, settings)
    except RefusedError as error:
        refuse(settings, commit, str(error))
        stays = f"{current.name} stays live" if current else "nothing is live"
        raise RefusedError(f"{candidate.name} is refused, {stays}: {error}") from error
    return candidate, idle


def refusal(settings: Settings, commit: str) -> str | None:
    """Why a commit was refused before, in the same pod; none if it was not."""
    try:
        refused = json.loads((settings.state / REFUSED).read_text(encoding="utf-8"))
        same_pod = refused["pod"] == _hash(settings.pod)
        return str(refused["reason"]) if same_pod and refused["revision"] == commit else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse(settings: Settings, commit: str, reason: str) -> None:
    """Remember that a commit was refused; if that cannot be written, it is tried again."""
    path = settings.state / REFUSED
    try:
        write_json(path, {"revision": commit, "pod": _hash(settings.pod), "reason": reason})
    except OSError as error:
        warn(f"{path}: cannot be written: {error}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tick(settings: Settings) -> None:
    """Heal what is live, then follow the branch, even if the live release is past healing.

    Raises:
        PullError: If either is not possible.
        OSError: If the disk is full.
    """
    live = live_slot(settings.state)
    current = read_record(settings.state, live)
    failed = None
    if current is not None:
        try:
            heal(live, current, settings)
        except PullError as error:
            failed = error
            warn(str(error))
    follow(settings, current, live)
    if failed and live_slot(settings.state) == live:
        raise PullError(f"{live} does not answer: see above")


def stop(number: int, _: object) -> NoReturn:
    """End on a signal in an orderly way: what was being started is removed."""
    sys.exit(128 + number)


def main() -> int:
    """Run once; 0 if the machine runs what the branch names."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        settings = read_settings(os.environ)
        with locked(settings.state) as alone:
            if not alone:
                say("another run is under way")
                return 0
            tick(settings)
    except (PullError, OSError) as error:
        warn(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
