"""A recipe, trained with a few seeds by whoever it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from commands import subcommand

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.matrix import TableError
from gitops_ml.gate import retrain
from gitops_ml.gate.contestant import Contestant
from gitops_ml.gate.retrain import answers_of, let_retrain

main = subcommand("retrain")
DRAWN = "sklearn.ensemble.ExtraTreesClassifier"
NUMBERS = {"categories": "one_hot", "missing": "median"}


@pytest.fixture
def recipe(
    project: Path,
    shop_schema: Schema,
    make_orders: Callable[..., pl.DataFrame],
    make_params: Callable[..., Params],
) -> Callable[..., list[pl.DataFrame]]:
    """Train a recipe with three seeds; what each model answers for 50 rows without the target."""
    columns = shop_schema.model_dump(mode="json", exclude_defaults=True)["columns"]
    (project / paths.SCHEMA).write_text(yaml.safe_dump({"columns": columns}), encoding="utf-8")
    make_orders(200, seed=1).write_parquet("train.parquet")
    make_orders(50, seed=2).drop("returned", "size", "price").write_parquet("rows.parquet")

    def train(estimator: str | None, out: str = "out", **more: object) -> list[pl.DataFrame]:
        params = make_params("returned", estimator, **more)
        document = yaml.safe_dump(params.model_dump(mode="json"))
        (project / paths.PARAMS).write_text(document, encoding="utf-8")
        asked = ("--train", "train.parquet", "--rows", "rows.parquet", "--seeds", "3")
        assert main([*asked, "--out", out]) == 0
        return [pl.read_parquet(answers_of(Path(out), seed)) for seed in (1, 2, 3)]

    return train


def test_each_seed_gives_a_model_whatever_the_recipe_s_own_seed_is(
    recipe: Callable[..., list[pl.DataFrame]],
) -> None:
    tables = recipe(DRAWN, hyperparameters={"n_estimators": 3}, preprocessing=NUMBERS)
    assert tables[0].columns == ["prediction", "probability_false", "probability_true"]
    assert [len(one) for one in tables] == [50, 50, 50]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not tables[one].equals(tables[other])
    again = recipe(DRAWN, "again", hyperparameters={"n_estimators": 3}, preprocessing=NUMBERS,
                   seed=99)  # fmt: skip
    assert all(one.equals(other) for one, other in zip(tables, again, strict=True))
    assert not paths.MODELS.exists()


def test_where_nothing_is_drawn_no_third_model_is_trained(
    recipe: Callable[..., list[pl.DataFrame]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, train = [], retrain.train

    def count(*arguments: object) -> object:
        trained.append(arguments)
        return train(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retrain, "train", count)
    tables = recipe("sklearn.linear_model.LogisticRegression", preprocessing=NUMBERS)
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert len(trained) == 2


class Saying(Contestant):
    """A contestant that answers what it is told to."""

    def __init__(self, scratch: Path, rows: list[int]) -> None:
        super().__init__(scratch, scratch)
        self.rows = rows

    def ask(self, *words: str | Path) -> None:
        """Write as many answers as told for each seed."""
        out = Path(words[words.index("--out") + 1])
        out.mkdir()
        for seed, rows in enumerate(self.rows, start=1):
            pl.DataFrame({"prediction": [0.0] * rows}).write_parquet(answers_of(out, seed))


def test_answers_for_other_rows_or_too_few_seeds_are_refused(tmp_path: Path) -> None:
    rows = Path("rows.parquet")
    for place, (given, message) in enumerate(
        [([3, 2], "trained with seed 2, it gave 2 answers for 3 rows"), ([3], "answers-2.parquet")]
    ):
        scratch = tmp_path / str(place)
        scratch.mkdir()
        with pytest.raises(TableError, match=message):
            let_retrain(Saying(scratch, given), rows, rows, seeds=2, answers=3)
