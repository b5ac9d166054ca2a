"""The command `gitops-ml`: one subcommand for each task of a project.

    gitops-ml --help
    gitops-ml gate --base origin/main

A subcommand's module is imported only when it is asked for, so that each needs no more than what
its own task needs. Exit codes: 0 done; 1 it does not hold or failed, and the message says why; 2 a
wrong call, or a gate that could not judge.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        module: Whose `main` runs it.
        description: One line for `--help`.
        arguments: What stands before the caller's own arguments.
    """

    module: str
    description: str
    arguments: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "environment": Command("core.environment", "note the locked versions that stages depend on"),
    "ingest": Command("data.ingest", "read the landed files into one table"),
    "validate": Command("data.validate", "hold every row against the schema"),
    "split": Command("data.split", "give every row its place in the training or the test set"),
    "train": Command("model.train", "fit the estimator and export what the service loads"),
    "evaluate": Command("model.evaluate", "measure the model on the test set"),
    "predict": Command("model.predict", "score a parquet file of rows"),
    "schema": Command("data.infer", "infer schema.yaml from the data"),
    "contract": Command("gate.contract_changes", "propose contract.yaml, or describe it"),
    "verify-lock": Command("core.dvc_lock", "is the committed dvc.lock what this run wrote?"),
    "pull": Command("core.dvc_remote", "pull what DVC owns from the remote", ("pull",)),
    "push": Command("core.dvc_remote", "push what DVC owns to the remote", ("push",)),
    "gate": Command("report.judge", "judge the model by the contract and against the champion"),
    "package": Command("bento.build", "build the bento"),
    "smoke": Command("bento.smoke", "ask a service for the golden predictions"),
    "verify-bento": Command("bento.verify", "does an exported bento hold the gated model?"),
    "summary": Command("report.summary", "summarise a workflow run"),
    "comment": Command("report.comment", "show the report of a run on its pull request"),
    "doctor": Command("doctor.doctor", "check tools, repository and GitHub settings"),
    "github-setup": Command("github.setup", "protect the repository on GitHub"),
    "plan": Command("ship.plan", "is there a commit to deliver?"),
    "fetch-bento": Command("ship.fetch", "fetch the bento that the gate let pass"),
    "image": Command("ship.image.image", "build, smoke-test or push the container image"),
    "cloud": Command("ship.targets.bentocloud_apply", "push a bento to BentoCloud, or deploy it"),
    "release-record": Command("ship.release.assemble", "write down what is released"),
    "render": Command("ship.targets.render", "render what a release writes to a branch"),
    "release": Command("ship.environments.promote", "put the release on an environment's branch"),
    "probe": Command("ship.environments.probe", "does the live service run its release?"),
    "rollback": Command("ship.environments.rollback", "bring back an earlier release"),
    "lineage": Command("ship.release.lineage", "what is a live service made of?"),
    "publish": Command("ship.release.publish", "publish the release on GitHub"),
    "argocd": Command("ship.targets.argocd", "point the Argo CD applications at this repository"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; gives back its exit code."""
    # Read when the first library with threads is loaded. Threads that spin while they wait for work
    # make training many times slower where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    name, *rest = words
    command = COMMANDS.get(name)
    if command is None:
        print(f"gitops-ml: no command {name!r}; `gitops-ml --help` lists them", file=sys.stderr)
        return 2
    # The subcommand's own parser reads them, and calls itself by the first.
    sys.argv = [f"gitops-ml {name}", *command.arguments, *rest]
    return int(importlib.import_module(f"gitops_ml.{command.module}").main())


def overview() -> str:
    """What `--help` shows: every subcommand with its line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.description}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: gitops-ml COMMAND [ARGUMENT ...]", "", *lines])
