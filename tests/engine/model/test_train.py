from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import pytest
import yaml
from commands import subcommand
from projects import PACKAGE, make_project
from sklearn.tree import DecisionTreeClassifier

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.features.encode import Features
from gitops_ml.features.matrix import TableError, matrix_of
from gitops_ml.model.predictor import load_predictor
from gitops_ml.model.target import classes_of, target_values
from gitops_ml.model.train import (
    TrainError,
    build_pipeline,
    has_probabilities,
    train,
    write,
    write_environment,
)

main = subcommand("train")

Orders = Callable[..., pl.DataFrame]
MakeParams = Callable[..., Params]

MEDIAN = {"categories": "one_hot", "missing": "median", "scale": True}
KEEP = {"categories": "ordinal", "missing": "keep"}


@pytest.mark.parametrize(
    ("target", "estimator", "preprocessing", "least"),
    [
        ("returned", "sklearn.linear_model.LogisticRegression", MEDIAN, 0.85),
        ("returned", "sklearn.ensemble.RandomForestClassifier", KEEP, 0.85),
        ("returned", "sklearn.ensemble.GradientBoostingClassifier", MEDIAN, 0.85),
        ("returned", "sklearn.ensemble.HistGradientBoostingClassifier", KEEP, 0.85),
        ("returned", "sklearn.svm.LinearSVC", MEDIAN, 0.85),
        ("returned", "sklearn.neighbors.KNeighborsClassifier", MEDIAN, 0.8),
        ("returned", "sklearn.tree.DecisionTreeClassifier", KEEP, 0.8),
        ("returned", "sklearn.naive_bayes.GaussianNB", MEDIAN, 0.8),
        ("size", "sklearn.ensemble.HistGradientBoostingClassifier", KEEP, 0.7),
        ("size", "sklearn.linear_model.LogisticRegression", MEDIAN, 0.7),
        ("size", "sklearn.svm.LinearSVC", MEDIAN, 0.65),
        ("stars", "sklearn.ensemble.RandomForestClassifier", KEEP, 0.7),
        ("price", "sklearn.ensemble.HistGradientBoostingRegressor", KEEP, 0.8),
        ("price", "sklearn.linear_model.Ridge", MEDIAN, 0.8),
        ("price", "sklearn.svm.SVR", MEDIAN, 0.6),
        ("price", "sklearn.tree.DecisionTreeRegressor", KEEP, 0.6),
        ("price", "sklearn.neighbors.KNeighborsRegressor", MEDIAN, 0.6),
    ],
)
def test_estimators_of_many_kinds_learn_and_are_served_alike(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    tmp_path: Path,
    target: str,
    estimator: str,
    preprocessing: dict[str, Any],
    least: float,
) -> None:
    hyperparameters = {"max_iter": 20} if "HistGradient" in estimator else {}
    params = make_params(
        target, estimator, preprocessing=preprocessing, hyperparameters=hyperparameters
    )
    trained = train(make_orders(400, seed=1), params, shop_schema)
    manifest = write(trained, params, tmp_path)
    fresh = make_orders(200, seed=2)
    matrix = matrix_of(fresh, trained.features)

    answers = load_predictor(tmp_path).predict(matrix)

    truth = fresh.get_column(target).to_list()
    if target == "price":
        assert manifest["classes"] is None
        assert np.corrcoef(truth, answers.labels)[0, 1] ** 2 > least
        by_sklearn = trained.pipeline.predict(matrix)
        np.testing.assert_allclose(answers.labels, by_sklearn, rtol=1e-4, atol=1e-4)
        return
    assert manifest["classes"] == sorted(set(truth))
    assert np.mean([a == b for a, b in zip(answers.labels, truth, strict=True)]) > least
    assert manifest["probabilities"] is (estimator != "sklearn.svm.LinearSVC")
    assert (answers.probabilities is not None) is manifest["probabilities"]
    if answers.probabilities is not None:
        by_sklearn = trained.pipeline.predict_proba(matrix)
        np.testing.assert_allclose(answers.probabilities, by_sklearn, atol=1e-5)


