from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gitops_ml.core.schema import Schema
from gitops_ml.core.user_code import UserCodeError
from gitops_ml.features import derived
from gitops_ml.features.derive import (
    NOTHING_DERIVED,
    Derivation,
    DerivedColumnError,
    DerivedValueError,
    Values,
    declared_in,
    load_derivation,
    put_in_order,
)
from gitops_ml.features.encode import Features
from gitops_ml.features.matrix import TableError, derive, matrix_of, with_derived

SCHEMA = Schema.model_validate(
    {
        "columns": {
            "at": {"type": "datetime", "feature": False},
            "until": {"type": "datetime", "feature": False, "nullable": True},
            "note": {"type": "string", "feature": False, "nullable": True},
            "count": {"type": "integer", "min": 0},
            "rank": {"type": "integer", "nullable": True, "feature": False},
            "weight": {"type": "number", "nullable": True},
            "member": {"type": "boolean", "feature": False},
            "asked": {"type": "boolean", "nullable": True},
            "size": {"type": "category", "categories": ["S", "L"]},
            "cost": {"type": "number", "feature": False, "outcome": True},
            "late": {"type": "boolean", "feature": False},
        }
    }
)
ROW: dict[str, Any] = {
    "at": datetime(2013, 7, 1, 12, 30, tzinfo=UTC),
    "until": None,
    "note": "blue",
    "count": 3,
    "rank": None,
    "weight": 1.5,
    "member": True,
    "asked": None,
    "size": "L",
}


def plan(*functions: Callable[..., Any]) -> Derivation:
    found = [vars(function)["__derived_column__"] for function in functions]
    return put_in_order(found, SCHEMA, "late")


def one(function: Callable[..., Any], rows: list[dict[str, Any]] | None = None) -> Values:
    derivation = plan(function)
    return derivation.of_records([ROW] if rows is None else rows)[function.__name__]


@derived(type="number")
def ratio(weight: Values, count: Values) -> Values:
    """Weight of one."""
    return np.nan_to_num(weight) / np.maximum(count, 1)


@derived(type="boolean")
def heavy(ratio: Values) -> Values:
    return ratio > 1


@derived(type="category", categories=["short", "long", "none"])
def told(note: Values, heavy: Values) -> Values:
    return np.array(
        ["none" if text is None else "long" if len(text) > 9 else "short" for text in note],
        dtype=object,
    )


@derived(type="integer", nullable=True, min=0)
def seconds(at: Values, until: Values) -> Values:
    span = (until - at) / np.timedelta64(1, "s")
    return np.floor(np.abs(span))


@derived(type="boolean", nullable=True)
def dark(note: Values, asked: Values) -> Values:
    return np.array([None if text is None else "é" in text for text in note], dtype=object)


def test_a_function_is_given_arrays_of_the_schemas_types() -> None:
    seen: dict[str, Values] = {}

    @derived(type="number")
    def everything(
        at: Values,
        until: Values,
        note: Values,
        count: Values,
        rank: Values,
        weight: Values,
        member: Values,
        asked: Values,
        size: Values,
    ) -> Values:
        seen.update(locals() | {"seen": None})
        return np.zeros(len(at))

    one(everything)

    assert {name: str(seen[name].dtype) for name in ROW} == {
        "at": "datetime64[us]",
        "until": "datetime64[us]",
        "note": "object",
        "count": "int64",
        "rank": "float64",
        "weight": "float64",
        "member": "bool",
        "asked": "object",
        "size": "object",
    }
    assert seen["at"][0] == np.datetime64("2013-07-01T12:30", "us")
    assert np.isnat(seen["until"][0])
    assert np.isnan(seen["rank"][0])
    assert seen["asked"][0] is None
    with pytest.raises(ValueError, match="read-only"):
        seen["weight"][0] = 2


def test_columns_are_derived_after_those_that_they_are_made_of() -> None:
    derivation = plan(told, heavy, seconds, ratio)

    assert [column.name for column in derivation.columns] == ["ratio", "heavy", "told", "seconds"]
    assert [source.name for source in derivation.sources] == [
        "at",
        "until",
        "note",
        "count",
        "weight",
    ]
    assert derivation.columns[0].column.description == "Weight of one."
    assert list(derivation.inputs(SCHEMA)) == [
        *["at", "until", "note", "count", "weight", "asked", "size"]
    ]


