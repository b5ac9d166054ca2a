"""Verify that a packaged model is the one that the gate passed.

    gitops-ml verify-bento build/PKGDOC.bento

What is delivered is the exported bento. Its model file is hashed here once more and held against
its own manifest, against the verdict in `reports/gate.json` and against the model that `dvc.lock`
names, which is hashed, too.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from gitops_ml.bento.archive import read_archive
from gitops_ml.bento.store import BentoError
from gitops_ml.core import paths
from gitops_ml.core.dvc import read_lock
from gitops_ml.core.dvc_objects import check_outputs
from gitops_ml.gate.verdict import read_report
from gitops_ml.model.predictor import read_manifest, read_verified


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


def locked_hash(root: Path) -> str:
    """The sha256 of the model that `dvc.lock` names, once the files here have proved to be it.

    Raises:
        DvcError: If they are not, or there is no lock.
        ModelError: If there is no model.
    """
    check_outputs(root, read_lock(root), [paths.MODELS])
    manifest = read_manifest(root / paths.MODELS)
    return hashlib.sha256(read_verified(root / paths.MODELS, manifest)).hexdigest()


def verify(bento: Path, gate: Path, locked: str) -> str:
    """Hold a bento against the verdict; returns what to tell.

    Args:
        bento: An exported bento.
        gate: The report of the gate.
        locked: The sha256 of the model that `dvc.lock` names.

    Raises:
        GitopsError: If there is no verdict.
        BentoError: If the gate did not pass, or passed another model, or `dvc.lock` names another.
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
    if found != locked:
        raise BentoError(
            f"{bento}: holds the model {found}, but {paths.DVC_LOCK} names {locked}; "
            "run `make gate package export-bento`"
        )
    return f"{bento} holds the model that the gate passed: {found}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("bento", type=Path, metavar="BENTO", help="an exported bento")


def run(options: argparse.Namespace) -> int:
    """Verify a bento; 0 when it is the gated one."""
    print(verify(options.bento, paths.GATE_REPORT, locked_hash(Path())))
    return 0
