"""The generated project's service, packaged and running: answers, refusals, faults, thinness."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import sources_of
from ports import free_port

pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]
Bake = Callable[..., Path]

SERVICE = "gitops_ml.serving.service:Service"
# scikit-learn's own answers to test rows, to compare the service's with.
EXPECTED = """
import io, json, joblib, polars as pl
from pathlib import Path
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model.evaluate import json_value
from gitops_ml.model.predictor import load_predictor
rows = pl.read_parquet("data/split/test.parquet").head(300)
predictor = load_predictor(Path("models"))
manifest, features = predictor.manifest, predictor.features
records = [
    {name: json_value(value) for name, value in row.items()}
    for row in rows.select(features.inputs).to_dicts()
]
model = joblib.load("models/model.joblib")
matrix = matrix_of(rows, features)
assert features.from_records(records).tobytes() == matrix.tobytes()
classifier = manifest["classes"] is not None
answers = (model.predict_proba if classifier else model.predict)(matrix).tolist()
print(json.dumps({"records": records, "answers": answers, "served": manifest["served"]}))
"""
FORBIDDEN = {"dvc", "matplotlib", "mlflow", "onnx", "pandas", "pandera", "polars", "skl2onnx"}


@dataclass(frozen=True)
class Packaged:
    """A project whose bento was built."""

    project: Path
    tag: str

    @property
    def folder(self) -> Path:
        """Where the bento is."""
        name, version = self.tag.split(":")
        return self.project.parent / "bentoml" / "bentos" / name / version


@dataclass
class Service:
    """A service that runs in the background."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """GET, or POST a body: bytes as they are, anything else as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode()

    def metric(self, name: str) -> float:
        """A sample of /metrics; 0 when it is not there."""
        _, text = self.ask("/metrics")
        found = [line for line in str(text).splitlines() if line.startswith(f"{name} ")]
        return float(found[0].split()[1]) if found else 0.0


@contextlib.contextmanager
def serving(
    target: str, project: Path, env: Mapping[str, str], **variables: str
) -> Iterator[Service]:
    """Run `bentoml serve` as users do, until the block ends."""
    port = free_port()
    log = project.parent / f"service-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)],
            cwd=project,
            env={
                **env,
                "BENTOML_HOME": str(project.parent / f"home-{port}"),
                "PYTHONPATH": sources_of(project),
                **variables,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(lambda: ready(service), 60)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ready(service: Service) -> bool:
    assert service.process.poll() is None, service.log.read_text()
    try:
        return service.ask("/readyz")[0] == 200
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def package(
    _pipeline_runs: Callable[[str], Path],
    project_run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Packaged]:
    """The bento of each task, and of a model that ONNX cannot express; not to be changed."""
    packaged: dict[str, Packaged] = {}

    def build(kind: str) -> Packaged:
        if kind not in packaged:
            source = _pipeline_runs("classification" if kind == "joblib" else kind)
            project = tmp_path_factory.mktemp(kind) / source.name
            shutil.copytree(source, project, symlinks=True)
            if kind == "joblib":
                use_an_estimator_without_converter(project, project_run)
            done = project_run(project, "make", "package", check=True)
            packaged[kind] = Packaged(project, done.stdout.splitlines()[-1])
        return packaged[kind]

    return build


def use_an_estimator_without_converter(project: Path, project_run: Run) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train"] |= {
        "estimator": "sklearn.neighbors.NearestCentroid",
        "hyperparameters": {},
        "preprocessing": {"categories": "one_hot", "missing": "median", "scale": True},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    project_run(project, "dvc", "repro", check=True)
    project_run(project, "git", "commit", "-qam", "Use another estimator", check=True)


@pytest.fixture(scope="session")
def bento(
    package: Callable[[str], Packaged], project_env: Mapping[str, str]
) -> Iterator[tuple[Service, list[dict[str, Any]]]]:
    """The running bento of the classification project, and its golden records."""
    packaged = package("classification")
    golden = json.loads((packaged.project / "reports" / "golden.json").read_text())
    with serving(str(packaged.folder), packaged.project, project_env) as service:
        yield service, golden["records"]


KINDS = [
    ("classification", "model.onnx"),
    ("regression", "model.onnx"),
    ("joblib", "model.joblib"),
]


@pytest.mark.parametrize(("kind", "served"), KINDS)
def test_the_bento_answers_as_the_trained_model(
    package: Callable[[str], Packaged],
    project_run: Run,
    project_env: Mapping[str, str],
    kind: str,
    served: str,
) -> None:
    packaged = package(kind)
    done = project_run(packaged.project, "python", "-c", EXPECTED, check=True)
    expected = json.loads(done.stdout)
    assert expected["served"] == served

    with serving(str(packaged.folder), packaged.project, project_env) as service:
        status, answers = service.ask("/predict", expected["records"])

    assert status == 200
    assert len(answers) == 300
    for answer, right in zip(answers, expected["answers"], strict=True):
        found = answer.get("probabilities")
        pairs = (
            zip(found.values(), right, strict=True) if found else [(answer["prediction"], right)]
        )
        assert all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5) for a, b in pairs), (
            answer,
            right,
        )


