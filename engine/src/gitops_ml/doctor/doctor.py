"""Checks the tools, the working tree and the settings on GitHub, and says what to do.

    gitops-ml doctor            # a table
    gitops-ml doctor --json     # the same for programs

Exit code 1 when a check fails. What cannot be looked at, without a network or a token or before the
repository is on GitHub, is skipped and said to be.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from gitops_ml.doctor.check import Check, Status
from gitops_ml.doctor.github import check_github
from gitops_ml.doctor.local import check_local

STATUSES: tuple[Status, ...] = ("ok", "warn", "fail", "skipped")


def look(root: Path) -> Iterator[Check]:
    """Every check, one after the other."""
    yield from check_local(root)
    yield from check_github(root)


def line(check: Check) -> str:
    """One check as people read it, with what to do on a line of its own."""
    text = f"{check.status:<8} {check.name:<26} {check.detail}"
    return f"{text}\n{'':<35} do: {check.remedy}" if check.remedy else text


def summary(checks: Iterable[Check]) -> str:
    """How many checks came out how."""
    counts = Counter(check.status for check in checks)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Run from the command line; see the module's text."""
    checks = []
    for check in look(Path()):
        checks.append(check)
        if not options.json:
            print(line(check), flush=True)
    print(json.dumps([asdict(c) for c in checks], indent=2) if options.json else summary(checks))
    return 1 if any(check.status == "fail" for check in checks) else 0
