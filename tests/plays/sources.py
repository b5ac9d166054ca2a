"""Real servers that data land from: an S3-compatible bucket, PostgreSQL, a web server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podman import leave_out
from ports import free_port

DEADLINE = 60
KEY, SECRET = "lake-key", "lake-secret-word"
USER, PASSWORD = "lake", "pg-secret-word"


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: If it is not in time.
    """
    end = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < end, f"{what}: not there after {DEADLINE} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class Bucket:
    """An endpoint, and the variables by which the AWS tools find it."""

    endpoint: str
    variables: Mapping[str, str]


@contextmanager
def bucket_server() -> Iterator[Bucket]:
    """SeaweedFS, with one identity."""
    weed = Path(sys.prefix, "bin", "weed")
    with tempfile.TemporaryDirectory(prefix="weed-") as place:
        folder = Path(place)
        identity = {
            "name": "lake",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        s3, master, volume, filer = (free_port() for _ in range(4))
        command = [
            *(weed, "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"),
            *(f"-s3.config={folder}/s3.json", f"-s3.port={s3}", f"-master.port={master}"),
            *(f"-volume.port={volume}", f"-filer.port={filer}", "-volume.max=4"),
            *("-master.volumeSizeLimitMB=8", "-master.telemetry=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]
        with (folder / "log").open("wb") as log, ExitStack() as stack:
            process = subprocess.Popen(
                list(map(str, command)), cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            endpoint = f"http://127.0.0.1:{s3}"
            variables = {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            wait_for(lambda: _accepts(endpoint, variables), "SeaweedFS")
            yield Bucket(endpoint, variables)


def _accepts(endpoint: str, variables: Mapping[str, str]) -> bool:
    import s3fs

    port = int(endpoint.rpartition(":")[2])
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)):
            return False
    client = s3fs.S3FileSystem(
        key=KEY, secret=SECRET, endpoint_url=endpoint, skip_instance_cache=True
    )
    try:
        if not client.exists("flights"):
            client.mkdir("flights")
        client.pipe("flights/ready", b"yes")
    except OSError:
        return False
    return True


def postgres_programs() -> Path:
    """Debian's folder of the newest PostgreSQL's programs.

    Where there is none the test is left out.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        leave_out("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found[-1].parent


@contextmanager
def postgres_server() -> Iterator[str]:
    """PostgreSQL on loopback: its address, without password. It refuses to run as root."""
    programs = postgres_programs()
    place = Path(tempfile.mkdtemp(prefix="postgres-"))
    place.chmod(0o755)
    (place / "password").write_text(PASSWORD, encoding="utf-8")
    who = {}
    if os.geteuid() == 0:
        shutil.chown(place, "nobody", "nogroup")
        who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    port = free_port()
    data, log = place / "data", place / "log"

    def call(*words: str | Path) -> None:
        subprocess.run(
            list(map(str, words)),
            cwd=place,
            stdout=subprocess.DEVNULL,
            check=True,
            **who,  # type: ignore[call-overload]
        )

    control = programs / "pg_ctl"
    try:
        call(
            *(programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256"),
            *(f"--pwfile={place}/password", "--no-sync", "--locale=C", "--encoding=UTF8"),
        )
        options = f"-p {port} -h 127.0.0.1 -k {place} -c fsync=off"
        call(control, "-D", data, "-l", log, "-o", options, "-w", "start")
        yield f"postgresql://127.0.0.1:{port}/postgres"
    finally:
        if (data / "postmaster.pid").exists():
            call(control, "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(place, ignore_errors=True)
