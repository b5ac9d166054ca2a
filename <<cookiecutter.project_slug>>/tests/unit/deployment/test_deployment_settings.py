"""What a deployment is told by variables, and what it tells later steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from << cookiecutter.project_slug >>.deployment.settings import (
    Login,
    SettingError,
    chosen_by_hand,
    container_engine,
    image_name,
    parse_environment,
    registry_login,
    run_url,
    service_url,
    tell_skipped,
    write_outputs,
)

pytestmark = pytest.mark.usefixtures("clean_settings")


@pytest.mark.parametrize("text", ["", "Staging", "prod", "staging "])
def test_there_are_two_environments(text: str) -> None:
    assert parse_environment("staging") == "staging"
    assert parse_environment("production") == "production"
    with pytest.raises(SettingError, match="choose staging or production"):
        parse_environment(text)


@pytest.mark.parametrize(
    ("server", "repository", "image"),
    [
        (None, "Acme/Flight-Delays", "ghcr.io/acme/flight-delays"),
        ("https://github.com", "acme/shop", "ghcr.io/acme/shop"),
        ("https://acme.ghe.com", "acme/shop", "containers.acme.ghe.com/acme/shop"),
    ],
)
def test_the_image_is_called_after_the_repository(
    monkeypatch: pytest.MonkeyPatch, server: str | None, repository: str, image: str
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    if server:
        monkeypatch.setenv("GITHUB_SERVER_URL", server)
    assert image_name() == image


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/acme/shop",
        "localhost/shop",
        "127.0.0.1:5000/a/b_c/d--e/f.g",
        "registry:5000/shop",
        "eu.gcr.io/team-1/shop",
    ],
)
def test_the_image_can_be_named(monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    monkeypatch.setenv("IMAGE", f" {image}\n")
    assert image_name() == image


@pytest.mark.parametrize(
    "image",
    [
        "acme/shop",
        "ghcr.io/Acme/shop",
        "ghcr.io/acme/shop:latest",
        f"ghcr.io/acme/shop@sha256:{'a' * 64}",
        "https://ghcr.io/acme/shop",
        "ghcr.io/",
        "ghcr.io/acme//shop",
        "ghcr.io/acme/shop --privileged",
        "-ghcr.io",
    ],
)
def test_an_image_that_no_registry_takes_is_named(
    monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.setenv("IMAGE", image)
    with pytest.raises(SettingError, match=r"IMAGE is '.*'; it must be registry/name"):
        image_name()


def test_says_what_to_set_where_the_image_has_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"IMAGE is not set, and there is no git remote"):
        image_name(tmp_path)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/-shop-")
    with pytest.raises(SettingError, match=r"no image can be called 'ghcr\.io/acme/-shop-'"):
        image_name()


def test_githubs_registry_takes_the_workflows_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry_login("ghcr.io/acme/shop") is None
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    assert registry_login("ghcr.io/acme/shop") == Login("ghcr.io", "ada", "secret")
    assert "secret" not in repr(registry_login("ghcr.io/acme/shop"))


@pytest.mark.parametrize("image", ["127.0.0.1:5000/shop", "registry.example.com/shop"])
def test_no_other_registry_gets_the_workflows_token(
    monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    assert registry_login(image) is None
    monkeypatch.setenv("REGISTRY_USER", "robot")
    monkeypatch.setenv("REGISTRY_TOKEN", "own")
    assert registry_login(image) == Login(image.partition("/")[0], "robot", "own")


@pytest.mark.parametrize(("there", "missing"), [("USER", "TOKEN"), ("TOKEN", "USER")])
def test_half_a_login_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, there: str, missing: str
) -> None:
    monkeypatch.setenv(f"REGISTRY_{there}", "x")
    with pytest.raises(SettingError, match=f"REGISTRY_{missing} is not"):
        registry_login("ghcr.io/acme/shop")


def test_docker_builds_unless_podman_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_ENGINE", "")
    assert container_engine() == "docker"
    monkeypatch.setenv("CONTAINER_ENGINE", "podman")
    assert container_engine() == "podman"
    monkeypatch.setenv("CONTAINER_ENGINE", "lxc; rm -rf")
    with pytest.raises(SettingError, match="choose docker or podman"):
        container_engine()


def test_each_environment_has_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGING_URL", "https://staging.example.com/late/")
    assert service_url("staging") == "https://staging.example.com/late"
    assert service_url("production") is None


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
        "https://late example.com",
        "https://[::1",
    ],
)
def test_what_is_no_address_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PRODUCTION_URL", url)
    with pytest.raises(SettingError, match="PRODUCTION_URL: must be the address") as caught:
        service_url("production")
    assert "hush" not in str(caught.value)


def test_knows_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_url() is None
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/shop")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert run_url() == "https://github.com/acme/shop/actions/runs/7"


@pytest.mark.parametrize(
    ("event", "by_hand"), [("workflow_dispatch", True), ("workflow_run", False), (None, False)]
)
def test_knows_whether_a_person_chose(
    monkeypatch: pytest.MonkeyPatch, event: str | None, by_hand: bool
) -> None:
    if event:
        monkeypatch.setenv("GITHUB_EVENT_NAME", event)
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
    with pytest.raises(SettingError, match=r"GITHUB_OUTPUT is .*none/outputs"):
        write_outputs(proved=True)
