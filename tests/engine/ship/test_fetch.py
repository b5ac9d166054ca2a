"""The gated bento, fetched from a GitHub that is played by real HTTP servers."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import pytest
from commands import subcommand
from fake_actions import NAME, TOKEN, FakeActions
from fake_bento import (
    COMMIT,
    MODEL_HASH,
    PACKAGE,
    TAG,
    VERSION,
    make_files,
    make_gate,
    pack,
    store_in,
)
from fake_origin import World, git
from projects import make_project
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.ship import fetch
from gitops_ml.ship.settings import DeploymentError

main = subcommand("fetch-bento")

RUN_URL = "https://github.example/run"


def pipeline_run(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "html_url": f"{RUN_URL}/{number}",
        "event": "push",
        "head_branch": "main",
        "head_sha": COMMIT,
        "status": "completed",
        "conclusion": "success",
        **changes,
    }


class Pipeline(FakeActions):
    """A repository whose pipeline has run."""

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        return [
            ("GET", "", lambda _: Response(json.dumps({"default_branch": "main"}))),
            ("GET", "/actions/workflows/pipeline.yml/runs", self._pipeline_runs),
            *super()._routes(),
        ]

    def _pipeline_runs(self, request: Request) -> Response:
        assert request.args["event"] == "push"
        # Of other branches only those for hotfixes count.
        assert request.args.get("branch", "main") == "main"
        assert request.args["head_sha"] == COMMIT
        return Response(json.dumps({"workflow_runs": self.runs}))


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[HTTPServer, HTTPServer]]:
    with HTTPServer() as server, HTTPServer() as storage:
        yield server, storage


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pack(make_files(), tmp_path_factory.mktemp("bento"))


@pytest.fixture
def github(
    servers: tuple[HTTPServer, HTTPServer],
    bento: bytes,
    clean_settings: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Pipeline]:
    for server in servers:
        server.clear()
    fake = Pipeline(*servers)
    fake.runs = [pipeline_run(100)]
    fake.archives = {"bento": archive(bento), "report": report(make_gate())}
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.chdir(make_project(tmp_path))
    with store_in(tmp_path / "store"):
        yield fake


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return content.getvalue()


def archive(bento: bytes) -> bytes:
    return zipped(**{"models/manifest.json": b"{}", f"build/{PACKAGE}.bento": bento})


def report(gate: bytes) -> bytes:
    return zipped(**{"reports/gate.json": gate, "dvc.lock": b""})


def run(commit: str = COMMIT) -> int:
    return main(["--commit", commit])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """What is said about a bento that must not be delivered; nothing of it is left."""
    assert run() == 1
    assert not list(Path("build").rglob("*.bento"))
    assert TAG not in [str(bento.tag) for bento in bentoml.bentos.list()]
    return capsys.readouterr().err


def test_the_bento_of_the_commit_is_kept_with_its_verdict(
    github: Pipeline, bento: bytes, tmp_path: Path
) -> None:
    assert run() == 0

    assert Path("build/bento", f"{PACKAGE}.bento").read_bytes() == bento
    assert Path("build/bento/gate.json").read_bytes() == make_gate()
    assert json.loads(Path("build/bento/run.json").read_text(encoding="utf-8")) == {"id": 100}
    assert (tmp_path / "outputs").read_text() == f"commit={COMMIT}\nbento={TAG}\n"
    stored = Path(bentoml.bentos.get(TAG).path)
    assert json.loads((stored / "src/release.json").read_text())["model"]["sha256"] == MODEL_HASH
    assert github.tokens_in_storage == [None, None]
    assert sorted(path.name for path in Path("build").iterdir()) == ["bento"]


def test_to_fetch_twice_is_to_fetch_once(github: Pipeline) -> None:
    assert run() == 0
    stored = Path(bentoml.bentos.get(TAG).path)
    (stored / "src" / "models" / "model.onnx").write_bytes(b"changed here")

    assert run() == 0
    assert (stored / "src" / "models" / "model.onnx").read_bytes() == b"weights"


def test_the_newest_run_that_passed_counts(github: Pipeline) -> None:
    github.runs = [
        pipeline_run(103, conclusion="failure"),
        pipeline_run(101),
        pipeline_run(102),
        pipeline_run(104, event="pull_request"),
        pipeline_run(105, head_branch="faster"),
        pipeline_run(106, head_sha="d" * 40),
    ]
    assert run() == 0
    assert json.loads(Path("build/bento/run.json").read_text(encoding="utf-8")) == {"id": 102}


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([], "has not run: push the commit to main"),
        ([pipeline_run(1, event="pull_request")], "has not run"),
        ([pipeline_run(1, status="in_progress", conclusion=None)], f"not done yet: {RUN_URL}/1"),
        (
            [pipeline_run(1, conclusion="cancelled"), pipeline_run(2, conclusion="failure")],
            f"ended as failure: {RUN_URL}/2",
        ),
    ],
)
def test_without_a_run_that_passed_there_is_nothing(
    github: Pipeline, capsys: pytest.CaptureFixture[str], runs: list[dict[str, Any]], words: str
) -> None:
    github.runs = runs
    assert words in refused(capsys)


@pytest.mark.parametrize("name", ["bento", "report"])
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"expired": True}, "has expired; roll back to this commit if it was"),
        ({"size_in_bytes": 3_000_000_000}, "has 3,000,000,000 bytes, more than"),
    ],
)
def test_an_artifact_that_cannot_be_had_is_named(
    github: Pipeline,
    capsys: pytest.CaptureFixture[str],
    name: str,
    facts: dict[str, Any],
    words: str,
) -> None:
    github.artifact_facts = {name: facts}
    said = refused(capsys)
    assert f"the artifact {name} {words}" in said
    del github.archives[name]
    assert f"left no artifact {name}" in refused(capsys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive", "cannot be read"),
        (zipped(other=b""), f"holds 0 files {PACKAGE}.bento, not one"),
        (
            zipped(**{f"a/{PACKAGE}.bento": b"", f"b/{PACKAGE}.bento": b""}),
            f"holds 2 files {PACKAGE}.bento, not one",
        ),
        (archive(b"no bento"), "is damaged"),
    ],
)
def test_a_damaged_bento_is_named(
    github: Pipeline, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    github.archives["bento"] = content
    assert words in refused(capsys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive", "is no archive that can be read"),
        (zipped(other=b""), "holds no gate.json"),
        (report(b"{}"), "is no report"),
    ],
)
def test_a_damaged_report_is_named(
    github: Pipeline, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    github.archives["report"] = content
    assert words in refused(capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "block"}, "the gate's verdict is block"),
        ({"commit": "d" * 40}, f"gate's report is about the commit {'d' * 40}, not {COMMIT}"),
        ({"commit": None}, "gate's report is about the commit None"),
        (
            {"challenger": {"hash": "1.dir", "sha256": "e" * 64, "source": "cache"}},
            f"gate's report is about the model {'e' * 64}, not {MODEL_HASH}",
        ),
        ({"challenger": {"hash": "1.dir", "source": "cache"}}, "about the model None"),
    ],
)
def test_what_the_gate_did_not_let_pass_is_not_delivered(
    github: Pipeline, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    github.archives["report"] = report(make_gate(**changes))
    assert words in refused(capsys)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"src/models/model.onnx": b"other"}, "manifest is about the model"),
        (
            make_files(source={"commit": "d" * 40, "dirty": False}),
            f"release is about the commit {'d' * 40}",
        ),
        (make_files(source={"commit": COMMIT, "dirty": True}), "in no commit: run `make pipeline`"),
        (make_files(model={"sha256": "e" * 64}), f"release is about the model {'e' * 64}"),
        (make_files(model=None), "release.json is malformed"),
        (make_files(release="other:1"), f"its tag is {TAG}, but its release is other:1"),
        ({"src/models/manifest.json": b'{"served": "model.joblib"}'}, "src/models/model.joblib"),
        ({"src/release.json": b"{"}, "cannot be read"),
        ({"bento.yaml": b"[]"}, "cannot be read"),
        (
            {"bento.yaml": f'{{"name": "{PACKAGE}", "version": "{VERSION}"}}'.encode()},
            "BentoML cannot read it",
        ),
    ],
)
def test_a_bento_that_is_not_what_was_judged_is_not_delivered(
    github: Pipeline,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    files: dict[str, bytes],
    words: str,
) -> None:
    github.archives["bento"] = archive(pack({**make_files(), **files}, tmp_path / "other"))
    assert words in refused(capsys)


@pytest.mark.parametrize("size", [40, 400])
def test_half_a_bento_is_damaged(
    github: Pipeline, capsys: pytest.CaptureFixture[str], bento: bytes, size: int
) -> None:
    github.archives["bento"] = archive(bento[:size])
    assert "is damaged" in refused(capsys)


def test_what_is_wrong_is_all_said_at_once(
    github: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    github.archives["report"] = report(make_gate(verdict="block", commit="d" * 40))
    said = refused(capsys)
    assert "verdict is block" in said
    assert "about the commit" in said


def test_a_bento_may_be_as_large_as_the_limit_and_no_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.bento"
    monkeypatch.setattr(fetch, "BENTO_BYTES", 10)
    fetch.unpack_bento(archive(b"x" * 10), target)
    assert target.read_bytes() == b"x" * 10
    target.unlink()
    with pytest.raises(DeploymentError, match="has more than 10 bytes"):
        fetch.unpack_bento(archive(b"x" * 11), target)
    assert not target.exists()


def test_a_bento_is_not_downloaded_past_the_limit(
    github: Pipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever GitHub says of its size."""
    size = len(github.archives["bento"])
    github.artifact_facts = {"bento": {"size_in_bytes": 1}}
    monkeypatch.setattr(fetch, "BENTO_BYTES", size - 1)
    assert f"is larger than {size - 1:,} bytes" in refused(capsys)


