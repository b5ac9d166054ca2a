"""A machine of the host target: nginx, podman, and the script that a timer would start."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SLUG
from podman import Podman, leave_out
from ports import free_port

SLOTS = {"blue": 3001, "green": 3002}
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Machine:
    """A machine that follows an environment branch, as the README of the host target sets it up.

    Args:
        folder: Of this machine; nginx's workers, which are nobody, must be able to look into it.
        project: Whose script and whose site it has.
        podman: Its podman.
        origin: The repository that it follows.
        environment: The branch is env/<environment>.
        image: The only one that may run there.
    """

    def __init__(
        self,
        folder: Path,
        project: Path,
        podman: Podman,
        origin: Path,
        environment: str,
        image: str,
    ) -> None:
        self.folder = folder
        self.podman = podman
        self.state = folder / "state"
        self.origin = origin
        self.script = project / "deploy" / "host" / "pull.py"
        self.site = project / "deploy" / "host" / "nginx.conf"
        self.ports = {slot: free_port() for slot in SLOTS}
        self.port = free_port()
        self.env = {
            **podman.env,
            "REPOSITORY": str(self.origin),
            "IMAGE": image,
            "ENVIRONMENT": environment,
            **{f"{slot.upper()}_PORT": str(port) for slot, port in self.ports.items()},
            "STATE_DIRECTORY": str(self.state),
            "FRONT_DOOR": f"http://127.0.0.1:{self.port}",
            "READY_SECONDS": "60",
            "DRAIN_SECONDS": "2",
        }
        self.nginx = self.start_nginx()

    def start_nginx(self) -> subprocess.Popen[bytes]:
        """Its workers are an unprivileged user, as on a real machine."""
        site = self.site.read_text()
        replaced = {
            "listen 80 default_server": f"listen 127.0.0.1:{self.port}",
            "listen [::]:80 default_server": f"listen [::1]:{self.port}",
            f"/var/lib/{SLUG}/": f"{self.state}/",
            **{f":{port};": f":{self.ports[slot]};" for slot, port in SLOTS.items()},
        }
        for old, new in replaced.items():
            assert old in site
            site = site.replace(old, new)
        (self.folder / "site.conf").write_text(site)
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 2; pid {self.folder}/nginx.pid;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off;\n{temporary}include {self.folder}/site.conf;\n}}\n"
        )
        assert NGINX is not None
        command = [NGINX, "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"]
        nginx = subprocess.Popen(command)
        eventually(lambda: self.status() is not None, "nginx does not answer")
        return nginx

    def git(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            ["git", *arguments],
            env=dict(self.env),
            input=given,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def run(self) -> subprocess.Popen[str]:
        """Start the script; nothing but the standard library is there for it."""
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(self.script)],
            env=dict(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def tick(self, status: int = 0) -> str:
        """Run the script to its end; what it said."""
        run = self.run()
        said, _ = run.communicate(timeout=180)
        assert run.returncode == status, said
        assert "Traceback" not in said
        return said

    def status(self, path: str = "/release", body: Any = None) -> tuple[int, Any] | None:
        """What the front door answers; None if it does not."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            content = response.read()
        except OSError:
            return None
        finally:
            connection.close()
        return response.status, json.loads(content) if response.status == 200 else content

    def live(self) -> str | None:
        """The release that answers at the front door."""
        found = self.status()
        return found[1]["release"] if found and found[0] == 200 else None

    def pods(self) -> list[str]:
        """The slots in which a pod is, running or not."""
        found = self.podman("pod", "ps", "--format", "{{.Labels}}").stdout
        return sorted(re.findall(rf"slot:{SLUG}-(\w+)", found))

    def container(self, slot: str) -> str:
        """The container of a slot."""
        label = f"label=slot={SLUG}-{slot}"
        (name,) = self.podman("ps", "--filter", label, "--format", "{{.Names}}").stdout.split()
        return name

    def close(self) -> None:
        self.podman("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self.nginx.send_signal(signal.SIGQUIT)
        self.nginx.wait(30)


@pytest.fixture(scope="module")
def needs_nginx() -> None:
    if NGINX is None:
        leave_out("nginx is missing (Debian: apt-get install nginx-light)")


@pytest.fixture
def machine_folder() -> Iterator[Path]:
    """A folder that nobody may look into; the folder of a test is its owner's alone."""
    folder = Path(tempfile.mkdtemp(prefix="host-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
