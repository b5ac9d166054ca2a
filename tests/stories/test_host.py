"""The host target, for real: podman, a registry, nginx and git, and a service of a few lines.

Requests are sent all the time, over connections that are kept and over new ones, and every one of
them must be answered, whatever is rolled out or goes wrong meanwhile.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import pytest
from conftest import SLUG, Run, generate
from machine import SLOTS, Machine, eventually
from podman import Podman, Registry

pytestmark = pytest.mark.slow

SERVICE = Path(machine.__file__).with_name("standin_service.py")
PLACEHOLDERS = {
    "release": f"{SLUG}:placeholder",
    "source": {"commit": "c" * 40, "dirty": False},
    "model": {"file": "model.onnx", "sha256": "0123456789abcdef" * 4},
    "image": {"name": "placeholder.example/image", "digest": "sha256:" + "b" * 64},
}


# Images


def root_file_system(target: Path) -> None:
    """The Python that runs this test with the libraries that it needs, and no more."""
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    dynamic = library / "lib-dynload"
    programs = [python, *dynamic.glob("*.so")] if dynamic.is_dir() else [python]
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True).stdout
    libraries = {Path(name) for name in re.findall(r"(/\S+) \(0x", said)}

    def public(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        skipped = {"site-packages", "dist-packages", "test", "__pycache__", "idlelib", "ensurepip"}
        if skipped & set(Path(entry.name).parts):
            return None
        entry.mode = 0o755
        return entry

    with tarfile.open(target, "w") as archive:
        for folder in ("tmp", "proc", "sys", "dev", "etc", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        archive.add(library, str(library), filter=public)
        archive.add(python, "usr/local/bin/python3", filter=public)
        for path in sorted(libraries):
            archive.add(path.resolve(), str(path), filter=public)
        archive.add(SERVICE, "service.py", filter=public)


@dataclass(frozen=True)
class Release:
    """A release of the service of a few lines."""

    number: int
    golden: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As the service tells it."""
        return str(self.content["release"])

    @property
    def digest(self) -> str:
        """Of its image."""
        return str(self.content["image"]["digest"])


class Factory:
    """Makes releases and pushes their images."""

    def __init__(self, podman: Podman, registry: Registry, folder: Path) -> None:
        self.podman = podman
        self.registry = registry
        self.folder = folder
        self.made: dict[tuple[int, str, int], Release] = {}
        rootfs = folder / "rootfs.tar"
        root_file_system(rootfs)
        home = f"--change=ENV PYTHONHOME={sys.base_prefix}"
        podman("import", "--quiet", home, str(rootfs), "localhost/standin:1")
        rootfs.unlink()

    def __call__(self, number: int, fault: str = "", build: int = 1) -> Release:
        """A release that adds its number to what it is asked for; with a fault, if one is named.

        Each build of it has an image of its own.
        """
        key = (number, fault, build)
        if key not in self.made:
            self.made[key] = self.make(number, fault, build)
        return self.made[key]

    def make(self, number: int, fault: str, build: int) -> Release:
        """Build and push; the image is then in the registry only."""
        release = f"{SLUG}:{number:08x}-{fault or 'good'}"
        model = hashlib.sha256(release.encode()).hexdigest()
        image = f"{self.registry.host}/acme/standin"
        variables = {
            "OWN_RELEASE": release,
            "OWN_MODEL": "f" * 64 if fault == "other" else model,
            "OFFSET": number,
            "FAULT": fault,
            "BUILD": build,
            "PYTHONUNBUFFERED": 1,
        }
        lines = [f'ENV {name}="{value}"' for name, value in variables.items()]
        recipe = self.folder / "Containerfile"
        command = 'CMD ["/usr/local/bin/python3", "/service.py"]'
        recipe.write_text("\n".join(["FROM localhost/standin:1", *lines, "USER 1034", command]))
        tag = f"{image}:{number}-{fault or 'good'}-{build}"
        self.podman("build", "--quiet", "--tag", tag, "--file", str(recipe), str(self.folder))
        digest = self.folder / "digest"
        self.podman("push", "--quiet", "--digestfile", str(digest), tag)
        self.podman("rmi", "--force", tag)
        wrong = 0.5 if fault == "wrong" else 0
        return Release(
            number,
            {
                "records": [{"x": 1.0}, {"x": 2.5}],
                "predictions": [{"prediction": x + number + wrong} for x in (1.0, 2.5)],
                "tolerance": 1e-5,
            },
            {
                **PLACEHOLDERS,
                "release": release,
                "model": {"file": "model.onnx", "sha256": model},
                "image": {"name": image, "digest": digest.read_text()},
            },
        )


# The machine


