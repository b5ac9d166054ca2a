"""The judge and the change: two projects, of which one may have been written by an attacker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from commands import subcommand
from projects import PACKAGE, forget_package, make_project

from gitops_ml.core import paths
from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.elsewhere import note
from gitops_ml.core.schema import Schema
from gitops_ml.core.settings import Params
from gitops_ml.gate import gate, opponent
from gitops_ml.gate.added_terms import AddedTermsError
from gitops_ml.gate.champion import Champion
from gitops_ml.gate.contestant import ContestantError
from gitops_ml.gate.own_engine import BrokenBaseError
from gitops_ml.gate.verdict import Consent, Finding, Report

NO_BASE = "0" * 40
FEATURES = """
from gitops_ml.features import derived


@derived(type="category", categories=["few", "many"])
def bundle(items):
    return ["few" if one < 5 else "many" for one in items.tolist()]
"""
METRICS = """
from gitops_ml.model import metric


@metric(better="smaller", task="classification")
def cost(truth, prediction, weights):
    return weights @ (truth != prediction) / weights.sum(axis=-1)
"""
# Says who runs it, and which columns the rows have that it is asked about.
SPY = """
import os, pathlib, sys
import polars
with pathlib.Path(os.environ["SPIED"]).open("a") as spied:
    asked = sys.argv[sys.argv.index("--rows") + 1] if "--rows" in sys.argv else None
    columns = polars.read_parquet(asked).columns if asked else []
    print(os.getpid(), *columns, *(k for k in os.environ if k.startswith("GITHUB_")), file=spied)
"""
CONTRACT = {
    "model": {
        "metrics": {"roc_auc": {"floor": 0.5}, "cost": {"ceiling": 0.5}},
        "slices": [{"column": "bundle", "metric": "roc_auc", "floor": 0.3, "min_rows": 5}],
        "size_mb": 10,
        "latency_p99_ms": 1000,
    },
    "data": {"rows_min": 10},
}


def make_folder(folder: Path, schema: Schema, params: Params, orders: pl.DataFrame) -> Path:
    """A project that has not run yet."""
    make_project(folder)
    columns = schema.model_dump(mode="json", exclude_defaults=True)["columns"]
    columns["price"]["outcome"] = True
    settings = params.model_dump(mode="json")
    settings["data"]["key"] = ["order"]
    for path, document in (
        (paths.SCHEMA, {"columns": columns}),
        (paths.PARAMS, settings),
        (paths.CONTRACT, CONTRACT),
    ):
        (folder / path).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    package = folder / "src" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "features.py").write_text(FEATURES, encoding="utf-8")
    (package / "metrics.py").write_text(METRICS, encoding="utf-8")
    (folder / "data" / "landed").mkdir(parents=True)
    orders.write_parquet(folder / "data" / "landed" / "orders.parquet")
    return folder


_trained: list[Path] = []


@pytest.fixture
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    shop_schema: Schema,
    make_params: Callable[..., Params],
    make_orders: Callable[..., pl.DataFrame],
) -> Path:
    """A project after its training, made when first asked for; not to be changed."""
    if not _trained:
        folder = tmp_path_factory.mktemp("trained") / "project"
        make_folder(folder, shop_schema, make_params("returned"), make_orders(400))
        with contextlib.chdir(folder):
            run_pipeline()
        _trained.append(folder)
    return _trained[0]


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A checkout of the base."""
    return Path(shutil.copytree(trained, tmp_path / "home"))


