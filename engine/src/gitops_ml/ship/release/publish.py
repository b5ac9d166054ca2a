"""Publish the release that runs in production on GitHub, with its model card.

    gitops-ml publish

Takes `build/release`. The GitHub release is `release-<version>` and its tag is put on the commit
that was released. A release that is there already is brought up to date, so to run it twice is to
run it once. The card tells what the model is for, on which data it was measured and how well, on
slices too, and what it is made of, after Mitchell et al. (2019), Model Cards for Model Reporting,
https://doi.org/10.1145/3287560.3287596.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gitops_ml.core import paths
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.github.client import GitHub, connect, look_again
from gitops_ml.report.verdict_report import folded, markdown_table
from gitops_ml.ship import targets
from gitops_ml.ship.environments.repository import Repository
from gitops_ml.ship.release.release import Release, read_next
from gitops_ml.ship.settings import DeploymentError

# GitHub takes 125,000 characters.
BODY_LENGTH = 120_000


def tag_of(release: Release) -> str:
    """The git tag of a release, e.g. release-0a1b2c3d-4e5f6a7b."""
    return f"release-{release.tag.partition(':')[2]}"


def model_card(root: Path, release: Release) -> str:
    """The model card, from what is in the commit.

    Raises:
        DeploymentError: If a file of the commit is missing or cannot be read.
    """
    evaluation = _read(root, release, paths.EVALUATION)
    contract = _read(root, release, paths.CONTRACT)
    profile = _read(root, release, paths.DATA_PROFILE)
    try:
        measured = [*_measured(evaluation, contract)]
        data = [*_data(profile, release.content)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeploymentError(
            f"{paths.EVALUATION}, {paths.CONTRACT} or {paths.DATA_PROFILE} in the commit "
            f"{release.commit}: is malformed: {error!r}"
        ) from error
    parts = [
        f"`{release.tag}` predicts `{release.content.get('target')}`.",
        *_model(release.content),
        "## How well it predicts",
        *measured,
        "## Data",
        *data,
        "## What it is made of",
        markdown_table(list(_made_of(release)), text_columns=(0, 1)),
        targets.chosen().how_to_verify(release.artifact),
    ]
    return "\n\n".join(parts)[:BODY_LENGTH] + "\n"


def _read(root: Path, release: Release, path: Path) -> dict[str, Any]:
    """A file of the commit that is released, from JSON or YAML."""
    repository = Repository(root)
    where = f"{path} in the commit {release.commit}"
    found = repository.find(f"{release.commit}:./{path.as_posix()}")
    if found is None:
        raise DeploymentError(f"{where}: no such file; fetch the commit, or check it out")
    try:
        # JSON is YAML, too, but slow to read as such.
        text = repository.run("cat-file", "blob", found)
        content = json.loads(text) if path.suffix == ".json" else load_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DeploymentError(f"{where}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DeploymentError(f"{where}: must hold an object")
    return content


def _model(content: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        ["", ""],
        ["task", str(content.get("task"))],
        ["estimator", str(content.get("estimator"))],
        ["served from", str(content["model"].get("file"))],
    ]
    classes = content.get("classes")
    if classes:
        rows.append(["classes", ", ".join(map(str, classes))])
    rows.append(["features", ", ".join(map(str, content.get("features") or ()))])
    yield markdown_table(rows, text_columns=(0, 1))


def _measured(evaluation: Mapping[str, Any], contract: Mapping[str, Any]) -> Iterator[str]:
    """Metrics on the test rows, on all of them and on slices."""
    share = f"{100 * float(evaluation['confidence']):g} %"
    yield (
        f"On {evaluation['rows']:,} test rows that it was not trained on, with {share} confidence "
        "intervals by bootstrap; the baseline predicts without features."
    )
    terms = (contract.get("model") or {}).get("metrics") or {}
    baseline = evaluation.get("baseline") or {}
    rows = [["metric", "value", "interval", "baseline", "the contract demands"]]
    for name, metric in evaluation["metrics"].items():
        rows.append(
            [name, *_interval(metric), _number(baseline.get(name)), _bound(terms.get(name))]
        )
    yield markdown_table(rows, text_columns=(0, 4))
    slices = evaluation.get("slices") or []
    if slices:
        names = list(evaluation["metrics"])
        table = [["column", "value", "rows", *names]]
        for part in slices:
            measured = [_number(part["metrics"].get(name, {}).get("value")) for name in names]
            table.append([str(part["column"]), str(part["value"]), f"{part['rows']:,}", *measured])
        yield folded("On slices of the test rows", markdown_table(table, text_columns=(0, 1)))


def _interval(metric: Mapping[str, Any]) -> tuple[str, str]:
    ends = [metric[end] for end in ("low", "high") if metric.get(end) is not None]
    return _number(metric.get("value")), " to ".join(map(_number, ends))


def _number(value: Any) -> str:
    return "" if value is None else f"{float(value):.4g}"


def _bound(terms: Mapping[str, Any] | None) -> str:
    words = {"floor": "at least", "ceiling": "at most"}
    return ", ".join(
        f"{word} {terms[key]:g}" for key, word in words.items() if terms and key in terms
    )


def _data(profile: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[str]:
    data = content.get("data") or {}
    yield f"{profile['rows']:,} rows in `{data.get('file')}` (md5 {data.get('md5')})."
    rows = [["column", "missing", "from", "to", "values"]]
    for name, column in profile["columns"].items():
        shares = column.get("shares") or {}
        rows.append(
            [
                name,
                f"{100 * float(column['null_share']):.3g} %",
                *(_end(column.get(end)) for end in ("min", "max")),
                str(len(shares)) if shares else "",
            ]
        )
    yield folded("Columns", markdown_table(rows, text_columns=(0,)))


def _end(value: Any) -> str:
    return _number(value) if isinstance(value, (int, float)) else str(value or "")


def _made_of(release: Release) -> Iterator[Sequence[str]]:
    content = release.content
    pull = content.get("pull_request")
    gate = content.get("gate") or {}
    yield ["", ""]
    yield ["commit", release.commit]
    yield ["model", f"sha256 {release.model}"]
    for what in ("contract", "schema", "params"):
        yield [what, f"sha256 {(content.get(what) or {}).get('sha256')}"]
    yield [release.kind, release.artifact]
    yield from targets.chosen().details(content)
    yield ["gate", f"{gate.get('verdict')}, against {gate.get('base') or 'nothing'}"]
    if pull:
        approved = ", ".join(pull["approved_by"]) or "nobody"
        yield ["pull request", f"{pull['number']} by {pull['author']}, approved by {approved}"]


def publish(
    api: GitHub,
    repository: str,
    release: Release,
    body: str,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Create the GitHub release, or bring it up to date.

    Returns:
        What was done.

    Raises:
        GitHubError: If GitHub cannot be reached or refuses.
        DeploymentError: If the tag is on another commit.
    """
    tag = tag_of(release)

    def once() -> str:
        _check_tag(api, repository, tag, release.commit)
        found = api.get_or_none(f"/repos/{repository}/releases/tags/{tag}")
        if found is not None:
            return _update(api, repository, found, body)
        made = api.send(
            "POST",
            f"/repos/{repository}/releases",
            {
                "tag_name": tag,
                "target_commitish": release.commit,
                "name": release.tag,
                "body": body,
            },
        )
        return f"published {made['html_url']}"

    return look_again(once, sleep)


def _check_tag(api: GitHub, repository: str, tag: str, commit: str) -> None:
    """A tag that is there must be on the commit: GitHub would leave it where it is."""
    known = api.get_or_none(f"/repos/{repository}/git/ref/tags/{tag}")
    if known is None:
        return
    there = known["object"]
    if (there["type"], there["sha"]) != ("commit", commit):
        raise DeploymentError(
            f"the tag {tag} is on {there['sha']}, not on {commit}; remove the tag if it is wrong"
        )


def _update(api: GitHub, repository: str, found: Mapping[str, Any], body: str) -> str:
    if found["body"] == body:
        return f"{found['html_url']} is up to date"
    api.send("PATCH", f"/repos/{repository}/releases/{int(found['id'])}", {"body": body})
    return f"updated {found['html_url']}"


def run(_: argparse.Namespace) -> int:
    """Publish build/release; 0 if it is published."""
    root = Path.cwd()
    release = read_next(root)[0]
    api, repository = connect(root)
    body = model_card(root, release).replace("OWNER/NAME", repository)
    print(publish(api, repository, release, body))
    return 0
