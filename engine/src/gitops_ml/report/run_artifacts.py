"""What a pipeline run left behind, read as what a stranger may have written.

On a pull request, the run that writes the reports is the author's, so nothing in them is to be
trusted. They are read in memory, never unpacked to a disk; sizes, names, types and numbers are
checked; long texts are cut. What cannot be read is named, the rest is used.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.metric_catalogue import Better
from gitops_ml.gate.verdict import Report
from gitops_ml.github.artifacts import UNREADABLE
from gitops_ml.report.verdict_report import SOURCES

GATE = "gate.json"
EVALUATION = "evaluation.json"
VALIDATION = "validation.json"
INGEST = "ingest.json"
ENVIRONMENT = paths.TRAINING_ENVIRONMENT.name
IMPORTANCE = "plots/importance.csv"

ARCHIVE_BYTES = 20_000_000
ENTRIES = 2_000
FILE_BYTES = 1_000_000
TEXT_LENGTH = 1_000
LIST_LENGTH = 1_000
CURVES = 12
POINTS = 5_000

_CURVE = re.compile(r"plots/curves/[a-z][a-z_]{0,39}\.csv")
_FOLDER = "reports/"
# Format (such as the marks that turn the direction of writing), surrogate, private use.
_INVISIBLE = frozenset({"Cf", "Cs", "Co"})

T = TypeVar("T")


class EvidenceError(GitopsError):
    """A report cannot be used; the message says which and why."""


class _Part(BaseModel):
    # Reports hold more than what is shown here.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Interval(_Part):
    """A metric with its confidence interval, in the metric's own unit, and what is better of it."""

    better: Better | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Evaluation(_Part):
    """What is shown of `reports/evaluation.json`."""

    rows: int
    confidence: Annotated[float, Field(gt=0, lt=1)]
    threshold: float | None = None
    metrics: dict[str, Interval]
    baseline: dict[str, float | None] = Field(default_factory=dict)


class TrainingEnvironment(_Part):
    """Where a model was trained: `reports/training_environment.json`, which a training writes."""

    sha256: str
    python: str
    platform: str
    cores: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class DataProblem(_Part):
    """A rule that data break, without the example rows: those stay in the artifact."""

    file: str
    column: str | None = None
    rule: str
    count: int = 1
    message: str


class DataReport(_Part):
    """What is shown of `reports/validation.json` and `reports/ingest.json`."""

    problems: tuple[DataProblem, ...] = ()


@dataclass(frozen=True)
class Curve:
    """One line of a figure; points (x, y) in the order of the file."""

    figure: str
    series: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Evidence:
    """What could be read.

    Attributes:
        gate: The gate's report; None if the gate gave no verdict.
        evaluation: The model's metrics.
        problems: What is wrong with the data.
        curves: Lines of the plots.
        importance: Features with their importance, largest first.
        environment: Where the model was trained; None if no run here trained it.
        unreadable: What could not be used, and why.
    """

    gate: Report | None = None
    evaluation: Evaluation | None = None
    problems: tuple[DataProblem, ...] = ()
    curves: tuple[Curve, ...] = ()
    importance: tuple[tuple[str, float], ...] = ()
    environment: TrainingEnvironment | None = None
    unreadable: tuple[str, ...] = ()


@dataclass
class _Reader:
    files: Mapping[str, bytes]
    unreadable: list[str] = field(default_factory=list)

    def read(self, name: str, parse: Callable[[str], T]) -> T | None:
        """A file's content; None if there is no such file or, noted, if it cannot be used."""
        if name not in self.files:
            return None
        try:
            return parse(self.files[name].decode("utf-8"))
        except EvidenceError as error:
            self.unreadable.append(f"{name}: {error}")
        except UnicodeDecodeError:
            self.unreadable.append(f"{name}: is not UTF-8")
        return None


def is_wanted(name: str) -> bool:
    """Whether a file, by its path inside the reports folder, is one that is read."""
    return name in (GATE, EVALUATION, VALIDATION, INGEST, IMPORTANCE, ENVIRONMENT) or bool(
        _CURVE.fullmatch(name)
    )


def from_folder(folder: Path) -> dict[str, bytes]:
    """The wanted files of a reports folder, by their path inside it; large ones are left out."""
    found = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {
        name: path.read_bytes()
        for name, path in sorted(found.items())
        if is_wanted(name) and path.stat().st_size <= FILE_BYTES
    }


