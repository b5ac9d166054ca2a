"""A service over ASGI, with a model of the shop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import yaml
from starlette.responses import PlainTextResponse

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.model.train import train, write
from gitops_ml.serving import app as serving_app
from gitops_ml.serving.app import FrontDoor, Model
from gitops_ml.serving.config import ServiceConfig

Ask = Callable[..., httpx.Response]


@pytest.fixture
def make_model(
    project: Path,
    shop_schema: Schema,
    make_orders: Callable[..., pl.DataFrame],
    make_params: Callable[..., Params],
) -> Callable[..., Model]:
    """Train on orders and load it as the service does: `make_model("price", SERVICE_MAX_ROWS=5)`"""

    def model(
        target: str = "returned",
        served: str = "model.onnx",
        code: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> Model:
        params = make_params(target)
        trained = train(make_orders(300), params, shop_schema)
        manifest = write(trained, params, project / "models", code)
        manifest["served"] = served
        (project / "models" / "manifest.json").write_text(json.dumps(manifest))
        schema = shop_schema.model_dump(mode="json", exclude_none=True)
        (project / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
        config = ServiceConfig.from_environment({k: str(v) for k, v in variables.items()})
        return Model("shop", project, config)

    return model


@pytest.fixture
def ask() -> Ask:
    """Send a request to a model's service: `ask(model, "POST", "/predict", json=…)`."""

    def request(model: Model, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            serving_app.app.state.model = model
            platform = PlainTextResponse("platform")
            transport = httpx.ASGITransport(FrontDoor(platform))
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return request
