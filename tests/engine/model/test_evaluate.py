from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from commands import subcommand
from PIL import Image
from projects import make_project
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.model.evaluate import EvaluateError, evaluate, golden
from gitops_ml.model.plots import draw_plots, importance
from gitops_ml.model.predict import score_target
from gitops_ml.model.predictor import Predictor, load_predictor
from gitops_ml.model.train import train, write

main = subcommand("evaluate")

Orders = Callable[..., pl.DataFrame]
MakeParams = Callable[..., Params]
Load = Callable[[Params], Predictor]


@pytest.fixture
def load(tmp_path: Path, shop_schema: Schema, make_orders: Orders) -> Load:
    """Train for some params and load the model as the service does."""

    def run(params: Params) -> Predictor:
        write(train(make_orders(400), params, shop_schema), params, tmp_path / "models")
        return load_predictor(tmp_path / "models")

    return run


def test_metrics_are_those_of_the_served_answers(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    params, rows = make_params("returned"), make_orders(300, seed=2)
    predictor = load(params)
    target = make_orders(400).get_column("returned")

    report = evaluate(rows, target, predictor, params)

    scored = score_target(rows, predictor)
    assert scored.probability is not None
    expected = roc_auc_score(scored.truth, scored.probability[:, 1])
    assert report["metrics"]["roc_auc"]["value"] == pytest.approx(expected, rel=1e-5)
    assert report["metrics"]["roc_auc"]["low"] < expected < report["metrics"]["roc_auc"]["high"]
    assert report["metrics"]["roc_auc"]["value"] > 0.9
    share = target.mean()
    assert isinstance(share, float)
    prior = log_loss(scored.truth, np.tile([1 - share, share], (300, 1)))
    assert report["baseline"] == {"roc_auc": 0.5, "log_loss": pytest.approx(prior, rel=1e-5)}
    assert (report["rows"], report["confidence"], report["resamples"]) == (300, 0.95, 100)


def test_rows_that_the_split_keeps_together_are_resampled_together(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    alone = make_params("price")
    split = alone.split.model_copy(update={"columns": ("order",)})
    together = alone.model_copy(update={"split": split})
    rows = make_orders(100, seed=2)
    copies = rows.select(pl.all().repeat_by(9)).explode(pl.all())
    # Equal rows would be copies to any split.
    copies = copies.with_columns(pl.col("weight") + 1e-6 * pl.int_range(pl.len()))
    predictor, target = load(alone), make_orders(400).get_column("price")

    def widths(frame: pl.DataFrame, params: Params) -> list[float]:
        report = evaluate(frame, target, predictor, params)
        found = [report["metrics"], *(one["metrics"] for one in report["slices"])]
        return [one["mae"]["high"] - one["mae"]["low"] for one in found]

    assert widths(copies, together) == pytest.approx(widths(rows, alone), rel=0.6)
    for narrow, wide in zip(widths(copies, alone), widths(copies, together), strict=True):
        assert narrow < wide / 2


def test_every_value_of_a_slice_column_is_measured_on_its_own_rows(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    params, rows = make_params("price"), make_orders(300, seed=2)
    predictor = load(params)

    report = evaluate(rows, make_orders(400).get_column("price"), predictor, params)

    found = [(one["column"], one["value"]) for one in report["slices"]]
    assert found == [
        ("colour", "blue"),
        ("colour", "green"),
        ("colour", "red"),
        ("member", False),
        ("member", True),
        ("member", None),
    ]
    assert sum(one["rows"] for one in report["slices"]) == 2 * 300
    scored = score_target(rows, predictor)
    red = (rows.get_column("colour") == "red").to_numpy()
    expected = mean_absolute_error(scored.truth[red], scored.prediction[red])
    assert report["slices"][2]["rows"] == red.sum()
    assert report["slices"][2]["metrics"]["mae"]["value"] == pytest.approx(expected, rel=1e-5)
    nobody = rows.get_column("member").is_null().sum()
    assert report["slices"][5]["rows"] == nobody > 0


def test_a_slice_of_one_class_is_null_with_a_reason(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    params = make_params("returned")
    rows = make_orders(300, seed=2).filter((pl.col("colour") != "red") | pl.col("returned"))

    report = evaluate(rows, make_orders(400).get_column("returned"), load(params), params)

    red = report["slices"][2]
    assert red["metrics"]["roc_auc"]["value"] is None
    assert "1 of 2 classes" in red["metrics"]["roc_auc"]["reason"]
    assert red["metrics"]["log_loss"]["value"] is not None


def test_a_test_set_of_one_class_stops_the_evaluation(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    params = make_params("returned")
    rows = make_orders(300, seed=2).filter(pl.col("returned"))
    message = r"test\.parquet: roc_auc is undefined on the test set: 1 of 2 classes in 90 rows"

    with pytest.raises(EvaluateError, match=message):
        evaluate(rows, rows.get_column("returned"), load(params), params)


def test_metrics_of_probabilities_are_refused_for_a_model_without_them(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    params = make_params(
        "returned", "sklearn.svm.LinearSVC", preprocessing={"missing": "median", "scale": True}
    )
    rows, target = make_orders(100, seed=2), make_orders(400).get_column("returned")
    predictor = load(params)

    with pytest.raises(
        EvaluateError, match=r"params\.yaml: evaluate\.metrics: roc_auc needs probabilities"
    ):
        evaluate(rows, target, predictor, params)

    settings = params.evaluate.model_copy(update={"metrics": ("accuracy", "f1_macro")})
    report = evaluate(rows, target, predictor, params.model_copy(update={"evaluate": settings}))
    assert report["metrics"]["accuracy"]["value"] > 0.8


def test_golden_records_are_requests_with_their_answers(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    rows = make_orders(300, seed=2)
    predictor = load(make_params("size"))

    found = golden(rows, predictor)

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["records"]) == len(found["predictions"]) == 20
    assert list(found["records"][0]) == ["weight", "items", "member", "colour"]
    assert any(None in record.values() for record in found["records"])
    again = predictor.predict(predictor.features.from_records(found["records"]))
    assert again.labels == [one["prediction"] for one in found["predictions"]]
    first = found["predictions"][0]["probabilities"]
    assert set(first) == {"large", "medium", "small"}
    assert sum(first.values()) == pytest.approx(1, abs=1e-5)
    assert np.asarray(again.probabilities)[0].tolist() == list(first.values())
    last = {name: rows[-1][name][0] for name in predictor.features.names}
    assert found["records"][-1] == last


def test_golden_numbers_have_no_probabilities(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    found = golden(make_orders(3, seed=2), load(make_params("price")))

    assert [list(one) for one in found["predictions"]] == [["prediction"]] * 3


def test_importance_ranks_what_the_target_is_made_of(
    load: Load, make_orders: Orders, make_params: MakeParams
) -> None:
    rows = make_orders(300, seed=2).with_columns(items=3)
    predictor = load(make_params("price"))

    ranked = importance(rows, score_target(rows, predictor), predictor, "mae")

    assert ranked[0].feature == "weight"
    assert ranked[-1].feature == "items"
    assert ranked[-1].mean == 0
    assert ranked[0].mean > 1


CURVES = {
    "returned": ["calibration", "precision_recall", "roc"],
    "size": ["calibration", "precision_recall", "roc"],
    "price": ["predicted_observed", "residuals"],
}


@pytest.mark.parametrize("target", CURVES)
def test_plots_are_readable_data_and_pictures_and_repeat(
    load: Load, make_orders: Orders, make_params: MakeParams, tmp_path: Path, target: str
) -> None:
    params, rows = make_params(target), make_orders(300, seed=2)
    predictor = load(params)
    scored = score_target(rows, predictor)
    folder = tmp_path / "plots"
    (folder / "curves").mkdir(parents=True)
    (folder / "curves" / "old.csv").touch()

    written = []
    for _ in range(2):
        draw_plots(rows, scored, predictor, params, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        written.append({str(path.relative_to(folder)): path.read_bytes() for path in files})

    assert written[0] == written[1]
    assert list(written[0]) == [
        *(f"curves/{name}.csv" for name in CURVES[target]),
        *(f"images/{name}.png" for name in sorted([*CURVES[target], "importance"])),
        "importance.csv",
    ]
    for name in CURVES[target]:
        table = pl.read_csv(folder / "curves" / f"{name}.csv")
        assert table.columns == ["figure", "series", "x", "y"]
        assert table.select("x", "y").null_count().sum_horizontal().item() == 0
        assert table.get_column("series").n_unique() == (3 if target == "size" else 1)
    assert set(pl.read_csv(folder / "importance.csv").get_column("feature")) == set(
        predictor.features.names
    )
    for path in (folder / "images").iterdir():
        with Image.open(path) as picture:
            assert picture.size == (768, 576)


def test_the_roc_curve_is_that_of_the_answers(
    load: Load, make_orders: Orders, make_params: MakeParams, tmp_path: Path
) -> None:
    params, rows = make_params("returned"), make_orders(2000, seed=2)
    predictor = load(params)
    scored = score_target(rows, predictor)

    draw_plots(rows, scored, predictor, params, tmp_path / "plots")

    curve = pl.read_csv(tmp_path / "plots/curves/roc.csv")
    area = np.trapezoid(curve.get_column("y"), curve.get_column("x"))
    assert scored.probability is not None
    assert area == pytest.approx(roc_auc_score(scored.truth, scored.probability[:, 1]), abs=0.01)
    calibration = pl.read_csv(tmp_path / "plots/curves/calibration.csv")
    assert calibration.height == 10
    assert calibration.get_column("y").mean() == pytest.approx(scored.truth.mean(), abs=0.01)


def test_a_model_without_probabilities_still_has_a_figure(
    load: Load, make_orders: Orders, make_params: MakeParams, tmp_path: Path
) -> None:
    params = make_params(
        "size", "sklearn.svm.LinearSVC", preprocessing={"missing": "median", "scale": True}
    )
    settings = params.evaluate.model_copy(update={"metrics": ("accuracy",)})
    params = params.model_copy(update={"evaluate": settings})
    predictor, rows = load(params), make_orders(100, seed=2)

    draw_plots(rows, score_target(rows, predictor), predictor, params, tmp_path / "plots")

    assert {path.name for path in (tmp_path / "plots/images").iterdir()} == {
        "importance.png",
        "recall.png",
    }


@pytest.fixture
def project(
    tmp_path: Path,
    load: Load,
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with what the stage reads."""
    monkeypatch.chdir(tmp_path)
    params = make_params("returned")
    load(params)
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")), encoding="utf-8")
    schema = shop_schema.model_dump(mode="json", exclude_defaults=True)
    Path("schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    Path("data/split").mkdir(parents=True)
    make_project(tmp_path)
    make_orders(400).write_parquet("data/split/train.parquet")
    make_orders(200, seed=2).write_parquet("data/split/test.parquet")
    return tmp_path


def test_the_stage_writes_its_reports(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0

    reports = project / "reports"
    metrics = json.loads((reports / "metrics.json").read_text(encoding="utf-8"))
    evaluation = json.loads((reports / "evaluation.json").read_text(encoding="utf-8"))
    assert metrics == {name: one["value"] for name, one in evaluation["metrics"].items()}
    assert list(metrics) == ["roc_auc", "log_loss"]
    assert len(json.loads((reports / "golden.json").read_text(encoding="utf-8"))["records"]) == 20
    assert (reports / "plots/images/roc.png").is_file()
    printed = capsys.readouterr().out
    assert "Measured on 200 test rows, 95% intervals:" in printed
    assert f"{metrics['roc_auc']:.4g}" in printed
    first = {path: path.read_bytes() for path in reports.rglob("*") if path.is_file()}
    assert main() == 0
    assert first == {path: path.read_bytes() for path in reports.rglob("*") if path.is_file()}


FALSE_ALARMS = """
from gitops_ml.model import metric

@metric(better="smaller")
def false_alarms(truth, prediction, weights):
    warned = prediction == 1
    return weights @ (warned & (truth == 0)) / (weights @ warned)
"""


def test_a_metric_need_not_be_defined_for_the_model_that_ignores_the_features(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = project / "src" / "flight_delays"
    package.mkdir(parents=True)
    (package / "metrics.py").write_text(FALSE_ALARMS, encoding="utf-8")
    params = (project / "params.yaml").read_text(encoding="utf-8")
    assert "- log_loss\n" in params
    (project / "params.yaml").write_text(
        params.replace("- log_loss\n", "- log_loss\n  - false_alarms\n"), encoding="utf-8"
    )

    assert main() == 0, capsys.readouterr().err  # a model that never warns has no false alarms

    evaluation = json.loads((project / "reports/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["baseline"]["false_alarms"] is None
    assert 0 <= evaluation["metrics"]["false_alarms"]["value"] < 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "false_alarms" in one]
    assert line.endswith("baseline undefined")


def test_the_stage_tells_mistakes_without_a_traceback(
    project: Path, make_orders: Orders, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint() -> str:
        assert main() == 1
        return capsys.readouterr().err

    test = project / "data/split/test.parquet"
    make_orders(5).clear().write_parquet(test)
    assert "test.parquet: has no rows" in complaint()
    make_orders(50).drop("weight", "colour").write_parquet(test)
    assert "test.parquet: has no column weight, colour" in complaint()
    make_orders(50).with_columns(returned=True).write_parquet(test)
    assert "roc_auc is undefined on the test set" in complaint()

    params = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(
        params.replace("target: returned", "target: size"), encoding="utf-8"
    )
    assert "models/manifest.json: the model was trained with another target than" in complaint()
    (project / "models/manifest.json").unlink()
    assert "models/manifest.json: no such file" in complaint()
