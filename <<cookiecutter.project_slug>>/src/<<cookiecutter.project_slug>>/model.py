"""An estimator of your own, for params.yaml to name; docs/your-code.md shows how."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if


class SeedAverage(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """The mean of copies of an estimator that differ in their seed only: less luck in a model."""

    def __init__(self, estimator: Any, copies: int = 3, random_state: int | None = None) -> None:
        self.estimator = estimator
        self.copies = copies
        self.random_state = random_state

    def fit(self, X: NDArray[Any], y: NDArray[Any]) -> Self:  # noqa: N803
        """Fit each copy; X is the prepared feature matrix, shape (n, columns)."""
        self.classes_ = np.unique(y)
        first = self.random_state or 0  # the engine gives the seed of params.yaml
        self.members_ = [
            clone(self.estimator).set_params(random_state=first + place).fit(X, y)
            for place in range(self.copies)
        ]
        return self

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:  # noqa: N803
        """The most probable class, or the mean number; shape (n,)."""
        if is_classifier(self):
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        return np.asarray(np.mean([one.predict(X) for one in self.members_], axis=0))

    @available_if(lambda self: hasattr(self.estimator, "predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:  # noqa: N803
        """The mean probabilities; shape (n, classes)."""
        return np.asarray(np.mean([one.predict_proba(X) for one in self.members_], axis=0))

    def __sklearn_tags__(self) -> Tags:
        """What the copies are and take: classifier or regressor, missing values or not."""
        return get_tags(self.estimator)
