"""A service of a few lines, for tests of what is around it: its answers are set by the image.

OWN_RELEASE, OWN_MODEL  what it is; it refuses to start when EXPECTED_... says otherwise
RELEASE_DIGEST          what it was deployed as; told to it by what deploys it
OFFSET                  is added to every prediction
FAULT                   crash, deaf (never ready), liar (another model), mute (no digest)
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

RELEASE, MODEL = os.environ["OWN_RELEASE"], os.environ["OWN_MODEL"]
OFFSET = float(os.environ.get("OFFSET", "0"))
FAULT = os.environ.get("FAULT", "")


class Service(BaseHTTPRequestHandler):
    """Answers on one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Probes, what it is, and what it finds around it."""
        if self.path == "/readyz":
            self.answer(503 if FAULT == "deaf" else 200, None)
        elif self.path == "/release":
            told = "0" * 64 if FAULT == "liar" else MODEL
            digest = None if FAULT == "mute" else os.environ.get("RELEASE_DIGEST")
            self.answer(200, {"release": RELEASE, "model": {"sha256": told}, "digest": digest})
        elif self.path == "/writes":
            self.answer(200, {path: writable(path) for path in ("/tmp/probe", "/probe")})
        else:
            self.answer(404, None)

    def do_POST(self) -> None:
        """Predict for a record or a list of them; `seconds` says how long that takes."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = [predict(row) for row in body] if isinstance(body, list) else predict(body)
        self.answer(200, found)

    def answer(self, status: int, value: Any) -> None:
        """Send JSON, and who sends it."""
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Release", RELEASE)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


class Server(socketserver.ThreadingTCPServer):
    """Accepts many connections at once."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


def predict(record: dict[str, float]) -> dict[str, float]:
    """The sum, after a while."""
    time.sleep(record.get("seconds", 0))
    return {"prediction": record["x"] + OFFSET}


def writable(path: str) -> bool:
    """Whether a file can be made."""
    try:
        with open(path, "w"):  # noqa: PTH123 - pathlib takes long to import
            return True
    except OSError:
        return False


def main() -> None:
    """Serve on port 3000, like the real one."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for name, own in (("EXPECTED_RELEASE", RELEASE), ("EXPECTED_MODEL_SHA256", MODEL)):
        if os.environ.get(name) != own:
            sys.exit(f"{name} is {os.environ.get(name)}, but this is {own}")
    if FAULT == "crash":
        sys.exit("the model cannot be read")
    Server(("0.0.0.0", 3000), Service).serve_forever()


if __name__ == "__main__":
    main()
