from __future__ import annotations

import json
from typing import Any

import pytest

from gitops_ml.gate.contract_changes import Change
from gitops_ml.gate.judgement import judge_limit
from gitops_ml.gate.verdict import (
    BaseRecord,
    Consent,
    DataChanges,
    Finding,
    ModelRecord,
    OnBaseRows,
    RecordCheck,
    ReferenceRecord,
    Report,
    RowChanges,
)
from gitops_ml.report.verdict_report import as_markdown, as_text, escape

HOSTILE = "a|b `c` **d** <script>@team #1 [x](https://evil.example) www.evil.example"


def finding(metric: str = "roc_auc", **values: Any) -> Finding:
    return Finding(**{"term": f"model.metrics.{metric}", "metric": metric, "rows": 900, **values})


COMPARED = finding(
    champion=0.8, challenger=0.75, bound=0.7, margin=0.01, difference=-0.05, low=-0.07, high=-0.03,
    outcome="inferior", failures=("roc_auc: worse than the champion",),
)  # fmt: skip


def report(**values: Any) -> Report:
    return Report(
        **{
            "verdict": "promote",
            "reasons": (),
            "notes": (),
            "commit": "c" * 40,
            "base": BaseRecord(revision="origin/main", commit="0123456789abcdef"),
            "challenger": ModelRecord(hash="1111111111.dir", source="working tree"),
            "champion": ModelRecord(hash="2222222222.dir", source="cache"),
            "consent": Consent(),
            "contract": "this one",
            "contract_changes": (),
            "confidence": 0.95,
            "rows": 1234,
            "metrics": (finding(challenger=0.8, bound=0.7),),
            "slices": (),
            "limits": (judge_limit("model.size_mb", "size", 2.5, "MB", maximum=10),),
            "data": DataChanges(rows=5000),
            "seconds": {"compare": 1.25},
            **values,
        }
    )


