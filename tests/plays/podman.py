"""The podman tier: containers that really run, with a registry and a base image of the tests' own.

Nothing of the machine's containers is touched: images, networks and settings live in a temporary
folder, and names on Docker Hub lead to a registry on the loopback interface. What this machine
needs to install packages inside a build is part of that base image and of the engine's settings.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from act import uv_cache
from conftest import find_uv
from ports import free_port

Run = Callable[..., subprocess.CompletedProcess[str]]

# By the Debian package that brings it.
TOOLS = {
    "podman": "podman",
    "runc": "runc",
    "catatonit": "catatonit",
    "docker-registry": "docker-registry",
    "mmdebstrap": "mmdebstrap",
}
# Programs that are kept away from PATH.
ELSEWHERE = (Path("/usr/libexec/podman"), Path("/usr/lib/podman"), Path("/usr/sbin"))
BASE = "docker.io/library/python:3.11-slim"
SUITE = "bookworm"  # its Python is 3.11
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# What it is asked to install for a build, as far as it must not be shipped.
INSTALLERS = ("cc", "curl", "git")
APT_GET = f"""#!/bin/sh
case "$*" in *install*) ;; *) exit 0 ;; esac
for tool in {" ".join(INSTALLERS)}; do
  echo '#!/bin/sh' > /usr/bin/$tool && chmod 755 /usr/bin/$tool || exit 1
done
"""
WITHOUT = ("man", "doc", "locale", "info")


@dataclass
class Registry:
    """A container registry on the loopback interface."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Its name in the names of images."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer from now on; what was pushed before is still there."""
        config = self.folder / "registry.json"
        settings = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "registry")}},
            "http": {"addr": self.host},
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        with (self.folder / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(config)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while self.get("/v2/") is None:
            assert self.process.poll() is None, (self.folder / "registry.log").read_text()
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        """Be down from now on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def get(self, path: str) -> Any:
        """What it answers from JSON; None if it does not answer."""
        accept = "application/vnd.oci.image.manifest.v1+json"
        request = urllib.request.Request(f"http://{self.host}{path}", headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None


@dataclass(frozen=True)
class Podman:
    """Podman with images, networks and settings of its own."""

    env: Mapping[str, str]
    command: Run
    runroot: Path

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of podman."""
        return self.command(["podman", *arguments], Path("/"), self.env, check=check)

    def containers(self) -> list[str]:
        """The names of all containers, running or not."""
        return self("ps", "--all", "--format", "{{.Names}}").stdout.split()


def lacks() -> list[str]:
    """What this machine lacks for the podman tier."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, ELSEWHERE)])
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool, path=path) is None]
    return missing + ([] if os.geteuid() == 0 else ["root (the tests make a root file system)"])


@pytest.fixture(scope="session")
def needs_podman() -> None:
    """Skip where containers cannot run; where they must (PODMAN_TIER=required), fail."""
    demand_podman()


def demand_podman() -> None:
    """End the test where containers cannot run."""
    missing = lacks()
    if not missing:
        return
    reason = f"the podman tier needs {', '.join(missing)} (Debian: apt-get install ...)"
    leave_out(reason)


def leave_out(reason: str) -> None:
    """Skip a test; fail it where all that it needs is installed on purpose."""
    if os.environ.get("PODMAN_TIER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def registry(needs_podman: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that runs. A test that stops it starts it again."""
    port = free_port()
    registry = Registry(tmp_path_factory.mktemp("registry"), port)
    registry.start()
    yield registry
    registry.stop()
    shutil.rmtree(registry.folder / "registry", ignore_errors=True)


def make_podman(folder: Path, registry: Registry, clean_env: Mapping[str, str], run: Run) -> Podman:
    """Podman as on a machine of its own: nothing is shared with another folder's."""
    # Podman takes 50 characters for it at most.
    runroot = tempfile.mkdtemp(prefix="podman-")
    network = f"tests-{secrets.token_hex(4)}"
    _write_networks(folder / "networks", network)
    (folder / "containers.conf").write_text(
        f"""
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
# Builds take packages from here.
volumes = ["{uv_cache(clean_env)}:/var/cache/uv"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
default_network = "{network}"
network_config_dir = "{folder / "networks"}"
""",
        encoding="utf-8",
    )
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "images"}"\n'
        f'runroot = "{runroot}"\n',
        encoding="utf-8",
    )
    (folder / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        f'[[registry]]\nprefix = "docker.io"\nlocation = "{registry.host}"\ninsecure = true\n',
        encoding="utf-8",
    )
    (folder / "auth.json").write_text("{}", encoding="utf-8")
    env = {
        **clean_env,
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
        "CONTAINER_ENGINE": "podman",
    }
    return Podman(env, run, Path(runroot))