@pytest.mark.parametrize(("kind", "served"), KINDS)
def test_the_bento_passes_the_smoke_test(
    package: Callable[[str], Packaged], project_run: Run, kind: str, served: str
) -> None:
    packaged = package(kind)

    done = project_run(packaged.project, "make", "smoke-bento")

    assert done.returncode == 0, done.stdout + done.stderr
    assert packaged.tag in done.stdout
    assert (packaged.folder / "src" / "models" / served).is_file()


def test_the_smoke_test_notices_another_model(
    package: Callable[[str], Packaged], project_run: Run, tmp_path: Path
) -> None:
    project = package("classification").project
    golden = json.loads((project / "reports" / "golden.json").read_text())
    golden["predictions"][3]["probabilities"]["true"] += 0.001
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    smoke = ("gitops-ml", "smoke", "--serve", "latest")

    done = project_run(project, *smoke, "--golden", str(tmp_path / "golden.json"))
    assert done.returncode == 1
    assert "row 3: expected" in done.stderr

    done = project_run(project, *smoke, "--expect-model-hash", "0" * 64, "--timeout", "8")
    assert done.returncode == 1
    assert "it runs the model" in done.stderr


def test_the_release_says_what_was_packaged(
    package: Callable[[str], Packaged], bento: tuple[Service, Any], run: Run
) -> None:
    packaged = package("classification")
    _, release = bento[0].ask("/release")

    head = run(["git", "rev-parse", "HEAD"], packaged.project).stdout.strip()
    lock = yaml.safe_load((packaged.project / "dvc.lock").read_text())
    (ingested,) = lock["stages"]["ingest"]["outs"][:1]
    manifest = json.loads((packaged.project / "models" / "manifest.json").read_text())
    assert release["release"] == packaged.tag
    assert release["source"] == {"commit": head, "dirty": False}
    assert release["model"]["sha256"] == manifest["files"]["model.onnx"]
    assert release["data"]["md5"] == ingested["md5"]
    assert release["metrics"] == json.loads(
        (packaged.project / "reports" / "metrics.json").read_text()
    )


def test_the_same_commit_and_model_have_the_same_tag(
    package: Callable[[str], Packaged], project_run: Run
) -> None:
    packaged = package("classification")

    again = project_run(packaged.project, "make", "package", check=True)

    assert again.stdout.splitlines()[-1] == packaged.tag


def test_a_stale_model_is_not_packaged(pipelined: Bake, project_run: Run) -> None:
    project = pipelined()
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("max_iter: 150", "max_iter: 151"))

    done = project_run(project, "make", "package")

    assert done.returncode != 0
    assert "params.yaml" in done.stderr
    assert "make pipeline" in done.stderr
    assert "Traceback" not in done.stderr