def from_archive(content: bytes) -> dict[str, bytes]:
    """The wanted files of an artifact, by their path inside the reports folder.

    Raises:
        EvidenceError: If it is no zip archive, or one that is made to do harm.
    """
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > ENTRIES:
                raise EvidenceError(f"holds {len(entries):,} files; {ENTRIES:,} are read at most")
            for entry in entries:
                # An artifact's paths start at the folder that its files have in common.
                name = entry.filename.removeprefix(_FOLDER)
                if not is_wanted(name):
                    continue
                if name in files:
                    raise EvidenceError(f"holds {name} twice")
                # What an entry says about its size need not be true.
                with archive.open(entry) as stream:
                    files[name] = stream.read(FILE_BYTES + 1)
                if len(files[name]) > FILE_BYTES:
                    raise EvidenceError(f"{name} is larger than {FILE_BYTES:,} bytes")
    except UNREADABLE as error:
        raise EvidenceError(f"is no archive that can be read: {error}") from error
    except (OSError, ValueError, OverflowError) as error:
        raise EvidenceError(f"is a damaged archive: {error}") from error
    return files


def read_evidence(files: Mapping[str, bytes]) -> Evidence:
    """Make sense of report files; see `Evidence`.

    Without a verdict of the gate, metrics and plots are left out: the reports in git may be older
    than the change.
    """
    reader = _Reader(files)
    reports = [reader.read(name, _model(DataReport)) for name in (INGEST, VALIDATION)]
    problems = tuple(problem for report in reports if report for problem in report.problems)
    gate = reader.read(GATE, _gate)
    if gate is None:
        return Evidence(problems=problems, unreadable=tuple(reader.unreadable))
    curves: list[Curve] = []
    for name in sorted(name for name in files if _CURVE.fullmatch(name))[:CURVES]:
        curves += reader.read(name, _curves) or ()
    environment = reader.read(ENVIRONMENT, _model(TrainingEnvironment))
    if environment is not None and environment.sha256 != gate.challenger.sha256:
        environment = None  # an earlier training's
    return Evidence(
        gate=gate,
        evaluation=reader.read(EVALUATION, _model(Evaluation)),
        problems=problems,
        curves=tuple(curves),
        importance=reader.read(IMPORTANCE, _importance) or (),
        environment=environment,
        unreadable=tuple(reader.unreadable),
    )


def _gate(text: str) -> Report:
    report = _model(Report)(text)
    judged = (*report.metrics, *report.slices, *report.erosion)
    unknown = {found.metric for found in judged if found.direction == 0}
    if unknown:
        raise EvidenceError(f"names unknown metrics: {clean(', '.join(sorted(unknown)))}")
    reference = report.reference.model if report.reference is not None else None
    for model in (report.champion, reference):
        if model is not None and model.source not in SOURCES:
            raise EvidenceError(f"names an unknown source: {clean(model.source)}")
    return report


P = TypeVar("P", bound=BaseModel)


def _model(model: type[P]) -> Callable[[str], P]:
    def parse(text: str) -> P:
        try:
            document = json.loads(text, parse_constant=_no_number)
            return model.model_validate(_bounded(document))
        except RecursionError:
            raise EvidenceError("is nested too deeply") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise EvidenceError(clean(f"{where}: {first['msg']}")) from error
        except ValueError as error:
            raise EvidenceError(clean(f"cannot be read: {error}")) from error

    return parse


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON value")


def _bounded(value: Any) -> Any:
    """The same JSON value with long texts cut."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | dict) and len(value) > LIST_LENGTH:
        raise ValueError(f"holds a list of more than {LIST_LENGTH:,} items")
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _bounded(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        # 1e999 is a number in JSON, but no float.
        raise ValueError("holds a number without end")
    if isinstance(value, int) and abs(value) > 10**15:
        raise ValueError("holds a number that is too large")
    return value


def clean(text: str) -> str:
    """Text of bounded length without characters that hide, or that change how others look."""
    short = text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}…"
    return "".join(
        " " if unicodedata.category(c) == "Cc" and c != "\n" else c
        for c in short
        if unicodedata.category(c) not in _INVISIBLE
    )


def _table(text: str, columns: list[str]) -> list[list[str]]:
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise EvidenceError(f"is not CSV: {error}") from error
    if not rows or rows[0] != columns or any(len(row) != len(columns) for row in rows):
        raise EvidenceError(f"must have the columns {', '.join(columns)}")
    if len(rows) - 1 > POINTS:
        raise EvidenceError(f"has more than {POINTS:,} rows")
    return rows[1:]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e15:
        raise EvidenceError(f"{clean(text)} is not a number that can be drawn")
    return number


def _curves(text: str) -> list[Curve]:
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for figure, series, x, y in _table(text, ["figure", "series", "x", "y"]):
        points.setdefault((clean(figure), clean(series)), []).append((_number(x), _number(y)))
    return [Curve(figure, series, tuple(line)) for (figure, series), line in points.items()]


def _importance(text: str) -> tuple[tuple[str, float], ...]:
    rows = _table(text, ["feature", "importance"])
    return tuple((clean(feature), _number(value)) for feature, value in rows)
