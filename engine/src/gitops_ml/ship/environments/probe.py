"""Probe an environment: does the live service run what its branch says, and answer as it should?

    gitops-ml probe --environment staging

Waits until the address in STAGING_URL (PRODUCTION_URL) tells the release, the model and the digest
of the branch, then asks for the golden predictions. `--revision` names the commit of the branch
that is meant: what others released since is not what is to be proved. Tells later steps `proved`
(true or false) and writes what was seen to `build/probe.json`. Without an address nothing is
proved, and that is said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops_ml.bento import smoke
from gitops_ml.bento.smoke import SmokeError
from gitops_ml.github.workflow_run import run_url
from gitops_ml.ship.environments.branches import EnvironmentBranch, MovedError
from gitops_ml.ship.release.release import GOLDEN, Release, ReleaseError
from gitops_ml.ship.settings import (
    EVIDENCE,
    Environment,
    parse_environment,
    service_url,
    tell_skipped,
    url_variable,
    write_outputs,
)

TIMEOUT_SECONDS = 600.0
# While a new release replaces an old one, both answer in turn. So many answers in a row of the new
# one count as the end of it; and to answer wrongly is to do so that many times.
STEADY = 10
TRIES = 3


@dataclass(frozen=True)
class Target:
    """What must answer, and where.

    Attributes:
        environment: Its name.
        url: Where its service answers.
        revision: The commit of its branch.
        release: What that says.
        golden: The predictions that the service must give.
    """

    environment: Environment
    url: str
    revision: str
    release: Release
    golden: dict[str, Any]


def find_target(root: Path, environment: Environment, url: str, meant: str | None = None) -> Target:
    """Read what an environment's branch says.

    Args:
        root: The project's folder.
        environment: Its name.
        url: Where its service answers.
        meant: The commit that must still be the branch's newest; None for whatever is.

    Raises:
        MovedError: If the branch has gone on from the commit that is meant.
        ReleaseError: If nothing was released to it, or what was cannot be read.
        GitError: If the remote cannot be reached.
    """
    branch = EnvironmentBranch(root, environment)
    branch.fetch()
    revision, release = branch.head(), branch.release()
    if revision is None or release is None:
        raise ReleaseError(f"{branch.name} is empty: nothing was released to {environment} yet")
    if meant and revision != meant:
        raise MovedError(
            f"{branch.name} has moved from {meant} to {revision}, which runs {release.tag}; what "
            "it ran before can be proved no more"
        )
    where = f"{branch.name} at {revision[:12]}: {GOLDEN}"
    try:
        golden = smoke.parse_golden(branch.read(GOLDEN) or b"", where)
    except SmokeError as error:
        raise ReleaseError(str(error)) from error
    return Target(environment, url, revision, release, golden)


def probe(target: Target, timeout: float) -> str:
    """Wait until the service runs the release, then hold its answers against the golden ones.

    Args:
        target: What must answer.
        timeout: Seconds until it must.

    Returns:
        One line that says what was checked.

    Raises:
        SmokeError: If another release answers, or another build of it, or none, or the answers are
            wrong.
    """
    url, release = target.url, target.release
    what = {"release": release.tag, "digest": release.digest}
    deadline = time.monotonic() + timeout
    failures = 0
    while True:
        left = max(0.0, deadline - time.monotonic())
        smoke.wait_for(url, release.model, left, **what)
        try:
            for _ in range(STEADY):
                smoke.wait_for(url, release.model, 0, **what)
        except SmokeError:
            if time.monotonic() >= deadline:
                raise
        else:
            try:
                return smoke.smoke(url, target.golden, release.model, 0, **what)
            except SmokeError:
                failures += 1
                if failures == TRIES:
                    raise
        time.sleep(smoke.POLL_SECONDS)


def write_evidence(root: Path, target: Target, problem: str | None) -> None:
    """Write down what was seen.

    Args:
        root: The project's folder.
        target: What was probed.
        problem: What was wrong; None if nothing was.
    """
    evidence = {
        "environment": target.environment,
        "url": target.url,
        "release": target.release.tag,
        "model": target.release.model,
        target.release.kind: target.release.artifact,
        "revision": target.revision,
        "run": run_url(),
        "proved": problem is None,
        "problem": problem,
    }
    path = root / EVIDENCE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--environment", required=True, help="staging or production")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_SECONDS, help="seconds until it must"
    )
    parser.add_argument("--revision", help="the commit that must be the branch's newest")


def run(options: argparse.Namespace) -> int:
    """Probe; 0 when proved or skipped, 1 when the service is not as it should be."""
    root = Path.cwd()
    (root / EVIDENCE).unlink(missing_ok=True)
    environment = parse_environment(options.environment)
    url = service_url(environment)
    if url is None:
        tell_skipped(
            f"the probe of {environment}, so nothing is proved",
            f"set the repository variable {url_variable(environment)} to the address of its "
            "service",
        )
        write_outputs(proved=False)
        return 0
    target = find_target(root, environment, url, options.revision)
    said, problem = _look(target, options.timeout)
    write_evidence(root, target, problem)
    write_outputs(proved=problem is None)
    print(said, file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


def _look(target: Target, timeout: float) -> tuple[str, str | None]:
    """What to tell people, and the problem if there is one."""
    try:
        return probe(target, timeout), None
    except SmokeError as error:
        what = f"{target.environment} does not run {target.release.tag} as it should"
        return f"{what}:\n{error}", str(error)
