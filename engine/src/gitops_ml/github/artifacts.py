"""The artifacts of a workflow's run.

https://docs.github.com/en/rest/actions/artifacts
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from gitops_ml.github.client import GitHub

# What reading an archive raises that is none, is cut short, or is packed in a way not known here.
UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


def newest_artifact(api: GitHub, repository: str, run: int, name: str) -> Mapping[str, Any] | None:
    """The artifact of a name, the newest where several attempts made one; None without one.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    path = f"/repos/{repository}/actions/runs/{run}/artifacts"
    found = [item for item in api.items(path, "artifacts") if item["name"] == name]
    return max(found, key=lambda item: int(item["id"]), default=None)
