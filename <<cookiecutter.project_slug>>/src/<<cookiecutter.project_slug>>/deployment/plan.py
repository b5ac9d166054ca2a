"""Tell whether the checked-out commit is one that can be delivered.

    python -m <package>.deployment.plan

A release is made of what git names. Where `dvc.lock` was never committed, git names no model: the
pipeline still trains and judges one, but nothing is delivered, and that is said. Tells later steps
`deliverable` (true or false) and `commit`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .repository import Repository
from .settings import DeploymentError, tell_skipped, write_outputs

LOCK = "dvc.lock"


def deliverable(root: Path) -> tuple[str, bool]:
    """The checked-out commit, and whether it names a model.

    Raises:
        DeploymentError: If there is no commit.
    """
    repository = Repository(root)
    commit = repository.find("HEAD^{commit}")
    if commit is None:
        raise DeploymentError("there is no commit to deliver; commit first (`git commit`)")
    return commit, repository.find(f"{commit}:{LOCK}") is not None


def main() -> int:
    """Look; 0 whether or not there is something to deliver, 1 when that cannot be told."""
    try:
        commit, found = deliverable(Path.cwd())
        write_outputs(commit=commit, deliverable=found)
        if not found:
            tell_skipped(
                f"the delivery of {commit[:8]}, which names no model",
                f"`make pipeline`, then commit `{LOCK}` and `reports/`, and push",
            )
    except DeploymentError as error:
        print(error, file=sys.stderr)
        return 1
    if found:
        print(f"{commit} is to be delivered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
