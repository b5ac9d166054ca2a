"""The servers that `benchmark_serving.py` compares, each written as its users would write it.

They run in the benchmark's own environment, in the folder of a generated project.
One factory per server:

    uvicorn --factory --app-dir tools benchmark_servers:fastapi_pandas
"""

# mypy: ignore-errors

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np


def manifest():
    """What is recorded about the project's model."""
    return json.loads(Path("models/manifest.json").read_text(encoding="utf-8"))


def features():
    """The project's encoder."""
    module = importlib.import_module("gitops_ml.features.encode")
    return module.Features.from_manifest(manifest()["features"])


def pipeline():
    """The trained scikit-learn pipeline."""
    import joblib

    return joblib.load("models/model.joblib")


def row_model():
    """A pydantic model of a row, as one writes it by hand: types, and which may be null."""
    from pydantic import create_model

    kinds = {"integer": int, "number": float, "boolean": bool, "category": str}
    fields = {f["name"]: (kinds[f["type"]] | None, ...) for f in manifest()["features"]}
    return create_model("Row", **fields)


def answers(predictions):
    """The answer's form, from probabilities (n, classes) or numbers (n,)."""
    classes = manifest()["classes"]
    if classes is None:
        return [{"prediction": value} for value in predictions.tolist()]
    names = [str(value).lower() for value in classes]
    return [
        {
            "prediction": classes[int(np.argmax(row))],
            "probabilities": dict(zip(names, row, strict=True)),
        }
        for row in predictions.tolist()
    ]


def predict_with(model):
    """The method that answers: probabilities where there are classes."""
    return model.predict if manifest()["classes"] is None else model.predict_proba


def fastapi_app(predict):
    """FastAPI with a pydantic model per row; `predict` takes the list of rows."""
    from fastapi import FastAPI

    app = FastAPI()
    row = row_model()

    @app.get("/readyz")
    def ready() -> str:
        return "ok"

    def handler(rows):
        return answers(predict(rows))

    handler.__annotations__ = {"rows": list[row]}
    app.post("/predict")(handler)
    return app


def fastapi_pandas():
    """FastAPI: pydantic rows, a pandas frame, scikit-learn."""
    import pandas as pd

    ask = predict_with(pipeline())
    items = features().items

    def predict(rows):
        frame = pd.DataFrame([row.model_dump() for row in rows])
        for item in items:
            if item.type == "category":
                frame[item.name] = frame[item.name].map(item.codes()).fillna(-1)
        return ask(frame.astype("float32").to_numpy())

    return fastapi_app(predict)


def fastapi_polars():
    """FastAPI: pydantic rows, a polars frame, scikit-learn."""
    import polars as pl

    ask = predict_with(pipeline())
    items = features().items
    columns = [
        pl.col(item.name).replace_strict(item.codes(), default=-1.0, return_dtype=pl.Float32)
        if item.type == "category"
        else pl.col(item.name).cast(pl.Float32)
        for item in items
    ]

    def predict(rows):
        frame = pl.DataFrame([row.model_dump() for row in rows], infer_schema_length=None)
        return ask(frame.select(columns).to_numpy())

    return fastapi_app(predict)


def fastapi_numpy():
    """FastAPI: pydantic rows, a numpy matrix, scikit-learn."""
    ask = predict_with(pipeline())
    encoder = features()
    return fastapi_app(lambda rows: ask(encoder.from_records([row.model_dump() for row in rows])))


def session():
    """The ONNX model in ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession("models/model.onnx", options)


def fastapi_onnx():
    """FastAPI: pydantic rows, a numpy matrix, ONNX Runtime."""
    model, encoder = session(), features()

    def predict(rows):
        matrix = encoder.from_records([row.model_dump() for row in rows])
        return model.run(None, {"features": matrix})[0]

    return fastapi_app(predict)


def ceiling():
    """Bare Starlette and ONNX Runtime: no checks, no metrics, no log."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    model, encoder = session(), features()

    async def predict(request):
        matrix = encoder.from_records(await request.json())
        return JSONResponse(answers(model.run(None, {"features": matrix})[0]))

    async def ready(_):
        return PlainTextResponse("ok")

    return Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/readyz", ready)])


def save_for_mlflow(folder):
    """Save the pipeline as an MLflow model; it gets encoded rows, which saves it that work."""
    import mlflow
    import pandas as pd

    golden = json.loads(Path("reports/golden.json").read_text(encoding="utf-8"))
    encoder = features()
    frame = pd.DataFrame(encoder.from_records(golden["records"]), columns=encoder.names)
    model = pipeline()
    signature = mlflow.models.infer_signature(frame, predict_with(model)(frame.to_numpy()))
    pyfunc = "predict" if manifest()["classes"] is None else "predict_proba"
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=signature,
        pyfunc_predict_fn=pyfunc,
        serialization_format="cloudpickle",
    )


def documented():
    """BentoML as documented: an API with adaptive batching, numpy in and out, scikit-learn.

    `/score` takes encoded rows; `/predict` takes records and asks `/score` for a batch.
    """
    import bentoml

    @bentoml.service(name="documented", workers=1, envs=[{"name": "OMP_NUM_THREADS", "value": "1"}])
    class Documented:
        def __init__(self) -> None:
            self.ask = predict_with(pipeline())
            self.encoder = features()

        @bentoml.api(batchable=True, max_batch_size=1000, max_latency_ms=1000)
        def score(self, matrix: np.ndarray) -> np.ndarray:
            return np.asarray(self.ask(matrix.astype(np.float32)))

        @bentoml.api
        async def predict(self, rows: list[Row]) -> list[dict]:  # noqa: F821
            matrix = self.encoder.from_records([row.model_dump() for row in rows])
            return answers(np.asarray(await self.to_async.score(matrix)))

    return Documented


def batching_swapped():
    """The project's service: scikit-learn without batching, ONNX Runtime with it."""
    predictor = importlib.import_module("gitops_ml.model.predictor")
    predictor.OnnxPredictor.batches = True
    predictor.SklearnPredictor.batches = False
    return importlib.import_module("gitops_ml.serving.service").Service


# BentoML imports a service by name; each of these is made when it is asked for.
def __getattr__(name):
    if name == "Row":
        return row_model()
    if name == "Documented":
        globals()["Row"] = row_model()
        return documented()
    if name == "Swapped":
        return batching_swapped()
    raise AttributeError(name)
