"""The feature matrix of a whole table; the same numbers as `Features.from_records`, by column."""

from __future__ import annotations

import numpy as np
import polars as pl

from .features import UNSEEN, Features, Matrix


def matrix_of(frame: pl.DataFrame, features: Features) -> Matrix:
    """Encode a table.

    Args:
        frame: n rows with at least the feature columns, in the schema's types.
        features: What to encode, in order.

    Returns:
        Shape (n, number of features).

    Raises:
        polars.exceptions.ColumnNotFoundError: If a feature is not a column of the table.
    """
    matrix = np.empty((frame.height, len(features.items)), dtype=np.float32)
    for place, feature in enumerate(features.items):
        column = frame.get_column(feature.name)
        codes = feature.codes()
        if codes is not None:
            column = column.cast(pl.String).replace_strict(
                list(codes), list(codes.values()), default=UNSEEN, return_dtype=pl.Float64
            )
            column = column.fill_null(UNSEEN)
        # Through float64, as a Python number goes, so that both paths round alike.
        matrix[:, place] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return matrix
