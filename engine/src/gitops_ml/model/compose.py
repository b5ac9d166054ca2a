"""The estimator that `params.yaml` describes: a class path, and parameters that may be objects too.

A mapping with the key `class` is an object of that class; its other keys are the parameters:

    estimator: sklearn.calibration.CalibratedClassifierCV
    hyperparameters:
      cv: 3
      estimator: {class: sklearn.linear_model.LogisticRegression, C: 0.1}

Where scikit-learn takes a list of named estimators, a mapping of names does, in its order:

      steps:
        scale: {class: sklearn.preprocessing.StandardScaler}
        model: {class: sklearn.linear_model.LogisticRegression, C: 0.1}
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils import all_estimators

from gitops_ml.core import paths
from gitops_ml.core.errors import SettingsError
from gitops_ml.core.project import load_project
from gitops_ml.core.settings import CLASS_PATH, TrainParams
from gitops_ml.core.user_code import in_words, make_importable, raised_at, unless_stopped

ESTIMATOR = f"{paths.PARAMS}: train.estimator"
HYPERPARAMETERS = f"{paths.PARAMS}: train.hyperparameters"

_CLASS = "class"
# Parameters that are lists of (name, estimator).
_NAMED = frozenset({"steps", "estimators", "transformer_list"})
_LOOKS_LIKE_A_CLASS = re.compile(r"[A-Za-z_]\w*(\.\w+)*[.:][A-Z]\w*")


def load_estimator(settings: TrainParams, task: str) -> BaseEstimator:
    """Build the unfitted estimator from its class path and hyper-parameters.

    Every `random_state` that is not given is set to the seed, however deep it is inside.

    Raises:
        SettingsError: If a class does not exist or does not know a parameter, or the estimator
            does not fit the task.
    """
    # Outside of a project there is no code of a user's to find.
    with contextlib.suppress(SettingsError):
        make_importable(Path(), load_project().package)
    kind = _class(settings.estimator, ESTIMATOR)
    if not issubclass(kind, BaseEstimator):
        raise SettingsError(
            f"{ESTIMATOR}: {settings.estimator} is not a scikit-learn estimator class"
        )
    estimator = _object(kind, settings.hyperparameters, HYPERPARAMETERS, settings.seed)
    fits_task = is_classifier if task == "classification" else is_regressor
    if not fits_task(estimator):
        raise SettingsError(
            f"{ESTIMATOR}: {settings.estimator} is not made for {task}; "
            f"choose one that is, or change `task`"
        )
    return estimator


def _class(path: str, key: str) -> type[Any]:
    module_name, _, class_name = path.replace(":", ".").rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"{key}: {path}: cannot import {module_name}: {described(error)}{_similar(path)}"
        ) from error
    except BaseException as error:
        unless_stopped(error)
        # The module may be the user's own.
        raise SettingsError(
            f"{key}: {path}: {module_name} fails while it is imported: {described(error)}"
        ) from error
    kind = getattr(module, class_name, None)
    if kind is None:
        similar = _similar(path, [name for name, one in vars(module).items() if _is_class(one)])
        raise SettingsError(f"{key}: {module_name} has no class {class_name}{similar}")
    if not isinstance(kind, type):
        raise SettingsError(f"{key}: {path} is not a scikit-learn estimator class, nor any other")
    return kind


def _is_class(value: Any) -> bool:
    return isinstance(value, type) and hasattr(value, "fit")


def _similar(path: str, beside: Sequence[str] = ()) -> str:
    """Classes that may be meant: of scikit-learn for one of its paths, else those beside it."""
    module_name, _, class_name = path.replace(":", ".").rpartition(".")
    public = {name: f"{module_name}.{name}" for name in beside}
    if module_name.partition(".")[0] == "sklearn":
        for name, kind in all_estimators():
            parts = [part for part in kind.__module__.split(".") if not part.startswith("_")]
            public[name] = ".".join([*parts, name])
    close = difflib.get_close_matches(class_name, public, n=3)
    return f"; did you mean {' or '.join(public[name] for name in close)}?" if close else ""


def _object(kind: type[Any], parameters: Mapping[str, Any], key: str, seed: int) -> Any:
    """An object of a class, with all that is inside of it seeded."""
    known = inspect.signature(kind).parameters
    _check_names(kind, known, parameters, key)
    values = {
        name: _value(value, f"{key}.{name}", seed, name) for name, value in parameters.items()
    }
    # What splits rows has no `set_params`, and takes a seed only where it shuffles.
    splits = not issubclass(kind, BaseEstimator) and "random_state" in known
    if splits and ("shuffle" not in known or values.get("shuffle")):
        values.setdefault("random_state", seed)
    try:
        built = kind(**values)
    except BaseException as error:
        unless_stopped(error)
        raise SettingsError(f"{key}: {kind.__name__} refuses them: {described(error)}") from error
    if isinstance(built, BaseEstimator):
        try:
            unseeded = {
                name: seed
                for name, value in built.get_params(deep=True).items()
                if name.rpartition("__")[2] == "random_state" and value is None
            }
            built.set_params(**unseeded)
        except BaseException as error:
            unless_stopped(error)
            # Compositions look at their parts for the first time here, own classes at anything.
            raise SettingsError(
                f"{key}: {kind.__name__} refuses them: {described(error)}"
            ) from error
    return built


def described(error: BaseException) -> str:
    """An error in one line, with the line of the user's code that it comes from, if it does."""
    where = raised_at(error, (Path() / paths.SOURCES).resolve())
    return f"{in_words(error)} ({where})" if where else in_words(error)


def _check_names(
    kind: type[Any], known: Mapping[str, inspect.Parameter], given: Mapping[str, Any], key: str
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    problems = []
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known))}"
        problems.append(f"{key}: {kind.__name__} has no {name}; {hint}")
    if problems:
        raise SettingsError("\n".join(problems))


def _value(value: Any, key: str, seed: int, name: str = "") -> Any:
    """A parameter's value, with an object for every mapping that names a class."""
    if isinstance(value, list):
        return [_value(one, f"{key}[{place}]", seed) for place, one in enumerate(value)]
    if isinstance(value, str) and _LOOKS_LIKE_A_CLASS.fullmatch(value):
        raise SettingsError(
            f"{key}: {value} is text here; write {{class: {value}}} for an object of the class"
        )
    if not isinstance(value, Mapping):
        return value
    if _CLASS in value:
        path = value[_CLASS]
        if not isinstance(path, str) or not re.match(CLASS_PATH, path):
            raise SettingsError(f"{key}.{_CLASS}: must be a class path, found {path!r}")
        parameters = {one: value[one] for one in value if one != _CLASS}
        return _object(_class(path, f"{key}.{_CLASS}"), parameters, key, seed)
    inside = {one: _value(part, f"{key}.{one}", seed) for one, part in value.items()}
    return list(inside.items()) if name in _NAMED else inside
