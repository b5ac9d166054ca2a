"""The bento that is delivered, in a store of BentoML's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_bento import PACKAGE, TAG, make_files, put_into_store, store_in

from gitops_ml.bento.store import BentoError, find_bento


@pytest.fixture
def bento(tmp_path: Path) -> Iterator[Path]:
    """The folder of the only bento in the store."""
    with store_in(tmp_path / "store") as store:
        yield put_into_store(store, make_files())


def test_a_bento_that_is_not_there_is_named(bento: Path) -> None:
    with pytest.raises(BentoError, match=f"{PACKAGE}:9: no such bento; run `make fetch-bento`"):
        find_bento(f"{PACKAGE}:9")
    assert find_bento("latest").tag == TAG
    (bento / "src" / "release.json").unlink()
    with pytest.raises(BentoError, match=r"its release\.json cannot be read"):
        find_bento("latest")
