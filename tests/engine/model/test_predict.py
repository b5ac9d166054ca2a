from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import subcommand

from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.matrix import TableError
from gitops_ml.model.predict import scored_rows
from gitops_ml.model.predictor import Predictions, load_predictor
from gitops_ml.model.train import train, write

main = subcommand("predict")

Orders = Callable[..., pl.DataFrame]
Train = Callable[..., Path]


@pytest.fixture
def trained(
    tmp_path: Path,
    shop_schema: Schema,
    make_orders: Orders,
    make_params: Callable[..., Params],
    monkeypatch: pytest.MonkeyPatch,
) -> Train:
    """Train for a target in the working folder, with rows to score beside the model."""
    monkeypatch.chdir(tmp_path)

    def run(target: str, estimator: str | None = None) -> Path:
        preprocessing = {"categories": "one_hot", "missing": "median"}
        params = make_params(target, estimator, preprocessing=preprocessing)
        write(train(make_orders(200), params, shop_schema), params, Path("models"))
        make_orders(50, seed=9).write_parquet("rows.parquet")
        return tmp_path

    return run


def test_a_classifier_scores_rows_in_their_order(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("returned")

    assert main(["--rows", "rows.parquet", "--out", "new/scores.parquet"]) == 0

    assert "Scored 50 rows into new/scores.parquet" in capsys.readouterr().out
    scores = pl.read_parquet("new/scores.parquet")
    assert scores.columns == ["prediction", "probability_false", "probability_true"]
    assert scores.schema["prediction"] == pl.Boolean
    late = scores.get_column("probability_true")
    assert (scores.get_column("prediction") == (late > 0.5)).all()
    rows = pl.read_parquet("rows.parquet")
    predictor = load_predictor(Path("models"))
    records = rows.select(predictor.features.names).to_dicts()
    answers = predictor.predict(predictor.features.from_records(records))
    assert answers.labels == scores.get_column("prediction").to_list()
    assert np.array_equal(np.asarray(answers.probabilities)[:, 1], late.to_numpy())


@pytest.mark.parametrize(
    ("target", "estimator", "columns"),
    [
        ("price", None, ["prediction"]),
        ("returned", "sklearn.svm.LinearSVC", ["prediction"]),
        (
            "size",
            "sklearn.naive_bayes.GaussianNB",
            ["prediction", "probability_large", "probability_medium", "probability_small"],
        ),
        (
            "stars",
            "sklearn.naive_bayes.GaussianNB",
            ["prediction", "probability_3", "probability_4", "probability_5"],
        ),
    ],
)
def test_the_columns_follow_from_the_model(
    trained: Train, target: str, estimator: str | None, columns: list[str]
) -> None:
    trained(target, estimator)

    assert main(["--rows", "rows.parquet", "--out", "scores.parquet"]) == 0

    scores = pl.read_parquet("scores.parquet")
    assert scores.columns == columns
    truth = pl.read_parquet("rows.parquet").get_column(target)
    assert scores.get_column("prediction").to_list()[0].__class__ is truth[0].__class__


def test_mistakes_name_the_file_and_the_column(
    trained: Train, make_orders: Orders, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("returned")

    def complaint(frame: pl.DataFrame | None, *arguments: str) -> str:
        if frame is not None:
            frame.write_parquet("bad.parquet")
        assert main(["--rows", "bad.parquet", "--out", "out.parquet", *arguments]) == 1
        assert not Path("out.parquet").exists()
        return capsys.readouterr().err.strip()

    orders = make_orders(5)
    assert complaint(None) == "bad.parquet: no such file; run `make pipeline` to make it"
    assert complaint(orders.drop("weight", "colour")) == (
        "bad.parquet: has no column weight, colour"
    )
    assert complaint(orders.clear()) == "bad.parquet: has no rows"
    wrong = orders.with_columns(weight=pl.lit("x"), colour=1)
    assert complaint(wrong).splitlines() == [
        "bad.parquet: column `weight`: holds String, but the model takes number",
        "bad.parquet: column `colour`: holds Int32, but the model takes category",
    ]
    assert "nowhere/manifest.json: no such file" in complaint(orders, "--models", "nowhere")
    with Path("models/model.onnx").open("ab") as model:
        model.write(b"tampered")
    assert "is not the model that manifest.json records" in complaint(orders)


def test_an_answer_that_cannot_be_written_is_told(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("price")
    Path("taken").touch()

    assert main(["--rows", "rows.parquet", "--out", "taken/scores.parquet"]) == 1

    assert "taken/scores.parquet: cannot be written" in capsys.readouterr().err


def test_answers_are_put_beside_what_happened() -> None:
    answers = Predictions(["b", "a"], np.array([[0.25, 0.75], [1, 0]], dtype=np.float32))

    scored = scored_rows(pl.Series("t", ["a", "a"]), answers, ["a", "b"])

    assert scored.truth.tolist() == [0, 0]
    assert scored.prediction.tolist() == [1, 0]
    assert scored.probability is not None
    assert scored.probability.dtype == np.float64
    assert scored.classes == 2
    with pytest.raises(TableError, match="classes that were not in the training data: z"):
        scored_rows(pl.Series("t", ["a", "z"]), answers, ["a", "b"])
