"""The prediction service.

    POST /predict    a prediction for a record, or a list of them for an array of records
    GET  /release    what is running: model, data, source, metrics, digest
    GET  /metrics    for Prometheus
    GET  /readyz     200 once the model is loaded and has answered; also /livez
    GET  /docs.json  OpenAPI, with the request model of `schema.yaml`; GET / shows it

BentoML packages it, runs its workers, answers the probes and shows the documentation. Predictions
do not pass through BentoML's own layers, which take longer than the model does for a single row.
"""

from __future__ import annotations

import gc
import os

import bentoml
from starlette.types import ASGIApp

from gitops_ml.core.errors import GitopsError
from gitops_ml.serving import telemetry as metrics
from gitops_ml.serving.app import FrontDoor, Model, app
from gitops_ml.serving.config import ConfigError, ServiceConfig
from gitops_ml.serving.prediction_log import PredictionLog
from gitops_ml.serving.release import project_root, service_name


def _config() -> ServiceConfig:
    try:
        return ServiceConfig.from_environment(os.environ)
    except ConfigError as error:
        raise SystemExit(f"The service cannot start.\n{error}") from None


CONFIG = _config()


def _name() -> str:
    try:
        return service_name(project_root())
    except GitopsError as error:
        raise SystemExit(f"The service cannot start.\n{error}") from None


NAME = _name()


def _load() -> Model:
    try:
        return Model(NAME, project_root(), CONFIG)
    except GitopsError as error:
        raise SystemExit(f"The service cannot start.\n{error}") from None


class FrontedService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service with a front door of its own."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The application that a worker runs."""
        return FrontDoor(super().to_asgi(is_main))


@bentoml.service(
    name=NAME,
    service_class=FrontedService,
    workers=CONFIG.workers,
    metrics={"enabled": False},
    envs=[
        {"name": "OMP_NUM_THREADS", "value": "1"},
        {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
    ],
)
class Service:
    """Loads the model when a worker starts, and closes the prediction log when it stops."""

    def __init__(self) -> None:
        self.model = _load()
        if CONFIG.prediction_log is not None:
            name = str(self.model.release["release"])
            self.model.log = PredictionLog(CONFIG.prediction_log, name, metrics.rows_dropped)
        app.state.model = self.model
        # What exists now stays: keep the garbage collector from walking over it again and again.
        gc.collect()
        gc.freeze()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse to start any worker when there is no model that can answer."""
        _load()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write what the prediction log still holds."""
        if self.model.log is not None:
            self.model.log.close()
