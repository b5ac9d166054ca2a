from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand

from gitops_ml.bento import smoke as module
from gitops_ml.bento.smoke import SmokeError, check_golden, check_refusal, parse_golden, same, smoke

main = subcommand("smoke")

MODEL = "ab" * 32
GOLDEN = {
    "records": [{"x": 1}, {"x": 2}],
    "predictions": [
        {"prediction": True, "probabilities": {"false": 0.25, "true": 0.75}},
        {"prediction": False, "probabilities": {"false": 0.6, "true": 0.4}},
    ],
    "tolerance": 1e-5,
}


class Stub:
    """A service with the answers that a test gives it."""

    def __init__(self) -> None:
        self.ready_after = 0
        self.model = MODEL
        self.more: dict[str, Any] = {}
        self.predictions: list[Any] = json.loads(json.dumps(GOLDEN["predictions"]))
        self.bad_status = 422
        self.polls = 0

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/readyz":
            self.polls += 1
            return (200 if self.polls > self.ready_after else 503), ""
        return 200, {"release": "shop:1", "model": {"sha256": self.model}, **self.more}

    def predict(self, body: Any) -> tuple[int, Any]:
        if body == {}:
            return self.bad_status, {"error": "…", "problems": [{"field": "x"}]}
        if isinstance(body, list):
            return 200, self.predictions
        return 200, self.predictions[body["x"] - 1]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return Stub()


@pytest.fixture
def url(stub: Stub) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(*stub.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(*stub.predict(json.loads(body)))

        def reply(self, status: int, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_good_service_passes(stub: Stub, url: str) -> None:
    stub.ready_after = 3

    said = smoke(url, GOLDEN, MODEL[:12], timeout=60)

    assert "shop:1" in said
    assert "all 2 golden predictions" in said


def test_a_service_that_is_never_ready_fails(stub: Stub, url: str) -> None:
    stub.ready_after = 10**9

    with pytest.raises(SmokeError, match=r"not ready after 0\.1 s: /readyz answers 503"):
        smoke(url, GOLDEN, None, timeout=0.1)


def test_no_service_fails() -> None:
    with pytest.raises(SmokeError, match="no answer"):
        smoke("http://127.0.0.1:9", GOLDEN, None, timeout=0)


def test_another_model_fails_with_both_hashes(stub: Stub, url: str) -> None:
    stub.model = "cd" * 32

    with pytest.raises(SmokeError) as error:
        smoke(url, GOLDEN, MODEL, timeout=0.1)

    assert MODEL in str(error.value)
    assert stub.model in str(error.value)


def test_another_release_of_the_same_model_fails_with_both_tags(stub: Stub, url: str) -> None:
    assert "shop:1" in smoke(url, GOLDEN, MODEL, timeout=1, release="shop:1")
    with pytest.raises(SmokeError, match="runs the release shop:1, not shop:2"):
        smoke(url, GOLDEN, MODEL, timeout=0.1, release="shop:2")


@pytest.mark.parametrize("more", [{"digest": "sha256:2"}, {"digest": None}, {}])
def test_another_build_of_the_same_release_fails_with_both_digests(
    stub: Stub, url: str, more: dict[str, Any]
) -> None:
    stub.more = {"digest": "sha256:1"}
    assert "shop:1" in smoke(url, GOLDEN, MODEL, timeout=1, digest="sha256:1")
    stub.more = more
    found = more.get("digest") or "no digest"
    with pytest.raises(SmokeError, match=f"runs shop:1 deployed as {found}, not as sha256:1"):
        smoke(url, GOLDEN, MODEL, timeout=0.1, digest="sha256:1")
    # By hand, on a laptop, nobody has a digest.
    assert "shop:1" in smoke(url, GOLDEN, MODEL, timeout=1)


@pytest.mark.parametrize("said", [b"SSH-2.0-server\r\n", b"", b"HTTP/1.1 200 OK\r\n"])
def test_what_is_no_web_server_fails(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=say, args=(server, said), daemon=True).start()
        with pytest.raises(SmokeError, match="not ready"):
            smoke(f"http://127.0.0.1:{server.getsockname()[1]}", GOLDEN, None, timeout=0)


def say(server: socket.socket, said: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(said)


def test_a_service_that_stops_while_it_is_asked_fails(stub: Stub, url: str) -> None:
    with pytest.raises(SmokeError, match="/predict: no answer"):
        check_golden("http://127.0.0.1:9", GOLDEN)
    with pytest.raises(SmokeError, match="/predict: no answer"):
        check_refusal("http://127.0.0.1:9")


def test_a_batch_that_is_answered_with_no_list_fails(stub: Stub, url: str) -> None:
    right = stub.predictions
    stub.predict = lambda body: (  # type: ignore[method-assign]
        (200, {"prediction": 1}) if isinstance(body, list) else (200, right[body["x"] - 1])
    )
    with pytest.raises(SmokeError, match=r"batch rows: expected 2 predictions, found {"):
        check_golden(url, GOLDEN)


Change = Callable[[list[Any]], Any]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda predictions: predictions[1].update(prediction=True), "row 1"),
        (lambda predictions: predictions[0]["probabilities"].update(true=0.7501), "row 0"),
        (lambda predictions: predictions[0]["probabilities"].pop("true"), "row 0"),
        (lambda predictions: predictions[1].pop("probabilities"), "row 1"),
        (lambda predictions: predictions[1].update(prediction=0), "row 1"),
        (lambda predictions: predictions.append(predictions[0]), "3 predictions for 2 rows"),
    ],
)
def test_a_prediction_that_differs_fails_with_its_row(
    stub: Stub, url: str, change: Change, named: str
) -> None:
    change(stub.predictions)

    with pytest.raises(SmokeError, match=named):
        smoke(url, GOLDEN, None, timeout=1)