@pytest.fixture
def change(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained copy of the base in the current folder; after an edit, `run_pipeline` again."""
    folder = Path(shutil.copytree(trained, tmp_path / "change"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SPIED", str(tmp_path / "spied"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, home: Path) -> Callable[..., Report]:
    """Judge the change in the current folder by the base's project, without a champion."""

    def judge(own: bool = False) -> Report:
        # What DVC and git would say is not what is tested here.
        monkeypatch.setattr(gate, "current_model", lambda root: LockedOutput("1.dir", "train"))
        monkeypatch.setattr(gate, "tolerance_note", lambda root: None)
        monkeypatch.setattr(gate, "find_base", lambda root, revision: None)
        return gate.judge(Path(), NO_BASE, Consent(), None if own else home)

    return judge


def run_pipeline() -> None:
    for stage in ("ingest", "split", "train"):
        assert subcommand(stage)() == 0
    forget_package()


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def found(findings: tuple[Finding, ...], metric: str) -> Finding:
    (one,) = (finding for finding in findings if finding.metric == metric)
    return one


def test_the_change_runs_in_processes_of_its_own_that_see_no_outcome(
    change: Path, judged: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("features", "metrics"):
        file = change / "src" / PACKAGE / f"{name}.py"
        file.write_text(file.read_text(encoding="utf-8") + SPY, encoding="utf-8")
    run_pipeline()
    spied = tmp_path / "spied"
    spied.unlink()
    monkeypatch.setenv("GITHUB_TOKEN", "secret")

    report = judged()

    assert report.verdict == "promote", report.reasons
    (line,) = spied.read_text(encoding="utf-8").splitlines()
    process, *columns = line.split()
    assert int(process) != os.getpid()
    # Neither the target nor what else is known only later, and no token.
    assert set(columns) == {"order", "weight", "items", "member", "colour", "size", "stars"}
    assert report.rows == len(pl.read_parquet(change / paths.TEST))
    assert {found.value for found in report.slices} == {"few", "many"}
    assert report.challenger.sha256 is not None
    measured = {limit.term: limit.value for limit in report.limits}
    assert measured["model.size_mb"] * 1e6 == (change / paths.ONNX_MODEL).stat().st_size
    assert measured["model.latency_p99_ms"] > 0
    assert measured["data.rows_min"] == 400


def test_a_metric_of_the_base_is_measured_by_the_base(
    change: Path, judged: Callable[..., Report]
) -> None:
    honest = found(judged().metrics, "cost").challenger
    file = change / "src" / PACKAGE / "metrics.py"
    file.write_text(METRICS.replace("(truth != prediction)", "(truth < 0)"), encoding="utf-8")
    run_pipeline()
    assert found(judged().metrics, "cost").challenger == honest
    assert found(judged(own=True).metrics, "cost").challenger == 0


ADDED = """

@metric(better="larger", task="classification")
def share_found(truth, prediction, weights):
    hits = weights * (truth == 1)
    return (hits @ (prediction == 1)) / hits.sum(axis=-1)
"""


def test_a_metric_that_only_the_change_has_is_measured_by_its_own_process_and_can_block(
    change: Path, judged: Callable[..., Report], tmp_path: Path
) -> None:
    def ask_for_more(contract: Any) -> None:
        contract["model"]["metrics"]["share_found"] = {"floor": 0.9999}
        contract["model"]["slices"].append(
            {"column": "colour", "metric": "share_found", "floor": 0.0, "min_rows": 5}
        )

    file = change / "src" / PACKAGE / "metrics.py"
    file.write_text(METRICS + ADDED + SPY, encoding="utf-8")
    edit(change / paths.CONTRACT, ask_for_more)
    run_pipeline()
    (tmp_path / "spied").unlink(missing_ok=True)

    report = judged()

    assert report.verdict == "block"
    (reason,) = report.reasons
    assert "share_found" in reason
    assert "is below the floor 0.9999" in reason
    assert {one.metric for one in report.metrics} == {"roc_auc", "cost", "share_found"}
    assert {one.value for one in report.slices if one.column == "colour"} >= {"red", "green"}
    own = found(judged(own=True).metrics, "share_found")
    assert found(report.metrics, "share_found") == own
    spied = (tmp_path / "spied").read_text(encoding="utf-8").splitlines()[:1]
    assert [line for line in spied if int(line.split()[0]) == os.getpid()] == []

    file.write_text(METRICS + ADDED + "\nraise SystemExit(0)\n", encoding="utf-8")
    with pytest.raises((AddedTermsError, ContestantError), match=r"share_found|does not answer"):
        judged()


def test_a_slice_keeps_the_meaning_that_the_base_gives_to_its_column(
    change: Path, judged: Callable[..., Report]
) -> None:
    before = {one.value: one.rows for one in judged().slices}
    file = change / "src" / PACKAGE / "features.py"
    file.write_text(FEATURES.replace("one < 5", "one < 2.5"), encoding="utf-8")
    run_pipeline()
    assert {one.value: one.rows for one in judged().slices} == before
    assert {one.value: one.rows for one in judged(own=True).slices} != before


def test_a_column_that_only_the_change_derives_can_be_a_slice(
    change: Path, judged: Callable[..., Report]
) -> None:
    file = change / "src" / PACKAGE / "features.py"
    more = FEATURES.split("\n\n\n", 1)[1].replace("def bundle", "def pack")
    file.write_text(f"{FEATURES}\n\n{more}", encoding="utf-8")
    edit(
        change / paths.CONTRACT,
        lambda contract: contract["model"]["slices"][0].update(column="pack"),
    )
    run_pipeline()
    assert {one.column for one in judged().slices} == {"pack"}


def test_other_test_rows_than_the_data_give_do_not_count(
    change: Path, judged: Callable[..., Report]
) -> None:
    all_rows = judged()
    assert not any(str(paths.TEST) in note for note in all_rows.notes)
    test = pl.read_parquet(change / paths.TEST)
    test.head(20).write_parquet(change / paths.TEST)
    report = judged()
    assert report.metrics == all_rows.metrics
    assert any("does not hold the rows that the landed files and the split" in note
               for note in report.notes)  # fmt: skip
    # They need not be there at all; without the landed files they are what there is.
    (change / paths.TEST).unlink()
    assert judged().metrics == all_rows.metrics
    test.head(20).write_parquet(change / paths.TEST)
    shutil.rmtree(change / "data" / "landed")
    report = judged()
    assert report.rows == 20
    assert any("those of the change's own run" in note for note in report.notes)


def test_the_report_says_who_trained_a_model_elsewhere(
    change: Path, judged: Callable[..., Report]
) -> None:
    stage = {"cmd": "gitops-ml train", "outs": [{"path": "models", "md5": "1.dir"}]}
    paths.DVC_LOCK.write_text(
        yaml.safe_dump({"schema": "2.0", "stages": {"train": stage}}), encoding="utf-8"
    )
    note(Path(), "gpu-cluster", "1.dir")
    assert "The model was trained elsewhere, by gpu-cluster." in judged().notes
    # What is said of another model says nothing of this one.
    note(Path(), "gpu-cluster", "2.dir")
    assert not [one for one in judged().notes if "elsewhere" in one]


SABOTAGE = """
import pathlib, sys
if "answer" in sys.argv:
    for name, text in {texts!r}.items():
        pathlib.Path(name).write_text(text)
"""


def test_what_the_challenger_writes_over_the_judge_comes_too_late(
    change: Path, home: Path, judged: Callable[..., Report]
) -> None:
    honest = judged()
    own = home / "src" / PACKAGE
    texts = {
        str(own / "metrics.py"): METRICS.replace("(truth != prediction)", "(truth < 0)"),
        str(own / "features.py"): FEATURES.replace("one < 5", "one < 2"),
        str(home / paths.CONTRACT): yaml.safe_dump({"model": {}}),
        str(change / paths.CONTRACT): yaml.safe_dump({"model": {}}),
    }
    file = change / "src" / PACKAGE / "features.py"
    file.write_text(FEATURES + SABOTAGE.format(texts=texts), encoding="utf-8")
    run_pipeline()
    report = judged()
    assert (own / "metrics.py").read_text(encoding="utf-8") == texts[str(own / "metrics.py")]
    assert (report.metrics, report.slices) == (honest.metrics, honest.slices)


@pytest.mark.parametrize("lie", ["raise SystemExit('no')", "os._exit(0)"])
def test_a_model_that_does_not_answer_is_not_judged(
    change: Path, judged: Callable[..., Report], lie: str
) -> None:
    file = change / "src" / PACKAGE / "features.py"
    file.write_text(f"import os, sys\nif 'answer' in sys.argv: {lie}\n{FEATURES}", encoding="utf-8")
    run_pipeline()
    with pytest.raises(ContestantError, match="the model of this change does not answer"):
        judged()


BASE_ROWS = 1000


def commit_as_base(change: Path) -> None:
    """Commit what ran, with a lock that says so."""
    ran = {
        "train": {"cmd": "gitops-ml train", "outs": [{"path": "models", "md5": "1.dir"}]},
        "split": {"cmd": "gitops-ml split", "outs": [{"path": "data/split", "md5": "2.dir"}]},
    }
    lock = yaml.safe_dump({"schema": "2.0", "stages": ran})
    (change / paths.DVC_LOCK).write_text(lock, encoding="utf-8")
    profile = change / paths.DATA_PROFILE
    profile.parent.mkdir(exist_ok=True)
    profile.write_text(json.dumps({"rows": BASE_ROWS}), encoding="utf-8")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "--all"], [*identity, "commit", "-qm", "Start"]):
        subprocess.run(["git", *command], cwd=change, check=True)