class Load:
    """Requests that are sent all the time; each answer must be right for the release it is from."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent = 0
        self.failures: list[str] = []
        self.answered: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        kinds = [(True, 0.0)] * 8 + [(False, 0.0)] * 6 + [(True, 0.7), (False, 0.7)]
        self._asked = [0] * len(kinds)
        self._threads = [
            threading.Thread(target=self._send, args=(place, *kind))
            for place, kind in enumerate(kinds)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def go_on(self) -> None:
        """Until each sender has asked once more, from its question to its answer."""
        before = list(self._asked)
        # The first answer may be to a question of before.
        eventually(
            lambda: all(n >= b + 2 for n, b in zip(self._asked, before, strict=True)), "no answers"
        )

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, place: int, keep: bool, seconds: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        number = 0
        while not self._over.wait(0.02):
            number += 1
            failure, release = self._ask(connection, keep, float(number), seconds)
            with self._lock:
                self.sent += 1
                self._asked[place] += 1
                if failure:
                    self.failures.append(f"{time.monotonic():.2f} {keep=} {seconds=}: {failure}")
                else:
                    self.answered[release] += 1
            if failure or not keep:
                connection.close()
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, keep: bool, x: float, seconds: float
    ) -> tuple[str, str]:
        headers = {"Connection": "keep-alive" if keep else "close"}
        try:
            connection.request(
                "POST", "/predict", json.dumps({"x": x, "seconds": seconds}), headers
            )
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error), ""
        release = response.headers.get("X-Release", "")
        if response.status != 200:
            return f"{response.status} {content[:100]!r}", release
        right = x + int(release.partition(":")[2].partition("-")[0], 16)
        found = json.loads(content)["prediction"]
        return ("" if found == right else f"{found} from {release}"), release


class Host(Machine):
    """A machine with a branch of its own, on which releases of the service of a few lines are."""

    def __init__(self, folder: Path, project: Path, podman: Podman, image: str) -> None:
        super().__init__(folder, project, podman, folder / "origin.git", "production", image)
        self.git("init", "--quiet", "--bare", str(self.origin))

    def files(self, release: Release) -> dict[str, str]:
        """What the branch holds for a release."""
        return {
            "release.json": json.dumps(release.content),
            "golden.json": json.dumps(release.golden),
        }

    def publish(self, release: Release, **instead: str) -> str:
        """Commit a release to the environment branch; `instead` replaces files."""
        at = ["-C", str(self.origin)]
        files = {**self.files(release), **instead}
        blobs = {
            name: self.git(*at, "hash-object", "-w", "--stdin", given=text)
            for name, text in files.items()
        }
        lines = [f"100644 blob {blob}\t{name}\n" for name, blob in sorted(blobs.items())]
        tree = self.git(*at, "mktree", given="".join(lines))
        commit = self.git(*at, "commit-tree", tree, "-m", f"{time.monotonic_ns()}")
        self.git(*at, "update-ref", "refs/heads/env/production", commit)
        return commit

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        """Send requests while the block runs and a little longer; all must be answered."""
        load = Load(self.port)
        load.start()
        try:
            eventually(lambda: load.sent > 100, "no requests")
            yield load
            load.go_on()
        finally:
            load.stop()
        print(f"{load.sent} requests sent, {len(load.failures)} failed, {dict(load.answered)}")
        assert load.failures == []
        assert sum(load.answered.values()) == load.sent


@pytest.fixture(scope="module")
def releases(
    podman: Podman, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Factory:
    return Factory(podman, registry, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def project(
    template: Path, env_without_uv: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The project of a host; not to be changed."""
    return generate(template, tmp_path_factory.mktemp("host"), env_without_uv, deploy_target="host")


@pytest.fixture
def machine(
    needs_nginx: None, machine_folder: Path, podman: Podman, project: Path, registry: Registry
) -> Iterator[Host]:
    host = Host(machine_folder, project, podman, f"{registry.host}/acme/standin")
    yield host
    host.close()


@pytest.fixture
def live(machine: Host, releases: Factory) -> Host:
    """A machine on which the first release is live."""
    machine.publish(releases(1))
    machine.tick()
    assert machine.live() == releases(1).name
    return machine


# What should happen


def test_a_second_release_rolls_out_without_a_failed_request(live: Host, releases: Factory) -> None:
    with live.load() as load:
        live.publish(releases(2))
        said = live.tick()
        before = load.answered[releases(1).name]
        assert releases(2).name in said
        load.go_on()
        assert load.answered[releases(1).name] == before, "the old one still gets requests"
        live.publish(releases(1))
        live.tick()

    assert load.sent > 1000
    assert set(load.answered) == {releases(1).name, releases(2).name}
    assert min(load.answered.values()) > 100
    assert live.pods() == ["blue"]


