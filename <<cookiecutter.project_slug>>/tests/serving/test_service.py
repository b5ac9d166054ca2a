"""The running service gives the model's predictions and refuses what does not fit the schema."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.data.schema import Column, load_schema
from << cookiecutter.project_slug >>.delivery.smoke import fetch, read_golden, smoke

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden(ROOT / paths.GOLDEN)


@pytest.fixture(scope="module")
def features() -> dict[str, Column]:
    return load_schema(ROOT).features()


def ask(service: str, body: Any) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return fetch(f"{service}/predict", content)


def test_it_gives_the_golden_predictions(service: str, golden: dict[str, Any]) -> None:
    assert "all" in smoke(service, golden, None, timeout=10)


def test_it_says_which_model_runs(service: str) -> None:
    _, release = fetch(f"{service}/release")

    manifest = json.loads((ROOT / paths.MANIFEST).read_text(encoding="utf-8"))
    assert release["model"]["sha256"] == manifest["files"][manifest["served"]]
    assert release["release"] == "development"
    assert release["digest"] is None


def test_it_is_alive_and_ready(service: str) -> None:
    assert [fetch(f"{service}/{probe}")[0] for probe in ("livez", "readyz")] == [200, 200]


def test_its_documentation_has_the_features(service: str, features: dict[str, Column]) -> None:
    _, document = fetch(f"{service}/docs.json")

    assert list(document["components"]["schemas"]["Record"]["properties"]) == list(features)


def test_a_missing_feature_is_named(
    service: str, golden: dict[str, Any], features: dict[str, Column]
) -> None:
    for name in features:
        record = {key: value for key, value in golden["records"][0].items() if key != name}
        status, answer = ask(service, record)

        assert status == HTTPStatus.UNPROCESSABLE_ENTITY
        assert answer["problems"] == [{"field": name, "problem": "is missing"}]


@pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}])
def test_a_value_of_no_type_is_named(
    service: str, golden: dict[str, Any], features: dict[str, Column], value: Any
) -> None:
    for name in features:
        status, answer = ask(service, golden["records"][0] | {name: value})

        assert status == HTTPStatus.UNPROCESSABLE_ENTITY
        assert [problem["field"] for problem in answer["problems"]] == [name]


def test_values_out_of_range_are_named(
    service: str, golden: dict[str, Any], features: dict[str, Column]
) -> None:
    for name, column in features.items():
        for limit, step in ((column.min, -1), (column.max, 1)):
            if limit is None:
                continue
            status, answer = ask(service, golden["records"][0] | {name: limit + step})

            assert status == HTTPStatus.UNPROCESSABLE_ENTITY
            assert [problem["field"] for problem in answer["problems"]] == [name]


def test_null_is_taken_where_the_schema_says_so(
    service: str, golden: dict[str, Any], features: dict[str, Column]
) -> None:
    for name, column in features.items():
        status, _ = ask(service, golden["records"][0] | {name: None})

        assert status == (HTTPStatus.OK if column.nullable else HTTPStatus.UNPROCESSABLE_ENTITY)


def test_not_a_number_is_refused(
    service: str, golden: dict[str, Any], features: dict[str, Column]
) -> None:
    for name in features:
        for value in (float("nan"), float("inf")):
            status, answer = ask(service, golden["records"][0] | {name: value})

            assert status == HTTPStatus.UNPROCESSABLE_ENTITY
            assert [problem["field"] for problem in answer["problems"]] == [name]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", HTTPStatus.BAD_REQUEST),
        (b"not JSON", HTTPStatus.BAD_REQUEST),
        ([], HTTPStatus.UNPROCESSABLE_ENTITY),
        ({}, HTTPStatus.UNPROCESSABLE_ENTITY),
        ([{}] * 100_000, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b" " * 9_000_000, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ],
    ids=["empty", "not JSON", "no record", "empty record", "too many records", "too large"],
)
def test_bad_bodies_are_refused(service: str, body: Any, status: HTTPStatus) -> None:
    assert ask(service, body)[0] == status


def test_wrong_methods_are_refused(service: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert httpx.request(method, f"{service}/predict").status_code == 405


def test_predictions_are_counted(service: str, golden: dict[str, Any]) -> None:
    name = 'service_request_seconds_count{endpoint="/predict",status="200"}'

    def count() -> float:
        lines = httpx.get(f"{service}/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = count()
    ask(service, golden["records"])

    assert count() == before + 1
