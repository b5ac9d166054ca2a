"""A GitHub with a pull request, runs, artifacts and comments, behind real HTTP servers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

NAME = "team/late"
TOKEN = "token-for-tests"
HEAD = "a" * 40
BASE = "b" * 40
BOT = {"login": "github-actions[bot]", "type": "Bot"}


def pull_request(**changes: Any) -> dict[str, Any]:
    """An open pull request from a fork."""
    return {
        "number": 7,
        "state": "open",
        "labels": [],
        "merged_at": None,
        "merge_commit_sha": "c" * 40,
        "head": {"ref": "faster", "sha": HEAD, "repo": {"full_name": "guest/late"}},
        "base": {"ref": "main", "sha": BASE, "repo": {"full_name": NAME}},
        **changes,
    }


def run_event(**changes: Any) -> dict[str, Any]:
    """The event that tells of the end of the pull request's run; forks are not listed in it."""
    return {
        "repository": {"full_name": NAME, "default_branch": "main"},
        "workflow_run": {
            "id": 100,
            "run_attempt": 1,
            "event": "pull_request",
            "conclusion": "success",
            "head_sha": HEAD,
            "head_branch": "faster",
            "head_repository": {"full_name": "guest/late"},
            "run_started_at": "2026-01-02T10:00:00Z",
            "pull_requests": [],
            **changes,
        },
    }


