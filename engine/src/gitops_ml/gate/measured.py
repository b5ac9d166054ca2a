"""What is measured of a change for the limits of its contract, by the names of their terms.

A limit is a field of the contract with a `Quantity`; each needs its number here.
"""

from __future__ import annotations

from collections.abc import Mapping


def measure(
    size: int, latency_p99_ms: float, rows: int, base_rows: int | None = None
) -> Mapping[str, float | None]:
    """What a change has of everything that has a limit.

    Args:
        size: Bytes of the served model.
        latency_p99_ms: Milliseconds that all but one in a hundred single rows stay below.
        rows: Of the data.
        base_rows: Of the base's data; None if there is nothing to compare with.

    Returns:
        For each term its number, in the unit of its quantity; None where there is none.
    """
    return {
        "model.size_mb": size / 1e6,
        "model.latency_p99_ms": latency_p99_ms,
        "data.row_count_change": 100 * (rows / base_rows - 1) if base_rows else None,
        "data.rows_min": rows,
    }
