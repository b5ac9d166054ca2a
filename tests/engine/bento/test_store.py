"""The bento that is delivered, in a store of BentoML's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_bento import PACKAGE, TAG, make_files, pack, put_into_store, store_in
from projects import make_project

from gitops_ml.bento.store import FETCHED, BentoError, fetched_tag, find_bento


@pytest.fixture
def bento(tmp_path: Path) -> Iterator[Path]:
    """The folder of the only bento in the store."""
    with store_in(tmp_path / "store") as store:
        yield put_into_store(store, make_files())


def test_the_fetched_bento_is_the_one_that_is_delivered(tmp_path: Path) -> None:
    make_project(tmp_path)
    assert fetched_tag(tmp_path) is None
    path = tmp_path / FETCHED / f"{PACKAGE}.bento"
    path.parent.mkdir(parents=True)
    path.write_bytes(pack(make_files(), tmp_path / "packed"))
    assert fetched_tag(tmp_path) == TAG
    path.write_bytes(b"no bento")
    with pytest.raises(BentoError, match="is no bento"):
        fetched_tag(tmp_path)


def test_a_bento_that_is_not_there_is_named(bento: Path) -> None:
    with pytest.raises(BentoError, match=f"{PACKAGE}:9: no such bento; run `make fetch-bento`"):
        find_bento(f"{PACKAGE}:9")
    assert find_bento("latest").tag == TAG
    (bento / "src" / "release.json").unlink()
    with pytest.raises(BentoError, match=r"its release\.json cannot be read"):
        find_bento("latest")
