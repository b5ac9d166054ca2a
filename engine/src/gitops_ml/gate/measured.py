"""What is measured of a change for the limits of its contract, by the names of their terms.

A limit is a field of the contract with a `Quantity`; each needs its number here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gitops_ml.gate.challenger import Challenger, latency_p99_ms

_LATENCY_RECORDS = 100


def measure(
    challenger: Challenger, rows: int, base_rows: int | None = None
) -> Mapping[str, float | None]:
    """Measure what has a limit.

    Args:
        challenger: The model.
        rows: Of the data.
        base_rows: Of the base's data; None if there is nothing to compare with.

    Returns:
        For each term its number, in the unit of its quantity; None where there is none.
    """
    inputs = list(challenger.predictor.features.inputs)
    records = challenger.test.select(inputs).head(_LATENCY_RECORDS).to_dicts()
    return {
        "model.size_mb": challenger.size / 1e6,
        "model.latency_p99_ms": latency_p99_ms(challenger.predictor, records),
        "data.row_count_change": 100 * (rows / base_rows - 1) if base_rows else None,
        "data.rows_min": rows,
    }
