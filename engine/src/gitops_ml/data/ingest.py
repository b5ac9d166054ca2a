"""Read the landed files into one table, in the schema's types: `data/ingested.parquet`.

    gitops-ml ingest

What is wrong with a file as a file (missing columns, other types, broken rows, another encoding)
is found here, for all files in one go. What is wrong with the values is found by `validate`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.file_hash import sha256_of
from gitops_ml.core.landed import ManifestError, Partition, counted_partitions, is_of_the_lake
from gitops_ml.core.schema import (
    SOURCE_FILE,
    Column,
    Schema,
    check_against_params,
    load_schema,
)
from gitops_ml.core.settings import Params, load_params
from gitops_ml.data.convert import DTYPES, convert, present
from gitops_ml.data.problems import (
    MAX_EXAMPLES,
    DataError,
    Problem,
    count,
    dump,
    print_problems,
    write_json,
)

# What data tools leave beside the files they look after.
COMPANIONS = frozenset({".dvc"})
ROW_GROUP = 100_000


@dataclass(frozen=True)
class Landed:
    """One file as it was read: its rows, in the schema's types and column order."""

    path: Path
    rows: pl.DataFrame
    sha256: str


@dataclass(frozen=True)
class Raw:
    """A file's columns before conversion."""

    columns: pl.DataFrame
    is_text: bool = False
    rows_are_lines: bool = False

    def places(self, bad: pl.Series) -> list[dict[str, int]]:
        """Where the first bad rows are: by line in a CSV file, else by row, counted from 1."""
        rows = bad.arg_true().head(MAX_EXAMPLES).to_list()
        if self.rows_are_lines:
            return [{"line": row + 2} for row in rows]
        return [{"row": row + 1} for row in rows]


def find_files(source: Path) -> list[Path]:
    """The data files that `data.source` names, in the order of their names.

    Hidden files and `.dvc` files are passed over. Where `make land` has landed something, its
    partitions count as the manifest says, beside the files that somebody put there.

    Raises:
        DataError: If there is none, or one of another kind, or if a partition is missing.
    """
    return _find(source, _partitions(source))


def _find(source: Path, counted: dict[Path, Partition] | None) -> list[Path]:
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if _counts(path, source))
        found = _by_manifest(found, counted, source)
    else:
        found = [source] if source.exists() else []
    if not found:
        what = "holds no data file" if source.is_dir() else "no such file or folder"
        raise DataError(
            [
                Problem(
                    file=source.as_posix(),
                    rule="no_file",
                    message=f"{what}; put .parquet or .csv files there, or change `data.source` "
                    f"in {paths.PARAMS}",
                )
            ]
        )
    others = [path for path in found if path.suffix.lower() not in (".parquet", ".csv")]
    if others:
        raise DataError([_other_kind(path) for path in others])
    return found


