"""What the service wrote down: the prediction log, as a table, and what of it cannot be used.

A line that cannot be read, or that another model answered, is no reason to stop: it is left out,
counted and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pydantic_core import from_json

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.schema import Column
from gitops_ml.data.convert import DTYPES
from gitops_ml.data.problems import count
from gitops_ml.serving.prediction_log import PREFIX

# Columns that a log line has, and no column of a schema: those begin with a letter.
TIME, RELEASE, REQUEST, NUMBER = " time", " release", " request", " number"
PREDICTION = " prediction"
PROBABILITY = " probability "
# Clocks of two machines differ by that much without anything being wrong.
SKEW = timedelta(minutes=5)
_WRONG = object()
# Beyond, a column of whole numbers holds none.
_INTEGERS = 2**63


class LogError(GitopsError):
    """There is no prediction log to be read; the message says where one was looked for."""


@dataclass(frozen=True)
class Live:
    """The log of a service.

    Attributes:
        rows: One for each answered record: its columns in the schema's types, and those above.
        files: How many files were read.
        problems: What could not be used, in words.
    """

    rows: pl.DataFrame
    files: int
    problems: tuple[str, ...] = ()


@dataclass
class _Lines:
    """The lines so far, and how many of them were wrong in which way."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, why: str, where: str, rows: int = 1) -> None:
        self.wrong[why] += rows
        self.first.setdefault(why, where)


def read_log(
    folder: Path,
    columns: Mapping[str, Column],
    class_names: Sequence[str],
    now: datetime | None = None,
) -> Live:
    """Read all files of a prediction log.

    Args:
        folder: Where the service writes, or a copy of it; subfolders count.
        columns: What a record must hold.
        class_names: The classes whose probabilities are wanted; empty where there are none.
        now: What is later comes from a clock that is wrong; None for this moment.

    Raises:
        LogError: If there is no file with a line that can be used.
    """
    files = log_files(folder)
    latest = (now or datetime.now(UTC)) + SKEW
    found = _Lines()
    for path in files:
        for number, line in _lines(path):
            _take(found, line, f"{path.name}, line {number}", columns, class_names, latest)
    rows = _table(found, columns, class_names)
    problems = [
        f"{count(number, 'row' if why.startswith('rows') else 'line')} left out: {why} "
        f"(first: {found.first[why]})"
        for why, number in sorted(found.wrong.items())
    ]
    if rows.is_empty():
        what = "; ".join(problems) or "they are empty"
        raise LogError(
            f"{folder}: {count(len(files), 'file')} of a prediction log, but no row that can be "
            f"used: {what}. The service writes it where PREDICTION_LOG_DIR is set"
        )
    return Live(rows, len(files), tuple(problems))


def log_files(folder: Path) -> list[Path]:
    """The files of a prediction log, in the order of their names, which begin with their time.

    Raises:
        LogError: If there is none.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "no such folder"
        raise LogError(
            f"{folder}: {what}; name the folder that PREDICTION_LOG_DIR of the service is"
        )
    files = sorted(folder.rglob(f"{PREFIX}*.jsonl"), key=lambda path: path.name)
    if not files:
        raise LogError(
            f"{folder}: holds no file `{PREFIX}*.jsonl`; set PREDICTION_LOG_DIR where the service "
            "runs, and name that folder or a copy of it"
        )
    return files


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error


def _take(
    found: _Lines,
    line: bytes,
    where: str,
    columns: Mapping[str, Column],
    class_names: Sequence[str],
    latest: datetime,
) -> None:
    """Take the rows of one line, or leave it out."""
    try:
        document = from_json(line)
        moment = datetime.fromisoformat(document["time"])
        release = str(document["release"])
        records, answers = document["records"], document["predictions"]
        pairs = list(zip(records, answers, strict=True))
        earlier = moment <= latest
    except (ValueError, KeyError, TypeError):
        # The line that a process was writing when it, or its disk, ended.
        cut = not line.endswith(b"\n")
        found.leave_out("cut off" if cut else "not a line of a prediction log", where)
        return
    if not earlier:
        found.leave_out("rows from the future: a clock is wrong", where, len(pairs))
        return
    for number, (record, answer) in enumerate(pairs):
        if not isinstance(record, dict) or not _is_answer(answer, class_names):
            found.leave_out("rows that are no records", where)
            continue
        missing = [name for name in columns if name not in record]
        if missing:
            shown = ", ".join(f"`{name}`" for name in missing[:3])
            found.leave_out(f"rows that lack the column {shown}", where)
            continue
        values = [_value(record[name], column) for name, column in columns.items()]
        bad = next((n for n, one in zip(columns, values, strict=True) if one is _WRONG), None)
        if bad is not None:
            kind = columns[bad].type
            found.leave_out(f"rows whose `{bad}` is no {kind}, as schema.yaml has it", where)
            continue
        stated = answer.get("probabilities") or {}
        found.rows.append(
            {
                **dict(zip(columns, values, strict=True)),
                TIME: moment.astimezone(UTC),
                RELEASE: release,
                REQUEST: _text(document.get("request")),
                NUMBER: number,
                PREDICTION: _text(answer.get("prediction")),
                **{PROBABILITY + name: stated.get(name) for name in class_names},
            }
        )


def _is_answer(answer: Any, class_names: Sequence[str]) -> bool:
    if not isinstance(answer, dict):
        return False
    stated = answer.get("probabilities") or {}
    return isinstance(stated, dict) and all(
        isinstance(stated.get(name), float | int | None) for name in class_names
    )


def _value(value: Any, column: Column) -> Any:
    """A value as the schema's type has it; _WRONG if it is of another."""
    if value is None:
        return None
    if column.type == "datetime":
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return _WRONG
        return moment.astimezone(UTC) if moment.tzinfo else _WRONG
    if column.type == "boolean":
        return value if isinstance(value, bool) else _WRONG
    if column.type in ("category", "string"):
        return value if isinstance(value, str) else _WRONG
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _WRONG
    try:
        number = float(value)
    except OverflowError:
        return _WRONG
    if column.type == "integer":
        return int(value) if number.is_integer() and abs(number) < _INTEGERS else _WRONG
    return number


def _text(value: Any) -> str | None:
    """A label or a number as text, so that one column holds those of any model."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _table(
    found: _Lines, columns: Mapping[str, Column], class_names: Sequence[str]
) -> pl.DataFrame:
    types: dict[str, pl.DataType] = {name: DTYPES[one.type] for name, one in columns.items()}
    types |= {TIME: DTYPES["datetime"], NUMBER: pl.Int64()}
    types |= dict.fromkeys((RELEASE, REQUEST, PREDICTION), pl.String())
    types |= {PROBABILITY + name: pl.Float64() for name in class_names}
    return pl.DataFrame(
        [
            pl.Series(name, [row[name] for row in found.rows], dtype=kind)
            for name, kind in types.items()
        ]
    )


def releases(rows: pl.DataFrame) -> list[tuple[str, int]]:
    """The releases that answered, the one that answered last at first, with their rows."""
    found = rows.group_by(RELEASE).agg(pl.col(TIME).max(), pl.len().alias("n")).sort(TIME)
    return [(str(name), int(n)) for name, n in found.select(RELEASE, "n").iter_rows()][::-1]
