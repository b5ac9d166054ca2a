"""From a row to the numbers that the model sees: the one encoder of training and of the service.

A row becomes one line of a float32 matrix, one column per feature: those of `schema.yaml` in its
order, then the derived ones.

- integer and number: the value; missing is NaN
- boolean: 0 or 1; missing is NaN
- category: its place in the schema's list of categories; missing or not in the list is -1

The service imports this module: of libraries it needs numpy and what the schema needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core.schema import Schema
from gitops_ml.features.derive import NOTHING_DERIVED, Derivation, Values

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
    """The features of a model, in the order of its matrix.

    Attributes:
        items: One for each column of the matrix; those that are derived come last.
        derivation: How these are derived.
    """

    items: tuple[Feature, ...]
    derivation: Derivation = NOTHING_DERIVED

    @cached_property
    def given(self) -> tuple[Feature, ...]:
        """The features that are given: all but the derived ones."""
        return self.items[: len(self.items) - len(self.derivation.columns)]

    @cached_property
    def _plan(self) -> tuple[tuple[str, dict[str, float] | None], ...]:
        """What to look up for every row; made once, since a service encodes one row at a time."""
        return tuple((item.name, item.codes()) for item in self.given)

    @cached_property
    def _derived_plan(self) -> tuple[tuple[str, dict[str, float] | None], ...]:
        """What to look up for the derived features."""
        return tuple((item.name, item.codes()) for item in self.items[len(self.given) :])

    @classmethod
    def from_schema(cls, schema: Schema, derivation: Derivation = NOTHING_DERIVED) -> Features:
        """Take the columns with `feature: true`, in their order, then the derived ones."""
        return cls(
            tuple(
                Feature(name, column.type, column.categories or ())
                for name, column in derivation.extend(schema).features().items()
            ),
            derivation,
        )

    @classmethod
    def from_manifest(
        cls, entries: Iterable[Mapping[str, Any]], derivation: Derivation = NOTHING_DERIVED
    ) -> Features:
        """Read back what `to_manifest` wrote."""
        return cls(
            tuple(
                Feature(entry["name"], entry["type"], tuple(entry.get("categories", ())))
                for entry in entries
            ),
            derivation,
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

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a row must hold: the given features, and what the others are derived from."""
        sources = (source.name for source in self.derivation.sources)
        return tuple(dict.fromkeys([*(item.name for item in self.given), *sources]))

    def missing(self) -> Matrix:
        """A row in which nothing is known; shape (1, number of features)."""
        row = [UNSEEN if item.type == "category" else np.nan for item in self.items]
        return np.array([row], dtype=np.float32)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> Matrix:
        """Encode rows given as mappings from column to value.

        A column that a record lacks counts as missing; columns that are no features are ignored.
        Values must have the schema's types: this is the hot path and checks nothing.

        Args:
            records: n rows.

        Returns:
            Shape (n, number of features).

        Raises:
            DerivedValueError: If a column cannot be derived.
        """
        plan = self._plan
        rows = [
            [
                record.get(name) if codes is None else codes.get(record.get(name), UNSEEN)  # type: ignore[arg-type]
                for name, codes in plan
            ]
            for record in records
        ]
        if self.derivation.columns:
            for numbers in self.derived_numbers(self.derivation.of_records(records)):
                for row, number in zip(rows, numbers, strict=True):
                    row.append(number)
        # numpy reads None as NaN and booleans as 0 and 1.
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(self.items))

    def derived_numbers(self, values: Mapping[str, Values]) -> Iterator[list[Any]]:
        """What stands for the values of each derived feature, in the order of the matrix."""
        for name, codes in self._derived_plan:
            column = values[name].tolist()
            yield column if codes is None else [codes.get(value, UNSEEN) for value in column]


def class_name(value: str | int | bool) -> str:
    """How a class is called where only text will do: a JSON key or the end of a column's name.

    Text stays as it is; booleans read `true` and `false`, as in JSON.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
