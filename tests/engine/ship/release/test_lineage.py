"""The lineage of a live service: real repositories; the service is played, as are
GitHub and who holds what is deployed."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import subcommand
from fake_actions import NAME as REPOSITORY
from fake_actions import TOKEN, FakeActions, as_json
from fake_artifact import NAME
from fake_bento import make_gate
from fake_origin import GOLDEN, World, git
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.targets import containers
from gitops_ml.ship.targets.containers import KIND, details

main = subcommand("lineage")

# As releases recorded it that were made before there were more kinds.
CONSENT = {"allow_loosening": True, "accept_new_baseline": None}
MODEL = b"weights"
METRICS = {"roc_auc": 0.8}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


FOLDER = json.dumps([{"md5": md5(MODEL), "relpath": "model.onnx"}]).encode()
LOCK = f"""
stages:
  ingest:
    outs:
    - path: data/ingested.parquet
      md5: {"1" * 32}
  train:
    outs:
    - path: models
      md5: {md5(FOLDER)}.dir
"""
FILES = {
    "contract.yaml": b"model: {}\n",
    "schema.yaml": b"columns: {}\n",
    "params.yaml": b"seed: 1\n",
    "dvc.lock": LOCK.encode(),
    "reports/metrics.json": json.dumps(METRICS).encode(),
    "reports/golden.json": json.dumps(GOLDEN).encode(),
}


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


class Delivered:
    """A project that was released to staging, and a service that runs the release."""

    def __init__(self, world: World, server: HTTPServer) -> None:
        self.world = world
        self.root = world.root
        for name, content in FILES.items():
            self.write(name, content)
        self.write(f".dvc/cache/files/md5/{md5(MODEL)[:2]}/{md5(MODEL)[2:]}", MODEL)
        self.write(f".dvc/cache/files/md5/{md5(FOLDER)[:2]}/{md5(FOLDER)[2:]}.dir", FOLDER)
        git(self.root, "add", *FILES)
        self.commit = world.commit("Train the model")
        self.url = server.url_for("").rstrip("/")
        self.release: dict[str, Any] = {
            "release": f"shop:{self.commit[:8]}-1",
            "source": {"commit": self.commit, "dirty": False},
            "model": {"file": "model.onnx", "sha256": sha256(MODEL)},
            "data": {"file": "data/ingested.parquet", "md5": "1" * 32},
            "schema": {"sha256": sha256(FILES["schema.yaml"])},
            "contract": {"sha256": sha256(FILES["contract.yaml"])},
            "metrics": METRICS,
            KIND: {"name": NAME, "digest": f"sha256:{5:064x}"},
            "gate": {"verdict": "promote", "base": "b" * 40, "consent": CONSENT},
            "params": {"sha256": sha256(FILES["params.yaml"])},
            "pull_request": {"number": 7, "author": "grace", "approved_by": ["ada"]},
            "run": {"id": 100},
        }
        own = ("release", "source", "model", "data", "schema", "contract", "metrics")
        self.live: Any = {key: self.release[key] for key in own}
        self.put()
        server.clear()
        server.expect_request("/release").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        return Response(json.dumps(self.live))

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put(self, environment: str = "staging", golden: Any = GOLDEN, **changes: Any) -> None:
        """Release it, with changes."""
        release = {**copy.deepcopy(self.release), **changes}
        files = {
            "release.json": json.dumps(release).encode(),
            "golden.json": json.dumps(golden).encode(),
        }
        branch = EnvironmentBranch(self.root, environment)
        branch.publish(files, "Release", lambda current: None)

    def says(self, **changes: Any) -> None:
        """Let the release say something else of itself, on the branch and in the service."""
        self.put(**changes)
        self.live |= {key: value for key, value in changes.items() if key in self.live}

    def run(self) -> int:
        return main(["--url", f"{self.url}/"])


@pytest.fixture
def delivered(world: World, server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Delivered:
    monkeypatch.chdir(world.root)
    monkeypatch.setattr(containers, "look_up", lambda _: ("ok", "is still there"))
    return Delivered(world, server)


class Knowing(FakeActions):
    """A GitHub that knows where the release came from."""

    def __init__(self, server: HTTPServer, storage: HTTPServer, delivered: Delivered) -> None:
        super().__init__(server, storage)
        self.commit = delivered.commit
        self.reviews = [review("ada")]
        self.pulls = [
            {
                "number": 7,
                "user": {"login": "grace"},
                "merged_at": "2026-01-02T10:00:00Z",
                "merge_commit_sha": self.commit,
            }
        ]
        self.runs = [self.run(100)]
        self.judge()

    def run(self, number: int, **changes: Any) -> dict[str, Any]:
        return {
            "id": number, "event": "push", "head_branch": "main", "head_sha": self.commit,
            "status": "completed", "conclusion": "success", **changes,
        }  # fmt: skip

    def judge(self, **changes: Any) -> None:
        """Let the run leave the gate's report."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as target:
            target.writestr("reports/gate.json", make_gate(**{"commit": self.commit, **changes}))
        self.archives = {"report": content.getvalue()}

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        runs = "/actions/workflows/pipeline.yml/runs"
        return [
            ("GET", "", lambda _: as_json({"default_branch": "main"})),
            ("GET", runs, lambda _: as_json({"workflow_runs": self.runs})),
            ("GET", r"/pulls/(\d+)/reviews", lambda _, number: as_json(self.reviews)),
            *super()._routes(),
        ]


