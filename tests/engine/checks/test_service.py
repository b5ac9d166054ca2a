from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from checking import Values, checks_of

from gitops_ml.bento.smoke import SmokeError, serving, wait_for
from gitops_ml.checks.fixtures import SERVICE
from gitops_ml.checks.service import ServiceChecks

Make = Callable[..., Values]

# Each check with one set of its parameters.
CHECKS: dict[str, dict[str, Any]] = {
    "test_it_gives_the_golden_predictions": {},
    "test_it_says_which_model_runs": {},
    "test_it_is_alive_and_ready": {},
    "test_its_documentation_has_the_features": {},
    "test_a_missing_feature_is_named": {},
    "test_a_value_of_no_type_is_named": {"value": [1]},
    "test_values_out_of_range_are_named": {},
    "test_null_is_taken_where_the_schema_says_so": {},
    "test_not_a_number_is_refused": {},
    "test_bad_bodies_are_refused": {"body": b"not JSON", "status": 400},
    "test_wrong_methods_are_refused": {},
    "test_predictions_are_counted": {},
}
# What a service says that takes everything, and counts nothing.
CARELESS = {
    "/livez": (503, ""),
    "/readyz": (200, ""),
    "/release": (200, {"model": {"sha256": "0" * 64}, "release": "shop:1", "digest": None}),
    "/docs.json": (200, {"components": {"schemas": {"Record": {"properties": {"x": {}}}}}}),
    "/predict": (200, [{"prediction": True, "probabilities": {"false": 0.5, "true": 0.5}}]),
    "/metrics": (200, ""),
}


@pytest.fixture
def careless() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, answer = CARELESS[self.path]
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self.do_GET
            raise AttributeError(name)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def live(shop: Callable[[], Path]) -> Iterator[str]:
    """The service of the small project."""
    with contextlib.ExitStack() as stack:
        with contextlib.chdir(shop()):
            url = stack.enter_context(serving(SERVICE))
        wait_for(url, None, timeout=120)
        yield url


def test_every_check_is_named() -> None:
    assert sorted(CHECKS) == checks_of(ServiceChecks)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_holds_for_the_service(values: Make, live: str, name: str) -> None:
    values().call(ServiceChecks, name, service=live, **CHECKS[name])


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_fails_for_a_careless_service(values: Make, careless: str, name: str) -> None:
    with pytest.raises((AssertionError, SmokeError)):
        values().call(ServiceChecks, name, service=careless, **CHECKS[name])
