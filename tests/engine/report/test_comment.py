"""The comment on a pull request, against a GitHub that is played by real HTTP servers."""

from __future__ import annotations

import io
import json
import re
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_actions import BOT, HEAD, NAME, TOKEN, FakeActions, job, pull_request, run_event
from pytest_httpserver import HTTPServer

from gitops_ml.github.client import GitHub, GitHubError
from gitops_ml.report import comment
from gitops_ml.report import markdown as review
from gitops_ml.report.comment import Mark
from gitops_ml.report.run_artifacts import EvidenceError, from_archive

main = subcommand("comment")

OLD = Mark(99, 1, HEAD)
COMMENTS = f"/repos/{NAME}/issues/7/comments"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[HTTPServer, HTTPServer]]:
    with HTTPServer(threaded=True) as server, HTTPServer() as storage:
        yield server, storage


@pytest.fixture
def api(
    servers: tuple[HTTPServer, HTTPServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> FakeActions:
    for server in servers:
        server.clear()
    fake = FakeActions(*servers)
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_EVENT_NAME", "workflow_run")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    tell(tmp_path)
    monkeypatch.chdir(tmp_path)
    return fake


def tell(folder: Path, **changes: Any) -> None:
    (folder / "event.json").write_text(json.dumps(run_event(**changes)), encoding="utf-8")


def finding(**changes: Any) -> dict[str, Any]:
    return {
        "term": "model.metrics.roc_auc",
        "metric": "roc_auc",
        "rows": 1200,
        "challenger": 0.75,
        "champion": 0.78,
        "bound": 0.74,
        "margin": 0.005,
        "difference": -0.03,
        "low": -0.041,
        "high": -0.019,
        "outcome": "inferior",
        "failures": ["roc_auc: worse than the champion"],
        **changes,
    }


def verdict(**changes: Any) -> dict[str, Any]:
    return {
        "verdict": "block",
        "reasons": ["roc_auc: worse than the champion"],
        "notes": [],
        "commit": HEAD,
        "base": {"revision": "origin/main", "commit": "b" * 40},
        "challenger": {"hash": "1234567890.dir", "source": "working tree"},
        "champion": {"hash": "0987654321.dir", "source": "cache"},
        "consent": {},
        "contract": "this one",
        "contract_changes": [],
        "confidence": 0.95,
        "rows": 1200,
        "metrics": [finding()],
        "slices": [finding(column="origin", value="JFK", rows=300)],
        "limits": [],
        "data": {"rows": 5000, "base_rows": 4000, "schema_changes": []},
        "seconds": {"compare": 1.5},
        **changes,
    }


def archive(files: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        for name, document in files.items():
            text = document if isinstance(document, str | bytes) else json.dumps(document)
            target.writestr(name, text)
    return content.getvalue()


def report(**changes: Any) -> bytes:
    return archive({"reports/gate.json": verdict(**changes)})


def only_body(api: FakeActions) -> str:
    (found,) = api.comments
    return str(found["body"])


def test_a_new_comment_says_the_verdict_first(api: FakeActions) -> None:
    api.archives["report"] = report()
    assert main() == 0
    mark, headline = only_body(api).splitlines()[:2]
    assert mark == str(Mark(100, 1, HEAD))
    assert headline == "## ⛔ Block: the model must not be merged or shipped"
    assert "| roc\\_auc ↓" not in only_body(api)
    row = next(line for line in only_body(api).splitlines() if line.startswith("| roc\\_auc ↑"))
    for cell in ("0.78", "0.75", "-0.0300", "-0.0410 to -0.0190", "0.005", "≥ 0.74", "❌ inferior"):
        assert cell in row
    assert "origin = JFK" in only_body(api)
    assert "5,000 rows, 4,000 in the base" in only_body(api)
    assert f"https://github.com/{NAME}/actions/runs/100/artifacts/1" in only_body(api)


def test_what_only_a_reader_can_stop_is_said_above_the_verdict(api: FakeActions) -> None:
    api.archives["report"] = report(verdict="promote", reasons=[])
    api.files = [{"filename": "src/late/metrics.py"}, {"filename": "contract.yaml"}]
    assert main() == 0
    lines = only_body(api).splitlines()
    assert lines[1].startswith("**👀 This change touches 1 file of the judge's own.")
    assert lines[3] == "- code that trains and answers (1): src/late/metrics.py"
    assert lines[5].startswith("## ✅ Promote")


def test_the_token_stays_with_the_api(api: FakeActions) -> None:
    api.archives["report"] = report()
    assert main() == 0
    assert api.tokens_in_storage == [None]


def test_the_one_comment_is_updated_in_place(api: FakeActions) -> None:
    api.archives["report"] = report()
    api.add_comment("Looks good to me", {"login": "grace", "type": "User"})
    mine = api.add_comment(f"{OLD}\n## Old")
    forged = api.add_comment(f"{OLD}\n## Forged", {"login": "guest", "type": "User"})
    assert main() == 0
    assert api.changes == [f"PATCH /repos/{NAME}/issues/comments/{mine['id']}"]
    assert "## ⛔ Block" in mine["body"]
    assert forged["body"].endswith("## Forged")


def test_the_same_report_twice_changes_nothing(api: FakeActions) -> None:
    api.archives["report"] = report()
    assert (main(), main()) == (0, 0)
    assert api.changes == [f"POST {COMMENTS}"]


@pytest.mark.parametrize("newer", [Mark(101, 1, HEAD), Mark(100, 2, HEAD)])
def test_a_newer_report_stays(
    api: FakeActions, capsys: pytest.CaptureFixture[str], newer: Mark
) -> None:
    api.archives["report"] = report()
    api.add_comment(f"{newer}\n## Newer")
    assert main() == 0
    assert api.changes == []
    assert "shows a newer run already" in capsys.readouterr().out


def test_a_report_on_older_commits_is_replaced_whatever_its_number(api: FakeActions) -> None:
    api.archives["report"] = report()
    api.add_comment(f"{Mark(999, 1, 'd' * 40)}\n## Of another commit")
    assert main() == 0
    assert str(Mark(100, 1, HEAD)) in only_body(api)


@pytest.mark.parametrize(
    ("pulls", "why"),
    [
        ([], "no pull request comes from guest:faster"),
        ([pull_request(state="closed")], "pull request 7 is closed"),
        (
            [
                pull_request(
                    head={"ref": "faster", "sha": "e" * 40, "repo": {"full_name": "guest/late"}}
                )
            ],
            "newer commits",
        ),
        (
            [pull_request(base={"ref": "main", "repo": {"full_name": "guest/other"}})],
            "no pull request",
        ),
        (
            [
                pull_request(
                    head={"ref": "faster", "sha": HEAD, "repo": {"full_name": "guest/copy"}}
                )
            ],
            "no pull request",
        ),
    ],
    ids=["none", "closed", "newer commits", "another base", "another fork of the same owner"],
)
def test_without_an_open_pull_request_at_that_commit_nothing_is_written(
    api: FakeActions, capsys: pytest.CaptureFixture[str], pulls: list[dict[str, Any]], why: str
) -> None:
    api.archives["report"] = report()
    api.pulls = pulls
    assert main() == 0
    assert api.changes == []
    assert why in capsys.readouterr().out


def test_a_pull_request_that_closes_meanwhile_gets_no_comment(
    api: FakeActions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.archives["report"] = report()
    render = comment.render

    def close_and_render(*arguments: Any) -> str:
        api.pulls[0]["state"] = "closed"
        return render(*arguments)

    monkeypatch.setattr(comment, "render", close_and_render)
    assert main() == 0
    assert api.changes == []
    assert "pull request 7 is closed" in capsys.readouterr().out


def test_of_two_pull_requests_with_one_commit_that_for_the_default_branch_counts(
    api: FakeActions,
) -> None:
    api.archives["report"] = report()
    other = {"ref": "release", "sha": "f" * 40, "repo": {"full_name": NAME}}
    api.pulls = [pull_request(number=8, base=other), pull_request()]
    assert main() == 0
    assert api.changes == [f"POST {COMMENTS}"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"event": "push"}, "for the event push"),
        ({"conclusion": "action_required"}, "it ran nothing"),
        ({"head_repository": None}, "is gone"),
    ],
)
def test_other_runs_are_left_alone(
    api: FakeActions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    why: str,
) -> None:
    tell(tmp_path, **changes)
    assert main() == 0
    assert api.changes == []
    assert why in capsys.readouterr().out


@pytest.mark.parametrize("other", [OLD, Mark(101, 1, HEAD)], ids=["older", "newer"])
def test_two_that_find_no_comment_end_with_one(api: FakeActions, other: Mark) -> None:
    """The other one's comment appears between our look and ours."""
    api.on_post = lambda: api.comments or api.add_comment(f"{other}\n## Other")
    client = GitHub(api.url, TOKEN)
    ours = Mark(100, 1, HEAD)
    comment.publish(client, NAME, 7, ours, f"{ours}\n## Ours")
    if other > ours:
        # The newer one finishes its own work: it looks again, and takes our comment's place.
        comment.publish(client, NAME, 7, other, f"{other}\n## Other")
    assert only_body(api) == (f"{other}\n## Other" if other > ours else f"{ours}\n## Ours")


def test_the_older_one_leaves_the_newer_one_s_comment_to_it(api: FakeActions) -> None:
    ours, other = Mark(100, 1, HEAD), Mark(101, 1, HEAD)
    api.add_comment(f"{ours}\n## Ours")
    api.add_comment(f"{other}\n## Other")
    comment.publish(GitHub(api.url, TOKEN), NAME, 7, ours, f"{ours}\n## Ours")
    assert api.changes == []
    comment.publish(GitHub(api.url, TOKEN), NAME, 7, other, f"{other}\n## Other")
    assert only_body(api) == f"{other}\n## Other"


@pytest.mark.parametrize(("status", "fails"), [(404, False), (403, True)])
def test_a_comment_that_is_gone_need_not_be_deleted(
    api: FakeActions, status: int, fails: bool
) -> None:
    mark = Mark(100, 1, HEAD)
    for _ in range(2):
        api.add_comment(f"{OLD}\n## Old")
    api.refusals[f"DELETE /repos/{NAME}/issues/comments/2"] = [status]
    with pytest.raises(GitHubError) if fails else nullcontext():
        comment.publish(GitHub(api.url, TOKEN), NAME, 7, mark, f"{mark}\n## New")
    assert api.comments[0]["body"] == f"{mark}\n## New"


def test_two_threads_at_once_end_with_the_newer_report(api: FakeActions) -> None:
    both = threading.Barrier(2, timeout=10)
    api.on_post = lambda: both.wait() and None
    marks = [Mark(100, 1, HEAD), Mark(101, 1, HEAD)]

    def write(mark: Mark) -> None:
        comment.publish(GitHub(api.url, TOKEN), NAME, 7, mark, f"{mark}\n## Run {mark.run}")

    threads = [threading.Thread(target=write, args=(mark,)) for mark in marks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert api.changes.count(f"POST {COMMENTS}") == 2
    assert only_body(api).endswith("## Run 101")


def test_what_failed_is_named_when_there_is_no_report(api: FakeActions, tmp_path: Path) -> None:
    tell(tmp_path, conclusion="failure")
    api.jobs = [job("Code"), job("Model", "failure", "Train and evaluate"), job("Last", "skipped")]
    assert main() == 0
    assert "## ⛔ The pipeline ended before the gate's verdict" in only_body(api)
    assert (
        f"- [Model](https://github.com/{NAME}/actions/runs/100/job/55) ❌ failed at "
        "Train and evaluate" in only_body(api)
    )
    assert "| Code | ✅ passed | 1 min 30 s |" in only_body(api)
    assert "| Last | skipped |  |" in only_body(api)


def test_problems_of_the_data_are_shown_without_their_rows(
    api: FakeActions, tmp_path: Path
) -> None:
    tell(tmp_path, conclusion="failure")
    api.jobs = [job("Data", "failure", "Validate and split")]
    problem = {
        "file": "data/landed/june.parquet",
        "column": "distance",
        "rule": "min",
        "count": 1200,
        "message": "is below 0",
        "examples": [{"row": 3, "value": "secret"}],
    }
    api.archives["data-report"] = archive({"validation.json": {"problems": [problem]}})
    assert main() == 0
    assert only_body(api).splitlines()[1] == "## ⛔ The data break rules: nothing was trained"
    row = "| data/landed/june.parquet | distance | min | 1,200 | is below 0 |"
    assert row in only_body(api)
    assert "secret" not in only_body(api)


def test_metrics_in_git_are_no_report_of_a_run_that_failed_before_the_gate(
    api: FakeActions,
) -> None:
    evaluated = {"rows": 9, "confidence": 0.95, "metrics": {"roc_auc": {"value": 0.987}}}
    api.archives["report"] = archive({"reports/evaluation.json": evaluated})
    assert main() == 0
    assert "0.987" not in only_body(api)
    api.archives["report"] = archive(
        {"reports/evaluation.json": evaluated, "reports/gate.json": verdict()}
    )
    assert main() == 0
    assert "0.987" in only_body(api)


def test_a_report_of_an_earlier_attempt_is_not_shown(api: FakeActions, tmp_path: Path) -> None:
    tell(tmp_path, run_attempt=2, run_started_at="2026-01-02T11:00:00Z", conclusion="failure")
    api.archives["report"] = report()
    assert main() == 0
    assert "ended before the gate" in only_body(api)
    assert "inferior" not in only_body(api)


def test_no_champion_changed_metrics_renamed_columns_and_contract(api: FakeActions) -> None:
    alone = finding(
        metric="mae", champion=None, difference=None, low=None, high=None, outcome=None, failures=[]
    )
    api.archives["report"] = report(
        verdict="promote",
        reasons=[],
        notes=["No champion yet: origin/main names no model. Floors only."],
        champion=None,
        metrics=[alone],
        slices=[],
        contract_changes=[
            {
                "term": "model.metrics.mae.ceiling",
                "base": None,
                "head": 12.5,
                "effect": "tightened",
            }
        ],
        data={
            "rows": 10,
            "base_rows": None,
            "schema_changes": ["removed `dist`", "added `distance`"],
        },
    )
    assert main() == 0
    body = only_body(api)
    assert "## ✅ Promote" in body
    assert "No champion yet" in body
    assert "| mae ↓ |  | 0.75 |" in body
    assert "Schema: removed \\`dist\\`" in body
    assert "Schema: added \\`distance\\`" in body
    assert "| model.metrics.mae.ceiling |  | 12.5 | tightened |" in body


def test_plots_are_drawn_from_their_numbers(api: FakeActions) -> None:
    api.archives["report"] = archive(
        {
            "reports/gate.json": verdict(),
            "reports/plots/curves/roc.csv": "figure,series,x,y\n"
            "ROC: true positive rate over false positive rate,late = true,0,0\n"
            "ROC: true positive rate over false positive rate,late = true,0.5,0.8\n"
            "ROC: true positive rate over false positive rate,late = true,1,1\n",
            "reports/plots/importance.csv": 'feature,importance\n"hour""] x",0.2\norigin,0.0001\n',
        }
    )
    assert main() == 0
    body = only_body(api)
    assert len(re.findall(r"^```mermaid\n%%\{init: .*\}%%\nxychart-beta", body, re.MULTILINE)) == 2
    assert 'title "ROC: late = true"' in body
    assert 'x-axis "false positive rate" 0 --> 1' in body
    line = next(row for row in body.splitlines() if row.startswith("  line ["))
    values = json.loads(line.removeprefix("  line "))
    assert (len(values), values[0], values[10], values[20]) == (21, 0, 0.8, 1)
    assert 'x-axis ["hour x", "origin"]' in body
    assert "bar [0.2, 0.0001]" in body


HOSTILE = (
    "@team see https://evil.example www.evil.example [x](https://evil.example) "
    "![x](//evil.example/p.png) <img src=x> <!-- </details> `x` | y | #12 "
    "\N{RIGHT-TO-LEFT OVERRIDE}"
)


def assert_harmless(body: str) -> None:
    """Outside of plots, in which Markdown means nothing."""
    body = re.sub(r"^```mermaid\n.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    for raw in ("@team", "https://evil", "www.evil", "[x]", "![x", "<img", "</details> `", "#12"):
        assert raw not in body, raw
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in body
    # A mark opens, and nothing but it.
    assert body.count("<!--") == 1
    assert body.count("<details") == body.count("</details>")


def test_texts_of_the_artifact_can_do_nothing(api: FakeActions) -> None:
    several = f"{HOSTILE}\n\n# {HOSTILE}"
    problem = {"file": HOSTILE, "column": HOSTILE, "rule": several, "message": several}
    evaluated = {"rows": 9, "confidence": 0.95, "metrics": {HOSTILE: {"value": 1}}}
    api.archives["report"] = archive(
        {
            "reports/gate.json": verdict(
                reasons=[several],
                notes=[several],
                base={"revision": HOSTILE, "commit": HOSTILE},
                contract=HOSTILE,
                metrics=[finding(note=HOSTILE, outcome=None, term=HOSTILE)],
                slices=[finding(column=HOSTILE, value=several)],
                limits=[{"term": HOSTILE, "name": several, "value": 1, "unit": HOSTILE}],
                contract_changes=[
                    {"term": HOSTILE, "base": HOSTILE, "head": HOSTILE, "effect": "loosened"}
                ],
                data={"rows": 1, "schema_changes": [several]},
                seconds={HOSTILE: 1},
                consent={"accept_new_baseline": HOSTILE},
            ),
            "reports/validation.json": {"problems": [problem]},
            "reports/evaluation.json": evaluated,
            "reports/plots/curves/roc.csv": "figure,series,x,y\n"
            f'"{HOSTILE}```\n","{HOSTILE}",0,0\n"{HOSTILE}```\n","{HOSTILE}",1,1\n',
            "reports/plots/importance.csv": f'feature,importance\n"{HOSTILE}```",1\n',
        }
    )
    api.jobs = [job(HOSTILE, "failure", HOSTILE)]
    assert main() == 0
    body = only_body(api)
    assert "mermaid" in body
    assert_harmless(body)
    table_rows = [line for line in body.splitlines() if line.startswith("| roc")]
    assert len(table_rows) == 2
    for fence in (line for line in body.splitlines() if "```" in line):
        assert fence in ("```mermaid", "```")


def huge(name: str, size: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(name, b" " * size)
    return content.getvalue()


def twice() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        target.writestr("reports/gate.json", "{}")
        target.writestr("gate.json", "{}")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (huge("reports/gate.json", 200_000_000), "gate.json is larger than 1,000,000 bytes"),
        (archive({f"{number}.txt": "" for number in range(2_001)}), "holds 2,001 files"),
        (b"PK no archive", "is no archive that can be read"),
        (report()[:-30], "is no archive that can be read"),
        (twice(), "holds gate.json twice"),
        (archive({"reports/gate.json": "[" * 200_000}), "is nested too deeply"),
        (archive({"reports/gate.json": b"\xff\xfe"}), "is not UTF-8"),
        (archive({"reports/gate.json": "{"}), "cannot be read"),
        (archive({"reports/gate.json": json.dumps(verdict(rows=float("nan")))}), "NaN is no JSON"),
        (archive({"reports/gate.json": '{"rows": 1e999}'}), "number without end"),
        (archive({"reports/gate.json": '{"rows": 1' + "0" * 400 + "}"}), "too large"),
        (archive({"reports/gate.json": verdict(notes=[""] * 1_001)}), "more than 1,000 items"),
        (archive({"reports/gate.json": verdict(pull_request=1)}), "Extra inputs are not permitted"),
        (archive({"reports/gate.json": verdict(verdict="ship")}), "verdict: Input should be"),
        (report(metrics=[finding(metric="@team")]), "unknown metrics"),
        (report(champion={"hash": "1", "source": "@team"}), "unknown source"),
        (report(erosion=[finding(metric="@team")]), "unknown metrics"),
        (
            report(
                reference={"model": {"hash": "1", "source": "@team"}, "commit": None, "named": True}
            ),
            "unknown source",
        ),
        (archive({"reports/gate.json": "[]"}), "Input should be"),
    ],
)
def test_an_artifact_that_does_harm_is_named_and_not_believed(
    api: FakeActions, content: bytes, said: str
) -> None:
    api.archives["report"] = content
    assert main() == 0
    body = only_body(api).replace("\\_", "_").replace("\\", "")
    assert said in body
    assert "without a verdict" in body
    assert "@team" not in body


def test_a_bomb_is_not_unpacked_to_look_at_its_size() -> None:
    bomb = huge("reports/gate.json", 200_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(EvidenceError, match="is larger than"):
            from_archive(bomb)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_curves_that_cannot_be_drawn_are_named(api: FakeActions) -> None:
    bad = {
        "roc": "figure,series,x,y\na,b,0,nan\n",
        "calibration": "figure,series,x,y\na,b,0\n",
        "residuals": "series,x\nb,0\n",
        "recall": "figure,series,x,y\n" + "a,b,0,0\n" * 5_001,
    }
    api.archives["report"] = archive(
        {
            "reports/gate.json": verdict(),
            **{f"reports/plots/curves/{name}.csv": text for name, text in bad.items()},
        }
    )
    assert main() == 0
    body = only_body(api).replace("\\", "")
    for name in bad:
        assert f"- plots/curves/{name}.csv: " in body
    assert "mermaid" not in body


def test_only_the_reports_are_read_and_nothing_is_unpacked(
    api: FakeActions, tmp_path: Path
) -> None:
    evil = {
        "../../escaped.json": "{}",
        "/absolute.json": "{}",
        "reports/../gate.json": verdict(),
        "reports/plots/curves/../../../gate.csv": "x",
        "reports/plots/images/roc.png": b"\x89PNG",
    }
    before = sorted(tmp_path.rglob("*"))
    assert from_archive(archive(evil)) == {}
    api.archives["report"] = archive(evil)
    assert main() == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_an_artifact_is_not_downloaded_beyond_the_limit(
    api: FakeActions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comment, "ARCHIVE_BYTES", 100)
    api.archives["report"] = report()
    assert main() == 0
    assert api.tokens_in_storage == []
    assert "100 are read at most" in only_body(api)
    # The size that was announced need not be true.
    api.artifact_facts["report"] = {"size_in_bytes": 1}
    assert main() == 1
    assert "is larger than 100 bytes" in capsys.readouterr().err


def test_a_long_report_is_shortened_to_whole_parts(api: FakeActions) -> None:
    reasons = [f"{number}: {'<' * 900}" for number in range(100)]
    api.archives["report"] = report(reasons=reasons)
    assert main() == 0
    body = only_body(api)
    assert 40_000 < len(body) <= 65_536
    assert "Shortened: the whole report is in the artifact." in body
    assert body.count("<details") == body.count("</details>")


def test_a_plot_is_not_cut_in_two() -> None:
    plot = "```mermaid\n" + "line [1]\n" * 100 + "```\n"
    text = f"# Head\n\n<details><summary>Plots</summary>\n\n{plot}{plot}\n</details>\n"
    short = review.shortened(text, 1_500)
    assert len(short) <= 1_500
    assert short.count("```") == 2
    assert short.count("</details>") == 1
    assert review.shortened(text, len(text)) == text


def test_a_server_that_stumbles_is_asked_again(api: FakeActions) -> None:
    api.archives["report"] = report()
    api.refusals[f"GET /repos/{NAME}/pulls"] = [502]
    assert main() == 0
    assert len(api.comments) == 1


def test_an_answer_that_got_lost_makes_no_second_comment(api: FakeActions) -> None:
    waits: list[float] = []
    mark = Mark(100, 1, HEAD)
    api.refusals[f"POST {COMMENTS}"] = [502]
    api.carry_out = True
    comment.publish(GitHub(api.url, TOKEN), NAME, 7, mark, f"{mark}\nBody", waits.append)
    assert api.changes == [f"POST {COMMENTS}"]
    assert (only_body(api), len(waits)) == (f"{mark}\nBody", 1)


def test_a_comment_that_is_refused_for_a_while_is_written_in_the_end(api: FakeActions) -> None:
    waits: list[float] = []
    mark = Mark(100, 1, HEAD)
    api.refusals[f"POST {COMMENTS}"] = [502, 503]
    comment.publish(GitHub(api.url, TOKEN), NAME, 7, mark, f"{mark}\nBody", waits.append)
    assert len(api.comments) == 1
    assert waits == sorted(waits)
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(f"POST {COMMENTS}", 403), (f"GET /repos/{NAME}/pulls", 404)],
)
def test_a_refusal_fails_the_step_and_says_why(
    api: FakeActions, capsys: pytest.CaptureFixture[str], request_line: str, status: int
) -> None:
    api.archives["report"] = report()
    api.refusals[request_line] = [status]
    assert main() == 1
    error = capsys.readouterr().err
    assert f"HTTP {status}: refused for the test" in error
    assert request_line in error
    assert TOKEN not in error


def test_a_comment_under_another_account_is_an_error(
    api: FakeActions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.archives["report"] = report()
    monkeypatch.setitem(BOT, "login", "grace")
    assert main() == 1
    assert api.changes == [f"POST {COMMENTS}"]
    assert "not by github-actions[bot]" in capsys.readouterr().err


def test_outside_a_workflow_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_EVENT_NAME", raising=False)
    assert main() == 1
    assert "this is no workflow run" in capsys.readouterr().err
