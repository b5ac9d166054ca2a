"""What is deployed: the container image, which the registry holds under its digest."""

from __future__ import annotations

from gitops_ml.ship.targets import Found
from gitops_ml.ship.targets.manifests import render

__all__ = ["details", "how_to_verify", "look_up", "recorded", "render"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gitops_ml.bento.store import Bento, find_bento
from gitops_ml.ship.image.image import LABEL, RECORD, read_record
from gitops_ml.ship.image.registry import Registry
from gitops_ml.ship.image.settings import Login, image_name, registry_login
from gitops_ml.ship.settings import DeploymentError

KIND = "image"  # its key in release.json


def recorded(root: Path) -> tuple[Bento, dict[str, Any]]:
    """The bento that is to be released, and the image that was made of it.

    Raises:
        DeploymentError: If there is no image.
        BentoError: If its bento is gone.
        DeploymentError: If the image is not pushed.
    """
    image = read_record(root)
    if not isinstance(image.get("digest"), str):
        raise DeploymentError(f"{RECORD}: the image is not pushed; run `make push-image`")
    return find_bento(image["bento"]), {key: image[key] for key in ("name", "digest", "base")}


def look_up(release: Mapping[str, Any]) -> tuple[Found, str]:
    """Whether the registry holds a release's image, made of that release, and a note on that."""
    name, digest = release[KIND]["name"], release[KIND]["digest"]
    try:
        images = Registry(name, _login_for(name)).labels(digest)
    except DeploymentError as error:
        return "unknown", str(error).splitlines()[0]
    if images is None:
        return "differs", "the registry holds no such image"
    base, _, base_digest = str(release[KIND].get("base")).partition("@")
    expected = {
        "version": release["release"].partition(":")[2],
        "revision": release["source"]["commit"],
        "base.name": base,
        "base.digest": base_digest,
    }
    problems = [
        f"{key} is {found}, not {value}"
        for labels in images
        for key, value in expected.items()
        if (found := labels.get(f"{LABEL}.{key}")) != value
    ]
    if problems:
        return "differs", f"the registry holds another image: its {'; its '.join(problems)}"
    return "ok", "is in the registry, and its labels name this version, commit and base image"


def _login_for(image: str) -> Login | None:
    """Who asks for an image that a release names; None to ask as nobody.

    Raises:
        DeploymentError: If the login is for another registry, which is the one that IMAGE names: a
            release must not decide where it is sent. If the settings do not fit.
    """
    login = registry_login(image)
    if login is None:
        return None
    own = image_name().partition("/")[0]
    if login.registry != own:
        raise DeploymentError(
            f"the release names the registry {login.registry}, and the login is for {own}, where "
            "IMAGE is, so it was not sent; if the release is right, set IMAGE, REGISTRY_USER and "
            "REGISTRY_TOKEN for that registry"
        )
    return login


def details(release: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else `release.json` tells of the image: names and values."""
    return [("base image", str(release[KIND].get("base")))]


def how_to_verify(artifact: str) -> str:
    """What people run to see that this is what runs, in Markdown."""
    return (
        "`make lineage URL=...` verifies a running service. Where the delivery signs attestations "
        "(in a public repository, or with the variable `ATTEST`), "
        f"`gh attestation verify oci://{artifact} --repo OWNER/NAME` verifies how the image was "
        "built."
    )
