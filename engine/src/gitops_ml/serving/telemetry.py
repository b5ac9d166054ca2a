"""What Prometheus can ask the service.

The counters live in files that all worker processes share, as prometheus_client's multi-process
mode has it; `bentoml serve` makes the folder and names it in PROMETHEUS_MULTIPROC_DIR. That mode is
chosen when prometheus_client is imported, so it is imported here and only here.
"""

from __future__ import annotations

import math
import os
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import prometheus_client as prometheus
from prometheus_client.multiprocess import MultiProcessCollector

from gitops_ml.features.encode import class_name

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST

# Requests take from a fraction of a millisecond (one row) to a second (thousands).
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
EDGES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0, 100_000.0, 1_000_000.0)

# Every sample is written to a file at every request: none repeats what another one says. The
# histogram's count is the number of requests, the sum of the predictions the number of rows.
_seconds = prometheus.Histogram(
    "service_request_seconds",
    "Time to answer a request.",
    ["endpoint", "status"],
    buckets=SECONDS,
)
_predictions = prometheus.Counter(
    "service_predictions", "Rows by their prediction; numbers by their range.", ["prediction"]
)
_sums = prometheus.Counter(
    "service_probability_sum", "Sum of the predicted probabilities of a class.", ["prediction"]
)
_value_sum = prometheus.Gauge(
    "service_prediction_sum", "Sum of the predicted numbers.", multiprocess_mode="sum"
)
_dropped = prometheus.Counter(
    "service_log_dropped_rows", "Rows that the prediction log lost.", ["reason"]
)


@cache
def _request_timer(endpoint: str, status: int) -> Any:
    return _seconds.labels(endpoint, str(status))


@cache
def _prediction_counter(name: str) -> Any:
    return _predictions.labels(name)


@cache
def _probability_sum(name: str) -> Any:
    return _sums.labels(name)


def request_answered(endpoint: str, status: int, seconds: float) -> None:
    """Count a request. `endpoint` must come from a small fixed set, since each one is kept."""
    _request_timer(endpoint, status).observe(seconds)


def rows_dropped(reason: str, rows: int) -> None:
    """Count rows that the prediction log lost."""
    _dropped.labels(reason).inc(rows)


def classes_predicted(labels: Sequence[Any], probabilities: Mapping[str, float]) -> None:
    """Count the predictions of a classifier.

    Args:
        labels: The class of every row.
        probabilities: For each class, the sum of its probabilities over the rows.
    """
    for label, count in Tally(labels).items():
        _prediction_counter(class_name(label)).inc(count)
    for name, total in probabilities.items():
        _probability_sum(name).inc(total)


def numbers_predicted(values: Sequence[float]) -> None:
    """Count the predictions of a regressor."""
    _value_sum.inc(math.fsum(values))
    for name, count in Tally(map(_range_name, values)).items():
        _prediction_counter(name).inc(count)


def _range_name(value: float) -> str:
    size = abs(value)
    upper = next((edge for edge in EDGES if size < edge), None)
    lower = EDGES[-1] if upper is None else EDGES[EDGES.index(upper) - 1]
    sign = "-" if value < 0 else ""
    far = "inf" if upper is None else f"{upper:g}"
    return f"{sign}{lower:g} to {sign}{far}"


def exposition() -> bytes:
    """All metrics of all worker processes, in Prometheus's text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return prometheus.generate_latest()
    registry = prometheus.CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus.generate_latest(registry)
