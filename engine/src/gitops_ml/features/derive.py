"""Derived columns: plain functions of the user's that make a column from other columns.

    from gitops_ml.features import derived

    @derived(type="integer", min=0, max=23, unit="h")
    def hour(scheduled_hour):
        ...

The function's name is the column's. Its parameters name columns of `schema.yaml`, features or not,
or other derived columns; it is given one numpy array of n values for each and gives back n values.
Training, evaluation, batch scoring and the live service call the same function, and a request must
not carry the column. What a function is given, and what it gives back:

| type             | array                                              | missing            |
|------------------|----------------------------------------------------|--------------------|
| number           | float64                                            | NaN                |
| integer          | int64; float64 when nullable                       | NaN                |
| boolean          | bool; object of True, False and None when nullable | None               |
| category, string | object of str                                      | None               |
| datetime         | datetime64[us], in UTC                             | NaT                |

A derived column is a number, an integer, a boolean or a category. A function must be pure, and
value i of its answer must depend on row i alone: a request has one row. The arrays that it is given
cannot be written to.

The service imports this module: of libraries it needs numpy and what the schema needs.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project
from gitops_ml.core.schema import SOURCE_FILE, Column, ColumnType, Schema
from gitops_ml.core.user_code import (
    check_user_code,
    in_words,
    load_module,
    package_folder,
    raised_at,
    shown,
    unless_stopped,
)
from gitops_ml.features.declarations import check_declarations

logger = logging.getLogger(__name__)

Values = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

MODULE = "features"
TYPES = ("number", "integer", "boolean", "category")
EXAMPLES = 3
# What single values break; the others are broken by the function as a whole.
_OF_VALUES = frozenset({"null", "finite", "whole", "min", "max", "categories"})
# A larger number would become infinite in the float32 matrix.
LARGEST = float(np.finfo(np.float32).max)
# The largest float that is an int64 too.
LARGEST_INTEGER = float(np.nextafter(2.0**63, 0))
_LONGEST = 200
_DECLARED = "__derived_column__"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPAN, _MOMENT = np.dtype("m8[us]"), np.dtype("M8[us]")
_moment = datetime.fromisoformat


class DerivedColumnError(GitopsError):
    """A derived column is declared wrongly; the message names function, parameter and line."""


class DerivedValueError(GitopsError):
    """A function did not give what is declared.

    Attributes:
        column: The derived column.
        inputs: What it is derived from.
        where: File and line.
        rule: What it broke: function, length, dtype, null, finite, whole, min, max, categories.
        problem: What is wrong, without where.
        rows: The rows that are at fault, from 0; empty if no row alone is.
    """

    def __init__(
        self,
        column: Derived,
        rule: str,
        problem: str,
        rows: Sequence[int] = (),
        given: Mapping[str, Values] | None = None,
        where: str | None = None,
    ) -> None:
        self.column = column.name
        self.inputs = column.inputs
        self.where = where or column.where
        self.rule = rule
        self.problem = problem
        self.rows = tuple(rows)
        self._given = given or {}
        places = [f"row {row + 1}: {self._named(row)}" for row in self.rows[:EXAMPLES]]
        found = f" ({'; '.join(places)})" if places else ""
        super().__init__(
            f"{self.where}: derived column `{self.column}`: {self.told(len(self.rows))}{found}"
        )

    def told(self, rows: int) -> str:
        """What is wrong with so many rows, in words."""
        if self.rule not in _OF_VALUES:
            return self.problem
        return f"{rows:,} value{'' if rows == 1 else 's'}: {self.problem}"

    def example(self, row: int) -> dict[str, str]:
        """What a row at fault holds, as text: the inputs, and what the function gave for it."""
        return {name: as_text(values[row]) for name, values in self._given.items()}

    def _named(self, row: int) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.example(row).items())


def derived(
    *,
    type: str,
    min: float | None = None,
    max: float | None = None,
    categories: Sequence[str] | None = None,
    nullable: bool = False,
    unit: str | None = None,
    description: str = "",
) -> Callable[[F], F]:
    """Declare that a function derives the column of its name.

    Args:
        type: number, integer, boolean or category.
        min: The least value that it may give, of a number or an integer.
        max: The largest one.
        categories: The values that it may give, of a category.
        nullable: Whether it may give NaN or None.
        unit: The unit of its values.
        description: What the column says; by default the first line of the function's docstring.

    Raises:
        DerivedColumnError: If the declaration contradicts itself or the function is no plain one.
    """

    def declare(function: F) -> F:
        where, name = _where(function), getattr(function, "__name__", repr(function))
        _check_plain(function, where, name)
        if type not in TYPES:
            raise DerivedColumnError(
                f"{where}: derived column `{name}`: type `{type}` must be one of {', '.join(TYPES)}"
            )
        if isinstance(categories, str):
            raise DerivedColumnError(
                f"{where}: derived column `{name}`: categories must be a list of texts, "
                f"not the text {categories!r}"
            )
        told = description or (inspect.getdoc(function) or "").partition("\n")[0]
        try:
            column = Column.model_validate(
                {
                    "type": type,
                    "min": min,
                    "max": max,
                    "categories": None if categories is None else tuple(categories),
                    "nullable": nullable,
                    "unit": unit,
                    "description": told,
                }
            )
        except ValidationError as error:
            said = "; ".join(_said(dict(one)) for one in error.errors())
            raise DerivedColumnError(f"{where}: derived column `{name}`: {said}") from error
        setattr(function, _DECLARED, Derived(name, column, _parameters(function), function, where))
        return function

    return declare


def _said(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    said = error["msg"].removeprefix("Value error, ")
    return f"{place}: {said} (found {error['input']!r})" if place else said


def _where(function: Any) -> str:
    """File and line of a function; the file alone of what else is declared in one."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return f"{shown(Path(code.co_filename))}:{code.co_firstlineno}"
    # The caller of `declare`: the line that declares it.
    frame = sys._getframe(2)
    return f"{shown(Path(frame.f_code.co_filename))}:{frame.f_lineno}"