def random_rows(number: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)

    def maybe(value: Any) -> Any:
        return None if random.random() < 0.2 else value

    def moment() -> datetime:
        start = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
        return start + timedelta(microseconds=int(random.integers(0, 10**15)))

    return [
        {
            "at": moment(),
            "until": maybe(moment()),
            "note": maybe("".join(random.choice(list("aé€😀 "), int(random.integers(0, 20))))),
            "count": int(random.integers(0, 9)),
            "rank": maybe(int(random.integers(-5, 5))),
            "weight": maybe(float(random.normal() * 10.0 ** random.integers(-30, 30))),
            "member": bool(random.random() < 0.5),
            "asked": maybe(bool(random.random() < 0.5)),
            "size": str(random.choice(["S", "L"])),
        }
        for _ in range(number)
    ]


def as_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    types = {
        "at": pl.Datetime("us", "UTC"),
        "until": pl.Datetime("us", "UTC"),
        "note": pl.String,
        "count": pl.Int64,
        "rank": pl.Int64,
        "weight": pl.Float64,
        "member": pl.Boolean,
        "asked": pl.Boolean,
        "size": pl.String,
    }
    return pl.DataFrame(rows, schema=types)


@pytest.mark.parametrize("seed", range(20))
def test_a_table_and_its_records_one_by_one_or_as_json_give_the_same_bits(seed: int) -> None:
    rows = random_rows(30, seed)
    features = Features.from_schema(SCHEMA, plan(told, dark, seconds, ratio, heavy))

    by_column = matrix_of(as_frame(rows), features)
    together = features.from_records(rows)
    alone = np.concatenate([features.from_records([row]) for row in rows])
    as_json = [
        json.loads(json.dumps(row, default=lambda value: value.isoformat().replace("+00:00", "Z")))
        for row in rows
    ]

    assert features.names[-5:] == ("ratio", "heavy", "told", "dark", "seconds")
    assert by_column.tobytes() == together.tobytes() == alone.tobytes()
    assert features.from_records(as_json).tobytes() == by_column.tobytes()


def test_a_derived_column_can_be_held_and_others_follow_from_it() -> None:
    derivation = plan(ratio, heavy, told)
    frame = with_derived(as_frame([ROW, ROW]), derivation)

    free = derive(frame.with_columns(ratio=9.0), derivation)
    held = derive(frame.with_columns(ratio=9.0), derivation, frozenset({"ratio"}))

    assert free["ratio"].tolist() == [0.5, 0.5]
    assert held["ratio"].tolist() == [9.0, 9.0]
    assert (free["heavy"].tolist(), held["heavy"].tolist()) == ([False] * 2, [True] * 2)


def test_derived_columns_stand_in_a_table_with_their_types() -> None:
    rows = [ROW, ROW | {"until": ROW["at"] + timedelta(seconds=9), "note": None, "weight": 9.0}]

    table = with_derived(as_frame(rows), plan(told, heavy, seconds, ratio))

    assert table.get_column("ratio").to_list() == [0.5, 3.0]
    assert table.get_column("heavy").to_list() == [False, True]
    assert table.get_column("told").to_list() == ["short", "none"]
    assert table.get_column("seconds").to_list() == [None, 9]
    assert table.schema["seconds"] == pl.Int64


def test_other_zones_are_the_same_moment_and_no_year_breaks_it() -> None:
    @derived(type="number")
    def since(at: Values) -> Values:
        return (at - np.datetime64(0, "s")) / np.timedelta64(1, "h")

    moments = [
        "1970-01-01T02:00:00+02:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:00:00-12:00",
    ]

    found = one(since, [ROW | {"at": moment} for moment in moments])

    assert found[0] == 0
    assert np.isfinite(found).all()


def fails(column: Values) -> Values:
    raise KeyError("blue")


class Panic(BaseException):
    """What libraries in Rust raise."""


def panics(_: Values) -> None:
    raise Panic("index out of bounds")


def fails_in_lines(column: Values) -> Values:
    raise ValueError("one\n  two")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def fails_twice(column: Values) -> Values:
    raise MuteError


Answer = Callable[[Values], Any]


