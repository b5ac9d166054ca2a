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
    metric_names,
)


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


class DataParams(_Model):
    """Where the rows come from and what names and dates a row."""

    source: Path
    key: Names = ()
    time: str | None = None
    as_of: Moment | Literal["now"] = "now"


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


class Params(_Model):
    """The whole of `params.yaml`."""

    task: Task
    target: Annotated[str, Field(min_length=1)]
    data: DataParams
    split: SplitParams = SplitParams()
    train: TrainParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Params:
        metrics = _metrics_in(info)
        for name in self.evaluate.metrics:
            kind = (metrics or BUILT_IN).get(name)
            if kind is None and metrics is None:
                continue
            if kind is None or not kind.suits(self.task):
                raise ValueError(
                    f"evaluate.metrics: {name} cannot be measured for {self.task}; choose from "
                    f"{', '.join(sorted(metric_names(self.task, metrics or BUILT_IN)))}"
                )
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
        of: Gives back the stricter one.
    """

    of: Callable[[Any, Any], Any]


LARGER, SMALLER = Stricter(max), Stricter(min)


class MetricTerms(_Model):
    """The terms of one metric: an absolute bound, and a non-inferiority margin in its own unit."""

    floor: Annotated[float | None, LARGER] = None
    ceiling: Annotated[float | None, SMALLER] = None
    margin: Annotated[Annotated[float, Field(ge=0)] | None, SMALLER] = None

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


class ModelTerms(_Model):
    """What the model must hold."""

    metrics: Annotated[dict[str, MetricTerms], Field(min_length=1)]
    slices: tuple[SliceTerms, ...] = ()
    confidence: Annotated[float, Field(gt=0.5, lt=1), LARGER] = 0.95
    size_mb: Annotated[float, Field(gt=0), SMALLER]
    latency_p99_ms: Annotated[float, Field(gt=0), SMALLER]

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
                    "write it in metrics.py of your package"
                )
            wrong = "ceiling" if kind.better == "larger" else "floor"
            if getattr(terms, wrong) is not None:
                raise ValueError(f"{where}: {kind.better} is better, so a {wrong} makes no sense")
        return self


class RowCountChange(_Model):
    """Allowed relative change of the row count: -0.05 is five per cent fewer rows."""

    min: Annotated[float, Field(ge=-1, le=0), LARGER]
    max: Annotated[float, Field(ge=0), SMALLER]


class DataTerms(_Model):
    """What the data must hold, beyond its schema."""

    freshness_days: Annotated[Annotated[float, Field(gt=0)] | None, SMALLER] = None
    row_count_change: RowCountChange | None = None
    rows_min: Annotated[int, Field(ge=1), LARGER] = 1


class DirectionalTerm(_Model):
    """Setting `column` to `set` in every test row must move the mean prediction this way."""

    column: str
    set: float | bool | str
    expect: Literal["increase", "decrease"]


class BehaviourTerms(_Model):
    """What the model must have learnt, beyond its metrics."""

    directional: tuple[DirectionalTerm, ...] = ()
    invariant: Names = ()
    calibration_error_max: Annotated[Annotated[float, Field(gt=0, le=1)] | None, SMALLER] = None
    bias_max: Annotated[Annotated[float, Field(gt=0)] | None, SMALLER] = None


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
        document = yaml.safe_load(text)
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