def test_the_manifest_says_what_was_trained_and_names_the_files_by_hash(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams, tmp_path: Path
) -> None:
    params = make_params("size")
    (tmp_path / "model.onnx").write_bytes(b"from an older run")

    manifest = write(train(make_orders(300), params, shop_schema), params, tmp_path)

    assert json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8")) == manifest
    assert manifest["task"] == "classification"
    assert manifest["target"] == "size"
    assert manifest["classes"] == ["large", "medium", "small"]
    assert manifest["rows"] == 300
    assert manifest["seed"] == 7
    assert manifest["served"] == "model.onnx"
    assert manifest["parity"]["max_difference"] <= 1e-5
    assert set(manifest["files"]) == {"model.joblib", "model.onnx"}
    for name, recorded in manifest["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == recorded
    pipeline = joblib.load(tmp_path / "model.joblib")
    assert has_probabilities(pipeline)
    assert pipeline.named_steps["estimator"].random_state == 7


def test_a_given_random_state_wins_over_the_seed(
    shop_schema: Schema, make_params: MakeParams
) -> None:
    features = Features.from_schema(shop_schema)
    forest = "sklearn.ensemble.RandomForestClassifier"

    seeded = make_params("returned", forest).train
    given = make_params("returned", forest, hyperparameters={"random_state": 3}).train

    assert build_pipeline(seeded, "classification", features)[-1].random_state == 7
    assert build_pipeline(given, "classification", features)[-1].random_state == 3


PREPARED = [[1, 2, 3, 0, 0, 1], [4, 5, 6, 0, 0, 0], [1, 2, 3, 1, 0, 0]]


def test_one_hot_gives_each_category_of_the_schema_a_column(
    shop_schema: Schema, make_params: MakeParams
) -> None:
    matrix = np.array([[1, 2, 3, 2], [4, 5, 6, -1], [1, 2, 3, 0]], dtype=np.float32)
    settings = make_params("returned", preprocessing={"categories": "one_hot", "missing": "keep"})
    pipeline = build_pipeline(settings.train, "classification", Features.from_schema(shop_schema))

    prepared = pipeline.named_steps["prepare"].fit_transform(matrix)

    np.testing.assert_array_equal(prepared, PREPARED)


def test_median_and_scale_act_on_numbers_only(shop_schema: Schema, make_params: MakeParams) -> None:
    matrix = np.array([[1, 0, 0, 2], [np.nan, 2, 1, 1], [3, 4, 1, -1]], dtype=np.float32)
    preprocessing = {"categories": "ordinal", "missing": "median", "scale": True}
    settings = make_params("returned", preprocessing=preprocessing)
    pipeline = build_pipeline(settings.train, "classification", Features.from_schema(shop_schema))

    prepared = pipeline.named_steps["prepare"].fit_transform(matrix)

    np.testing.assert_allclose(prepared[:, 0], [-np.sqrt(1.5), 0, np.sqrt(1.5)], rtol=1e-6)
    np.testing.assert_allclose(prepared[:, :3].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(prepared[:, 3], [2, 1, -1])


@pytest.mark.parametrize(
    ("train_settings", "message"),
    [
        (
            {"estimator": "sklearn.ensembles.RandomForestClassifier"},
            r"params\.yaml: train\.estimator: sklearn\.ensembles\.RandomForestClassifier: cannot "
            r"import sklearn\.ensembles: .*; did you mean sklearn\.ensemble\.RandomForestClassif",
        ),
        (
            {"estimator": "sklearn.linear_model.LogisticRegresion"},
            r"train\.estimator: sklearn\.linear_model has no class LogisticRegresion; did you "
            r"mean sklearn\.linear_model\.LogisticRegression",
        ),
        (
            {"estimator": "sklearn.metrics.accuracy_score"},
            r"train\.estimator: sklearn\.metrics\.accuracy_score is not a scikit-learn estimator",
        ),
        (
            {"estimator": "json.JSONDecoder"},
            r"train\.estimator: json\.JSONDecoder is not a scikit-learn estimator",
        ),
        (
            {"estimator": "sklearn.linear_model.Ridge"},
            r"train\.estimator: sklearn\.linear_model\.Ridge is not made for classification",
        ),
        (
            {"hyperparameters": {"max_itre": 3, "zzz": 1}},
            r"train\.hyperparameters: HistGradientBoostingClassifier has no max_itre; did you "
            r"mean max_iter\?\n.*has no zzz; it has categorical_features, ",
        ),
        (
            {"estimator": "sklearn.ensemble.StackingClassifier"},
            r"train\.hyperparameters: StackingClassifier refuses them: .*estimators",
        ),
        (
            {"estimator": "sklearn.linear_model.LogisticRegression"},
            r"train\.preprocessing\.missing: `keep`, but sklearn\.linear_model\."
            r"LogisticRegression takes no missing values, .*: weight, member; set it to `median`",
        ),
    ],
)
def test_impossible_settings_are_named_by_their_key(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    train_settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(SettingsError, match=message):
        train(make_orders(60), make_params("returned", **train_settings), shop_schema)


def test_columns_that_may_be_missing_later_are_refused_now(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> None:
    complete = make_orders(100).drop_nulls()
    params = make_params("returned", "sklearn.linear_model.LogisticRegression")

    with pytest.raises(SettingsError, match="takes no missing values"):
        train(complete, params, shop_schema)


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"max_iter": -1}, r"train\.estimator: .* could not be fitted to 60 rows: .*max_iter"),
        (
            {"learning_rate": "1e-2"},
            r"learning_rate is text to YAML; write 0\.01 with a decimal point",
        ),
    ],
)
def test_an_estimator_that_fails_to_fit_says_why(
    shop_schema: Schema,
    make_orders: Orders,
    make_params: MakeParams,
    hyperparameters: dict[str, Any],
    message: str,
) -> None:
    params = make_params("returned", hyperparameters=hyperparameters)

    with pytest.raises(TrainError, match=message):
        train(make_orders(60), params, shop_schema)


