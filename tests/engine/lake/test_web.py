from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.lake import web
from gitops_ml.lake.errors import LakeError
from gitops_ml.lake.upstream import Fetched
from gitops_ml.lake.web import web_items

Fetch = Callable[..., Fetched | None]


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Fetch an address, without waiting between attempts."""
    monkeypatch.delenv(web.TOKEN, raising=False)
    patient = web.patiently
    monkeypatch.setattr(
        web, "patiently", lambda task, passes, n: patient(task, passes, n, sleep=lambda _: None)
    )

    def call(address: str, known: str | None = None) -> Fetched | None:
        return web_items(address)[0].fetch(tmp_path, known)

    return call


def test_a_server_that_is_busy_is_asked_again(httpserver: HTTPServer, fetch: Fetch) -> None:
    httpserver.expect_ordered_request("/rows").respond_with_data(status=503)
    httpserver.expect_ordered_request("/rows").respond_with_data(
        b"PAR1", headers={"Last-Modified": "Mon, 01 Jul 2013 00:00:00 GMT"}
    )
    fetched = fetch(httpserver.url_for("/rows"))
    assert fetched is not None
    assert (fetched.path.suffix, fetched.path.read_bytes()) == (".parquet", b"PAR1")
    assert fetched.validator == "Mon, 01 Jul 2013 00:00:00 GMT"


def test_a_server_is_asked_for_what_changed(httpserver: HTTPServer, fetch: Fetch) -> None:
    asked = []

    def answer(request: Request) -> Response:
        asked.append(
            (request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"))
        )
        return Response(status=304)

    httpserver.expect_request("/rows.csv").respond_with_handler(answer)
    address = httpserver.url_for("/rows.csv")
    assert fetch(address, '"1"') is None
    assert fetch(address, "Mon, 01 Jul 2013 00:00:00 GMT") is None
    assert asked == [('"1"', None), (None, "Mon, 01 Jul 2013 00:00:00 GMT")]


def test_a_token_is_sent(
    httpserver: HTTPServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/a.csv", headers={"Authorization": "Bearer word"}).respond_with_data(
        "n\n1\n"
    )
    monkeypatch.setenv(web.TOKEN, "word")
    assert fetch(httpserver.url_for("/a.csv")) is not None


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (404, "the server answers 404; check the address"),
        (403, "access is refused (403): set LAND_HTTP_TOKEN"),
        (500, "the server answers 500, 3 times"),
    ],
)
def test_a_refusal_says_what_to_do(
    httpserver: HTTPServer, fetch: Fetch, status: int, what: str
) -> None:
    httpserver.expect_request("/a.csv").respond_with_data(status=status)
    with pytest.raises(LakeError) as caught:
        fetch(httpserver.url_for("/a.csv?token=word"))
    assert what in str(caught.value)
    assert "word" not in str(caught.value)


def test_an_answer_that_is_cut_off_does_not_land(fetch: Fetch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(web.ATTEMPTS):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nn\n1\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(LakeError, match="the answer was cut off, 3 times"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/a.csv")
        thread.join()


def test_nobody_there(fetch: Fetch) -> None:
    with pytest.raises(LakeError, match=r"http://127\.0\.0\.1:9/a\.csv: cannot be reached: "):
        fetch("http://me:word@127.0.0.1:9/a.csv")