def review(login: str, state: str = "APPROVED") -> dict[str, Any]:
    return {"user": {"login": login}, "state": state}


@pytest.fixture
def github(delivered: Delivered, monkeypatch: pytest.MonkeyPatch) -> Iterator[Knowing]:
    with HTTPServer() as server, HTTPServer() as storage:
        fake = Knowing(server, storage, delivered)
        monkeypatch.setenv("GITHUB_API_URL", fake.url)
        monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        yield fake


def verdicts(text: str) -> dict[str, str]:
    """The verdict on each thing that is named."""
    found = {}
    for line in text.splitlines():
        if line[8] != " ":
            found[line[8:].partition("  ")[0]] = line[:8].strip()
    return found


CHECKED = (
    "service", "commit", "contract", "schema", "params", "data", "metrics", "model",
    "golden predictions", KIND, "gate", "pull request", "pipeline run",
)  # fmt: skip


def test_a_sound_release_is_verified_from_end_to_end(
    delivered: Delivered, github: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert delivered.run() == 0

    said = capsys.readouterr().out
    found = verdicts(said)
    assert {what: found[what] for what in CHECKED} == dict.fromkeys(CHECKED, "ok")
    told = {what for what, _ in details(delivered.release)}
    assert found.keys() - set(CHECKED) == told | {"environment"}
    assert "staging" in said
    assert "runs there now" in said
    assert "#7" in said
    assert "by grace, approved by ada" in said
    assert delivered.commit in said
    assert sha256(MODEL) in said


ASKED = ("gate", "pull request", "pipeline run")


def found_by(delivered: Delivered, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The verdicts, where the exit code is as they say; the rest is sound."""
    code = delivered.run()
    found = verdicts(capsys.readouterr().out)
    assert code == int("differs" in found.values())
    assert all(found[what] == "ok" for what in CHECKED if what not in ASKED)
    return {what: found[what] for what in ASKED if found[what] != "ok"}


def test_without_a_token_what_github_knows_is_unknown(
    delivered: Delivered, github: Knowing, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv("GITHUB_REPOSITORY")
    assert found_by(delivered, capsys) == dict.fromkeys(ASKED, "unknown")
    assert delivered.run() == 0
    assert "GitHub cannot be asked: the git remote `origin`" in capsys.readouterr().out
    assert github.requests == []


GATE = {"verdict": "promote", "base": "b" * 40, "consent": CONSENT}
PULL = {"number": 7, "author": "grace", "approved_by": ["ada"]}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"gate": {**GATE, "verdict": "keep"}}, {"gate": "differs"}),
        ({"gate": {**GATE, "base": None}}, {"gate": "differs"}),
        ({"gate": {**GATE, "consent": {}}}, {"gate": "differs"}),
        ({"gate": None}, {"gate": "differs"}),
        ({"pull_request": {**PULL, "approved_by": ["the-boss"]}}, {"pull request": "differs"}),
        ({"pull_request": {**PULL, "approved_by": ["ada", "bob"]}}, {"pull request": "differs"}),
        ({"pull_request": {**PULL, "approved_by": None}}, {"pull request": "differs"}),
        ({"pull_request": {**PULL, "approved_by": []}}, {}),
        ({"pull_request": {**PULL, "number": 8}}, {"pull request": "differs"}),
        ({"pull_request": {**PULL, "author": "ada"}}, {"pull request": "differs"}),
        ({"pull_request": "7"}, {"pull request": "differs"}),
        ({"pull_request": None}, {"pull request": "unknown"}),
        ({"run": {"id": 101}}, {"pipeline run": "differs", "gate": "unknown"}),
        ({"run": 100}, {"pipeline run": "differs", "gate": "unknown"}),
        ({"run": None}, {"pipeline run": "unknown", "gate": "unknown"}),
    ],
)
def test_what_github_says_otherwise_is_found(
    delivered: Delivered,
    github: Knowing,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    verdict: dict[str, str],
) -> None:
    delivered.put(**changes)
    assert found_by(delivered, capsys) == verdict


@pytest.mark.parametrize(
    ("reviews", "verdict"),
    [
        ([review("ada"), review("grace")], {}),
        ([review("ada"), review("ada", "COMMENTED")], {}),
        ([review("ada"), review("ada", "CHANGES_REQUESTED")], {"pull request": "differs"}),
        ([review("ada", "DISMISSED")], {"pull request": "differs"}),
        ([], {"pull request": "differs"}),
    ],
)
def test_who_approved_is_asked_again(
    delivered: Delivered,
    github: Knowing,
    capsys: pytest.CaptureFixture[str],
    reviews: list[dict[str, Any]],
    verdict: dict[str, str],
) -> None:
    github.reviews = reviews
    assert found_by(delivered, capsys) == verdict


def test_who_may_not_write_any_more_cannot_be_held_to_it(
    delivered: Delivered, github: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    github.permissions["ada"] = "read"
    assert found_by(delivered, capsys) == {"pull request": "unknown"}


def test_a_commit_that_came_without_a_pull_request_is_told(
    delivered: Delivered, github: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    github.pulls = []
    assert found_by(delivered, capsys) == {"pull request": "differs"}
    delivered.put(pull_request=None)
    assert found_by(delivered, capsys) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "keep"},
        {"commit": "d" * 40},
        {"challenger": {"hash": "1.dir", "sha256": "e" * 64, "source": "cache"}},
    ],
)
def test_a_report_that_says_otherwise_is_found(
    delivered: Delivered,
    github: Knowing,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
) -> None:
    github.judge(**changes)
    assert found_by(delivered, capsys) == {"gate": "differs"}


@pytest.mark.parametrize(
    "change",
    [
        lambda github: setattr(github, "artifact_facts", {"report": {"expired": True}}),
        lambda github: setattr(github, "archives", {}),
        lambda github: setattr(github, "archives", {"report": b"no archive"}),
    ],
)
def test_a_report_that_is_gone_is_unknown(
    delivered: Delivered,
    github: Knowing,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Knowing], None],
) -> None:
    change(github)
    assert found_by(delivered, capsys) == {"gate": "unknown"}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"event": "pull_request"}, "unknown"),
        ({"head_branch": "aside"}, "unknown"),
        ({"head_sha": "d" * 40}, "unknown"),
        ({"conclusion": "failure"}, "unknown"),
        ({"conclusion": None, "status": "queued"}, "unknown"),
        ({"id": 101}, "differs"),
    ],
)
def test_a_run_that_is_not_the_pipelines_gives_no_verdict(
    delivered: Delivered,
    github: Knowing,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    verdict: str,
) -> None:
    github.runs = [github.run(100, **changes)]
    assert found_by(delivered, capsys) == {"pipeline run": verdict, "gate": "unknown"}


@pytest.mark.parametrize("status", [403, 404])
def test_a_github_that_refuses_is_no_proof(
    delivered: Delivered, github: Knowing, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    pulls = f"GET /repos/{REPOSITORY}/commits/{delivered.commit}/pulls"
    github.refusals = {pulls: [status]}
    assert found_by(delivered, capsys) == {"pull request": "unknown"}
    github.pulls = [{"merged_at": "2026-01-02T10:00:00Z"}]
    assert found_by(delivered, capsys) == {"pull request": "unknown"}


OTHER = {"sha256": "0" * 64}


@pytest.mark.parametrize(
    ("what", "changes", "words"),
    [
        ("contract", {"contract": OTHER}, "is the contract.yaml of the commit"),
        ("schema", {"schema": OTHER}, sha256(FILES["schema.yaml"])),
        ("params", {"params": OTHER}, "is the params.yaml of the commit"),
        ("params", {"params": None}, "the release does not say"),
        ("data", {"data": {"file": "data/ingested.parquet", "md5": "2" * 32}}, "1" * 32),
        ("data", {"data": {"file": "other", "md5": "2" * 32}}, "no other in dvc.lock"),
        ("metrics", {"metrics": {"roc_auc": 0.9}}, '{"roc_auc": 0.8}'),
        ("model", {"model": {"file": "model.onnx", "sha256": "0" * 64}}, sha256(MODEL)),
        ("model", {"model": {"file": "other", "sha256": sha256(MODEL)}}, "no models/other"),
        ("golden predictions", {"golden": {"records": [], "predictions": []}}, "golden.json"),
        ("commit", {"source": {"commit": "f" * 40}}, "origin has no such commit"),
    ],
)
def test_each_claim_that_is_not_so_is_found(
    delivered: Delivered,
    capsys: pytest.CaptureFixture[str],
    what: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    delivered.says(**changes)
    assert delivered.run() == 1
    told = capsys.readouterr()
    assert verdicts(told.out)[what] == "differs"
    assert words in told.out
    assert told.err.strip().endswith(f"not what was released: {what}")


def test_a_service_that_says_otherwise_is_found(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.live["metrics"] = {"roc_auc": 0.99}
    assert delivered.run() == 1
    told = capsys.readouterr()
    assert verdicts(told.out)["service"] == "differs"
    assert "it says otherwise about metrics" in told.out


def test_a_service_of_another_build_is_found(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.live["digest"] = delivered.release[KIND]["digest"]
    assert delivered.run() == 0
    delivered.live["digest"] = f"sha256:{9:064x}"
    assert delivered.run() == 1
    assert "it says otherwise about digest" in capsys.readouterr().out


def test_a_commit_that_never_came_to_main_is_found(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    git(delivered.root, "checkout", "-q", "-b", "aside", delivered.world.first)
    git(delivered.root, "checkout", "-q", delivered.commit, "--", ".")
    git(delivered.root, "commit", "-qm", "The same files, unreviewed")
    commit = git(delivered.root, "rev-parse", "HEAD")
    delivered.says(source={"commit": commit})
    assert delivered.run() == 1
    told = capsys.readouterr()
    assert verdicts(told.out)["commit"] == "differs"
    assert "not on main" in told.out


def test_the_default_branch_may_have_another_name(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    git(delivered.world.origin, "branch", "-m", "main", "trunk")
    git(delivered.root, "fetch", "-q")
    git(delivered.root, "remote", "set-head", "origin", "trunk")
    assert delivered.run() == 0
    assert "on trunk" in capsys.readouterr().out


@pytest.mark.parametrize(("verdict", "code"), [("differs", 1), ("unknown", 0)])
def test_what_is_no_longer_held_is_found_and_what_cannot_be_asked_is_no_proof(
    delivered: Delivered,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: str,
    code: int,
) -> None:
    monkeypatch.setattr(containers, "look_up", lambda _: (verdict, "as it was found"))
    assert delivered.run() == code
    said = capsys.readouterr().out
    assert verdicts(said)[KIND] == verdict
    assert "as it was found" in said


def test_a_model_that_is_not_in_the_cache_is_unknown(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = delivered.root / ".dvc" / "cache" / "files" / "md5" / md5(MODEL)[:2] / md5(MODEL)[2:]
    cached.unlink()
    assert delivered.run() == 0
    said = capsys.readouterr().out
    assert verdicts(said)["model"] == "unknown"
    assert "`dvc fetch` it" in said


def test_what_ran_before_is_told_apart_from_what_runs(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.put("production")
    delivered.put(release="shop:newer-2")
    assert delivered.run() == 0
    said = capsys.readouterr().out
    assert "ran there, something else does now" in said
    assert "runs there now" in said
    assert "production" in said


@pytest.mark.parametrize(("now", "before"), [("staging", "production"), ("production", "staging")])
def test_what_an_environment_runs_now_is_what_is_verified(
    delivered: Delivered, now: str, before: str
) -> None:
    delivered.put(before, metrics={"roc_auc": 0.9})
    delivered.put(before, release="shop:newer-2")
    delivered.put(now)
    assert delivered.run() == 0


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_environments_that_say_different_things_are_both_judged(
    delivered: Delivered,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: str,
) -> None:
    other = {"name": NAME, "digest": f"sha256:{6:064x}"}
    delivered.put("production")
    delivered.put(environment, **{KIND: other})

    def held(release: Any) -> tuple[str, str]:
        return ("differs" if release[KIND] == other else "ok", "as it was found")

    monkeypatch.setattr(containers, "look_up", held)
    assert delivered.run() == 1
    told = capsys.readouterr()
    found = verdicts(told.out)
    for each in ("staging", "production"):
        assert found[f"{KIND} in {each}"] == ("differs" if each == environment else "ok")
        assert found[f"commit in {each}"] == "ok"
    assert told.err.strip().endswith(f"not what was released: {KIND} in {environment}")


def test_of_two_builds_the_one_that_answers_is_judged(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    """As between the proof of another build in staging and its release to production."""
    delivered.put("production")
    delivered.put("staging", **{KIND: {"name": NAME, "digest": f"sha256:{6:064x}"}})
    delivered.live["digest"] = delivered.release[KIND]["digest"]
    assert delivered.run() == 0
    said = capsys.readouterr().out
    assert said.count("runs there now") == 1
    assert "ran there, something else does now" in said
    assert verdicts(said)[KIND] == "ok"


def test_environments_that_say_the_same_are_judged_once(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.put("production")
    assert delivered.run() == 0
    said = capsys.readouterr().out
    assert said.count(" commit ") == 1
    assert said.count("runs there now") == 2
    delivered.put("production", golden={"records": [], "predictions": []})
    assert delivered.run() == 1
    assert verdicts(capsys.readouterr().out)["golden predictions in production"] == "differs"


def test_what_was_never_released_is_named(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.live["model"] = {"file": "model.onnx", "sha256": "0" * 64}
    assert delivered.run() == 1
    assert "is on none of the branches env/staging, env/production" in capsys.readouterr().err
    delivered.live = {"release": "development"}
    assert delivered.run() == 1
    assert "runs development from a working tree" in capsys.readouterr().err
    delivered.live = []
    assert delivered.run() == 1
    assert "answers 200 and no release" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "late.example.com"])
def test_a_service_that_does_not_answer_is_named(
    delivered: Delivered, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert main(["--url", url]) == 1
    assert f"{url}/release: no answer" in capsys.readouterr().err


def test_without_a_remote_nothing_can_be_verified(
    delivered: Delivered, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.world.origin.rename(delivered.world.folder / "gone")
    assert delivered.run() == 1
    assert "cannot be reached" in capsys.readouterr().err
