from __future__ import annotations

import json
from pathlib import Path

import pytest

from gitops_ml.core.git import BaseRevision
from gitops_ml.core.schema import Schema
from gitops_ml.gate.data_changes import data_changes

SCHEMA = """
columns:
  age: {type: integer, min: 0, max: 120, description: In years.}
  city: {type: category, categories: [A, B]}
  gone: {type: number}
rules:
  - {name: adults, check: age >= 18}
"""
NOW = {
    "columns": {
        "age": {"type": "integer", "min": 0, "max": 130, "description": "Years."},
        "city": {"type": "category", "categories": ["B", "C", "D"]},
        "new": {"type": "boolean"},
    }
}


class Files(BaseRevision):
    """A base that holds these files."""

    files: dict[str, str] = {}  # noqa: RUF012

    def read(self, path: Path, commit: str | None = None) -> str | None:
        return self.files.get(path.as_posix())


@pytest.fixture
def base(tmp_path: Path) -> Files:
    base = Files(root=tmp_path, prefix="", revision="main", commit="tip", fork="tip")
    base.files.clear()
    return base


def test_rows_are_counted_and_the_schemas_compared(base: Files) -> None:
    base.files["reports/data_profile.json"] = json.dumps({"rows": 2, "columns": {}})
    base.files["schema.yaml"] = SCHEMA
    found = data_changes(3, base, Schema.model_validate(NOW))
    assert (found.rows, found.base_rows) == (3, 2)
    assert set(found.schema_changes) == {
        "removed `gone`",
        "added `new`",
        "`age`: max 120.0 → 130.0",
        "`city`: categories 1 removed, 2 added",
        "removed the rule `adults`",
    }


@pytest.mark.parametrize("profile", [None, "", "[]", '{"rows": "many"}'])
def test_a_base_without_a_usable_profile_has_no_row_count(base: Files, profile: str | None) -> None:
    if profile is not None:
        base.files["reports/data_profile.json"] = profile
    assert data_changes(3, base, Schema.model_validate(NOW)).base_rows is None
    assert data_changes(3, None, Schema.model_validate(NOW)).schema_changes == ()


def test_a_base_schema_that_cannot_be_read_is_said(base: Files) -> None:
    base.files["schema.yaml"] = "columns: 3"
    (change,) = data_changes(3, base, Schema.model_validate(NOW)).schema_changes
    assert "cannot be read" in change
