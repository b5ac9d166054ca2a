"""BentoCloud's API, as far as BentoML's client asks for it: it keeps bentos and deployments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

TOKEN = "token-for-tests"
NEVER = {"created_at": "2026-01-02 10:00:00", "updated_at": None, "deleted_at": None}
ADA = {"name": "ada", "email": "ada@example.com", "first_name": "", "last_name": ""}


def resource(name: str, **more: Any) -> dict[str, Any]:
    return {"uid": name, **NEVER, "name": name, "resource_type": "any", "labels": [], **more}


CLUSTER = resource("main-cluster", description="", organization_name="acme", creator=ADA)


class FakeCloud:
    """An organization.

    Attributes:
        url: Its address.
        bentos: What was pushed, by tag: `tar` and `manifest`.
        deployments: By name: the `config` that was last sent, the `bento`, and its `url`.
        statuses: What a deployment's status is, answer after answer; the last one for ever.
        lagging: How many answers still tell of the bento before.
        refusals: Answers to requests that begin so, e.g. {"POST /api/v2": [(403, "quota")]}.
        requests: What was asked, in order.
        meanwhile: Happens once, while a deployment is changed.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.bentos: dict[str, dict[str, Any]] = {}
        self.deployments: dict[str, dict[str, Any]] = {}
        self.statuses = ["running"]
        self.lagging = 0
        self.refusals: dict[str, list[tuple[int, str]]] = {}
        self.requests: list[str] = []
        self.meanwhile: Callable[[], None] | None = None
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    @property
    def changes(self) -> list[str]:
        """The requests that change a deployment."""
        return [line for line in self.requests if re.match("P.* /api/v2", line)]

    def _answer(self, request: Request) -> Response:
        line = f"{request.method} {request.path}"
        self.requests.append(line)
        if request.headers.get("X-YATAI-API-TOKEN") != TOKEN:
            return Response("invalid token", 401)
        for start, answers in self.refusals.items():
            if line.startswith(start) and answers:
                status, text = answers.pop(0)
                return Response(text, status)
        for pattern, handler in self._routes():
            if found := re.fullmatch(pattern, line):
                return handler(request, *found.groups())
        return Response("no such page", 404)

    def _routes(self) -> list[tuple[str, Callable[..., Response]]]:
        repositories = "/api/v1/bento_repositories"
        bento = rf"{repositories}/(\w+)/bentos/([\w-]+)"
        return [
            (rf"GET {repositories}/(\w+)", self._repository),
            (rf"POST {repositories}", lambda request: _json(_repository(request.json["name"]))),
            (rf"POST {repositories}/(\w+)/bentos", self._create_bento),
            (rf"GET {bento}", self._bento),
            (rf"PATCH {bento}/start_upload", self._bento),
            (rf"PUT {bento}/upload", self._upload),
            (rf"GET {bento}/download", self._download),
            (r"GET /api/v2/deployments/([\w-]+)", self._deployment),
            (r"POST /api/v2/deployments", self._deploy),
            (r"PUT /api/v2/deployments/([\w-]+)", self._deploy),
        ]

    def _repository(self, _: Request, name: str) -> Response:
        if not any(tag.startswith(f"{name}:") for tag in self.bentos):
            return Response("record not found", 400)
        return _json(_repository(name))

    def _create_bento(self, request: Request, name: str) -> Response:
        tag = f"{name}:{request.json['version']}"
        self.bentos[tag] = {"manifest": request.json["manifest"], "tar": None}
        return _json(self._described(tag))

    def _bento(self, _: Request, name: str, version: str) -> Response:
        tag = f"{name}:{version}"
        return _json(self._described(tag)) if tag in self.bentos else Response("none", 404)

    def _upload(self, request: Request, name: str, version: str) -> Response:
        self.bentos[f"{name}:{version}"]["tar"] = request.get_data()
        return _json({})

    def _download(self, _: Request, name: str, version: str) -> Response:
        return Response(self.bentos[f"{name}:{version}"]["tar"])

    def _described(self, tag: str) -> dict[str, Any]:
        known = self.bentos[tag]
        name, _, version = tag.partition(":")
        return resource(
            version, description="", version=version, image_build_status="pending",
            upload_status="pending" if known["tar"] is None else "success",
            upload_finished_reason="", presigned_upload_url="", presigned_download_url="",
            manifest=known["manifest"], transmission_strategy="proxy",
            repository=_repository(name),
        )  # fmt: skip

    def _deploy(self, request: Request, name: str | None = None) -> Response:
        config = request.json
        name = name or config["name"]
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        before = self.deployments.get(name, {}).get("bento")
        self.deployments[name] = {
            "config": config, "bento": config["bento"], "before": before,
            "url": f"https://{name}.bentoml.example/",
        }  # fmt: skip
        return self._described_deployment(name, "deploying")

    def _deployment(self, _: Request, name: str) -> Response:
        if name not in self.deployments:
            return Response("record not found", 404)
        changed = bool(self.changes)
        status = "running"
        if changed:
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return self._described_deployment(name, status)

    def _described_deployment(self, name: str, status: str) -> Response:
        known = self.deployments[name]
        bento = known["bento"]
        if status == "running" and self.lagging and known["before"]:
            self.lagging -= 1
            bento = known["before"]
        target = resource(
            "main", creator=ADA, config=known["config"], bento=self._described(bento)
        )  # fmt: skip
        revision = resource("1", creator=ADA, status="active", targets=[target])
        return _json(
            resource(
                name,
                creator=ADA,
                cluster=CLUSTER,
                status=status,
                kube_namespace="bentos",
                latest_revision=revision,
                urls=[known["url"]] if known["url"] else [],
            )
        )


def _repository(name: str) -> dict[str, Any]:
    return resource(name, description="", latest_bento=None)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")
