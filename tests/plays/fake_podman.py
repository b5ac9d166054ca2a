"""As much of podman as pull.py uses, with a process for each container: a program named `podman`.

Images and their behaviour, pods, and what is to go wrong are files in the folder FAKE_PODMAN.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("FAKE_PODMAN", "."))
SERVICE = Path(__file__).with_name("fake_service.py")


def read(name: str) -> Any:
    path = HOME / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(name: str, value: Any) -> None:
    (HOME / name).write_text(json.dumps(value), encoding="utf-8")


def die(message: str) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(125)


def state(process: int) -> tuple[str, str]:
    """Its state, and when it began: a number that is given again is another process."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return "X", ""
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def alive(pod: dict[str, Any]) -> bool:
    now, began = state(pod["process"])
    return now not in "XZ" and began == pod["began"]


def kill(pod: dict[str, Any]) -> None:
    if alive(pod):
        os.kill(pod["process"], signal.SIGKILL)
    while alive(pod):
        time.sleep(0.01)


def pods_of(label: str) -> dict[str, Any]:
    found = read("pods.json").items()
    return {name: pod for name, pod in found if f"label={pod['label']}" == label}


def play(manifest: str) -> None:
    (HOME / "played.yaml").write_text(manifest, encoding="utf-8")

    def value(key: str) -> str:
        found = re.search(rf"^[ -]*{key}: (.*)$", manifest, re.MULTILINE)
        return found[1].strip('"') if found else die(f"no {key}") or ""

    import subprocess  # takes a third of the time of all other commands

    image = value("image")
    if image not in read("local.json"):
        die(f"{image}: image not known")
    told = re.search(r'name: RELEASE_DIGEST\n +value: "(.*)"', manifest)
    behaviour = {"digest": told and told[1], **read("registry.json")[image]}
    behaviour["port"] = int(value("hostPort"))
    log = (HOME / f"{value('slot')}.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-S", "-E", str(SERVICE), json.dumps(behaviour)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    pods = read("pods.json")
    pods[f"{server.pid:012x}"] = {
        "process": server.pid,
        "began": state(server.pid)[1],
        "label": f"slot={value('slot')}",
        "log": log.name,
        "image": image,
    }
    write("pods.json", pods)


def remove(names: list[str]) -> None:
    pods = read("pods.json")
    for name in names:
        kill(pods.pop(name))
    write("pods.json", pods)


def obey(arguments: list[str]) -> None:
    command, last = " ".join(arguments), arguments[-1]
    label = next((a for a in arguments if a.startswith("label=")), "")
    match command:
        case _ if command.startswith("image exists "):
            sys.exit(0 if last in read("local.json") else 1)
        case _ if command.startswith("pull --quiet "):
            if last not in read("registry.json"):
                die(f"{last}: manifest unknown")
            write("local.json", {**read("local.json"), last: True})
        case _ if command.startswith("pod ps --quiet "):
            print("\n".join(pods_of(label)))
        case _ if command.startswith("ps --quiet ") and "status=running" in arguments:
            print("\n".join(n for n, pod in pods_of(label).items() if alive(pod)))
        case _ if command.startswith("pod rm --force --time "):
            remove(arguments[5:])
        case _ if command.startswith("pod logs --tail "):
            # What a container prints as errors, podman does too.
            print(Path(read("pods.json")[last]["log"]).read_text("utf-8"), file=sys.stderr)
        case "kube play --replace -":
            play(sys.stdin.read())
        case "image ls --no-trunc --format json":
            images = [{"Id": f"id of {name}", "RepoDigests": [name]} for name in read("local.json")]
            print(json.dumps([*images, {"Id": "untagged", "RepoDigests": None}]))
        case _ if command.startswith("image rm "):
            name = last.removeprefix("id of ")
            if name in [pod["image"] for pod in read("pods.json").values()]:
                die("image is in use by a container")
            write("local.json", {n: True for n in read("local.json") if n != name})
        case _:
            die(f"unknown command: {command}")


def main(arguments: list[str]) -> None:
    command = " ".join(arguments)
    with (HOME / "calls").open("a", encoding="utf-8") as calls:
        calls.write(f"{command}\n")
    for prefix, message in read("fail.json").items():
        if command.startswith(prefix):
            die(message)
    before, after = (read("kill.json").get(when) for when in ("before", "after"))
    if before and command.startswith(before):
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(1)
    obey(arguments)
    if after and command.startswith(after):
        os.kill(os.getppid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