def cells(markdown: str, first: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize("verdict", ["promote", "keep", "block"])
def test_the_verdict_comes_first(verdict: str) -> None:
    first = as_markdown(report(verdict=verdict)).splitlines()[0]
    assert first.startswith("## ")
    assert verdict.capitalize() in first
    assert verdict.capitalize() in as_text(report(verdict=verdict)).splitlines()[0]


def test_every_reason_is_listed_before_the_tables() -> None:
    markdown = as_markdown(report(verdict="block", reasons=("the size", "the metric")))
    assert markdown.index("- the size\n- the metric") < markdown.index("| metric")


def test_what_lifts_the_reasons_comes_after_them() -> None:
    blocked = report(verdict="block", reasons=("the metric",), remedies=("set the label @a",))
    markdown, text = as_markdown(blocked), as_text(blocked)
    assert markdown.index("- the metric") < markdown.index("set the label @") < markdown.index("|")
    assert "@a" not in markdown
    assert "\n\nset the label @a\n\n" in text


def test_a_difference_of_means_says_of_how_many_seeds() -> None:
    for text in (as_markdown, as_text):
        assert "mean of" not in text(report(metrics=(COMPARED,)))
        several = text(report(metrics=(COMPARED,), erosion=(COMPARED,), seeds=3))
        # The erosion is that of the recorded model.
        assert several.count("difference, mean of 3 seeds") == 1


def test_a_metric_shows_both_models_difference_bounds_margin_and_result() -> None:
    row = cells(as_markdown(report(metrics=(COMPARED,))), "roc")
    assert row == [
        r"roc\_auc ↑", "0.8", "0.75", "-0.0500", "-0.0700 to -0.0300", "0.01", "≥ 0.7",
        "❌ inferior",
    ]  # fmt: skip


def test_a_metric_that_should_be_small_has_its_ceiling() -> None:
    row = cells(as_markdown(report(metrics=(finding("mae", challenger=3.0, bound=4.0),))), "mae")
    assert (row[0], row[6], row[7]) == ("mae ↓", "≤ 4", "✅")


def test_the_base_s_test_rows_have_a_table_of_their_own_if_there_is_one() -> None:
    assert "the base's test rows" not in as_markdown(report()) + as_text(report())
    changes = RowChanges(rows=1000, to_training=100)
    held = OnBaseRows(changes=changes, rows=900, metrics=(finding(challenger=0.8),))
    markdown = as_markdown(report(on_base_rows=held))
    assert "<details><summary>On 900 test rows of the base: all 1 terms hold;" in markdown
    lost = held.model_copy(update={"slices": (COMPARED,)})
    markdown = as_markdown(report(on_base_rows=lost))
    assert "<details open><summary>On 900 test rows of the base: 1 of 2 terms do" in markdown
    assert "on the base's test rows" in as_text(report(on_base_rows=lost))
    nothing = OnBaseRows(changes=changes)
    assert as_markdown(report(on_base_rows=nothing)) == as_markdown(report())


def test_what_the_champion_says_of_changed_data_is_there_to_look_up() -> None:
    check = RecordCheck(
        metric="roc_auc", recorded=0.777, measured=0.777, rows=1000, before=0.776, after=0.224,
        allowed=0.005, new_rows=50, new=0.3, new_advantage=-0.2,
    )  # fmt: skip
    markdown = as_markdown(report(record=(check,)))
    values = "0.777 | 0.777 | 0.776 | 0.224 | 0.005 | 0.3 | -0.2 |"
    assert rf"| roc\_auc | {values}" in markdown
    assert "| 1,000 rows of both, by the base's values | by these values |" in markdown


def test_slices_are_folded_with_the_worst_first() -> None:
    slices = tuple(
        finding(
            column="city", value=value, challenger=0.7, difference=difference, failures=failures
        )
        for value, difference, failures in [
            ("good", 0.02, ()),
            ("bad", -0.05, ()),
            ("failed", -0.01, ("no",)),
        ]
    )
    markdown = as_markdown(report(slices=slices))
    assert "<summary>Slices: 1 of 3 do not hold; worst first</summary>\n\n|" in markdown
    assert "<details open>" in markdown
    places = [markdown.index(f"city = {value}") for value in ("failed", "bad", "good")]
    assert places == sorted(places)
    assert "<details open>" not in as_markdown(report(slices=slices[:2]))


def test_limits_contract_data_notes_and_timings_are_shown() -> None:
    markdown = as_markdown(
        report(
            limits=(judge_limit("model.size_mb", "size", 12, "MB", maximum=10),),
            contract_changes=(
                Change("model.size_mb", 10, 12, "loosened"),
                Change("model.metrics.roc_auc.floor", 0.7, None, "loosened"),
            ),
            data=DataChanges(rows=5000, base_rows=4000, schema_changes=("added `gate`",)),
            notes=("Trained again.",),
        )
    )
    assert cells(markdown, "size") == ["size", "12 MB", "≤ 10", "❌"]
    assert cells(markdown, r"model.size\_mb") == [r"model.size\_mb", "10", "12", "loosened"]
    assert cells(markdown, "model.metrics")[1:] == ["0.7", "removed", "loosened"]
    assert "5,000 rows, 4,000 in the base" in markdown
    assert r"Schema: added \`gate\`" in markdown
    assert "- Trained again." in markdown
    assert cells(markdown, "compare") == ["compare", "1.2"]


def test_consent_is_recorded_with_its_reason() -> None:
    consent = Consent(allow_loosening=True, accept_new_baseline="the label leaked", own_engine=True)
    agreed = report(consent=consent)
    for text in (as_markdown(agreed), as_text(agreed)):
        assert "consent to loosening" in text
        assert "the label leaked" in text
        assert "consent to judge with this change's own engine" in text
    assert json.loads(agreed.model_dump_json())["consent"] == {
        "allow_loosening": True,
        "accept_new_baseline": "the label leaked",
        "own_engine": True,
    }


def test_where_the_champion_came_from_is_said() -> None:
    record = ModelRecord(hash="2222222222.dir", source="reproduced")
    assert "Champion: 2222222222, trained again from the base" in as_text(report(champion=record))
    assert "Judged against nothing yet" in as_text(report(base=None, champion=None))


def test_the_erosion_shows_the_reference_and_how_much_of_the_allowance_is_used() -> None:
    lost = finding(
        champion=0.8, challenger=0.794, margin=0.01, difference=-0.006, low=-0.008, high=-0.004,
        outcome="non-inferior",
    )  # fmt: skip
    model = ModelRecord(hash="3333333333.dir", source="cache")
    record = ReferenceRecord(model=model, commit="4" * 40, named=False)
    eroded = report(reference=record, erosion=(lost, finding("r2", challenger=1.0, note="only 2")))
    markdown = as_markdown(eroded)
    section = markdown.partition("### Against the reference")[2]
    assert "3333333333 of 4444444444, the first model in the history" in section
    assert cells(section.partition("### Limits")[0], "roc") == [
        r"roc\_auc ↑", "0.8", "0.794", "-0.0060", "-0.0080 to -0.0040", "0.01", "60%",
        "✅ non-inferior",
    ]  # fmt: skip
    assert "60%" in as_text(eroded)
    assert "### Against the reference" not in as_markdown(report())
    gained = lost.model_copy(update={"difference": 0.1})
    assert gained.used == 0.0


def test_who_named_the_reference_is_said() -> None:
    model = ModelRecord(hash="3333333333.dir", source="same")
    named = ReferenceRecord(model=model, commit="4" * 40, named=True)
    assert "named by the contract; the same model" in as_markdown(report(reference=named))
    itself = named.model_copy(update={"commit": None})
    assert "this model itself" in as_text(report(reference=itself))


def test_names_from_data_cannot_format_link_or_mention() -> None:
    safe = escape(HOSTILE)
    assert r"a\|b \`c\` \*\*d\*\* &lt;script&gt;" in safe
    for link in ("@team", "#1", "://", "[x]", "www."):
        assert link not in safe
    hostile = finding(column="city", value=f"{HOSTILE}\nnext | line", challenger=1.0)
    markdown = as_markdown(report(slices=(hostile,), reasons=(HOSTILE,), notes=(HOSTILE,)))
    assert "<script>" not in markdown
    assert "@team" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("| roc")]
    assert len(tables) == 2
    assert all(line.replace(r"\|", "").count("|") == 9 for line in tables)


def test_a_message_of_several_lines_stays_one_item() -> None:
    markdown = as_markdown(report(verdict="block", reasons=("first\n  second line",)))
    assert "- first<br>second line\n" in markdown


def test_the_terminal_gets_aligned_columns() -> None:
    lines = as_text(report(metrics=(COMPARED, finding("log_loss", challenger=0.5)))).splitlines()
    header, *rows = [line for line in lines if line.startswith(("metric", "roc", "log"))]
    place = header.index("this model")
    assert [row[place:].split()[0] for row in rows] == ["0.75", "0.5"]


def test_the_report_says_what_is_better_of_a_metric_that_only_the_project_knows() -> None:
    own = finding("cost", better="smaller", challenger=0.4, champion=0.5, bound=0.6)
    shown = cells(as_markdown(report(metrics=(own,))), "cost")
    assert shown[0] == "cost ↓"
    assert shown[6] == "≤ 0.6"


def test_what_is_better_of_a_built_in_metric_is_no_matter_of_the_report() -> None:
    assert finding("roc_auc", better="smaller").direction == 1
    assert finding("cost").direction == 0
