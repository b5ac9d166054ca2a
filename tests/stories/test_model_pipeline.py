"""Training and evaluation end to end, and planted defects: each turns its model test red."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bake, Run

pytestmark = pytest.mark.slow

TASKS = ("classification", "regression")
STAGES = ("environment", "ingest", "validate", "split", "train", "evaluate")
CURVES = {
    "classification": {"calibration", "precision_recall", "roc"},
    "regression": {"predicted_observed", "residuals"},
}
FOREST = {
    "estimator": "sklearn.ensemble.RandomForestClassifier",
    "hyperparameters": {"n_estimators": 20, "max_depth": 6},
}


def read(project: Path, name: str) -> Any:
    return json.loads((project / name).read_text(encoding="utf-8"))


def change_yaml(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def replace(project: Path, name: str, old: str, new: str) -> None:
    """Change the one place in a module of the engine where `old` stands."""
    path = project / "engine" / "src" / "gitops_ml" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("task", TASKS)
def test_the_pipeline_trains_and_measures_a_useful_model(pipelined: Bake, task: str) -> None:
    project = pipelined(task)

    metrics, report = (
        read(project, "reports/metrics.json"),
        read(project, "reports/evaluation.json"),
    )
    manifest, golden = read(project, "models/manifest.json"), read(project, "reports/golden.json")

    assert metrics == {name: found["value"] for name, found in report["metrics"].items()}
    for found in report["metrics"].values():
        assert found["low"] < found["value"] < found["high"]
    if task == "classification":
        assert report["metrics"]["roc_auc"]["low"] > 0.7
        assert metrics["roc_auc"] < 0.9, "too good to be true for flights"
        assert metrics["log_loss"] < report["baseline"]["log_loss"]
        assert manifest["classes"] == [False, True]
    else:
        assert report["metrics"]["mae"]["high"] < report["baseline"]["mae"]
        assert 0.1 < metrics["r2"] < 0.6, "too good to be true for flights"
        assert manifest["classes"] is None
    assert manifest["served"] == "model.onnx"
    origins = [one["value"] for one in report["slices"] if one["column"] == "origin"]
    assert origins == ["EWR", "JFK", "LGA"]
    assert len(golden["records"]) == 20
    pictures = {path.stem for path in (project / "reports/plots/images").iterdir()}
    assert pictures == CURVES[task] | {"importance"}


@pytest.mark.parametrize("task", TASKS)
def test_the_projects_own_model_tests_are_green(
    pipelined: Bake, project_run: Run, task: str
) -> None:
    done = project_run(pipelined(task), "pytest", "tests/test_model.py", "-q")

    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed, [23] skipped", done.stdout)


@pytest.mark.parametrize("task", TASKS)
def test_a_second_run_does_nothing(pipelined: Bake, project_run: Run, task: str) -> None:
    project = pipelined(task)

    done = project_run(project, "dvc", "repro", check=True)

    assert set(re.findall(r"Stage '(\w+)' didn't change, skipping", done.stdout)) == set(STAGES)
    assert "Running stage" not in done.stdout
    assert project_run(project, "git", "status", "--porcelain").stdout == ""


def test_retraining_gives_the_recorded_bytes(pipelined: Bake, project_run: Run) -> None:
    project = pipelined("classification")
    recorded = read(project, "models/manifest.json")
    for path in (project / "models").iterdir():
        path.unlink()

    project_run(project, "gitops-ml", "train", check=True)

    assert read(project, "models/manifest.json") == recorded
    assert project_run(project, "dvc", "status", "train").stdout.strip().endswith("up to date.")


def plots(project: Path, project_run: Run, *arguments: str) -> dict[str, set[str]]:
    """The revisions that DVC can draw each plot for."""
    done = project_run(project, "dvc", "plots", *arguments, "--json", check=True)
    assert "failed to load" not in done.stderr
    answer = json.loads(done.stdout)
    assert "errors" not in answer
    return {
        name: {revision for one in drawn for revision in one["revisions"]}
        for name, drawn in answer["data"].items()
    }


def expected_plots(task: str) -> set[str]:
    return {
        "reports/plots/importance.csv",
        "reports/plots/images/importance.png",
        *(f"reports/plots/curves/{name}.csv" for name in CURVES[task]),
        *(f"reports/plots/images/{name}.png" for name in CURVES[task]),
    }


@pytest.mark.parametrize("task", TASKS)
def test_dvc_compares_metrics_and_plots_after_a_change(
    pipelined: Bake, project_run: Run, task: str
) -> None:
    project = pipelined(task)
    before = read(project, "reports/metrics.json")
    change_yaml(project / "params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=5))

    project_run(project, "dvc", "repro", check=True)

    after = read(project, "reports/metrics.json")
    shown = json.loads(project_run(project, "dvc", "metrics", "diff", "--json", check=True).stdout)
    changes = shown.get("diff", shown)
    assert changes["reports/metrics.json"] == {
        name: {
            "old": before[name],
            "new": after[name],
            "diff": pytest.approx(after[name] - before[name]),
        }
        for name in before
    }
    primary = next(iter(before))
    assert (after[primary] > before[primary]) == (task == "regression")
    compared = plots(project, project_run, "diff", "HEAD")
    assert compared == {name: {"HEAD", "workspace"} for name in expected_plots(task)}
    page = project_run(project, "dvc", "plots", "diff", "HEAD", check=True)
    assert (project / "dvc_plots/index.html").is_file(), page.stdout


def test_another_task_needs_no_other_dvc_yaml(
    pipelined: Bake, bake: Bake, project_run: Run
) -> None:
    project = pipelined("classification")
    other = bake(task="regression")
    (project / "params.yaml").write_bytes((other / "params.yaml").read_bytes())

    project_run(project, "dvc", "repro", check=True)

    assert set(read(project, "reports/metrics.json")) == {"mae", "rmse", "r2", "waiting_cost"}
    assert set(plots(project, project_run, "show")) == expected_plots("regression")


def test_missing_outputs_say_what_to_run(bake: Bake, project_run: Run) -> None:
    done = project_run(bake(), "pytest", "tests/test_model.py", "-q")

    assert done.returncode == 1
    assert "passed" not in done.stdout
    assert "models/manifest.json is missing: run `make pipeline` first" in done.stdout


FIT = "            pipeline.fit(matrix, target)"
TARGET = "    target = target_values(column, classes)"
MATRIX = "    matrix = matrix_of(frame, features)"
SEED = "            built.set_params(**unseeded)\n"
PARITY = "    if not difference <= TOLERANCE:"
ENCODED = "    if problems:\n"
ORIGIN = 'frame.get_column("origin").to_numpy() == "LGA"'


def forest(project: Path) -> None:
    change_yaml(project / "params.yaml", lambda p: p["train"].update(FOREST))


def shuffled_label(project: Path) -> None:
    """The label is shuffled on its way to the estimator."""
    replace(project, "model/train.py", TARGET, TARGET.replace("column,", "column.shuffle(seed=1),"))


def nan_in_serving(project: Path) -> None:
    """What is served answers wrongly for missing values: a forest's ONNX form, unchecked."""
    forest(project)
    replace(project, "model/export.py", PARITY, "    if False:")


