"""Show the whole path on this machine: generate a project, train, gate, package, serve, predict.

Every step is a task that the generated project's owner runs as well. The output of a step is
streamed; a step that fails stops the demo with its exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
SLUG = "flight_delays"
START_TIMEOUT = 120.0


class DemoError(Exception):
    """A step of the demo failed; the message says which one and what to look at."""


def check_tools() -> None:
    """Make sure that what the demo calls is there.

    Raises:
        DemoError: With one line for each tool that is missing.
    """
    advice = {"git": "apt-get install git", "make": "apt-get install make", "uv": "run `make demo`"}
    missing = [
        f"{tool} is missing ({hint})" for tool, hint in advice.items() if not shutil.which(tool)
    ]
    if missing:
        raise DemoError("\n".join(missing))


def new_folder(parent: Path) -> Path:
    """A folder that is not there yet, so that a second demo never touches the first."""
    number = 1
    while (parent / f"demo-{number}").exists():
        number += 1
    return parent / f"demo-{number}"


def environment() -> dict[str, str]:
    """The variables of the steps: ours, less the virtual environment that this script runs in."""
    env = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    }
    own = Path(sys.prefix, "bin")
    env["PATH"] = os.pathsep.join(
        part for part in env["PATH"].split(os.pathsep) if Path(part) != own
    )
    identity = {"NAME": "Demo", "EMAIL": "demo@example.com"}
    for role in ("AUTHOR", "COMMITTER"):
        for key, value in identity.items():
            env.setdefault(f"GIT_{role}_{key}", value)
    return env


def announce(title: str, detail: str) -> None:
    """Print the headline of a step and what it does."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}==> {title}{plain}\n    {detail}", flush=True)


def step(title: str, *command: str, cwd: Path, env: dict[str, str]) -> None:
    """Run one step, say how long it took.

    Raises:
        DemoError: If the command is missing or exits non-zero.
    """
    announce(title, f"$ {' '.join(command)}")
    started = time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=env, check=False)
    if done.returncode != 0:
        raise DemoError(f"`{' '.join(command)}` in {cwd} failed with exit code {done.returncode}")
    print(f"    done in {time.monotonic() - started:.0f} s", flush=True)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def bento_tag(project: Path, env: dict[str, str]) -> str:
    """The tag of the bento that was built last."""
    command = ["uv", "run", "bentoml", "list", SLUG, "--output", "json"]
    listing = subprocess.run(
        command, cwd=project, env=env, check=True, capture_output=True, text=True
    )
    tag: str = json.loads(listing.stdout)[0]["tag"]
    return tag


@contextlib.contextmanager
def served(project: Path, tag: str, env: dict[str, str]) -> Iterator[str]:
    """Serve a bento while the block runs; gives its address.

    Raises:
        DemoError: If the service does not become ready.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["uv", "run", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    announce("Serve the bento", f"$ {' '.join(command)}")
    log = project / "reports" / "demo-service.log"
    with log.open("w") as output:
        service = subprocess.Popen(
            command, cwd=project, env=env, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until_ready(service, url, log)
        yield url
    finally:
        service.terminate()
        try:
            service.wait(timeout=30)
        except subprocess.TimeoutExpired:
            service.kill()


def wait_until_ready(service: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Poll the readiness probe.

    Raises:
        DemoError: If the process ends or the time is over before the service is ready.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise DemoError(f"the service ended with exit code {service.returncode}; see {log}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/readyz", timeout=2).close()
            print(f"    ready at {url}", flush=True)
            return
        time.sleep(0.5)
    raise DemoError(f"the service was not ready within {START_TIMEOUT:.0f} s; see {log}")


def ask(url: str, record: object) -> object:
    """Send one record to the service and give back its answer."""
    request = urllib.request.Request(
        f"{url}/predict",
        data=json.dumps(record).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 when the service answered, 1 when a step failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--task", choices=["classification", "regression"], default="classification"
    )
    parser.add_argument("--out", type=Path, help="where the project goes (default: build/demo-N)")
    options = parser.parse_args(arguments)
    out = (options.out or new_folder(TEMPLATE / "build")).resolve()
    started = time.monotonic()
    try:
        run_demo(out, options.task)
    except DemoError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    print(f"\nAll of it took {time.monotonic() - started:.0f} s.")
    return 0


def run_demo(out: Path, task: str) -> None:
    """Run every step in a new project below `out`.

    Raises:
        DemoError: If a tool is missing, the folder is taken or a step fails.
    """
    check_tools()
    project = out / SLUG
    if project.exists():
        raise DemoError(f"{project} exists; choose another folder with OUT=...")
    out.mkdir(parents=True, exist_ok=True)
    # Where the project's own tasks keep what they build.
    env = {**environment(), "BENTOML_HOME": str(project / "build" / "bentoml")}
    cookiecutter = str(Path(sys.prefix, "bin", "cookiecutter"))
    step(
        "Generate a project", cookiecutter, str(TEMPLATE), "--no-input", "--output-dir", str(out),
        f"task={task}", cwd=out, env=env,
    )  # fmt: skip
    step("Install its locked dependencies", "make", "setup", cwd=project, env=env)
    step("Validate the data, train and evaluate", "make", "pipeline", cwd=project, env=env)
    step("Stage what the run wrote", "git", "add", "--all", cwd=project, env=env)
    step("Commit it", "git", "commit", "-qm", "Train the first model", cwd=project, env=env)
    step(
        "Gate: hold the model against its contract", "make", "gate", "BASE=HEAD~1",
        cwd=project, env=env,
    )  # fmt: skip
    step("Build the bento", "make", "package", cwd=project, env=env)
    golden = json.loads((project / "reports" / "golden.json").read_text(encoding="utf-8"))
    record = golden["records"][0]
    with served(project, bento_tag(project, env), env) as url:
        answer = ask(url, record)
        announce("Ask it", f"POST {url}/predict")
        print(f"    {json.dumps(record)}\n\n    {json.dumps(answer)}")
    print_summary(project, answer)


def print_summary(project: Path, answer: object) -> None:
    """Say what happened and where to look next."""
    metrics = json.loads((project / "reports" / "metrics.json").read_text(encoding="utf-8"))
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
    print(f"""
What happened
  A new repository was generated, its data were validated, a model was trained and held against
  its contract, and a bento was built. The bento answered: {json.dumps(answer)}
  On the test set: {numbers}

Where to look next, in {project}
  README.md                  the map of the project
  reports/gate.md            the verdict, with every term of the contract
  reports/validation.html    what was checked in the data
  reports/plots/             curves and importances
  make serve                 serve it yourself; then open http://127.0.0.1:3000""")


if __name__ == "__main__":
    sys.exit(main())
