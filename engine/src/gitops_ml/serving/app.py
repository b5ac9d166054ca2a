"""The service over HTTP: what each path does, as a plain ASGI application."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gitops_ml.core import paths
from gitops_ml.core.schema import load_schema
from gitops_ml.core.user_code import check_user_code
from gitops_ml.features.derive import NOTHING_DERIVED, DerivedValueError, load_derivation
from gitops_ml.features.encode import Features, class_name
from gitops_ml.model.predictor import ModelError, Predictions, load_predictor
from gitops_ml.serving import telemetry as metrics
from gitops_ml.serving.batching import Batcher
from gitops_ml.serving.config import ServiceConfig
from gitops_ml.serving.hooks import Hooks, load_hooks
from gitops_ml.serving.openapi import describe_api
from gitops_ml.serving.prediction_log import PredictionLog
from gitops_ml.serving.release import as_deployed, check_expected, read_release
from gitops_ml.serving.requests import Record, RequestError, RequestReader, cannot_derive

logger = logging.getLogger("bentoml.service")

# More rows than this are predicted in another thread, so that the others' requests go on.
ROWS_INLINE = 200
BODY_SECONDS = 30.0
# A body up to so many times too large is read, but not kept: most clients read no answer before
# they have sent everything.
DISCARDED = 8
MAX_IN_FLIGHT = 256


class Model:
    """Everything that one worker needs to answer: read, verified and warmed up."""

    def __init__(self, name: str, root: Path, config: ServiceConfig) -> None:
        self.predictor = load_predictor(root / paths.MODELS)
        self.release = as_deployed(read_release(root, self.predictor.manifest), config)
        check_expected(self.release, config)
        schema = load_schema(root)
        manifest = self.predictor.manifest
        derivation, self.hooks = NOTHING_DERIVED, Hooks(root)
        if "user_code" in manifest:
            # Derived columns or not: metrics, estimators and service.py were gated with the model.
            check_user_code(root, manifest)
            package = manifest["user_code"]["package"]
            derivation = load_derivation(root, schema, manifest["target"], package)
            self.hooks = load_hooks(root, package)
        if Features.from_schema(schema, derivation) != self.predictor.features:
            raise ModelError(
                "schema.yaml does not have the features that the model was trained on, or "
                "features.py derives others; run `make pipeline`"
            )
        self.reader = RequestReader(derivation.inputs(schema), config.max_rows, derivation)
        self.max_body_bytes = config.max_body_bytes
        classes = self.predictor.manifest["classes"] or []
        self.class_names = [class_name(value) for value in classes]
        self.api = describe_api(name, self.release, self.reader.json_schema(), schema.description)
        self.log: PredictionLog | None = None
        self._batcher = Batcher(self.predictor.predict) if self.predictor.batches else None
        # The first run is the slow one, of the model and of what derives columns.
        self.predictor.predict(self.predictor.features.missing())
        self.predictor.features.from_records([])

    async def predict(self, records: list[Record]) -> Predictions:
        """Encode the records and ask the model.

        Raises:
            PredictionError: If the model gives no finite number.
            DerivedValueError: If a column cannot be derived.
        """
        if self._batcher is not None:
            return await self._batcher.predict(self.predictor.features.from_records(records))
        if len(records) > ROWS_INLINE:
            return await asyncio.to_thread(self._ask, records)
        return self._ask(records)

    def _ask(self, records: list[Record]) -> Predictions:
        return self.predictor.predict(self.predictor.features.from_records(records))

    def answers(self, predictions: Predictions) -> list[dict[str, Any]]:
        """The predictions as JSON objects, and counted."""
        labels = predictions.labels
        if predictions.probabilities is None:
            self._count(labels, {})
            return [{"prediction": label} for label in labels]
        totals = predictions.probabilities.sum(axis=0, dtype=float).tolist()
        self._count(labels, dict(zip(self.class_names, totals, strict=True)))
        return [
            {"prediction": label, "probabilities": dict(zip(self.class_names, row, strict=True))}
            for label, row in zip(labels, predictions.probabilities.tolist(), strict=True)
        ]

    def _count(self, labels: list[Any], totals: dict[str, float]) -> None:
        if self.class_names:
            metrics.classes_predicted(labels, totals)
        else:
            metrics.numbers_predicted(labels)


async def predict(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a record with a prediction, and an array of records with an array of them.

    A plain ASGI application: routing and middleware would cost a single row as much as the model.
    """
    try:
        response = await _predict(Request(scope, receive), app.state.model)
    except RequestError as error:
        response = _json(error.as_json(), error.status)
    except ClientDisconnect:
        response = Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody reads it
    except Exception as error:
        # What happened is for the log, not for the client.
        logger.error("The prediction failed: %s", error, exc_info=error)
        message = {"error": "The prediction failed."}
        response = _json(message, HTTPStatus.INTERNAL_SERVER_ERROR)
    await response(scope, receive, send)


