"""What the base's run made, asked of a GitHub that is played."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from fake_actions import NAME, TOKEN, FakeActions
from pytest_httpserver import HTTPServer

from gitops_ml.core.git import BaseRevision
from gitops_ml.gate import run_record
from gitops_ml.gate.run_record import RunRecord, believed, go_by, record_of
from gitops_ml.github.client import connect
from gitops_ml.github.passed import Base

STAGES = {
    "split": {"cmd": "gitops-ml split", "outs": [{"path": "data/split", "md5": "1.dir"}]},
    "train": {"cmd": "gitops-ml train", "outs": [{"path": "models", "md5": "2.dir"}]},
    "evaluate": {
        "cmd": "gitops-ml evaluate",
        "outs": [{"path": "reports/metrics.json", "md5": "3"}],
    },
}
LOCK = yaml.safe_dump({"schema": "2.0", "stages": STAGES}, sort_keys=False)
PASSED = Base("main", run=100)


@pytest.fixture
def api(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeActions:
    fake = FakeActions(httpserver, httpserver)
    fake.archives["training"] = archive({"dvc.lock": LOCK, "reports/metrics.json": "{}"})
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setattr(run_record, "connect", lambda root: connect(root, attempts=1))
    # The second server answers for the first here, so archives are asked for by their place there.
    monkeypatch.setattr(
        "gitops_ml.github.client.GitHub.download",
        lambda self, path, most: fake.archives["training"],
    )
    return fake


def archive(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        for name, text in files.items():
            target.writestr(name, text)
    return content.getvalue()


def test_the_lock_of_the_run_is_in_its_artifact(api: FakeActions) -> None:
    assert record_of(PASSED) == RunRecord(LOCK)


def test_a_base_that_no_run_is_known_of_has_no_record(api: FakeActions) -> None:
    record = record_of(Base("main"))
    assert record.lock is None
    assert record.why == "no run is known to have passed for it"
    assert api.requests == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"reports/metrics.json": "{}"}, r"holds no dvc\.lock"),
        ({"dvc.lock": "no: lock"}, r"dvc\.lock of its run: is no DVC lock file"),
        ({"dvc.lock": "[" * 100_000}, "nests too deeply"),
        ({"dvc.lock": "#" * 5_000_001}, "more than 5,000,000 bytes"),
    ],
)
def test_an_artifact_without_a_lock_is_no_record(
    api: FakeActions, content: dict[str, str], said: str
) -> None:
    api.archives["training"] = archive(content)
    record = record_of(PASSED)
    assert record.lock is None
    assert record.why is not None
    assert re.search(said, record.why)


def test_what_is_just_as_large_as_it_may_be_is_read(
    api: FakeActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "LOCK_BYTES", len(LOCK))
    api.artifact_facts["training"] = {"size_in_bytes": run_record.ARCHIVE_BYTES}
    assert record_of(PASSED) == RunRecord(LOCK)
    monkeypatch.setattr(run_record, "LOCK_BYTES", len(LOCK) - 1)
    assert record_of(PASSED).lock is None


def test_what_is_no_archive_is_no_record(api: FakeActions) -> None:
    api.archives["training"] = b"PK\x03\x04 and no more"
    assert "cannot be read" in (record_of(PASSED).why or "")
    # Its list says that the file is packed in another way than it is.
    damaged = bytearray(archive({"dvc.lock": LOCK}))
    damaged[damaged.index(b"PK\x01\x02") + 10] = zipfile.ZIP_BZIP2
    api.archives["training"] = bytes(damaged)
    assert "cannot be read" in (record_of(PASSED).why or "")


def test_without_an_artifact_or_an_answer_there_is_no_record(api: FakeActions) -> None:
    api.artifact_facts["training"] = {"expired": True}
    assert "has expired" in (record_of(PASSED).why or "")
    api.artifact_facts["training"] = {"size_in_bytes": 10**9}
    assert "too large" in (record_of(PASSED).why or "")
    api.archives.clear()
    assert "left no artifact `training`" in (record_of(PASSED).why or "")
    api.refusals[f"GET /repos/{NAME}/actions/runs/100/artifacts"] = [403]
    assert record_of(PASSED).lock is None


def test_an_answer_that_is_not_understood_is_no_record(
    api: FakeActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"id": 1, "expired": False, "size_in_bytes": 1}
    for answer in ({"id": 1}, {**facts, "size_in_bytes": None}, {**facts, "id": "one"}):
        monkeypatch.setattr(run_record, "newest_artifact", lambda *asked, it=answer: it)
        record = record_of(PASSED)
        assert record.lock is None
        assert "was not understood" in (record.why or "")


class Committed(BaseRevision):
    """A base whose commit holds a lock."""

    def read(self, path: Path, commit: str | None = None) -> str | None:
        return LOCK


BASE = Committed(Path(), "", "main", "tip", "tip")


def test_at_a_desk_the_commit_is_believed() -> None:
    assert go_by(None, RunRecord(None)) is None
    base = go_by(BASE, None)
    assert base == BASE
    assert base is not None
    assert believed(base) == LOCK


def test_what_the_run_made_takes_the_place_of_what_was_committed() -> None:
    base = go_by(BASE, RunRecord("schema: '2.0'\nstages: {}\n"))
    assert base is not None
    assert base.recorded() == believed(base) == "schema: '2.0'\nstages: {}\n"


def test_without_a_record_no_model_and_no_answer_is_believed() -> None:
    base = go_by(BASE, RunRecord(None, "nobody knows"))
    assert base is not None
    assert base.recorded() == LOCK
    assert yaml.safe_load(believed(base) or "")["stages"] == {"split": STAGES["split"]}
