from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest

from gitops_ml.core.schema import Column, Schema
from gitops_ml.serving.requests import PROBLEMS_SHOWN, Problem, RequestError, RequestReader

SCHEMA = Schema.model_validate(
    {
        "columns": {
            "id": {"type": "string", "feature": False},
            "count": {"type": "integer", "min": 0, "max": 9, "unit": "pieces"},
            "level": {"type": "integer", "nullable": True, "min": -5},
            "weight": {"type": "number", "description": "Of the parcel.", "max": 10},
            "height": {"type": "number", "nullable": True},
            "fragile": {"type": "boolean"},
            "insured": {"type": "boolean", "nullable": True},
            "size": {"type": "category", "categories": ["S", "M", "L"]},
            "shop": {
                "type": "category",
                "categories": ["a"],
                "unseen": "missing",
                "nullable": True,
            },
        }
    }
)
RECORD: dict[str, Any] = {
    "count": 3,
    "level": None,
    "weight": 2.5,
    "height": 1,
    "fragile": True,
    "insured": None,
    "size": "M",
    "shop": "never seen",
}


@pytest.fixture(scope="module")
def reader() -> RequestReader:
    return RequestReader(SCHEMA.features(), max_rows=50)


def refusal(reader: RequestReader, body: bytes | Any) -> RequestError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RequestError) as error:
        reader.read(content)
    return error.value


def test_a_record_is_read_as_one(reader: RequestReader) -> None:
    records, many = reader.read(json.dumps(RECORD).encode())

    assert (records, many) == ([RECORD], False)


def test_an_array_is_read_as_many_even_when_it_holds_one(reader: RequestReader) -> None:
    records, many = reader.read(b" \n[" + json.dumps(RECORD).encode() + b"]")

    assert (records, many) == ([RECORD], True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 0),
        ("count", 9.0),
        ("level", -5),
        ("weight", 10),
        ("weight", -3e38),
        ("height", None),
        ("fragile", False),
        ("insured", True),
        ("size", "L"),
        ("shop", None),
        ("shop", ""),
    ],
)
def test_good_values_pass(reader: RequestReader, field: str, value: Any) -> None:
    (record,), _ = reader.read(json.dumps(RECORD | {field: value}).encode())

    assert record[field] == value


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("count", 3.5, "must be a whole number"),
        ("count", "3", "must be a whole number"),
        ("count", True, "must be a whole number"),
        ("count", None, "must not be null"),
        ("count", 10, "must be between 0 and 9"),
        ("count", -1, "must be between 0 and 9"),
        ("level", -6, "must be at least -5"),
        ("level", 1e300, "must be at least -5"),
        ("weight", "heavy", "must be a number"),
        ("weight", False, "must be a number"),
        ("weight", [1], "must be a number"),
        ("weight", 10.01, "must be at most 10"),
        ("weight", float("nan"), "must be a finite number"),
        ("weight", float("-inf"), "must be a finite number"),
        ("height", 1e39, "is too large a number"),
        ("fragile", 1, "must be true or false"),
        ("fragile", "true", "must be true or false"),
        ("fragile", None, "must not be null"),
        ("size", "XL", "must be one of: S, M, L"),
        ("size", None, "must not be null"),
        ("size", float("nan"), "must be one of: S, M, L"),
        ("shop", 7, "must be a text"),
    ],
)
def test_a_bad_value_is_refused_with_its_field(
    reader: RequestReader, field: str, value: Any, problem: str
) -> None:
    error = refusal(reader, RECORD | {field: value})

    assert error.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert error.problems == (Problem(field, None, problem, json.dumps(value)),)


def test_every_missing_and_unknown_field_is_named(reader: RequestReader) -> None:
    record = {key: value for key, value in RECORD.items() if key not in ("weight", "shop")}

    error = refusal(reader, record | {"wieght": 2.5, "id": "x"})

    assert set(error.problems) == {
        Problem("weight", None, "is missing"),
        Problem("shop", None, "is missing"),
        Problem("wieght", None, "is not a feature"),
        Problem("id", None, "is not a feature"),
    }


def test_an_empty_record_names_all_features(reader: RequestReader) -> None:
    error = refusal(reader, {})

    assert [problem.field for problem in error.problems] == list(SCHEMA.features())


def test_problems_in_a_batch_carry_their_row(reader: RequestReader) -> None:
    batch = [RECORD, RECORD | {"count": -1}, RECORD, RECORD | {"size": "XL", "weight": None}, 7]

    error = refusal(reader, batch)

    assert [(problem.row, problem.field) for problem in error.problems] == [
        (1, "count"),
        (3, "weight"),
        (3, "size"),
        (4, None),
    ]


def test_problems_are_shown_up_to_a_limit(reader: RequestReader) -> None:
    error = refusal(reader, [{}] * 50)

    assert len(error.problems) == PROBLEMS_SHOWN


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"{", b"weight=2", b'{"count": 3', b"\xff\xfe", b"[" * 100_000, b'{"a": 1e}'],
)
def test_what_is_not_json_is_a_bad_request(reader: RequestReader, body: bytes) -> None:
    error = refusal(reader, body)

    assert error.status == HTTPStatus.BAD_REQUEST
    assert not error.problems


@pytest.mark.parametrize("body", [b"3", b"null", b'"text"', b"true"])
def test_json_that_is_no_record_is_refused(reader: RequestReader, body: bytes) -> None:
    error = refusal(reader, body)

    assert error.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert error.problems[0].problem == "must be an object of features"


def test_an_empty_array_is_refused(reader: RequestReader) -> None:
    error = refusal(reader, [])

    assert error.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "at least one record" in str(error)


@pytest.mark.parametrize("row", [RECORD, {}, 1])
def test_too_many_records_are_too_large_whatever_they_hold(reader: RequestReader, row: Any) -> None:
    assert reader.read(json.dumps([RECORD] * 50).encode())

    for batch in ([RECORD] * 50 + [row], [row] * 51):
        error = refusal(reader, batch)

        assert error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        assert "50 records" in str(error)


def test_long_values_are_cut_in_the_answer(reader: RequestReader) -> None:
    error = refusal(reader, RECORD | {"size": "x" * 10_000, "y" * 10_000: 1})

    assert all(len(json.dumps(problem.as_json())) < 400 for problem in error.problems)


def test_many_categories_are_cut_in_the_answer() -> None:
    column = Column(type="category", categories=tuple(f"c{n}" for n in range(1_000)))
    reader = RequestReader({"code": column}, max_rows=1)

    error = refusal(reader, {"code": "other"})

    assert error.problems[0].problem.endswith("c29 and 970 more")


def test_an_answer_says_only_what_applies() -> None:
    problem = Problem("weight", 0, "is missing")
    error = RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "No.", (problem,))

    assert error.as_json() == {
        "error": "No.",
        "problems": [{"field": "weight", "row": 0, "problem": "is missing"}],
    }


def test_the_json_schema_says_what_is_checked(reader: RequestReader) -> None:
    schema = reader.json_schema()

    assert schema["required"] == list(SCHEMA.features())
    assert schema["additionalProperties"] is False
    fields = schema["properties"]
    assert fields["count"]["type"] == "integer"
    assert (fields["count"]["minimum"], fields["count"]["maximum"]) == (0, 9)
    assert fields["count"]["description"] == "[pieces]"
    assert fields["weight"]["type"] == "number"
    assert fields["weight"]["description"] == "Of the parcel."
    assert fields["size"]["enum"] == ["S", "M", "L"]
    assert {"type": "null"} in fields["level"]["anyOf"]
    assert fields["fragile"]["type"] == "boolean"
