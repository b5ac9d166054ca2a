"""The host's pull script: git is real, containers are processes, podman is a stand-in."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fake_podman
import pytest
import yaml
from conftest import PROJECT_TEMPLATE
from ports import free_port

SLOTS = ("blue", "green")
SCRIPT = PROJECT_TEMPLATE / "deploy" / "host" / "pull.py"
IMAGE = "ghcr.io/acme/shop"
GOLDEN = {
    "records": [{"a": 1.0, "b": 2.0}, {"a": 4.0}],
    "predictions": [{"prediction": 3.0}, {"prediction": 4.0}],
    "tolerance": 1e-5,
}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("host_pull", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["host_pull"] = module
    spec.loader.exec_module(module)
    return module


pull = load_script()


class FrontDoor(BaseHTTPRequestHandler):
    """Does what nginx.conf says: blue while the file is there, else green."""

    host: Host

    def do_GET(self) -> None:
        slot = "blue" if (self.host.state / "blue-is-live").is_file() else "green"
        if self.host.stuck:
            slot = "green"
        try:
            with DIRECT.open(f"http://127.0.0.1:{self.host.ports[slot]}{self.path}") as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, b""
        except OSError:
            status, content = 502, b""
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        pass


class Host:
    """A machine with its front door, an origin with the environment branch, and a registry."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.origin = folder / "origin.git"
        self.podman = folder / "podman"
        self.podman.mkdir()
        self.ports = {"blue": free_port(), "green": free_port()}
        self.stuck = False
        self.modes: dict[str, str] = {}
        handler = type("Handler", (FrontDoor,), {"host": self})
        self.front_door = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.front_port = self.front_door.server_address[1]
        threading.Thread(target=self.front_door.serve_forever, args=(0.02,), daemon=True).start()
        self._git("init", "--quiet", "--bare", str(self.origin))
        self._set_environment(monkeypatch)

    def _set_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tools = self.folder / "tools"
        tools.mkdir()
        podman = tools / "podman"
        program = f'exec "{sys.executable}" -S -E "{fake_podman.__file__}" "$@"'
        podman.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
        podman.chmod(0o755)
        git = shutil.which("git")
        assert git is not None
        (tools / "git").symlink_to(git)
        for name, value in {
            "PATH": f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "FAKE_PODMAN": str(self.podman),
            "REPOSITORY": str(self.origin),
            "IMAGE": IMAGE,
            "ENVIRONMENT": "production",
            "BLUE_PORT": str(self.ports["blue"]),
            "GREEN_PORT": str(self.ports["green"]),
            "STATE_DIRECTORY": str(self.state),
            "FRONT_DOOR": f"http://127.0.0.1:{self.front_port}/",
            "READY_SECONDS": "30",
            "DRAIN_SECONDS": "0",
            # Whoever asked through this proxy would get no answer.
            "http_proxy": f"http://127.0.0.1:{free_port()}",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.com",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.com",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(fake_podman, "HOME", self.podman)
        monkeypatch.setattr(pull, "FRONT_DOOR_SECONDS", 0.5)
        monkeypatch.setattr(pull, "PATIENCE_SECONDS", 0.5)
        monkeypatch.setattr(pull, "REQUEST_SECONDS", 2.0)
        monkeypatch.setattr(pull, "POLL_SECONDS", 0.02)

    def _git(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            ["git", *arguments], input=given, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        """Commit to the environment branch: its files are these and no others."""
        at = ["-C", str(self.origin)]
        lines = ""
        for name, text in sorted(files.items()):
            mode, kind = self.modes.get(name, "100644"), "blob"
            found = self._git(*at, "hash-object", "-w", "--stdin", given=text)
            if mode == "040000":
                found = self._git(*at, "mktree", given=f"100644 blob {found}\t{name}\n")
                kind = "tree"
            lines += f"{mode} {kind} {found}\t{name}\n"
        tree = self._git(*at, "mktree", given=lines)
        commit = self._git(*at, "commit-tree", tree, "-m", f"Release {time.monotonic_ns()}")
        self._git(*at, "update-ref", "refs/heads/env/production", commit)
        return commit

    def files(self, number: int, build: int | None = None) -> dict[str, str]:
        """What the branch holds for a release."""
        release = self.release(number, build)
        return {
            "release.json": json.dumps(release),
            "golden.json": json.dumps(GOLDEN),
        }

    def release(self, number: int, build: int | None = None) -> dict[str, Any]:
        """A release; another build of it differs in its digest only."""
        return {
            "release": f"shop:{number:08d}-x",
            "model": {"file": "model.onnx", "sha256": f"{number:064x}"},
            "image": {"name": IMAGE, "digest": f"sha256:{build or number:064x}"},
        }

    def publish(self, number: int, build: int | None = None, **behaviour: Any) -> str:
        """Push an image to the registry and its release to the branch."""
        release = self.release(number, build)
        image = f"{IMAGE}@{release['image']['digest']}"
        told = {"release": release["release"], "model": release["model"], **behaviour}
        fake_podman.write("registry.json", {**fake_podman.read("registry.json"), image: told})
        return self.commit(self.files(number, build))

    def fail(self, command: str = "", message: str = "") -> None:
        """Let every podman command that starts so fail; none any more without arguments."""
        fake_podman.write("fail.json", {command: message} if command else {})

    def kill_at(self, **when: str) -> None:
        """Let podman kill the script `before` or `after` a command."""
        fake_podman.write("kill.json", when)

    def calls(self) -> list[str]:
        """What podman was asked for since the last time."""
        path = self.podman / "calls"
        found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def played(self) -> str:
        """What podman was last given to play."""
        return (self.podman / "played.yaml").read_text(encoding="utf-8")

    def slots(self) -> dict[str, str]:
        """The image that runs in each slot."""
        return {
            pod["label"].rpartition("-")[2]: pod["image"].rpartition("@")[2][-1]
            for pod in fake_podman.read("pods.json").values()
            if fake_podman.alive(pod)
        }

    def told(self) -> dict[str, Any]:
        """What the front door says of the release."""
        with DIRECT.open(f"http://127.0.0.1:{self.front_port}/release") as response:
            return dict(json.load(response))

    def answer(self) -> str | None:
        """The number of the release that answers at the front door."""
        try:
            return str(int(self.told()["release"][5:13]))
        except OSError:
            return None

    def pod_of(self, slot: str) -> dict[str, Any]:
        """What is known of a slot's container."""
        label = f"slot={pull.NAME}-{slot}"
        pods: list[dict[str, Any]] = [*fake_podman.read("pods.json").values()]
        return next(pod for pod in pods if pod["label"] == label)

    def process_of(self, slot: str) -> int:
        """The process that stands for a slot's container."""
        return int(self.pod_of(slot)["process"])

    def script(self) -> subprocess.Popen[str]:
        """Run the script as a process of its own."""
        return subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def close(self) -> None:
        fake_podman.remove(list(fake_podman.read("pods.json")))
        self.front_door.shutdown()
        self.front_door.server_close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    machine = Host(tmp_path, monkeypatch)
    yield machine
    machine.close()


def test_a_first_release_goes_live(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    commit = host.publish(1)

    assert pull.main() == 0

    assert host.answer() == "1"
    assert host.slots() == {"blue": "1"}
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"shop:00000001-x is live in blue (env/production {commit[:8]})"


def test_what_the_services_own_code_adds_is_not_compared(host: Host) -> None:
    host.publish(1, added={"route": "LGA-PBI"})

    assert pull.main() == 0

    assert host.slots() == {"blue": "1"}


def test_releases_take_turns_in_the_slots(host: Host) -> None:
    for number, slot in ((1, "blue"), (2, "green"), (3, "blue")):
        host.publish(number)
        assert pull.main() == 0
        assert host.answer() == str(number)
        assert host.slots() == {slot: str(number)}

    kept = {name[-1] for name in fake_podman.read("local.json")}
    assert kept == {"2", "3"}, "the live image and the one to go back to"


def test_images_of_others_are_left_alone(host: Host) -> None:
    other = f"{IMAGE}-other@sha256:{9:064x}"
    fake_podman.write("local.json", {other: True})

    for number in (1, 2, 3):
        host.publish(number)
        assert pull.main() == 0

    assert other in fake_podman.read("local.json")


def test_an_old_image_that_is_in_use_does_not_matter(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        host.publish(number)
        host.fail("image rm", "image is in use by a container")
        assert pull.main() == 0

    assert "an old image stays" in capsys.readouterr().err
    assert host.answer() == "3"


def test_the_next_release_is_started_beside_the_live_one(host: Host) -> None:
    host.publish(1)
    pull.main()
    host.calls()
    host.publish(2)

    assert pull.main() == 0

    calls = host.calls()
    started = calls.index("kube play --replace -")
    before, after = calls[:started], calls[started:]
    assert not [call for call in before if call.startswith("pod rm")]
    assert len([call for call in after if call.startswith("pod rm")]) == 1


def test_the_old_slot_drains_before_it_is_removed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish(1)
    pull.main()
    host.publish(2)
    seen: list[tuple[float, str | None, dict[str, str]]] = []
    monkeypatch.setenv("DRAIN_SECONDS", "7.5")
    monkeypatch.setattr(
        pull.time, "sleep", lambda seconds: seen.append((seconds, host.answer(), host.slots()))
    )

    assert pull.main() == 0

    assert (7.5, "2", {"blue": "1", "green": "2"}) in seen
    assert host.slots() == {"green": "2"}


def test_a_run_without_news_changes_nothing(host: Host) -> None:
    host.publish(1)
    pull.main()
    process = host.process_of("blue")
    host.calls()

    assert pull.main() == 0

    assert host.process_of("blue") == process
    assert not {"kube play --replace -", "pull"} & {call[:21] for call in host.calls()}


def test_a_branch_that_does_not_exist_yet_is_no_error(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull.main() == 0
    assert "env/production does not exist yet" in capsys.readouterr().out


def test_a_branch_that_is_gone_is_an_error(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.publish(1)
    pull.main()
    subprocess.run(
        ["git", "-C", str(host.origin), "update-ref", "-d", "refs/heads/env/production"], check=True
    )

    assert pull.main() == 1

    assert "env/production: gone; shop:00000001-x runs on" in capsys.readouterr().err
    assert host.answer() == "1"


def test_a_branch_of_a_longer_name_is_not_meant(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = host.publish(1)
    for reference in ("refs/heads/a/refs/heads/env/production", "refs/heads/env/production-2"):
        subprocess.run(["git", "-C", str(host.origin), "update-ref", reference, commit], check=True)
    host.publish(2)

    assert pull.main() == 0

    assert host.answer() == "2"
    monkeypatch.setattr(pull, "fetch", lambda _: pytest.fail("there is nothing new to fetch"))
    assert pull.main() == 0


def test_a_revert_to_what_is_live_starts_nothing(host: Host) -> None:
    host.publish(1)
    pull.main()
    process = host.process_of("blue")
    host.publish(2, offset=1)
    assert pull.main() == 1
    commit = host.commit(host.files(1))
    host.calls()

    assert pull.main() == 0

    assert host.process_of("blue") == process
    assert "kube play --replace -" not in host.calls()
    assert json.loads((host.state / "blue.json").read_text())["revision"] == commit


def test_another_build_of_the_same_release_is_another_deployment(host: Host) -> None:
    host.publish(1)
    pull.main()
    host.publish(1, build=5)

    assert pull.main() == 0

    assert host.slots() == {"green": "5"}
    assert host.told()["digest"] == f"sha256:{5:064x}"
    host.publish(1)
    assert pull.main() == 0
    assert host.slots() == {"blue": "1"}
    assert host.told()["digest"] == f"sha256:{1:064x}"


def test_what_an_older_version_started_is_replaced(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """It kept what the branch had said, which nobody had held against anything."""
    host.publish(1)
    pull.main()
    record = json.loads((host.state / "blue.json").read_text(encoding="utf-8"))
    record["manifest"] = record.pop("pod").replace("allowPriv", "privileged: true\n      allowPriv")
    del record["port"]
    (host.state / "blue.json").write_text(json.dumps(record), encoding="utf-8")

    assert pull.main() == 0

    assert "what runs in this slot is unknown" in capsys.readouterr().err
    assert host.slots() == {"green": "1"}
    assert "privileged" not in host.played()


def test_a_changed_pod_is_rolled_out_as_a_release_is(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.publish(1)
    pull.main()
    larger = tmp_path / "pod.yaml"
    larger.write_text(pull.POD.read_text().replace("memory: 1Gi", "memory: 2Gi"))
    monkeypatch.setattr(pull, "POD", larger)

    assert pull.main() == 0

    assert host.slots() == {"green": "1"}
    assert "memory: 2Gi" in host.played()
    process = host.process_of("green")
    assert pull.main() == 0
    assert host.process_of("green") == process


def replaced(name: str, old: str, new: str) -> Callable[[dict[str, str]], None]:
    def change(files: dict[str, str]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new)

    return change


def without(name: str) -> Callable[[dict[str, str]], None]:
    return lambda files: files.pop(name) and None


CORRUPT = {
    "release is no JSON": (replaced("release.json", "{", "["), "release.json: Expecting"),
    "release has no name": (replaced("release.json", '"release"', '"r"'), "release is None"),
    "model has no hash": (replaced("release.json", f"{2:064x}", "2"), "model.sha256 is '2'"),
    "image by tag": (replaced("release.json", "sha256:", "v"), "image.digest is 'v"),
    "release is a list": (lambda files: files.update({"release.json": "[]"}), "release is None"),
    "golden is a list": (lambda files: files.update({"golden.json": "[]"}), "must be lists"),
    "nothing golden": (
        lambda files: files.update({"golden.json": '{"records": [], "predictions": []}'}),
        "0 records and 0 predictions",
    ),
    "golden is incomplete": (
        replaced("golden.json", ', {"prediction": 4.0}', ""),
        "2 records and 1 predictions",
    ),
    "no tolerance": (replaced("golden.json", "1e-05", '"1e-05"'), "tolerance is '1e-05'"),
    "tolerance of much": (replaced("golden.json", "1e-05", "0.001"), "must be at most 0.0001"),
    "tolerance of everything": (replaced("golden.json", "1e-05", "1e5"), "tolerance is 100000"),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_a_corrupt_commit_is_refused_with_the_reason(host: Host, case: str) -> None:
    change, message = CORRUPT[case]
    files = host.files(2)
    settings = pull.read_settings(os.environ)
    assert set(pull.verify(settings, "0123456789ab", files)) == {"blue", "green"}
    change(files)

    with pytest.raises(pull.PullError) as raised:
        pull.verify(settings, "0123456789ab", files)

    assert message in str(raised.value)
    assert "commit 01234567" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("release.json"), "has no release.json"),
        (without("golden.json"), "has no golden.json"),
        (replaced("golden.json", "{", "["), "golden.json: Expecting"),
    ],
)
def test_a_corrupt_commit_starts_nothing(
    host: Host,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, str]], None],
    message: str,
) -> None:
    host.publish(1)
    pull.main()
    host.publish(2)
    files = host.files(2)
    change(files)
    commit = host.commit(files)
    host.calls()
    capsys.readouterr()

    assert pull.main() == 1

    said = capsys.readouterr().err
    assert message in said
    assert commit[:8] in said
    assert "kube play --replace -" not in host.calls()
    assert host.answer() == "1"
    host.publish(3)
    assert pull.main() == 0
    assert host.answer() == "3"


# What somebody who may write to the branch, and to nothing else, would like the machine to run.
PRIVILEGED = """apiVersion: v1
kind: Pod
metadata: {name: shop-green, labels: {slot: x}}
spec:
  hostNetwork: true
  hostPID: true
  containers:
  - {name: service, image: evil/miner, securityContext: {privileged: true}}
  volumes: [{name: all, hostPath: {path: /}}]
"""


def said(key: str, value: Any) -> Callable[[dict[str, str]], None]:
    """Change one value of `release.json`."""

    def change(files: dict[str, str]) -> None:
        release = json.loads(files["release.json"])
        *path, last = key.split(".")
        part = release
        for name in path:
            part = part[name]
        part[last] = value
        files["release.json"] = json.dumps(release)

    return change


def and_so_on(text: str) -> str:
    """A name that goes on in YAML of its own."""
    return f'shop:00000002-x"\n      securityContext:\n        privileged: true\n      x: "{text}'


ATTACKS: dict[str, tuple[Callable[[dict[str, str]], None], str]] = {
    "an image of another repository": (
        said("image.name", "ghcr.io/evil/miner"),
        f"image.name is ghcr.io/evil/miner, and only IMAGE, {IMAGE}, may run here",
    ),
    "an image below the own one": (said("image.name", f"{IMAGE}/miner"), "may run here"),
    "another registry": (said("image.name", "evil.example/acme/shop"), "may run here"),
    "an image with a digest in its name": (
        said("image.name", f"{IMAGE}@sha256:{'0' * 64}"),
        "image.name is",
    ),
    "a tag": (said("image.digest", "latest"), "image.digest is 'latest'"),
    "a tag and a digest": (said("image.digest", f"v1@sha256:{'0' * 64}"), "image.digest is"),
    "no digest": (said("image.digest", ""), "image.digest is ''"),
    "a digest of another kind": (said("image.digest", f"sha512:{'0' * 64}"), "image.digest is"),
    "YAML in the name": (said("release", and_so_on("y")), "release is"),
    "a line in the name": (said("release", "shop:00000002-x\nhostPID: true"), "release is"),
    "a line after the name": (said("release", "shop:00000002-x\n"), "release is"),
    "an anchor in the name": (said("release", "&a shop:x"), "release is"),
    "a document in the name": (said("release", "shop:x\n---\nkind: Pod"), "release is"),
    "a place in the name": (said("release", "shop:${image}"), "release is"),
    "letters that only look so": (said("release", "sh\u043ep:00000002-x"), "release is"),
    "YAML in the model": (said("model.sha256", f"{2:064x}\nx: y"), "model.sha256 is"),
    "a list for a name": (said("release", ["shop:x"]), "release is"),
    "brackets without end": (
        lambda files: files.update({"release.json": "[" * 100_000}),
        "release.json: ",
    ),
    "a huge release": (
        lambda files: files.update({"release.json": files["release.json"] + " " * 1_000_000}),
        "more than 1000000",
    ),
    "huge golden predictions": (
        lambda files: files.update({"golden.json": files["golden.json"] + " " * 16_000_000}),
        "more than 16000000",
    ),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_an_attack_through_the_branch_starts_nothing(
    host: Host, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, message = ATTACKS[case]
    host.publish(1)
    pull.main()
    host.publish(2)
    files = host.files(2)
    change(files)
    host.commit(files)
    host.calls()
    capsys.readouterr()

    assert pull.main() == 1

    assert message in capsys.readouterr().err
    assert not [call for call in host.calls() if call.startswith(("kube play", "pull"))]
    assert host.answer() == "1"


def test_what_was_refused_in_another_pod_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.publish(1)
    pull.main()
    host.publish(2, offset=1)
    assert pull.main() == 1
    host.calls()
    assert pull.main() == 1
    assert "kube play --replace -" not in host.calls()
    other = tmp_path / "pod.yaml"
    other.write_text(pull.POD.read_text() + "# another\n")
    monkeypatch.setattr(pull, "POD", other)

    assert pull.main() == 1

    assert "kube play --replace -" in host.calls()


@pytest.mark.parametrize(
    "name", ["blue.yaml", "green.yaml", "pod.yaml", "manifests.yaml", "pull.py", "release.yaml"]
)
def test_what_else_the_branch_holds_is_not_looked_at(host: Host, name: str) -> None:
    host.publish(1)
    own = host.files(1)
    host.commit({**own, name: PRIVILEGED})

    assert pull.main() == 0

    assert host.answer() == "1"
    settings = pull.read_settings(os.environ)
    assert host.played() == pull.render(settings, "blue", json.loads(own["release.json"]))


@pytest.mark.parametrize(
    "more",
    [
        {"pod": PRIVILEGED},
        {"env": {"AWS_SECRET_ACCESS_KEY": "x"}, "command": ["sh"], "args": ["-c", "id"]},
        {"spec": {"hostNetwork": True, "initContainers": [{"image": "evil/miner"}]}},
    ],
)
def test_what_else_the_release_says_is_not_played(host: Host, more: dict[str, Any]) -> None:
    host.publish(1)
    files = host.files(1)
    release = json.loads(files["release.json"])
    release |= more
    release["image"] |= more
    host.commit({**files, "release.json": json.dumps(release)})

    assert pull.main() == 0

    settings = pull.read_settings(os.environ)
    assert host.played() == pull.render(settings, "blue", json.loads(files["release.json"]))


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("120000", "release.json is no plain file, its mode is 120000"),
        ("100755", "its mode is 100755"),
        ("040000", "its mode is 040000"),
    ],
)
def test_a_file_of_the_branch_must_be_a_plain_one(
    host: Host, capsys: pytest.CaptureFixture[str], mode: str, message: str
) -> None:
    host.publish(1)
    files = host.files(1)
    host.modes["release.json"] = mode
    host.commit({**files, **({"release.json": "/etc/shadow"} if mode == "120000" else {})})

    assert pull.main() == 1

    assert message in capsys.readouterr().err
    assert host.slots() == {}


def test_a_huge_branch_fills_no_disk(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "FETCHED_BYTES", 300_000)
    host.publish(1)
    host.commit({**host.files(1), "huge": "".join(f"{n * n}\n" for n in range(200_000))})

    assert pull.main() == 1

    assert "`git -C" in capsys.readouterr().err
    assert not (host.state / "fetch").exists()
    assert host.slots() == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("${port}", "3001", "nowhere says ${port}"),
        ('"${image}"', "evil/miner", "nowhere says ${image}"),
        ("memory: 1Gi", "memory: $1", "a `$` in it stands for nothing"),
        ("memory: 1Gi", "memory: ${memory}", "a `$` in it stands for nothing: 'memory'"),
    ],
)
def test_a_pod_that_cannot_be_filled_in_starts_nothing(
    host: Host,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    old: str,
    new: str,
    message: str,
) -> None:
    text = pull.POD.read_text()
    assert old in text
    monkeypatch.setattr(pull, "POD", tmp_path / "pod.yaml")
    (tmp_path / "pod.yaml").write_text(text.replace(old, new))
    host.publish(1)

    assert pull.main() == 1

    assert message in capsys.readouterr().err
    assert host.slots() == {}


def gh(host: Host, script: str) -> Path:
    """Install a `gh`; the file that its arguments go to."""
    program, told = host.folder / "tools" / "gh", host.folder / "told"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> {told}\n{script}\n")
    program.chmod(0o755)
    return told


def test_only_what_the_delivery_signed_is_started(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGNED_BY", "acme/shop")
    host.publish(1)
    assert pull.main() == 1
    assert "gh: not installed; it takes gh 2.70 or later" in capsys.readouterr().err
    gh(host, 'echo \'unknown command "attestation" for "gh"\' >&2; exit 1')
    assert pull.main() == 1
    assert 'unknown command "attestation"' in capsys.readouterr().err
    told = gh(host, "echo 'no attestations found' >&2; exit 1")
    assert pull.main() == 1
    said = capsys.readouterr().err
    assert "shop:00000001-x: " in said
    assert "is not known to be built by acme/shop/.github/workflows/deliver.yml" in said
    assert "no attestations found" in said
    assert not [call for call in host.calls() if call.startswith(("kube play", "pull"))]
    told.unlink()

    gh(host, "exit 0")
    assert pull.main() == 0

    assert host.answer() == "1"
    assert told.read_text().splitlines() == [
        "attestation", "verify", f"oci://{IMAGE}@sha256:{1:064x}",
        "--repo", "acme/shop",
        "--signer-workflow", "acme/shop/.github/workflows/deliver.yml",
        "--source-ref", "refs/heads/main",
    ]  # fmt: skip
    # What runs is healed without it.
    gh(host, "exit 1")
    fake_podman.kill(host.pod_of("blue"))
    assert pull.main() == 0
    assert host.answer() == "1"


def test_an_unsigned_release_leaves_the_live_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish(1)
    pull.main()
    monkeypatch.setenv("SIGNED_BY", "acme/shop")
    gh(host, "exit 1")
    host.publish(2)

    assert pull.main() == 1

    assert host.answer() == "1"
    gh(host, "exit 0")
    assert pull.main() == 0
    assert host.answer() == "2"


def test_the_pod_is_confined(host: Host) -> None:
    """As podman is told; `tests/stories/test_host.py` asks podman."""
    settings = pull.read_settings(os.environ)
    pods = {slot: yaml.safe_load(pull.render(settings, slot, host.release(1))) for slot in SLOTS}

    for slot, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        (port,) = container["ports"]
        own = pod["spec"]["securityContext"] | container["securityContext"]
        assert (own["runAsNonRoot"], own["runAsUser"], own["runAsGroup"]) == (True, 1034, 1034)
        assert own["readOnlyRootFilesystem"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert port == {"containerPort": 3000, "hostIP": "127.0.0.1", "hostPort": host.ports[slot]}
        assert [list(volume) for volume in pod["spec"]["volumes"]] == [["name", "emptyDir"]]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()
        assert container["resources"]["limits"].keys() == {"memory"}
    names = [[pod["metadata"]["name"], *pod["metadata"]["labels"].values(),
              pod["spec"]["volumes"][0]["name"]] for pod in pods.values()]  # fmt: skip
    assert all(blue != green for blue, green in zip(*names, strict=True))


BROKEN = {
    "does not start": ({"crash": True}, ["not ready after 1.5 s: no answer", "cannot be read"]),
    "another release": ({"release": "shop:x"}, ["should be shop:00000002-x", "it is shop:x"]),
    "another model": ({"model": {"sha256": "ff"}}, ["with the model ff"]),
    "a strange model": ({"model": "ff"}, ["with the model None"]),
    "another digest": ({"digest": "sha256:ff"}, ["deployed as sha256:ff, not as sha256:0"]),
    "no digest": ({"digest": None}, ["deployed as no digest, not as sha256:0"]),
    "wrong predictions": (
        {"offset": 1e-3},
        ['golden record 0: expected {"prediction": 3.0}, found 200 {"prediction": 3.001}'],
    ),
    "wrong in batches": ({"batch_offset": 1}, ["all golden records at once"]),
    "fails": ({"status": 500}, ["golden record 0", 'found 500 {"error": "no"}']),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_release_is_refused(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    behaviour, messages = BROKEN[case]
    host.publish(1)
    pull.main()
    commit = host.publish(2, **behaviour)
    if "crash" in behaviour:
        monkeypatch.setenv("READY_SECONDS", "1.5")
    capsys.readouterr()

    assert pull.main() == 1

    said = capsys.readouterr().err
    assert said.startswith("shop:00000002-x is refused, shop:00000001-x stays live: ")
    assert "it logged:\nthe service starts" in said
    for message in messages:
        assert message in said
    assert host.answer() == "1"
    assert host.slots() == {"blue": "1"}

    host.calls()
    assert pull.main() == 1, "it is not what the branch names"
    assert f"{commit[:8]} was refused and is not tried again, unless" in capsys.readouterr().err
    assert "kube play --replace -" not in host.calls()

    (host.state / "refused.json").unlink()
    assert pull.main() == 1
    assert "kube play --replace -" in host.calls()

    monkeypatch.setenv("READY_SECONDS", "30")
    host.publish(3)
    assert pull.main() == 0
    assert host.answer() == "3"


def test_a_slow_release_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.publish(1)
    ready = time.monotonic() + 0.7
    ask = pull.ask

    def slow(url: str, body: Any = None) -> tuple[int, Any]:
        starting = url.endswith("/readyz") and time.monotonic() < ready
        return (503, None) if starting else ask(url, body)

    monkeypatch.setattr(pull, "ask", slow)
    assert pull.main() == 0
    assert host.answer() == "1"


FAULTS = {
    "registry down": ("pull", "dial tcp 127.0.0.1:5000: connection refused"),
    "disk full": ("pull", "write /var/lib/containers: no space left on device"),
    "podman cannot start it": ("kube play", "cannot set up the network"),
    "podman is broken": ("pod ps", "database is locked"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_machine_is_tried_again(
    host: Host, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    host.publish(1)
    pull.main()
    host.publish(2)
    command, message = FAULTS[case]
    host.fail(command, message)
    capsys.readouterr()

    assert pull.main() == 1

    said = capsys.readouterr().err
    assert message in said
    assert f"`podman {command}" in said
    assert host.answer() == "1"
    host.fail()
    assert pull.main() == 0
    assert host.answer() == "2"
    assert host.slots() == {"green": "2"}


@pytest.mark.parametrize("tool", ["git", "podman"])
def test_a_missing_tool_is_named(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    host.publish(1)
    tools = host.folder / "tools"
    (tools / tool).unlink()
    monkeypatch.setenv("PATH", str(tools))

    assert pull.main() == 1

    assert capsys.readouterr().err.endswith(f"{tool}: not installed\n")


def test_a_tool_that_hangs_is_given_up(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish(1)
    pull.main()
    git = host.folder / "tools" / "git"
    git.unlink()
    git.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    git.chmod(0o755)
    monkeypatch.setattr(pull, "GIT_SECONDS", 0.2)
    monkeypatch.setenv("REPOSITORY", "https://robot:secret@example.com/acme/shop.git")

    assert pull.main() == 1

    said = capsys.readouterr().err
    assert "`git ls-remote https://example.com/acme/shop.git`: no answer within 0.2 s" in said
    assert host.answer() == "1"


def test_git_asks_for_no_password(host: Host) -> None:
    git = host.folder / "tools" / "git"
    git.unlink()
    git.write_text('#!/bin/sh\necho "$GIT_TERMINAL_PROMPT $GIT_SSH_COMMAND" >&2; exit 1\n')
    git.chmod(0o755)

    with pytest.raises(pull.PullError, match="0 ssh -oBatchMode=yes"):
        pull.run(["git", "ls-remote"], 10)


def test_a_dead_service_is_healed_while_git_is_unreachable(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish(1)
    pull.main()
    fake_podman.kill(host.pod_of("blue"))
    assert host.answer() is None
    fake_podman.write("registry.json", {**fake_podman.read("registry.json")})
    monkeypatch.setenv("REPOSITORY", "https://robot:secret@127.0.0.1:1/acme/shop.git")
    capsys.readouterr()

    assert pull.main() == 1

    said = capsys.readouterr()
    assert host.answer() == "1"
    assert "shop:00000001-x in blue is started again" in said.err
    assert "shop:00000001-x answers again in blue" in said.out
    assert "`git ls-remote https://127.0.0.1:1/acme/shop.git` failed" in said.err
    assert "secret" not in said.err


def test_a_service_that_hangs_is_healed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.publish(1)
    pull.main()
    process = host.process_of("blue")
    os.kill(process, signal.SIGSTOP)
    # Long enough for the one that takes its place, on a busy machine too.
    monkeypatch.setattr(pull, "REQUEST_SECONDS", 1.0)

    assert pull.main() == 0

    assert host.process_of("blue") != process
    assert host.answer() == "1"


def test_a_service_that_is_busy_for_a_moment_is_left_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "PATIENCE_SECONDS", 5.0)
    host.publish(1)
    pull.main()
    process = host.process_of("blue")
    os.kill(process, signal.SIGSTOP)
    timer = threading.Timer(0.5, os.kill, (process, signal.SIGCONT))
    timer.start()
    monkeypatch.setattr(pull, "REQUEST_SECONDS", 0.2)

    assert pull.main() == 0

    timer.join()
    assert host.process_of("blue") == process


def test_what_is_past_healing_is_replaced_by_the_next_release(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.publish(1)
    pull.main()
    fake_podman.kill(host.pod_of("blue"))
    fake_podman.write("local.json", {})
    fake_podman.write("registry.json", {})

    assert pull.main() == 1
    assert "manifest unknown" in capsys.readouterr().err

    host.publish(2)
    assert pull.main() == 0
    assert host.answer() == "2"


def test_nothing_is_started_while_nginx_does_not_answer(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONT_DOOR", f"http://127.0.0.1:{free_port()}")
    host.publish(1)

    assert pull.main() == 1

    assert "nginx does not answer" in capsys.readouterr().err
    assert "kube play --replace -" not in host.calls()


def test_a_front_door_that_does_not_follow_gets_the_old_release_back(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.publish(1)
    pull.main()
    host.publish(2)
    pull.main()
    host.stuck = True
    host.publish(3)
    capsys.readouterr()

    assert pull.main() == 1

    assert "should be shop:00000003-x by now: it is shop:00000002-x" in capsys.readouterr().err
    assert pull.live_slot(host.state) == "green"
    assert host.slots() == {"green": "2"}
    host.stuck = False
    assert pull.main() == 0, "it is not the release's fault: it is tried again"
    assert host.answer() == "3"


def test_a_front_door_that_keeps_to_another_build_does_not_follow(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        host.publish(number)
        pull.main()
    host.stuck = True
    host.publish(2, build=5)
    capsys.readouterr()

    assert pull.main() == 1

    said = capsys.readouterr().err
    assert f"it is deployed as sha256:{2:064x}, not as sha256:{5:064x}" in said
    assert host.slots() == {"green": "2"}


def test_a_front_door_that_has_gone_is_reported(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish(1)
    pull.main()
    monkeypatch.setenv("FRONT_DOOR", f"http://127.0.0.1:{free_port()}")

    assert pull.main() == 1

    assert "should be shop:00000001-x by now: no answer" in capsys.readouterr().err


def test_traffic_moves_by_a_rename(tmp_path: Path) -> None:
    inodes = set()
    assert pull.live_slot(tmp_path) == "green", "nothing is live: blue is the idle slot"
    for slot in ("blue", "blue", "green", "green", "blue"):
        pull.switch(tmp_path, slot)
        assert pull.live_slot(tmp_path) == slot
        (flag,) = tmp_path.iterdir()
        inodes.add(flag.stat().st_ino)
    assert len(inodes) == 1


def test_a_record_that_cannot_be_written_moves_no_traffic(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish(1)
    pull.main()
    host.publish(2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pull.os, "fsync", full)
        assert pull.main() == 1

    assert "No space left on device" in capsys.readouterr().err
    assert host.slots() == {"blue": "1"}
    assert host.answer() == "1"
    assert not list(host.state.glob("*.new"))
    assert pull.main() == 0
    assert host.answer() == "2"


def test_a_record_that_cannot_be_read_costs_no_downtime(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.publish(1)
    pull.main()
    (host.state / "blue.json").write_text('{"revision": "x"', encoding="utf-8")
    host.calls()

    assert pull.main() == 0

    assert "blue.json: what runs in this slot is unknown" in capsys.readouterr().err
    assert host.slots() == {"green": "1"}
    assert host.answer() == "1"


def test_only_one_run_at_a_time(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.publish(1)
    host.state.mkdir()
    with (host.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert pull.main() == 0
    assert "another run is under way" in capsys.readouterr().out
    assert host.calls() == []

    assert pull.main() == 0
    assert host.answer() == "1"


def test_the_machine_s_proxy_is_not_asked(host: Host) -> None:
    host.publish(1)
    script = host.script()

    said, _ = script.communicate()

    assert script.returncode == 0, said
    assert host.answer() == "1"


def test_containers_do_not_hold_the_lock(host: Host) -> None:
    host.publish(1)
    first = host.script()
    first.communicate()
    assert host.slots() == {"blue": "1"}

    with (host.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    "when",
    [
        {"before": "image exists"},
        {"before": "pull"},
        {"after": "pull"},
        {"before": "kube play"},
        {"after": "kube play"},
        {"before": "pod rm"},
        {"after": "pod rm"},
        {"before": "image ls"},
    ],
    ids=lambda when: "-".join(*when.items()).replace(" ", "-"),
)
def test_a_killed_run_is_repaired_by_the_next(host: Host, when: dict[str, str]) -> None:
    host.publish(1)
    pull.main()
    host.publish(2)
    host.kill_at(**when)

    killed = host.script()
    killed.communicate()

    assert killed.returncode == -signal.SIGKILL
    assert host.answer() in ("1", "2")
    host.kill_at()
    assert pull.main() == 0
    assert host.answer() == "2"
    assert host.slots() == {"green": "2"}
    assert not (host.state / "fetch").exists()


def test_a_run_killed_while_it_fetches_is_repaired_by_the_next(host: Host) -> None:
    host.publish(1)
    clone = host.state / "fetch"
    for name in ("HEAD", "shallow.lock", "objects/pack/tmp_pack_1"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("half", encoding="utf-8")

    assert pull.main() == 0

    assert host.answer() == "1"
    assert not clone.exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_removes_what_it_was_starting(
    host: Host, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    host.publish(1)
    pull.main()
    monkeypatch.setenv("READY_SECONDS", "60")
    host.publish(2, crash=True)
    host.calls()
    stopped = host.script()
    while "kube play --replace -" not in host.calls():
        time.sleep(0.02)
    time.sleep(0.2)

    stopped.send_signal(sent)
    said, _ = stopped.communicate()

    assert stopped.returncode == 128 + sent
    assert "Traceback" not in said
    assert list(fake_podman.read("pods.json")) == [f"{host.process_of('blue'):012x}"]
    assert host.answer() == "1"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("REPOSITORY", "", "REPOSITORY: must be"),
        ("REPOSITORY", "--upload-pack=evil", "REPOSITORY: must be"),
        ("IMAGE", "", "IMAGE: '' names no image; set it"),
        ("IMAGE", f"{IMAGE}@sha256:{'0' * 64}", "names no image"),
        ("SIGNED_BY", "acme", "SIGNED_BY: 'acme' names no repository"),
        ("SIGNED_BY", "--repo/x", "SIGNED_BY: '--repo/x'"),
        ("SIGNED_REF", "main", "SIGNED_REF: 'main' names no branch"),
        ("BLUE_PORT", "0", "BLUE_PORT: '0' is no port"),
        ("GREEN_PORT", "http", "GREEN_PORT: 'http' is no port"),
        ("ENVIRONMENT", "../main", "ENVIRONMENT: '../main'"),
        ("FRONT_DOOR", "localhost", "FRONT_DOOR: 'localhost'"),
        ("READY_SECONDS", "soon", "READY_SECONDS: 'soon'"),
        ("DRAIN_SECONDS", "-1", "DRAIN_SECONDS: '-1'"),
        ("DRAIN_SECONDS", "inf", "DRAIN_SECONDS: 'inf'"),
    ],
)
def test_a_bad_setting_is_named(
    host: Host,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert pull.main() == 1
    assert message in capsys.readouterr().err
    assert not host.state.exists()


def test_the_slots_need_two_ports(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREEN_PORT", os.environ["BLUE_PORT"])
    with pytest.raises(pull.PullError, match="both are"):
        pull.read_settings(os.environ)


def test_settings_have_defaults() -> None:
    own = {"REPOSITORY": "git@github.com:acme/shop.git", "IMAGE": IMAGE}
    assert pull.read_settings(own) == pull.Settings(
        repository="git@github.com:acme/shop.git",
        image=IMAGE,
        signed_by="",
        signed_ref="refs/heads/main",
        branch="env/production",
        front_door="http://127.0.0.1",
        state=Path("/var/lib") / pull.NAME,
        ports={"blue": 3001, "green": 3002},
        pod=pull.POD.read_text(),
        ready_seconds=120,
        drain_seconds=15,
    )


@pytest.mark.parametrize(
    ("found", "expected", "equal"),
    [
        (1.0, 1.000001, True),
        (1.0, 1.0001, False),
        (1e6, 1e6 + 1, True),
        (1, 1.0, True),
        (True, 1, False),
        (1, True, False),
        ("1", 1, False),
        (None, None, True),
        (None, 0, False),
        ("late", "late", True),
        ("late", "on time", False),
        ({"a": 1.0}, {"a": 1.0}, True),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0}, False),
        ({"a": 1.0}, {"a": 2.0}, False),
        ([1.0], {"a": 1.0}, False),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0], [1.0, 2.0], False),
        ([1.0, 3.0], [1.0, 2.0], False),
        (1.0, [1.0], False),
        (float("nan"), 1.0, False),
    ],
)
def test_answers_are_compared_within_the_tolerance(found: Any, expected: Any, equal: bool) -> None:
    assert pull.same(found, expected, 1e-5) is equal


def test_what_does_not_speak_http_is_no_answer() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(OSError, match="not HTTP"):
            pull.ask(f"http://127.0.0.1:{server.getsockname()[1]}/readyz")
        thread.join()
