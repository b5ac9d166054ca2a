"""The summary of a run, with whatever reports there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand

from gitops_ml.gate.verdict import DataChanges, Finding, ModelRecord, Report
from gitops_ml.report.charts import charts, read_off
from gitops_ml.report.run_artifacts import Curve

main = subcommand("summary")

VERDICT = Report(
    verdict="promote",
    reasons=(),
    notes=(),
    commit=None,
    base=None,
    challenger=ModelRecord(hash="123.dir", source="working tree"),
    champion=ModelRecord(hash="456.dir", source="cache"),
    consent={},
    contract="this one",
    contract_changes=(),
    confidence=0.95,
    rows=100,
    metrics=(Finding(term="model.metrics.mae", metric="mae", rows=100, challenger=3.5),),
    slices=(),
    limits=(),
    data=DataChanges(rows=500),
    seconds={},
)
NO_CHAMPION = "the comparison with a champion"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_EVENT_NAME", "DVC_REMOTE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports/plots/curves").mkdir(parents=True)
    return tmp_path


def write_gate(project: Path, **changes: Any) -> None:
    report = VERDICT.model_copy(update=changes)
    (project / "reports/gate.json").write_text(report.model_dump_json(), encoding="utf-8")


def skipped_part(text: str) -> str:
    return text.partition("### Skipped")[2]


def test_it_is_appended_to_the_job_s_page(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gate(project)
    page = project / "page.md"
    page.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert main() == 0
    before, headline = page.read_text(encoding="utf-8").splitlines()[:2]
    assert (before, headline) == ("before", "## ✅ Promote: the model holds the contract")
    assert capsys.readouterr().out == ""


def test_on_a_laptop_it_is_printed_with_plots(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gate(project)
    (project / "reports/plots/importance.csv").write_text(
        "feature,importance\nhour,0.2\n", encoding="utf-8"
    )
    assert main() == 0
    text = capsys.readouterr().out
    assert "| mae ↓ |  | 3.5 |" in text
    assert "\nxychart-beta horizontal\n" in text


def test_without_any_report_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert capsys.readouterr().out.startswith("## ⛔ No verdict")


def test_it_works_without_a_reports_folder(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert main() == 0
    assert capsys.readouterr().out.startswith("## ⛔ No verdict")


def test_broken_data_are_the_verdict(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"file": "a.csv", "column": "x", "rule": "nulls", "count": 3, "message": "is empty"}
    (project / "reports/validation.json").write_text(
        json.dumps({"problems": [problem]}), encoding="utf-8"
    )
    assert main() == 0
    text = capsys.readouterr().out
    assert text.startswith("## ⛔ The data break rules")
    assert "| a.csv | x | nulls | 3 | is empty |" in text


def test_each_thing_that_was_skipped_is_listed_with_its_setting(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gate(project, champion=None)
    main()
    text = skipped_part(capsys.readouterr().out)
    assert "`DVC_REMOTE_URL`" in text
    assert NO_CHAMPION in text
    assert "make doctor" in text

    write_gate(project)
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://bucket/folder")
    main()
    text = skipped_part(capsys.readouterr().out)
    assert "DVC" not in text
    assert NO_CHAMPION not in text


def test_a_pull_request_does_not_push_to_the_remote_and_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    event = project / "event.json"
    event.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://bucket/folder")
    for name, said in (("pull_request", True), ("push", False)):
        monkeypatch.setenv("GITHUB_EVENT_NAME", name)
        main()
        text = skipped_part(capsys.readouterr().out)
        assert ("pushing to the DVC remote" in text) is said, name


def test_a_page_that_cannot_be_written_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "nowhere/page.md"))
    assert main() == 1
    assert "GITHUB_STEP_SUMMARY" in capsys.readouterr().err


def test_a_line_is_read_off_between_its_points() -> None:
    steps = [(0.0, 0.0), (0.0, 0.6), (0.5, 0.8), (1.0, 1.0)]
    assert read_off(steps, [-1, 0, 0.25, 0.5, 1, 2]) == pytest.approx([0, 0.6, 0.7, 0.8, 1, 1])


def test_figures_have_a_line_for_each_series_and_room_on_their_axes() -> None:
    flat = Curve("Recall: recall over place", "one", ((2.0, 0.5), (2.0, 0.5)))
    falling = Curve("Recall: recall over place", "two", ((1.0, -0.25), (2.0, -1.0)))
    (block,) = charts([flat, falling], [])
    lines = block.splitlines()
    assert lines[3:6] == [
        '  title "Recall: one, two"',
        '  x-axis "place" 1 --> 2',
        '  y-axis "recall" -1 --> 0.5',
    ]
    assert [line.count(",") for line in lines if line.startswith("  line")] == [20, 20]
    (alone,) = charts([flat], [])
    assert '"place" 1.5 --> 2.5' in alone
    assert charts([Curve("Empty", "none", ())], []) == []


def test_numbers_are_written_without_exponents() -> None:
    (block,) = charts([], [("hour", 123456.7), ("day", 0.00001), ("month", -0.0)])
    assert "bar [123500, 0.00001, 0]" in block


@pytest.mark.parametrize("trained_here", [True, False])
def test_it_says_where_the_model_was_trained_if_this_run_trained_it(
    project: Path, capsys: pytest.CaptureFixture[str], trained_here: bool
) -> None:
    model = ModelRecord(hash="123.dir", source="working tree", sha256="abc")
    write_gate(project, challenger=model)
    environment = {
        "sha256": "abc" if trained_here else "def",
        "python": "3.11.7",
        "platform": "Linux",
        "cores": 4,
        "versions": {"numpy": "2.4.6"},
    }
    path = project / "reports/training_environment.json"
    path.write_text(json.dumps(environment), encoding="utf-8")
    assert main() == 0
    text = capsys.readouterr().out
    assert ("Where this model was trained" in text) is trained_here
    assert ("| cores | 4 |" in text) is trained_here
