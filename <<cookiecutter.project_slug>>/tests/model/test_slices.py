"""Does the model treat every part of the data as it says: calibrated, and without bias?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from << cookiecutter.project_slug >>.model.metrics import (
    Scored,
    calibration_error,
    calibration_error_by_chance,
)
from << cookiecutter.project_slug >>.settings import Contract, Params

pytestmark = pytest.mark.pipeline

# Many slices are looked at, and small ones are off by chance alone: what is broken must be so
# beyond what chance does usually, and beyond what it does once in two hundred times.
SURE = 0.995
DRAWS = 400
STANDARD_ERRORS = 3.0


def slices(params: Params, rows: pl.DataFrame, scored: Scored) -> Iterator[tuple[str, Scored]]:
    """All rows, then the rows of each value of each slice column."""
    yield "all rows", scored
    for column in params.evaluate.slices:
        for (value,), inside in rows.with_row_index("_place").group_by(column, maintain_order=True):
            yield f"{column} = {value}", scored.take(inside.get_column("_place").to_numpy())


def test_probabilities_come_true_on_every_slice(
    params: Params, contract: Contract, test_rows: pl.DataFrame, scored: Scored
) -> None:
    allowed = contract.behaviour.calibration_error_max
    if allowed is None or scored.probability is None:
        pytest.skip("no behaviour.calibration_error_max in contract.yaml, or no probabilities")

    broken = {}
    for name, part in slices(params, test_rows, scored):
        error = calibration_error(part)
        usual, rare = (
            calibration_error_by_chance(part, share, seed=params.train.seed, draws=DRAWS)
            for share in (0.5, SURE)
        )
        if error - usual > allowed and error > rare:
            broken[name] = round(error, 4)

    assert not broken, f"calibration error above {allowed} and beyond chance: {broken}"


def test_errors_cancel_out_on_every_slice(
    params: Params, contract: Contract, test_rows: pl.DataFrame, scored: Scored
) -> None:
    allowed = contract.behaviour.bias_max
    if allowed is None:
        pytest.skip("no behaviour.bias_max in contract.yaml")
    assert params.task == "regression", "contract.yaml: behaviour.bias_max is for regression"

    broken = {}
    for name, part in slices(params, test_rows, scored):
        errors = part.prediction - part.truth
        chance = STANDARD_ERRORS * errors.std() / np.sqrt(len(part))
        if abs(errors.mean()) - (0 if name == "all rows" else chance) > allowed:
            broken[name] = round(float(errors.mean()), 3)

    assert not broken, f"mean error beyond {allowed} and beyond chance: {broken}"
