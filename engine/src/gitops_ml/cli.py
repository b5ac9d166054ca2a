"""The command `gitops-ml`: one subcommand for each task of a project.

    gitops-ml --help
    gitops-ml gate --base origin/main

A subcommand's module is imported only when it is asked for, so that each needs no more than what
its own task needs. It has `run(options)`, which gives back the exit code, and, if there are any,
`add_arguments(parser)`. What a person can mend is raised as a GitopsError and told here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from gitops_ml.core.errors import GitopsError, UsageError

EXIT_CODES = """\
exit codes:
  0    done, or skipped and said so
  1    it failed or does not hold; the message says what, where and what to do
  2    a wrong call; from gate and audit: it could not judge
  3    from monitor: the live data drift
  130  interrupted"""
INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        module: What runs it.
        description: One line for `--help`.
        function: The module's function that does.
    """

    module: str
    description: str
    function: str = "run"


COMMANDS: Mapping[str, Command] = {
    "environment": Command("core.environment", "note the locked versions that stages depend on"),
    "land": Command("data.landing", "land what is new upstream as partitions"),
    "ingest": Command("data.ingest", "read the landed files into one table"),
    "validate": Command("features.derived_rows", "hold every row against the schema"),
    "split": Command("data.split", "give every row its place in the training or the test set"),
    "train": Command("model.train", "fit the estimator and export what the service loads"),
    "evaluate": Command("model.evaluate", "measure the model on the test set"),
    "predict": Command("model.predict", "score a parquet file of rows"),
    "schema": Command("data.infer", "infer schema.yaml from the data"),
    "contract": Command("gate.contract_changes", "propose contract.yaml, or describe it"),
    "verify-lock": Command("core.dvc_lock", "is the committed dvc.lock what this run wrote?"),
    "resolve": Command("core.resolve", "resolve the merge conflicts in what a run writes"),
    "verify-sources": Command("core.lock_sources", "does uv.lock take from known indexes only?"),
    "reproduce": Command("gate.reproduce", "run the pipeline from what the base recorded"),
    "pull": Command("core.dvc_remote", "pull what DVC owns from the remote", "pull"),
    "push": Command("core.dvc_remote", "push what DVC owns to the remote", "push"),
    "answer": Command("gate.answer", "answer for the gate, as the challenger"),
    "retrain": Command("gate.retrain", "train with other seeds, and answer for the gate"),
    "added-terms": Command("gate.added_terms", "measure the metrics that only a change defines"),
    "gate": Command("report.judge", "judge the model by the contract and against the champion"),
    "package": Command("bento.build", "build the bento"),
    "audit": Command("bento.audit", "are vulnerabilities known of what the service is made of?"),
    "smoke": Command("bento.smoke", "ask a service for the golden predictions"),
    "verify-bento": Command("bento.verify", "does an exported bento hold the gated model?"),
    "summary": Command("report.summary", "summarise a workflow run"),
    "comment": Command("report.comment", "show the report of a run on its pull request"),
    "monitor": Command("monitor.monitor", "hold live predictions against the training data"),
    "monitor-issue": Command("monitor.issue", "open, update or close the issue about drift"),
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
    """Run a subcommand; gives back its exit code.

    Raises:
        SystemExit: After `--help`, with 0, and after a wrong call, with 2.
    """
    # Read when the first library with threads is loaded. Threads that spin while they wait for work
    # make training many times slower where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if arguments is None else arguments)
    overview = argparse.ArgumentParser(
        prog="gitops-ml",
        usage="gitops-ml COMMAND [ARGUMENT ...]",
        description=_listed(),
        epilog=f"`gitops-ml COMMAND --help` says more.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    name = overview.parse_args(words[:1]).command
    try:
        return _run(name, words[1:])
    except GitopsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"{where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"gitops-ml {name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(name: str, words: Sequence[str]) -> int:
    """Run a subcommand with the words that follow its name.

    Raises:
        GitopsError: If it fails, or if its libraries are not installed.
    """
    command = COMMANDS[name]
    module = _load(name, command)
    parser = argparse.ArgumentParser(
        prog=f"gitops-ml {name}",
        description=module.__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    options = parser.parse_args(words)
    try:
        return int(getattr(module, command.function)(options))
    except UsageError as error:
        parser.print_usage(sys.stderr)
        raise UsageError(f"{parser.prog}: {error}") from error


def _load(name: str, command: Command) -> ModuleType:
    """Import what runs a subcommand.

    Raises:
        GitopsError: If a library that it needs is not installed.
    """
    try:
        return importlib.import_module(f"gitops_ml.{command.module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "gitops_ml":
            raise
        raise GitopsError(
            f"gitops-ml {name}: needs {error.name}, which is not installed in this environment; "
            "`make setup` installs it"
        ) from error


def _listed() -> str:
    """Every subcommand with its line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.description}" for name, command in COMMANDS.items()]
    return "\n".join(["commands:", *lines])
