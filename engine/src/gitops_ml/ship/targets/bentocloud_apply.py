"""Bring to BentoCloud what an environment's branch says.

    gitops-ml cloud push
    gitops-ml cloud apply --environment staging

`push` gives BentoCloud the bento that was fetched. `apply` reads the release of the branch, pulls
its bento, which must be the recorded one, and creates or updates the environment's deployment with
it. So what is pushed once is deployed to staging, to production, and again after a rollback. If the
branch goes on meanwhile, so does `apply`: BentoCloud ends at what the branch says. Tells later
steps `applied` (true or false) and `url`, where the service answers. Without a token nothing is
done, and that is said.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from gitops_ml.bento.archive import fetched_tag
from gitops_ml.bento.store import find_bento
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.environments.probe import Target, find_target, write_evidence
from gitops_ml.ship.release.release import ReleaseError
from gitops_ml.ship.settings import (
    EVIDENCE,
    parse_environment,
    tell_skipped,
    write_outputs,
)
from gitops_ml.ship.targets.bentocloud_client import (
    KEY,
    CloudError,
    deploy,
    digest_of,
    log_in,
    pulled,
    push,
)
from gitops_ml.ship.targets.bentocloud_document import DEPLOYMENT

TIMEOUT_SECONDS = 1800.0


def read_config(root: Path, target: Target) -> dict[str, Any]:
    """The deployment that a branch describes.

    Raises:
        ReleaseError: If it describes none.
    """
    branch = EnvironmentBranch(root, target.environment)
    where = f"{branch.name} at {target.revision[:12]}: {DEPLOYMENT}"
    try:
        config = load_yaml(branch.read(DEPLOYMENT, target.revision) or b"")
        described = config["bento"] == target.release.tag and bool(config["name"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ReleaseError(f"{where}: describes no deployment: {error!r}") from error
    if not described:
        raise ReleaseError(f"{where}: does not describe a deployment of {target.release.tag}")
    return dict(config)


def apply(target: Target, config: dict[str, Any], timeout: float) -> str:
    """Deploy the release of a branch.

    Args:
        target: What is to run.
        config: The deployment that the branch describes.
        timeout: Seconds until it must run.

    Returns:
        Where its service answers.

    Raises:
        CloudError: If BentoCloud holds another bento, or the deployment does not come to run.
    """
    release = target.release
    with pulled(release.tag) as folder:
        held = digest_of(folder)
    if held != release.digest:
        raise CloudError(
            f"{release.tag}: BentoCloud holds another bento ({held}) under this tag than the one "
            f"that was released ({release.digest}); delete it there, then deliver its commit again"
        )
    return deploy(config, timeout)


def apply_branch(root: Path, name: str, timeout: float) -> None:
    """Deploy what the branch of an environment says.

    Raises:
        CloudError: If BentoCloud does not run it, with the evidence written down.
        DeploymentError: If the branch cannot be read.
    """
    environment = parse_environment(name)
    url, done = "", ""
    while (target := find_target(root, environment, "no address")).revision != done:
        config = read_config(root, target)
        try:
            url = apply(target, config, timeout)
        except CloudError as error:
            write_evidence(root, target, str(error))
            raise
        print(f"{url} runs {target.release.tag} ({target.release.artifact})")
        done = target.revision
    write_outputs(applied=True, url=url)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("push", help="push the bento")
    step.add_argument(
        "--bento", metavar="TAG", help="default: the fetched bento, else the newest of the store"
    )
    step = steps.add_parser("apply", help="deploy what an environment's branch says")
    step.add_argument("--environment", required=True, help="staging or production")
    step.add_argument(
        "--timeout", type=float, default=TIMEOUT_SECONDS, help="seconds until it must run"
    )


def run(options: argparse.Namespace) -> int:
    """Push or apply; 0 when done or skipped, 1 when it failed."""
    root = Path.cwd()
    (root / EVIDENCE).unlink(missing_ok=True)
    if not log_in():
        what = "push" if options.step == "push" else f"deployment to {options.environment}"
        tell_skipped(f"the {what}, for lack of a token", f"set the secret {KEY}")
        write_outputs(applied=False)
        return 0
    if options.step == "apply":
        apply_branch(root, options.environment, options.timeout)
        return 0
    bento = find_bento(options.bento or fetched_tag(root) or "latest")
    push(bento.tag)
    print(f"BentoCloud holds {bento.tag}")
    return 0
