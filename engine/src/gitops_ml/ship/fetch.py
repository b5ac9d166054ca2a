"""Fetch the bento that the pipeline built for a commit to deliver, and the gate passed.

    gitops-ml fetch-bento [--commit 0a1b2c3]

What is delivered is what was judged: the model in the bento, its manifest, its release and the
gate's report must all name the same file by hash, and the same commit. Only runs of pushes to the
default branch, or to one for a hotfix, count, since only there everything was reviewed. The bento
goes to `build/bento/` and to BentoML's store, beside it the gate's report and the run. To run it
twice is to run it once.

https://docs.github.com/en/rest/actions/workflow-runs
https://docs.github.com/en/rest/actions/artifacts
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException, NotFound

from gitops_ml.bento.archive import BentoArchive, read_archive
from gitops_ml.bento.store import BentoError
from gitops_ml.core.project import load_project
from gitops_ml.gate.verdict import Report, parse_report
from gitops_ml.github.artifacts import UNREADABLE, newest_artifact
from gitops_ml.github.client import GitHub, connect
from gitops_ml.github.event import HOTFIX
from gitops_ml.github.runs import pushed_runs
from gitops_ml.report.run_artifacts import (
    ARCHIVE_BYTES,
    GATE,
    EvidenceError,
    from_archive,
)
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.settings import DeploymentError, write_outputs

FOLDER = Path("build/bento")
RUN = "run.json"

BENTO_BYTES = 2_000_000_000

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_AGAIN = "run the pipeline for this commit again (Actions, Pipeline, Re-run all jobs)"


def _bento_file() -> str:
    return load_project().bento_file


@dataclass(frozen=True)
class Run:
    """A run of the pipeline.

    Attributes:
        number: GitHub's number of it.
        url: Its page.
    """

    number: int
    url: str


def commit_of(root: Path, revision: str) -> str:
    """The commit that a revision names.

    Raises:
        DeploymentError: If it names none.
    """
    commit = Repository(root).find(f"{revision}^{{commit}}")
    if commit is None and _COMMIT.fullmatch(revision):
        return revision
    if commit is None:
        raise DeploymentError(
            f"--commit {revision}: git knows no such commit; fetch it, or name another"
        )
    return commit


def find_run(api: GitHub, repository: str, commit: str) -> Run:
    """The newest run of the pipeline that passed for a commit pushed to the default branch.

    Raises:
        GitHubError: If GitHub cannot be asked.
        DeploymentError: If there is none; says what there is instead.
    """
    branch, runs = find_runs(api, repository, commit)
    what = f"the pipeline for the commit {commit} on {branch}"
    if not runs:
        raise DeploymentError(f"{what} has not run: push the commit to {branch}, and wait for it")
    passed = [run for run in runs if run["conclusion"] == "success"]
    if not passed:
        newest = max(runs, key=lambda run: int(run["id"]))
        if newest["status"] != "completed":
            raise DeploymentError(f"{what} is not done yet: {newest['html_url']}; wait for it")
        raise DeploymentError(
            f"{what} ended as {newest['conclusion']}: {newest['html_url']}; only what passed is "
            "delivered"
        )
    run = max(passed, key=lambda run: int(run["id"]))
    return Run(int(run["id"]), str(run["html_url"]))


def find_runs(api: GitHub, repository: str, commit: str) -> tuple[str, list[dict[str, Any]]]:
    """A branch that is delivered, and all runs of the pipeline for a commit pushed to it.

    The default branch, or, if the commit was not pushed there, one for a hotfix: whether that may
    be delivered, `plan` has found out.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    branch = str(api.get(f"/repos/{repository}")["default_branch"])
    found = pushed_runs(api, repository, branch, head_sha=commit)
    runs = [run for run in found if run["head_sha"] == commit]
    if not runs:
        others = [
            run
            for run in pushed_runs(api, repository, None, head_sha=commit)
            if run["head_sha"] == commit and str(run["head_branch"]).startswith(HOTFIX)
        ]
        if others:
            branch = str(others[0]["head_branch"])
            runs = [run for run in others if run["head_branch"] == branch]
    return branch, runs


def download(api: GitHub, repository: str, run: Run, name: str, most: int) -> bytes:
    """The zip archive of an artifact, the newest where several attempts made one.

    Raises:
        GitHubError: If GitHub cannot be asked.
        DeploymentError: If the run has none, it has expired, or it is too large.
    """
    artifact = newest_artifact(api, repository, run.number, name)
    if artifact is None:
        raise DeploymentError(f"{run.url}: left no artifact {name}; {_AGAIN}")
    if artifact["expired"]:
        raise DeploymentError(
            f"{run.url}: the artifact {name} has expired; roll back to this commit if it was "
            "released before, else push a newer one"
        )
    if artifact["size_in_bytes"] > most:
        size = f"{artifact['size_in_bytes']:,}"
        raise DeploymentError(
            f"{run.url}: the artifact {name} has {size} bytes, more than {most:,}"
        )
    return api.download(f"/repos/{repository}/actions/artifacts/{int(artifact['id'])}/zip", most)


