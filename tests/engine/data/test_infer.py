from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from commands import subcommand
from projects import make_project

from gitops_ml.core import paths
from gitops_ml.core.schema import Schema, load_schema
from gitops_ml.core.settings import load_params
from gitops_ml.data.infer import outward

main = subcommand("schema")

CONTRACT = """
model:
  metrics: {accuracy: {floor: 0.1}}
  size_mb: 10
  latency_p99_ms: 20
data: {rows_min: 10}
"""


def make_table(rows: int = 300) -> pl.DataFrame:
    """Customers, some of whom leave; with missing values, and with columns of no use."""
    random = np.random.default_rng(5)
    age = random.integers(18, 90, rows)
    left = random.random(rows) < 0.3
    return pl.DataFrame(
        {
            "customer id": [f"c{number:04}" for number in range(rows)],
            "signed up": [
                datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(rows)
            ],
            "row_number": list(range(1, rows + 1)),
            "age": pl.Series(age).set(pl.Series(random.random(rows) < 0.1), None),
            "balance": random.normal(0, 100, rows).round(2),
            "plan": pl.Series(random.choice(["no", "basic", "pro"], rows)).set(
                pl.Series(random.random(rows) < 0.1), None
            ),
            "town": [f"town {number % 60}" for number in range(rows)],
            "ward": [f"ward {number % 180}" for number in range(rows)],
            "remark": [f"text {number}" for number in range(rows)],
            "country": ["NO"] * rows,
            "nothing": pl.Series([None] * rows, dtype=pl.Float64),
            "autopay": random.random(rows) < 0.5,
            "refund": np.where(left, 20.5, 0.0),
            "left": left,
            "spent": random.gamma(2, 30, rows),
        }
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write files and settings into a folder and work there: `project({"a.csv": rows})`."""

    def make(files: dict[str, pl.DataFrame], **params: Any) -> Path:
        for name, rows in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(exist_ok=True)
            rows.write_csv(path) if path.suffix == ".csv" else rows.write_parquet(path)
        document: dict[str, Any] = {
            "task": "classification",
            "target": "left",
            "data": {"source": "data"},
            "train": {"estimator": "sklearn.tree.DecisionTreeClassifier"},
            "evaluate": {"metrics": ["accuracy"]},
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(document | params), encoding="utf-8")
        (tmp_path / "contract.yaml").write_text(CONTRACT, encoding="utf-8")
        monkeypatch.chdir(make_project(tmp_path))
        return tmp_path

    return make


def inferred(*arguments: str) -> Schema:
    assert main(list(arguments)) == 0
    return load_schema()


def accepted() -> bool:
    return all(subcommand(stage)() == 0 for stage in ("ingest", "validate", "split"))


def keyed() -> dict[str, Any]:
    return {"data": {"source": "data", "key": ["customer id"], "time": "signed up"}}


@pytest.mark.parametrize(
    "names", [["a.parquet"], ["a.csv"], ["a.parquet", "b.parquet"], ["a.csv", "b.csv"]]
)
def test_the_draft_describes_the_data_and_accepts_it(
    project: Callable[..., Path], names: list[str]
) -> None:
    table = make_table()
    size = table.height // len(names)
    project({name: table[i * size : (i + 1) * size] for i, name in enumerate(names)}, **keyed())
    columns = inferred().columns
    assert {name: column.type for name, column in columns.items()} == {
        "customer id": "string",
        "signed up": "datetime",
        "row_number": "integer",
        "age": "integer",
        "balance": "number",
        "plan": "category",
        "town": "category",
        "ward": "string",
        "remark": "string",
        "country": "category",
        "nothing": "string",
        "autopay": "boolean",
        "refund": "number",
        "left": "boolean",
        "spent": "number",
    }
    features = [name for name, column in columns.items() if column.feature]
    assert features == ["age", "balance", "plan", "town", "autopay", "spent"]
    outcomes = [name for name, column in columns.items() if column.outcome]
    assert outcomes == ["refund", "left"]
    nullable = [name for name, column in columns.items() if column.nullable]
    assert nullable == ["age", "plan", "nothing"]
    assert columns["plan"].categories == ("basic", "no", "pro")
    assert (columns["plan"].unseen, columns["town"].unseen) == ("error", "missing")
    assert (columns["age"].min, columns["age"].max) == (10, 97)
    assert columns["spent"].min == 0
    assert accepted()


def test_the_reasons_are_in_the_file_and_suspects_are_told(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    project({"a.parquet": make_table()}, **keyed())
    inferred()
    told = capsys.readouterr().out
    text = paths.SCHEMA.read_text(encoding="utf-8")
    for name, reason in {
        "refund": "predicts the target all by itself",
        "row_number": "looks like an identifier",
        "country": "the same value in every row",
        "nothing": "no row has a value",
    }.items():
        assert f"look at {name}: " in told
        assert reason in told
        assert reason in text
    assert "customer id" not in told
    for reason in ("part of the key", "dates the row", "the target", "300 different values"):
        assert f"feature: false  # {reason}" in text or reason in text


def test_identifiers_are_told_from_numbers_that_repeat(project: Callable[..., Path]) -> None:
    table = make_table().select(
        "age",
        "left",
        place=pl.int_range(pl.len()).reverse(),
        ticket_no=pl.int_range(pl.len()) * 7,
        shop_id=pl.int_range(pl.len()) % 9,
        steps=pl.int_range(pl.len()) * 3,
    )
    project({"a.parquet": table})
    assert list(inferred().features()) == ["age", "shop_id", "steps"]


def test_a_slice_that_is_no_category_is_refused(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    terms = {"metrics": ["accuracy"], "slices": ["balance"]}
    folder = project({"a.csv": make_table()}, evaluate=terms)
    assert main([]) == 1
    assert "evaluate.slices: `balance` is no category or boolean" in capsys.readouterr().err
    assert not (folder / "schema.yaml").exists()


def test_without_key_and_time(project: Callable[..., Path]) -> None:
    project({"a.csv": make_table().select("age", "balance", "plan", "left")})
    assert list(inferred().features()) == ["age", "balance", "plan"]
    assert accepted()


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (pl.Series("left", [0.0, 1.0] * 150), "integer"),
        (pl.Series("left", [3, 5, 7] * 100), "integer"),
        (pl.Series("left", ["yes", "no"] * 150), "category"),
        (pl.Series("left", [True, False] * 150), "boolean"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_classes_of_every_kind(
    project: Callable[..., Path], target: pl.Series, kind: str, suffix: str
) -> None:
    project({f"a.{suffix}": make_table().select("age", "balance").with_columns(target)})
    column = inferred().columns["left"]
    assert (column.type, column.feature) == (kind, False)
    if kind == "integer":
        assert (column.min, column.max) == (target.min(), target.max())
    assert accepted()


def test_a_number_as_target(project: Callable[..., Path]) -> None:
    table = make_table().select("age", "plan", "spent").with_columns(twin=pl.col("spent") * 2)
    project({"a.csv": table}, task="regression", target="spent", evaluate={"metrics": ["mae"]})
    schema = inferred()
    assert schema.columns["spent"].type == "number"
    assert list(schema.features()) == ["age", "plan"]
    assert accepted()


def test_a_key_of_several_columns_keeps_its_categories(project: Callable[..., Path]) -> None:
    key = {"data": {"source": "data", "key": ["town", "row_number"]}}
    project({"a.csv": make_table().select("town", "row_number", "age", "left")}, **key)
    columns = inferred().columns
    assert columns["town"].feature
    assert not columns["row_number"].feature
    assert columns["row_number"].max is None
    assert accepted()


def test_an_existing_schema_is_never_lost(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project({"a.csv": make_table()}, **keyed())
    (folder / "schema.yaml").write_text("mine", encoding="utf-8")
    assert main([]) == 2
    assert "FORCE=1" in capsys.readouterr().err
    assert (folder / "schema.yaml").read_text(encoding="utf-8") == "mine"
    inferred("--force")
    (folder / "schema.yaml").write_text("mine too", encoding="utf-8")
    inferred("--force")
    kept = {path.read_text(encoding="utf-8") for path in folder.glob("schema.yaml.bak*")}
    assert kept == {"mine", "mine too"}


def test_nothing_is_written_when_params_speak_of_other_data(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project({"a.csv": make_table()}, target="gone")
    assert main([]) == 1
    told = capsys.readouterr().err
    assert "target: `gone` is no column of data" in told
    assert "customer id, signed up" in told
    assert not (folder / "schema.yaml").exists()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (make_table().drop("age"), "b.parquet: age: the column is in data/a.parquet"),
        (
            make_table().with_columns(age=pl.lit("old")),
            "age: the files do not agree on its type: string here, integer in",
        ),
        (make_table().with_columns(age=pl.lit([1, 2])), "age: holds List("),
    ],
)
def test_files_that_do_not_agree_are_told(
    project: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    second: pl.DataFrame,
    message: str,
) -> None:
    project({"a.parquet": make_table(), "b.parquet": second})
    assert main([]) == 1
    told = capsys.readouterr().err
    assert message in told


def test_a_column_without_values_in_one_file_takes_the_type_of_the_other(
    project: Callable[..., Path],
) -> None:
    one = make_table().select("age", "left").with_columns(age=pl.lit(None, pl.String))
    project({"a.parquet": one, "b.parquet": make_table().select("age", "left")})
    assert inferred().columns["age"].type == "integer"


def test_a_contract_that_does_not_suit_the_data_is_told_at_once(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project({"a.csv": make_table().select("age", "left")})
    contract = CONTRACT.replace("rows_min: 10", "rows_min: 1000")
    (folder / "contract.yaml").write_text(contract, encoding="utf-8")
    inferred()
    assert "settle contract.yaml: data.rows_min: 300 rows" in capsys.readouterr().out


def test_missing_targets_are_told(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    holes = make_table().with_columns(left=pl.when(pl.int_range(pl.len()) >= 7).then("left"))
    project({"a.parquet": holes})
    assert not inferred().columns["left"].nullable
    assert "look at left: the target; 7 rows have no value" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, (0, 1.1)),
        (-1, 0, (-1.1, 0)),
        (0.0001, 0.0002, (0.00009, 0.00021)),
        (-5, 5, (-6, 6)),
        (1_000_000, 1_000_003, (999_999.7, 1_000_003.3)),
        (18, 89, (10, 97)),
    ],
)
def test_bounds_are_round_and_leave_room(
    low: float, high: float, expected: tuple[float, float]
) -> None:
    assert outward(low, high) == expected


def test_the_settings_it_read_are_the_project_s(project: Callable[..., Path]) -> None:
    project({"a.csv": make_table()}, **keyed())
    inferred()
    assert load_params().data.key == ("customer id",)
