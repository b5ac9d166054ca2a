"""What is deployed: the bento, which BentoCloud holds under its tag; a hash tells what is in it."""

from __future__ import annotations

from gitops_ml.core.json_text import load_json
from gitops_ml.ship.targets import Found
from gitops_ml.ship.targets.bentocloud_document import render

__all__ = ["details", "how_to_verify", "look_up", "recorded", "render"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gitops_ml.bento.archive import fetched_tag
from gitops_ml.bento.store import Bento, find_bento
from gitops_ml.ship.targets.bentocloud_client import (
    CloudError,
    MissingError,
    digest_of,
    log_in,
    pulled,
)

KIND = "bento"  # its key in release.json


def recorded(root: Path) -> tuple[Bento, dict[str, Any]]:
    """The bento that is to be released, and what a release says of it.

    Raises:
        BentoError: If there is none.
    """
    bento = find_bento(fetched_tag(root) or "latest")
    return bento, {"name": bento.tag, "digest": digest_of(bento.folder)}


def look_up(release: Mapping[str, Any]) -> tuple[Found, str]:
    """Whether BentoCloud holds a release's bento, made of that release, and a note on that."""
    tag, digest = release[KIND]["name"], release[KIND]["digest"]
    try:
        if not log_in():
            return "unknown", "to look, set BENTO_CLOUD_API_KEY"
        with pulled(tag) as folder:
            held = digest_of(folder)
            own = _own_release(folder)
    except MissingError as error:
        return "differs", str(error)
    except CloudError as error:
        return "unknown", str(error).splitlines()[0]
    if held != digest:
        return "differs", f"BentoCloud holds {held} under this tag"
    if own is None:
        return "differs", "the bento on BentoCloud holds no release.json that can be read"
    differing = [key for key, value in own.items() if release.get(key) != value]
    if tag != release["release"] or differing:
        what = ", ".join(differing) or "its tag"
        return "differs", f"the bento on BentoCloud says otherwise about {what}"
    return "ok", "is on BentoCloud, and says the same of itself"


def _own_release(folder: Path) -> dict[str, Any] | None:
    """What a bento says of itself; None if that cannot be read."""
    try:
        own = load_json((folder / "src" / "release.json").read_bytes())
    except (OSError, ValueError):
        return None
    return own if isinstance(own, dict) and "release" in own else None


def details(release: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else a release tells of its bento, as names and values: nothing."""
    return []


def how_to_verify(artifact: str) -> str:
    """What people run to see that this is what runs, in Markdown."""
    return (
        f"`make lineage URL=...` verifies a running service, and that {artifact} is on BentoCloud."
    )
