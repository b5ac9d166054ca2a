"""github-setup, against a GitHub that remembers what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_github import (
    NAME,
    PATH,
    RULES,
    SECOND,
    SECOND_RULES,
    TOKEN,
    Environment,
    FakeGitHub,
    write_rules,
)
from pytest_httpserver import HTTPServer

from gitops_ml.github.codeowners import CODEOWNERS
from gitops_ml.github.ruleset import RULESET, RULESETS, WORKFLOWS

main = subcommand("github-setup")


@pytest.fixture
def github(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGitHub:
    """A project in the current folder, and its repository on GitHub with nothing set up."""
    fake = FakeGitHub(httpserver)
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", NAME)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    write_rules(tmp_path, owners="/contract.yaml\n/.github/\n")
    return fake


def rules(**parameters: Any) -> None:
    """Change parameters of the pull-request rule in the file."""
    changed = json.loads(RULESET.read_text(encoding="utf-8"))
    changed["rules"][0]["parameters"].update(parameters)
    RULESET.write_text(json.dumps(changed), encoding="utf-8")


def test_shows_everything_and_changes_nothing(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    before = CODEOWNERS.read_text(encoding="utf-8")
    assert main(["--owner", "@team/ml"]) == 0
    assert github.changes == []
    assert CODEOWNERS.read_text(encoding="utf-8") == before
    assert capsys.readouterr().out.splitlines() == [
        "team/late on GitHub",
        "  code owners                2 lines without an owner -> filled in",
        "  label contract: loosen     absent -> present",
        "  label model: new baseline  absent -> present",
        "  label engine: judge itself absent -> present",
        "  workflow permissions       write, may approve pull requests -> "
        "read, may not approve pull requests",
        "  Dependabot alerts          off -> on",
        "  squash merging             as wanted",
        "  ruleset main               absent -> as in .github/rulesets/main.json",
        "  ruleset environments       absent -> as in .github/rulesets/environments.json",
        "Nothing was changed. With APPLY=1 it is set as shown.",
    ]


def test_sets_everything_once(github: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    github.facts["allow_squash_merge"] = False
    assert main(["--owner", "@team/ml", "--apply"]) == 0
    assert github.changes == [
        f"POST {PATH}/labels",
        f"POST {PATH}/labels",
        f"POST {PATH}/labels",
        f"PUT {PATH}/actions/permissions/workflow",
        f"PUT {PATH}/vulnerability-alerts",
        f"PATCH {PATH}",
        f"POST {PATH}/rulesets",
        f"POST {PATH}/rulesets",
    ]
    assert github.rulesets == [{**RULES, "id": 1}, {**SECOND_RULES, "id": 2}]
    assert [label["name"] for label in github.labels] == [
        "contract: loosen",
        "model: new baseline",
        "engine: judge itself",
    ]
    assert github.workflow_permissions == {
        "default_workflow_permissions": "read",
        "can_approve_pull_request_reviews": False,
    }
    assert github.alerts
    assert github.facts["allow_squash_merge"] is True
    owned = "/contract.yaml @team/ml\n/.github/ @team/ml\n"
    assert CODEOWNERS.read_text(encoding="utf-8") == owned

    github.requests.clear()
    capsys.readouterr()
    assert main(["--apply"]) == 0
    assert github.changes == []
    shown = capsys.readouterr().out
    assert "->" not in shown
    assert shown.count("as wanted") == 9


def test_names_what_differs_and_updates_it(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--owner", "@team/ml", "--apply"]) == 0
    github.rulesets.insert(0, {**RULES, "name": "releases", "id": 9})
    github.rulesets[1]["rules"][0]["parameters"]["required_approving_review_count"] = 0
    github.rulesets[1]["enforcement"] = "disabled"
    github.requests.clear()
    capsys.readouterr()
    assert main(["--apply"]) == 0
    shown = capsys.readouterr().out
    assert "rules.pull_request.required_approving_review_count: 0 -> 1" in shown
    assert 'enforcement: "disabled" -> "active"' in shown
    assert github.changes == [f"PUT {PATH}/rulesets/1"]
    assert github.rulesets[1] == {**RULES, "id": 1}
    assert github.rulesets[0]["name"] == "releases"


def test_repairs_the_second_ruleset_alone(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--owner", "@team/ml", "--apply"]) == 0
    github.rulesets[1]["rules"].pop(0)
    github.rulesets[1]["conditions"]["ref_name"]["include"] = ["refs/heads/env/staging"]
    github.requests.clear()
    capsys.readouterr()
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "  ruleset main               as wanted\n" in shown
    assert f"  ruleset environments       differs -> as in {SECOND}\n" in shown
    assert "rules.deletion: absent -> present" in shown
    assert '["refs/heads/env/staging"]}} -> ' in shown
    assert github.changes == []
    assert main(["--apply"]) == 0
    assert github.changes == [f"PUT {PATH}/rulesets/2"]
    assert github.rulesets == [{**RULES, "id": 1}, {**SECOND_RULES, "id": 2}]
    assert "set: ruleset environments\n" in capsys.readouterr().out


ENVIRONMENTS = (
    "on: push\njobs: {a: {environment: staging, env: {K: '${{ secrets.DELIVERY_KEY }}'}}}"
)
DELIVERIES = RULESETS / "deliveries.json"
DELIVERY_RULES: dict[str, Any] = {
    "name": "deliveries",
    "target": "branch",
    "enforcement": "active",
    "bypass_actors": [{"actor_id": None, "actor_type": "DeployKey", "bypass_mode": "always"}],
    "conditions": {"ref_name": {"include": ["refs/heads/env/**"], "exclude": []}},
    "rules": [{"type": "creation"}, {"type": "update"}],
}
SELECTED = {"protected_branches": False, "custom_branch_policies": True}


@pytest.fixture
def delivering(capsys: pytest.CaptureFixture[str], github: FakeGitHub) -> FakeGitHub:
    """A project whose deliveries push with a key of their own."""
    (WORKFLOWS / "deliver.yml").write_text(ENVIRONMENTS, encoding="utf-8")
    DELIVERIES.write_text(json.dumps(DELIVERY_RULES), encoding="utf-8")
    assert main(["--owner", "@team/ml", "--apply"]) == 0
    return github


def test_an_environment_is_for_the_default_branch_alone(
    delivering: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert delivering.environments == {
        "staging": Environment([], SELECTED, [{"name": "main", "type": "branch"}])
    }
    assert "environment staging        absent -> for main only" in capsys.readouterr().out
    delivering.requests.clear()
    assert main(["--apply"]) == 0
    assert delivering.changes == []


def test_what_somebody_set_for_an_environment_stays(delivering: FakeGitHub) -> None:
    team = {"type": "Team", "reviewer": {"id": 7, "slug": "owners"}}
    delivering.environments["staging"] = Environment([team], wait_timer=30)
    assert main(["--apply"]) == 0
    main_only = [{"name": "main", "type": "branch"}]
    assert delivering.environments["staging"] == Environment(
        [team], SELECTED, main_only, wait_timer=30
    )
    chosen = Environment([team], {"protected_branches": True, "custom_branch_policies": False})
    for environment in (chosen, Environment([], SELECTED, [{"name": "live", "type": "branch"}])):
        delivering.environments["staging"] = environment
        delivering.requests.clear()
        assert main(["--apply"]) == 0
        assert delivering.changes == []
    delivering.environments["staging"] = Environment([], SELECTED)
    assert main(["--apply"]) == 0
    assert delivering.environments["staging"].policies == main_only


def test_the_branches_are_closed_once_the_deliveries_have_a_key(
    delivering: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, it would turn away the deliveries themselves."""
    names = [ruleset["name"] for ruleset in delivering.rulesets]
    assert names == ["main", "environments"]
    said = capsys.readouterr().out
    assert (
        "absent -> as in .github/rulesets/deliveries.json, once the deliveries have a key" in said
    )
    assert "not set: ruleset deliveries: no deploy key may write: docs/deliver.md" in said

    delivering.keys = [{"id": 1, "read_only": True}]
    assert main([]) == 0
    assert "no deploy key may write" in capsys.readouterr().out
    delivering.keys.append({"id": 2, "read_only": False})
    assert main([]) == 0
    assert "the environment staging has no secret DELIVERY_KEY" in capsys.readouterr().out
    delivering.environments["staging"].secrets = ["DELIVERY_KEY"]
    assert main(["--apply"]) == 0

    assert delivering.rulesets[-1] == {**DELIVERY_RULES, "id": 3}
    # GitHub may say whatever it likes of the number that means no one.
    delivering.rulesets[-1]["bypass_actors"][0]["actor_id"] = 1
    delivering.requests.clear()
    assert main(["--apply"]) == 0
    assert delivering.changes == []
    delivering.rulesets[-1]["bypass_actors"].append({"actor_type": "Team", "actor_id": 1})
    assert main(["--apply"]) == 0
    assert delivering.rulesets[-1]["bypass_actors"] == DELIVERY_RULES["bypass_actors"]


