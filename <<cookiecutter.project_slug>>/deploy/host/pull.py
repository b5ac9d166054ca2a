#!/usr/bin/env python3
"""Keep this machine on the release that the environment branch names.

Run by a timer, as root. There are two slots, blue and green, each a pod with a port of its own on
loopback. nginx sends requests to blue while the file `blue-is-live` is in the state folder, and to
green while it is not: renaming that file is all that ever moves traffic. A new release starts in
the idle slot, must say that it is the expected release with the expected model, deployed by the
expected digest, and must give the golden predictions; only then is traffic moved, and the old slot
drained and removed. Until then the live slot is not touched, whatever fails and wherever this
program is stopped: the next run starts the idle slot anew. A release that starts but does not
answer as it should is remembered in `refused.json` and not tried again while that is there. The
same release with another image is another deployment, and rolled out as one.

What runs in a slot is in `<slot>.json`, so that a service that died, or a machine that was
restarted, is healed without git and without the registry.

Settings, from the environment:
    REPOSITORY       where git fetches from
    ENVIRONMENT      the branch is env/<ENVIRONMENT> (default: production)
    FRONT_DOOR       where nginx listens (default: http://127.0.0.1)
    STATE_DIRECTORY  set by systemd (default: /var/lib/<< cookiecutter.project_slug >>)
    READY_SECONDS    how long a release may take to start (default: 120)
    DRAIN_SECONDS    how long the old slot still answers what it has begun (default: 15)

Exit status: 0 when the machine runs what the branch names, 1 when it does not.
Needs git, podman 4.3 or later and Python 3.9 or later, of which only the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import math
import os
import re
import shutil
import signal
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
SLOTS = ("blue", "green")
FILES = ("release.json", "golden.json", *(f"{slot}.yaml" for slot in SLOTS))
REFUSED = "refused.json"
DIGEST = "RELEASE_DIGEST"
KINDS = {"ConfigMap", "Deployment", "PersistentVolumeClaim"}

GIT_SECONDS = 120.0
PODMAN_SECONDS = 120.0
PULL_SECONDS = 1800.0
REQUEST_SECONDS = 10.0
FRONT_DOOR_SECONDS = 10.0
PATIENCE_SECONDS = 20.0  # with a live service that runs but does not answer
STOP_SECONDS = 30
POLL_SECONDS = 0.3

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
    branch: str
    front_door: str
    state: Path
    ready_seconds: float
    drain_seconds: float


@dataclass(frozen=True)
class Deployment:
    """A release as it runs in one slot."""

    revision: str
    release: dict[str, Any]
    golden: dict[str, Any]
    manifest: str

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
    def image(self) -> str:
        """The image by its digest."""
        return f"{self.repository}@{self.release['image']['digest']}"

    @property
    def digest(self) -> str | None:
        """What the slot is told to answer as its digest; none in a record of an older version."""
        return next(iter(_values(self.manifest, DIGEST)), None)

    @property
    def url(self) -> str:
        """Where the slot answers."""
        return f"http://127.0.0.1:{_only(self.manifest, 'hostPort')}"


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
    name = environment.get("ENVIRONMENT") or "production"
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise PullError(f"ENVIRONMENT: {name!r} names no environment, e.g. production")
    front_door = (environment.get("FRONT_DOOR") or "http://127.0.0.1").rstrip("/")
    if not re.match(r"https?://[^/]", front_door):
        raise PullError(f"FRONT_DOOR: {front_door!r} is no address, e.g. http://127.0.0.1")
    return Settings(
        repository=repository,
        branch=f"env/{name}",
        front_door=front_door,
        state=Path(environment.get("STATE_DIRECTORY") or f"/var/lib/{NAME}"),
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
        # What an older version of this program started still runs, and is healed as it is.
        check_manifest(slot, record.manifest, record.release, told=record.digest is not None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, PullError) as error:
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
    command: Sequence[str], seconds: float, given: str | None = None, errors: bool = False
) -> str:
    """Run a tool and give back what it printed.

    Args:
        command: The tool and its arguments.
        seconds: How long it may take.
        given: Its standard input.
        errors: Whether what it prints as errors belongs to it.

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
        )
    except FileNotFoundError as error:
        raise PullError(f"{command[0]}: not installed") from error
    except subprocess.TimeoutExpired as error:
        raise PullError(f"`{what}`: no answer within {seconds:g} s") from error
    if done.returncode != 0:
        said = ((done.stderr or "").strip() or done.stdout.strip())[-2000:]
        raise PullError(CREDENTIALS.sub("", f"`{what}` failed ({done.returncode}): {said}"))
    return done.stdout


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
        options = ["--quiet", "--depth=1", "--no-tags"]
        run([*git, "fetch", *options, settings.repository, reference], GIT_SECONDS)
        commit = run([*git, "rev-parse", "FETCH_HEAD"], GIT_SECONDS).strip()
        listing = run([*git, "ls-tree", "--name-only", "FETCH_HEAD"], GIT_SECONDS)
        missing = sorted(set(FILES) - set(listing.splitlines()))
        if missing:
            raise PullError(f"{settings.branch} {commit[:8]}: has no {', '.join(missing)}")
        return commit, {
            name: run([*git, "cat-file", "blob", f"FETCH_HEAD:{name}"], GIT_SECONDS)
            for name in FILES
        }
    finally:
        shutil.rmtree(clone, ignore_errors=True)