class Secretive(DecisionTreeClassifier):  # type: ignore[misc]
    """Keeps what cannot be stored."""

    def fit(self, matrix: Any, target: Any) -> Secretive:
        self.secret_ = lambda: 1
        return super().fit(matrix, target)


def test_an_estimator_that_cannot_be_stored_says_why(
    tmp_path: Path, shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> None:
    params = make_params("returned", f"{__name__}.Secretive")
    trained = train(make_orders(50), params, shop_schema)

    with pytest.raises(TrainError, match=r"cannot be stored: .*; keep functions defined inside"):
        write(trained, params, tmp_path)

    assert not (tmp_path / "model.joblib").exists()


def test_a_classifier_needs_two_classes(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> None:
    one_class = make_orders(60).with_columns(returned=False)

    with pytest.raises(TableError, match=r"`returned`: holds only False in 60 training rows"):
        train(one_class, make_params("returned"), shop_schema)


def test_classes_are_sorted_json_values() -> None:
    assert classes_of(pl.Series("t", [True, False, True])) == (False, True)
    assert classes_of(pl.Series("t", [10, 9, 2])) == (2, 9, 10)
    by_rank = pl.Series("t", ["small", "large"], dtype=pl.Enum(["small", "large"]))
    assert classes_of(by_rank) == ("large", "small")


def test_unknown_classes_and_missing_targets_are_counted() -> None:
    target = pl.Series("size", ["small", "huge", "tiny", "huge"])
    with pytest.raises(TableError, match=r"`size`: 3 rows hold classes .*: huge, tiny"):
        target_values(target, ["small", "large"])
    with pytest.raises(TableError, match=r"`size`: 1 rows have no value"):
        target_values(pl.Series("size", [1.0, None]), None)
    np.testing.assert_array_equal(target_values(target, ["huge", "small", "tiny"]), [1, 0, 2, 0])


@pytest.fixture
def project(
    tmp_path: Path, shop_schema: Schema, make_orders: Orders, make_params: MakeParams
) -> Path:
    """A folder with what the stage reads, for a forest, whose result hangs on its seed."""
    params = make_params(
        "returned",
        "sklearn.ensemble.RandomForestClassifier",
        hyperparameters={"n_estimators": 10},
        preprocessing={"categories": "one_hot", "missing": "median"},
    )
    settings = params.model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    schema = shop_schema.model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    (tmp_path / "data/split").mkdir(parents=True)
    make_project(tmp_path)
    make_orders(300).write_parquet(tmp_path / "data/split/train.parquet")
    return tmp_path


def test_training_twice_gives_the_same_bytes_in_other_processes(project: Path) -> None:
    written = []
    # Sets of a few words are walked in different orders under these two.
    for hash_seed in ("1", "6"):
        command = [sys.executable, "-m", "gitops_ml", "train"]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path),
            "PYTHONHASHSEED": hash_seed,
        }
        subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)
        folder = project / "models"
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})

    assert written[0].keys() == {"model.joblib", "model.onnx", "manifest.json"}
    assert written[0] == written[1]


