"""Typed settings: `params.yaml` says what is built, `contract.yaml` what it must hold.

Both are checked when they are read. A mistake stops the run at once and names the file, the key,
the value found and the rule it broke.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.metric_catalogue import (
    BUILT_IN,
    MetricKind,
    known_metrics,
    why_not,
)
from gitops_ml.core.rounding import down, up
from gitops_ml.core.yaml_text import load_yaml


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _zoned(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone, e.g. 2013-07-01T00:00:00Z")
    return value


Moment = Annotated[datetime, AfterValidator(_zoned)]
Task = Literal["classification", "regression"]
Share = Annotated[float, Field(gt=0, lt=1)]
Names = tuple[Annotated[str, Field(min_length=1)], ...]


def _metrics_in(info: ValidationInfo) -> Mapping[str, MetricKind] | None:
    """The metrics that the caller knows; None if it did not say, so that any name will do."""
    return info.context["metrics"] if info.context else None


@dataclass(frozen=True)
class KeepsTestRows:
    """Beside the type of a parameter: it decides neither which rows are tested nor what they mean.

    Whatever does not say so is held against the base's by the gate.
    """


KEEPS_TEST_ROWS = KeepsTestRows()


class DataParams(_Model):
    """Where the rows come from and what names and dates a row.

    Attributes:
        partition: By which period of `time` rows that land are kept apart.
    """

    source: Path
    key: Names = ()
    time: str | None = None
    as_of: Annotated[Moment | Literal["now"], KEEPS_TEST_ROWS] = "now"
    partition: Annotated[Literal["day", "month", "year"], KEEPS_TEST_ROWS] = "month"


class SplitParams(_Model):
    """How a row is assigned to the training or the test set, for ever."""

    method: Literal["hash", "time"] = "hash"
    columns: Names = ()
    test_fraction: Share = 0.2
    salt: str = "1"
    test_from: Moment | None = None

    @model_validator(mode="after")
    def _time_needs_a_start(self) -> SplitParams:
        if self.method == "time" and self.test_from is None:
            raise ValueError("method `time` needs `test_from`, the first moment of the test set")
        return self


class Preprocessing(_Model):
    """What happens to the feature matrix before the estimator sees it."""

    categories: Literal["ordinal", "one_hot"] = "one_hot"
    missing: Literal["keep", "median"] = "median"
    scale: bool = False


# `package.module.Class` or `package.module:Class`.
CLASS_PATH = r"^[A-Za-z_][\w.]*[.:][A-Za-z_]\w*$"


class TrainParams(_Model):
    """The estimator, by its class path, and how it is fitted.

    Attributes:
        hyperparameters: Of the estimator. A mapping with the key `class` is an object of that
            class, with the mapping's other keys as its parameters.
        threshold: The probability of the second of two classes from which on it is the answer;
            None for the more probable one.
    """

    estimator: Annotated[str, Field(pattern=CLASS_PATH)]
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()
    threshold: Share | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class EvaluateParams(_Model):
    """What is measured on the test set; the first metric is the primary one."""

    metrics: Annotated[Names, Field(min_length=1)]
    slices: Names = ()
    confidence: Share = 0.95
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 500


class MonitorParams(_Model):
    """When `gitops-ml monitor` acts on the live service's predictions.

    Attributes:
        window_days: How many days of predictions are judged together.
        min_rows: A window with fewer rows is not judged.
        windows: In how many windows the same thing must be off, the latest among them.
        of_last: Of so many judged windows.
    """

    window_days: Annotated[int, Field(ge=1, le=366)] = 7
    min_rows: Annotated[int, Field(ge=50)] = 200
    windows: Annotated[int, Field(ge=1)] = 2
    of_last: Annotated[int, Field(ge=1, le=50)] = 3

    @model_validator(mode="after")
    def _can_be_met(self) -> MonitorParams:
        if self.windows > self.of_last:
            raise ValueError(f"windows: {self.windows} of the last {self.of_last} cannot be")
        return self


class Params(_Model):
    """The whole of `params.yaml`."""

    task: Task
    target: Annotated[str, Field(min_length=1)]
    data: DataParams
    split: SplitParams = SplitParams()
    train: Annotated[TrainParams, KEEPS_TEST_ROWS]
    evaluate: Annotated[EvaluateParams, KEEPS_TEST_ROWS]
    monitor: Annotated[MonitorParams, KEEPS_TEST_ROWS] = MonitorParams()

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Params:
        metrics = _metrics_in(info)
        for name in self.evaluate.metrics:
            kind = (metrics or BUILT_IN).get(name)
            if kind is None and metrics is None:
                continue
            if problem := why_not(name, self.task, metrics or BUILT_IN):
                raise ValueError(f"evaluate.metrics: {problem}")
        if self.split.method == "time" and self.data.time is None:
            raise ValueError("split.method `time` needs `data.time`, the column that dates a row")
        if self.target in self.data.key:
            raise ValueError(f"data.key: the target `{self.target}` cannot be part of the key")
        if self.train.threshold is not None and self.task == "regression":
            raise ValueError("train.threshold: is for classification; remove it")
        return self


@dataclass(frozen=True)
class Stricter:
    """Beside the type of a contract's term: which of two values asks for more.

    Attributes:
        of: Gives back the stricter one, of the base's value and the change's.
        settled: Whether the base's stays whatever the change says, also where it says nothing.
    """

    of: Callable[[Any, Any], Any]
    settled: bool = False


LARGER, SMALLER = Stricter(max), Stricter(min)
SETTLED = Stricter(lambda base, change: base, settled=True)


@dataclass(frozen=True)
class Quantity:
    """Beside the type of a contract's term: what the gate holds against it, `gate/measured.py`.

    Attributes:
        name: What is measured, for people.
        unit: Of what is measured.
        scale: What a value of the contract is in that unit.
    """

    name: str
    unit: str
    scale: float = 1


@dataclass(frozen=True)
class Proposal:
    """Beside the type of a contract's term: what `gitops-ml contract --propose` writes.

    Attributes:
        of: Gives the term that a model with this measured value holds by a little; or its text,
            where nothing is measured.
        note: What is said behind it.
    """

    of: Callable[[float], float] | str
    note: str = ""


class MetricTerms(_Model):
    """The terms of one metric: an absolute bound, and what may be lost, in its own unit.

    Attributes:
        floor: The least that it may be.
        ceiling: The most that it may be.
        margin: How much worse than the champion it may be: in one step.
        erosion: How much worse than the reference model it may be: in all steps together.
    """

    floor: Annotated[float | None, LARGER] = None
    ceiling: Annotated[float | None, SMALLER] = None
    margin: Annotated[Annotated[float, Field(ge=0)] | None, SMALLER] = None
    erosion: Annotated[Annotated[float, Field(ge=0)] | None, SMALLER] = None

    @model_validator(mode="after")
    def _says_something(self) -> MetricTerms:
        if self.floor is None and self.ceiling is None and self.margin is None:
            raise ValueError("needs at least one of floor, ceiling, margin")
        return self


class SliceTerms(MetricTerms):
    """The terms of one metric inside every value of a column."""

    column: str
    metric: str
    min_rows: Annotated[int, Field(ge=1), SMALLER]


# More trainings of each side would be no gate's, but a study's.
SEEDS_MAX = 20
# DVC's hash of the folder of a model.
MODEL_HASH = r"^[0-9a-f]{32}\.dir$"


class ModelTerms(_Model):
    """What the model must hold.

    Attributes:
        metrics: The terms of each metric.
        slices: Terms of metrics inside the values of a column.
        reference: The hash, in `dvc.lock`, of the model that the erosion terms go by; None for the
            first one in the history.
        seeds: With how many seeds the gate trains the recipe of each side again, to hold the means
            against the margins; 1 compares the models that are recorded.
        confidence: Of the one-sided bounds that margins and erosion are held against.
        size_mb: The most megabytes that the served file may have.
        latency_p99_ms: The most milliseconds that an answer for one row may take.
    """

    metrics: Annotated[dict[str, MetricTerms], Field(min_length=1)]
    slices: tuple[SliceTerms, ...] = ()
    reference: Annotated[Annotated[str, Field(pattern=MODEL_HASH)] | None, SETTLED] = None
    seeds: Annotated[int, Field(ge=1, le=SEEDS_MAX), SETTLED] = 1
    confidence: Annotated[
        float,
        Field(gt=0.5, lt=1),
        LARGER,
        Proposal("0.95", "of the one-sided bound that the margin is held against"),
    ] = 0.95
    size_mb: Annotated[
        float,
        Field(gt=0),
        SMALLER,
        Quantity("size of the served model", "MB"),
        Proposal(lambda found: up(max(1.0, 3 * found), 1)),
    ]
    latency_p99_ms: Annotated[
        float,
        Field(gt=0),
        SMALLER,
        Quantity("latency of one row, 99th percentile", "ms"),
        Proposal(
            lambda found: up(max(5.0, 10 * found), 1),
            "one row, in process, on the machine that runs the gate",
        ),
    ]

    @model_validator(mode="after")
    def _slices_are_named_once(self) -> ModelTerms:
        names = [f"{terms.column}/{terms.metric}" for terms in self.slices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"slices: listed twice: {', '.join(twice)}; join the two entries")
        return self

    @model_validator(mode="after")
    def _bounds_match_directions(self, info: ValidationInfo) -> ModelTerms:
        metrics = _metrics_in(info)
        named = [(f"metrics.{name}", name, terms) for name, terms in self.metrics.items()]
        named += [(f"slices.{s.column}.{s.metric}", s.metric, s) for s in self.slices]
        for where, name, terms in named:
            kind = (metrics or BUILT_IN).get(name)
            if kind is None and metrics is None:
                continue
            if kind is None:
                raise ValueError(
                    f"{where}: unknown metric; choose from {', '.join(sorted(metrics or ()))}, or "
                    f'mark a function of this name with @metric(better="smaller") or "larger" in '
                    f"{paths.SOURCES}/<package>/metrics.py"
                )
            wrong = "ceiling" if kind.better == "larger" else "floor"
            if getattr(terms, wrong) is not None:
                raise ValueError(f"{where}: {kind.better} is better, so a {wrong} makes no sense")
        return self


class RowCountChange(_Model):
    """Allowed relative change of the row count since the base: -0.05 is five per cent fewer."""

    min: Annotated[float, Field(ge=-1, le=0), LARGER]
    max: Annotated[float, Field(ge=0), SMALLER]


class DataTerms(_Model):
    """What the data must hold, beyond its schema.

    Attributes:
        test_rows_changed: The largest share of the base's test rows that a change may delete,
            edit, or move between the two sides of the split without a maintainer's consent.
        target_drift: How far the target's distribution may be from that in the reference's data, in
            all steps together: the share of the rows that changed class, or how far the mean of a
            number moved, in standard deviations.
        duplicate_rows_max: The largest share of the rows that repeat another row in every feature
            and in the target.
    """

    freshness_days: Annotated[
        Annotated[float, Field(gt=0)] | None,
        SMALLER,
        Proposal(lambda found: up(max(7, 2 * found), 2), "age of the newest row at `data.as_of`"),
    ] = None
    row_count_change: Annotated[
        RowCountChange | None,
        Quantity("change of the row count since the base", "%", scale=100),
        Proposal("{min: -0.05, max: 1.0}", "against the data of main, judged by the gate"),
    ] = None
    rows_min: Annotated[
        int,
        Field(ge=1),
        LARGER,
        Quantity("rows of data", "rows"),
        Proposal(lambda found: max(1, int(down(found / 2, 1)))),
    ] = 1
    test_rows_changed: Annotated[
        float,
        Field(ge=0, le=1),
        SMALLER,
        Proposal("0.01", "share of the base's test rows that may be gone, edited or moved"),
    ] = 0.01
    target_drift: Annotated[
        float,
        Field(ge=0),
        SMALLER,
        Proposal("0.05", "how far the target may move from the reference's data, in all steps"),
    ] = 0.05
    duplicate_rows_max: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        SMALLER,
        Proposal(
            lambda found: min(1.0, up(max(0.01, 2 * found), 2)),
            "share of rows that repeat another one in features and target",
        ),
    ] = None


class DirectionalTerm(_Model):
    """Setting `column` to `set` in every test row must move the mean prediction this way."""

    column: str
    set: float | bool | str
    expect: Literal["increase", "decrease"]


class BehaviourTerms(_Model):
    """What the model must have learnt, beyond its metrics."""

    directional: Annotated[
        tuple[DirectionalTerm, ...], Proposal("[]", "e.g. {column: age, set: 80, expect: increase}")
    ] = ()
    invariant: Annotated[Names, Proposal("[]", "columns that must not matter")] = ()
    calibration_error_max: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        SMALLER,
        Proposal(
            lambda found: min(1.0, up(max(0.05, 1.5 * found), 2)),
            "expected calibration error, also on each slice column",
        ),
    ] = None
    bias_max: Annotated[
        Annotated[float, Field(gt=0)] | None,
        SMALLER,
        Proposal(
            lambda found: up(found, 2),
            "|mean error| in the target's unit, also on each slice column",
        ),
    ] = None


class Contract(_Model):
    """The whole of `contract.yaml`."""

    model: ModelTerms
    data: DataTerms
    behaviour: BehaviourTerms = BehaviourTerms()


M = TypeVar("M", bound=BaseModel)


def parse_settings(
    text: str, model: type[M], name: str, metrics: Mapping[str, MetricKind] = BUILT_IN
) -> M:
    """Check YAML text against a model.

    Args:
        text: The YAML document.
        model: The pydantic model that it must satisfy.
        name: What to call the document in messages, usually its path.
        metrics: The metrics that it may name.

    Raises:
        SettingsError: With one line for every broken rule.
    """
    try:
        document = load_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}: is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise SettingsError(f"{name}: must be a mapping of keys to values, found {found}")
    try:
        return model.model_validate(document, context={"metrics": metrics})
    except ValidationError as error:
        raise SettingsError(
            "\n".join(_explain(name, problem) for problem in error.errors())
        ) from error


def _explain(name: str, problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    where = f"{name}: {key}" if key else name
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{where}: is missing"
    if problem["type"] == "extra_forbidden":
        return f"{where}: is not a known key"
    if isinstance(problem["input"], dict):
        return f"{where}: {message}"
    return f"{where}: {message} (found {problem['input']!r})"


def read_settings(path: Path, model: type[M], metrics: Mapping[str, MetricKind] = BUILT_IN) -> M:
    """Read and check one settings file that may name some metrics.

    Raises:
        SettingsError: If the file is missing or unreadable, is not YAML or breaks a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; run from the project's root") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, model, str(path), metrics)


def load_params(root: Path = Path()) -> Params:
    """Read `params.yaml`; see `read_settings` and `known_metrics` for what is raised."""
    return read_settings(root / paths.PARAMS, Params, known_metrics(root))


def load_contract(root: Path = Path()) -> Contract:
    """Read `contract.yaml`; see `read_settings` and `known_metrics` for what is raised."""
    return read_settings(root / paths.CONTRACT, Contract, known_metrics(root))
