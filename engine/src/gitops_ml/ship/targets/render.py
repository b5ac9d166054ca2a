"""Render what a release writes to an environment's branch.

gitops-ml render --environment staging
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gitops_ml.core.errors import GitopsError
from gitops_ml.ship import targets
from gitops_ml.ship.release.release import read_next

OUT = Path("build/manifests")


def main(arguments: list[str] | None = None) -> int:
    """Write the manifests of a release; 0 if they were written."""
    parser = argparse.ArgumentParser(description="Render the manifests of build/release.")
    parser.add_argument("--environment", required=True, help="staging or production")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        release, _ = read_next(root)
        files = targets.chosen(root).render(root, options.environment, release.content)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (options.out / name).write_bytes(content)
            print(options.out / name)
    except (GitopsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
