"""Measure what derived columns cost in the service: the same model with them, and with them given.

    python tools/benchmark_derived.py PROJECT [--rounds 5] [--seconds 2]

PROJECT is a generated project whose pipeline has run (`make setup pipeline`). Two copies of it are
served by its own environment: one as it is, one whose requests carry what the other derives, so
that the model and the numbers it is asked for are the same. Both are asked in turn, in several
rounds; what counts is the ratio within a round, since a busy machine slows both alike. Beside the
requests per second stands the processor time of a request, which other work hardly moves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from benchmark_serving import LOADS, BenchmarkError, load, read_records, wait

DERIVE = """
import json, sys
from pathlib import Path
from gitops_ml.model.predictor import load_predictor
features = load_predictor(Path("models")).features
values = features.derivation.of_records(json.load(sys.stdin))
print(json.dumps({name: column.tolist() for name, column in values.items()}))
"""


@dataclass(frozen=True)
class Measured:
    """One measurement: requests per second, and processor time of a request in microseconds."""

    rate: float
    cost: float


def copy(project: Path, work: Path) -> None:
    """Lay out what the service needs, engine and user's code beside the model as in a bento."""
    shutil.copytree(project / "models", work / "models")
    shutil.copytree(project / "src", work, dirs_exist_ok=True)
    shutil.copytree(project / "engine" / "src" / "gitops_ml", work / "gitops_ml")
    for name in ("schema.yaml", "pyproject.toml"):
        shutil.copy(project / name, work)


def give(work: Path, records: list[dict[str, Any]], python: Path) -> list[dict[str, Any]]:
    """Turn a copy into one whose requests carry what was derived; returns such records."""
    manifest = json.loads((work / "models" / "manifest.json").read_text(encoding="utf-8"))
    done = subprocess.run(
        [str(python), "-c", DERIVE],
        cwd=work,
        env=environment(work),
        input=json.dumps(records),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(done.stderr[-2000:])
    values = json.loads(done.stdout)
    names = {feature["name"] for feature in manifest["features"]}
    given = [
        {name: value for name, value in record.items() if name in names}
        | {name: column[row] for name, column in values.items()}
        for row, record in enumerate(records)
    ]
    schema = yaml.safe_load((work / "schema.yaml").read_text(encoding="utf-8"))
    for entry in manifest["derived"]:
        name = entry.pop("name")
        schema["columns"][name] = {k: v for k, v in entry.items() if k != "inputs"}
    (work / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    plain = {k: v for k, v in manifest.items() if k not in ("derived", "derived_from", "user_code")}
    (work / "models" / "manifest.json").write_text(json.dumps(plain), encoding="utf-8")
    return given


def environment(work: Path) -> dict[str, str]:
    """One thread, checks on, and the engine of the copy."""
    return {
        **os.environ,
        "PYTHONPATH": str(work),
        "BENTOML_HOME": str(work / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def serving(work: Path, python: Path) -> Iterator[tuple[str, int]]:
    """Serve a copy while the block runs; gives the address for requests, and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = work / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(str(python.parent / "bentoml"), "serve", "gitops_ml.serving.service:Service"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            cwd=work,
            env=environment(work),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        base = f"http://127.0.0.1:{port}"
        wait(process, base + "/readyz", log)
        yield base + "/predict", process.pid
    finally:
        process.terminate()
        process.wait(20)


def cpu_seconds(process: int) -> float:
    """The processor time that a server has used, with the processes that it started."""
    used, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            number = int(path.parent.name)
            parents[number] = int(fields[1])
            used[number] = int(fields[11]) + int(fields[12])
    ours = {process}
    while more := {one for one, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(used.get(one, 0) for one in ours) / os.sysconf("SC_CLK_TCK")


def ask(server: tuple[str, int], content: bytes, connections: int, seconds: float) -> Measured:
    """Load a server, and see what that costs.

    Raises:
        BenchmarkError: If it refuses a request.
    """
    url, process = server
    before = cpu_seconds(process)
    result = load(url, content, connections, seconds)
    if result.errors:
        raise BenchmarkError(f"{url}: {result.errors} requests failed")
    return Measured(result.rate, (cpu_seconds(process) - before) / (result.rate * seconds) * 1e6)


def measure(project: Path, rounds: int, seconds: float) -> str:
    """The table of ratios.

    Raises:
        BenchmarkError: If a server does not start or refuses a request.
    """
    python = project / ".venv" / "bin" / "python"
    records = read_records(project)
    found: dict[tuple[int, int], list[tuple[Measured, Measured]]] = {pair: [] for pair in LOADS}
    with tempfile.TemporaryDirectory() as name:
        own, other = Path(name, "derived"), Path(name, "given")
        copy(project, own)
        copy(project, other)
        sides = [(own, records), (other, give(other, records, python))]
        with serving(own, python) as derived, serving(other, python) as given:
            for turn in range(rounds):
                for (rows, connections), pairs in found.items():
                    both = {}
                    # Each side goes first in every other round.
                    for place in (0, 1) if turn % 2 else (1, 0):
                        asked = sides[place][1]
                        chosen = [asked[row % len(asked)] for row in range(rows)]
                        content = json.dumps(chosen).encode()
                        both[place] = ask((derived, given)[place], content, connections, seconds)
                    pairs.append((both[0], both[1]))
    lines = [
        "| rows x connections | derived, 1/s | given, 1/s | ratio of rates | µs | µs | of µs |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (rows, connections), pairs in found.items():
        rates = [statistics.median(pair[side].rate for pair in pairs) for side in (0, 1)]
        costs = [statistics.median(pair[side].cost for pair in pairs) for side in (0, 1)]
        rate = _spread([ours.rate / theirs.rate for ours, theirs in pairs])
        cost = _spread([theirs.cost / ours.cost for ours, theirs in pairs])
        lines.append(
            f"| {rows}x{connections} | {rates[0]:.0f} | {rates[1]:.0f} | {rate} "
            f"| {costs[0]:.0f} | {costs[1]:.0f} | {cost} |"
        )
    return "\n".join(lines)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print the table; 0 if both sides could be measured."""
    parser = argparse.ArgumentParser(description="Measure what derived columns cost in service.")
    parser.add_argument("project", type=Path, help="a generated project whose pipeline has run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    options = parser.parse_args(arguments)
    try:
        print(measure(options.project.resolve(), options.rounds, options.seconds))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
