"""The sample flights as a project with a small model, and as what a service would have logged."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from projects import PACKAGE, make_project
from pydantic_core import to_json

from gitops_ml.cli import main
from gitops_ml.core.schema import load_schema
from gitops_ml.data.convert import convert
from gitops_ml.features.encode import class_name
from gitops_ml.features.matrix import matrix_of
from gitops_ml.model.evaluate import json_value
from gitops_ml.model.predictor import Predictor, load_predictor

TIME = "scheduled_hour"


def make_flights(template: Path, folder: Path) -> Path:
    """A project whose model is trained on the landed months, by the real stages."""
    make_project(folder, package=PACKAGE)
    (folder / "src" / PACKAGE).mkdir(parents=True)
    for name in ("__init__.py", "features.py", "metrics.py"):
        source = template / "src" / template.name / name
        shutil.copy(source, folder / "src" / PACKAGE / name)
    shutil.copytree(template / "data", folder / "data")
    for name in ("schema.yaml", "params.classification.yaml", "contract.classification.yaml"):
        shutil.copy(template / name, folder / name.replace(".classification", ""))
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["hyperparameters"] |= {"max_iter": 40, "max_leaf_nodes": 15}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with contextlib.chdir(folder):
        for stage in ("ingest", "split", "train"):
            assert main([stage]) == 0
    return folder


class Flights:
    """A project that was made so, with the months that came later.

    Attributes:
        root: The project.
        predictor: Its model.
        later: The rows of July to September, in the schema's types.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.predictor: Predictor = load_predictor(root / "models")
        columns = load_schema(root).columns
        rows = pl.concat(
            pl.read_parquet(path) for path in sorted((root / "data" / "upcoming").iterdir())
        )
        self.later = pl.DataFrame(
            [convert(rows[name], column.type, False) for name, column in columns.items()]
        )
        digits = self.predictor.manifest["files"][self.predictor.manifest["served"]][:8]
        self.release = f"{PACKAGE}:0123abcd-{digits}"

    def answers(self, rows: pl.DataFrame) -> list[dict[str, Any]]:
        """What the service answers."""
        said = self.predictor.predict(matrix_of(rows, self.predictor.features))
        assert said.probabilities is not None
        names = [class_name(value) for value in self.predictor.manifest["classes"]]
        return [
            {"prediction": label, "probabilities": dict(zip(names, row, strict=True))}
            for label, row in zip(said.labels, said.probabilities.tolist(), strict=True)
        ]

    def lines(
        self,
        rows: pl.DataFrame,
        change: Callable[[dict[str, Any]], dict[str, Any]] = lambda record: record,
        *,
        release: str | None = None,
        asked: datetime | None = None,
    ) -> list[bytes]:
        """A line of the prediction log for each row: asked at the row's time unless told."""
        inputs = self.predictor.features.inputs
        lines = []
        records = rows.select(inputs).to_dicts()
        for number, (record, answer) in enumerate(zip(records, self.answers(rows), strict=True)):
            line = {
                "time": (asked or record[TIME]).isoformat().replace("+00:00", "Z"),
                "release": release or self.release,
                "request": f"request-{number}",
                "records": [change({name: json_value(one) for name, one in record.items()})],
                "predictions": [answer],
            }
            lines.append(to_json(line) + b"\n")
        return lines


def between(rows: pl.DataFrame, first: datetime, days: int) -> pl.DataFrame:
    """The rows of some days."""
    return rows.filter(pl.col(TIME).is_between(first, first + timedelta(days=days), "left"))


def july(day: int) -> datetime:
    """A day counted from the end of June 2013."""
    return datetime(2013, 6, 30, tzinfo=UTC) + timedelta(days=day)


def write_log(folder: Path, lines: list[bytes], name: str = "20130701T000000-1") -> Path:
    """A folder with one file of a prediction log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"predictions-{name}.jsonl").write_bytes(b"".join(lines))
    return folder