def test_another_build_of_the_same_release_rolls_out_too(live: Host, releases: Factory) -> None:
    first, second = releases(1), releases(1, build=2)
    assert (first.name, first.digest != second.digest) == (second.name, True)
    assert live.status()[1]["digest"] == first.digest
    with live.load() as load:
        live.publish(second)
        live.tick()

    assert live.status()[1]["digest"] == second.digest
    assert set(load.answered) == {first.name}
    assert live.pods() == ["green"]
    image = live.podman("inspect", "--format", "{{.ImageName}}", live.container("green")).stdout
    assert image.strip().endswith(f"@{second.digest}")


def test_the_container_can_do_no_more_than_it_must(live: Host, releases: Factory) -> None:
    inspected = live.podman("inspect", live.container("blue")).stdout
    (found,) = json.loads(inspected)
    host = found["HostConfig"]
    assert found["Config"]["User"] == "1034:1034"
    assert host["ReadonlyRootfs"] is True
    assert host["Memory"] == 1024**3
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert found["EffectiveCaps"] in (None, [])
    assert found["Config"].get("Healthcheck") is None
    ports = live.podman("port", live.container("blue")).stdout
    assert ports.strip() == f"3000/tcp -> 127.0.0.1:{live.ports['blue']}"
    assert live.status("/writes") == (200, {"/tmp/probe": True, "/probe": False})


def test_the_slots_share_no_folder(live: Host, releases: Factory) -> None:
    live.env["DRAIN_SECONDS"] = "60"
    live.publish(releases(2))
    run = live.run()
    eventually(lambda: live.live() == releases(2).name, "it does not go live")
    volumes = {}
    for slot in SLOTS:
        inspected = live.podman("inspect", live.container(slot)).stdout
        mounts = json.loads(inspected)[0]["Mounts"]
        (volumes[slot],) = (m["Source"] for m in mounts if m["Destination"] == "/tmp")
    run.terminate()
    run.communicate()

    assert volumes["blue"] != volumes["green"]
    assert live.live() == releases(2).name
    live.env["DRAIN_SECONDS"] = "0"
    live.tick()
    assert live.pods() == ["green"]


def test_large_bodies_reach_the_service(live: Host) -> None:
    rows = [{"x": 1.0, "seconds": 0}] * 1000
    padded = json.dumps(rows) + " " * 7_900_000

    found = live.status("/predict", padded)

    assert found is not None
    assert found[0] == 200
    assert len(found[1]) == 1000


def test_the_script_is_typed(project: Path, project_run: Run) -> None:
    script = project / "deploy" / "host" / "pull.py"
    assert project_run(project, "mypy", str(script)).returncode == 0
    defect = project / "defect.py"
    defect.write_text(script.read_text().replace('return "green" if', "return 1 if"))
    assert "[return-value]" in project_run(project, "mypy", str(defect)).stdout
    defect.unlink()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is missing")
def test_the_units_are_valid(project: Path, tmp_path: Path, run: Run) -> None:
    def verify(service: str) -> str:
        shutil.copytree(project / "deploy" / "host", tmp_path, dirs_exist_ok=True)
        unit = tmp_path / f"{SLUG}-pull.service"
        unit.write_text(service)
        timer = tmp_path / f"{SLUG}-pull.timer"
        done = run(["systemd-analyze", "verify", str(unit), str(timer)], tmp_path)
        return done.stdout + done.stderr

    text = (project / "deploy" / "host" / f"{SLUG}-pull.service").read_text()
    assert verify(text) == ""
    assert "Failed to parse service type" in verify(text.replace("oneshot", "once"))


# What goes wrong