def _check_plain(function: Any, where: str, name: str) -> None:
    kinds = {
        "an async function": inspect.iscoroutinefunction(function),
        "a generator": inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function),
        "a lambda": name == "<lambda>",
        "a class": inspect.isclass(function),
        f"a {function.__class__.__name__}": not inspect.isfunction(function),
    }
    found = next((kind for kind, it_is in kinds.items() if it_is), None)
    if found is not None:
        raise DerivedColumnError(
            f"{where}: derived column `{name}`: must be a plain function, as in `def name(column):`"
            f", not {found}; call what else you need inside of it"
        )


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    where = f"{_where(function)}: derived column `{function.__name__}`"
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if not plain or parameter.default is not parameter.empty:
            raise DerivedColumnError(
                f"{where}: parameter `{parameter}` must be the plain name of a column: without "
                "a default, and no * or /"
            )
    if not parameters:
        raise DerivedColumnError(f"{where}: has no parameter; name the columns that it is made of")
    return tuple(parameter.name for parameter in parameters)


@dataclass(frozen=True)
class Derived:
    """One derived column.

    Attributes:
        name: Its name, which is the function's.
        column: Its type, range and description, as in `schema.yaml`.
        inputs: The columns that it is made of, which are the function's parameters.
        function: Takes an array for each input, gives one back.
        where: File and line of the function.
    """

    name: str
    column: Column
    inputs: tuple[str, ...]
    function: Callable[..., Any] = field(compare=False, repr=False)
    where: str = field(compare=False, repr=False)

    def compute(self, given: Mapping[str, Values], rows: int) -> Values:
        """Call the function and hold what it gives against its declaration.

        Args:
            given: An array of n values for each input, and perhaps others.
            rows: n.

        Returns:
            n values in the type's array.

        Raises:
            DerivedValueError: If the function raises, or gives what is not declared.
        """
        arguments = {name: given[name] for name in self.inputs}
        try:
            values = self._call(arguments, rows)
        except DerivedValueError as error:
            row = self._first_failing(arguments, rows)
            if row is None:
                raise
            raise DerivedValueError(
                self, error.rule, error.problem, [row], arguments, error.where
            ) from error.__cause__
        self._check(values, arguments)
        if self.column.type == "integer" and not self.column.nullable:
            values = values.astype(np.int64, copy=False)
        if self.column.type == "boolean" and not self.column.nullable:
            values = values.astype(bool, copy=False)
        return _read_only(values)

    def _call(self, arguments: Mapping[str, Values], rows: int) -> Values:
        try:
            answer = self.function(**arguments)
            found = np.asarray(answer)
        except BaseException as error:
            unless_stopped(error)
            folder = Path(self.function.__code__.co_filename).parent
            hint = "; copy an array before you change it" if "read-only" in in_words(error) else ""
            raise DerivedValueError(
                self,
                "function",
                f"the function fails: {in_words(error)}{hint}",
                where=raised_at(error, folder),
            ) from error
        if found.shape != (rows,):
            asked = f"{rows:,} value{'' if rows == 1 else 's'}"
            raise DerivedValueError(
                self,
                "length",
                f"the function must give {asked}, one for each row, not {_amount(answer, found)}",
            )
        if isinstance(answer, np.ma.MaskedArray):
            raise DerivedValueError(
                self, "dtype", f"the function must give {_wanted(self.column)}, not a masked array"
            )
        return self._typed(found)

    def _typed(self, found: Values) -> Values:
        kind, kinds = self.column.type, found.dtype.kind
        if kinds == "u" and len(found) and found.max() > LARGEST_INTEGER:
            found = found.astype(np.float64)
        if kind == "integer" and found.dtype.kind in "iu" and not self.column.nullable:
            return found.astype(np.int64, copy=False)
        if kind in ("number", "integer") and kinds in "iuf":
            return found.astype(np.float64, copy=False)
        if kind == "boolean" and kinds == "b":
            return found.astype(object if self.column.nullable else bool, copy=False)
        if kind == "boolean" and kinds == "O" and all(map(_may_be_boolean, found)):
            return found
        if kind == "category" and kinds == "U":
            return found.astype(object)
        if kind == "category" and kinds == "O" and all(map(_may_be_text, found)):
            return found
        if len(found) == 0 and found.dtype == np.float64:  # what numpy makes of an empty list
            return _array(kind, self.column.nullable, [])
        raise DerivedValueError(
            self, "dtype", f"the function must give {_wanted(self.column)}, not {_found(found)}"
        )

    def _check(self, values: Values, arguments: Mapping[str, Values]) -> None:
        column = self.column
        if column.type in ("number", "integer"):
            largest = LARGEST if column.type == "number" else LARGEST_INTEGER
            low = max(-largest, -largest if column.min is None else column.min)
            high = min(largest, largest if column.max is None else column.max)
            if len(values) == 1 and values.dtype.kind == "i" and low <= values.item() <= high:
                return  # what a request asks for, at a tenth of the cost of what follows
            good = (values >= low) & (values <= high)
            if values.dtype.kind == "f":
                if column.type == "integer":
                    good &= values == np.floor(values)
                if column.nullable:
                    good |= np.isnan(values)
            if not good.all():
                self._refuse_numbers(values, low, high, arguments)
        elif values.dtype == object:
            known = {True, False} if column.categories is None else set(column.categories)
            if not set(values.tolist()) <= known | ({None} if column.nullable else set()):
                self._refuse_values(values, arguments)

    def _refuse_numbers(
        self, values: Values, low: float, high: float, arguments: Mapping[str, Values]
    ) -> None:
        numbers = values.astype(np.float64)
        missing = np.isnan(numbers)
        unit = f" {self.column.unit}" if self.column.unit else ""
        below = "too large for the model" if low != self.column.min else f"below {low:g}{unit}"
        above = "too large for the model" if high != self.column.max else f"above {high:g}{unit}"
        broken = {
            "null": (missing & (not self.column.nullable), "NaN" + _NOT_NULLABLE),
            "finite": (np.isinf(numbers), "must be a finite number"),
            "whole": (
                ~missing & (numbers != np.floor(numbers)) & (self.column.type == "integer"),
                "must be whole numbers",
            ),
            "min": (~missing & (numbers < low), below),
            "max": (~missing & (numbers > high), above),
        }
        self._refuse(broken, values, arguments)

    def _refuse_values(self, values: Values, arguments: Mapping[str, Values]) -> None:
        missing = np.array([value is None for value in values], dtype=bool)
        known = (None, *(self.column.categories or (True, False)))
        other = np.array([value not in known for value in values], dtype=bool)
        broken = {
            "null": (missing & (not self.column.nullable), "None" + _NOT_NULLABLE),
            "categories": (other, "not among the declared categories"),
        }
        self._refuse(broken, values, arguments)

    def _refuse(
        self,
        broken: Mapping[str, tuple[NDArray[np.bool_], str]],
        values: Values,
        arguments: Mapping[str, Values],
    ) -> None:
        for rule, (bad, what) in broken.items():
            if bad.any():
                rows = np.flatnonzero(bad).tolist()
                given = {**arguments, self.name: values}
                raise DerivedValueError(self, rule, what, rows, given)

    def _first_failing(self, arguments: Mapping[str, Values], rows: int) -> int | None:
        """The first row for which the function fails; None if it fails only for many together."""
        start, end = 0, rows
        while end - start > 1:
            middle = (start + end) // 2
            if self._fails(arguments, start, middle):
                end = middle
            elif self._fails(arguments, middle, end):
                start = middle
            else:
                return None
        return start if rows else None

    def _fails(self, arguments: Mapping[str, Values], start: int, end: int) -> bool:
        part = {name: values[start:end] for name, values in arguments.items()}
        try:
            self._call(part, end - start)
        except DerivedValueError:
            return True
        return False

    def to_manifest(self) -> dict[str, Any]:
        """What `manifest.json` says of it."""
        declared = self.column.model_dump(mode="json", exclude_defaults=True)
        return {"name": self.name, **declared, "inputs": list(self.inputs)}


