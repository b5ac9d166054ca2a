"""A service that answers as it is told to: what `fake_podman` starts for a container."""

from __future__ import annotations

import json
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from typing import Any


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: dict[str, Any]

    def do_GET(self) -> None:
        if self.path == "/release" and "release" in self.behaviour:
            self.answer(200, {key: self.behaviour[key] for key in ("release", "model", "digest")})
        else:
            self.answer(200 if self.path == "/readyz" else 404, None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.behaviour.get("status"):
            self.answer(self.behaviour["status"], {"error": "no"})
        elif isinstance(body, list):
            offset = self.behaviour.get("batch_offset", 0)
            self.answer(200, [self.predict(record, offset) for record in body])
        else:
            self.answer(200, self.predict(body, 0))

    def predict(self, record: dict[str, float], offset: float) -> dict[str, Any]:
        prediction = sum(record.values()) + self.behaviour.get("offset", 0) + offset
        return {"prediction": prediction, **self.behaviour.get("added", {})}

    def answer(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main(behaviour: dict[str, Any]) -> None:
    print("the service starts", flush=True)
    if behaviour.get("crash"):
        sys.exit("the model cannot be read")
    Service.behaviour = behaviour
    Server(("127.0.0.1", behaviour["port"]), Service).serve_forever()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
