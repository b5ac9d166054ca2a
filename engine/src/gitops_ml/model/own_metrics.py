"""The project's own metrics: called with care, since anybody wrote them.

Every mistake is a sentence that names the file and the function: an exception inside, a result that
is no number, one for each row instead of one in all.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops_ml.core.errors import GitopsError, SettingsError
from gitops_ml.core.metric_catalogue import BUILT_IN, MetricKind, known_metrics, own_metrics_file
from gitops_ml.core.project import load_project
from gitops_ml.core.user_code import in_words, load_module, raised_at, shown, unless_stopped
from gitops_ml.model.mark import ATTRIBUTE

Floats = NDArray[np.float64]
Answers = tuple[NDArray[Any], NDArray[Any]]

_log = logging.getLogger(__name__)
_loaded: ContextVar[Mapping[str, OwnMetric] | None] = ContextVar("loaded", default=None)


class MetricError(GitopsError):
    """A metric cannot be computed from these answers; the message is meant for people."""


class OwnMetric:
    """A metric that the project defines.

    Attributes:
        kind: What is better, and what it is measured on.
        where: The file and the function, for messages.
    """

    def __init__(
        self, name: str, kind: MetricKind, function: Callable[..., Any], file: Path
    ) -> None:
        self.kind = kind
        self.where = f"{shown(file)}: `{name}`"
        self._function = function
        self._file = file
        # Whether it takes many vectors of weights at once; None until it was tried.
        self._at_once: bool | None = None

    def measure(self, answers: Answers, weights: Floats) -> Floats:
        """One number for each vector of weights.

        Args:
            answers: The truth, and the prediction or the probability, of n rows.
            weights: Shape (m, n).

        Returns:
            Shape (m,); NaN where the function gives it.

        Raises:
            MetricError: If the function fails or gives something else than a number.
        """
        truth, answer = (_read_only(part) for part in answers)
        if len(weights) > 1:
            if self._at_once is None:
                self._at_once = self._takes_many(truth, answer, weights[:2])
            if self._at_once:
                return self._called(truth, answer, weights, (len(weights),))
        return np.array([self._called(truth, answer, one, ()) for one in weights])

    def _takes_many(self, truth: Any, answer: Any, two: Floats) -> bool:
        single = [self._called(truth, answer, one, ()) for one in two]
        again = self._called(truth, answer, two[0], ())
        if not np.array_equal(again, single[0], equal_nan=True):
            raise MetricError(
                f"{self.where} gave {single[0]:.6g} and then {again:.6g} for the same "
                f"{len(truth)} rows; nothing may depend on chance, on the clock or on earlier calls"
            )
        try:
            both = self._called(truth, answer, two, (2,))
        except MetricError:
            both = np.array([np.nan, np.nan])
        if np.allclose(both, single, equal_nan=True) and np.isfinite(both).any():
            return True
        _log.warning(
            "%s takes one vector of weights at a time, so its intervals take longer "
            "(docs/your-code.md says how it takes many)",
            self.where,
        )
        return False

    def _called(self, truth: Any, answer: Any, weights: Floats, shape: tuple[int, ...]) -> Floats:
        try:
            with np.errstate(all="ignore"):
                given = self._function(truth, answer, _read_only(weights))
            if given is None or isinstance(given, str):
                raise TypeError(f"it returned {'nothing' if given is None else repr(given)}")
            found = np.asarray(given, dtype=np.float64)
        except BaseException as error:
            unless_stopped(error)
            place = raised_at(error, self._file.parent)
            raise MetricError(
                f"{self.where} failed on {len(truth)} rows: {in_words(error)}"
                + (f" ({place})" if place else "")
            ) from error
        if found.shape != shape:
            wanted = "one number" if not shape else f"shape {shape}"
            raise MetricError(
                f"{self.where} gave an array of shape {found.shape} for {len(truth)} rows; it must "
                f"give {wanted}, such as the mean over the rows"
            )
        return found


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers; the function must not change them for those who come after it."""
    view = values.view()
    view.flags.writeable = False
    return view


@contextlib.contextmanager
def metrics_of(project: Path) -> Iterator[None]:
    """Within the block, own metrics are those of a project as they are now.

    What is written over its `metrics.py` later on changes nothing, also by those who set the time
    of a file.

    Raises:
        UserCodeError: If `metrics.py` cannot be imported.
        MetricDeclarationError: If a mark in `metrics.py` is wrong.
    """
    token = _loaded.set(_metrics_in(project))
    try:
        yield
    finally:
        _loaded.reset(token)


def own_metric(name: str) -> OwnMetric:
    """A metric of the project in the current folder, or of that of `metrics_of`.

    Raises:
        MetricError: If neither the engine nor the project has one of this name.
        UserCodeError: If `metrics.py` cannot be imported.
        MetricDeclarationError: If a mark in `metrics.py` is wrong.
    """
    loaded = _loaded.get()
    own = _metrics_in(Path()) if loaded is None else loaded
    if name not in own:
        raise MetricError(f"there is no metric {name}; choose from {', '.join([*BUILT_IN, *own])}")
    return own[name]


def _metrics_in(project: Path) -> Mapping[str, OwnMetric]:
    # Outside of a project there are the built-in ones.
    with contextlib.suppress(SettingsError):
        file = (project / own_metrics_file(project)).resolve()
        if file.is_file():
            return _load(project, file, file.stat().st_mtime_ns)
    return {}


@lru_cache(maxsize=1)
def _load(root: Path, file: Path, _: int) -> Mapping[str, OwnMetric]:
    module = load_module(root, load_project(root).package, file.stem)
    found = {}
    for name, kind in known_metrics(root).items():
        function = getattr(module, name, None)
        if name in BUILT_IN:
            continue
        if function is None or getattr(function, ATTRIBUTE, None) != kind:
            raise MetricError(
                f"{shown(file)}: `{name}` is not what its @metric line says; import "
                "the mark with `from gitops_ml.model import metric`, and do not replace the "
                "function later in the file"
            )
        found[name] = OwnMetric(name, kind, function, file)
    return found