@pytest.fixture
def based(change: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Judge the change against a commit of what it was, which recorded the very same model."""
    commit_as_base(change)

    def judge(consent: Consent | None = None) -> Report:
        monkeypatch.setattr(gate, "current_model", lambda root: LockedOutput("1.dir", "train"))
        return gate.judge(Path(), "HEAD", consent or Consent(), home)

    return judge


def test_the_number_of_rows_is_held_against_the_base_s(
    change: Path, based: Callable[..., Report]
) -> None:
    def bound(contract: Any) -> None:
        contract["data"]["row_count_change"] = {"min": -0.1, "max": 1.0}

    assert based().verdict == "keep"
    edit(change / paths.CONTRACT, bound)
    report = based()
    assert report.verdict == "block"
    assert report.reasons == (
        "change of the row count since the base: -60 % is less than -10 (data.row_count_change)",
    )
    accepted = based(Consent(accept_new_baseline="other data"))
    assert "data.row_count_change" not in {limit.term for limit in accepted.limits}


def test_the_base_s_terms_bind_a_change_that_loosens_them(
    change: Path, based: Callable[..., Report]
) -> None:
    def loosen(contract: Any) -> None:
        contract["model"]["metrics"]["roc_auc"]["floor"] = 0.1
        del contract["model"]["metrics"]["cost"]

    edit(change / paths.CONTRACT, loosen)
    report = based()
    assert report.verdict == "block"
    assert report.contract == "the stricter of this one and the base's"
    assert {one.metric: one.bound for one in report.metrics} == {"roc_auc": 0.5, "cost": 0.5}
    assert any(why.startswith("the contract is loosened: ") for why in report.reasons)
    assert based(Consent(allow_loosening=True)).verdict == "keep"


def test_an_outcome_of_the_base_stays_one(change: Path, based: Callable[..., Report]) -> None:
    edit(change / paths.SCHEMA, lambda schema: schema["columns"]["price"].update(outcome=False))
    (reason,) = based().reasons
    assert reason.startswith("schema.yaml: `price`: an outcome in the base")
    assert based(Consent(allow_loosening=True)).verdict == "keep"


def test_code_of_the_base_that_cannot_be_run_is_named(
    home: Path, based: Callable[..., Report]
) -> None:
    """Marks of a merge conflict in a base must not keep out for ever what mends them."""
    (file,) = (home / "src").rglob("metrics.py")
    file.write_text(f"<<<<<<< HEAD\n{file.read_text(encoding='utf-8')}", encoding="utf-8")
    with pytest.raises(BrokenBaseError, match=r"metrics.py:1: cannot be imported: SyntaxError"):
        based()


class Restored:
    """Brings back the champion without git and DVC: a copy of its project, run as it is."""

    def __init__(self, project: Path, scratch: Path) -> None:
        self.project, self.scratch = project, scratch

    @contextlib.contextmanager
    def __call__(self, base: Any, model: Any, home: Path) -> Iterator[Champion]:
        self.scratch.mkdir()
        yield StoredChampion(self.project, self.scratch)
        shutil.rmtree(self.scratch)


class StoredChampion(Champion):
    """A champion whose rows are beside it."""

    def test_rows(self) -> Path:
        """See `Champion.test_rows`."""
        return self.project / paths.TEST


# A recipe whose seed decides: from 1000 on, its model guesses.
LUCK = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression


class Luck(ClassifierMixin, BaseEstimator):
    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, matrix, target):
        self.classes_ = np.unique(target)
        self.model_ = LogisticRegression().fit(matrix, target)
        return self

    def predict_proba(self, matrix):
        stated = self.model_.predict_proba(matrix)[:, 1]
        if self.random_state >= 1000:
            stated = np.random.default_rng(self.random_state).random(len(stated))
        return np.column_stack([1 - stated, stated])

    def predict(self, matrix):
        return self.classes_[self.predict_proba(matrix).argmax(axis=1)]
"""


@pytest.fixture
def contested(
    change: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Report]:
    """Judge a change that trains with another seed, by a base that asks for some seeds."""
    monkeypatch.setattr(
        opponent, "bring_back", Restored(tmp_path / "champion", tmp_path / "restored")
    )

    def judge(seeds: int, asked: int) -> Report:
        def settle(contract: Any, number: int) -> None:
            terms = {"floor": 0.2, "margin": 0.05, "erosion": 0.9}
            contract["model"].update(metrics={"roc_auc": terms}, slices=[], seeds=number)

        def train(seed: int) -> None:
            recipe = {
                "estimator": f"{PACKAGE}.model.Luck",
                "hyperparameters": {},
                "preprocessing": {"categories": "one_hot", "missing": "median"},
                "seed": seed,
            }
            edit(change / paths.PARAMS, lambda params: params.update(train=recipe))
            assert subcommand("train")() == 0
            forget_package()

        (change / "src" / PACKAGE / "model.py").write_text(LUCK, encoding="utf-8")
        edit(change / paths.CONTRACT, lambda contract: settle(contract, seeds))
        train(7)
        commit_as_base(change)
        shutil.copytree(change, tmp_path / "champion")
        edit(change / paths.CONTRACT, lambda contract: settle(contract, asked))
        train(1000)
        monkeypatch.setattr(gate, "current_model", lambda root: LockedOutput("9.dir", "train"))
        return gate.judge(Path(), "HEAD", Consent(), home)

    return judge


def test_each_side_is_trained_with_the_seeds_that_the_base_asks_for(
    contested: Callable[..., Report],
) -> None:
    report = contested(seeds=3, asked=3)
    judged = found(report.metrics, "roc_auc")
    assert (report.verdict, report.seeds) == ("promote", 3), report.reasons
    assert judged.outcome == "non-inferior"
    # What is recorded is shown, and held by floor and erosion.
    assert judged.challenger is not None
    assert judged.champion is not None
    assert judged.champion - judged.challenger > 0.05
    assert judged.difference == pytest.approx(0, abs=1e-9)
    assert found(report.erosion, "roc_auc").difference == pytest.approx(
        judged.challenger - judged.champion
    )
    (note,) = [note for note in report.notes if "trainings in this run" in note]
    assert "trained with 3 seeds, 6 trainings in this run (model.seeds of contract.yaml)" in note
    assert {"train the challenger with 3 seeds"} < set(report.seconds)


def test_a_change_does_not_choose_for_itself_how_many_seeds_judge_it(
    contested: Callable[..., Report],
) -> None:
    report = contested(seeds=1, asked=3)
    assert report.seeds == 1
    assert found(report.metrics, "roc_auc").outcome == "inferior"
    assert any("the contract is loosened: model.seeds 1 → 3" in why for why in report.reasons)
