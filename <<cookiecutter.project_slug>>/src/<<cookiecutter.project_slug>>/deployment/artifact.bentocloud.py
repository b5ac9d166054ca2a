"""What is deployed: the bento, which BentoCloud holds under its tag; a hash tells what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .bento import Bento, fetched_tag, find_bento
from .bentocloud import CloudError, MissingError, digest_of, log_in, pulled

KIND = "bento"  # its key in release.json
NAME = re.compile(r"[A-Za-z0-9._:/-]+")

Found = Literal["ok", "differs", "unknown"]


def recorded(root: Path) -> tuple[Bento, dict[str, Any]]:
    """The bento that is to be released, and what a release says of it.

    Raises:
        BentoError: If there is none.
    """
    bento = find_bento(fetched_tag(root) or "latest")
    return bento, {"name": bento.tag, "digest": digest_of(bento.folder)}


def look_up(artifact: str) -> tuple[Found, str]:
    """Whether BentoCloud holds a bento, and a note on that."""
    tag, _, digest = artifact.partition("@")
    try:
        if not log_in():
            return "unknown", "to look, set BENTO_CLOUD_API_KEY"
        with pulled(tag) as folder:
            held = digest_of(folder)
    except MissingError as error:
        return "differs", str(error)
    except CloudError as error:
        return "unknown", str(error).splitlines()[0]
    if held != digest:
        return "differs", f"BentoCloud holds {held} under this tag"
    return "ok", "is on BentoCloud"


def details(release: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else a release tells of its bento, as names and values: nothing."""
    return []


def how_to_verify(artifact: str) -> str:
    """What people run to see that this is what runs, in Markdown."""
    return (
        f"`make lineage URL=...` verifies a running service, and that {artifact} is on BentoCloud."
    )