def read_gate(archive: bytes) -> tuple[Report, bytes]:
    """The gate's report in the pipeline's report, and its bytes.

    Raises:
        DeploymentError: If it is not there or cannot be read.
    """
    try:
        content = from_archive(archive)[GATE]
        return parse_report(content, f"the artifact report, {GATE}"), content
    except KeyError as error:
        raise DeploymentError(f"the artifact report holds no {GATE}; {_AGAIN}") from error
    except EvidenceError as error:
        raise DeploymentError(f"the artifact report {error}") from error


def unpack_bento(archive: bytes, target: Path) -> None:
    """Write the bento of an artifact to a file.

    Raises:
        DeploymentError: If it is not in the artifact, or that cannot be read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            names = [name for name in files.namelist() if PurePosixPath(name).name == _bento_file()]
            if len(names) != 1:
                raise DeploymentError(
                    f"the artifact bento holds {len(names)} files {_bento_file()}, not one"
                )
            if files.getinfo(names[0]).file_size > BENTO_BYTES:
                raise DeploymentError(f"{_bento_file()} has more than {BENTO_BYTES:,} bytes")
            with files.open(names[0]) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    except UNREADABLE as error:
        raise DeploymentError(f"the artifact bento cannot be read: {error}; {_AGAIN}") from error
    except OSError as error:
        raise DeploymentError(f"{target}: cannot be written: {error}") from error


def check(contents: BentoArchive, gate: Report, commit: str) -> None:
    """Make sure that a bento holds the model that the gate let pass for a commit.

    Raises:
        DeploymentError: Naming everything that is not as it must be.
    """
    problems = []
    try:
        tag, release, manifest, model = (
            contents.tag, contents.release, contents.manifest, contents.model
        )  # fmt: skip
    except BentoError as error:
        raise DeploymentError(f"{error}; {_AGAIN}") from error
    if gate.verdict == "block":
        problems.append("the gate's verdict is block")
    named, source = release.get("release"), release["source"]
    if named != tag:
        problems.append(f"its tag is {tag}, but its release is {named}")
    if source.get("dirty"):
        problems.append(
            "it was built from files that are in no commit: run `make pipeline`, commit dvc.lock "
            "and reports/, push"
        )
    for what, found in (("release", source.get("commit")), ("gate's report", gate.commit)):
        if found != commit:
            problems.append(f"the {what} is about the commit {found}, not {commit}")
    for what, found in (
        ("release", release["model"].get("sha256")),
        ("manifest", manifest.get("files", {}).get(manifest["served"])),
        ("gate's report", gate.challenger.sha256),
    ):
        if found != model:
            problems.append(f"the {what} is about the model {found}, not {model}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise DeploymentError(f"{_bento_file()}: is not what the gate let pass:\n{lines}")


def keep(bento: Path, tag: str) -> None:
    """Put a bento into the store, in place of one with the same tag.

    Raises:
        DeploymentError: If BentoML does not take it.
    """
    try:
        with contextlib.suppress(NotFound):
            bentoml.bentos.delete(tag)
        bentoml.bentos.import_bento(str(bento))
    except (BentoMLException, ExceptionGroup) as error:
        raise DeploymentError(
            f"{_bento_file()}: BentoML cannot read it: {error}; {_AGAIN}"
        ) from error


def fetch(root: Path, api: GitHub, repository: str, commit: str) -> str:
    """Fetch, check and keep the bento of a commit.

    Returns:
        Its tag.

    Raises:
        GitHubError: If GitHub cannot be asked.
        DeploymentError: If there is none, or it is not what was judged.
    """
    run = find_run(api, repository, commit)
    gate, gate_text = read_gate(download(api, repository, run, "report", ARCHIVE_BYTES))
    folder = root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unchecked:
        path = Path(unchecked, _bento_file())
        unpack_bento(download(api, repository, run, "bento", BENTO_BYTES), path)
        contents = read_archive(path, _bento_file())
        check(contents, gate, commit)
        keep(path, contents.tag)
        (folder / GATE).write_bytes(gate_text)
        (folder / RUN).write_text(json.dumps({"id": run.number}) + "\n", encoding="utf-8")
        path.replace(folder / _bento_file())
    return contents.tag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--commit", default="HEAD", help="default: the one that is checked out")


def run(options: argparse.Namespace) -> int:
    """Fetch the bento of a commit; 0 if it is there and is what was judged."""
    root = Path.cwd()
    commit = commit_of(root, options.commit)
    api, repository = connect(root)
    tag = fetch(root, api, repository, commit)
    write_outputs(commit=commit, bento=tag)
    print(f"{tag} of the commit {commit} is in {FOLDER / _bento_file()} and in BentoML's store")
    return 0
