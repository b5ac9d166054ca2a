"""What a deployment is told by variables, and what it tells later steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import make_project

from gitops_ml.ship.settings import (
    DeploymentError,
    artifact_kind,
    chosen_by_hand,
    parse_environment,
    service_url,
    tell_skipped,
    write_outputs,
)

pytestmark = pytest.mark.usefixtures("clean_settings")


@pytest.mark.parametrize("text", ["", "Staging", "prod", "staging "])
def test_there_are_two_environments(text: str) -> None:
    assert parse_environment("staging") == "staging"
    assert parse_environment("production") == "production"
    with pytest.raises(DeploymentError, match="choose staging or production"):
        parse_environment(text)


def test_each_environment_has_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGING_URL", "https://staging.example.com/late/")
    assert service_url("staging") == "https://staging.example.com/late"
    assert service_url("production") is None
    monkeypatch.setenv("STAGING_URL", "http://late.example.com:1")
    assert service_url("staging") == "http://late.example.com:1"


@pytest.mark.parametrize(("target", "kind"), [("bentocloud", "bento"), ("kubernetes", "image")])
def test_what_is_deployed_is_the_target_s(target: str, kind: str) -> None:
    make_project(Path(), target)
    assert artifact_kind() == kind


@pytest.mark.parametrize(
    "url",
    [
        "late.example.com",
        "file:///etc/passwd",
        "https://",
        "https://ada:hush@late.example.com",
        "https://late.example.com?x=1",
        "https://late.example.com#x",
        "https://late.example.com:port",
        "https://late.example.com:0",
        "https://late example.com",
        "https://[::1",
    ],
)
def test_what_is_no_address_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PRODUCTION_URL", url)
    with pytest.raises(DeploymentError, match="PRODUCTION_URL: must be the address") as caught:
        service_url("production")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("event", "attempt", "by_hand"),
    [
        ("workflow_dispatch", "1", True),
        ("workflow_dispatch", None, True),
        ("workflow_dispatch", "2", False),
        ("workflow_run", "1", False),
        (None, None, False),
    ],
)
def test_knows_whether_a_person_chose_just_now(
    monkeypatch: pytest.MonkeyPatch, event: str | None, attempt: str | None, by_hand: bool
) -> None:
    for name, value in (("GITHUB_EVENT_NAME", event), ("GITHUB_RUN_ATTEMPT", attempt)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert chosen_by_hand() is by_hand


def test_tells_later_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_outputs(released=True)  # outside a workflow: nobody to tell
    target = tmp_path / "outputs"
    target.write_text("before=1\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_OUTPUT", str(target))
    write_outputs(released=True, proved=False, revision="abc")
    assert target.read_text(encoding="utf-8") == (
        "before=1\nreleased=true\nproved=false\nrevision=abc\n"
    )
    with pytest.raises(ValueError, match="not one line"):
        write_outputs(revision="abc\nproved=true")
    assert target.read_text(encoding="utf-8").endswith("revision=abc\n")


def test_says_what_was_skipped_on_the_runs_page_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    tell_skipped("the probe", "set STAGING_URL")
    for text in (capsys.readouterr().out, target.read_text(encoding="utf-8")):
        assert "the probe" in text
        assert "set STAGING_URL" in text


def test_names_a_file_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "none" / "outputs"))
    with pytest.raises(DeploymentError, match=r"GITHUB_OUTPUT is .*none/outputs"):
        write_outputs(proved=True)
