from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from gitops_ml.model.predictor import ModelError, PredictionError
from gitops_ml.serving import app as serving_app
from gitops_ml.serving.app import Model
from gitops_ml.serving.config import ServiceConfig
from gitops_ml.serving.prediction_log import PredictionLog

RECORD = {"weight": 1.5, "items": 3, "member": True, "colour": "blue"}
Ask = Callable[..., httpx.Response]


@pytest.mark.parametrize("served", ["model.onnx", "model.joblib"])
def test_a_record_gets_a_prediction_and_an_array_an_array(
    make_model: Callable[..., Model], ask: Ask, served: str
) -> None:
    model = make_model(served=served)
    one = ask(model, "POST", "/predict", json=RECORD)
    many = ask(model, "POST", "/predict", json=[RECORD, RECORD | {"weight": None}])

    assert one.status_code == many.status_code == 200
    assert many.json()[0] == one.json()
    assert one.json()["prediction"] in (True, False)
    assert list(one.json()["probabilities"]) == ["false", "true"]
    assert sum(one.json()["probabilities"].values()) == pytest.approx(1)
    assert len(many.json()) == 2


def test_a_number_has_no_probabilities(make_model: Callable[..., Model], ask: Ask) -> None:
    answer = ask(make_model("price"), "POST", "/predict", json=RECORD).json()

    assert list(answer) == ["prediction"]
    assert isinstance(answer["prediction"], float)


