"""What is said of the image by variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.ship.image.settings import Login, container_engine, image_name, registry_login
from gitops_ml.ship.settings import DeploymentError

pytestmark = pytest.mark.usefixtures("clean_settings")


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
    with pytest.raises(DeploymentError, match=r"IMAGE is '.*'; it must be registry/name"):
        image_name()


def test_says_what_to_set_where_the_image_has_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DeploymentError, match=r"IMAGE is not set, and there is no git remote"):
        image_name(tmp_path)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/-shop-")
    with pytest.raises(DeploymentError, match=r"no image can be called 'ghcr\.io/acme/-shop-'"):
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
    with pytest.raises(DeploymentError, match=f"REGISTRY_{missing} is not"):
        registry_login("ghcr.io/acme/shop")


def test_docker_builds_unless_podman_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_ENGINE", "")
    assert container_engine() == "docker"
    monkeypatch.setenv("CONTAINER_ENGINE", "podman")
    assert container_engine() == "podman"
    monkeypatch.setenv("CONTAINER_ENGINE", "lxc; rm -rf")
    with pytest.raises(DeploymentError, match="choose docker or podman"):
        container_engine()