def verify(commit: str, files: Mapping[str, str]) -> dict[str, Deployment]:
    """Make sure that the files of a commit belong together.

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
        except (ValueError, PullError) as error:
            raise PullError(f"commit {commit[:8]}, {name}: {error}; nothing was changed") from error
    release, golden = parsed["release.json"], parsed["golden.json"]
    for slot in SLOTS:
        try:
            check_manifest(slot, files[f"{slot}.yaml"], release)
        except PullError as error:
            place = f"commit {commit[:8]}, {slot}.yaml"
            raise PullError(f"{place}: {error}; nothing was changed") from error
    slots = {slot: Deployment(commit, release, golden, files[f"{slot}.yaml"]) for slot in SLOTS}
    if slots["blue"].url == slots["green"].url:
        raise PullError(f"commit {commit[:8]}: both slots answer at {slots['blue'].url}")
    return slots


def check_release(release: Any) -> None:
    """Make sure that `release.json` names release, model and image.

    Raises:
        PullError: Naming the key.
    """
    for key, pattern in (
        ("release", r"[\w.:/+-]+"),
        ("model.sha256", "[0-9a-f]{64}"),
        ("image.name", r"[\w.:/-]+"),
        ("image.digest", "sha256:[0-9a-f]{64}"),
    ):
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
    if not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1:
        raise PullError(f"tolerance is {tolerance!r}, not a small number")


def check_manifest(slot: str, manifest: str, release: Mapping[str, Any], told: bool = True) -> None:
    """Make sure that a manifest runs this release, in this slot, and nothing else.

    It reads the lines as kustomize writes them: the standard library has no YAML.

    Args:
        slot: Its slot.
        manifest: What podman is to play.
        release: What `release.json` says.
        told: Whether the container must be told its digest.

    Raises:
        PullError: If a line that is needed is missing, or says something else.
    """
    kinds = _values(manifest, "kind", indent="")
    if kinds.count("Deployment") != 1 or "ConfigMap" not in kinds or not KINDS.issuperset(kinds):
        said = ", ".join(kinds) or "none"
        raise PullError(f"holds the kinds {said}, not a Deployment and its ConfigMap")
    document = next(d for d in manifest.split("\n---") if "Deployment" in _values(d, "kind", ""))
    name = _only(document, "name", indent="  ")
    if not name.endswith(f"-{slot}"):
        raise PullError(f"the Deployment's name is {name}, not ...-{slot}")
    image = release["image"]
    expectations = [
        ("image", f"{image['name']}@{image['digest']}"),
        ("slot", f"{NAME}-{slot}"),
        ("EXPECTED_RELEASE", release["release"]),
        ("EXPECTED_MODEL_SHA256", release["model"]["sha256"]),
        ("hostIP", "127.0.0.1"),
        *([(DIGEST, image["digest"])] if told else []),
    ]
    for key, expected in expectations:
        found = set(_values(manifest, key))
        if found != {expected}:
            said = ", ".join(sorted(found)) or "missing"
            raise PullError(f"{key} is {said}, not {expected}")
    port = _only(manifest, "hostPort")
    if not port.isdecimal():
        raise PullError(f"hostPort is {port}")


def _values(text: str, key: str, indent: str = r"[ -]*") -> list[str]:
    """The values of a key, wherever it is."""
    found = re.findall(rf"^{indent}{key}: *(.*?) *$", text, re.MULTILINE)
    return [value.strip("\"'") for value in found]


def _only(text: str, key: str, indent: str = r"[ -]*") -> str:
    found = _values(text, key, indent)
    if len(found) != 1:
        raise PullError(f"{key}: {len(found)} times, not once")
    return found[0]


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
    run(["podman", "kube", "play", "--replace", "-"], PODMAN_SECONDS, deployment.manifest)


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
        digests = [digest or "no digest" for digest in (told.get("digest"), deployment.digest)]
        return f"it is deployed as {digests[0]}, not as {digests[1]}"
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
        if status != 200 or not same(found, right, golden["tolerance"]):
            said = f"expected {json.dumps(right)}, found {status} {json.dumps(found)}"
            raise RefusedError(f"{url}: wrong prediction for {what}: {said[:1000]}")


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
    if current is None or commit != current.revision:
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
    reason = refusal(settings.state, commit)
    if reason:
        raise PullError(
            f"{settings.branch} {commit[:8]} was refused and is not tried again, unless you delete "
            f"{settings.state / REFUSED}: {reason}"
        )
    commit, files = fetch(settings)
    slots = verify(commit, files)
    candidate = slots[live]
    if current and asdict(candidate) == {**asdict(current), "revision": commit}:
        write_json(settings.state / f"{live}.json", asdict(candidate))
        return candidate, live
    idle = other(live)
    candidate = slots[idle]
    say(f"Rolling out {candidate.name} ({settings.branch} {commit[:8]}) in {idle}")
    try:
        roll_out(idle, candidate, settings)
    except RefusedError as error:
        refuse(settings.state, commit, str(error))
        stays = f"{current.name} stays live" if current else "nothing is live"
        raise RefusedError(f"{candidate.name} is refused, {stays}: {error}") from error
    return candidate, idle


def refusal(state: Path, commit: str) -> str | None:
    """Why a commit was refused before; none if it was not."""
    try:
        refused = json.loads((state / REFUSED).read_text(encoding="utf-8"))
        return str(refused["reason"]) if refused["revision"] == commit else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse(state: Path, commit: str, reason: str) -> None:
    """Remember that a commit was refused; if that cannot be written, it is tried again."""
    try:
        write_json(state / REFUSED, {"revision": commit, "reason": reason})
    except OSError as error:
        warn(f"{state / REFUSED}: cannot be written: {error}")


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