def test_large_batches_are_answered_like_small_ones(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    model = make_model()
    rows = [RECORD | {"items": number} for number in range(serving_app.ROWS_INLINE + 1)]

    batch = ask(model, "POST", "/predict", json=rows).json()

    assert batch[:20] == ask(model, "POST", "/predict", json=rows[:20]).json()
    assert len(batch) == len(rows)


def test_a_bad_record_is_refused_with_its_fields(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    answer = ask(make_model(), "POST", "/predict", json=RECORD | {"items": 1.5, "weigth": 1})

    assert answer.status_code == 422
    assert {problem["field"] for problem in answer.json()["problems"]} == {"items", "weigth"}


def test_a_declared_size_is_refused_before_the_body_is_read(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    read: list[bytes] = []

    async def body() -> Any:
        for _ in range(100):
            read.append(b" " * 100_000)
            yield read[-1]

    model = make_model(SERVICE_MAX_BODY_MB=0.3)
    declared = ask(
        model, "POST", "/predict", content=body(), headers={"Content-Length": "10000000"}
    )
    assert declared.status_code == 413
    assert "300,000 bytes" in declared.json()["error"]
    assert not read


def test_an_undeclared_size_is_refused_where_it_goes_too_far(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    async def body() -> Any:
        for _ in range(100):
            yield b" " * 100_000

    answer = ask(make_model(SERVICE_MAX_BODY_MB=0.3), "POST", "/predict", content=body())

    assert answer.status_code == 413


def test_a_body_that_does_not_arrive_ends_in_a_timeout(
    make_model: Callable[..., Model], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_app, "BODY_SECONDS", 0.05)

    async def body() -> Any:
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    assert ask(make_model(), "POST", "/predict", content=body()).status_code == 408


def test_a_compressed_body_is_refused(make_model: Callable[..., Model], ask: Ask) -> None:
    answer = ask(
        make_model(), "POST", "/predict", content=b"x", headers={"Content-Encoding": "gzip"}
    )

    assert answer.status_code == 415


def test_too_many_rows_are_refused(make_model: Callable[..., Model], ask: Ask) -> None:
    model = make_model(SERVICE_MAX_ROWS=5)

    assert ask(model, "POST", "/predict", json=[RECORD] * 5).status_code == 200
    assert ask(model, "POST", "/predict", json=[RECORD] * 6).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("POST", "/release", 405),
        ("GET", "/nothing", 404),
        ("POST", "/predict/", 404),
        ("GET", "/predict/../../etc", 404),
    ],
)
def test_wrong_methods_and_paths_are_answered_in_json(
    make_model: Callable[..., Model], ask: Ask, method: str, path: str, status: int
) -> None:
    answer = ask(make_model(), method, path)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/static_content/index.css"])
def test_probes_and_pages_are_the_platforms(
    make_model: Callable[..., Model], ask: Ask, path: str
) -> None:
    assert ask(make_model(), "GET", path).text == "platform"


def test_a_failing_model_is_a_server_error_that_tells_nothing(
    make_model: Callable[..., Model],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make_model()

    def fail(_: Any) -> Any:
        raise PredictionError("secret detail")

    monkeypatch.setattr(model.predictor, "predict", fail)
    monkeypatch.setattr(serving_app.logger, "propagate", True)
    answer = ask(model, "POST", "/predict", json=RECORD)

    assert answer.status_code == 500
    assert answer.json() == {"error": "The prediction failed."}
    assert "secret detail" in caplog.text


def test_overload_is_refused_at_once(
    make_model: Callable[..., Model], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_app, "MAX_IN_FLIGHT", 0)

    answer = ask(make_model(), "POST", "/predict", json=RECORD)

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


def test_a_working_tree_is_a_development_release(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    release = ask(make_model(), "GET", "/release").json()

    assert release["release"] == "development"
    assert release["features"] == ["weight", "items", "member", "colour"]
    assert release["task"] == "classification"
    assert release["digest"] is None


def test_a_deployed_release_says_by_which_digest(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    digest = f"sha256:{'d' * 64}"

    assert ask(make_model(RELEASE_DIGEST=digest), "GET", "/release").json()["digest"] == digest


def test_a_release_of_another_model_is_refused(
    make_model: Callable[..., Model], project: Path
) -> None:
    (project / "release.json").write_text('{"release": "shop:1", "model": {"sha256": "0"}}')

    with pytest.raises(ModelError, match="was written for the model 0"):
        make_model()


def test_another_model_than_the_deployed_one_is_refused(make_model: Callable[..., Model]) -> None:
    found = make_model().predictor.manifest["files"]["model.onnx"]
    make_model(EXPECTED_MODEL_SHA256=found)

    with pytest.raises(ModelError, match=f"EXPECTED_MODEL_SHA256 is {'0' * 64}, but {found}"):
        make_model(EXPECTED_MODEL_SHA256="0" * 64)


def test_a_schema_with_other_features_is_refused(
    make_model: Callable[..., Model], project: Path
) -> None:
    make_model()
    schema = yaml.safe_load((project / "schema.yaml").read_text())
    schema["columns"]["colour"]["categories"].reverse()
    (project / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))

    with pytest.raises(ModelError, match=r"schema\.yaml does not have the features"):
        Model("shop", project, ServiceConfig())


def test_the_documentation_has_the_schemas_request_model(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    document = ask(make_model("size"), "GET", "/docs.json").json()

    schemas = document["components"]["schemas"]
    assert list(schemas["Record"]["properties"]) == ["weight", "items", "member", "colour"]
    assert schemas["Prediction"]["properties"]["prediction"]["enum"] == ["large", "medium", "small"]
    assert schemas["Prediction"]["required"] == ["prediction", "probabilities"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == set(schemas)
    assert {"200", "400", "413", "422"} <= set(document["paths"]["/predict"]["post"]["responses"])


def sample(text: str, name: str) -> float:
    """One value of Prometheus's text format; 0 when it is not there yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_metrics_count_requests_rows_and_predictions(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    model = make_model()
    ok = 'service_request_seconds_count{endpoint="/predict",status="200"}'
    bad = 'service_request_seconds_count{endpoint="/predict",status="422"}'
    other = 'service_request_seconds_count{endpoint="other",status="404"}'
    names = (ok, bad, other)
    before = ask(model, "GET", "/metrics").text
    answers = ask(model, "POST", "/predict", json=[RECORD] * 3).json()
    ask(model, "POST", "/predict", json={})
    for number in range(3):
        ask(model, "GET", f"/random-{number}")
    after = ask(model, "GET", "/metrics").text

    assert [sample(after, n) - sample(before, n) for n in names] == [1, 1, 3]
    assert "random-" not in after, "a path that anybody can choose must not become a label"
    label = "true" if answers[0]["prediction"] else "false"
    counter = f'service_predictions_total{{prediction="{label}"}}'
    assert sample(after, counter) - sample(before, counter) == 3
    total = 'service_probability_sum_total{prediction="true"}'
    expected = 3 * answers[0]["probabilities"]["true"]
    assert sample(after, total) - sample(before, total) == pytest.approx(expected)


def test_metrics_count_numbers_by_their_range(make_model: Callable[..., Model], ask: Ask) -> None:
    model = make_model("price")
    before = ask(model, "GET", "/metrics").text
    values = [
        answer["prediction"]
        for answer in ask(
            model, "POST", "/predict", json=[RECORD, RECORD | {"weight": 20.0, "items": 8}]
        ).json()
    ]
    after = ask(model, "GET", "/metrics").text

    assert sample(after, "service_prediction_sum") - sample(
        before, "service_prediction_sum"
    ) == pytest.approx(sum(values))
    pattern = r'service_predictions_total\{prediction="(-?[\d.]+) to (-?[\d.]+)"\} ([\d.]+)'
    ranges = [
        (float(low), float(high)) for low, high, count in re.findall(pattern, after) if float(count)
    ]
    assert all(any(low <= value < high for low, high in ranges) for value in values)


def test_the_log_gets_what_was_asked_and_answered(
    make_model: Callable[..., Model], ask: Ask, tmp_path: Path
) -> None:
    model = make_model()
    model.log = PredictionLog(tmp_path / "log", "shop:1", lambda *_: None)
    one = ask(model, "POST", "/predict", json=RECORD).json()
    named = {"X-Request-Id": "order 7"}
    many = ask(model, "POST", "/predict", json=[RECORD, RECORD], headers=named).json()
    ask(model, "POST", "/predict", json={})
    model.log.close()

    (file,) = (tmp_path / "log").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["records"] for line in lines] == [[RECORD], [RECORD, RECORD]]
    assert [line["predictions"] for line in lines] == [[one], many]
    assert [line.get("request") for line in lines] == [None, "order 7"]


def test_no_value_that_passes_the_checks_breaks_the_model(
    make_model: Callable[..., Model], ask: Ask
) -> None:
    largest = float(np.finfo(np.float32).max)
    extremes = [
        {"weight": largest, "items": 0, "member": None, "colour": ""},
        {"weight": 0, "items": largest, "member": False, "colour": "\x00"},
        {"weight": 1e-45, "items": 2**53, "member": True, "colour": "é" * 1000},
    ]

    answer = ask(make_model(), "POST", "/predict", json=extremes)

    assert answer.status_code == 200, answer.text
