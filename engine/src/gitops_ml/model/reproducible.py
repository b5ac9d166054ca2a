"""The same model from the same rows, however many cores fit it.

Three things of a machine get into a model. BLAS adds up in an order that depends on the number of
its threads, which moves the last bits of a linear model: it gets one. joblib's worker processes
send back copies of what they were given, which moves the bytes of a composition: its tasks run in
threads instead, as many as `n_jobs` says. And what was fitted keeps numbers of threads, durations
and `n_jobs`: they are taken out before it is written. OpenMP, which the histogram gradient boosting
of scikit-learn uses, gives the same bits with any number of threads and keeps them all; only
clustering adds up by thread, and gets one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from joblib import parallel_config
from threadpoolctl import threadpool_limits

# What fitted objects call the number of threads that fitted them, or are to answer.
_THREADS = frozenset({"n_threads", "_n_threads", "n_threads_"})
_ADDS_UP_BY_THREAD = "sklearn.cluster."
_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, FunctionType, ModuleType)


@contextmanager
def same_on_all_machines(model: Any = None) -> Iterator[None]:
    """Fit and answer with nothing that depends on the number of cores.

    Args:
        model: What is fitted; it is looked at for parts that add up by thread.
    """
    limits, backend = {"blas": 1}, "threading"
    if any(type(part).__module__.startswith(_ADDS_UP_BY_THREAD) for part in _parts(model)):
        # The limit holds for this thread alone, so there must be no other.
        limits["openmp"], backend = 1, "sequential"
    with threadpool_limits(limits=limits), parallel_config(backend=backend):
        yield


def forget_machine(fitted: Any) -> None:
    """Take out of a fitted estimator, and of all that it holds, what the machine put there.

    Afterwards `n_jobs` is None: threads that add up the answers of trees do so in the order in
    which they end, and for the few rows of a request they cost more than they bring.
    """
    for part in _parts(fitted):
        _clean(getattr(part, "__dict__", {}))


def _parts(model: Any) -> Iterator[Any]:
    """An object and all that it holds, each once."""
    seen: set[int] = set()
    left = [model]
    while left:
        one = left.pop()
        if isinstance(one, _LEAVES) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
        elif isinstance(one, np.ndarray):
            left += one.ravel().tolist() if one.dtype == object else ()
        else:
            left += getattr(one, "__dict__", {}).values()


def _clean(attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if name in _THREADS and isinstance(value, int):
            attributes[name] = 1
        elif name == "n_jobs":
            attributes[name] = None
        elif name == "refit_time_":
            attributes[name] = 0.0
        elif name == "cv_results_":  # of a search: how long each candidate took
            for key in value:
                if key.endswith("_time"):
                    value[key] = np.zeros_like(value[key])
