"""Render what a release writes to an environment's branch.

    gitops-ml render --environment staging

It shows what `gitops-ml release` pushes; nothing is pushed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gitops_ml.ship import targets
from gitops_ml.ship.release.release import read_next

OUT = Path("build/manifests")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--environment", required=True, help="staging or production")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER")


def run(options: argparse.Namespace) -> int:
    """Write the manifests of a release; 0 if they were written."""
    root = Path.cwd()
    release, _ = read_next(root)
    files = targets.chosen(root).render(root, options.environment, release.content)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (options.out / name).write_bytes(content)
        print(options.out / name)
    return 0