BROKEN = {
    "crash": "the model cannot be read",
    "deaf": "/readyz answers 503",
    "liar": f"with the model {'0' * 64}",
    "mute": "deployed as no digest, not as sha256:",
    "other": f"but this is {'f' * 64}",
    "wrong": "wrong prediction for golden record 0",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_release_gets_no_request(live: Host, releases: Factory, fault: str) -> None:
    live.env["READY_SECONDS"] = "60" if fault in ("liar", "mute", "wrong") else "6"
    broken = releases(7, fault)

    with live.load() as load:
        live.publish(broken)
        said = live.tick(status=1)
        assert f"{broken.name} is refused, {releases(1).name} stays live" in said
        assert BROKEN[fault] in said
        assert "was refused and is not tried again" in live.tick(status=1)

    assert set(load.answered) == {releases(1).name}
    assert live.pods() == ["blue"]


def test_a_registry_that_is_down_is_waited_for(
    live: Host, releases: Factory, registry: Registry
) -> None:
    release = releases(3)
    live.podman("rmi", "--force", f"{registry.host}/acme/standin@missing", check=False)
    with live.load() as load:
        live.publish(release)
        registry.stop()
        try:
            said = live.tick(status=1)
        finally:
            registry.start()
        assert "`podman pull --quiet` failed" in said
        assert "connection refused" in said
        assert set(load.answered) == {releases(1).name}
        live.tick()

    assert live.live() == release.name


def test_a_rollback_needs_no_registry(live: Host, releases: Factory, registry: Registry) -> None:
    live.publish(releases(2))
    live.tick()
    # What is refused in between takes nobody's image away.
    live.publish(releases(7, "crash"))
    live.tick(status=1)
    live.publish(releases(2))
    live.tick()
    live.publish(releases(1))
    registry.stop()
    try:
        live.tick()
    finally:
        registry.start()

    assert live.live() == releases(1).name


def test_a_run_may_be_killed_at_any_moment(live: Host, releases: Factory) -> None:
    moments = (0.1, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5, 3.0, 3.5, 4.5, 6.0)
    with live.load() as load:
        for turn, moment in enumerate(moments):
            release = releases(2 - turn % 2)
            live.publish(release)
            killed = live.run()
            time.sleep(moment)
            killed.kill()
            killed.communicate()
            assert live.live() in (releases(1).name, releases(2).name)
            live.tick()
            assert live.live() == release.name
            assert len(live.pods()) == 1

    assert set(load.answered) == {releases(1).name, releases(2).name}


@pytest.fixture
def small_disk(machine: Host) -> Iterator[Path]:
    """The state folder is on a disk of 1 MB."""
    machine.state.mkdir(mode=0o755)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", str(machine.state)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    yield machine.state
    subprocess.run(["umount", str(machine.state)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 512):
            pass
    assert shutil.disk_usage(path.parent).free == 0


def test_a_full_disk_changes_nothing(small_disk: Path, live: Host, releases: Factory) -> None:
    filler = small_disk / "filler"
    with live.load() as load:
        live.publish(releases(2))
        fill(filler)
        said = live.tick(status=1)
        assert "No space left on device" in said
        assert set(load.answered) == {releases(1).name}
        filler.unlink()
        live.tick()

    assert live.live() == releases(2).name


def test_an_attack_through_the_branch_changes_nothing(live: Host, releases: Factory) -> None:
    """The pod that root would have played, and an image of somebody else's that does exist."""
    release = releases(2)
    name = release.content["image"]["name"]
    other = {**release.content["image"], "name": f"{name}-of-others"}
    pod = f"""apiVersion: v1
kind: Pod
metadata: {{name: evil, labels: {{slot: {SLUG}-green}}}}
spec:
  hostNetwork: true
  containers:
  - name: service
    image: {name}@{release.digest}
    securityContext: {{privileged: true}}
    volumeMounts: [{{name: all, mountPath: /host}}]
  volumes: [{{name: all, hostPath: {{path: /}}}}]
"""
    with live.load() as load:
        live.publish(release, **{"release.json": json.dumps({**release.content, "image": other})})
        assert "may run here" in live.tick(status=1)
        assert set(load.answered) == {releases(1).name}
        live.publish(release, **{"green.yaml": pod, "pod.yaml": pod, "manifests.yaml": pod})
        live.tick()

    assert live.live() == release.name
    (found,) = json.loads(live.podman("inspect", live.container("green")).stdout)
    assert found["HostConfig"]["Privileged"] is False
    assert [mount["Destination"] for mount in found["Mounts"]] == ["/tmp"]


def test_a_dead_container_is_healed_without_git_and_registry(
    live: Host, releases: Factory, registry: Registry
) -> None:
    away = live.origin.rename(live.folder / "away")
    registry.stop()
    try:
        live.podman("kill", live.container("blue"))
        assert live.live() is None
        said = live.tick(status=1)
        assert live.live() == releases(1).name

        # A machine that was restarted has no pod that runs.
        live.podman("pod", "rm", "--all", "--force", "--time", "0")
        assert live.live() is None
        live.tick(status=1)
        assert live.live() == releases(1).name
    finally:
        registry.start()
        away.rename(live.origin)

    assert "`git ls-remote" in said
    assert "is started again" in said
    live.tick()


def test_a_branch_that_cannot_be_reached_changes_nothing(live: Host, releases: Factory) -> None:
    with live.load() as load:
        away = live.origin.rename(live.folder / "away")
        assert "does not appear to be a git repository" in live.tick(status=1)
        assert set(load.answered) == {releases(1).name}
        away.rename(live.origin)
        live.publish(releases(2))
        live.tick()

    assert live.live() == releases(2).name