_NOT_NULLABLE = ", but the column is not declared nullable"


def _amount(answer: Any, found: Values) -> str:
    if found.ndim == 1:
        return f"{len(found):,}"
    if found.ndim == 0:
        return f"a single {type(answer).__name__}" if answer is not None else "None"
    return f"an array of shape {found.shape}"


def _read_only(values: Values) -> Values:
    """The same values, for functions that must not change what others are given too."""
    view = values.view()
    view.setflags(write=False)
    return view


def _may_be_boolean(value: Any) -> bool:
    return value is None or isinstance(value, bool | np.bool_)


def _may_be_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _wanted(column: Column) -> str:
    missing = " (None where it is missing)" if column.nullable else ""
    return {
        "integer": "integers" + (" (float64 with NaN where it is missing)" if missing else ""),
        "number": "numbers" + (" (NaN where it is missing)" if missing else ""),
        "boolean": f"booleans{missing}",
        "category": f"texts{missing}",
    }[column.type]


def _found(found: Values) -> str:
    if found.dtype != object:
        return "texts" if found.dtype.kind == "U" else str(found.dtype)
    kinds = sorted({type(value).__name__ for value in found.tolist()})
    large = " that 64 bits cannot hold" if kinds == ["int"] else ""
    return f"objects of {', '.join(kinds)}{large}"