def test_a_project_may_have_mains_ruleset_only(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    SECOND.unlink()
    for _ in range(2):
        assert main(["--owner", "@team/ml", "--apply"]) == 0
        assert github.rulesets == [{**RULES, "id": 1}]
    assert "environments" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read: "),
        ("{}", "name: is missing"),
        (json.dumps(SECOND_RULES | {"rules": []}), "rules: is empty"),
        (json.dumps(SECOND_RULES | {"name": "main"}), "name: 'main' is that of"),
    ],
)
def test_a_broken_second_ruleset_is_named_before_anything_is_asked(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    SECOND.write_text(text, encoding="utf-8")
    assert main(["--owner", "@team/ml", "--apply"]) == 1
    assert f"{SECOND}: {message}" in capsys.readouterr().err
    assert github.requests == []


def test_a_person_owns_their_own_repository(github: FakeGitHub) -> None:
    github.facts["owner"] = {"login": "ada", "type": "User"}
    rules(require_code_owner_review=False)
    assert main(["--apply"]) == 0
    assert CODEOWNERS.read_text(encoding="utf-8") == "/contract.yaml @ada\n/.github/ @ada\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the team that reviews, e.g. OWNER=@team/ml-platform"),
        (["--owner", "ml"], "the owner is 'ml'; it must be @user or @organisation/team"),
    ],
)
def test_never_guesses_a_team(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--apply"]) == 1
    assert message in capsys.readouterr().err
    assert github.changes == []


def no_administrator(github: FakeGitHub) -> None:
    github.facts["permissions"]["admin"] = False


def no_such_job(github: FakeGitHub) -> None:
    (WORKFLOWS / "pipeline.yml").write_text("on: pull_request\njobs: {all-gren: {}}")


def one_person(github: FakeGitHub) -> None:
    github.people = ["ada"]


def one_person_and_a_reader(github: FakeGitHub) -> None:
    github.people, github.readers = ["ada"], ["grace"]


def one_owner(github: FakeGitHub) -> None:
    CODEOWNERS.write_text("/contract.yaml @ada\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (no_administrator, "no administrator of team/late"),
        (no_such_job, "no job that runs on pull requests is named all-green"),
        (one_person, "one person works here, and nobody can approve"),
        (one_person_and_a_reader, "one person works here, and nobody can approve"),
        (one_owner, "@ada owns /contract.yaml alone"),
    ],
)
@pytest.mark.parametrize("apply", [[], ["--apply"]], ids=["show", "apply"])
def test_never_locks_everybody_out(
    github: FakeGitHub,
    capsys: pytest.CaptureFixture[str],
    defect: Any,
    message: str,
    apply: list[str],
) -> None:
    defect(github)
    assert main(["--owner", "@team/ml", *apply]) == 1
    assert message in capsys.readouterr().err
    assert github.changes == []


