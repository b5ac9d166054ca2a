"""What a request may hold: read and checked against the schema before the model sees it.

`schema.yaml` says which columns there are, their types, ranges and categories, and whether they
may be null; a request carries the features, and what derived columns are made of. The checks below
are compiled from it once, into pydantic's Rust core. Types are strict: "1" is no number, `true` is
no number, 3.5 is no integer, a moment has a time zone. Every input must be named, a missing value
is an explicit null, and what is no input is refused, a derived column too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal, Optional

import numpy as np
from pydantic import AwareDatetime, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json
from typing_extensions import TypedDict

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.schema import Column
from gitops_ml.features.derive import NOTHING_DERIVED, Derivation, DerivedValueError

Record = dict[str, Any]

# A larger number would become infinite in the float32 matrix.
LARGEST = float(np.finfo(np.float32).max)
# A larger whole number is not exact as a float, which is what JSON's numbers are read as.
EXACT_INTEGERS = 2.0**53
PROBLEMS_SHOWN = 20
VALUE_SHOWN = 80
CATEGORIES_SHOWN = 30


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request."""

    field: str | None
    row: int | None
    problem: str
    value: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The problem as a JSON object, without the parts that do not apply."""
        return {key: value for key, value in vars(self).items() if value is not None}


class RequestError(GitopsError):
    """A request that cannot be answered.

    Attributes:
        status: The HTTP status to answer with, a 4xx.
        problems: What is wrong, at most `PROBLEMS_SHOWN` entries.
    """

    def __init__(
        self, status: HTTPStatus, message: str, problems: tuple[Problem, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems

    def as_json(self) -> dict[str, Any]:
        """The body of the answer."""
        body: dict[str, Any] = {"error": str(self)}
        if self.problems:
            body["problems"] = [problem.as_json() for problem in self.problems]
        return body


class RequestReader:
    """Reads the body of a prediction request: a record, or an array of records.

    Args:
        inputs: The columns that a record must hold.
        max_rows: How many records a request may hold.
        derivation: What is derived from them, and must not be in a record.
    """

    def __init__(
        self,
        inputs: Mapping[str, Column],
        max_rows: int,
        derivation: Derivation = NOTHING_DERIVED,
    ) -> None:
        self.max_rows = max_rows
        self._inputs = inputs
        self._derived = {column.name: column.inputs for column in derivation.columns}
        exact = {source.name for source in derivation.sources if source.type == "integer"}
        record = _record({name: _exact(c) if name in exact else c for name, c in inputs.items()})
        self._record: TypeAdapter[Record] = TypeAdapter(record)
        array: Any = list  # a type checker wants to know what is in it
        self._records: TypeAdapter[list[Record]] = TypeAdapter(
            Annotated[array[record], Field(min_length=1, max_length=max_rows), FailFast()]
        )

    def read(self, body: bytes) -> tuple[list[Record], bool]:
        """Check a body.

        Returns:
            The records, and whether they came as an array.

        Raises:
            RequestError: 400 if the body is not JSON, 413 if it holds too many records, 422 if it
                breaks the schema, with every problem's field and row.
        """
        batch = body.lstrip(b" \t\r\n").startswith(b"[")
        try:
            if batch:
                return self._records.validate_json(body), True
            return [self._record.validate_json(body)], False
        except ValidationError as error:
            raise self._explain(body, batch, error.errors(include_url=False)) from None

    def _explain(self, body: bytes, batch: bool, errors: list[ErrorDetails]) -> RequestError:
        kind = errors[0]["type"]
        if kind == "json_invalid":
            what = "is empty" if not body.strip() else f"is not JSON: {errors[0]['ctx']['error']}"
            return RequestError(HTTPStatus.BAD_REQUEST, f"The body {what}.")
        if not batch:
            return _does_not_match(self._problems(errors, None))
        rows = from_json(body)
        if len(rows) > self.max_rows:
            return RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"A request may hold at most {self.max_rows:,} records; send several requests.",
            )
        if not rows:
            return RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "The array is empty; send at least one record."
            )
        return _does_not_match(self._batch_problems(rows))

    def _batch_problems(self, rows: list[Any]) -> list[Problem]:
        """Check row by row until there is enough to show, so that a bad batch costs little."""
        problems: list[Problem] = []
        for row, record in enumerate(rows):
            try:
                # As JSON, like the body: only there is a text a moment.
                self._record.validate_json(to_json(record, inf_nan_mode="constants"))
            except ValidationError as error:
                problems += self._problems(error.errors(include_url=False), row)
            if len(problems) >= PROBLEMS_SHOWN:
                break
        return problems

    def _problems(self, errors: list[ErrorDetails], row: int | None) -> list[Problem]:
        return [self._problem(error, row) for error in errors]

    def _problem(self, error: ErrorDetails, row: int | None) -> Problem:
        if not error["loc"]:
            return Problem(None, row, "must be an object of features", _shown(error["input"]))
        field = str(error["loc"][0])
        if error["type"] == "missing":
            return Problem(field, row, "is missing")
        if error["type"] == "extra_forbidden":
            made_of = self._derived.get(field)
            if made_of is not None:
                what = f"is derived from {', '.join(made_of)} here; leave it out"
                return Problem(field, row, what)
            return Problem(_clip(field), row, "is not a feature")
        column = self._inputs[field]
        return Problem(field, row, _rule(column, error), _shown(error["input"]))

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of one record, made from the very types that check it."""
        return self._record.json_schema()


