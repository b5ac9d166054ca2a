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
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError


class SettingsError(GitopsError):
    """A settings file is missing, is not YAML or breaks a rule; the message is meant for people."""


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

# The direction of each metric: +1 when larger is better, -1 when smaller is.
METRIC_DIRECTION: Mapping[str, int] = {
    "accuracy": 1,
    "balanced_accuracy": 1,
    "f1_macro": 1,
    "roc_auc": 1,
    "average_precision": 1,
    "log_loss": -1,
    "brier": -1,
    "r2": 1,
    "mae": -1,
    "rmse": -1,
    "median_absolute_error": -1,
}
REGRESSION_METRICS = frozenset({"r2", "mae", "rmse", "median_absolute_error"})


def metric_names(task: Task) -> frozenset[str]:
    """The metrics that exist for a task."""
    if task == "regression":
        return REGRESSION_METRICS
    return frozenset(METRIC_DIRECTION) - REGRESSION_METRICS


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


class TrainParams(_Model):
    """The estimator, by its class path, and how it is fitted."""

    estimator: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")]
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()
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
    def _consistent(self) -> Params:
        unknown = sorted(set(self.evaluate.metrics) - metric_names(self.task))
        if unknown:
            raise ValueError(
                f"evaluate.metrics: {', '.join(unknown)} cannot be measured for {self.task}; "
                f"choose from {', '.join(sorted(metric_names(self.task)))}"
            )
        if self.split.method == "time" and self.data.time is None:
            raise ValueError("split.method `time` needs `data.time`, the column that dates a row")
        if self.target in self.data.key:
            raise ValueError(f"data.key: the target `{self.target}` cannot be part of the key")
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
    def _bounds_match_directions(self) -> ModelTerms:
        named = [(f"metrics.{name}", name, terms) for name, terms in self.metrics.items()]
        named += [(f"slices.{s.column}.{s.metric}", s.metric, s) for s in self.slices]
        for where, name, terms in named:
            if name not in METRIC_DIRECTION:
                raise ValueError(
                    f"{where}: unknown metric; choose from {', '.join(sorted(METRIC_DIRECTION))}"
                )
            wrong = "ceiling" if METRIC_DIRECTION[name] > 0 else "floor"
            if getattr(terms, wrong) is not None:
                better = "larger" if wrong == "ceiling" else "smaller"
                raise ValueError(f"{where}: {better} is better, so a {wrong} makes no sense")
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


def parse_settings(text: str, model: type[M], name: str) -> M:
    """Check YAML text against a model.

    Args:
        text: The YAML document.
        model: The pydantic model that it must satisfy.
        name: What to call the document in messages, usually its path.

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
        return model.model_validate(document)
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


def read_settings(path: Path, model: type[M]) -> M:
    """Read and check one settings file.

    Raises:
        SettingsError: If the file is missing or unreadable, is not YAML or breaks a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; run from the project's root") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, model, str(path))


def load_params(root: Path = Path()) -> Params:
    """Read `params.yaml`; see `read_settings` for what is raised."""
    return read_settings(root / paths.PARAMS, Params)


def load_contract(root: Path = Path()) -> Contract:
    """Read `contract.yaml`; see `read_settings` for what is raised."""
    return read_settings(root / paths.CONTRACT, Contract)