def test_another_seed_gives_another_model(
    shop_schema: Schema, make_orders: Orders, make_params: MakeParams, tmp_path: Path
) -> None:
    forest = "sklearn.ensemble.RandomForestClassifier"

    manifests = [
        write(train(make_orders(200), params, shop_schema), params, tmp_path / str(seed))
        for seed in (1, 2)
        for params in [make_params("returned", forest, seed=seed)]
    ]

    assert manifests[0]["files"]["model.joblib"] != manifests[1]["files"]["model.joblib"]


def test_the_stage_tells_mistakes_without_a_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert main() == 0
    assert "on 300 rows; served as ONNX" in capsys.readouterr().out

    (project / "data/split/train.parquet").unlink()
    assert main() == 1
    assert "train.parquet: no such file; run `make pipeline`" in capsys.readouterr().err

    (project / "params.yaml").unlink()
    assert main() == 1
    assert "params.yaml: no such file" in capsys.readouterr().err


def test_code_that_would_not_travel_along_trains_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    package = project / "src" / PACKAGE
    package.mkdir(parents=True)
    (project / "src" / "depth.py").write_text("DEPTH = 3\n", encoding="utf-8")
    (package / "model.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\n\n\n"
        "class Shallow(DecisionTreeClassifier):\n"
        "    def fit(self, X, y):\n"
        "        from depth import DEPTH\n"
        "        self.max_depth = DEPTH\n"
        "        return super().fit(X, y)\n",
        encoding="utf-8",
    )
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"estimator": f"{PACKAGE}.model.Shallow", "hyperparameters": {}}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    assert main() == 1

    assert "src/depth.py: is imported, but no stage depends on it" in capsys.readouterr().err
    assert not (project / "models").exists()


def test_where_a_model_was_trained_is_written_beside_it_and_not_in_it(
    make_orders: Orders,
    make_params: MakeParams,
    shop_schema: Schema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = make_params("price", "sklearn.linear_model.Ridge", preprocessing=MEDIAN)
    trained = train(make_orders(100), params, shop_schema)
    found = []
    for patch in ("3.11.1", "3.11.99"):
        monkeypatch.setattr(platform, "python_version", lambda patch=patch: patch)
        manifest = write(trained, params, tmp_path / patch)
        write_environment(manifest, tmp_path / "reports" / "environment.json")
        environment = json.loads((tmp_path / "reports" / "environment.json").read_text())
        assert environment["python"] == patch
        assert environment["sha256"] == manifest["files"][manifest["served"]]
        found.append({one.name: one.read_bytes() for one in (tmp_path / patch).iterdir()})
    assert found[0] == found[1]