def no_seed(project: Path) -> None:
    """Two trainings differ: the seed never reaches the estimator."""
    forest(project)
    replace(project, "model/compose.py", SEED, "")


def unsorted_export(project: Path) -> None:
    """The export follows the order of a Python set."""
    replace(
        project,
        "model/export.py",
        "sorted(model.opset_import, key=lambda one: str(one.domain))",
        "list(model.opset_import)",
    )


def no_rain(project: Path) -> None:
    """The model cannot learn from precipitation."""
    ignored = f'{MATRIX}\n    matrix[:, features.names.index("precipitation")] = 0'
    replace(project, "model/train.py", MATRIX, ignored)


def flipped_slice(project: Path) -> None:
    """One airport's labels are the wrong way round."""
    replace(
        project,
        "model/train.py",
        TARGET,
        f"{TARGET}\n    target = np.where({ORIGIN}, 1 - target, target)",
    )


def biased_slice(project: Path) -> None:
    """One airport's delays are recorded half an hour too long."""
    replace(project, "model/train.py", TARGET, f"{TARGET} + 30 * ({ORIGIN})")


def unknown_category(project: Path) -> None:
    """A category that training never saw is an error to the model."""
    change_yaml(
        project / "params.yaml",
        lambda p: p["train"]["preprocessing"].update(categories="one_hot"),
    )
    replace(project, "model/train.py", 'handle_unknown="ignore"', 'handle_unknown="error"')


