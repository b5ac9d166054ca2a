"""Record the release: what an environment's branch will say about what runs.

    gitops-ml release-record

Writes `build/release/release.json`, which is the bento's own with what was pushed, the gate's
verdict, the parameters, who approved the change, and the pipeline's run; and beside it the bento's
golden predictions. It holds no time: the same release gives the same bytes. Outside GitHub there is
no pull request and no run; both are null then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gitops_ml.bento.smoke import read_golden
from gitops_ml.bento.store import Bento
from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.gate.verdict import Report, read_report
from gitops_ml.github.client import GitHub, NotSetUpError, connect, may_write
from gitops_ml.report.run_artifacts import GATE
from gitops_ml.ship import targets
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.fetch import FOLDER as FETCHED
from gitops_ml.ship.fetch import RUN
from gitops_ml.ship.release.release import FOLDER, GOLDEN, RELEASE, parse_release
from gitops_ml.ship.settings import DeploymentError, artifact_kind


def gate_of(root: Path, bento: Bento) -> dict[str, Any]:
    """The verdict on a bento's model: the fetched one, else that of this working tree.

    Raises:
        DeploymentError: If there is none, it is about another model, or it is against it.
    """
    fetched = root / FETCHED / GATE
    path = fetched if fetched.is_file() else root / paths.GATE_REPORT
    name = path.relative_to(root)
    try:
        report = read_report(path, str(name))
    except GitopsError as error:
        raise DeploymentError(f"{error}, or `make fetch-bento`") from error
    model, commit = bento.release["model"]["sha256"], bento.release["source"]["commit"]
    if (report.challenger.sha256, report.commit) != (model, commit):
        raise DeploymentError(
            f"{name}: is about the model {report.challenger.sha256} of the commit {report.commit}, "
            f"but {bento.tag} holds {model} of {commit}; run `make gate` on what was packaged, or "
            "`make fetch-bento`"
        )
    if report.verdict == "block":
        raise DeploymentError(f"{name}: the gate's verdict is block; this must not be released")
    return verdict_of(report)


def verdict_of(report: Report) -> dict[str, Any]:
    """What a release says of the gate's report."""
    return {
        "verdict": report.verdict,
        "base": report.base.commit if report.base else None,
        "consent": report.consent.model_dump(),
    }


def run_of(root: Path) -> dict[str, Any] | None:
    """The pipeline's run that built the bento; None if it was built here.

    Raises:
        DeploymentError: If what `make fetch-bento` wrote cannot be read.
    """
    path = root / FETCHED / RUN
    if not path.is_file():
        return None
    try:
        return {"id": int(json.loads(path.read_text(encoding="utf-8"))["id"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(
            f"{FETCHED / RUN}: cannot be read: {error!r}; run `make fetch-bento`"
        ) from error


def find_pull_request(api: GitHub, repository: str, commit: str) -> dict[str, Any] | None:
    """The merged pull request that a commit came from, and who of the project approved it.

    Strangers, too, can approve a pull request of a public repository; that does not count.

    Returns:
        None if the commit was pushed without one.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    pulls = [
        pull
        for pull in api.items(f"/repos/{repository}/commits/{commit}/pulls")
        if pull["merged_at"]
    ]
    if not pulls:
        return None
    # One commit can have gone through several; the one that put it there counts.
    pull = min(pulls, key=lambda one: (one["merge_commit_sha"] != commit, int(one["number"])))
    number = int(pull["number"])
    approvers = find_approvers(api, repository, number)
    return {
        "number": number,
        "author": _login(pull),
        "approved_by": [who for who in approvers if may_write(api, repository, who)],
    }


def find_approvers(api: GitHub, repository: str, number: int) -> list[str]:
    """Whoever approves a pull request by the last verdict they gave; a comment is none.

    Raises:
        GitHubError: If GitHub cannot be asked.
    """
    last = {
        _login(review): review["state"]
        for review in api.items(f"/repos/{repository}/pulls/{number}/reviews")
        if review["state"] in {"APPROVED", "CHANGES_REQUESTED", "DISMISSED"}
    }
    return sorted(who for who, state in last.items() if state == "APPROVED")


def _login(item: Mapping[str, Any]) -> str:
    """Who wrote it; GitHub shows accounts that were deleted as `ghost`."""
    return str((item["user"] or {}).get("login", "ghost"))


def describe(root: Path, pull_request: Mapping[str, Any] | None) -> tuple[bytes, bytes]:
    """The texts of `release.json` and `golden.json`.

    Args:
        root: The project's folder.
        pull_request: As `find_pull_request` gives it.

    Raises:
        DeploymentError: If something is missing or does not fit.
        DeploymentError: If what is to be deployed is not there.
        SmokeError: If the golden predictions cannot be read.
    """
    bento, artifact = targets.chosen(root).recorded(root)
    read_golden(bento.golden)
    commit = str(bento.release["source"]["commit"])
    if bento.release["source"]["dirty"]:
        raise DeploymentError(
            f"{bento.tag}: was built from files that are in no commit, so nobody could tell what "
            "runs; commit them, then run `make pipeline package`"
        )
    release = {
        **bento.release,
        artifact_kind(): artifact,
        "gate": gate_of(root, bento),
        "params": {"sha256": hashlib.sha256(_committed(root, commit, paths.PARAMS)).hexdigest()},
        "pull_request": pull_request,
        "run": run_of(root),
    }
    text = (json.dumps(release, indent=2, ensure_ascii=False) + "\n").encode()
    parse_release(text, RELEASE)
    return text, bento.golden.read_bytes()


def _committed(root: Path, commit: str, path: Path) -> bytes:
    repository = Repository(root)
    found = repository.find(f"{commit}:./{path.as_posix()}")
    if found is None:
        raise DeploymentError(f"{path}: is not in the commit {commit}; fetch it, or check it out")
    return repository.run("cat-file", "blob", found)


def write(root: Path, release: bytes, golden: bytes) -> None:
    """Write both files; after a failure there is no half of a release.

    Raises:
        DeploymentError: If they cannot be written.
    """
    folder = root / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RELEASE, GOLDEN):
            (folder / name).unlink(missing_ok=True)
        (folder / GOLDEN).write_bytes(golden)
        (folder / RELEASE).write_bytes(release)
    except OSError as error:
        raise DeploymentError(f"{FOLDER}: cannot be written: {error}") from error


def review_of(root: Path) -> dict[str, Any] | None:
    """The pull request that the release's commit came from; None without one, or without GitHub.

    Raises:
        DeploymentError: If what is to be deployed is not there.
        GitHubError: If GitHub cannot be asked.
    """
    commit = str(targets.chosen(root).recorded(root)[0].release["source"]["commit"])
    try:
        api, repository = connect(root)
    except NotSetUpError as reason:
        print(f"Not recorded, who approved: {reason}")
        return None
    return find_pull_request(api, repository, commit)


def run(_: argparse.Namespace) -> int:
    """Record what was pushed as a release; 0 if it was written."""
    root = Path.cwd()
    release, golden = describe(root, review_of(root))
    write(root, release, golden)
    print(f"{FOLDER / RELEASE}:\n{release.decode()}", end="")
    return 0
