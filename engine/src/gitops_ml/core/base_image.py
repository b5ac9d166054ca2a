"""The image's base: named in `deploy/image/Dockerfile`, by digest once somebody has pinned it.

A tag is another image from one day to the next. With the digest beside it, a delivery builds on
what was reviewed, and Dependabot proposes the next one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gitops_ml.core.errors import GitopsError

DOCKERFILE = Path("deploy/image/Dockerfile")

# The one stage that no variable names.
_FROM = re.compile(
    r"^(?P<from>FROM +)(?P<name>[^\s@$]+):(?P<tag>[^\s@:/]+)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))? *$",
    re.MULTILINE | re.IGNORECASE,
)


class BaseImageError(GitopsError):
    """The Dockerfile does not name one base image; the message says what to write."""


@dataclass(frozen=True)
class BaseImage:
    """What an image is built on.

    Attributes:
        name: With its registry, e.g. docker.io/library/python.
        tag: E.g. 3.11-slim.
        digest: sha256:...; None if nobody has pinned it.
    """

    name: str
    tag: str
    digest: str | None

    @property
    def reference(self) -> str:
        """By its digest where there is one, else by its tag, as an engine pulls it."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def short(self) -> str:
        """Without where it is kept, e.g. python:3.11-slim."""
        return f"{self.name.rpartition('/')[2]}:{self.tag}"


def qualified(image: str) -> str:
    """An image's name with its registry: `python:3.11` is docker.io/library/python:3.11."""
    first, slash, _ = image.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def read_base(root: Path) -> BaseImage:
    """The base image of a project.

    Raises:
        BaseImageError: If the file is missing, or does not name exactly one.
    """
    found = _only(root)[1]
    name = qualified(f"{found['name']}:{found['tag']}").rpartition(":")[0]
    return BaseImage(name, found["tag"], found["digest"])


def _only(root: Path) -> tuple[str, re.Match[str]]:
    try:
        text = (root / DOCKERFILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BaseImageError(f"{DOCKERFILE}: cannot be read: {error}") from error
    found = list(_FROM.finditer(text))
    if len(found) != 1:
        raise BaseImageError(
            f"{DOCKERFILE}: {len(found)} lines like `FROM docker.io/library/python:3.13-slim`, not "
            "one; name the base image with its tag, and with the digest that "
            "`make pin-base-image` writes"
        )
    return text, found[0]


def built_on(root: Path, base: str) -> str:
    """The text of the Dockerfile with another name of its base image.

    Raises:
        BaseImageError: If it does not name exactly one.
    """
    text, found = _only(root)
    return f"{text[: found.start()]}{found['from']}{base}{text[found.end() :]}"
