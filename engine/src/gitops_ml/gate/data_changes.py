"""How a change's data differ from the base's: rows and columns."""

from __future__ import annotations

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.json_text import load_json
from gitops_ml.core.schema import Column, Schema
from gitops_ml.core.settings import parse_settings
from gitops_ml.gate.verdict import DataChanges


def data_changes(rows: int, base: BaseRevision | None, schema: Schema) -> DataChanges:
    """Compare the number of rows and the schema with the base's."""
    return DataChanges(
        rows=rows,
        base_rows=_base_rows(base),
        schema_changes=_schema_changes(base, schema),
    )


def _base_rows(base: BaseRevision | None) -> int | None:
    profile = base.read(paths.DATA_PROFILE) if base else None
    if profile is None:
        return None
    try:
        rows = load_json(profile)["rows"]
    except (ValueError, KeyError, TypeError):
        return None
    return rows if isinstance(rows, int) else None


def _schema_changes(base: BaseRevision | None, schema: Schema) -> tuple[str, ...]:
    text = base.read(paths.SCHEMA) if base else None
    if text is None:
        return ()
    try:
        old = parse_settings(text, Schema, str(paths.SCHEMA))
    except SettingsError:
        return (f"the base's {paths.SCHEMA} cannot be read to compare",)
    changes = [f"removed `{name}`" for name in old.columns if name not in schema.columns]
    changes += [f"added `{name}`" for name in schema.columns if name not in old.columns]
    for name, column in schema.columns.items():
        if name in old.columns:
            changes += _column_changes(name, old.columns[name], column)
    changes += [f"removed the rule `{rule.name}`" for rule in old.rules if rule not in schema.rules]
    changes += [f"added the rule `{rule.name}`" for rule in schema.rules if rule not in old.rules]
    return tuple(changes)


def _column_changes(name: str, old: Column, new: Column) -> list[str]:
    changes = []
    for key, before in old:
        after = getattr(new, key)
        if before == after or key in ("description", "unit"):
            continue
        if key == "categories":
            gone = sorted(set(before or ()) - set(after or ()))
            come = sorted(set(after or ()) - set(before or ()))
            changes.append(f"`{name}`: categories {len(gone)} removed, {len(come)} added")
        else:
            changes.append(f"`{name}`: {key} {before} → {after}")
    return changes
