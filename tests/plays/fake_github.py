"""A GitHub with one repository that remembers what it is told, behind a real HTTP server."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.github.codeowners import CODEOWNERS
from gitops_ml.github.ruleset import RULESET, RULESETS, WORKFLOWS

NAME = "team/late"
TOKEN = "token-for-tests"
PATH = f"/repos/{NAME}"
RULES: dict[str, Any] = {
    "name": "main",
    "target": "branch",
    "enforcement": "active",
    "bypass_actors": [],
    "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
    "rules": [
        {
            "type": "pull_request",
            "parameters": {
                "allowed_merge_methods": ["squash"],
                "require_code_owner_review": True,
                "required_approving_review_count": 1,
            },
        },
        {
            "type": "required_status_checks",
            "parameters": {"required_status_checks": [{"context": "all-green"}]},
        },
    ],
}
SECOND = RULESETS / "environments.json"
SECOND_RULES: dict[str, Any] = {
    "name": "environments",
    "target": "branch",
    "enforcement": "active",
    "bypass_actors": [],
    "conditions": {"ref_name": {"include": ["refs/heads/env/**"], "exclude": []}},
    "rules": [{"type": "deletion"}, {"type": "non_fast_forward"}],
}


def write_rules(root: Path, owners: str) -> None:
    """Give a project code owners, two rulesets and a workflow with the check that one requires."""
    (root / WORKFLOWS).mkdir(parents=True)
    (root / RULESET).parent.mkdir()
    (root / CODEOWNERS).write_text(owners, encoding="utf-8")
    (root / RULESET).write_text(json.dumps(RULES), encoding="utf-8")
    (root / SECOND).write_text(json.dumps(SECOND_RULES), encoding="utf-8")
    (root / WORKFLOWS / "pipeline.yml").write_text("on: pull_request\njobs: {all-green: {}}")


@dataclass
class Environment:
    """An environment as its settings leave it: at first it holds nothing back."""

    reviewers: list[dict[str, Any]] = field(default_factory=list)
    policy: dict[str, bool] | None = None
    policies: list[dict[str, str]] = field(default_factory=list)
    wait_timer: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)


class FakeGitHub:
    """Answers like GitHub's REST API.

    `refusals` maps "METHOD path" to (status, message, headers): these requests are turned away.
    `requests` lists the method and the path of every request.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.requests: list[str] = []
        self.refusals: dict[str, tuple[int, str, dict[str, str]]] = {}
        self.facts: dict[str, Any] = {
            "full_name": NAME,
            "default_branch": "main",
            "owner": {"login": "team", "type": "Organization"},
            "private": False,
            "visibility": "public",
            "permissions": {"admin": True, "push": True},
            "allow_squash_merge": True,
        }
        self.rulesets: list[dict[str, Any]] = []
        self.edits_rules = False
        self.labels: list[dict[str, Any]] = []
        self.workflow_permissions: dict[str, Any] = {
            "default_workflow_permissions": "write",
            "can_approve_pull_request_reviews": True,
        }
        self.actions = True
        self.alerts = False
        self.dependency_graph = True
        self.people = ["ada", "grace"]
        self.readers: list[str] = []
        self.codeowners_errors: list[dict[str, Any]] | None = []
        self.variables: dict[str, str] = {}
        self.secrets: list[str] = []
        self.organization_variables: dict[str, str] = {}
        self.organization_secrets: list[str] = []
        self.environments: dict[str, Environment] = {}
        self.keys: list[dict[str, Any]] = []
        self.protected_branches = ["main"]
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    @property
    def changes(self) -> list[str]:
        """The requests that change something."""
        return [request for request in self.requests if not request.startswith("GET ")]

    def _answer(self, request: Request) -> Response:
        # The path as it was sent: escapes matter.
        path = request.environ["RAW_URI"].partition("?")[0] if "RAW_URI" in request.environ else (
            request.path
        )  # fmt: skip
        what = f"{request.method} {path}"
        self.requests.append(what)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _json({"message": "Bad credentials"}, 401)
        if what in self.refusals:
            status, message, headers = self.refusals[what]
            return _json({"message": message}, status, headers)
        if not path.startswith(PATH):
            return _json({"message": "Not Found"}, 404)
        lists = self._lists(path.removeprefix(PATH), request.args)
        if request.method == "GET" and lists is not None:
            return _page(request, *lists)
        body = json.loads(request.data) if request.data else None
        if match := re.fullmatch(
            f"{PATH}/environments/([^/]+)(/deployment-branch-policies)?", path
        ):
            return self._environment(request.method, unquote(match[1]), bool(match[2]), body)
        return self._repository(request.method, unquote(path.removeprefix(PATH)), body)

    def _repository(self, method: str, path: str, body: Any) -> Response:
        missing = _json({"message": "Not Found"}, 404)
        head = path.strip("/").partition("/")[0]
        if path == "":
            if method == "PATCH":
                self.facts.update(body)
            return _json(self.facts)
        if head == "rulesets":
            return self._rulesets(method, path.removeprefix("/rulesets"), body)
        if path == "/labels" and method == "POST":
            self.labels.append(body)
            return _json(body, 201)
        if head == "labels":
            found = [lb for lb in self.labels if lb["name"] == path.removeprefix("/labels/")]
            return _json(found[0]) if found else missing
        if path == "/actions/permissions/workflow":
            if method == "PUT":
                self.workflow_permissions = body
                return Response(status=204)
            return _json(self.workflow_permissions)
        if path == "/actions/permissions":
            return _json({"enabled": self.actions})
        if path == "/vulnerability-alerts":
            self.alerts = self.alerts or method == "PUT"
            return Response(status=204) if self.alerts else missing
        if path == "/collaborators":
            return _json(
                [{"login": name, "permissions": {"push": True}} for name in self.people]
                + [{"login": name, "permissions": {"push": False}} for name in self.readers]
            )
        if path == "/codeowners/errors":
            if self.codeowners_errors is None:
                return missing
            return _json({"errors": self.codeowners_errors})
        if path.startswith("/dependency-graph/compare/"):
            return _json([]) if self.dependency_graph else _json({"message": "Disabled"}, 403)
        if head == "actions" and path.startswith("/actions/variables/"):
            name = path.rpartition("/")[2]
            value = self.variables.get(name)
            return missing if value is None else _json({"name": name, "value": value})
        return missing

    def _lists(self, path: str, query: Mapping[str, str]) -> tuple[str | None, list[Any]] | None:
        """The list that an address leads to, and the key that the answer has it under."""
        if path == "/branches" and query.get("protected") == "true":
            return None, [{"name": name, "protected": True} for name in self.protected_branches]
        if path == "/keys":
            return None, self.keys
        if path.startswith("/actions/organization-"):
            variables, secrets = self.organization_variables, self.organization_secrets
        elif path.startswith("/actions/"):
            variables, secrets = self.variables, self.secrets
        elif match := re.match(r"/environments/([^/]+)/", path):
            environment = self.environments.get(unquote(match[1]))
            if environment is None:
                return None
            if path.endswith("/deployment-branch-policies"):
                return "branch_policies", environment.policies
            variables, secrets = environment.variables, environment.secrets
        else:
            return None
        if re.search(r"[/-]variables$", path):
            return "variables", [{"name": k, "value": v} for k, v in variables.items()]
        if re.search(r"[/-]secrets$", path):
            return "secrets", [{"name": name, "created_at": "2026-01-01"} for name in secrets]
        return None

    def _environment(self, method: str, name: str, policies: bool, body: Any) -> Response:
        if method == "PUT":
            # What is not sent is as it is at first.
            known = self.environments.setdefault(name, Environment())
            known.policy = body.get("deployment_branch_policy")
            known.wait_timer = body.get("wait_timer", 0)
            kept = {(r["type"], r["id"]) for r in body.get("reviewers") or ()}
            known.reviewers = [
                entry
                for entry in known.reviewers
                if (entry["type"], entry["reviewer"]["id"]) in kept
            ]
        environment = self.environments.get(name)
        if environment is None:
            return _json({"message": "Not Found"}, 404)
        if policies:
            environment.policies.append(body)
            return _json(body)
        rules: list[dict[str, Any]] = []
        if environment.wait_timer:
            rules.append({"type": "wait_timer", "wait_timer": environment.wait_timer})
        if environment.reviewers:
            rules.append({"type": "required_reviewers", "reviewers": environment.reviewers})
        if environment.policy is not None:
            rules.append({"type": "branch_policy"})
        policy = environment.policy
        return _json({"name": name, "protection_rules": rules, "deployment_branch_policy": policy})

    def _rulesets(self, method: str, path: str, body: Any) -> Response:
        if method == "POST":
            self.rulesets.append({**body, "id": len(self.rulesets) + 1})
            return _json(self.rulesets[-1], 201)
        if path == "":
            # The list says no more than names.
            return _json([{"id": r["id"], "name": r["name"]} for r in self.rulesets])
        (found,) = (r for r in self.rulesets if r["id"] == int(path.strip("/")))
        if method == "PUT":
            found.update(body)
        shown = copy.deepcopy(found)
        if not self.facts["permissions"]["admin"] and not self.edits_rules:
            shown.pop("bypass_actors", None)
        return _json(shown)


def _page(request: Request, key: str | None, items: list[Any]) -> Response:
    """One page of a list; of variables GitHub shows thirty at most, whatever is asked for."""
    size = min(int(request.args.get("per_page", 30)), 30 if key == "variables" else 100)
    page = int(request.args.get("page", 1))
    shown, rest = items[(page - 1) * size : page * size], items[page * size :]
    link = f'<{request.base_url}?per_page={size}&page={page + 1}>; rel="next"'
    answer = shown if key is None else {"total_count": len(items), key: shown}
    return _json(answer, 200, {"Link": link} if rest else None)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, content_type="application/json")
