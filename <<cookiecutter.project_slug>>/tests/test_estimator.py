"""Tests of your estimator, on a table of a few rows."""

import numpy as np
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from << cookiecutter.project_slug >>.model import SeedAverage

X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.arange(20) > 9


def test_it_learns_classes() -> None:
    model = SeedAverage(DecisionTreeClassifier()).fit(X, Y)
    assert model.predict_proba(X).shape == (20, 2)
    assert (model.predict(X) == Y).all()


def test_it_learns_numbers() -> None:
    model = SeedAverage(DecisionTreeRegressor(), copies=2).fit(X, X[:, 0])
    assert np.allclose(model.predict(X), X[:, 0])
