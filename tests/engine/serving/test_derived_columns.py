"""Derived columns from the training rows to an answer over HTTP, by one and the same function."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import yaml
from commands import subcommand
from projects import forget_package
from starlette.responses import PlainTextResponse

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.core.user_code import UserCodeError
from gitops_ml.features.matrix import matrix_of
from gitops_ml.gate.challenger import latency_p99_ms, load_challenger
from gitops_ml.model import evaluate, predict
from gitops_ml.model.predictor import ModelError, load_predictor
from gitops_ml.serving import app as serving_app
from gitops_ml.serving.app import FrontDoor, Model
from gitops_ml.serving.config import ServiceConfig
from gitops_ml.serving.prediction_log import PredictionLog

PACKAGE = "flight_delays"
FEATURES = '''
import numpy as np
from gitops_ml.features import derived

@derived(type="integer", min=0, max=20, unit="h")
def hour(ordered):
    """Hour of the order."""
    return (ordered - ordered.astype("M8[D]")) // np.timedelta64(1, "h")

@derived(type="category", categories=["morning", "later"])
def part(hour):
    return np.where(hour < 12, "morning", "later")

@derived(type="number", nullable=True)
def length(note, number):
    if (number == 13).any():
        raise ValueError("unlucky")
    return np.array([np.nan if text is None else len(text) for text in note])
'''
RECORD = {
    "ordered": "2024-02-01T09:30:00Z",
    "note": "please",
    "number": 7,
    "weight": 1.5,
    "items": 3,
    "member": True,
    "colour": "blue",
}
Ask = Callable[..., httpx.Response]


@pytest.fixture
def trained(
    project: Path,
    shop_schema: Schema,
    make_orders: Callable[..., pl.DataFrame],
    make_params: Callable[..., Params],
) -> Path:
    """A project that was trained with derived columns, and what its stages wrote."""
    own = {
        "ordered": {"type": "datetime", "feature": False},
        "note": {"type": "string", "feature": False, "nullable": True},
        "number": {"type": "integer", "feature": False},
    }
    columns = {**own, **shop_schema.model_dump(mode="json", exclude_defaults=True)["columns"]}
    params = make_params("returned").model_dump(mode="json")
    params["evaluate"]["slices"] = ["colour", "part"]
    for path, document in ((paths.SCHEMA, {"columns": columns}), (paths.PARAMS, params)):
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    package = project / "src" / PACKAGE
    package.mkdir(parents=True)
    (package / "features.py").write_text(FEATURES, encoding="utf-8")
    paths.TRAIN.parent.mkdir(parents=True)
    for seed, path in enumerate((paths.TRAIN, paths.TEST)):
        rows = make_orders(300, seed=seed)
        random = np.random.default_rng(seed)
        start = datetime(2024, 2, 1, tzinfo=UTC)
        notes = [None if place % 7 == 0 else "é" * (place % 5) for place in range(300)]
        rows.with_columns(
            ordered=pl.Series(
                [
                    start + timedelta(days=place, minutes=int(random.integers(0, 21 * 60)))
                    for place in range(300)
                ],
                dtype=pl.Datetime("us", "UTC"),
            ),
            note=pl.Series(notes),
            number=pl.int_range(100, 400),
        ).write_parquet(path)
    assert subcommand("train")() == 0
    assert subcommand("evaluate")() == 0
    return project


@pytest.fixture
def ask(trained: Path, ask: Ask) -> Ask:
    """Send a request to the service of this project: `ask("POST", "/predict", json=…)`."""
    return functools.partial(ask, Model("shop", trained, ServiceConfig()))


def as_requests(rows: pl.DataFrame) -> list[dict[str, Any]]:
    names = load_predictor(paths.MODELS).features.inputs
    return [
        {name: evaluate.json_value(value) for name, value in row.items()}
        for row in rows.select(names).to_dicts()
    ]


def test_the_manifest_says_what_is_derived_and_from_what(trained: Path) -> None:
    manifest = json.loads(paths.MANIFEST.read_text(encoding="utf-8"))

    assert [one["name"] for one in manifest["features"]] == [
        *["weight", "items", "member", "colour"],
        *["hour", "part", "length"],
    ]
    assert set(manifest["inputs"]) == set(RECORD)
    assert manifest["derived"][0] == {
        "name": "hour",
        "type": "integer",
        "min": 0.0,
        "max": 20.0,
        "unit": "h",
        "description": "Hour of the order.",
        "inputs": ["ordered"],
    }
    assert manifest["user_code"]["package"] == PACKAGE


def test_the_same_rows_get_the_same_answers_offline_and_over_http(ask: Ask) -> None:
    rows = pl.read_parquet(paths.TEST)
    predictor = load_predictor(paths.MODELS)
    table = predict.as_table(predict.predict(predictor, rows), predictor.manifest)
    records = as_requests(rows)

    many = ask("POST", "/predict", json=records).json()
    single = [ask("POST", "/predict", json=record).json() for record in records[:20]]

    assert many[:20] == single
    for place, name in enumerate(("false", "true")):
        offline = table.get_column(f"probability_{name}").cast(pl.Float32).to_numpy()
        online = np.array([one["probabilities"][name] for one in many], dtype=np.float32)
        assert online.tobytes() == offline.tobytes(), place
    matrix = matrix_of(rows, predictor.features)
    assert predictor.features.from_records(records).tobytes() == matrix.tobytes()


def test_reports_treat_a_derived_column_like_any_other(trained: Path) -> None:
    evaluation = json.loads(paths.EVALUATION.read_text(encoding="utf-8"))
    golden = json.loads(paths.GOLDEN.read_text(encoding="utf-8"))
    importance = (paths.PLOTS / "importance.csv").read_text(encoding="utf-8")

    slices = [(part["column"], part["value"]) for part in evaluation["slices"]]
    assert ("part", "morning") in slices
    assert ("part", "later") in slices
    assert set(golden["records"][0]) == set(RECORD)
    assert golden["records"][0]["ordered"].endswith("Z")
    assert all(name in importance for name in ("hour", "part", "length"))


def test_the_gate_knows_the_derived_columns(trained: Path) -> None:
    params = Params.model_validate(yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8")))

    challenger = load_challenger(trained, params, locked=None)  # type: ignore[arg-type]

    assert set(challenger.test.get_column("part")) == {"morning", "later"}
    records = challenger.test.select(challenger.predictor.features.inputs).head(5).to_dicts()
    assert latency_p99_ms(challenger.predictor, records) > 0


def test_a_request_carries_what_columns_are_derived_from_and_not_these(ask: Ask) -> None:
    fields = ask("GET", "/docs.json").json()["components"]["schemas"]["Record"]["properties"]
    assert list(fields) == list(RECORD)
    assert (fields["ordered"]["type"], fields["ordered"]["format"]) == ("string", "date-time")
    assert ask("POST", "/predict", json=RECORD).status_code == 200
    release = ask("GET", "/release").json()
    assert "hour" in release["features"]
    assert set(release["inputs"]) == set(RECORD)

    answer = ask("POST", "/predict", json=RECORD | {"hour": 9})
    assert answer.status_code == 422
    assert answer.json()["problems"] == [
        {"field": "hour", "problem": "is derived from ordered here; leave it out"}
    ]
    lacking = {name: value for name, value in RECORD.items() if name != "ordered"}
    answer = ask("POST", "/predict", json=lacking)
    assert answer.json()["problems"] == [{"field": "ordered", "problem": "is missing"}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ordered", None),
        ("ordered", 1706779800),
        ("ordered", "yesterday"),
        ("ordered", "2024-02-01T09:30:00"),
        ("note", 3),
        ("number", 2**60),
        ("number", 1e300),
        ("number", 1.5),
    ],
)
def test_inputs_are_checked_against_the_schema(ask: Ask, field: str, value: Any) -> None:
    answer = ask("POST", "/predict", json=RECORD | {field: value})

    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == field


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("2024-02-01T09:30:00+02:00", 200),
        ("2024-02-01T09:30:00.123456789Z", 200),
        ("0001-01-01T00:00:00+14:00", 200),
        ("9999-12-31T20:00:00-00:30", 200),
        ("2024-02-01T23:00:00Z", 422),
    ],
)
def test_no_moment_is_an_error_of_the_service(ask: Ask, moment: str, status: int) -> None:
    assert ask("POST", "/predict", json=RECORD | {"ordered": moment}).status_code == status


def test_a_value_outside_the_declared_range_names_row_and_inputs(ask: Ask) -> None:
    late = RECORD | {"ordered": "2024-02-01T23:00:00Z"}

    one = ask("POST", "/predict", json=late)
    many = ask("POST", "/predict", json=[RECORD, RECORD, late])

    problem = {
        "field": "ordered",
        "problem": "`hour`, which is derived from it, cannot be: 1 value: above 20 h",
        "value": "ordered=2024-02-01T23:00:00.000000, hour=23",
    }
    assert (one.status_code, one.json()["problems"]) == (422, [problem])
    assert (many.status_code, many.json()["problems"]) == (422, [problem | {"row": 2}])


def test_a_problem_in_one_row_is_none_of_the_moments_in_the_others(ask: Ask) -> None:
    wrong = RECORD | {"items": "many"}

    answer = ask("POST", "/predict", json=[RECORD, wrong, RECORD])

    assert answer.status_code == 422
    assert [(p["row"], p["field"]) for p in answer.json()["problems"]] == [(1, "items")]


def test_a_function_that_fails_is_no_error_of_the_service(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    unlucky = RECORD | {"number": 13}

    answer = ask("POST", "/predict", json=[RECORD, unlucky, RECORD])

    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert (problem["field"], problem["row"]) == ("note, number", 1)
    assert "the function fails: ValueError: unlucky" in problem["problem"]
    assert f"src/{PACKAGE}/features.py:17: derived column `length`" in caplog.text


@pytest.mark.parametrize("served", ["model.onnx", "model.joblib"])
def test_a_failing_request_fails_no_other(trained: Path, served: str) -> None:
    manifest = json.loads(paths.MANIFEST.read_text(encoding="utf-8"))
    paths.MANIFEST.write_text(json.dumps(manifest | {"served": served}), encoding="utf-8")
    model = Model("shop", trained, ServiceConfig())

    async def send() -> list[httpx.Response]:
        serving_app.app.state.model = model
        transport = httpx.ASGITransport(FrontDoor(PlainTextResponse("platform")))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            bodies = [RECORD, RECORD | {"number": 13}] * 5
            return await asyncio.gather(
                *(client.post("/predict", json=record) for record in bodies)
            )

    assert [answer.status_code for answer in asyncio.run(send())] == [200, 422] * 5


def test_the_log_holds_requests_as_they_came(trained: Path, tmp_path: Path) -> None:
    model = Model("shop", trained, ServiceConfig())
    model.log = PredictionLog(tmp_path / "log", "shop", lambda *_: None)

    async def send() -> None:
        serving_app.app.state.model = model
        transport = httpx.ASGITransport(FrontDoor(PlainTextResponse("platform")))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            await client.post("/predict", json=RECORD)

    asyncio.run(send())
    model.log.close()
    (file,) = (tmp_path / "log").iterdir()
    assert json.loads(file.read_text(encoding="utf-8"))["records"] == [RECORD]


def test_other_code_than_trained_the_model_is_not_served(trained: Path) -> None:
    file = trained / "src" / PACKAGE / "features.py"
    file.write_text(FEATURES.replace("hour < 12", "hour < 13"), encoding="utf-8")

    with pytest.raises(UserCodeError, match=f"src/{PACKAGE}: is not the code that trained"):
        Model("shop", trained, ServiceConfig())


def test_a_schema_with_other_inputs_is_refused(trained: Path) -> None:
    schema = yaml.safe_load(paths.SCHEMA.read_text(encoding="utf-8"))
    schema["columns"]["note"]["nullable"] = False
    paths.SCHEMA.write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")

    with pytest.raises(ModelError, match="run `make pipeline`"):
        Model("shop", trained, ServiceConfig())


def test_functions_that_a_model_was_not_trained_with_are_noticed(trained: Path) -> None:
    (trained / "src" / PACKAGE / "features.py").unlink()
    forget_package()
    assert subcommand("train")() == 1  # the slices name a derived column
    params = yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8"))
    params["evaluate"]["slices"] = []
    paths.PARAMS.write_text(yaml.safe_dump(params), encoding="utf-8")
    assert subcommand("train")() == 0
    Model("shop", trained, ServiceConfig())
    (trained / "src" / PACKAGE / "features.py").write_text(FEATURES, encoding="utf-8")

    with pytest.raises(UserCodeError, match="is not the code that trained the"):
        Model("shop", trained, ServiceConfig())


def test_rows_are_scored_from_what_they_hold(trained: Path) -> None:
    rows = pl.read_parquet(paths.TEST)
    rows.drop("returned").write_parquet("rows.parquet")

    assert subcommand("predict")(["--rows", "rows.parquet", "--out", "scores.parquet"]) == 0

    assert pl.read_parquet("scores.parquet").height == rows.height


def test_rows_that_lack_an_input_are_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pl.read_parquet(paths.TEST)
    rows.drop("ordered").write_parquet("lacking.parquet")
    rows.with_columns(number=13).write_parquet("unlucky.parquet")

    assert subcommand("predict")(["--rows", "lacking.parquet", "--out", "scores.parquet"]) == 1
    assert "lacking.parquet: has no column ordered" in capsys.readouterr().err
    assert subcommand("predict")(["--rows", "unlucky.parquet", "--out", "scores.parquet"]) == 1
    assert "derived column `length`: the function fails" in capsys.readouterr().err
