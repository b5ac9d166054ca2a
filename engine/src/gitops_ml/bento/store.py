"""The bento that is delivered, as BentoML's store holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project

FETCHED = Path("build/bento")


class BentoError(GitopsError):
    """There is no such bento, or it cannot be read; the message says which."""


@dataclass(frozen=True)
class Bento:
    """A bento of the store.

    Attributes:
        tag: Its name and version.
        folder: Where it is.
        release: Its `release.json`.
    """

    tag: str
    folder: Path
    release: Mapping[str, Any]

    @property
    def version(self) -> str:
        """The part of the tag after the name."""
        return self.tag.partition(":")[2]

    @property
    def golden(self) -> Path:
        """Its golden predictions."""
        return self.folder / "src" / "reports" / "golden.json"


def find_bento(tag: str) -> Bento:
    """A bento of the store; `latest` is the one built last.

    Raises:
        BentoError: If there is none.
    """
    try:
        found = bentoml.bentos.get(f"{load_project().package}:{tag.rpartition(':')[2]}")
        folder = Path(found.path)
        release = json.loads((folder / "src" / "release.json").read_text(encoding="utf-8"))
    except BentoMLException as error:
        raise BentoError(
            f"{tag}: no such bento; run `make fetch-bento`, or `make package` to build one here"
        ) from error
    except (OSError, ValueError) as error:
        raise BentoError(f"{tag}: its release.json cannot be read: {error}") from error
    return Bento(str(found.tag), folder, release)