class FakeActions:
    """Answers like GitHub's REST API; artifacts come from a second server.

    `refusals` maps "METHOD path" to status codes that are answered first, one after the other; with
    `carry_out` the request takes effect all the same. `on_post` is called before a comment is
    created.
    """

    def __init__(self, server: HTTPServer, storage: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.storage_url = storage.url_for("").rstrip("/")
        self.requests: list[str] = []
        self.tokens_in_storage: list[str | None] = []
        self.refusals: dict[str, list[int]] = {}
        self.carry_out = False
        self.on_post: Callable[[], None] = lambda: None
        self.pulls = [pull_request()]
        self.files: list[dict[str, Any]] = [{"filename": "README.md", "status": "modified"}]
        self.comments: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = [job("Model")]
        self.archives: dict[str, bytes] = {}
        self.artifact_facts: dict[str, Any] = {}
        self.timeline: list[dict[str, Any]] = []
        self.permissions = {"ada": "admin", "grace": "write", "guest": "read"}
        self.runs: list[dict[str, Any]] = []
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)
        storage.expect_request(re.compile(".*")).respond_with_handler(self._stored)

    @property
    def changes(self) -> list[str]:
        """The requests that change something."""
        return [request for request in self.requests if not request.startswith("GET ")]

    def add_comment(self, body: str, user: dict[str, str] | None = None) -> dict[str, Any]:
        number = 1 + max((comment["id"] for comment in self.comments), default=0)
        self.comments.append({"id": number, "body": body, "user": user or BOT})
        return self.comments[-1]

    def _stored(self, request: Request) -> Response:
        self.tokens_in_storage.append(request.headers.get("Authorization"))
        return Response(self.archives[request.path.strip("/")], content_type="application/zip")

    def _answer(self, request: Request) -> Response:
        line = f"{request.method} {request.path}"
        self.requests.append(line)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return as_json({"message": "Bad credentials"}, 401)
        if self.refusals.get(line):
            if self.carry_out:
                self._do(request)
            return as_json({"message": "refused for the test"}, self.refusals[line].pop(0))
        return self._do(request)

    def _do(self, request: Request) -> Response:
        inside = request.path.removeprefix(f"/repos/{NAME}")
        for method, pattern, handler in self._routes():
            match = re.fullmatch(pattern, inside)
            if match and method == request.method:
                return handler(request, *match.groups())
        return as_json({"message": "Not Found"}, 404)

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        return [
            ("GET", "/pulls", self._find_pulls),
            ("GET", r"/pulls/(\d+)", self._pull),
            ("GET", r"/pulls/\d+/files", self._files),
            ("GET", r"/commits/(\w+)/pulls", lambda _, sha: as_json(self.pulls)),
            ("GET", r"/actions/runs", self._find_runs),
            ("GET", r"/actions/workflows/pipeline\.yml/runs", self._pipeline_runs),
            (
                "GET",
                r"/actions/runs/\d+/attempts/\d+/jobs",
                lambda _: as_json({"jobs": self.jobs}),
            ),
            ("GET", r"/actions/runs/\d+/artifacts", self._artifacts),
            ("GET", r"/actions/artifacts/(\d+)/zip", self._redirect),
            ("GET", r"/issues/\d+/comments", lambda _: as_json(self.comments)),
            ("GET", r"/issues/\d+/timeline", lambda _: as_json(self.timeline)),
            ("GET", r"/collaborators/([^/]+)/permission", self._permission),
            ("POST", r"/issues/\d+/comments", self._create),
            ("PATCH", r"/issues/comments/(\d+)", self._update),
            ("DELETE", r"/issues/comments/(\d+)", self._delete),
        ]

    def _find_pulls(self, request: Request) -> Response:
        owner, _, branch = request.args["head"].partition(":")
        found = [
            pull
            for pull in self.pulls
            if pull["head"]["ref"] == branch
            and pull["head"]["repo"]["full_name"].startswith(f"{owner}/")
            and (request.args["state"] == "all" or pull["state"] == request.args["state"])
        ]
        return as_json(found)

    def _pull(self, request: Request, number: str) -> Response:
        found = [pull for pull in self.pulls if pull["number"] == int(number)]
        return as_json(found[0]) if found else as_json({"message": "Not Found"}, 404)

    def _files(self, request: Request) -> Response:
        page, size = int(request.args.get("page", 1)), int(request.args["per_page"])
        answer = as_json(self.files[(page - 1) * size : page * size])
        if page * size < len(self.files):
            following = f"{self.url}{request.path}?page={page + 1}&per_page={size}"
            answer.headers["Link"] = f'<{following}>; rel="next"'
        return answer

    def _find_runs(self, request: Request) -> Response:
        found = [
            run
            for run in self.runs
            if run["head_sha"] == request.args["head_sha"] and run["event"] == request.args["event"]
        ]
        return as_json({"workflow_runs": found})

    def _pipeline_runs(self, request: Request) -> Response:
        """One page of the runs of the pipeline, the newest first; a filter shows 1,000 at most."""
        fields = {"branch": "head_branch", "event": "event", "head_sha": "head_sha"}
        wanted = {fields[key]: value for key, value in request.args.items() if key in fields}
        status = request.args.get("status")
        found = [
            run
            for run in sorted(self.runs, key=lambda run: -int(run.get("id", 0)))
            if all(run.get(field) == value for field, value in wanted.items())
            and status in (None, run.get("status"), run.get("conclusion"))
        ]
        if wanted or status:
            found = found[:1000]
        size = min(int(request.args.get("per_page", 30)), 100)
        page = int(request.args.get("page", 1))
        answer = as_json(
            {"total_count": len(found), "workflow_runs": found[(page - 1) * size : page * size]}
        )
        if page * size < len(found):
            query = urlencode({**request.args, "page": page + 1})
            answer.headers["Link"] = f'<{request.base_url}?{query}>; rel="next"'
        return answer

    def _artifacts(self, request: Request) -> Response:
        artifacts = [
            {
                "id": number,
                "name": name,
                "size_in_bytes": len(content),
                "expired": False,
                "created_at": "2026-01-02T10:09:00Z",
                **self.artifact_facts.get(name, {}),
            }
            for number, (name, content) in enumerate(self.archives.items(), start=1)
        ]
        return as_json({"artifacts": artifacts})

    def _redirect(self, request: Request, number: str) -> Response:
        name = list(self.archives)[int(number) - 1]
        return Response(status=302, headers={"Location": f"{self.storage_url}/{name}"})

    def _permission(self, request: Request, login: str) -> Response:
        if login not in self.permissions:
            return as_json({"message": "Not Found"}, 404)
        return as_json({"permission": self.permissions[login]})

    def _create(self, request: Request) -> Response:
        self.on_post()
        return as_json(self.add_comment(request.json["body"]), 201)

    def _update(self, request: Request, number: str) -> Response:
        for comment in self.comments:
            if comment["id"] == int(number):
                comment["body"] = request.json["body"]
                return as_json(comment)
        return as_json({"message": "Not Found"}, 404)

    def _delete(self, request: Request, number: str) -> Response:
        before = len(self.comments)
        self.comments[:] = [one for one in self.comments if one["id"] != int(number)]
        return Response(status=204 if len(self.comments) < before else 404)


def pipeline_run(number: int, commit: str, **changes: Any) -> dict[str, Any]:
    """A run of the pipeline that passed for a push to main."""
    return {
        "id": number,
        "html_url": f"https://github.example/run/{number}",
        "event": "push",
        "head_branch": "main",
        "head_sha": commit,
        "status": "completed",
        "conclusion": "success",
        **changes,
    }


def job(name: str, conclusion: str = "success", failed_step: str | None = None) -> dict[str, Any]:
    """A job of a run."""
    steps = [{"name": "Set up", "conclusion": "success"}]
    if failed_step is not None:
        steps.append({"name": failed_step, "conclusion": "failure"})
    return {
        "id": 55,
        "name": name,
        "conclusion": conclusion,
        "started_at": "2026-01-02T10:00:00Z",
        "completed_at": "2026-01-02T10:01:30Z",
        "steps": steps,
    }


def as_json(document: Any, status: int = 200) -> Response:
    """An answer from the API."""
    return Response(json.dumps(document), status=status, content_type="application/json")
