"""The one schema: `schema.yaml` says what a row is.

Validation, the training matrix and the service's request model are all derived from it. This
module needs no data-frame library, so that the service can import it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.settings import Contract, Params, read_settings

ColumnType = Literal["integer", "number", "boolean", "category", "string", "datetime"]
NUMERIC = frozenset({"integer", "number"})

# The column that the pipeline adds: which file a row came from.
SOURCE_FILE = "source_file"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Model):
    """One column: its type, the values it may hold and whether the model sees it.

    Attributes:
        outcome: Known only after the fact: no feature, and nothing may be derived from it.
    """

    type: ColumnType
    feature: bool = True
    nullable: bool = False
    min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(allow_inf_nan=False)] | None = None
    categories: tuple[str, ...] | None = None
    unseen: Literal["error", "missing"] = "error"
    all_null: Literal["error", "allowed"] = "error"
    outcome: bool = False
    unit: str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if self.type not in NUMERIC and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max are for integer and number, not for {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is larger than max {self.max:g}")
        if self.type == "category":
            if not self.categories:
                raise ValueError("a category needs `categories`, the list of values it may hold")
            if len(set(self.categories)) != len(self.categories):
                raise ValueError("categories: a value is listed twice")
        elif self.categories is not None or self.unseen != "error":
            raise ValueError(f"categories and unseen are for category, not for {self.type}")
        if self.all_null == "allowed" and not self.nullable:
            raise ValueError("`all_null: allowed` needs `nullable: true`")
        if self.feature and self.outcome:
            raise ValueError("an outcome cannot be a feature: set `feature: false`")
        if self.feature and self.type in ("string", "datetime"):
            raise ValueError(
                f"a {self.type} cannot be a feature: set `feature: false`, "
                "and derive a number or a category from it in src/<package>/features.py"
            )
        return self


class Rule(_Model):
    """A condition across columns, as a SQL expression; a row where it is false breaks it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    check: Annotated[str, Field(min_length=1)]
    description: str = ""


class Schema(_Model):
    """The whole of `schema.yaml`."""

    description: str = ""
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _names_are_free(self) -> Schema:
        if SOURCE_FILE in self.columns:
            raise ValueError(f"columns.{SOURCE_FILE}: the pipeline adds this column; rename yours")
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("rules: two rules have the same name")
        return self

    def features(self) -> dict[str, Column]:
        """The columns that the model sees, in the order of the training matrix."""
        return {name: column for name, column in self.columns.items() if column.feature}


def load_schema(root: Path = Path()) -> Schema:
    """Read `schema.yaml`.

    Raises:
        SettingsError: If the file is missing, is not YAML or breaks a rule.
    """
    return read_settings(root / paths.SCHEMA, Schema)


def check_against_params(schema: Schema, params: Params, *, whole: bool = True) -> None:
    """Make sure that `params.yaml` and `schema.yaml` speak of the same columns.

    Args:
        schema: With derived columns where there are any.
        params: Names the columns.
        whole: False where the derived columns are not known yet: what may name them is left out.

    Raises:
        SettingsError: With one line for every contradiction.
    """
    problems: list[str] = []

    def must_exist(key: str, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in schema.columns:
                problems.append(f"{paths.PARAMS}: {key}: {paths.SCHEMA} has no column `{name}`")

    must_exist("target", (params.target,))
    must_exist("data.key", params.data.key)
    must_exist("data.time", (params.data.time,) if params.data.time else ())
    must_exist("split.columns", params.split.columns)
    for name in params.evaluate.slices if whole else ():
        if name not in schema.columns:
            problems.append(
                f"{paths.PARAMS}: evaluate.slices: `{name}` is no column of {paths.SCHEMA} and no "
                "derived column"
            )
    target = schema.columns.get(params.target)
    if target is not None:
        problems += _target_problems(params, target)
    time = schema.columns.get(params.data.time or "")
    if time is not None and time.type != "datetime":
        problems.append(f"{paths.SCHEMA}: columns.{params.data.time}: data.time must be a datetime")
    for name in params.evaluate.slices if whole else ():
        if name in schema.columns and schema.columns[name].type not in ("category", "boolean"):
            problems.append(f"{paths.PARAMS}: evaluate.slices: `{name}` is no category or boolean")
    if whole and not schema.features():
        problems.append(f"{paths.SCHEMA}: no column has `feature: true`")
    if problems:
        raise SettingsError("\n".join(problems))


def check_behaviour(contract: Contract, columns: Mapping[str, Column]) -> None:
    """Make sure that what the model must have learnt is about what it sees.

    Args:
        contract: Whose terms are looked at.
        columns: What can move an answer: the columns of a request, and the derived ones.

    Raises:
        SettingsError: With one line for every term that says nothing.
    """
    problems = []
    terms = contract.behaviour
    named = [(f"invariant: {name}", name) for name in terms.invariant]
    named += [(f"directional: {term.column}", term.column) for term in terms.directional]
    for where, name in named:
        if name not in columns:
            problems.append(
                f"{paths.CONTRACT}: behaviour.{where}: the model never sees such a column, so the "
                f"term says nothing; choose from {', '.join(columns)}"
            )
    for term in terms.directional:
        what = _cannot_hold(columns[term.column], term.set) if term.column in columns else None
        if what is not None:
            problems.append(
                f"{paths.CONTRACT}: behaviour.directional: {term.column}: set: must be {what}, "
                f"found {term.set!r}"
            )
    if problems:
        raise SettingsError("\n".join(problems))


def _cannot_hold(column: Column, value: float | bool | str) -> str | None:
    """What a value would have to be for a column; None if it is that."""
    if column.type == "boolean":
        return None if isinstance(value, bool) else "true or false"
    if column.type in NUMERIC:
        if isinstance(value, bool | str) or (column.type == "integer" and value != int(value)):
            return "a whole number" if column.type == "integer" else "a number"
        low = -math.inf if column.min is None else column.min
        high = math.inf if column.max is None else column.max
        return None if low <= value <= high else f"between {low:g} and {high:g}"
    if column.type == "datetime":
        return None if _is_moment(value) else "a moment with its zone, like 2013-07-01T12:00:00Z"
    if not isinstance(value, str):
        return "a text"
    known = column.categories is None or column.unseen == "missing" or value in column.categories
    return None if known else f"one of {', '.join(column.categories or ())}"


def _is_moment(value: float | bool | str) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _target_problems(params: Params, target: Column) -> list[str]:
    where = f"{paths.SCHEMA}: columns.{params.target}"
    problems = []
    if target.feature:
        problems.append(f"{where}: the target cannot be a feature; set `feature: false`")
    if target.nullable:
        problems.append(f"{where}: the target cannot be nullable")
    if params.task == "regression" and target.type not in NUMERIC:
        problems.append(f"{where}: regression needs an integer or a number, not a {target.type}")
    if params.task == "classification" and target.type not in ("boolean", "category", "integer"):
        problems.append(
            f"{where}: classification needs a boolean, category or integer, not a {target.type}"
        )
    return problems
