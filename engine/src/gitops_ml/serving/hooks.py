"""What the user's `service.py` does to a request before, and to an answer after the model.

    def before(records): ...            # a list of records as they came, to be checked afterwards
    def after(records, answers): ...    # the checked records and their answers, to be sent

Both get lists and give back a list of as many mappings. What the model answered stays as it is,
since that is what the gate passed: `after` may add to it. Neither function is needed, nor the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from gitops_ml.core.user_code import (
    UserCodeError,
    in_words,
    load_module,
    package_folder,
    raised_at,
    shown,
    unless_stopped,
)
from gitops_ml.serving.requests import Problem, Record, RequestError

MODULE = "service"
# What the functions are called with.
_GIVEN = {"before": ("records",), "after": ("records", "answers")}
Answer = dict[str, Any]


@dataclass(frozen=True)
class Hooks:
    """The functions of `service.py`; None for those that are not there.

    Attributes:
        folder: The user's package, to name lines of it.
        before: Changes records.
        after: Adds to answers.
    """

    folder: Path
    before: Callable[[list[Any]], Any] | None = None
    after: Callable[[list[Record], list[Answer]], Any] | None = None

    def change(self, body: bytes, max_rows: int) -> bytes:
        """The body of a request as `before` leaves it.

        A body that is not of records, or of too many, stays as it is: who reads it says so.

        Args:
            body: JSON: a record, or an array of records.
            max_rows: How many records a request may hold.

        Raises:
            RequestError: 422 if `before` raises a ValueError, with what it says.
            UserCodeError: If it raises another error, or gives back something else than records.
        """
        if self.before is None:
            return body
        try:
            document = from_json(body)
        except ValueError:
            return body
        rows = document if isinstance(document, list) else [document]
        if not 0 < len(rows) <= max_rows or not all(isinstance(row, dict) for row in rows):
            return body
        changed = self._call("before", self.before, rows)
        self._check("before", changed, len(rows))
        return self._as_json("before", changed if isinstance(document, list) else changed[0])

    def add(self, records: list[Record], answers: list[Answer], many: bool) -> bytes:
        """The JSON to send: the answers with what `after` adds to them.

        Args:
            records: The checked records.
            answers: The model's answers to them.
            many: Whether the records came as an array.

        Raises:
            RequestError: 422 if `after` raises a ValueError, with what it says.
            UserCodeError: If it raises another error, or gives back something else than answers,
                or changes what the model answered.
        """
        if self.after is None:
            return to_json(answers if many else answers[0])
        given = [
            {key: dict(part) if isinstance(part, dict) else part for key, part in answer.items()}
            for answer in answers
        ]
        added = self._call("after", self.after, [dict(record) for record in records], given)
        self._check("after", added, len(answers))
        for place, (answer, one) in enumerate(zip(answers, added, strict=True)):
            lost = [
                key
                for key, value in answer.items()
                if key not in one or type(one[key]) is not type(value) or one[key] != value
            ]
            if lost:
                raise self._wrong(
                    "after", f"changes {', '.join(lost)} of answer {place}; it may only add to it"
                )
        return self._as_json("after", added if many else added[0])

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ValueError as error:
            text = str(error) or type(error).__name__
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "The record cannot be used.",
                (Problem(None, None, f"{MODULE}.py, {name}: {text}"),),
            ) from error
        except BaseException as error:
            unless_stopped(error)
            where = raised_at(error, self.folder) or shown(self.folder / f"{MODULE}.py")
            raise UserCodeError(f"{where}: {name}: {in_words(error)}") from error

    def _check(self, name: str, found: Any, rows: int) -> None:
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            what = type(found).__name__ if not isinstance(found, list) else "a list of other things"
            raise self._wrong(name, f"gives back {what}; it must be a list of mappings")
        if len(found) != rows:
            raise self._wrong(name, f"gives back {len(found)} for {rows}; it must be one for each")

    def _as_json(self, name: str, value: Any) -> bytes:
        try:
            return to_json(value)
        except PydanticSerializationError as error:
            raise self._wrong(name, f"gives back what JSON cannot hold: {error}") from error

    def _wrong(self, name: str, what: str) -> UserCodeError:
        return UserCodeError(f"{shown(self.folder / f'{MODULE}.py')}: {name}: {what}")


def _unusable(function: Any, given: Sequence[str]) -> str | None:
    """Why a function could answer no request; None if it may."""
    if not callable(function):
        return "is no function"
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds):
        return "must be a plain function, without `async` and `yield`"
    try:
        inspect.signature(function).bind(*given)
    except TypeError as error:
        return f"is called with {' and '.join(given)}: {error}"
    return None


def load_hooks(root: Path, package: str) -> Hooks:
    """Load `service.py` of the user's package; without it nothing is changed.

    Raises:
        UserCodeError: If it cannot be imported, or `before` or `after` cannot be called as it is.
    """
    folder = package_folder(root, package)
    module = load_module(root, package, MODULE)
    functions = {name: getattr(module, name, None) for name in _GIVEN}
    for name, function in functions.items():
        problem = None if function is None else _unusable(function, _GIVEN[name])
        if problem is not None:
            raise UserCodeError(f"{shown(folder / f'{MODULE}.py')}: {name}: {problem}")
    return Hooks(folder.resolve(), **functions)
