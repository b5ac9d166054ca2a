from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.metric_catalogue import (
    BUILT_IN,
    MetricDeclarationError,
    MetricKind,
    declared_metrics,
    known_metrics,
    metric_names,
)
from gitops_ml.core.settings import Contract, Params, parse_settings

COST = '@metric(better="smaller", of="probability")\ndef cost(t, p, w):\n    ...\n'
CONTRACT = """
model:
  metrics: {cost: {ceiling: 0.7}}
  size_mb: 10
  latency_p99_ms: 20
data: {}
"""


def test_marks_are_read_without_running_the_code() -> None:
    text = "import nothing_like_this\n" + COST + "@gm.metric(better='larger', task='regression')\n"
    text += "def fit(t, p, w): ...\ndef helper(): ...\n"
    assert declared_metrics(text, "metrics.py") == {
        "cost": MetricKind("smaller", "probability"),
        "fit": MetricKind("larger", "prediction", "regression"),
    }


def test_a_metric_suits_the_task_that_has_what_it_is_measured_on() -> None:
    known = {**BUILT_IN, **declared_metrics(COST, "metrics.py")}
    assert "cost" in metric_names("classification", known)
    assert "cost" not in metric_names("regression", known)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("@metric", r"m\.py:1: `cost`: @metric: say which value is better"),
        ("@metric()", "say which value is better"),
        ('@metric("smaller")', "name each argument"),
        ('@metric(better="less")', 'better must be "larger" or "smaller", written as plain text'),
        ("@metric(better=BETTER)", "written as plain text"),
        (
            '@metric(better="smaller", off="prediction")',
            "off is unknown; it takes better, of, task",
        ),
        (
            '@metric(better="smaller", of="probability", task="regression")',
            "probabilities for classification only",
        ),
    ],
)
def test_a_wrong_mark_names_file_line_and_function(mark: str, message: str) -> None:
    with pytest.raises(MetricDeclarationError, match=message):
        declared_metrics(f"{mark}\ndef cost(t, p, w): ...\n", "m.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COST.replace("cost", "roc_auc"), "`roc_auc`: is a built-in metric; choose another name"),
        (COST + COST, "`cost`: is defined twice"),
        ("def outer():\n  @metric(better='larger')\n  def cost(t, p, w): ...\n", "of the module"),
        ("def cost(:\n", r"m\.py:1: is not valid Python: invalid syntax$"),
        (
            COST.replace("def cost", "async def cost"),
            "`cost`: must be a plain function, not an asy",
        ),
    ],
)
def test_a_metric_that_cannot_be_found_again_is_refused(text: str, message: str) -> None:
    with pytest.raises(MetricDeclarationError, match=message):
        declared_metrics(text, "m.py")


def test_settings_may_name_own_metrics_with_the_right_bound(project: Path) -> None:
    package = project / "src" / "flight_delays"
    package.mkdir(parents=True)
    assert known_metrics() == BUILT_IN
    (package / "metrics.py").write_text(COST, encoding="utf-8")
    known = known_metrics()

    assert parse_settings(CONTRACT, Contract, "c", known).model.metrics["cost"].ceiling == 0.7
    with pytest.raises(SettingsError, match="smaller is better, so a floor makes no sense"):
        parse_settings(CONTRACT.replace("ceiling", "floor"), Contract, "c", known)
    with pytest.raises(SettingsError, match=r"unknown metric; choose from accuracy, .*cost"):
        parse_settings(CONTRACT.replace("cost", "coast"), Contract, "c", known)


def test_own_metrics_must_suit_the_task() -> None:
    known = {**BUILT_IN, **declared_metrics(COST, "metrics.py")}
    params = (
        "task: regression\ntarget: t\ndata: {source: d}\ntrain: {estimator: a.B}\n"
        "evaluate: {metrics: [mae, cost]}\n"
    )
    with pytest.raises(SettingsError, match="cost cannot be measured for regression; choose from"):
        parse_settings(params, Params, "params.yaml", known)
    with pytest.raises(SettingsError, match=r"no metric cots: .* or mark a function of this name"):
        parse_settings(params.replace("cost", "cots"), Params, "params.yaml", known)
