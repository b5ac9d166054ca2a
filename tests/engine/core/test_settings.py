from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import Bake

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.metric_catalogue import known_metrics, metric_names
from gitops_ml.core.settings import Contract, Params, load_contract, load_params, parse_settings

PARAMS = """
task: classification
target: late
data: {source: data/landed, key: [id], time: at, as_of: 2024-01-01T00:00:00Z}
split: {method: hash, test_fraction: 0.25}
train: {estimator: sklearn.tree.DecisionTreeClassifier}
evaluate: {metrics: [roc_auc]}
"""
CONTRACT = """
model:
  metrics: {roc_auc: {floor: 0.7, margin: 0.01}}
  size_mb: 10
  latency_p99_ms: 20
data: {rows_min: 10, row_count_change: {min: -0.1, max: 1}}
"""


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_project_s_own_settings_are_sound(generated: Bake, task: str) -> None:
    root = generated(task=task)
    params, contract = load_params(root), load_contract(root)
    assert set(contract.model.metrics) <= metric_names(params.task, known_metrics(root))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: classification", "task: guessing", "task: "),
        ("target: late\n", "", "target: is missing"),
        ("target: late", "targt: late", "targt: is not a known key"),
        ("test_fraction: 0.25", "test_fraction: 25", "split.test_fraction: "),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00", "needs a time zone"),
        ("method: hash", "method: time", "needs `test_from`"),
        ("sklearn.tree.DecisionTreeClassifier", "forest", "train.estimator: "),
        ("[roc_auc]", "[mae]", "mae cannot be measured for classification"),
        ("key: [id]", "key: [late]", "the target `late` cannot be part of the key"),
        ("[roc_auc]", "[]", "evaluate.metrics: "),
    ],
)
def test_a_mistake_in_params_names_file_and_key(old: str, new: str, message: str) -> None:
    assert old in PARAMS
    with pytest.raises(SettingsError, match=r"params\.yaml: ") as caught:
        parse_settings(PARAMS.replace(old, new), Params, "params.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("floor: 0.7", "ceiling: 0.7", "larger is better, so a ceiling makes no sense"),
        ("roc_auc: {floor: 0.7", "mae: {floor: 0.7", "smaller is better, so a floor"),
        ("{floor: 0.7, margin: 0.01}", "{}", "needs at least one of floor, ceiling, margin"),
        ("roc_auc:", "beauty:", "unknown metric"),
        ("margin: 0.01", "margin: -1", "model.metrics.roc_auc.margin"),
        ("size_mb: 10", "size_mb: 0", "model.size_mb"),
        ("rows_min: 10", "rows_min: 0", "data.rows_min"),
        ("min: -0.1", "min: 0.1", "data.row_count_change.min"),
    ],
)
def test_a_mistake_in_the_contract_names_file_and_key(old: str, new: str, message: str) -> None:
    assert old in CONTRACT
    with pytest.raises(SettingsError, match=r"contract\.yaml: ") as caught:
        parse_settings(CONTRACT.replace(old, new), Contract, "contract.yaml")
    assert message in str(caught.value)


def test_all_mistakes_are_reported_together() -> None:
    document = yaml.safe_load(PARAMS) | {"task": "guessing", "extra": 1}
    with pytest.raises(SettingsError) as caught:
        parse_settings(yaml.safe_dump(document), Params, "params.yaml")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not valid YAML"), ("", "found nothing"), ("- a", "found list")],
)
def test_what_is_no_mapping_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(text, Params, "params.yaml")


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"params\.yaml: no such file"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"params\.yaml: cannot be read"):
        load_params(tmp_path)