BAD_BODIES: list[tuple[str, Any, int]] = [
    ("empty", b"", 400),
    ("not JSON", b"carrier=AA", 400),
    ("cut off", b'{"carrier": "AA"', 400),
    ("not UTF-8", b'{"carrier": "\xff"}', 400),
    ("deeply nested", b"[" * 1_000_000, 400),
    ("a number", b"1", 422),
    ("null", b"null", 422),
    ("an empty object", {}, 422),
    ("an empty array", [], 422),
    ("an array of numbers", [1, 2], 422),
    ("a body of 9 MB", b" " * 9_000_000, 413),
]


@pytest.mark.parametrize(("body", "status"), [case[1:] for case in BAD_BODIES], ids=[
    case[0] for case in BAD_BODIES
])  # fmt: skip
def test_bad_bodies_are_refused(bento: tuple[Service, Any], body: Any, status: int) -> None:
    found, answer = bento[0].ask("/predict", body)

    assert found == status
    assert answer["error"]


BAD_FIELDS: list[tuple[str, Any]] = [
    ("carrier", "XX"),
    ("carrier", None),
    ("distance", "300"),
    ("distance", True),
    ("distance", 300.5),
    ("distance", 0),
    ("distance", 1e308),
    ("distance", math.nan),
    ("temperature", math.inf),
    ("temperature", [1]),
    ("destination", 7),
    ("late", True),
    ("arrival_delay", 3),
    ("tailnum", "N1"),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_bad_field_is_named(
    bento: tuple[Service, list[dict[str, Any]]], field: str, value: Any
) -> None:
    service, records = bento
    status, answer = service.ask("/predict", [records[0], records[1] | {field: value}])

    assert status == 422
    assert [(p["row"], p["field"]) for p in answer["problems"]] == [(1, field)]


def test_a_hundred_thousand_rows_are_refused_soon(
    bento: tuple[Service, list[dict[str, Any]]],
) -> None:
    service, records = bento
    body = json.dumps([records[0]] * 100_000).encode()
    started = time.monotonic()
    status, _ = service.ask("/predict", body)

    assert status == 413
    assert time.monotonic() - started < 60
    assert service.ask("/predict", records[0])[0] == 200


def test_ten_thousand_rows_are_answered(bento: tuple[Service, list[dict[str, Any]]]) -> None:
    service, records = bento
    status, answers = service.ask("/predict", records * 500)

    assert status == 200
    assert len(answers) == 10_000


def test_no_change_to_a_request_makes_the_service_fail(
    bento: tuple[Service, list[dict[str, Any]]],
) -> None:
    service, records = bento
    chance = random.Random(1)
    values = [
        None, True, -1, 0, 2**63, 10**400, 1e308, -0.0, 1e-320, math.nan, "", "\x00", "é" * 5000,
        "AA", [], {}, [[]], {"a": None}, "NaN", "1",
    ]  # fmt: skip
    statuses = set()
    for _ in range(400):
        record = dict(chance.choice(records))
        for _ in range(chance.randint(1, 3)):
            name = chance.choice([*record, "other"])
            record[name] = chance.choice(values)
            if chance.random() < 0.2:
                del record[name]
        body = json.dumps([record] * chance.randint(1, 3))
        if chance.random() < 0.2:
            place = chance.randrange(len(body))
            body = body[:place] + chance.choice(["", "}", '"', "\\", ",", "é"]) + body[place + 1 :]
        statuses.add(service.ask("/predict", body.encode())[0])

    assert statuses <= {200, 400, 422}
    assert len(statuses) == 3


def test_methods_and_paths_that_do_not_exist(bento: tuple[Service, Any]) -> None:
    service = bento[0]

    assert service.ask("/predict")[0] == 405
    assert service.ask("/score", {})[0] == 404
    assert service.ask("/schema.json")[0] == 404


def test_probes_documentation_and_metrics(bento: tuple[Service, list[dict[str, Any]]]) -> None:
    service, records = bento
    requests = 'service_request_seconds_count{endpoint="/predict",status="200"}'
    late = 'service_predictions_total{prediction="true"}'
    before = service.metric(requests), service.metric(late)
    _, answers = service.ask("/predict", records)
    found = sum(answer["prediction"] is True for answer in answers)

    assert service.metric(requests) == before[0] + 1
    assert service.metric(late) == before[1] + found
    assert service.ask("/livez")[0] == 200
    assert "swagger" in service.ask("/")[1].lower()
    _, document = service.ask("/docs.json")
    carrier = document["components"]["schemas"]["Record"]["properties"]["carrier"]
    assert "AA" in carrier["enum"]


def test_metrics_count_over_all_workers(
    package: Callable[[str], Packaged], project_env: Mapping[str, str]
) -> None:
    packaged = package("classification")
    golden = json.loads((packaged.project / "reports" / "golden.json").read_text())
    target = str(packaged.folder)
    with serving(target, packaged.project, project_env, SERVICE_WORKERS="2") as service:
        for _ in range(60):
            assert service.ask("/predict", golden["records"][0])[0] == 200
        name = 'service_request_seconds_count{endpoint="/predict",status="200"}'
        assert [service.metric(name) for _ in range(10)] == [60] * 10


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # DVC may share the file with its cache
    path.write_bytes(content)


def serve_in_vain(
    run: Run, project: Path, env: Mapping[str, str], target: str, **variables: str
) -> str:
    """Start a service that must refuse to; what it said."""
    command = ["bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(free_port())]
    own = {"PYTHONPATH": sources_of(project), "BENTOML_HOME": str(project.parent / "bentoml")}
    done = run(command, project, {**env, **own, **variables}, timeout=300)
    assert done.returncode not in (0, None)
    said = done.stdout + done.stderr
    assert "The service cannot start." in said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("kind", ["classification", "joblib"])
def test_a_damaged_model_is_not_served(
    package: Callable[[str], Packaged],
    project_env: Mapping[str, str],
    run: Run,
    tmp_path: Path,
    kind: str,
) -> None:
    packaged = package(kind)
    copy = tmp_path / "bento"
    shutil.copytree(packaged.folder, copy)
    (model,) = (copy / "src" / "models").glob("model.*")
    damage(model)

    said = serve_in_vain(run, packaged.project, project_env, str(copy))

    assert f"{model.name}: is not the model that manifest.json records" in said


def test_without_a_model_nothing_is_served(
    bake: Bake, project_env: Mapping[str, str], run: Run
) -> None:
    said = serve_in_vain(run, bake(), project_env, SERVICE)

    assert "manifest.json: no such file; run `make pipeline`" in said


def test_a_bad_setting_is_named(
    package: Callable[[str], Packaged], project_env: Mapping[str, str], run: Run
) -> None:
    packaged = package("classification")

    said = serve_in_vain(
        run, packaged.project, project_env, str(packaged.folder), SERVICE_WORKERS="many"
    )

    assert "SERVICE_WORKERS" in said


@pytest.mark.parametrize("variable", ["EXPECTED_RELEASE", "EXPECTED_MODEL_SHA256"])
def test_another_release_than_the_deployed_one_is_not_served(
    package: Callable[[str], Packaged],
    project_env: Mapping[str, str],
    run: Run,
    variable: str,
) -> None:
    packaged = package("classification")
    released = json.loads((packaged.folder / "src" / "release.json").read_text())
    expected = {
        "EXPECTED_RELEASE": released["release"],
        "EXPECTED_MODEL_SHA256": released["model"]["sha256"],
    }
    other = "0" * 64
    found = expected[variable]

    said = serve_in_vain(
        run, packaged.project, project_env, str(packaged.folder), **{**expected, variable: other}
    )

    assert f"{variable} is {other}, but {found} is here" in said


def test_the_deployed_release_is_served(
    package: Callable[[str], Packaged], project_env: Mapping[str, str]
) -> None:
    packaged = package("classification")
    manifest = json.loads((packaged.project / "models" / "manifest.json").read_text())
    expected = {
        "EXPECTED_RELEASE": packaged.tag,
        "EXPECTED_MODEL_SHA256": manifest["files"]["model.onnx"],
    }
    with serving(str(packaged.folder), packaged.project, project_env, **expected) as service:
        assert service.ask("/release")[1]["release"] == packaged.tag


def read_log(folder: Path) -> list[dict[str, Any]]:
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.open()]
    return [json.loads(line) for line in lines]


def test_predictions_are_logged_to_the_last_one(
    package: Callable[[str], Packaged], project_env: Mapping[str, str], tmp_path: Path
) -> None:
    packaged = package("classification")
    golden = json.loads((packaged.project / "reports" / "golden.json").read_text())
    log = {"PREDICTION_LOG_DIR": str(tmp_path / "log")}
    with serving(str(packaged.folder), packaged.project, project_env, **log) as service:
        answers = [service.ask("/predict", record)[1] for record in golden["records"]]
        service.ask("/predict", {})

    lines = read_log(tmp_path / "log")
    assert [line["records"] for line in lines] == [[record] for record in golden["records"]]
    assert [line["predictions"] for line in lines] == [[answer] for answer in answers]
    assert {line["release"] for line in lines} == {packaged.tag}


def test_the_monitor_reads_what_the_service_logs_and_sees_a_change_of_unit(
    package: Callable[[str], Packaged],
    project_env: Mapping[str, str],
    project_run: Run,
    tmp_path: Path,
) -> None:
    packaged = package("classification")
    reports = packaged.project / "reports"
    inputs = list(json.loads((reports / "golden.json").read_text())["records"][0])
    rows = pl.read_parquet(packaged.project / "data" / "ingested.parquet").select(inputs)
    rows = rows.filter(pl.col("scheduled_hour") >= datetime(2013, 5, 20, tzinfo=UTC))
    summer = datetime(2013, 6, 10, tzinfo=UTC)
    log = tmp_path / "log"

    def ask(service: Service, rows: pl.DataFrame) -> None:
        for some in rows.iter_slices(2_000):
            body = json.dumps(some.to_dicts(), default=datetime.isoformat).encode()
            status, answers = service.ask("/predict", body)
            assert status == 200, answers

    def monitor() -> tuple[int, dict[str, Any]]:
        done = project_run(packaged.project, "gitops-ml", "monitor", "--log", str(log))
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads((reports / "monitor.json").read_text())

    logged = {"PREDICTION_LOG_DIR": str(log)}
    with serving(str(packaged.folder), packaged.project, project_env, **logged) as service:
        ask(service, rows.filter(pl.col("scheduled_hour") < summer))
        status, report = monitor()
        assert (status, report["status"]) == (0, "quiet"), report
        judged = [window for window in report["windows"] if window["why_not"] is None]
        assert len(judged) >= 2
        assert all(window["labelled"] > 0 for window in judged)

        celsius = (pl.col("temperature") - 32) * 5 / 9
        ask(
            service,
            rows.filter(pl.col("scheduled_hour") >= summer).with_columns(temperature=celsius),
        )
        status, report = monitor()
    assert (status, report["status"]) == (3, "drift"), report
    assert "temperature" in json.dumps(report["acting"])
    assert "temperature" in (reports / "monitor.html").read_text(encoding="utf-8")


def test_a_log_that_cannot_be_written_harms_no_request(
    package: Callable[[str], Packaged], project_env: Mapping[str, str], tmp_path: Path
) -> None:
    packaged = package("classification")
    golden = json.loads((packaged.project / "reports" / "golden.json").read_text())
    (tmp_path / "file").write_text("in the way")
    log = {"PREDICTION_LOG_DIR": str(tmp_path / "file" / "log")}
    with serving(str(packaged.folder), packaged.project, project_env, **log) as service:
        for _ in range(20):
            assert service.ask("/predict", golden["records"])[0] == 200
        lost = 'service_log_dropped_rows_total{reason="write_failed"}'
        wait_until(lambda: service.metric(lost) == 20 * len(golden["records"]), 10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_harms_no_request(
    package: Callable[[str], Packaged], project_env: Mapping[str, str], tmp_path: Path
) -> None:
    packaged = package("classification")
    golden = json.loads((packaged.project / "reports" / "golden.json").read_text())
    # Every file that the log opens is the device that is always full.
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib\n"
        "real = pathlib.Path.open\n"
        "def full(self, mode='r', *a, **k):\n"
        "    device = pathlib.Path('/dev/full') if mode == 'xb' else self\n"
        "    return real(device, 'wb' if mode == 'xb' else mode, *a, **k)\n"
        "pathlib.Path.open = full\n"
    )
    variables = {
        "PREDICTION_LOG_DIR": str(tmp_path / "log"),
        "PYTHONPATH": f"{sources_of(packaged.project)}{os.pathsep}{tmp_path}",
    }
    with serving(str(packaged.folder), packaged.project, project_env, **variables) as service:
        for _ in range(5):
            assert service.ask("/predict", golden["records"])[0] == 200
        lost = 'service_log_dropped_rows_total{reason="write_failed"}'
        wait_until(lambda: service.metric(lost) == 5 * len(golden["records"]), 10)
        assert "No space left on device" in service.log.read_text()


def taken(port: int) -> int:
    """How many connections a service has taken, and read all that has come on them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # local address, remote address, state, queues, ..., inode: none as long as nobody took it
    return sum(
        int(local.rpartition(":")[2], 16) == port
        and state == "01"
        and queues.endswith(":00000000")
        and inode != "0"
        for _, local, _, state, queues, _, _, _, _, inode, *_ in rows
    )


def test_requests_under_way_are_answered_before_the_service_stops(
    package: Callable[[str], Packaged], project_env: Mapping[str, str]
) -> None:
    packaged = package("joblib")
    golden = json.loads((packaged.project / "reports" / "golden.json").read_text())
    # Written once: who writes for long asks when others have been answered.
    body = json.dumps(golden["records"] * 500).encode()
    statuses: list[int] = []
    with serving(str(packaged.folder), packaged.project, project_env) as service:

        def ask() -> None:
            statuses.append(service.ask("/predict", body)[0])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        port = int(service.url.rpartition(":")[2])
        wait_until(lambda: taken(port) == 4, 30)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert service.process.wait(60) == 0

    assert statuses == [200] * 4


def test_the_bento_runs_on_its_own_requirements_alone(
    package: Callable[[str], Packaged],
    project_env: Mapping[str, str],
    project_run: Run,
    run: Run,
    tmp_path: Path,
) -> None:
    packaged = package("classification")
    venv = tmp_path / "venv"
    requirements = packaged.folder / "env" / "python" / "requirements.txt"
    install = ["uv", "pip", "install", "--quiet", "--python", str(venv), "-r", str(requirements)]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    run(["uv", "venv", "--quiet", "--python", version, str(venv)], tmp_path, check=True)
    run(install, tmp_path, check=True)
    listing = run(
        ["uv", "pip", "list", "--python", str(venv), "--format", "json"], tmp_path, check=True
    )
    installed = {entry["name"] for entry in json.loads(listing.stdout)}
    assert "bentoml" in installed
    assert not installed & FORBIDDEN

    bento = tmp_path / "elsewhere" / "bento"
    shutil.copytree(packaged.folder, bento)
    env = {
        "PATH": os.pathsep.join([str(venv / "bin"), "/usr/bin", "/bin"]),
        "HOME": str(tmp_path),
        "BENTOML_DO_NOT_TRACK": "true",
    }
    with serving(str(bento), bento, env, PYTHONPATH="") as service:
        done = project_run(packaged.project, "make", "smoke", f"URL={service.url}", "RUN=")
        assert done.returncode == 0, done.stdout + done.stderr
        assert packaged.tag in done.stdout
