"""A short description of the data that was last accepted: `reports/data_profile.json`.

The next version of the data is compared with it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Column, Schema

OTHER = "(other)"


class Version(BaseModel):
    """How large a version of the data was, and its hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    data_sha256: str


class Profile(Version):
    """A version of the data, what its columns held, and the version before it."""

    columns: dict[str, dict[str, Any]]
    previous: Version | None = None

    def before(self, data_sha256: str) -> Version | None:
        """The version that data with this hash is compared with.

        Data that was already accepted is compared with its predecessor, so that a second run
        gives the answer of the first.
        """
        if data_sha256 == self.data_sha256:
            return self.previous
        return Version(rows=self.rows, data_sha256=self.data_sha256)


def read_profile(path: Path) -> Profile | None:
    """The profile of the last accepted data; None when there is none yet.

    Raises:
        SettingsError: If the file is damaged.
    """
    try:
        return Profile.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: is no profile of the data; restore it from git, or delete it if no version "
            "of the data was accepted before"
        ) from error


def make_profile(
    rows: pl.DataFrame, schema: Schema, data_sha256: str, previous: Version | None
) -> Profile:
    """Describe accepted data, column by column."""
    return Profile(
        rows=rows.height,
        data_sha256=data_sha256,
        columns={
            name: _describe(rows.get_column(name), column)
            for name, column in schema.columns.items()
        },
        previous=previous,
    )


def _describe(values: pl.Series, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"null_share": _short(values.null_count() / len(values))}
    if column.categories is not None:
        shares = dict.fromkeys(column.categories, 0.0) | {OTHER: 0.0}
        for value, number in values.drop_nulls().value_counts(sort=True).iter_rows():
            shares[value if value in shares else OTHER] += number / len(values)
        described["shares"] = {name: _short(share) for name, share in shares.items() if share}
    elif column.type == "datetime":
        described |= {"min": _moment(values.min()), "max": _moment(values.max())}
    elif column.type == "boolean":
        described["mean"] = _short(values.mean())
    elif column.type != "string":
        described |= {name: _short(getattr(values, name)()) for name in ("min", "max", "mean")}
    return described


def _short(value: Any) -> float | None:
    """Six digits: the last ones of a float depend on the order of its summation."""
    return None if value is None else float(f"{value:.6g}")


def _moment(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None
