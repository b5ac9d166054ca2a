"""What needs no bucket; tests/stories/test_lake.py has a real one."""

from __future__ import annotations

import sys

import pytest

from gitops_ml.lake.bucket import bucket_items
from gitops_ml.lake.errors import LakeError


def test_credentials_are_not_for_addresses() -> None:
    with pytest.raises(LakeError) as caught:
        bucket_items("s3://key:word@bucket/flights")
    assert "word" not in str(caught.value)
    assert "set AWS_ACCESS_KEY_ID" in str(caught.value)


def test_a_missing_library_is_named_with_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        LakeError, match=r"landing from s3:// needs s3fs, .*: run `uv sync --group lake`"
    ):
        bucket_items("s3://bucket/flights")
