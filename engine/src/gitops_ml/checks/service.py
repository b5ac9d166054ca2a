"""Checks of the running service: the model's predictions, and no to what does not fit the schema.

class TestService(ServiceChecks):
    ...
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from gitops_ml.bento.smoke import fetch, smoke
from gitops_ml.checks.fixtures import Made
from gitops_ml.core import paths
from gitops_ml.core.schema import Column


@pytest.mark.pipeline
class ServiceChecks:
    """All checks of the service."""

    def test_it_gives_the_golden_predictions(self, service: str, golden: dict[str, Any]) -> None:
        """It answers as the trained model did, and refuses a bad request."""
        assert "all" in smoke(service, golden, None, timeout=10)

    def test_it_says_which_model_runs(self, service: str, made: Made) -> None:
        """`/release` names the hash of the model that is on record."""
        _, release = fetch(f"{service}/release")

        manifest = json.loads(made(paths.MANIFEST).read_text(encoding="utf-8"))
        assert release["model"]["sha256"] == manifest["files"][manifest["served"]]
        assert release["release"] == "development"
        assert release["digest"] is None

    def test_it_is_alive_and_ready(self, service: str) -> None:
        """Both probes say so."""
        assert [fetch(f"{service}/{probe}")[0] for probe in ("livez", "readyz")] == [200, 200]

    def test_its_documentation_has_the_features(
        self, service: str, inputs: dict[str, Column]
    ) -> None:
        """`/docs.json` describes every input and nothing else."""
        _, document = fetch(f"{service}/docs.json")

        properties = document["components"]["schemas"]["Record"]["properties"]
        assert list(properties) == list(inputs)

    def test_a_missing_feature_is_named(
        self, service: str, golden: dict[str, Any], inputs: dict[str, Column]
    ) -> None:
        """A record without an input is refused, whichever it is."""
        for name in inputs:
            record = {key: value for key, value in golden["records"][0].items() if key != name}
            status, answer = ask(service, record)

            assert status == HTTPStatus.UNPROCESSABLE_ENTITY
            assert answer["problems"] == [{"field": name, "problem": "is missing"}]

    @pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}])
    def test_a_value_of_no_type_is_named(
        self, service: str, golden: dict[str, Any], inputs: dict[str, Column], value: Any
    ) -> None:
        """A list or an object in the place of a value is refused."""
        for name in inputs:
            status, answer = ask(service, golden["records"][0] | {name: value})

            assert status == HTTPStatus.UNPROCESSABLE_ENTITY
            assert [problem["field"] for problem in answer["problems"]] == [name]

    def test_values_out_of_range_are_named(
        self, service: str, golden: dict[str, Any], inputs: dict[str, Column]
    ) -> None:
        """A value below `min` or above `max` is refused."""
        for name, column in inputs.items():
            for limit, step in ((column.min, -1), (column.max, 1)):
                if limit is None:
                    continue
                status, answer = ask(service, golden["records"][0] | {name: limit + step})

                assert status == HTTPStatus.UNPROCESSABLE_ENTITY
                assert [problem["field"] for problem in answer["problems"]] == [name]

    def test_null_is_taken_where_the_schema_says_so(
        self, service: str, golden: dict[str, Any], inputs: dict[str, Column]
    ) -> None:
        """A value may be missing in a nullable column only."""
        for name, column in inputs.items():
            status, _ = ask(service, golden["records"][0] | {name: None})

            assert status == (HTTPStatus.OK if column.nullable else HTTPStatus.UNPROCESSABLE_ENTITY)

    def test_not_a_number_is_refused(
        self, service: str, golden: dict[str, Any], inputs: dict[str, Column]
    ) -> None:
        """NaN and infinity, which Python writes into JSON, are refused."""
        for name in inputs:
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
    def test_bad_bodies_are_refused(self, service: str, body: Any, status: HTTPStatus) -> None:
        """What is no record, or too much, gets the status that says so."""
        assert ask(service, body)[0] == status

    def test_wrong_methods_are_refused(self, service: str) -> None:
        """`/predict` takes POST only."""
        for method in ("GET", "PUT", "DELETE"):
            assert httpx.request(method, f"{service}/predict").status_code == 405

    def test_predictions_are_counted(self, service: str, golden: dict[str, Any]) -> None:
        """One request is one more in `/metrics`."""
        name = 'service_request_seconds_count{endpoint="/predict",status="200"}'

        def count() -> float:
            lines = httpx.get(f"{service}/metrics").text.splitlines()
            return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

        before = count()
        ask(service, golden["records"])

        assert count() == before + 1


def ask(service: str, body: Any) -> tuple[int, Any]:
    """Ask for predictions: the status and the answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return fetch(f"{service}/predict", content)