async def _predict(request: Request, model: Model) -> Response:
    if request.method != "POST":
        response = _json({"error": "Method Not Allowed."}, HTTPStatus.METHOD_NOT_ALLOWED)
        response.headers["Allow"] = "POST"
        return response
    body = await _body(request, model.max_body_bytes)
    body = model.hooks.change(body, model.reader.max_rows)
    records, many = model.reader.read(body)
    try:
        predictions = await model.predict(records)
    except DerivedValueError as error:
        logger.warning("%s", error, exc_info=error.__cause__)
        raise cannot_derive(error, many) from error
    content = model.hooks.add(records, model.answers(predictions), many)
    if model.log is not None:
        model.log.add(body, content, len(records), request.headers.get("x-request-id"))
    return Response(content, media_type="application/json")


async def _body(request: Request, limit: int) -> bytes:
    """Read the body, but keep no more than `limit` bytes of it.

    Raises:
        RequestError: 408 if it does not arrive, 413 if it is larger, 415 if it is compressed.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body uncompressed, as JSON."
        )
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    chunks: list[bytes] = []
    if size <= limit * DISCARDED:
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    elif size > limit * DISCARDED:
                        break
        except TimeoutError:
            raise RequestError(
                HTTPStatus.REQUEST_TIMEOUT, f"The body took longer than {BODY_SECONDS:g} s."
            ) from None
    if size > limit:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The body may have at most {limit:,} bytes; send fewer records at a time.",
        )
    return b"".join(chunks)


async def release(request: Request) -> Response:
    """What is running."""
    return _json(request.app.state.model.release)


async def api_document(request: Request) -> Response:
    """The OpenAPI document."""
    return _json(request.app.state.model.api)


async def exposition(_: Request) -> Response:
    """Metrics for Prometheus."""
    content = await asyncio.to_thread(metrics.exposition)
    return Response(content, media_type=metrics.CONTENT_TYPE)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(to_json(value), status, media_type="application/json")


async def http_error(_: Request, error: Exception) -> Response:
    """Answer a wrong method."""
    assert isinstance(error, HTTPException)
    return Response(
        to_json({"error": f"{error.detail}."}),
        error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an unknown path."""
    await _json({"error": "Not Found."}, HTTPStatus.NOT_FOUND)(scope, receive, send)


async def overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer when too many requests wait: soon refused is better than late answered."""
    response = _json({"error": "Too many requests at once."}, HTTPStatus.SERVICE_UNAVAILABLE)
    response.headers["Retry-After"] = "1"
    await response(scope, receive, send)


app = Starlette(
    routes=[
        Route("/release", release),
        Route("/metrics", exposition),
        Route("/docs.json", api_document),
    ],
    exception_handlers={HTTPException: http_error},
)
OWN: dict[str, ASGIApp] = {
    "/predict": predict,
    "/release": app,
    "/metrics": app,
    "/docs.json": app,
}
PLATFORM = frozenset({"/", "/livez", "/readyz", "/healthz"})


class FrontDoor:
    """Sends each request to what is above or to BentoML's application, and measures it."""

    def __init__(self, platform: ASGIApp) -> None:
        self.platform = platform
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.platform(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"]
        endpoint = path if path in OWN else "other"

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - started
                metrics.request_answered(endpoint, message["status"], seconds)
            await send(message)

        self.in_flight += 1
        try:
            await self._choose(path)(scope, receive, observed_send)
        finally:
            self.in_flight -= 1

    def _choose(self, path: str) -> ASGIApp:
        if path == "/predict" and self.in_flight > MAX_IN_FLIGHT:
            return overloaded
        if path in OWN:
            return OWN[path]
        if path in PLATFORM or path.startswith("/static_content/"):
            return self.platform
        return not_found
