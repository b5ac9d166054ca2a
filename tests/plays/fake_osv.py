"""OSV, played: it knows the advisories that a test gives it. https://google.github.io/osv.dev/api/"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response


@dataclass
class FakeOsv:
    """What it knows, and what it was asked.

    Attributes:
        known: The names of the advisories for a package: ecosystem, name, version.
        records: The advisories.
        asked: The packages that it was asked for.
        page: How many names it gives at once.
    """

    server: HTTPServer
    known: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    page: int = 1000

    def __post_init__(self) -> None:
        self.server.expect_request("/v1/querybatch").respond_with_handler(self._batch)
        self.server.expect_request(re.compile("/v1/vulns/.*")).respond_with_handler(self._record)

    @property
    def url(self) -> str:
        return self.server.url_for("").rstrip("/")

    def add(
        self, package: tuple[str, str, str], name: str, fixed: str | None = None, **more: Any
    ) -> None:
        """Let an advisory be known for a package."""
        ecosystem, called, _ = package
        events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
        affected = {
            "package": {"ecosystem": ecosystem, "name": called},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        self.known.setdefault(package, []).append(name)
        self.records[name] = {
            "schema_version": "1.7.0",
            "id": name,
            "modified": "2026-11-01T00:00:00Z",
            "published": "2026-11-01T00:00:00Z",
            "summary": "reads too far",
            "affected": [affected],
            **more,
        }

    def _batch(self, request: Request) -> Response:
        return _json({"results": [self._answer(one) for one in request.json["queries"]]})

    def _answer(self, query: dict[str, Any]) -> dict[str, Any]:
        package = (query["package"]["ecosystem"], query["package"]["name"], query["version"])
        self.asked.append(package)
        start = int(query.get("page_token", 0))
        names = self.known.get(package, [])
        here = names[start : start + self.page]
        answer: dict[str, Any] = {}
        if here:
            answer["vulns"] = [{"id": one, "modified": "2026-11-01T00:00:00Z"} for one in here]
        if start + self.page < len(names):
            answer["next_page_token"] = str(start + self.page)
        return answer

    def _record(self, request: Request) -> Response:
        record = self.records.get(request.path.rpartition("/")[2])
        if record is None:
            return _json({"code": 5, "message": "Bug not found."}, 404)
        return _json(record)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")
