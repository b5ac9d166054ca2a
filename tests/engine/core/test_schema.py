from __future__ import annotations

from typing import Any

import pytest

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Schema, check_against_params, check_behaviour
from gitops_ml.core.settings import Contract, Params, parse_settings

COLUMNS = """
columns:
  id: {type: integer, feature: false}
  at: {type: datetime, feature: false}
  size: {type: number, nullable: true, min: 0, max: 9}
  city: {type: category, categories: [Oslo, Bergen]}
  late: {type: boolean, feature: false}
  delay: {type: number, feature: false}
"""


def make_params(**changes: Any) -> Params:
    document: dict[str, Any] = {
        "task": "classification",
        "target": "late",
        "data": {"source": "data", "key": ["id"], "time": "at"},
        "train": {"estimator": "sklearn.tree.DecisionTreeClassifier"},
        "evaluate": {"metrics": ["accuracy"], "slices": ["city"]},
    }
    return Params.model_validate(document | changes)


def parse(text: str) -> Schema:
    return parse_settings(text, Schema, "schema.yaml")


def test_features_keep_their_order() -> None:
    schema = parse(COLUMNS)
    assert list(schema.features()) == ["size", "city"]
    check_against_params(schema, make_params())


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("{type: text}", "columns.x.type"),
        ("{type: boolean, min: 0}", "min and max are for integer and number"),
        ("{type: number, min: 2, max: 1}", "min 2 is larger than max 1"),
        ("{type: category}", "needs `categories`"),
        ("{type: category, categories: [a, b, a]}", "a value is listed twice"),
        ("{type: integer, categories: [a]}", "categories and unseen are for category"),
        ("{type: number, unseen: missing}", "categories and unseen are for category"),
        ("{type: number, all_null: allowed}", "needs `nullable: true`"),
        ("{type: string}", "a string cannot be a feature"),
        ("{type: datetime}", "a datetime cannot be a feature"),
        ("{type: number, colour: red}", "columns.x.colour: is not a known key"),
    ],
)
def test_a_broken_column_is_named(column: str, message: str) -> None:
    with pytest.raises(SettingsError, match=r"schema\.yaml: columns\.x") as caught:
        parse(f"columns:\n  x: {column}\n")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {}", "columns"),
        ("columns: {source_file: {type: string, feature: false}}", "the pipeline adds this column"),
        (COLUMNS + "rules: [{name: a, check: x}, {name: a, check: y}]", "the same name"),
        (COLUMNS + "rules: [{name: Not a name, check: x}]", "rules.0.name"),
        (COLUMNS + "rules: [{name: a}]", "rules.0.check: is missing"),
    ],
)
def test_a_broken_schema_is_explained(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "nothing"}, "target: schema.yaml has no column `nothing`"),
        ({"data": {"source": "data", "key": ["no"]}}, "data.key: schema.yaml has no column `no`"),
        ({"data": {"source": "data", "time": "no"}}, "data.time: schema.yaml has no column `no`"),
        ({"data": {"source": "data", "time": "size"}}, "data.time must be a datetime"),
        ({"split": {"columns": ["no"]}}, "split.columns: schema.yaml has no column `no`"),
        (
            {"evaluate": {"metrics": ["accuracy"], "slices": ["no"]}},
            "evaluate.slices: `no` is no column of schema.yaml and no derived column",
        ),
        ({"evaluate": {"metrics": ["accuracy"], "slices": ["size"]}}, "no category or boolean"),
        ({"target": "city"}, "the target cannot be a feature"),
        ({"target": "delay"}, "classification needs a boolean, category or integer"),
        (
            {"task": "regression", "evaluate": {"metrics": ["mae"]}},
            "regression needs an integer or a number",
        ),
    ],
)
def test_params_that_speak_of_other_columns_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_against_params(parse(COLUMNS), make_params(**changes))
    assert message in str(caught.value)


def test_a_schema_needs_a_feature_and_a_target_that_is_always_there() -> None:
    bare = parse("columns: {late: {type: boolean, feature: false, nullable: true}}")
    params = make_params(data={"source": "data"}, evaluate={"metrics": ["accuracy"]})
    with pytest.raises(SettingsError) as caught:
        check_against_params(bare, params)
    assert "the target cannot be nullable" in str(caught.value)
    assert "no column has `feature: true`" in str(caught.value)


def behaviour(**terms: Any) -> Contract:
    model = {"metrics": {"accuracy": {"floor": 0.5}}, "size_mb": 1, "latency_p99_ms": 1}
    return Contract.model_validate({"model": model, "data": {}, "behaviour": terms})


def test_terms_of_behaviour_are_about_what_the_model_sees() -> None:
    seen = {name: parse(COLUMNS).columns[name] for name in ("size", "city", "at")}
    held = [("size", 3), ("city", "Oslo"), ("at", "2013-07-01T12:00:00Z")]
    terms = [{"column": name, "set": value, "expect": "increase"} for name, value in held]
    check_behaviour(behaviour(directional=terms, invariant=["city"]), seen)

    unseen = {"column": "delay", "set": 1, "expect": "increase"}
    with pytest.raises(SettingsError) as caught:
        check_behaviour(behaviour(directional=[unseen], invariant=["id"]), seen)

    first, second = str(caught.value).splitlines()
    assert first.startswith("contract.yaml: behaviour.invariant: id: the model never sees such a")
    assert second.startswith("contract.yaml: behaviour.directional: delay: the model never sees")
    assert second.endswith("choose from size, city, at")


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("size", "large", "a number"),
        ("size", True, "a number"),
        ("size", 10, "between 0 and 9"),
        ("id", 1.5, "a whole number"),
        ("city", "Paris", "one of Oslo, Bergen"),
        ("city", 1, "a text"),
        ("late", "yes", "true or false"),
        ("at", "2013-07-01", "a moment with its zone"),
        ("at", "noon", "a moment with its zone"),
    ],
)
def test_a_direction_sets_a_column_to_what_it_can_hold(
    column: str, value: Any, wanted: str
) -> None:
    term = {"column": column, "set": value, "expect": "increase"}
    with pytest.raises(SettingsError, match=f"directional: {column}: set: must be {wanted}"):
        check_behaviour(behaviour(directional=[term]), parse(COLUMNS).columns)