def cannot_derive(error: DerivedValueError, batch: bool) -> RequestError:
    """What to answer when a record passes the schema, but a column cannot be derived from it."""
    return _does_not_match(
        [
            Problem(
                ", ".join(error.inputs),
                row if batch else None,
                f"`{error.column}`, which is derived from it, cannot be: {_clip(error.told(1))}",
                None if row is None else _clip(_pairs(error.example(row))),
            )
            for row in (error.rows or (None,))[:PROBLEMS_SHOWN]
        ]
    )


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _exact(column: Column) -> Column:
    low = -EXACT_INTEGERS if column.min is None else max(column.min, -EXACT_INTEGERS)
    high = EXACT_INTEGERS if column.max is None else min(column.max, EXACT_INTEGERS)
    return column.model_copy(update={"min": low, "max": high})


def _does_not_match(problems: list[Problem]) -> RequestError:
    return RequestError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The request does not match the schema.",
        tuple(problems[:PROBLEMS_SHOWN]),
    )


def _record(inputs: Mapping[str, Column]) -> Any:
    """The type of a record: a dictionary with exactly these keys."""
    typed_dict: Any = TypedDict  # a type checker wants to know the keys
    record = typed_dict("Record", {name: _field(column) for name, column in inputs.items()})
    record.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return record


def _field(column: Column) -> Any:
    """The type of one input's value."""
    about = " ".join(filter(None, (column.description, _unit(column))))
    kind: Any
    if column.type == "boolean":
        kind = Annotated[bool, Field(description=about)]
    elif column.type == "string":
        kind = Annotated[str, Field(description=about)]
    elif column.type == "datetime":
        kind = Annotated[AwareDatetime, Field(description=about)]
    elif column.type == "category" and column.unseen == "error":
        kind = Annotated[Literal[column.categories], Field(description=about)]
    elif column.type == "category":
        # A value that was never seen is allowed and counts as missing; the known ones document.
        known = list(column.categories or ())
        kind = Annotated[str, Field(description=about, examples=known)]
    else:
        whole = column.type == "integer"
        kind = Annotated[
            float,
            Field(
                description=about,
                ge=-LARGEST if column.min is None else column.min,
                le=LARGEST if column.max is None else column.max,
                allow_inf_nan=False,
                # 3.0 is an integer too: clients that know only one kind of number send it.
                multiple_of=1 if whole else None,
                json_schema_extra={"type": "integer"} if whole else None,
            ),
        ]
    return Optional[kind] if column.nullable else kind  # noqa: UP045 - built at run time


def _unit(column: Column) -> str:
    return f"[{column.unit}]" if column.unit else ""


def _rule(column: Column, error: ErrorDetails) -> str:
    """The rule that a value broke, in words."""
    if error["input"] is None:
        return "must not be null"
    if error["type"] in ("greater_than_equal", "less_than_equal"):
        return _range(column)
    if column.type == "boolean":
        return "must be true or false"
    if column.type == "category":
        return _one_of(column.categories or ()) if column.unseen == "error" else "must be a text"
    if column.type == "string":
        return "must be a text"
    if column.type == "datetime":
        return "must be a moment with its time zone, like 2013-07-01T12:00:00Z"
    if error["type"] == "finite_number":
        return "must be a finite number"
    return "must be a whole number" if column.type == "integer" else "must be a number"


def _one_of(categories: tuple[str, ...]) -> str:
    shown = ", ".join(categories[:CATEGORIES_SHOWN])
    more = len(categories) - CATEGORIES_SHOWN
    return f"must be one of: {shown}" + (f" and {more} more" if more > 0 else "")


def _range(column: Column) -> str:
    if column.min is None and column.max is None:
        return "is too large a number"
    if column.max is None:
        return f"must be at least {column.min:g}"
    if column.min is None:
        return f"must be at most {column.max:g}"
    return f"must be between {column.min:g} and {column.max:g}"


def _shown(value: Any) -> str:
    return _clip(json.dumps(value, ensure_ascii=False))


def _clip(text: str) -> str:
    return text if len(text) <= VALUE_SHOWN else text[: VALUE_SHOWN - 1] + "…"
