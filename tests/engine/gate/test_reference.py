"""Which model the reference is, and that small losses do not add up unseen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from gitops_ml.core.dvc import LockedOutput
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import BaseRevision, find_base
from gitops_ml.core.settings import Contract, MetricTerms, ModelTerms, Params, load_contract
from gitops_ml.gate import reference
from gitops_ml.gate.gate_log import GateLog
from gitops_ml.gate.judgement import Judge, Opponent
from gitops_ml.gate.reference import (
    Reference,
    find_reference,
    judge_erosion,
    locate,
    name_reference,
)
from gitops_ml.gate.verdict import Consent, Finding, ModelRecord, ReferenceRecord
from gitops_ml.model.metrics import Scored

ROWS = 2000
PLACE = np.arange(ROWS)
NOBODY = Consent()


def hash_of(number: int) -> str:
    return f"{number:032x}.dir"


def params(target: str = "price", task: str = "regression") -> Params:
    return Params.model_validate(
        {
            "task": task,
            "target": target,
            "data": {"source": "data"},
            "train": {"estimator": "sklearn.dummy.DummyRegressor"},
            "evaluate": {"metrics": ["mae" if task == "regression" else "roc_auc"]},
        }
    )


def model_terms(erosion: float | None = 0.1, margin: float = 0.05, **terms: Any) -> ModelTerms:
    metric = {"margin": margin, "ceiling": 9.0}
    if erosion is not None:
        metric["erosion"] = erosion
    document = {"metrics": {"mae": metric}, "size_mb": 1, "latency_p99_ms": 1, **terms}
    return ModelTerms.model_validate(document)


def answers(loss: float, seed: int) -> Scored:
    """What a model says whose mean absolute error is 1 and a loss, but for noise."""
    noise = np.random.default_rng(seed).normal(0, 0.1, ROWS)
    return Scored(np.zeros(ROWS), 1 + loss + noise)


@dataclass
class History:
    """A repository with a commit for each model that was accepted."""

    root: Path
    git: Callable[..., str]
    models: dict[str, Scored] = field(default_factory=dict)

    def accept(self, number: int | None, document: Any = None, **of: str) -> str:
        """Commit the lock of a model, or a text in its place, and what it predicts."""
        stage = {"outs": [{"path": "models", "md5": hash_of(number or 0)}]}
        lock = document or yaml.safe_dump({"schema": "2.0", "stages": {"train": stage}})
        (self.root / "dvc.lock").write_text(lock, encoding="utf-8")
        predicts = {"task": "regression", "target": "price", **of}
        (self.root / "params.yaml").write_text(yaml.safe_dump(predicts), encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "-qm", f"Model {number}", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def base(self) -> BaseRevision:
        found = find_base(self.root, "HEAD")
        assert found is not None
        return found


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    root = tmp_path / "history"
    root.mkdir()

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.com")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    return History(root, git)


@pytest.fixture
def judged(history: History) -> Callable[..., Any]:
    """Judge a model against the newest commit: the log, what the reference is, the findings."""

    def judge(
        number: int,
        scored: Scored,
        terms: ModelTerms | None = None,
        champion: int | None = None,
        consent: Consent = NOBODY,
    ) -> tuple[GateLog, ReferenceRecord | None, tuple[Finding, ...], Judge]:
        log = GateLog()
        test = pl.DataFrame({"city": np.repeat(["north", "south"], ROWS // 2)})
        record = opponent = None
        if champion is not None:
            record = ModelRecord(hash=hash_of(champion), source="cache")
            opponent = Opponent(history.models[record.hash], PLACE)
        binding = consent.accept_new_baseline is None
        court = Judge(scored, opponent, 0.95, binding=binding)
        terms = terms or model_terms()

        def ask(
            log: GateLog, base: BaseRevision, model: LockedOutput
        ) -> tuple[ModelRecord, Opponent | None]:
            known = history.models.get(model.hash)
            if known is None:
                said = log.reasons if binding else log.notes
                said.append("the champion cannot be compared with: it is gone")
                return ModelRecord(hash=model.hash, source="not found"), None
            log.notes.append("The champion ran with the versions that the base locks.")
            return ModelRecord(hash=model.hash, source="cache"), Opponent(known, PLACE)

        base, challenger = history.base(), hash_of(number)
        found = find_reference(
            log, base, terms, params(), challenger, (record, opponent), ask, consent
        )
        erosion = judge_erosion(log, found, terms.metrics, terms.slices, court, test)
        return log, found.record if found else None, erosion, court

    return judge


def test_small_losses_are_blocked_at_the_step_at_which_their_sum_is_too_large(
    history: History, judged: Callable[..., Any]
) -> None:
    first = history.accept(0)
    history.models[hash_of(0)] = answers(0.0, seed=0)
    terms, used, blocked = model_terms(), [], []
    for step in range(1, 8):
        scored = answers(0.028 * step, seed=step)
        log, record, (found,), court = judged(step, scored, terms, champion=step - 1)
        assert all(one.failures == () for one in court.metrics(terms.metrics)), "one step is fine"
        assert record.commit == first
        assert (found.term, found.champion) == ("model.metrics.mae.erosion", pytest.approx(1, 0.01))
        used.append(found.used)
        blocked += [step] if found.failures else []
        assert any("together they lost more" in note for note in log.notes) is bool(found.failures)
        history.accept(step)
        history.models[hash_of(step)] = scored
    assert used[:4] == [pytest.approx(0.28 * step, abs=0.06) for step in range(1, 5)]
    assert blocked == [4, 5, 6, 7]


def test_the_failure_names_the_term_and_the_reference(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    history.models[hash_of(0)] = answers(0.0, seed=0)
    _, _, (found,), _ = judged(1, answers(0.3, seed=1))
    (failure,) = found.failures
    assert failure.startswith("mae: worse than the reference: 1.299 against 0.9972")
    assert "allowed +0.1 (model.metrics.mae.erosion)" in failure


def test_a_slice_may_have_an_erosion_of_its_own(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    history.models[hash_of(0)] = answers(0.0, seed=0)
    part = {"column": "city", "metric": "mae", "min_rows": 100, "erosion": 0.1, "margin": 1}
    scored = answers(0.0, seed=1)
    scored = Scored(scored.truth, scored.prediction + np.where(PLACE < ROWS // 2, 0.0, 0.3))
    _, _, found, _ = judged(1, scored, model_terms(erosion=None, slices=[part]))
    assert {one.value: bool(one.failures) for one in found} == {"north": False, "south": True}
    assert found[0].term == "model.slices.city.mae.erosion"


def test_without_erosion_terms_no_reference_is_looked_for(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    log, record, found, _ = judged(1, answers(5.0, seed=1), model_terms(erosion=None))
    assert (record, found, log.reasons, log.notes) == (None, (), [], [])


def test_without_a_model_in_the_base_there_is_none_yet() -> None:
    def ask(*_: Any) -> Any:
        pytest.fail("there is nobody to ask")

    log, model = GateLog(), hash_of(1)
    assert not find_reference(log, None, model_terms(), params(), model, (None, None), ask, NOBODY)
    assert "No reference yet" in log.notes[0]


def test_a_champion_that_is_the_reference_is_asked_once(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    history.models[hash_of(0)] = answers(0.0, seed=0)
    log, record, (found,), _ = judged(1, answers(0.01, seed=1), champion=0)
    assert (record.model.source, found.failures, log.notes) == ("cache", (), [])


def test_what_is_said_of_the_reference_calls_it_so(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    history.models[hash_of(0)] = answers(0.0, seed=0)
    log, *_ = judged(1, answers(0.01, seed=1))
    assert log.notes == ["The reference ran with the versions that its commit locks."]


def test_a_reference_that_cannot_be_compared_with_blocks_and_says_how_to_move_it(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    log, record, found, _ = judged(1, answers(0.0, seed=1))
    assert (record.model.source, found) == ("not found", ())
    (reason,) = log.reasons
    assert reason.startswith("the reference cannot be compared with: it is gone")
    assert "make reference" in reason
    log, *_ = judged(1, answers(0.0, seed=1), consent=Consent(accept_new_baseline="new"))
    assert log.reasons == []
    assert "The next change will meet the same reference" in log.notes[-1]


def test_a_model_that_won_more_than_may_be_lost_is_told_to_become_the_reference(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    history.models[hash_of(0)] = answers(0.0, seed=0)
    log, *_ = judged(1, answers(-0.3, seed=1))
    assert "To keep what was won" in log.notes[-1]
    log, *_ = judged(1, answers(-0.05, seed=1))
    assert all("To keep what was won" not in note for note in log.notes)


def test_the_first_model_that_predicts_the_same_is_the_reference(history: History) -> None:
    history.accept(None, "no: lock\n")
    history.accept(1, target="size")
    history.accept(2, task="classification")
    (history.root / "params.yaml").write_text("{", encoding="utf-8")
    first = history.accept(3)
    history.accept(4)
    found = locate(history.base(), None, params())
    assert found is not None
    assert (found[0].commit, found[1]) == (first, LockedOutput(hash_of(3), "train"))
    assert locate(history.base(), None, params("weight")) is None


def test_a_model_that_was_blocked_is_no_reference(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, passed = history.accept(1), history.accept(2)
    history.accept(3)
    monkeypatch.setattr(reference, "was_blocked", lambda commit, root: commit == blocked)
    found = locate(history.base(), None, params())
    assert found is not None
    assert found[0].commit == passed


def test_what_was_merged_was_not_on_main(history: History) -> None:
    history.git("commit", "-qm", "Start", "--allow-empty")
    history.git("checkout", "-qb", "side")
    beside = history.accept(1)
    history.git("checkout", "-q", "main")
    history.git("merge", "-q", "--no-ff", "-m", "Merge", "side")
    merge = history.git("rev-parse", "HEAD")
    first = locate(history.base(), None, params())
    named = locate(history.base(), hash_of(1), params())
    assert first is not None
    assert named is not None
    assert (first[0].commit, named[0].commit) == (merge, beside)


def test_the_contract_names_a_model_of_the_history_by_its_hash(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    second = history.accept(1)
    history.accept(2)
    history.models = {hash_of(0): answers(0.0, 0), hash_of(1): answers(0.5, 1)}
    _, record, (found,), _ = judged(3, answers(0.55, 3), model_terms(reference=hash_of(1)))
    assert (record.commit, record.named, found.failures) == (second, True, ())


def test_a_hash_of_something_else_in_a_lock_names_no_model(history: History) -> None:
    stage = {"outs": [{"path": "data", "md5": hash_of(5)}]}
    history.accept(None, yaml.safe_dump({"schema": "2.0", "stages": {"ingest": stage}}))
    assert locate(history.base(), hash_of(5), params()) is None


def test_a_named_model_that_no_commit_has_blocks(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    terms = model_terms(reference=hash_of(7))
    log, record, found, _ = judged(1, answers(0.0, 1), terms)
    assert (record, found) == (None, ())
    assert f"no commit of the base has the model {hash_of(7)}" in log.reasons[0]
    log, *_ = judged(1, answers(0.0, 1), terms, consent=Consent(accept_new_baseline="new"))
    assert log.reasons == []


def test_the_model_that_is_named_may_be_the_one_that_is_judged(
    history: History, judged: Callable[..., Any]
) -> None:
    history.accept(0)
    log, record, found, _ = judged(1, answers(5.0, 1), model_terms(reference=hash_of(1)))
    assert (record.model.source, record.commit, found, log.reasons) == ("same", None, (), [])


@pytest.mark.parametrize(
    "start",
    ["model:\n", "model:  # what it must hold\n", f"model:\n  reference: {hash_of(1)}  # old\n"],
)
def test_the_working_tree_s_model_becomes_the_reference_and_comments_stay(
    project: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    model = LockedOutput(hash_of(2), "train")
    monkeypatch.setattr(reference, "current_model", lambda root: model)
    rest = (
        "  metrics:   # each of them\n    mae: {ceiling: 9.0}\n  size_mb: 1\n  latency_p99_ms: 1\n"
        "data: {}\n"
    )
    (project / "contract.yaml").write_text(f"# Ours\n{start}{rest}", encoding="utf-8")
    assert name_reference(project) == model.hash
    assert load_contract(project).model.reference == model.hash
    text = (project / "contract.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Ours\nmodel:")
    assert text.endswith(rest)
    assert hash_of(1) not in text


def test_a_contract_in_another_style_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "current_model", lambda root: LockedOutput(hash_of(2), "train"))
    text = "{model: {metrics: {mae: {ceiling: 9}}, size_mb: 1, latency_p99_ms: 1}, data: {}}"
    (project / "contract.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(GitopsError, match="write below `model:` yourself"):
        name_reference(project)
    assert (project / "contract.yaml").read_text(encoding="utf-8") == text
    (project / "contract.yaml").unlink()
    with pytest.raises(GitopsError, match="make contract"):
        name_reference(project)


def test_a_reference_is_a_hash_of_dvc_s() -> None:
    document = {"model": model_terms().model_dump(), "data": {}}
    document["model"]["reference"] = "main"
    with pytest.raises(ValueError, match="reference"):
        Contract.model_validate(document)


def test_what_is_served_may_not_erode_where_the_margins_go_by_means() -> None:
    terms = model_terms()
    record = ModelRecord(hash=hash_of(0), source="cache")
    others = [answers(0.0, seed) for seed in (1, 2)]
    opponent = Opponent(answers(0.0, seed=0), PLACE, others)
    court = Judge(answers(0.3, seed=3), opponent, 0.95, retrained=others)
    found = Reference(ReferenceRecord(model=record, commit="1", named=False), opponent)
    assert all(one.failures == () for one in court.metrics({"mae": MetricTerms(margin=0.05)}))

    (erosion,) = judge_erosion(GateLog(), found, terms.metrics, (), court, pl.DataFrame())

    assert erosion.difference == pytest.approx(0.3, abs=0.03)
    assert erosion.failures