@pytest.mark.parametrize(
    ("declared", "answer", "message"),
    [
        (
            {"type": "number"},
            lambda c: c * np.nan,
            r"1 value: NaN, but .*\(row 1: count=3, made=nan\)",
        ),
        (
            {"type": "number"},
            lambda c: c * np.inf,
            r"must be a finite number \(row 1: count=3, made=inf\)",
        ),
        ({"type": "number"}, lambda c: c * 1e39, r"too large for the model .*made=3e\+39\)"),
        (
            {"type": "number", "max": 2, "unit": "kg"},
            lambda c: c * 1.0,
            r"above 2 kg \(row 1: count=3, made=3",
        ),
        ({"type": "integer", "min": 4}, lambda c: c, r"below 4 \(row 1: count=3, made=3\)"),
        (
            {"type": "integer"},
            lambda c: c / 2,
            r"must be whole numbers \(row 1: count=3, made=1.5\)",
        ),
        ({"type": "integer"}, lambda c: c * np.nan, "NaN, but"),
        ({"type": "integer", "nullable": True, "max": 2}, lambda c: c * 1.0, "above 2"),
        ({"type": "integer"}, lambda c: c > 1, "must give integers, not bool"),
        ({"type": "number"}, lambda c: c.astype(str), "must give numbers, not texts"),
        ({"type": "boolean"}, lambda c: c, "must give booleans, not int64"),
        ({"type": "boolean"}, lambda c: np.array([None]), r"None, but .*made=None\)"),
        ({"type": "boolean", "nullable": True}, lambda c: c * np.nan, "None where it is missing"),
        ({"type": "category", "categories": ["a"]}, lambda c: np.array(["b"]), "not among"),
        ({"type": "category", "categories": ["a"]}, lambda c: np.array([None]), "None, but"),
        ({"type": "category", "categories": ["a"]}, lambda c: c, "must give texts, not int64"),
        (
            {"type": "category", "categories": ["a"]},
            lambda c: np.array([{}]),
            "must give texts, not objects of dict",
        ),
        ({"type": "number"}, lambda c: None, "must give 1 value, one for each row, not None"),
        ({"type": "number"}, lambda c: 1.0, "one for each row, not a single float"),
        ({"type": "number"}, lambda c: [*c, 1.0], r"must give 1 value, one for each row, not 2"),
        ({"type": "number"}, lambda c: c.reshape(-1, 1), r"not an array of shape \(1, 1\)"),
        (
            {"type": "integer"},
            lambda c: np.full(1, 2**63, dtype=np.uint64),
            "1 value: too large for the model",
        ),
        ({"type": "integer", "max": 1e30}, lambda c: [1e25], "1 value: too large for the model"),
        ({"type": "integer"}, lambda c: [2**80], "not objects of int that 64 bits cannot hold"),
        ({"type": "number"}, lambda c: np.ma.masked_equal(c, 3), "not a masked array"),
        ({"type": "number"}, lambda c: c.fill(1), "read-only; copy an array before you change it"),
        ({"type": "number"}, lambda c: sys.exit(0), r"the function fails: SystemExit: 0"),
        ({"type": "number"}, panics, r"the function fails: Panic: index out of bounds"),
        ({"type": "number"}, fails_in_lines, "fails: ValueError: one two"),
        ({"type": "number"}, fails_twice, "fails: MuteError: .its text fails with RuntimeError"),
        ({"type": "number"}, fails, r"the function fails: KeyError: 'blue' \(row 1: count=3\)"),
    ],
)
def test_what_a_function_may_not_give_is_told_with_column_and_row(
    declared: dict[str, Any], answer: Answer, message: str
) -> None:
    @derived(**declared)
    def made(count: Values) -> Any:
        return answer(count)

    with pytest.raises(DerivedValueError, match=message) as error:
        one(made)

    assert re_location(str(error.value), "derived column `made`: ")
    assert error.value.inputs == ("count",)


def re_location(message: str, start: str) -> bool:
    place, _, rest = message.partition(": ")
    name, _, line = place.rpartition(":")
    return name.endswith("test_derive.py") and line.isdecimal() and rest.startswith(start)


