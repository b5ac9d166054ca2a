"""A release as `release.json` tells it, with what a deployment relies on checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops_ml.core.json_text import load_json
from gitops_ml.ship.settings import DeploymentError, artifact_kind

RELEASE = "release.json"
GOLDEN = "golden.json"
FOLDER = Path("build/release")  # what is to be released next

# Where each value is, and its form.
_FORMS: Mapping[str, re.Pattern[str]] = {
    "release": re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+"),
    "source.commit": re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"),
    "model.sha256": re.compile(r"[0-9a-f]{64}"),
}
# The same of what is deployed, below its key.
_ARTIFACT_FORMS: Mapping[str, re.Pattern[str]] = {
    "name": re.compile(r"[A-Za-z0-9._:/-]+"),
    "digest": re.compile(r"sha256:[0-9a-f]{64}"),
}


class ReleaseError(DeploymentError):
    """A `release.json` or `golden.json` is missing or malformed; the message says where and how."""


@dataclass(frozen=True)
class Release:
    """What runs: code, model and what is deployed.

    Attributes:
        content: The whole of `release.json`, and the `digest`, as a service answers it.
        tag: The bento's, e.g. flight_delays:0a1b2c3d-4e5f6a7b.
        commit: Of the source.
        model: The sha256 of the model file.
        kind: What is deployed: `image` or `bento`.
        artifact: The same by digest: name@sha256:...
    """

    content: Mapping[str, Any]
    tag: str
    commit: str
    model: str
    kind: str
    artifact: str

    @property
    def digest(self) -> str:
        """The artifact's digest, e.g. sha256:..."""
        return self.artifact.rpartition("@")[2]

    @property
    def variables(self) -> dict[str, str]:
        """What the service is told: what it must find in itself, and what it was deployed as."""
        return {
            "EXPECTED_RELEASE": self.tag,
            "EXPECTED_MODEL_SHA256": self.model,
            "RELEASE_DIGEST": self.digest,
        }

    def same_as(self, other: Release) -> bool:
        """Whether both are the same code, model and artifact."""
        return (self.tag, self.commit, self.model, self.artifact) == (
            (other.tag, other.commit, other.model, other.artifact)
        )


def parse_release(text: bytes, where: str) -> Release:
    """Read a `release.json`.

    Args:
        text: Its bytes.
        where: What to call it in messages.

    Raises:
        ReleaseError: Naming every value that is not as it must be.
    """
    content = _parse_object(text, where)
    found = {}
    problems = []
    kind = artifact_kind()
    forms = {**_FORMS, **{f"{kind}.{key}": form for key, form in _ARTIFACT_FORMS.items()}}
    for path, form in forms.items():
        value: Any = content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and form.fullmatch(value):
            found[path] = value
        else:
            what = "is missing" if value is None else f"is {value!r}, not {form.pattern}"
            problems.append(f"  {path} {what}")
    if problems:
        raise ReleaseError(f"{where}: is malformed:\n" + "\n".join(problems))
    return Release(
        content={**content, "digest": found[f"{kind}.digest"]},
        tag=found["release"],
        commit=found["source.commit"],
        model=found["model.sha256"],
        kind=kind,
        artifact=f"{found[f'{kind}.name']}@{found[f'{kind}.digest']}",
    )


def _parse_object(text: bytes, where: str) -> dict[str, Any]:
    try:
        content = load_json(text)
    except ValueError as error:
        raise ReleaseError(f"{where}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReleaseError(f"{where}: must hold a JSON object")
    return content


def read_next(root: Path) -> tuple[Release, dict[str, bytes]]:
    """The release that is to be released next, and its two files as they are.

    Raises:
        ReleaseError: If one is missing or malformed.
    """
    files = {}
    for name in (RELEASE, GOLDEN):
        try:
            files[name] = (root / FOLDER / name).read_bytes()
        except OSError as error:
            hint = "run `make release-record`"
            raise ReleaseError(f"{FOLDER / name}: {error.strerror}; {hint}") from error
    golden = _parse_object(files[GOLDEN], str(FOLDER / GOLDEN))
    if not golden.get("records") or not golden.get("predictions"):
        raise ReleaseError(f"{FOLDER / GOLDEN}: holds no predictions; run `make release-record`")
    return parse_release(files[RELEASE], str(FOLDER / RELEASE)), files
