"""From a row to the numbers that the model sees: the one encoder of training and of the service.

A row becomes one line of a float32 matrix, one column per feature in the order of `schema.yaml`:

- integer and number: the value; missing is NaN
- boolean: 0 or 1; missing is NaN
- category: its place in the schema's list of categories; missing or not in the list is -1

The service imports this module, so it needs nothing but numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gitops_ml.core.schema import Schema

Matrix = NDArray[np.float32]

UNSEEN = -1.0


@dataclass(frozen=True)
class Feature:
    """One column of the matrix."""

    name: str
    type: str
    categories: tuple[str, ...] = ()

    def codes(self) -> dict[str, float] | None:
        """The number that stands for each category; None for a feature that is a number itself."""
        if self.type != "category":
            return None
        return {value: float(place) for place, value in enumerate(self.categories)}


@dataclass(frozen=True)
class Features:
    """The features of a model, in the order of its matrix."""

    items: tuple[Feature, ...]

    @cached_property
    def _plan(self) -> tuple[tuple[str, dict[str, float] | None], ...]:
        """What to look up for every row; made once, since a service encodes one row at a time."""
        return tuple((item.name, item.codes()) for item in self.items)

    @classmethod
    def from_schema(cls, schema: Schema) -> Features:
        """Take the columns with `feature: true`, in their order."""
        return cls(
            tuple(
                Feature(name, column.type, column.categories or ())
                for name, column in schema.features().items()
            )
        )

    @classmethod
    def from_manifest(cls, entries: Iterable[Mapping[str, Any]]) -> Features:
        """Read back what `to_manifest` wrote."""
        return cls(
            tuple(
                Feature(entry["name"], entry["type"], tuple(entry.get("categories", ())))
                for entry in entries
            )
        )

    def to_manifest(self) -> list[dict[str, Any]]:
        """JSON values that `from_manifest` turns into equal features."""
        return [
            {"name": item.name, "type": item.type}
            | ({"categories": list(item.categories)} if item.type == "category" else {})
            for item in self.items
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of the matrix."""
        return tuple(item.name for item in self.items)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> Matrix:
        """Encode rows given as mappings from column to value.

        A column that a record lacks counts as missing; columns that are no features are ignored.
        Values must have the schema's types: this is the hot path and checks nothing.

        Args:
            records: n rows.

        Returns:
            Shape (n, number of features).
        """
        plan = self._plan
        rows = [
            [
                record.get(name) if codes is None else codes.get(record.get(name), UNSEEN)  # type: ignore[arg-type]
                for name, codes in plan
            ]
            for record in records
        ]
        # numpy reads None as NaN and booleans as 0 and 1.
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(plan))


def class_name(value: str | int | bool) -> str:
    """How a class is called where only text will do: a JSON key or the end of a column's name.

    Text stays as it is; booleans read `true` and `false`, as in JSON.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
