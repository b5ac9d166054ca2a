"""Measure how fast a generated project serves, beside the alternatives and the references.

    python tools/benchmark_serving.py PROJECT [--rounds 3] [--seconds 3] [--only NAME ...]

PROJECT is a generated project whose pipeline has run (`make pipeline`) and whose model is ONNX.
An environment with the project's locked serving libraries and the references (FastAPI, pandas,
polars, MLflow) is made in a temporary folder. All servers answer the same rows with the same model,
on loopback, one after the other, in several rounds; what is printed are medians over the rounds,
and ratios, since the numbers themselves say more about the machine.

The load comes from wrk when it is installed, else from a slower generator in this file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
REFERENCES = ["fastapi", "mlflow", "pandas", "polars"]
LOADS = [(1, 1), (1, 16), (100, 8)]  # rows of a request, connections
START_SECONDS = 90.0
WRK_SCRIPT = """
local file = io.open("BODY", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %f %f %f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class BenchmarkError(Exception):
    """The benchmark cannot be run; the message is meant for people."""


@dataclass(frozen=True)
class Server:
    """Something that answers.

    Attributes:
        title: What the table calls it.
        command: How it is started; PORT is replaced.
        path: Where requests go.
        body: The form of the requests: records, mlflow or matrix.
        ready: What is asked until it answers.
        model: Which file of the project it serves.
        variables: Environment variables.
    """

    title: str
    command: tuple[str, ...]
    path: str = "/predict"
    body: str = "records"
    ready: str = "/readyz"
    model: str = "model.onnx"
    variables: dict[str, str] = field(default_factory=dict)


def _uvicorn(factory: str) -> tuple[str, ...]:
    application = f"benchmark_servers:{factory}"
    options = ("--factory", "--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning")
    return ("uvicorn", application, *options, "--no-access-log")


def _bentoml(service: str) -> tuple[str, ...]:
    return ("bentoml", "serve", service, "--host", "127.0.0.1", "--port", "PORT")


OWN = _bentoml("gitops_ml.serving.service:Service")
MLFLOW = ("mlflow", "models", "serve", "-m", "MLFLOW_MODEL", "--env-manager", "local")
SERVERS = {
    "mlflow": Server(
        "`mlflow models serve`",
        (*MLFLOW, "-h", "127.0.0.1", "-p", "PORT"),
        "/invocations",
        "mlflow",
        "/ping",
        "model.joblib",
    ),
    "pandas": Server("FastAPI, pydantic rows, pandas, scikit-learn", _uvicorn("fastapi_pandas")),
    "polars": Server("FastAPI, pydantic rows, polars, scikit-learn", _uvicorn("fastapi_polars")),
    "numpy": Server("FastAPI, pydantic rows, numpy, scikit-learn", _uvicorn("fastapi_numpy")),
    "onnx": Server("FastAPI, pydantic rows, numpy, ONNX Runtime", _uvicorn("fastapi_onnx")),
    "bento-score": Server(
        "BentoML API, adaptive batching, encoded rows, scikit-learn",
        _bentoml("benchmark_servers:Documented"),
        "/score",
        "matrix",
    ),
    "bento-predict": Server(
        "BentoML API, pydantic rows, asking the one above",
        _bentoml("benchmark_servers:Documented"),
        body="rows",
    ),
    "own-sklearn-plain": Server(
        "this project, scikit-learn, no batching",
        _bentoml("benchmark_servers:Swapped"),
        model="model.joblib",
    ),
    "own-sklearn": Server("this project, scikit-learn, batching", OWN, model="model.joblib"),
    "own-onnx-batched": Server(
        "this project, ONNX Runtime, batching", _bentoml("benchmark_servers:Swapped")
    ),
    "own": Server("**this project, ONNX Runtime**", OWN),
    "own-2": Server(
        "this project, ONNX Runtime, 2 workers", OWN, variables={"SERVICE_WORKERS": "2"}
    ),
    "ceiling": Server("ceiling: bare Starlette, ONNX Runtime", _uvicorn("ceiling")),
}


@dataclass(frozen=True)
class Result:
    """One measurement: requests per second, and milliseconds at two percentiles."""

    rate: float
    p50: float
    p99: float
    errors: int


def make_environment(project: Path, folder: Path) -> Path:
    """Install the project's locked serving libraries and the references.

    Returns:
        The environment's folder of programs.

    Raises:
        BenchmarkError: If uv is missing or fails.
    """
    options = ["--frozen", "--only-group", "serve", "--no-emit-project", "--no-hashes", "--quiet"]
    requirements = folder / "requirements.txt"
    requirements.write_text(_run(["uv", "export", *options], project), encoding="utf-8")
    venv = folder / "venv"
    _run(["uv", "venv", "--quiet", str(venv)], project)
    install = ["uv", "pip", "install", "--quiet", "--python", str(venv)]
    _run([*install, "-r", str(requirements), *REFERENCES], project)
    return venv / "bin"


def _run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise BenchmarkError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        raise BenchmarkError(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")
    return done.stdout


def read_records(project: Path) -> list[dict[str, Any]]:
    """The golden records of a project.

    Raises:
        BenchmarkError: If its pipeline has not run.
    """
    try:
        golden = json.loads((project / "reports" / "golden.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"{error.filename}: no such file; run `make pipeline`") from error
    records: list[dict[str, Any]] = golden["records"]
    return records


def body(form: str, rows: int, records: list[dict[str, Any]], encoded: list[Any]) -> bytes:
    """A request of so many rows, in the form that a server takes."""
    names = list(records[0])
    chosen = [records[number % len(records)] for number in range(rows)]
    matrix = [encoded[number % len(records)] for number in range(rows)]
    forms: dict[str, Any] = {
        "records": chosen,
        "rows": {"rows": chosen},
        "matrix": {"matrix": matrix},
        "mlflow": {"dataframe_split": {"columns": names, "data": matrix}},
    }
    return json.dumps(forms[form]).encode()


@contextlib.contextmanager
def running(server: Server, project: Path, programs: Path, folder: Path) -> Iterator[str]:
    """Run a server while the block runs; gives the address for requests.

    Raises:
        BenchmarkError: If it does not become ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    replaced = {
        "PORT": str(port),
        "MLFLOW_MODEL": str(folder / "mlflow"),
    }
    command = [replaced.get(part, part) for part in server.command]
    work = folder / server.model
    log = folder / "server.log"
    env = environment(project, programs, folder) | server.variables
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(programs / command[0]), *command[1:]],
            cwd=work,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        base = f"http://127.0.0.1:{port}"
        wait(process, base + server.ready, log)
        yield base + server.path
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):  # nothing of it may disturb the next one
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(project: Path, programs: Path, folder: Path) -> dict[str, str]:
    """The variables of every server: one thread each, checks and log of the project on."""
    sources = (project / "src", project / "engine" / "src", TOOLS)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, sources)),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        "PREDICTION_LOG_DIR": str(folder / "log"),
    }


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=2).close()
            return
        time.sleep(0.2)
    raise BenchmarkError(f"{url} did not answer:\n{log.read_text(errors='replace')[-2000:]}")


def prepare_models(project: Path, programs: Path, folder: Path) -> None:
    """Lay out the project's outputs once for each served file, and the MLflow model."""
    for served in ("model.onnx", "model.joblib"):
        work = folder / served
        shutil.copytree(project / "models", work / "models")
        shutil.copytree(project / "src", work / "src")
        shutil.copytree(project / "engine", work / "engine")
        shutil.copy(project / "pyproject.toml", work)
        (work / "reports").mkdir()
        shutil.copy(project / "reports" / "golden.json", work / "reports")
        shutil.copy(project / "schema.yaml", work)
        manifest = json.loads((work / "models" / "manifest.json").read_text(encoding="utf-8"))
        if served not in manifest["files"]:
            raise BenchmarkError(f"{project}: has no {served}; choose a project with both files")
        manifest["served"] = served
        (work / "models" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    env = environment(project, programs, folder)
    save = f"import benchmark_servers as b; b.save_for_mlflow({str(folder / 'mlflow')!r})"
    _run([str(programs / "python"), "-c", save], folder / "model.joblib", env)


def encode(project: Path, programs: Path, folder: Path) -> list[Any]:
    """The golden records as the matrix that the model takes; missing numbers are null."""
    code = (
        "import benchmark_servers as b, json, numpy as np; "
        "r = json.load(open('reports/golden.json'))['records']; "
        "m = b.features().from_records(r).astype(object); m[m != m] = None; "
        "print(json.dumps(m.tolist()))"
    )
    env = environment(project, programs, folder)
    encoded: list[Any] = json.loads(
        _run([str(programs / "python"), "-c", code], folder / "model.onnx", env)
    )
    return encoded


def load(url: str, content: bytes, connections: int, seconds: float) -> Result:
    """Send the same request over and over for so many seconds."""
    if shutil.which("wrk") is None:
        return asyncio.run(_load_from_python(url, content, connections, seconds))
    with tempfile.TemporaryDirectory() as folder:
        request, script = Path(folder, "body.json"), Path(folder, "post.lua")
        request.write_bytes(content)
        script.write_text(WRK_SCRIPT.replace("BODY", str(request)), encoding="utf-8")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url]
        line = next(line for line in _run(command, TOOLS).splitlines() if line.startswith("RESULT"))
    _, rate, p50, p99, errors = line.split()
    return Result(float(rate), float(p50), float(p99), int(errors))


async def _load_from_python(url: str, content: bytes, connections: int, seconds: float) -> Result:
    host, _, port = url.split("/")[2].partition(":")
    path = "/" + url.split("/", 3)[3]
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content
    times: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < end:
            started = time.perf_counter()
            writer.write(request)
            header = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(header.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
            times.append(time.perf_counter() - started)
            errors += b" 200 " not in header.split(b"\r\n")[0]
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    times.sort()
    p50, p99 = (1e3 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    return Result(len(times) / seconds, p50, p99, errors)


def measure(options: argparse.Namespace) -> dict[str, dict[tuple[int, int], list[Result]]]:
    """Run all servers, round by round.

    Raises:
        BenchmarkError: If a server does not start.
    """
    project = options.project.resolve()
    records = read_records(project)
    results: dict[str, dict[tuple[int, int], list[Result]]] = {
        name: {pair: [] for pair in LOADS} for name in options.only or SERVERS
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("Making the environment ...", file=sys.stderr)
        programs = make_environment(project, folder)
        prepare_models(project, programs, folder)
        encoded = encode(project, programs, folder)
        for turn in range(options.rounds):
            for key, found in results.items():
                server = SERVERS[key]
                own = folder / server.model
                with running(server, own, programs, folder) as url:
                    for (rows, connections), measured in found.items():
                        content = body(server.body, rows, records, encoded)
                        load(url, content, connections, min(1.0, options.seconds))
                        measured.append(load(url, content, connections, options.seconds))
                rates = " ".join(f"{found[pair][-1].rate:.0f}" for pair in LOADS)
                print(f"round {turn + 1}: {key}: {rates}", file=sys.stderr, flush=True)
                shutil.rmtree(folder / "log", ignore_errors=True)
    return results


def report(results: dict[str, dict[tuple[int, int], list[Result]]]) -> str:
    """The table: for each load, requests per second and milliseconds, as medians."""
    heads = [f"{rows}x{connections}" for rows, connections in LOADS]
    lines = [
        "| server | " + " | ".join(f"{head}: 1/s (p50, p99 ms)" for head in heads) + " |",
        "|---" * (len(LOADS) + 1) + "|",
    ]
    for key, found in results.items():
        cells = []
        for pair in LOADS:
            rate, p50, p99, errors = (
                statistics.median(getattr(result, name) for result in found[pair])
                for name in ("rate", "p50", "p99", "errors")
            )
            cell = f"{rate:.0f} ({_short(p50)}, {_short(p99)})"
            cells.append(cell + (f" {errors:.0f} errors" if errors else ""))
        lines.append(f"| {SERVERS[key].title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *ratios(results)])


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def ratios(results: dict[str, dict[tuple[int, int], list[Result]]]) -> list[str]:
    """This project beside the references; the median of the rounds' ratios."""
    lines = []
    for key in ("mlflow", "pandas", "ceiling"):
        if not {key, "own"} <= results.keys():
            continue
        parts = []
        for pair in LOADS:
            each = [
                own.rate / other.rate
                for own, other in zip(results["own"][pair], results[key][pair], strict=True)
            ]
            parts.append(
                f"{statistics.median(each):.2f} at {pair[0]}x{pair[1]}"
                f" ({min(each):.2f} to {max(each):.2f})"
            )
        lines.append(f"this project / {SERVERS[key].title}: " + ", ".join(parts))
    if "own" in results:
        tails = [
            f"{statistics.median(r.p99 / r.p50 for r in results['own'][pair]):.1f}"
            f" at {pair[0]}x{pair[1]}"
            for pair in LOADS
        ]
        lines.append("this project, p99 / p50: " + ", ".join(tails))
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print the table; 0 if every server could be measured."""
    parser = argparse.ArgumentParser(description="Measure how fast a generated project serves.")
    parser.add_argument("project", type=Path, help="a generated project whose pipeline has run")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 21), metavar="1-20")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (at most 60)")
    parser.add_argument("--only", nargs="+", choices=SERVERS, metavar="NAME", help="these only")
    options = parser.parse_args(arguments)
    options.seconds = min(options.seconds, 60.0)
    try:
        print(report(measure(options)))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