def _counts(path: Path, source: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
    return path.is_file() and not hidden and path.suffix not in COMPANIONS


def _partitions(source: Path) -> dict[Path, Partition] | None:
    """The partitions that count by the manifest, by their files; None if there is none."""
    try:
        return counted_partitions(source)
    except ManifestError as error:
        raise _damaged(source, "manifest", str(error)) from error


def _by_manifest(
    found: list[Path], counted: dict[Path, Partition] | None, source: Path
) -> list[Path]:
    """Of the files that are there, those that count, if there is a manifest."""
    if counted is None:
        return found
    by_hand = [path for path in found if not is_of_the_lake(path, source)]
    if missing := [path for path in sorted(counted) if not path.is_file()]:
        message = "the manifest lists it, but it is not there; get it back from git, or `make pull`"
        raise DataError(
            [Problem(file=path.as_posix(), rule="no_file", message=message) for path in missing]
        )
    return sorted([*by_hand, *counted])


def _changed(landed: list[Landed], counted: dict[Path, Partition]) -> Iterator[Problem]:
    """Partitions that are not what landed."""
    for file in landed:
        partition = counted.get(file.path)
        if partition is not None and partition.sha256 != file.sha256:
            message = (
                "is not what landed: its hash is not the manifest's; get it back from git or DVC"
            )
            yield Problem(file=file.path.as_posix(), rule="changed", message=message)


def _other_kind(path: Path) -> Problem:
    return Problem(
        file=path.as_posix(),
        rule="file_type",
        message=f"is a `{path.suffix or path.name}` file; data files are .parquet or .csv: "
        "convert it, or move it out of the folder",
    )


def read_file(path: Path, schema: Schema) -> Landed:
    """Read one file and bring it to the schema's types.

    Raises:
        DataError: With every problem of the file.
    """
    raw = read_raw(path)
    problems = _column_problems(path, raw.columns, schema)
    converted = {}
    for name, column in schema.columns.items():
        if name not in raw.columns.columns:
            continue
        values, found = _convert_column(path, raw, name, column)
        problems += found
        converted[name] = values
    if problems:
        raise DataError(problems)
    return Landed(path, pl.DataFrame(converted), sha256_of(path))


def read_raw(path: Path) -> Raw:
    """Read one file as it is; the columns of a CSV file are text.

    Raises:
        DataError: If the file is empty, cut off, damaged, not UTF-8, or has broken rows.
    """
    try:
        if path.stat().st_size == 0:
            raise _damaged(path, "empty_file", "is empty: it has no bytes; land it again")
        raw = _read_csv(path) if path.suffix.lower() == ".csv" else Raw(pl.read_parquet(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].removeprefix("parquet: ")
        kind = path.suffix.lower().removeprefix(".")
        message = f"cannot be read as {kind}, it is cut off or damaged: {reason}; land it again"
        raise _damaged(path, "unreadable", message) from error
    if raw.columns.is_empty():
        raise _damaged(path, "no_rows", "has columns but no rows; land it again")
    return raw


def _damaged(path: Path, rule: str, message: str) -> DataError:
    return DataError([Problem(file=path.as_posix(), rule=rule, message=message)])


def _read_csv(path: Path) -> Raw:
    """Check the shape of every row, then read the fields as text.

    The check comes first because polars fills rows that are too short without a word.
    """
    try:
        records, lines = _check_rows(path)
    except UnicodeDecodeError as error:
        raise DataError([_encoding_problem(path)]) from error
    columns = pl.read_csv(path, infer_schema=False)
    if columns.height != records:
        message = (
            f"has {records:,} rows, read were {columns.height:,}; check its quotes and line ends"
        )
        raise _damaged(path, "unreadable", message)
    return Raw(columns, is_text=True, rows_are_lines=lines == records + 1)


def _check_rows(path: Path) -> tuple[int, int]:
    """Count the rows below the header, and the lines; raise if a row has another width."""
    records, bad_rows = 0, 0
    examples: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader)
            _check_header(path, header)
            for record in reader:
                records += 1
                if len(record) == len(header):
                    continue
                bad_rows += 1
                if len(examples) < MAX_EXAMPLES:
                    examples.append({"line": reader.line_num, "value": count(len(record), "field")})
        except csv.Error as error:
            message = f"line {reader.line_num}: {error}; check the quotes there and before"
            raise _damaged(path, "bad_row", message) from error
    if bad_rows:
        message = (
            f"{count(bad_rows, 'row')} without exactly {count(len(header), 'field')}, "
            "as the header has"
        )
        raise DataError(
            [
                Problem(
                    file=path.as_posix(),
                    rule="bad_row",
                    count=bad_rows,
                    message=message,
                    examples=tuple(examples),
                )
            ]
        )
    return records, reader.line_num


def _check_header(path: Path, header: list[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        message = f"the header names {', '.join(repeated)} more than once; rename the columns"
        raise _damaged(path, "duplicate_column", message)
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            message = f"its fields are separated by {name}; save it with commas"
            raise _damaged(path, "separator", message)


def _encoding_problem(path: Path) -> Problem:
    lines = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                lines.append({"line": number, "value": f"byte 0x{line[error.start]:02X}"})
    return Problem(
        file=path.as_posix(),
        rule="encoding",
        count=len(lines),
        message=f"{count(len(lines), 'line')} not in UTF-8; save the file as UTF-8",
        examples=tuple(lines[:MAX_EXAMPLES]),
    )


def _column_problems(path: Path, columns: pl.DataFrame, schema: Schema) -> list[Problem]:
    missing = [
        Problem(
            file=path.as_posix(),
            column=name,
            rule="missing_column",
            count=columns.height,
            message=f"the column is missing, but {paths.SCHEMA} declares it",
        )
        for name in schema.columns
        if name not in columns.columns
    ]
    unexpected = [
        Problem(
            file=path.as_posix(),
            column=name,
            rule="unexpected_column",
            count=columns.height,
            message=f"the column is not in {paths.SCHEMA}; declare it there "
            "(with `feature: false` to keep it from the model), or drop it from the file",
        )
        for name in columns.columns
        if name not in schema.columns
    ]
    return missing + unexpected


def _convert_column(
    path: Path, raw: Raw, name: str, column: Column
) -> tuple[pl.Series, list[Problem]]:
    values = present(raw.columns.get_column(name), column.type)
    converted = convert(values, column.type, raw.is_text)
    if converted is None:
        problem = Problem(
            file=path.as_posix(),
            column=name,
            rule="type",
            count=len(values),
            message=f"holds {values.dtype}, but {paths.SCHEMA} says {column.type}; "
            "convert it before it lands, or change the schema",
        )
        return values, [problem]
    problems = []
    unfit = values.is_not_null() & converted.is_null()
    if unfit.any():
        message = f"{count(int(unfit.sum()), 'value is', 'values are')} no {_article(column)}"
        problems.append(_value_problem(path, raw, values, unfit, "type", message))
    if column.type == "number" and (infinite := converted.is_infinite().fill_null(False)).any():
        message = f"{count(int(infinite.sum()), 'value is', 'values are')} infinite"
        problems.append(_value_problem(path, raw, values, infinite, "infinite", message))
    return converted, problems


def _article(column: Column) -> str:
    return "date and time (ISO 8601)" if column.type == "datetime" else column.type


def _value_problem(
    path: Path, raw: Raw, values: pl.Series, bad: pl.Series, rule: str, message: str
) -> Problem:
    examples = zip(raw.places(bad), values.filter(bad).head(MAX_EXAMPLES), strict=True)
    return Problem(
        file=path.as_posix(),
        column=values.name,
        rule=rule,
        count=int(bad.sum()),
        message=message,
        examples=tuple(
            {**place, "value": value if isinstance(value, str | int) else str(value)}
            for place, value in examples
        ),
    )


def combine(files: Iterable[Landed], schema: Schema, key: tuple[str, ...]) -> pl.DataFrame:
    """One table of all files, sorted by the key (else as the files come), with `source_file`."""
    rows = pl.concat(
        file.rows.select(
            *(pl.col(name).cast(DTYPES[column.type]) for name, column in schema.columns.items()),
            pl.lit(file.path.as_posix()).alias(SOURCE_FILE),
        )
        for file in files
    )
    return rows.sort(key, maintain_order=True) if key else rows


def ingest(params: Params, schema: Schema) -> tuple[pl.DataFrame, list[Landed]]:
    """Read all files of `data.source`.

    Returns:
        All rows, and what was read from each file.

    Raises:
        DataError: With the problems of all files.
    """
    landed: list[Landed] = []
    problems: list[Problem] = []
    source = params.data.source
    counted = _partitions(source)
    for path in _find(source, counted):
        try:
            landed.append(read_file(path, schema))
        except DataError as error:
            problems += error.problems
    problems += _changed(landed, counted or {})
    problems += _twice(landed)
    if problems:
        raise DataError(problems)
    return combine(landed, schema, params.data.key), landed


def _twice(landed: list[Landed]) -> Iterator[Problem]:
    """Files that landed more than once; without a key nothing else would tell."""
    first: dict[str, Path] = {}
    for file in landed:
        known = first.setdefault(file.sha256, file.path)
        if known != file.path:
            yield Problem(
                file=file.path.as_posix(),
                rule="duplicate_file",
                count=file.rows.height,
                message=f"is the same, byte for byte, as {known.as_posix()}; remove one of them",
            )


def write_table(rows: pl.DataFrame, path: Path) -> None:
    """Write parquet with fixed settings, so that equal rows give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path, compression="zstd", compression_level=3, row_group_size=ROW_GROUP)


def read_ingested(path: Path = paths.INGESTED) -> pl.DataFrame:
    """Read back what this stage wrote.

    Raises:
        DataError: If the file is missing or unreadable.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError as error:
        message = "no such file; run `make pipeline` to make it"
        raise _damaged(path, "no_file", message) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        message = f"cannot be read as parquet: {error}; run `make pipeline` to make it anew"
        raise _damaged(path, "unreadable", message) from error


def run(_: argparse.Namespace) -> int:
    """Write the table and `reports/ingest.json`; 1 if a file cannot be used."""
    try:
        params, schema = load_params(), load_schema()
        check_against_params(schema, params, whole=False)
        rows, landed = ingest(params, schema)
    except DataError as error:
        write_json(paths.INGEST_REPORT, {"rows": 0, "files": [], "problems": dump(error.problems)})
        print_problems("ingest", error.problems, paths.INGEST_REPORT)
        return 1
    write_table(rows, paths.INGESTED)
    files = [
        {"file": file.path.as_posix(), "rows": file.rows.height, "sha256": file.sha256}
        for file in landed
    ]
    write_json(paths.INGEST_REPORT, {"rows": rows.height, "files": files, "problems": []})
    print(f"Read {count(rows.height, 'row')} from {count(len(landed), 'file')}")
    return 0
