"""What is known of the bento, and what BentoCloud holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_artifact_bentocloud import make_client_new, put_artifact
from fake_bento import TAG, make_files, make_release, put_into_store, store_in
from fake_cloud import TOKEN, FakeCloud
from projects import make_project
from pytest_httpserver import HTTPServer

from gitops_ml.bento.store import BentoError
from gitops_ml.ship.targets.bentocloud import details, how_to_verify, look_up, recorded
from gitops_ml.ship.targets.bentocloud_client import digest_of, push

pytestmark = pytest.mark.usefixtures("clean_settings")


@pytest.fixture(autouse=True)
def _on_bentocloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_project(tmp_path, "bentocloud"))


@pytest.fixture
def bento(tmp_path: Path) -> Iterator[Path]:
    with store_in(tmp_path / "store") as store:
        yield put_into_store(store, make_files())


@pytest.fixture
def cloud(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCloud:
    fake = FakeCloud(httpserver)
    monkeypatch.setenv("BENTO_CLOUD_API_KEY", TOKEN)
    monkeypatch.setenv("BENTO_CLOUD_API_ENDPOINT", fake.url)
    make_client_new(monkeypatch, tmp_path)
    return fake


def test_a_bento_is_recorded_with_the_hash_of_what_it_holds(bento: Path, tmp_path: Path) -> None:
    found, said = recorded(tmp_path)
    assert found.tag == TAG
    assert said == put_artifact(tmp_path, bento)
    fetched = tmp_path / "build" / "bento" / f"{TAG.partition(':')[0]}.bento"
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"no bento")
    with pytest.raises(BentoError, match="is no bento"):
        recorded(tmp_path)


def released(bento: Path) -> dict[str, Any]:
    """What a release of the bento in a folder says."""
    return make_release(bento={"name": TAG, "digest": digest_of(bento)})


@pytest.mark.parametrize(
    ("name", "content"),
    [("src/models/model.onnx", b"other"), ("bento.yaml", b"other"), ("src/new.py", b"")],
)
def test_the_hash_tells_every_file_apart(bento: Path, name: str, content: bytes) -> None:
    before = digest_of(bento)
    assert digest_of(bento) == before
    (bento / name).write_bytes(content)
    changed = digest_of(bento)
    assert changed != before
    # The order of the files stays: it is the name that counts.
    (bento / name).rename(bento / f"{name}-")
    assert digest_of(bento) not in (before, changed)


def test_the_time_of_the_build_does_not_count_and_nothing_else_is_left_out(bento: Path) -> None:
    path = bento / "bento.yaml"
    before, text = digest_of(bento), path.read_text(encoding="utf-8")
    built = "creation_time: '2026-01-02T00:00:00+00:00'\n"
    assert text.count(built) == 1
    later = built.replace("2026-01-02T00:00:00", "2027-03-04T05:06:07.123456")
    path.write_text(text.replace(built, later), encoding="utf-8")
    assert digest_of(bento) == before
    for other in (
        built + "entry: other\n",
        later + later,
        "creation_time: other\n",
        "creation_time: {run: '2026-01-02'}\n",
        f"more:\n  {built}",
    ):
        path.write_text(text.replace(built, other), encoding="utf-8")
        assert digest_of(bento) != before
    # Only BentoML's own file has such a line.
    path.write_text(text, encoding="utf-8")
    (bento / "src" / "bento.yaml").write_text(built, encoding="utf-8")
    first = digest_of(bento)
    (bento / "src" / "bento.yaml").write_text(later, encoding="utf-8")
    assert len({before, first, digest_of(bento)}) == 3


def test_bentocloud_is_asked_for_what_it_holds(
    bento: Path, cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = released(bento)
    verdict, note = look_up(release)
    assert (verdict, "does not hold this bento" in note) == ("differs", True)
    push(TAG)
    assert look_up(release) == ("ok", "is on BentoCloud, and says the same of itself")
    other = {"name": TAG, "digest": f"sha256:{'0' * 64}"}
    verdict, note = look_up({**release, "bento": other})
    assert (verdict, digest_of(bento) in note) == ("differs", True)
    cloud.refusals = {"GET /api/v1": [(503, "out of order")]}
    verdict, note = look_up(release)
    assert (verdict, "out of order" in note) == ("unknown", True)
    monkeypatch.delenv("BENTO_CLOUD_API_KEY")
    assert look_up(release) == ("unknown", "to look, set BENTO_CLOUD_API_KEY")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": {"commit": "d" * 40, "dirty": False}}, "otherwise about source"),
        ({"model": {"sha256": "e" * 64}, "metrics": {}}, "otherwise about model, metrics"),
        ({"release": "shop:1"}, "otherwise about release"),
    ],
)
def test_another_bento_is_told_by_what_it_says_of_itself(
    bento: Path, cloud: FakeCloud, changes: dict[str, Any], words: str
) -> None:
    push(TAG)
    verdict, note = look_up({**released(bento), **changes})
    assert (verdict, words in note) == ("differs", True)


def test_a_bento_under_another_tag_than_it_says_is_told(bento: Path, cloud: FakeCloud) -> None:
    (bento / "src" / "release.json").write_text(json.dumps(make_release(release="shop:1")))
    push(TAG)
    verdict, note = look_up({**released(bento), "release": "shop:1"})
    assert (verdict, "otherwise about its tag" in note) == ("differs", True)


@pytest.mark.parametrize("content", ["{", "[]", "{}", None])
def test_a_bento_that_says_nothing_of_itself_is_told(
    bento: Path, cloud: FakeCloud, content: str | None
) -> None:
    path = bento / "src" / "release.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    push(TAG)
    verdict, note = look_up(released(bento))
    assert (verdict, "holds no release.json" in note) == ("differs", True)


def test_there_is_nothing_beside_the_bento_to_tell() -> None:
    assert details({"bento": {"name": TAG, "digest": "sha256:1"}}) == []
    assert f"that {TAG}@sha256:1 is on BentoCloud" in how_to_verify(f"{TAG}@sha256:1")