@pytest.mark.parametrize("bad", [0, 1, 17, 63, 64])
def test_the_row_that_a_function_fails_for_is_found(bad: int) -> None:
    @derived(type="number")
    def inverse(count: Values) -> Values:
        return np.array([1 / value for value in count.tolist()])

    rows = [ROW | {"count": 0 if place in (bad, 64) else 2} for place in range(65)]

    with pytest.raises(DerivedValueError, match=rf"ZeroDivisionError.*\(row {bad + 1}: count=0\)"):
        one(inverse, rows)


def test_dropped_rows_are_found_too() -> None:
    @derived(type="number")
    def known(weight: Values) -> Values:
        return weight[~np.isnan(weight)]

    rows = [ROW, ROW, ROW | {"weight": None}, ROW]

    with pytest.raises(DerivedValueError, match=r"not 0 \(row 3: weight=nan\)|row 3"):
        one(known, rows)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"type": "string"}, "type `string` must be one of number, integer, boolean, category"),
        ({"type": "category"}, "a category needs `categories`"),
        ({"type": "boolean", "min": 0}, "min and max are for integer and number"),
        ({"type": "number", "min": 2, "max": 1}, "min 2 is larger than max 1"),
        ({"type": "number", "min": "one"}, r"min: Input should be a valid number.* .found 'one'"),
        ({"type": "number", "max": np.nan}, "max: Input should be a finite number"),
        ({"type": "category", "categories": "abc"}, "a list of texts, not the text 'abc'"),
        ({"type": "category", "categories": [1]}, r"categories.0: Input should be .*found 1"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(
    declared: dict[str, Any], message: str
) -> None:
    with pytest.raises(DerivedColumnError, match=message) as error:

        @derived(**declared)
        def made(count: Values) -> Values:
            return count

    assert re_location(str(error.value), "derived column `made`: ")


def test_parameters_are_plain_names() -> None:
    def many(*count: Values) -> Values:
        return count[0]

    def named(**count: Values) -> Values:
        return count["count"]

    def placed(count: Values, /) -> Values:
        return count

    def given(count: int = 1) -> int:
        return count

    def without() -> int:
        return 1

    number = derived(type="number")
    functions: list[Callable[..., Any]] = [many, named, placed, given]
    for function in functions:
        with pytest.raises(DerivedColumnError, match="must be the plain name of a column"):
            number(function)
    with pytest.raises(DerivedColumnError, match="has no parameter"):
        number(without)


async def waits(count: Values) -> Values:
    return count


def yields(count: Values) -> Iterator[Any]:
    yield from count


class Called:
    def __call__(self, count: Values) -> Values:
        return count


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (waits, "an async function"),
        (yields, "a generator"),
        (lambda count: count, "a lambda"),
        (Called, "a class"),
        (Called(), "a Called"),
        (partial(ratio, weight=1), "a partial"),
        (np.vectorize(abs), "a vectorize"),
        (lru_cache(re_location), "a _lru_cache_wrapper"),
        (np.sin, "a ufunc"),
    ],
)
def test_only_a_plain_function_is_a_column(function: Callable[..., Any], kind: str) -> None:
    with pytest.raises(DerivedColumnError, match=f"must be a plain function, .*, not {kind}") as it:
        derived(type="number")(function)

    assert "test_derive.py:" in str(it.value)


def test_what_cannot_be_known_is_no_parameter() -> None:
    @derived(type="number")
    def wise(late: Values, cost: Values, wieght: Values) -> Values:
        return late

    with pytest.raises(DerivedColumnError) as error:
        plan(wise)

    target, outcome, unknown = str(error.value).splitlines()
    assert "derived column `wise`: parameter `late` is the target" in target
    assert "parameter `cost` is an outcome (schema.yaml: columns.cost.outcome)" in outcome
    assert "parameter `wieght` is no column of schema.yaml and no derived column" in unknown
    assert "did you mean `weight`?" in unknown
    assert "edit or delete" in unknown


def test_names_are_not_taken_twice() -> None:
    @derived(type="number")
    def weight(count: Values) -> Values:
        return count

    with pytest.raises(DerivedColumnError, match=r"schema\.yaml has a column of this name"):
        plan(weight)


