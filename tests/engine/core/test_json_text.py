from __future__ import annotations

import pytest

from gitops_ml.core.json_text import load_json

DEEP = "[" * 200_000


def test_a_document_is_read() -> None:
    assert load_json('{"a": [1, null]}') == load_json(b'{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("text", [DEEP, DEEP.encode(), '{"a":' * 200_000, "{", b"\xff", "1" * 9999])
def test_what_is_none_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_json(text)