def test_the_limits_are_those_of_a_machine_that_delivers() -> None:
    assert fetch.BENTO_BYTES == 2 * 10**9


def test_a_revision_is_the_commit_that_it_names(world: World) -> None:
    second = world.commit("two")
    git(world.root, "tag", "-a", "v1", "-m", "one", world.first)
    for revision in ("HEAD", "main", second, second[:8]):
        assert fetch.commit_of(world.root, revision) == second
    for revision in ("HEAD~1", "v1", world.first):
        assert fetch.commit_of(world.root, revision) == world.first
    # The pipeline may have run for a commit that is not here.
    for unknown in ("d" * 40, "d" * 64):
        assert fetch.commit_of(world.root, unknown) == unknown
    for none in ("d" * 39, "D" * 40, f"{second}^{{tree}}", "--all"):
        with pytest.raises(DeploymentError, match="git knows no such commit"):
            fetch.commit_of(world.root, none)


def test_a_failure_leaves_no_older_bento_behind(
    github: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    github.artifact_facts = {"bento": {"expired": True}}
    assert run() == 1
    assert not Path("build/bento", f"{PACKAGE}.bento").exists()


def test_an_unknown_revision_and_a_missing_github_are_named(
    github: Pipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("nowhere") == 1
    assert "--commit nowhere: git knows no such commit" in capsys.readouterr().err
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.setenv("PATH", "/nowhere")
    assert run() == 1
    assert re.search(r"git: not installed|no token", capsys.readouterr().err)