def test_a_circle_is_named() -> None:
    @derived(type="number")
    def a(c: Values) -> Values:
        return c

    @derived(type="number")
    def b(a: Values) -> Values:
        return a

    @derived(type="number")
    def c(b: Values) -> Values:
        return b

    with pytest.raises(DerivedColumnError, match="`a`: its parameters lead back to it: a -> c"):
        plan(a, b, c)


def test_a_table_must_hold_what_columns_are_made_of() -> None:
    derivation = plan(seconds)
    frame = as_frame([ROW])

    with pytest.raises(TableError, match="column `at`: is missing"):
        derive(frame.drop("at"), derivation)
    with pytest.raises(TableError, match="`at`: holds Int32, but the model takes datetime"):
        derive(frame.with_columns(at=1), derivation)
    with pytest.raises(TableError, match="column `at`: row 1 has no value"):
        derive(frame.with_columns(at=pl.lit(None)), derivation)


FEATURES = """
import numpy as np
from gitops_ml.features import derived
from {package}.helpers import double

@derived(type="number")
def twice(count):
    return double(count)
"""


@pytest.fixture
def write(project: Path) -> Callable[..., Path]:
    """Write files of the project's package."""

    def files(root: Path = project, /, **texts: str) -> Path:
        folder = root / "src" / "flight_delays"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {"__init__": "", **texts}.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        return folder

    return files


def test_the_projects_functions_are_found(project: Path, write: Callable[..., Path]) -> None:
    text = FEATURES.format(package="flight_delays")
    write(features=text, helpers="def double(values):\n    return values * 2.0\n")

    derivation = load_derivation(Path(), SCHEMA, "late")

    assert derivation.of_records([ROW])["twice"].tolist() == [6]
    assert derivation.columns[0].where == "src/flight_delays/features.py:6"


def test_another_projects_functions_are_its_own(tmp_path: Path, write: Callable[..., Path]) -> None:
    text = FEATURES.format(package="flight_delays")
    write(features=text, helpers="def double(values):\n    return values * 2.0\n")
    write(tmp_path, features=text, helpers="def double(values):\n    return values * 4.0\n")

    found = [
        load_derivation(root, SCHEMA, "late", "flight_delays").of_records([ROW])["twice"][0]
        for root in (Path(), tmp_path, Path())
    ]

    assert found == [6, 12, 6]


def test_a_project_without_the_file_derives_nothing(write: Callable[..., Path]) -> None:
    write()

    assert load_derivation(Path(), SCHEMA, "late") is NOTHING_DERIVED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", r"src/flight_delays/features.py:1: cannot be imported: SyntaxError"),
        ("\nimport pandsa\n", r"features.py:2: .*No module named 'pandsa'"),
        ("import flight_delays.helpers\n", r"helpers.py:2: cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)\n", r"features.py:1: cannot be imported: SystemExit: 3"),
        ("raise GeneratorExit\n", r"features.py:1: cannot be imported: GeneratorExit"),
    ],
)
def test_code_that_cannot_be_imported_is_told_with_its_line(
    write: Callable[..., Path], text: str, message: str
) -> None:
    write(features=text, helpers="\n1 / 0\n")

    with pytest.raises(UserCodeError, match=message):
        load_derivation(Path(), SCHEMA, "late")


def test_who_stops_the_process_stops_a_function() -> None:
    @derived(type="number")
    def made(count: Values) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one(made)


def test_of_a_long_text_a_message_shows_the_start() -> None:
    @derived(type="integer", max=100)
    def made(note: Values) -> Any:
        return [len(text) for text in note]

    with pytest.raises(DerivedValueError) as error:
        one(made, [{**ROW, "note": "x" * 100_000}])

    assert "row 1: note='xxx" in str(error.value)
    assert "x…, made=100000" in str(error.value)
    assert len(str(error.value)) < 400


def test_the_module_needs_what_the_service_has() -> None:
    room = Path(sys.modules[Derivation.__module__].__file__ or "").parent
    tree = ast.parse((room / "derive.py").read_text(encoding="utf-8"))
    found = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }

    assert found - sys.stdlib_module_names == {"numpy", "pydantic", "gitops_ml"}


def test_helpers_are_no_columns() -> None:
    assert "ratio" in declared_in(sys.modules[__name__])
    assert "plan" not in declared_in(sys.modules[__name__])
