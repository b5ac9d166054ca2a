"""No feature knows the answer."""

from __future__ import annotations

import polars as pl
import pytest

from << cookiecutter.project_slug >>.data.leakage import SUSPICIOUS_SKILL, skills
from << cookiecutter.project_slug >>.data.schema import Schema
from << cookiecutter.project_slug >>.settings import Params

pytestmark = pytest.mark.pipeline


def test_no_feature_predicts_the_target_by_itself(
    train_rows: pl.DataFrame, schema: Schema, params: Params
) -> None:
    found = skills(train_rows, schema, params)
    assert set(found) == set(schema.features())
    suspects = {name: skill for name, skill in found.items() if skill >= SUSPICIOUS_SKILL}
    assert not suspects, "known before the prediction? Else set `feature: false` in schema.yaml"


def test_the_target_and_the_key_are_no_features(schema: Schema, params: Params) -> None:
    features = schema.features()
    assert params.target not in features
    if len(params.data.key) == 1:
        assert params.data.key[0] not in features
