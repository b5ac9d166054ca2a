"""The target column as the model sees it: places in a list of classes, or numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.features.matrix import TableError

Class = str | int | bool


def classes_of(target: pl.Series) -> tuple[Class, ...]:
    """The classes that a target column holds, sorted.

    Raises:
        TableError: If there are fewer than two.
    """
    classes = tuple(target.drop_nulls().unique().sort().to_list())
    if target.dtype in (pl.Categorical, pl.Enum):
        classes = tuple(sorted(str(value) for value in classes))
    if len(classes) < 2:
        held = f"only {classes[0]!r}" if classes else "no value"
        raise TableError(
            f"column `{target.name}`: holds {held} in {len(target)} training rows; "
            "a classifier needs two classes or more"
        )
    return classes


def target_values(
    target: pl.Series, classes: Sequence[Class] | None
) -> NDArray[np.int64] | NDArray[np.float64]:
    """What a model is fitted on and measured against.

    Args:
        target: n values.
        classes: The classes that a classifier knows; None for regression.

    Returns:
        Shape (n,): places in `classes`, or the numbers themselves.

    Raises:
        TableError: If a value is missing or is none of the classes.
    """
    if target.null_count():
        raise TableError(f"column `{target.name}`: {target.null_count()} rows have no value")
    if classes is None:
        return target.cast(pl.Float64).to_numpy()
    place = {value: index for index, value in enumerate(classes)}
    values = target.to_list()
    unknown = sorted({str(value) for value in values if value not in place})
    if unknown:
        count = sum(value not in place for value in values)
        raise TableError(
            f"column `{target.name}`: {count} rows hold classes that were not in the training "
            f"data: {', '.join(unknown)}; collect more rows of them or drop them from the data"
        )
    return np.array([place[value] for value in values], dtype=np.int64)
