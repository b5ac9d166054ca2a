"""The service's OpenAPI document, with the request model of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gitops_ml.features.encode import class_name

_ERRORS = {
    HTTPStatus.BAD_REQUEST: "The body is not JSON.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large, or holds too many records.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The records do not match the schema.",
}


def describe_api(
    name: str, release: Mapping[str, Any], record: Mapping[str, Any], description: str
) -> dict[str, Any]:
    """Write the document.

    Args:
        name: What the service is called.
        release: The release's metadata: its name, task and classes.
        record: The JSON schema of one record.
        description: What a record is.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": str(release["release"]), "description": description},
        "servers": [{"url": "."}],
        "paths": {
            "/predict": {"post": _predict()},
            "/release": {"get": _get("What is running: model, data, source, metrics and digest.")},
            "/metrics": {"get": _get("Metrics for Prometheus.", "text/plain")},
            "/livez": {"get": _get("Answers while the process lives.", "text/plain")},
            "/readyz": {"get": _get("Answers once the model is loaded.", "text/plain")},
        },
        "components": {
            "schemas": {
                "Record": dict(record),
                "Prediction": _prediction(release),
                "Error": _error(),
            }
        },
    }


def _one_or_many(schema: str) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{schema}"}
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _predict() -> dict[str, Any]:
    errors = {
        str(status.value): {
            "description": text,
            "content": _json({"$ref": "#/components/schemas/Error"}),
        }
        for status, text in _ERRORS.items()
    }
    return {
        "summary": "Predict for one record, or for an array of records.",
        "operationId": "predict",
        "requestBody": {"required": True, "content": _json(_one_or_many("Record"))},
        "responses": {
            "200": {
                "description": "A prediction, or an array of them in the order of the records.",
                "content": _json(_one_or_many("Prediction")),
            },
            **errors,
        },
    }


def _get(summary: str, media_type: str = "application/json") -> dict[str, Any]:
    kind = "object" if media_type == "application/json" else "string"
    answer = {"description": summary, "content": {media_type: {"schema": {"type": kind}}}}
    return {"summary": summary, "responses": {"200": answer}}


def _prediction(release: Mapping[str, Any]) -> dict[str, Any]:
    if release["classes"] is None:
        prediction: dict[str, Any] = {"type": "number"}
    else:
        prediction = {"enum": list(release["classes"])}
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["prediction"],
        "properties": {"prediction": prediction},
    }
    if release["probabilities"]:
        names = [class_name(value) for value in release["classes"]]
        schema["required"].append("probabilities")
        schema["properties"]["probabilities"] = {
            "type": "object",
            "required": names,
            "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in names},
        }
    return schema


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": text,
            "problems": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["problem"],
                    "properties": {
                        "field": text,
                        "row": {"type": "integer", "description": "Place in the array, from 0."},
                        "problem": text,
                        "value": {**text, "description": "What was found, as JSON text."},
                    },
                },
            },
        },
    }
