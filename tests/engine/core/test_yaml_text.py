from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ENGINE

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params, parse_settings
from gitops_ml.core.yaml_text import load_yaml


def test_a_document_is_read() -> None:
    assert load_yaml("a: [1, x]\nb: {c: null}") == {"a": [1, "x"], "b": {"c": None}}
    assert load_yaml(b"") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("as_of: 2013-13-01", "month must be in 1..12"),
        ("as_of: 2013-02-30T05:00:00Z", "day is out of range"),
        ("[" * 100_000, "nests too deeply"),
        ("a: 1\x00", "special characters are not allowed"),
        ("a:\n\t- b", "cannot start any token"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("? [a]\n: b", "unhashable"),
    ],
)
def test_what_cannot_be_read_is_one_kind_of_error(text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError, match=said):
        load_yaml(text)
    for model in (Params, Schema):
        with pytest.raises(SettingsError, match=r"^file: is not valid YAML: "):
            parse_settings(text, model, "file")


def test_nobody_reads_a_document_otherwise() -> None:
    sources = ENGINE / "src"
    others = [
        path.relative_to(sources)
        for path in sources.rglob("*.py")
        if "yaml.safe_load(" in path.read_text(encoding="utf-8")
    ]
    assert others == [Path("gitops_ml/core/yaml_text.py")]
