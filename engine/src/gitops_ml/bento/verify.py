"""Verify that a packaged model is the one that the gate passed.

    gitops-ml verify-bento build/PKGDOC.bento

What is delivered is the exported bento. Its model file is hashed here once more and held against
its own manifest and against the verdict in `reports/gate.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from gitops_ml.bento.store import BentoError
from gitops_ml.core import paths
from gitops_ml.gate.verdict import Report

# Where BentoML keeps a bento's own files inside the archive.
SOURCE = PurePosixPath("src")


def read_gate(path: Path) -> Report:
    """Read the gate's verdict.

    Raises:
        BentoError: If the file is missing or is no verdict.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BentoError(f"{path}: no such file; run `make gate` first") from error
    except (OSError, ValidationError) as error:
        raise BentoError(f"{path}: cannot be read: {error}; run `make gate` again") from error


def packaged_hash(bento: Path) -> str:
    """The sha256 of the model file inside an exported bento.

    Raises:
        BentoError: If the archive or a file in it is missing or unreadable, or the model is not
            the one in the bento's manifest.
    """
    try:
        with tarfile.open(bento) as archive:
            members = {PurePosixPath(member.name): member for member in archive}
            manifest = json.loads(_read(archive, members, paths.MANIFEST))
            served = manifest["served"]
            recorded = manifest["files"][served]
            found = hashlib.sha256(_read(archive, members, paths.MODELS / served)).hexdigest()
    except FileNotFoundError as error:
        raise BentoError(f"{bento}: no such file; run `make package export-bento`") from error
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise BentoError(
            f"{bento}: is no bento of this project: {error}; run `make package export-bento`"
        ) from error
    if found != recorded:
        raise BentoError(f"{bento}: its model is {found}, but its manifest records {recorded}")
    return found


def _read(
    archive: tarfile.TarFile, members: Mapping[PurePosixPath, tarfile.TarInfo], path: Path
) -> bytes:
    name = SOURCE / path.as_posix()
    if name not in members:
        raise ValueError(f"it has no {name}")
    file = archive.extractfile(members[name])
    if file is None:
        raise ValueError(f"{name} is not a file")
    return file.read()


def verify(bento: Path, gate: Path) -> str:
    """Hold a bento against the verdict; returns what to tell.

    Raises:
        BentoError: If the gate did not pass, or passed another model.
    """
    report = read_gate(gate)
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
