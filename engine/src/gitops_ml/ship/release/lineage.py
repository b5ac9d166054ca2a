"""Lineage: what a running service is made of, with every claim held against what it is about.

    gitops-ml lineage --url https://late.example.com

Asks the service which release it runs, finds that release on the environments' branches, and then
looks at each thing that `release.json` names: is the commit on the main branch, are contract,
schema, parameters, data, model, metrics and golden predictions those of that commit, is what was
pushed still there and made of that commit, and does GitHub say the same of the gate's verdict, the
pipeline's run, the pull request and who approved it? What cannot be looked at is unknown, and said
to be; what differs is an error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gitops_ml.bento.smoke import fetch
from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, locked_output
from gitops_ml.core.json_text import load_json
from gitops_ml.github.event import default_branch
from gitops_ml.ship import targets
from gitops_ml.ship.environments.branches import EnvironmentBranch, Revision
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.hotfix import find_branch
from gitops_ml.ship.release.provenance import describe
from gitops_ml.ship.release.provenance import look_up as ask_github
from gitops_ml.ship.release.release import GOLDEN, RELEASE, Release, parse_release
from gitops_ml.ship.settings import ENVIRONMENTS, DeploymentError, artifact_kind

SHORT = 12

Verdict = Literal["ok", "differs", "unknown", ""]


@dataclass(frozen=True)
class Row:
    """One claim.

    Attributes:
        what: What it is about.
        claim: What the release says.
        verdict: Whether that is so; empty for what is only told.
        note: What was looked at, or found instead.
    """

    what: str
    claim: str
    verdict: Verdict
    note: str


@dataclass(frozen=True)
class Place:
    """Where a release is on the environments' branches.

    Attributes:
        branch: The branch.
        revision: The newest of its commits that has the release.
        current: Whether the environment is to run it now.
    """

    branch: EnvironmentBranch
    revision: Revision
    current: bool

    def read(self, name: str) -> bytes | None:
        """A file that is released there; None if there is none of that name."""
        return self.branch.read(name, self.revision.commit)


def ask(url: str) -> dict[str, Any]:
    """What a live service says of itself.

    Raises:
        DeploymentError: If it does not answer, or runs a working tree.
    """
    try:
        status, answer = fetch(f"{url}/release")
    except (OSError, ValueError) as error:
        raise DeploymentError(f"{url}/release: no answer: {error}") from error
    if status != 200 or not isinstance(answer, dict):
        raise DeploymentError(
            f"{url}/release: answers {status} and no release: {str(answer)[:200]}"
        )
    if "source" not in answer:
        raise DeploymentError(
            f"{url}: runs {answer.get('release')} from a working tree, which no release describes"
        )
    return answer


def find_places(root: Path, live: Mapping[str, Any]) -> list[Place]:
    """Every environment that runs or ran what a service runs: the same release and model.

    Of several builds of a release, those that are deployed as the service says it is, if there are.

    Raises:
        GitError: If the branches cannot be fetched.
    """
    places = []
    for environment in ENVIRONMENTS:
        branch = EnvironmentBranch(root, environment)
        branch.fetch()
        history = branch.history()
        same = [one for one in history if one.release and _identity(one.release) == _identity(live)]
        for revision in [one for one in same if _deployed_as(one, live)] or same:
            places.append(Place(branch, revision, revision == history[0]))
            break
    return [one for one in places if _deployed_as(one.revision, live)] or places


def _identity(release: Mapping[str, Any]) -> tuple[Any, Any]:
    model = release.get("model")
    return release.get("release"), model.get("sha256") if isinstance(model, dict) else None


def _deployed_as(revision: Revision, live: Mapping[str, Any]) -> bool:
    """Whether a service says the digest of what a revision deploys."""
    artifact = (revision.release or {}).get(artifact_kind())
    return isinstance(artifact, dict) and artifact.get("digest") == live.get("digest")


def verify(root: Path, live: Mapping[str, Any], places: Sequence[Place]) -> list[Row]:
    """Hold every claim of a release against what it is about.

    Environments that run it now may say different things of it, and then each is judged.

    Args:
        root: The project's folder.
        live: What the service says.
        places: Where its release is; at least one.

    Raises:
        ReleaseError: If a recorded release is malformed.
        GitError: If git fails.
    """
    rows = [_place_row(one) for one in places]
    recorded: dict[tuple[bytes | None, bytes | None], list[Place]] = {}
    for place in [one for one in places if one.current] or places[:1]:
        recorded.setdefault((place.read(RELEASE), place.read(GOLDEN)), []).append(place)
    for same in recorded.values():
        where = ""
        if len(recorded) > 1:
            where = f" in {', '.join(place.branch.environment for place in same)}"
        rows += [replace(row, what=f"{row.what}{where}") for row in _verified(root, live, same[0])]
    return rows


def _verified(root: Path, live: Mapping[str, Any], place: Place) -> Iterator[Row]:
    """Every claim of the release at one place."""
    release = parse_release(place.read(RELEASE) or b"", f"{place.branch.name}: {RELEASE}")
    yield _live_row(live, release)
    yield from _git_rows(root, release, place)
    yield Row(release.kind, release.artifact, *targets.chosen().look_up(release.content))
    yield from _told(release.content)
    yield from _github_rows(root, release)


def _place_row(place: Place) -> Row:
    when = "runs there now" if place.current else "ran there, something else does now"
    return Row("environment", place.branch.environment, "", f"{place.revision.commit}: {when}")


def _live_row(live: Mapping[str, Any], release: Release) -> Row:
    """Whether the service says what was recorded of the release."""
    content = release.content
    differing = [key for key in live if live[key] != content.get(key)]
    if differing:
        return Row(
            "service", release.tag, "differs", f"it says otherwise about {', '.join(differing)}"
        )
    return Row("service", release.tag, "ok", f"runs the model {release.model}")


def _git_rows(root: Path, release: Release, place: Place) -> Iterator[Row]:
    """Everything that is in git."""
    repository = Repository(root)
    commit, content = release.commit, release.content
    if not repository.fetch_commit(commit):
        yield Row("commit", commit, "differs", f"{repository.remote} has no such commit")
        return
    yield _commit_row(repository, commit)
    files = {
        path: _committed(repository, commit, path)
        for path in (
            paths.CONTRACT, paths.SCHEMA, paths.PARAMS, paths.METRICS, paths.GOLDEN, paths.DVC_LOCK
        )
    }  # fmt: skip
    for what, path in (
        ("contract", paths.CONTRACT),
        ("schema", paths.SCHEMA),
        ("params", paths.PARAMS),
    ):
        claim = (content.get(what) or {}).get("sha256")
        text = files[path]
        found = None if text is None else hashlib.sha256(text).hexdigest()
        yield _compared(what, claim, found, f"{path} of the commit")
    data = content.get("data") or {}
    found = _locked_hash(files[paths.DVC_LOCK], str(data.get("file")))
    yield _compared("data", data.get("md5"), found, f"{data.get('file')} in dvc.lock of the commit")
    yield _compared(
        "metrics", content.get("metrics"), _parsed(files[paths.METRICS]),
        f"{paths.METRICS} of the commit",
    )  # fmt: skip
    yield _model_row(root, release, files[paths.DVC_LOCK])
    yield _compared(
        "golden predictions", _hash(place.read(GOLDEN)), _hash(files[paths.GOLDEN]),
        f"{paths.GOLDEN} of the commit",
    )  # fmt: skip


def _commit_row(repository: Repository, commit: str) -> Row:
    """Whether a commit is on the default branch, or one for hotfixes, where all is reviewed."""
    remote, branch = repository.remote, default_branch(repository.root)
    newest = repository.fetch_branch(branch)
    if newest is None:
        return Row("commit", commit, "unknown", f"{remote} has no branch {branch}")
    if repository.is_ancestor(commit, newest):
        return Row("commit", commit, "ok", f"on {branch}")
    hotfix = find_branch(repository, commit)
    if hotfix is not None:
        return Row("commit", commit, "ok", f"on {hotfix}")
    if repository.is_shallow():
        return Row("commit", commit, "unknown", "history is cut off: `git fetch --unshallow`")
    return Row("commit", commit, "differs", f"not on {branch}")


def _committed(repository: Repository, commit: str, path: Path) -> bytes | None:
    found = repository.find(f"{commit}:./{path.as_posix()}")
    return None if found is None else repository.run("cat-file", "blob", found)


def _locked_hash(lock: bytes | None, path: str) -> str | None:
    """The hash of an output of the pipeline in `dvc.lock`."""
    text = None if lock is None else lock.decode(errors="replace")
    try:
        found = locked_output(text, Path(path), str(paths.DVC_LOCK))
    except DvcError:
        return None
    return None if found is None else found.hash


def _model_row(root: Path, release: Release, lock: bytes | None) -> Row:
    """Whether the model is the one in `dvc.lock`, which names the folder by a hash of DVC's own."""
    name = f"{paths.MODELS}/{release.content['model']['file']}"
    missing = Row("model", release.model, "differs", f"no {name} in dvc.lock of the commit")
    folder = _locked_hash(lock, str(paths.MODELS))
    if folder is None:
        return missing
    try:
        listed = load_json(_cached(root, folder).read_bytes())
        file = {entry["relpath"]: entry["md5"] for entry in listed}.get(Path(name).name)
        if file is None:
            return missing
        found = hashlib.sha256(_cached(root, file).read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        note = f"{name} of the commit is not in DVC's cache here: `dvc fetch` it"
        return Row("model", release.model, "unknown", note)
    return _compared("model", release.model, found, f"{name} of the commit")


def _cached(root: Path, md5: str) -> Path:
    return root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def _parsed(text: bytes | None) -> Any:
    try:
        return load_json(text or b"")
    except ValueError:
        return None


def _hash(text: bytes | None) -> str | None:
    return None if text is None else hashlib.sha256(text).hexdigest()


def _compared(what: str, claim: Any, found: Any, where: str) -> Row:
    shown = json.dumps(claim) if isinstance(claim, dict) else str(claim)
    if claim is None:
        return Row(what, "", "differs", "the release does not say")
    if found is None:
        return Row(what, shown, "differs", f"no {where}")
    if found != claim:
        other = json.dumps(found) if isinstance(found, dict) else str(found)
        return Row(what, shown, "differs", f"{other} is the {where}")
    return Row(what, shown, "ok", f"is the {where}")


def _told(content: Mapping[str, Any]) -> Iterator[Row]:
    """What else is recorded of what is deployed."""
    for what, claim in targets.chosen().details(content):
        yield Row(what, claim, "", "")


def _github_rows(root: Path, release: Release) -> Iterator[Row]:
    """Everything that GitHub knows."""
    gate, pull, run = (release.content.get(key) for key in ("gate", "pull_request", "run"))
    claims = {
        "gate": str(gate),
        "pull request": str(pull or "none"),
        "pipeline run": str(run or "none"),
    }
    if isinstance(gate, dict):
        claims["gate"] = f"{gate.get('verdict')}, against {gate.get('base') or 'nothing'}"
    if isinstance(pull, dict):
        claims["pull request"] = describe(pull)
    if isinstance(run, dict):
        claims["pipeline run"] = str(run.get("id"))
    for what, (verdict, note) in ask_github(root, release).items():
        yield Row(what, claims[what], verdict, note)


def as_text(rows: Sequence[Row]) -> str:
    """A table for a terminal."""
    width = max(len(row.what) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.verdict:8}{row.what:{width}}  {row.claim}")
        if row.note:
            lines.append(f"{'':8}{'':{width}}    {row.note}")
    return "\n".join(line.rstrip() for line in lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--url", required=True, help="where it answers")


def run(options: argparse.Namespace) -> int:
    """Tell what a service is made of; 1 if anything differs."""
    root = Path.cwd()
    url = options.url.rstrip("/")
    live = ask(url)
    places = find_places(root, live)
    if not places:
        raise DeploymentError(
            f"{url}: runs {live.get('release')}, which is on none of the branches "
            f"{', '.join(f'env/{name}' for name in ENVIRONMENTS)}"
        )
    rows = verify(root, live, places)
    print(as_text(rows))
    differing = [row.what for row in rows if row.verdict == "differs"]
    if differing:
        print(f"{url}: not what was released: {', '.join(differing)}", file=sys.stderr)
        return 1
    return 0