def scrambled_rows(project: Path) -> None:
    """Rows and labels no longer belong together."""
    replace(project, "model/train.py", FIT, FIT.replace("matrix,", "matrix[::-1],"))


def other_label(project: Path) -> None:
    """The estimator is fitted to something else than the label it is given."""
    evening = '(matrix[:, features.names.index("scheduled_departure")] > 900).astype(int)'
    replace(project, "model/train.py", FIT, FIT.replace("target", evening))


def batch_statistics(project: Path) -> None:
    """An answer depends on the rows that are scored with it."""
    centred = f"    matrix -= np.nanmean(matrix, axis=0)\n{ENCODED}"
    replace(project, "features/matrix.py", ENCODED, centred)


def answer_in_the_features(project: Path) -> None:
    """The encoder looks at the outcome."""
    peeping = f'    matrix[:, 3] += frame.get_column("arrival_delay").to_numpy()\n{ENCODED}'
    replace(project, "features/matrix.py", ENCODED, peeping)


def invariant_column(project: Path) -> None:
    """The contract forbids what the model does."""
    change_yaml(project / "contract.yaml", lambda c: c["behaviour"].update(invariant=["carrier"]))


def another_model(project: Path) -> None:
    """The model is no longer the one that was evaluated."""
    change_yaml(
        project / "params.yaml", lambda p: p["train"]["hyperparameters"].update(max_iter=100)
    )


def nothing_learnt(project: Path) -> None:
    """The model gives everyone the same answer."""
    change_yaml(
        project / "params.yaml",
        lambda p: p["train"]["hyperparameters"].update(max_depth=1, learning_rate=1e-9),
    )


# Task, defect, whether the model must be trained again, the test that must fail, what it says.
DEFECTS = [
    ("classification", shuffled_label, True, "test_it_beats", "no certain gain"),
    ("regression", shuffled_label, True, "test_it_beats", "no certain gain"),
    (
        "classification",
        nan_in_serving,
        True,
        "test_it_answers_as_trained_when",
        "served and trained model differ when these are missing: {'",
    ),
    ("classification", no_seed, False, "test_training_twice", "model.joblib"),
    ("regression", unsorted_export, False, "test_training_twice", "onnx"),
    ("classification", no_rain, True, "test_the_answers", "precipitation = 0.3"),
    ("regression", no_rain, True, "test_the_answers", "precipitation = 0.3"),
    ("classification", flipped_slice, True, "test_probabilities_come", "'origin = LGA': 0."),
    ("regression", biased_slice, True, "test_errors", "'origin = LGA': "),
    ("classification", unknown_category, True, "test_it_answers_for", "unknown"),
    (
        "classification",
        scrambled_rows,
        False,
        "test_it_can_learn",
        "roc_auc made up for",
    ),
    ("classification", other_label, False, "test_nothing", "assert 0."),
    (
        "classification",
        batch_statistics,
        False,
        "test_a_row_alone",
        "Not equal to tolerance",
    ),
    (
        "classification",
        answer_in_the_features,
        False,
        "test_columns_that_are_no",
        "Arrays are not equal",
    ),
    (
        "classification",
        invariant_column,
        False,
        "test_columns_that_the_contract",
        "changes answers by up to: {'carrier': ",
    ),
    ("regression", another_model, True, "test_it_repeats", "assert "),
    ("classification", nothing_learnt, True, "test_it_does_not", "assert "),
]


@pytest.mark.parametrize(
    ("task", "defect", "train", "test", "words"),
    DEFECTS,
    ids=[f"{task}-{defect.__name__}" for task, defect, *_ in DEFECTS],
)
def test_a_planted_defect_turns_its_model_test_red(
    pipelined: Bake,
    project_run: Run,
    task: str,
    defect: Callable[[Path], None],
    train: bool,
    test: str,
    words: str,
) -> None:
    project = pipelined(task)
    defect(project)
    if train:
        project_run(project, "gitops-ml", "train", check=True)
    # What is not as the lock names it is refused before it is tested.
    project_run(project, "dvc", "commit", "--quiet", "--force", check=True)

    done = project_run(project, "pytest", "tests/test_model.py", "-q", "-k", test)

    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert "error" not in done.stdout.splitlines()[-1]
    assert words in done.stdout