def as_text(value: Any) -> str:
    """A value of a column, for people; of a long text its start."""
    if isinstance(value, np.datetime64):
        return str(value)
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@dataclass(frozen=True)
class Source:
    """A column of the schema that functions are given."""

    name: str
    type: ColumnType
    nullable: bool

    def array(self, values: Sequence[Any]) -> Values:
        """Values as JSON or Python has them, as a function is given them.

        Raises:
            ValueError, TypeError, OverflowError: If they do not have the type.
        """
        return _read_only(_array(self.type, self.nullable, values))


def _array(kind: ColumnType, nullable: bool, values: Sequence[Any]) -> Values:
    if kind == "number" or (kind == "integer" and nullable):
        return np.array(values, dtype=np.float64)
    if kind == "integer":
        return np.array(values, dtype=np.int64)
    if kind == "datetime":
        since = [
            None if value is None else (_moment(value) if type(value) is str else value) - _EPOCH
            for value in values
        ]
        return np.array(since, dtype=_SPAN).view(_MOMENT)
    if kind == "boolean" and not nullable:
        return np.array(values, dtype=bool)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@dataclass(frozen=True)
class Derivation:
    """All derived columns of a project.

    Attributes:
        columns: In an order in which each comes after those that it depends on.
        sources: The schema's columns that they are made of, in the schema's order.
    """

    columns: tuple[Derived, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of the derived columns."""
        return frozenset(column.name for column in self.columns)

    def extend(self, schema: Schema) -> Schema:
        """The schema with the derived columns behind its own."""
        columns = {column.name: column.column for column in self.columns}
        return schema.model_copy(update={"columns": {**schema.columns, **columns}})

    def inputs(self, schema: Schema) -> dict[str, Column]:
        """The columns that a request carries: features, and what derived columns are made of."""
        needed = {source.name for source in self.sources}
        return {
            name: column
            for name, column in schema.columns.items()
            if column.feature or name in needed
        }

    def deciding(self, schema: Schema) -> dict[str, Column]:
        """The columns that can move an answer: those of a request, and the derived ones."""
        return {**self.inputs(schema), **{one.name: one.column for one in self.columns}}

    def compute(self, given: Mapping[str, Values], rows: int) -> dict[str, Values]:
        """Derive all columns but those that are given.

        Args:
            given: An array of n values for each source, and perhaps for derived columns.
            rows: n.

        Returns:
            An array of n values for each derived column.

        Raises:
            DerivedValueError: If a function raises, or gives what is not declared.
        """
        values = dict(given)
        for column in self.columns:
            if column.name not in given:
                values[column.name] = column.compute(values, rows)
        return {column.name: values[column.name] for column in self.columns}

    def of_records(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
        """Derive all columns for rows as a request carries them; as `compute`."""
        given = {
            source.name: source.array([record.get(source.name) for record in records])
            for source in self.sources
        }
        return self.compute(given, len(records))

    def to_manifest(self) -> list[dict[str, Any]]:
        """What `manifest.json` says of the columns."""
        return [column.to_manifest() for column in self.columns]

    def sources_to_manifest(self) -> list[dict[str, Any]]:
        """What `manifest.json` says of the sources."""
        return [vars(source) for source in self.sources]


NOTHING_DERIVED = Derivation()


def declared_in(module: ModuleType) -> dict[str, Derived]:
    """The derived columns that a module declares, in the order of the file."""
    found = (getattr(value, _DECLARED, None) for value in vars(module).values())
    return {column.name: column for column in found if isinstance(column, Derived)}


def put_in_order(columns: Iterable[Derived], schema: Schema, target: str | None) -> Derivation:
    """Find what each column needs, and an order to derive them in.

    Args:
        columns: The declared columns.
        schema: Whose columns they may be made of.
        target: What the model predicts, which none may be made of.

    Raises:
        DerivedColumnError: With one line for every clash of names, unknown or forbidden parameter
            and for a circle.
    """
    by_name = {column.name: column for column in columns}
    problems = [
        problem
        for column in by_name.values()
        for problem in _declaration_problems(column, by_name, schema, target)
    ]
    if problems:
        raise DerivedColumnError("\n".join(problems))
    ordered: dict[str, Derived] = {}
    for name in by_name:
        _visit(name, by_name, ordered, ())
    needed = {name for column in ordered.values() for name in column.inputs}
    sources = [
        Source(name, column.type, column.nullable)
        for name, column in schema.columns.items()
        if name in needed
    ]
    return Derivation(tuple(ordered.values()), tuple(sources))


def _declaration_problems(
    column: Derived, by_name: Mapping[str, Derived], schema: Schema, target: str | None
) -> list[str]:
    start = f"{column.where}: derived column `{column.name}`:"
    file = column.where.rpartition(":")[0]
    problems = []
    if column.name in schema.columns or column.name == SOURCE_FILE:
        owner = paths.SCHEMA if column.name in schema.columns else "the pipeline"
        problems.append(f"{start} {owner} has a column of this name; rename one of them")
    for name in column.inputs:
        if name == target:
            problems.append(
                f"{start} parameter `{name}` is the target, which is not known when it is predicted"
            )
        elif name in schema.columns and schema.columns[name].outcome:
            problems.append(
                f"{start} parameter `{name}` is an outcome ({paths.SCHEMA}: columns.{name}.outcome)"
                ", which is not known when it is predicted"
            )
        elif name not in schema.columns and name not in by_name:
            close = difflib.get_close_matches(name, [*schema.columns, *by_name], n=1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            problems.append(
                f"{start} parameter `{name}` is no column of {paths.SCHEMA} and no derived column"
                f"{hint}; name another column, or edit or delete {file}"
            )
    return problems


def _visit(
    name: str, by_name: Mapping[str, Derived], ordered: dict[str, Derived], path: tuple[str, ...]
) -> None:
    if name in ordered or name not in by_name:
        return
    if name in path:
        circle = " -> ".join([*path[path.index(name) :], name])
        raise DerivedColumnError(
            f"{by_name[name].where}: derived column `{name}`: its parameters lead back to it: "
            f"{circle}"
        )
    for needed in by_name[name].inputs:
        _visit(needed, by_name, ordered, (*path, name))
    ordered[name] = by_name[name]


def load_derivation(
    root: Path, schema: Schema, target: str | None, package: str | None = None
) -> Derivation:
    """The derived columns of the project or bento in a folder.

    Args:
        root: The folder.
        schema: Its schema.
        target: What the model predicts.
        package: The user's package; by default what `pyproject.toml` says.

    Returns:
        The derived columns; none if the package has no `features.py`.

    Raises:
        GitopsError: If the user's code cannot be loaded or a declaration is wrong.
    """
    package = package or load_project(root).package
    check_declarations(package_folder(root, package) / f"{MODULE}.py")
    module = load_module(root, package, MODULE)
    if module is None:
        return NOTHING_DERIVED
    return put_in_order(declared_in(module).values(), schema, target)


def recorded_derivation(root: Path, manifest: dict[str, Any]) -> Derivation:
    """The derived columns of a trained model, with the functions that it was trained with.

    Args:
        root: The folder of the project or bento that the model is in.
        manifest: The model's manifest.

    Raises:
        UserCodeError: If the user's code cannot be loaded, or is not what trained the model.
    """
    if not manifest.get("derived"):
        return NOTHING_DERIVED
    check_user_code(root, manifest)
    module = load_module(root, manifest["user_code"]["package"], MODULE)
    declared = {} if module is None else declared_in(module)
    return Derivation(
        tuple(declared[entry["name"]] for entry in manifest["derived"]),
        tuple(Source(**entry) for entry in manifest["derived_from"]),
    )