def _write_networks(folder: Path, default: str) -> None:
    """Bridges of an engine's own, for containers and for the pods of `podman kube play`.

    Left to itself, every engine takes the same names. One whose bridge another one has made finds
    it there and gives it no address, so nothing reaches its containers; and one that ends takes
    away the firewall's rules that go by the network's name.
    """
    folder.mkdir()
    octets = f"10.{random.randint(100, 250)}.{random.randint(0, 250)}"
    for name, bridge, first, dns in (
        (default, "c", 0, False),
        ("podman-default-kube-network", "p", 128, True),
    ):
        network = {
            "name": name,
            "id": secrets.token_hex(32),
            "driver": "bridge",
            "network_interface": f"{bridge}-{secrets.token_hex(4)}",
            "created": datetime.now(UTC).isoformat(),
            "subnets": [{"subnet": f"{octets}.{first}/25", "gateway": f"{octets}.{first + 1}"}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": dns,
            "ipam_options": {"driver": "host-local"},
        }
        (folder / f"{name}.json").write_text(json.dumps(network), encoding="utf-8")


def remove_podman(engine: Podman) -> None:
    """Remove all that runs and all images."""
    engine("pod", "rm", "--all", "--force", check=False)
    engine("rm", "--all", "--force", "--time", "0", check=False)
    # What runs on would be out of reach once the folders are gone.
    assert engine.containers() == []
    # Takes seconds, where podman takes a minute to remove one image after the other.
    shutil.rmtree(Path(engine.env["CONTAINERS_STORAGE_CONF"]).parent / "images")
    shutil.rmtree(engine.runroot)


@pytest.fixture(scope="session")
def podman(
    registry: Registry,
    clean_env: Mapping[str, str],
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Podman]:
    """Podman, apart from the machine's own images and containers."""
    engine = make_podman(tmp_path_factory.mktemp("podman"), registry, clean_env, run)
    yield engine
    remove_podman(engine)


@pytest.fixture
def elsewhere(
    registry: Registry, clean_env: Mapping[str, str], run: Run, tmp_path: Path
) -> Iterator[Podman]:
    """Podman of another machine: it has none of the images that were built here."""
    engine = make_podman(tmp_path, registry, clean_env, run)
    yield engine
    remove_podman(engine)


@pytest.fixture(scope="session")
def base_image(
    podman: Podman,
    registry: Registry,
    locked_project: Path,
    project_env: Mapping[str, str],
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The base image that bentos name, in the registry that Docker Hub's names lead to.

    A minimal Debian with Python and uv. Packages come from uv's cache on this machine, which holds
    those of the lock since `project_env` was made; compilers are not needed, so what `apt-get`
    installs are empty programs of their names.
    """
    folder = tmp_path_factory.mktemp("base")
    (folder / "apt-get").write_text(APT_GET, encoding="utf-8")
    (folder / "apt-get").chmod(0o755)
    rootfs = folder / "rootfs.tar"
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        "--include=libstdc++6,passwd,python3",
    ]
    command += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in WITHOUT]
    for hook in (
        f"copy-in {find_uv()} {folder / 'apt-get'} /usr/local/bin",
        'ln -s ../../bin/python3 "$1/usr/local/bin/python"',
        'mkdir -p "$1/etc/ssl/certs"',
        f"copy-in {CERTIFICATES} /etc/ssl/certs",
    ):
        command.append(f"--customize-hook={hook}")
    run([*command, SUITE, str(rootfs)], folder, check=True)
    _complete_cache(locked_project, project_env, run, folder)
    variables = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SSL_CERT_FILE": str(CERTIFICATES),
        "UV_CACHE_DIR": "/var/cache/uv",
        "UV_LINK_MODE": "copy",
        "UV_OFFLINE": "1",
    }
    changes = [f"--change=ENV {name}={value}" for name, value in variables.items()]
    podman("import", "--quiet", *changes, str(rootfs), BASE)
    rootfs.unlink()
    podman("push", "--quiet", BASE, BASE.replace("docker.io", registry.host))
    podman("rmi", BASE)
    return BASE


def _complete_cache(project: Path, env: Mapping[str, str], run: Run, folder: Path) -> None:
    """Let uv's cache know what a build asks for: `uv sync` needs no metadata of what is locked."""
    requirements = folder / "requirements.txt"
    export = ["uv", "export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-workspace"]
    run([*export, "--output-file", str(requirements)], project, env, check=True)
    run(["uv", "venv", "--quiet", str(folder / "venv")], project, env, check=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(folder / "venv")]
    run([*install, "--requirements", str(requirements)], project, env, check=True)
    shutil.rmtree(folder / "venv")


@pytest.fixture(scope="session")
def podman_env(podman: Podman, base_image: str) -> Mapping[str, str]:
    """Variables for a project's tasks: they build with podman, from the tests' base image."""
    names = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF")
    return {name: podman.env[name] for name in (*names, "REGISTRY_AUTH_FILE", "CONTAINER_ENGINE")}
