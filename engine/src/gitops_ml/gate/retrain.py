"""Train the recipe of this project with a few seeds, and answer for the gate with each model.

    gitops-ml retrain --train train.parquet --rows rows.parquet --seeds 3 --out FOLDER

What the judge asks of champion and challenger where `model.seeds` of the contract says so, in a
process of each one's own environment. The seeds are the judge's, 1 and up, the same for both sides,
whatever `params.yaml` says. In the folder are afterwards `answers-<seed>.parquet`, each as
`gitops-ml predict` writes it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import polars as pl

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import SEEDS_MAX, load_params
from gitops_ml.features.derive import load_derivation
from gitops_ml.features.encode import Features
from gitops_ml.features.matrix import TableError, read_table
from gitops_ml.gate.contestant import Contestant
from gitops_ml.model.predict import as_table, predict
from gitops_ml.model.predictor import predictor_of, read_verified
from gitops_ml.model.train import train, write


def answers_of(folder: Path, seed: int) -> Path:
    """The file with what the model of a seed answers."""
    return folder / f"answers-{seed}.parquet"


def write_retrained(train_rows: Path, rows: Path, seeds: int, out: Path, root: Path) -> None:
    """Train with one seed after the other, and answer for the rows of a parquet file.

    Args:
        train_rows: What to train on, with the target.
        rows: What to answer for.
        seeds: How many models to train.
        out: Where the answers go.
        root: The project's folder.

    Raises:
        GitopsError: If the recipe cannot be trained, or does not take these rows.
    """
    params, schema = load_params(root), load_schema(root)
    derivation = load_derivation(root, schema, params.target)
    inputs = Features.from_schema(schema, derivation).inputs
    frame = read_table(train_rows, [*inputs, params.target])
    asked = read_table(rows, inputs)
    out.mkdir(parents=True, exist_ok=True)
    tables: list[pl.DataFrame] = []
    for seed in range(1, seeds + 1):
        # Where nothing in the recipe is drawn, all models are the first one again.
        if len(tables) < 2 or not tables[0].equals(tables[1]):
            settings = params.train.model_copy(update={"seed": seed})
            recipe = params.model_copy(update={"train": settings})
            with tempfile.TemporaryDirectory(prefix="retrained-") as folder:
                trained = train(frame, recipe, schema, derivation)
                manifest = write(trained, recipe, Path(folder))
                served = read_verified(Path(folder), manifest)
            predictor = predictor_of(served, manifest, trained.features)
            tables.append(as_table(predict(predictor, asked), manifest))
        tables[-1].write_parquet(answers_of(out, seed))


def let_retrain(
    contestant: Contestant, train_rows: Path, rows: Path, seeds: int, answers: int
) -> list[pl.DataFrame]:
    """Let a contestant train its recipe with some seeds, and answer with each model.

    Args:
        contestant: Who.
        train_rows: The file that it trains on.
        rows: The file that it answers for.
        seeds: How many models it trains.
        answers: How many rows it is asked for.

    Returns:
        The answers of each model, as `gitops-ml predict` writes them.

    Raises:
        CannotScoreError: If it does not train or answer.
        TableError: If its answers are not what was asked for.
    """
    out = contestant.scratch / "retrained"
    contestant.ask(
        *("gitops_ml", "retrain", "--train", train_rows, "--rows", rows),
        *("--seeds", str(seeds), "--out", out),
    )
    found = []
    for seed in range(1, seeds + 1):
        table = read_table(answers_of(out, seed), ["prediction"])
        if len(table) != answers:
            raise TableError(
                f"trained with seed {seed}, it gave {len(table)} answers for {answers} rows"
            )
        found.append(table)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--train", type=Path, required=True, help="parquet file to train on")
    parser.add_argument("--rows", type=Path, required=True, help="parquet file with the features")
    parser.add_argument(
        "--seeds", type=int, required=True, choices=range(1, SEEDS_MAX + 1), metavar="NUMBER",
        help="how many models to train",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")


def run(options: argparse.Namespace) -> int:
    """Train, and answer for `--rows` into `--out`; 0 if all went well."""
    try:
        write_retrained(options.train, options.rows, options.seeds, options.out, Path())
    except OSError as error:
        raise GitopsError(f"{options.out}: cannot be written: {error.strerror}") from error
    return 0