def test_what_the_projects_own_code_adds_is_not_compared(stub: Stub, url: str) -> None:
    for answer in stub.predictions:
        answer["route"] = "LGA-PBI"

    assert "all 2 golden predictions" in smoke(url, GOLDEN, None, timeout=1)


def test_a_difference_within_the_tolerance_passes(stub: Stub, url: str) -> None:
    stub.predictions[0]["probabilities"]["true"] += 9e-6

    smoke(url, GOLDEN, None, timeout=1)


@pytest.mark.parametrize("status", [200, 500])
def test_a_service_that_takes_anything_fails(stub: Stub, url: str, status: int) -> None:
    stub.bad_status = status

    with pytest.raises(SmokeError, match=f"answers {status} to an empty record"):
        smoke(url, GOLDEN, None, timeout=1)


@pytest.mark.parametrize(
    ("found", "expected", "equal"),
    [
        (1000.001, 1000.0, True),
        (1001, 1000, False),
        (1, True, False),
        (True, 1, False),
        ("1", 1, False),
        ("a", "a", True),
        (float("nan"), 1.0, False),
        (3, 3, True),
    ],
)
def test_numbers_may_differ_a_little_and_nothing_else(
    found: Any, expected: Any, equal: bool
) -> None:
    assert same(found, expected, 1e-5) is equal


def test_the_command_exits_by_the_result(
    stub: Stub, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps(GOLDEN))
    command = ["--url", url, "--golden", str(golden), "--expect-model-hash", MODEL]
    command += ["--timeout", "1"]

    assert main(command) == 0
    assert "golden" in capsys.readouterr().out
    stub.predictions[0]["prediction"] = False
    assert main(command) == 1
    assert "row 0" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"records": [], "predictions": []}'])
def test_a_broken_golden_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    golden = tmp_path / "golden.json"
    if text is not None:
        golden.write_text(text)

    assert main(["--url", "http://127.0.0.1:9", "--golden", str(golden)]) == 1
    assert "golden.json: " in capsys.readouterr().err


def test_a_bento_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps(GOLDEN))
    command = ["--serve", "no-such-version", "--golden", str(golden)]

    assert main([*command, "--expect-model-hash", MODEL]) == 1
    assert "no such bento; run `make package`" in capsys.readouterr().err


@pytest.mark.parametrize("tolerance", [1e-4, 1e-9])
def test_golden_predictions_say_how_closely_they_are_compared(tolerance: float) -> None:
    text = json.dumps({**GOLDEN, "tolerance": tolerance}).encode()
    assert parse_golden(text, "golden.json")["tolerance"] == tolerance


@pytest.mark.parametrize("tolerance", [0.999, 1.1e-4, 1, 0, -1, None, True, "1e-5", math.nan])
def test_a_tolerance_that_lets_another_model_pass_is_refused(tolerance: object) -> None:
    text = json.dumps({**GOLDEN, "tolerance": tolerance}).encode()
    with pytest.raises(SmokeError, match=r"golden.json: tolerance: .*, must be above 0 and at mos"):
        parse_golden(text, "golden.json")
