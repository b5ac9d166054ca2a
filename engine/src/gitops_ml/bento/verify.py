"""Verify that a packaged model is the one that the gate passed.

    gitops-ml verify-bento build/PKGDOC.bento

What is delivered is the exported bento. Its model file is hashed here once more and held against
its own manifest and against the verdict in `reports/gate.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gitops_ml.bento.archive import read_archive
from gitops_ml.bento.store import BentoError
from gitops_ml.core import paths
from gitops_ml.gate.verdict import read_report


def packaged_hash(bento: Path) -> str:
    """The sha256 of the model file inside an exported bento.

    Raises:
        BentoError: If it is none, or the model is not the one in the bento's manifest.
    """
    try:
        archive = read_archive(bento)
        found, manifest = archive.model, archive.manifest
    except BentoError as error:
        raise BentoError(f"{error}; run `make package export-bento`") from error
    recorded = manifest.get("files", {}).get(manifest["served"])
    if found != recorded:
        raise BentoError(f"{bento}: its model is {found}, but its manifest records {recorded}")
    return found


def verify(bento: Path, gate: Path) -> str:
    """Hold a bento against the verdict; returns what to tell.

    Raises:
        GitopsError: If there is no verdict.
        BentoError: If the gate did not pass, or passed another model.
    """
    report = read_report(gate, str(gate))
    if report.verdict == "block":
        raise BentoError(f"{gate}: the gate blocked this model; it must not be delivered")
    found = packaged_hash(bento)
    if found != report.challenger.sha256:
        raise BentoError(
            f"{bento}: holds the model {found}, but the gate passed "
            f"{report.challenger.sha256} ({gate}); run `make gate package export-bento`"
        )
    return f"{bento} holds the model that the gate passed: {found}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("bento", type=Path, metavar="BENTO", help="an exported bento")


def run(options: argparse.Namespace) -> int:
    """Verify a bento; 0 when it is the gated one."""
    print(verify(options.bento, paths.GATE_REPORT))
    return 0