def test_one_person_alone_can_do_without_approvals(github: FakeGitHub) -> None:
    github.people = ["ada"]
    rules(required_approving_review_count=0, require_code_owner_review=False)
    assert main(["--owner", "@ada", "--apply"]) == 0
    assert len(github.rulesets) == 2


@pytest.mark.parametrize(
    ("request_", "refusal", "message"),
    [
        (f"GET {PATH}", (404, "Not Found", {}), "the token's owner may not see it"),
        (f"GET {PATH}", (401, "Bad credentials", {}), "`gh auth login` again"),
        (f"GET {PATH}", (403, "rate limit", {"Retry-After": "999"}), "try again in 999 s"),
        (f"GET {PATH}/rulesets", (403, "Upgrade to GitHub Pro", {}), "Upgrade to GitHub Pro"),
        (f"POST {PATH}/rulesets", (403, "Must be admin", {}), "ruleset main was not set: "),
        (
            f"PUT {PATH}/actions/permissions/workflow",
            (409, "Set by the organisation", {}),
            "workflow permissions was not set: ",
        ),
    ],
)
def test_says_what_github_refuses(
    github: FakeGitHub,
    capsys: pytest.CaptureFixture[str],
    request_: str,
    refusal: tuple[int, str, dict[str, str]],
    message: str,
) -> None:
    github.refusals[request_] = refusal
    assert main(["--owner", "@team/ml", "--apply"]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert TOKEN not in said.err + said.out
    # What was set before the refusal is said.
    assert ("set: label" in said.out) == (not request_.startswith("GET"))


def test_says_that_there_is_no_token(
    github: FakeGitHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.delenv("GH_TOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 1
    assert "there is no token for github.com" in capsys.readouterr().err
    assert github.requests == []


def test_says_that_the_ruleset_is_missing(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    RULESET.unlink()
    assert main([]) == 1
    assert "main.json: no such file" in capsys.readouterr().err
