"""What the gate's command makes of a verdict; judging is tested in `tests/engine/gate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import subcommand

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError, SettingsError
from gitops_ml.gate.own_engine import BrokenBaseError
from gitops_ml.gate.verdict import (
    BaseRecord,
    Consent,
    DataChanges,
    ModelRecord,
    Report,
    Verdict,
)
from gitops_ml.report import judge as gate

main = subcommand("gate")


def report(verdict: Verdict, consent: Consent | None = None) -> Report:
    return Report(
        verdict=verdict,
        reasons=("it is worse",) if verdict == "block" else (),
        notes=(),
        commit="c" * 40,
        base=BaseRecord(revision="main", commit="0" * 40),
        challenger=ModelRecord(hash="1.dir", source="working tree"),
        champion=None,
        consent=consent or Consent(),
        contract="this one",
        contract_changes=(),
        confidence=0.95,
        rows=10,
        metrics=(),
        slices=(),
        limits=(),
        data=DataChanges(rows=10),
        seconds={},
    )


def decide(monkeypatch: pytest.MonkeyPatch, outcome: Verdict | Exception) -> list[Consent]:
    """Let the judgement end like this; returns the consents that it was given."""
    given: list[Consent] = []

    def judge(root: Path, revision: str, consent: Consent, *_: object) -> Report:
        given.append(consent)
        if isinstance(outcome, Exception):
            raise outcome
        return report(outcome, consent)

    monkeypatch.setattr(gate, "judge", judge)
    return given


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gate.signal, "signal", lambda number, handler: None)
    return tmp_path


@pytest.mark.parametrize(("verdict", "code"), [("promote", 0), ("keep", 0), ("block", 1)])
def test_the_exit_code_is_the_verdict(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: Verdict,
    code: int,
) -> None:
    decide(monkeypatch, verdict)
    assert main(["--base", "main"]) == code
    written = Report.model_validate_json((folder / paths.GATE_REPORT).read_text(encoding="utf-8"))
    assert written == report(verdict)
    assert verdict.capitalize() in (folder / paths.GATE_TABLE).read_text(encoding="utf-8")
    assert verdict.capitalize() in capsys.readouterr().out


@pytest.mark.parametrize("error", [GitopsError("run it"), SettingsError("x: wrong"), OSError("x")])
def test_what_cannot_be_judged_leaves_no_verdict(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    decide(monkeypatch, "promote")
    assert main(["--base", "main"]) == 0
    decide(monkeypatch, error)
    assert main(["--base", "main"]) == 2
    assert f"could not judge:\n{error}" in capsys.readouterr().err
    assert not (folder / paths.GATE_REPORT).exists()
    assert not (folder / paths.GATE_TABLE).exists()


@pytest.mark.parametrize(
    ("options", "consent"),
    [
        ([], Consent()),
        (["--allow-loosening"], Consent(allow_loosening=True)),
        (["--accept-new-baseline", "renamed"], Consent(accept_new_baseline="renamed")),
    ],
)
def test_consent_is_given_on_request_only(
    monkeypatch: pytest.MonkeyPatch, options: list[str], consent: Consent
) -> None:
    given = decide(monkeypatch, "promote")
    main(["--base", "main", *options])
    assert given == [consent]


def test_a_new_baseline_needs_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = decide(monkeypatch, "promote")
    assert main(["--base", "main", "--accept-new-baseline", " "]) == 2
    assert "give the reason" in capsys.readouterr().err
    assert given == []


@pytest.mark.parametrize("agreed", [False, True])
def test_a_base_whose_code_cannot_be_run_asks_for_a_maintainer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], agreed: bool
) -> None:
    told: list[str] = []

    def judge_by_own_engine(root: Path, revision: str, why: str, consent: Consent) -> int:
        told.append(why)
        return 0

    decide(monkeypatch, BrokenBaseError("metrics.py:1: cannot be imported"))
    monkeypatch.setattr(gate, "judge_by_own_engine", judge_by_own_engine)
    words = ["--base", "main", "--judge", "."]
    assert main([*words, *(["--allow-own-engine"] if agreed else [])]) == (0 if agreed else 2)
    assert len(told) == agreed
    if not agreed:
        said = capsys.readouterr().err
        assert "the code of the base cannot be run: metrics.py:1: cannot be imported" in said
        assert "with the label `engine: judge itself`" in said
