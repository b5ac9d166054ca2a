"""A repository on a local origin, with a GitHub that is played, and its workflows run by act."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_actions
import pytest
import yaml
from act import REPOSITORY, ActRun, run_act
from conftest import Run
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

NOTHING = "0" * 40  # what a branch that is new held before
# With these the example's classifier is better than with those that the project starts with.
BETTER = {"learning_rate": 0.05, "max_iter": 250, "max_leaf_nodes": 63}


class GitHub(fake_actions.FakeActions):
    """A repository with runs of its pipeline, issues and releases."""

    def __init__(self, server: HTTPServer, storage: HTTPServer) -> None:
        super().__init__(server, storage)
        self.issues: list[dict[str, Any]] = []
        self.releases: list[dict[str, Any]] = []

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        return [
            ("GET", "", lambda _: fake_actions.as_json({"default_branch": "main"})),
            ("GET", "/issues", lambda _: fake_actions.as_json(self.issues)),
            ("POST", "/issues", lambda request: self._add(self.issues, request)),
            ("POST", "/releases", lambda request: self._add(self.releases, request)),
            *super()._routes(),
        ]

    def _add(self, things: list[dict[str, Any]], request: Request) -> Response:
        number = len(things) + 1
        things.append({"id": number, "number": number, "html_url": "https://x", **request.json})
        return fake_actions.as_json(things[-1], 201)


@dataclass
class Hub:
    """A repository on a local origin, and what GitHub would know of it."""

    origin: Path
    clone: Path
    scratch: Path
    env: Mapping[str, str]
    project_run: Run
    api: GitHub
    labels: tuple[str, ...] = ()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.clone, env=dict(self.env),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"git {arguments}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--no-verify", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def train(self) -> None:
        """Run the pipeline as the author does before a commit."""
        self.project_run(self.clone, "dvc", "repro", check=True)

    def edit_yaml(self, name: str, change: Callable[[Any], None]) -> None:
        path = self.clone / name
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(document)
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def push(self, before: str, **options: Any) -> ActRun:
        """Push HEAD to main and run the pipeline for it."""
        self.git("push", "-q", "--force", "origin", "HEAD:refs/heads/main")
        self.api.pulls = []
        payload = {
            "ref": "refs/heads/main",
            "before": before,
            "after": self.git("rev-parse", "HEAD"),
            "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        }
        return self.run("push", payload, "refs/heads/main", **options)

    def push_gated(self, before: str, **options: Any) -> str:
        """Push to main and do what `gated` does; nothing that is delivered needs the job Code."""
        return self.gated(self.push(before, job="gate", **options))

    def gated(self, run: ActRun) -> str:
        """See that a run for a push to main is green, keep its artifacts; gives the commit."""
        assert run.returncode == 0, run.explain()
        self.upload()
        commit = self.git("rev-parse", "HEAD")
        self.api.runs = [fake_actions.pipeline_run(100, commit)]
        return commit

    def pull_request(self, head_repository: str = REPOSITORY, **options: Any) -> ActRun:
        """Open a pull request from HEAD to main and run the pipeline for its merge."""
        head = self.git("rev-parse", "HEAD")
        base = self.git("rev-parse", "origin/main")
        self.git("checkout", "-q", "--detach", base)
        self.git("merge", "-q", "--no-ff", "-m", "Merge the pull request", head)
        self.git("push", "-q", "--force", "origin", "HEAD:refs/pull/7/merge")
        pull = fake_actions.pull_request(
            base={"sha": base, "ref": "main", "repo": {"full_name": REPOSITORY}},
            head={"sha": head, "ref": "change", "repo": {"full_name": head_repository}},
            labels=[{"name": name} for name in self.labels],
        )
        self.api.pulls = [pull]
        payload = {
            "action": "synchronize",
            "number": 7,
            "pull_request": pull,
            "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        }
        return self.run("pull_request", payload, "refs/pull/7/merge", **options)

    def run(self, event: str, payload: Mapping[str, Any], ref: str, **options: Any) -> ActRun:
        shutil.rmtree(self.scratch / "artifacts", ignore_errors=True)
        defaults = {
            "checkout": self.clone,
            "workflow": "pipeline.yml",
            "origin": self.origin,
            "scratch": self.scratch,
            "env": self.env,
            "api": self.api.url,
        }
        return run_act(event, payload, ref=ref, **{**defaults, **options})

    def upload(self) -> None:
        """Let the played GitHub hold the artifacts of the last run."""
        self.api.archives.clear()
        for folder in sorted((self.scratch / "artifacts").iterdir()):
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as target:
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        target.write(path, path.relative_to(folder))
            self.api.archives[folder.name] = archive.getvalue()

    def comment(self) -> str:
        """Run the workflow that comments on the pull request; returns the comment."""
        self.upload()
        pull = self.api.pulls[0]
        event = fake_actions.run_event(
            conclusion="failure",
            head_sha=pull["head"]["sha"],
            head_branch=pull["head"]["ref"],
            head_repository=pull["head"]["repo"],
        )
        run = self.run("workflow_run", event, "refs/heads/main", workflow="comment.yml")
        assert run.returncode == 0, run.explain()
        (comment,) = self.api.comments
        return str(comment["body"])

    def released(self, environment: str) -> dict[str, Any]:
        """The `release.json` on the branch of an environment."""
        self.git("fetch", "-q", "origin")
        text = self.git("show", f"origin/env/{environment}:release.json")
        release: dict[str, Any] = json.loads(text)
        return release

    def artifact(self, *parts: str) -> Path:
        return self.scratch.joinpath("artifacts", *parts)

    def verdict(self) -> dict[str, Any]:
        text = self.artifact("report", "reports", "gate.json").read_text(encoding="utf-8")
        verdict: dict[str, Any] = json.loads(text)
        return verdict


def pipeline_ended(commit: str) -> dict[str, Any]:
    """The event that tells that the pipeline has passed for a commit that was pushed to main."""
    return {
        "repository": {"full_name": REPOSITORY, "default_branch": "main", "private": False},
        "workflow_run": {
            "conclusion": "success",
            "event": "push",
            "head_branch": "main",
            "head_sha": commit,
            "head_repository": {"full_name": REPOSITORY},
        },
    }


def make_hub(
    project: Path,
    folder: Path,
    env: Mapping[str, str],
    project_run: Run,
    api: GitHub,
) -> Hub:
    """Give a trained project its origin, and what a run on main would have left."""
    origin, scratch = folder / "origin.git", folder / "github"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    # A delivery checks out a commit, not a branch.
    allow = ["git", "config", "uploadpack.allowReachableSHA1InWant", "true"]
    subprocess.run(allow, cwd=origin, check=True)
    shutil.copytree(project / ".dvc" / "cache", scratch / "cache" / "dvc-from-main")
    it = Hub(origin, project, scratch, env, project_run, api)
    if it.git("status", "--porcelain"):
        it.commit("Record the first run")
    it.git("remote", "add", "origin", f"file://{origin}")
    it.git("push", "-q", "origin", "main")
    it.git("fetch", "-q", "origin")
    api.runs = [fake_actions.pipeline_run(99, it.git("rev-parse", "HEAD"))]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.write(it.clone / "dvc.lock", "dvc.lock")
    api.archives["training"] = made.getvalue()
    return it


@pytest.fixture
def hub(
    pipelined: Callable[..., Path],
    clean_env: Mapping[str, str],
    project_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hub]:
    """A repository whose main has been trained, with the caches that its last run left."""
    monkeypatch.setattr(fake_actions, "NAME", REPOSITORY)
    monkeypatch.setattr(fake_actions, "TOKEN", "token")
    with HTTPServer() as server, HTTPServer() as storage:
        api = GitHub(server, storage)
        yield make_hub(pipelined("classification"), tmp_path, clean_env, project_run, api)


def expect_nothing_computed(run: ActRun) -> None:
    """All that the pipeline makes was brought from elsewhere."""
    for job, step in (("data", "Validate and split"), ("model", "Train and evaluate")):
        assert "Running stage" not in run.said(job, step)
    assert "Stage 'train' didn't change" in run.said("model", "Train and evaluate")
