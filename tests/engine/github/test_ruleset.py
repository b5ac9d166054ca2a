"""The rulesets of the files, held against GitHub's and against the workflows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gitops_ml.core.errors import GitopsError
from gitops_ml.github.ruleset import (
    RULESET,
    RULESETS,
    WORKFLOWS,
    differences,
    load_ruleset,
    load_rulesets,
    missing_checks,
    reported_checks,
    required_checks,
    ruleset_files,
)

WANTED: dict[str, Any] = {
    "name": "main",
    "target": "branch",
    "enforcement": "active",
    "bypass_actors": [],
    "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
    "rules": [
        {"type": "deletion"},
        {"type": "pull_request", "parameters": {"required_approving_review_count": 1}},
        {
            "type": "required_status_checks",
            "parameters": {
                "strict_required_status_checks_policy": True,
                "required_status_checks": [{"context": "b"}, {"context": "a"}],
            },
        },
    ],
}

OTHER: dict[str, Any] = {
    "name": "other",
    "target": "branch",
    "rules": [{"type": "deletion"}, {"type": "non_fast_forward"}],
}

Edit = Callable[[dict[str, Any]], Any]


def shown_by_github() -> dict[str, Any]:
    """The same ruleset as GitHub gives it back: with more keys, in another order."""
    current = copy.deepcopy(WANTED) | {"id": 7, "source": "team/late", "node_id": "x"}
    current["rules"].reverse()
    current["rules"][0]["parameters"]["required_status_checks"].reverse()
    current["rules"][1]["parameters"]["required_reviewers"] = []
    return current


def test_what_github_adds_and_reorders_is_no_difference() -> None:
    assert differences(shown_by_github(), WANTED) == []


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda r: r.update(enforcement="disabled"), 'enforcement: "disabled" -> "active"'),
        (
            lambda r: r["bypass_actors"].append({"actor_type": "OrganizationAdmin"}),
            'bypass_actors: [{"actor_type": "OrganizationAdmin"}] -> []',
        ),
        (
            lambda r: r["conditions"]["ref_name"].update(include=["refs/heads/x"]),
            'conditions: {"ref_name": {"exclude": [], "include": ["refs/heads/x"]}} -> '
            '{"ref_name": {"exclude": [], "include": ["~DEFAULT_BRANCH"]}}',
        ),
        (lambda r: r.pop("target"), 'target: absent -> "branch"'),
        (lambda r: r["rules"].pop(2), "rules.deletion: absent -> present"),
        (
            lambda r: r["rules"].append({"type": "required_signatures"}),
            "rules.required_signatures: present -> absent",
        ),
        (
            lambda r: r["rules"][1]["parameters"].update(required_approving_review_count=0),
            "rules.pull_request.required_approving_review_count: 0 -> 1",
        ),
        (
            lambda r: r["rules"][0]["parameters"]["required_status_checks"].pop(),
            "rules.required_status_checks.required_status_checks: "
            '[{"context": "a"}] -> [{"context": "a"}, {"context": "b"}]',
        ),
        (
            lambda r: r["rules"][0].pop("parameters"),
            "rules.required_status_checks.strict_required_status_checks_policy: absent -> true",
        ),
    ],
)
def test_every_weakening_is_a_difference(edit: Edit, where: str) -> None:
    current = shown_by_github()
    edit(current)
    assert where in [str(difference) for difference in differences(current, WANTED)]


def test_who_may_bypass_is_compared_where_it_is_shown() -> None:
    current = shown_by_github()
    del current["bypass_actors"]
    assert differences(current, WANTED) == []


def project(root: Path, ruleset: Any, **workflows: str) -> Path:
    (root / RULESET).parent.mkdir(parents=True)
    (root / WORKFLOWS).mkdir(parents=True)
    text = ruleset if isinstance(ruleset, str) else json.dumps(ruleset)
    (root / RULESET).write_text(text, encoding="utf-8")
    for name, workflow in workflows.items():
        (root / WORKFLOWS / f"{name}.yml").write_text(workflow, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("ruleset", "message"),
    [
        ("{", "cannot be read"),
        ({"rules": []}, "name: is missing"),
        ({"name": "main", "rules": {}}, "rules: must be a list of rules"),
        ({"name": "main", "rules": [{"parameters": {}}]}, "each with a type"),
        ({"name": "main", "rules": []}, "rules: is empty"),
        ("", "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["main", "other"])
def test_says_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, ruleset: Any, message: str
) -> None:
    root = project(tmp_path, WANTED)
    path = RULESETS / f"{name}.json"
    text = ruleset if isinstance(ruleset, str) else json.dumps(ruleset)
    (root / path).write_text(text, encoding="utf-8")
    with pytest.raises(GitopsError, match=rf"^\.github/rulesets/{name}\.json: .*{message}"):
        load_ruleset(root, path)
    with pytest.raises(GitopsError, match=rf"^\.github/rulesets/{name}\.json: .*{message}"):
        load_rulesets(root)


def test_names_every_file_that_is_wrong(tmp_path: Path) -> None:
    root = project(tmp_path, WANTED)
    (root / RULESETS / "a.json").write_text("{", encoding="utf-8")
    (root / RULESETS / "b.json").write_text(json.dumps(OTHER), encoding="utf-8")
    (root / RULESETS / "c.json").write_text("[]", encoding="utf-8")
    with pytest.raises(GitopsError, match=r"a\.json: cannot .*; .*c\.json: name: ") as caught:
        load_rulesets(root)
    assert "b.json" not in str(caught.value)


def test_two_files_cannot_have_one_name(tmp_path: Path) -> None:
    root = project(tmp_path, WANTED)
    (root / RULESETS / "a.json").write_text(json.dumps(OTHER | {"name": "main"}), encoding="utf-8")
    with pytest.raises(GitopsError) as caught:
        load_rulesets(root)
    assert str(caught.value) == (
        ".github/rulesets/a.json: name: 'main' is that of .github/rulesets/main.json"
    )


def test_mains_ruleset_is_first_and_the_others_need_none_of_its_rules(tmp_path: Path) -> None:
    root = project(tmp_path, WANTED)
    assert load_rulesets(root) == {RULESET: WANTED}
    other = RULESETS / "a.json"
    (root / other).write_text(json.dumps(OTHER), encoding="utf-8")
    (root / RULESETS / "README.md").write_text("no ruleset", encoding="utf-8")
    assert ruleset_files(root) == [RULESET, other]
    assert list(load_rulesets(root).items()) == [(RULESET, WANTED), (other, OTHER)]
    assert required_checks(OTHER) == ()
    assert missing_checks(OTHER, root) == []


def test_says_that_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(GitopsError, match=r"main\.json: no such file"):
        load_ruleset(tmp_path)
    with pytest.raises(GitopsError, match=r"main\.json: no such file"):
        load_rulesets(tmp_path)


def test_knows_the_names_of_the_jobs_of_pull_requests(tmp_path: Path) -> None:
    root = project(
        tmp_path,
        WANTED,
        all="on: [push, pull_request]\njobs: {one: {name: a}, two: {}}",
        only="on: pull_request\njobs: {three: {}}",
        mapped="on: {pull_request: , push: }\njobs: {four: {}}",
        quoted='"on": [pull_request]\njobs: {five: {}}',
        elsewhere="on: push\njobs: {six: {}}",
        privileged="on: [pull_request_target]\njobs: {seven: {}}",
    )
    assert reported_checks(root) == {"a", "two", "three", "four", "five"}
    assert missing_checks(WANTED, root) == ["b"]


@pytest.mark.parametrize("workflow", ["jobs: [", "[]", "jobs: {}", "on: pull_request"])
def test_names_a_workflow_that_cannot_be_read(tmp_path: Path, workflow: str) -> None:
    with pytest.raises(GitopsError, match=r"\.github/workflows/broken\.yml: is not a workflow"):
        reported_checks(project(tmp_path, WANTED, broken=workflow))
