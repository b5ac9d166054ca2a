"""doctor: every check is seen green and red."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

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

from gitops_ml.core.base_image import DOCKERFILE
from gitops_ml.doctor.check import Check
from gitops_ml.doctor.github import check_github
from gitops_ml.doctor.local import check_local
from gitops_ml.github.codeowners import CODEOWNERS
from gitops_ml.github.ruleset import RULESET, RULESETS, WORKFLOWS
from gitops_ml.github.workflows import ACTIONS

github_setup = subcommand("github-setup")
main = subcommand("doctor")

STAGES = """\
stages:
  copy:
    cmd: cp in.txt out.txt
    deps: [in.txt]
    params: [size]
    outs: [out.txt]
  again:
    cmd: cp out.txt last.txt
    deps: [out.txt]
    outs: [last.txt]
"""
TOOLS = {"uv": "uv 0.9.1", "git": None, "gh": "gh version 2.60.0 (2024-11-01)"}

Checks = Callable[[], dict[str, tuple[str, str, str]]]


def named(name: str, found: Iterable[Check]) -> Check:
    """The check of that name; those after it are not run."""
    return next(check for check in found if check.name == name)


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose pipeline has run; not to be changed."""
    root = tmp_path_factory.mktemp("prepared")
    write_rules(root, owners="* @team/ml\n/docs/\n")
    (root / "uv.lock").touch()
    (root / "in.txt").write_text("data", encoding="utf-8")
    (root / "params.yaml").write_text("size: 1\n", encoding="utf-8")
    (root / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    for command in (["git", "init", "-q"], ["git", "symbolic-ref", "HEAD", "refs/heads/main"]):
        subprocess.run(command, cwd=root, check=True)
    for command in (["init", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, check=True)
    return root


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH: git and a shell, and tools that only tell their version."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("git", "sh", "cp"):
        (folder / name).symlink_to(shutil.which(name) or "")
    for name, version in TOOLS.items():
        if version is not None:
            tool(folder, name, f"echo '{version}'")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def tool(folder: Path, name: str, script: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(f"#!{folder}/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.fixture
def project(prepared: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project in which every check that needs no network is green."""
    root = tmp_path / "project"
    shutil.copytree(prepared, root, symlinks=True)
    for name in list(os.environ):
        if name.startswith(("GIT_", "GITHUB_", "GH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ada@example.com")
    monkeypatch.chdir(root)
    git("add", "--all")
    git("commit", "-qm", "Start")
    return root


@pytest.fixture
def github(project: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeGitHub:
    """The project's repository on GitHub, set up as github-setup leaves it."""
    fake = FakeGitHub(httpserver)
    git("remote", "add", "origin", f"git@github.com:{NAME}.git")
    monkeypatch.setenv("GITHUB_API_URL", fake.url)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    fake.variables["DVC_REMOTE_URL"] = "s3://bucket"
    assert github_setup(["--apply"]) == 0
    fake.requests.clear()
    return fake


@pytest.fixture
def checks(capsys: pytest.CaptureFixture[str]) -> Checks:
    """Run doctor: each check's status, detail and remedy."""

    def run() -> dict[str, tuple[str, str, str]]:
        capsys.readouterr()
        code = main(["--json"])
        found = json.loads(capsys.readouterr().out)
        assert code == any(check["status"] == "fail" for check in found)
        assert all(check["remedy"] for check in found if check["status"] != "ok")
        return {c["name"]: (c["status"], c["detail"], c["remedy"]) for c in found}

    return run


LOCAL = (
    "uv", "git", "gh", "repository", "engine", "branch", "uv.lock", "dvc.lock", "merge",
    "file sizes", "stages", "DVC remote",
)  # fmt: skip
ON_GITHUB = (
    "rulesets", "required checks", "code owners", "GitHub", "default branch", "Actions",
    "label contract: loosen", "label model: new baseline", "label engine: judge itself",
    "workflow permissions", "Dependabot alerts", "squash merging", "ruleset main",
    "ruleset environments", "code owners on GitHub", "approvals", "dependency review",
    "DVC remote of workflows",
)  # fmt: skip


def test_without_a_remote_only_what_needs_one_is_skipped(project: Path, checks: Checks) -> None:
    found = checks()
    assert list(found) == [*LOCAL, "rulesets", "required checks", "GitHub"]
    assert {name for name, (status, *_) in found.items() if status == "skipped"} == {
        "DVC remote",
        "GitHub",
    }
    assert {status for status, *_ in found.values()} == {"ok", "skipped"}
    assert "no git remote" in found["GitHub"][1]
    assert "git remote add origin" in found["GitHub"][2]


def test_the_remote_of_the_environment_counts(
    project: Path, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_REMOTE_URL", raising=False)
    assert "DVC_REMOTE_URL" in checks()["DVC remote"][2]
    monkeypatch.setenv("DVC_REMOTE_URL", "s3://bucket/folder")
    assert checks()["DVC remote"][:2] == ("ok", "the one at DVC_REMOTE_URL")


def test_all_is_green_after_github_setup(github: FakeGitHub, project: Path, checks: Checks) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "storage", "/srv/dvc"],
        check=True,
    )
    found = checks()
    assert list(found) == [*LOCAL, *ON_GITHUB]
    assert {name: check for name, check in found.items() if check[0] != "ok"} == {}
    assert found["DVC remote"][1] == "storage"
    assert github.changes == []


def test_the_table_says_what_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_uv(project)
    old_git(project)
    assert main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "fail     uv                         not installed",
        "                                    do: install it: "
        "https://docs.astral.sh/uv/getting-started/installation",
    ]
    assert "ok       gh                         2.60.0" in lines
    assert lines[-1] == "3 ok, 2 fail, 1 skipped"


def no_uv(root: Path) -> None:
    (root.parent / "bin" / "uv").unlink()


def old_uv(root: Path) -> None:
    tool(root.parent / "bin", "uv", "echo uv 0.6.17")


def old_git(root: Path) -> None:
    tool(root.parent / "bin", "git", "echo git version 2.9.5")


def broken_gh(root: Path) -> None:
    tool(root.parent / "bin", "gh", "exit 1")


def no_repository(root: Path) -> None:
    shutil.rmtree(root / ".git")


def in_another_repository(root: Path) -> None:
    shutil.rmtree(root / ".git")
    git("init", "-q", str(root.parent))


def other_branch(root: Path) -> None:
    git("branch", "-m", "trunk")


def unlocked(root: Path) -> None:
    git("rm", "-q", "--cached", "uv.lock")


def lock_gone(root: Path) -> None:
    (root / "dvc.lock").unlink()


def lock_ignored(root: Path) -> None:
    git("rm", "-q", "--cached", "dvc.lock")


def lock_changed(root: Path) -> None:
    with (root / "dvc.lock").open("a") as file:
        file.write("# edited\n")


def data_changed(root: Path) -> None:
    (root / "in.txt").write_text("other data", encoding="utf-8")


def parameter_changed(root: Path) -> None:
    (root / "params.yaml").write_text("size: 2\n", encoding="utf-8")


def parameter_gone(root: Path) -> None:
    (root / "params.yaml").write_text("other: 1\n", encoding="utf-8")


def command_changed(root: Path) -> None:
    (root / "dvc.yaml").write_text(STAGES.replace("cp in.txt", "cp -f in.txt"), encoding="utf-8")


def stages_broken(root: Path) -> None:
    (root / "dvc.yaml").write_text("stages: 1", encoding="utf-8")


def marks_committed(root: Path) -> None:
    (root / "dvc.lock").write_text("<<<<<<< HEAD\n=======\n>>>>>>> other\n", encoding="utf-8")
    git("commit", "-qam", "Marks")


def in_conflict(*names: str) -> Callable[[Path], None]:
    def merge(root: Path) -> None:
        for branch in ("theirs", "mine"):
            git("switch", "-qc", branch, "main")
            for name in names:
                with (root / name).open("a", encoding="utf-8") as file:
                    file.write(f"# {branch}\n")
            git("commit", "-qam", branch)
        assert subprocess.run(["git", "merge", "-q", "theirs"], check=False).returncode == 1

    return merge


def large_file(root: Path) -> None:
    (root / "big.bin").write_bytes(bytes(1024 * 1024 + 1))
    git("add", "big.bin")


def refused_file(root: Path) -> None:
    with (root / "huge.bin").open("wb") as file:
        file.truncate(100 * 2**20 + 1)
    git("add", "--intent-to-add", "huge.bin")


def misnamed_job(root: Path) -> None:
    (root / WORKFLOWS / "pipeline.yml").write_text("on: pull_request\njobs: {green: {}}")


def nothing_required(root: Path) -> None:
    approved, _ = RULES["rules"]
    (root / RULESET).write_text(json.dumps(RULES | {"rules": [approved]}), encoding="utf-8")


def no_ruleset(root: Path) -> None:
    (root / RULESET).unlink()


def second_ruleset_malformed(root: Path) -> None:
    (root / SECOND).write_text("{", encoding="utf-8")


def second_ruleset_empty(root: Path) -> None:
    (root / SECOND).write_text(json.dumps(SECOND_RULES | {"rules": []}), encoding="utf-8")


def two_rulesets_of_one_name(root: Path) -> None:
    (root / SECOND).write_text(json.dumps(SECOND_RULES | {"name": "main"}), encoding="utf-8")


@pytest.mark.parametrize(
    ("defect", "name", "status", "detail"),
    [
        (no_uv, "uv", "fail", "not installed"),
        (old_uv, "uv", "fail", "0.6.17 is older than 0.7"),
        (old_git, "git", "fail", "2.9.5 is older than 2.28"),
        (broken_gh, "gh", "skipped", "not installed"),
        (no_repository, "repository", "fail", "not a git repository"),
        (in_another_repository, "repository", "fail", "GitHub reads workflows, rulesets and"),
        (other_branch, "branch", "fail", "main is not there"),
        (unlocked, "uv.lock", "fail", "not in git"),
        (lock_gone, "dvc.lock", "warn", "not there"),
        (lock_ignored, "dvc.lock", "warn", "not in git"),
        (lock_changed, "dvc.lock", "warn", "changed, not committed"),
        (data_changed, "stages", "fail", "copy (in.txt (modified))"),
        (parameter_changed, "stages", "fail", "copy (params.yaml (size))"),
        (parameter_gone, "stages", "fail", "copy (params.yaml (size))"),
        (command_changed, "stages", "fail", "copy (changed command)"),
        (stages_broken, "stages", "fail", "dvc cannot tell"),
        (marks_committed, "merge", "fail", "git knows of none"),
        (in_conflict("dvc.lock"), "merge", "fail", "in conflict: dvc.lock"),
        (in_conflict("dvc.lock", "in.txt"), "merge", "fail", "in conflict: in.txt, dvc.lock"),
        (large_file, "file sizes", "warn", "big.bin (1.0 MiB)"),
        (refused_file, "file sizes", "fail", "huge.bin (100.0 MiB)"),
        (misnamed_job, "required checks", "fail", "no job that runs on pull requests is named"),
        (nothing_required, "required checks", "fail", "a red pull request can be merged"),
        (no_ruleset, "required checks", "fail", "main.json: no such file"),
        (no_ruleset, "rulesets", "fail", "main.json: no such file"),
        (second_ruleset_malformed, "rulesets", "fail", "environments.json: cannot be read"),
        (second_ruleset_empty, "rulesets", "fail", "environments.json: rules: is empty"),
        (two_rulesets_of_one_name, "rulesets", "fail", "environments.json: name: 'main' is that"),
    ],
)
def test_finds_each_defect_here(
    project: Path, defect: Callable[[Path], None], name: str, status: str, detail: str
) -> None:
    defect(project)
    found = named(name, chain(check_github(project), check_local(project)))
    assert found.status == status
    assert detail in found.detail
    assert found.remedy


def test_says_how_a_merge_is_resolved(project: Path) -> None:
    in_conflict("dvc.lock")(project)
    found = list(check_local(project))
    assert named("merge", found).remedy == "`make resolve`"
    # Of a lock with marks DVC can tell nothing.
    assert "stages" not in {check.name for check in found}


def test_git_may_know_the_default_branch_by_another_name(github: FakeGitHub) -> None:
    git("branch", "-m", "trunk")
    git("update-ref", "refs/remotes/origin/trunk", "HEAD")
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    other_default_branch(github)
    for check, found in (
        ("branch", named("branch", check_local(Path()))),
        ("default branch", named("default branch", check_github(Path()))),
    ):
        assert found.status == "ok", (check, found)
        assert "trunk" in found.detail


def test_says_whether_the_base_image_is_pinned(project: Path) -> None:
    DOCKERFILE.parent.mkdir(parents=True)
    for line, status, detail in (
        ("FROM python:3.11-slim", "skipped", "python:3.11-slim is not pinned by its digest"),
        (f"FROM python:3.11@sha256:{'ab' * 32}", "ok", f"python:3.11@sha256:{'ab' * 6}"),
        ("FROM ${BUILT}", "fail", "0 lines like"),
    ):
        DOCKERFILE.write_text(f"{line}\n", encoding="utf-8")
        found = named("base image", check_local(Path()))
        assert found.status == status
        assert detail in found.detail
        assert ("make pin-base-image" in found.remedy) == (status == "skipped")


def test_a_fresh_clone_is_not_stale(project: Path) -> None:
    for name in ("out.txt", "last.txt"):
        (project / name).unlink()
    shutil.rmtree(project / ".dvc" / "cache")
    found = named("stages", check_local(project))
    assert (found.status, found.detail) == ("warn", "not here: last.txt, out.txt")
    assert "`make pull`" in found.remedy


def ruleset_gone(fake: FakeGitHub) -> None:
    fake.rulesets.clear()


def ruleset_weakened(fake: FakeGitHub) -> None:
    fake.rulesets[0]["rules"][0]["parameters"]["required_approving_review_count"] = 0


def bypassed(fake: FakeGitHub) -> None:
    fake.rulesets[0]["bypass_actors"] = [{"actor_id": 5, "actor_type": "RepositoryRole"}]


def second_ruleset_gone(fake: FakeGitHub) -> None:
    fake.rulesets.pop()


def second_ruleset_weakened(fake: FakeGitHub) -> None:
    fake.rulesets[1]["rules"].pop()


def second_ruleset_off(fake: FakeGitHub) -> None:
    fake.rulesets[1]["enforcement"] = "disabled"


def plan_without_rulesets(fake: FakeGitHub) -> None:
    message = "Upgrade to GitHub Pro or make this repository public to enable this feature."
    fake.refusals[f"GET {PATH}/rulesets"] = (403, message, {})


def label_gone(fake: FakeGitHub) -> None:
    fake.labels.clear()


def may_write(fake: FakeGitHub) -> None:
    fake.workflow_permissions["default_workflow_permissions"] = "write"


def may_approve(fake: FakeGitHub) -> None:
    fake.workflow_permissions["can_approve_pull_request_reviews"] = True


def alerts_off(fake: FakeGitHub) -> None:
    fake.alerts = False


def squash_off(fake: FakeGitHub) -> None:
    fake.facts["allow_squash_merge"] = False


def other_default_branch(fake: FakeGitHub) -> None:
    fake.facts["default_branch"] = "trunk"


def actions_off(fake: FakeGitHub) -> None:
    fake.actions = False


def unknown_owner(fake: FakeGitHub) -> None:
    fake.codeowners_errors = [
        {"line": 1, "kind": "Unknown owner", "source": "/contract.yaml @team/ml\n"}
    ]


def codeowners_not_pushed(fake: FakeGitHub) -> None:
    fake.codeowners_errors = None


def nobody_asked(fake: FakeGitHub) -> None:
    CODEOWNERS.write_text("*\n/Makefile @ada @grace\n", encoding="utf-8")


def owners_of_few(fake: FakeGitHub) -> None:
    CODEOWNERS.write_text("/engine/ @team/ml\n/.github/ @team/ml\n", encoding="utf-8")


def an_exception_too_many(fake: FakeGitHub) -> None:
    with CODEOWNERS.open("a", encoding="utf-8") as file:
        file.write("# Quick.\n*.lock\n/params.yaml\n")


def owned_too_early(fake: FakeGitHub) -> None:
    CODEOWNERS.write_text("/dvc.lock @ada @grace\n* @team/ml\ndvc.*\n", encoding="utf-8")


def no_codeowners(fake: FakeGitHub) -> None:
    CODEOWNERS.unlink()


def one_person(fake: FakeGitHub) -> None:
    fake.people = ["ada"]


def no_dependency_graph(fake: FakeGitHub) -> None:
    fake.dependency_graph = False


def no_variable(fake: FakeGitHub) -> None:
    fake.variables.clear()


def bad_token(fake: FakeGitHub) -> None:
    fake.refusals[f"GET {PATH}"] = (401, "Bad credentials", {})


def not_shown(fake: FakeGitHub) -> None:
    fake.refusals[f"GET {PATH}/codeowners/errors"] = (403, "Resource not accessible", {})


def server_error(fake: FakeGitHub) -> None:
    fake.refusals[f"GET {PATH}/codeowners/errors"] = (422, "Unprocessable", {})


@pytest.mark.parametrize(
    ("defect", "name", "status", "detail"),
    [
        (ruleset_gone, "ruleset main", "fail", f"absent, wanted: as in {RULESET}"),
        (ruleset_weakened, "ruleset main", "fail", "required_approving_review_count: 0 -> 1"),
        (bypassed, "ruleset main", "fail", "bypass_actors: [{"),
        (second_ruleset_gone, "ruleset environments", "fail", f"absent, wanted: as in {SECOND}"),
        (second_ruleset_weakened, "ruleset environments", "fail", "rules.non_fast_forward: absent"),
        (second_ruleset_off, "ruleset environments", "fail", 'enforcement: "disabled"'),
        (plan_without_rulesets, "ruleset main", "fail", "Upgrade to GitHub Pro"),
        (plan_without_rulesets, "ruleset environments", "fail", "Upgrade to GitHub Pro"),
        (label_gone, "label contract: loosen", "fail", "absent, wanted: present"),
        (may_write, "workflow permissions", "fail", "write, may not approve"),
        (may_approve, "workflow permissions", "fail", "read, may approve"),
        (alerts_off, "Dependabot alerts", "fail", "off, wanted: on"),
        (squash_off, "squash merging", "fail", "off, wanted: on"),
        (other_default_branch, "default branch", "fail", "trunk, but here main is taken"),
        (actions_off, "Actions", "fail", "no workflow runs"),
        (unknown_owner, "code owners on GitHub", "fail", "line 1: Unknown owner"),
        (codeowners_not_pushed, "code owners on GitHub", "fail", "on the default branch"),
        (nobody_asked, "code owners", "fail", "nobody is asked about *"),
        (owners_of_few, "code owners", "fail", "nobody is asked about .dvc/"),
        (an_exception_too_many, "code owners", "fail", "dvc.lock, params.yaml, uv.lock, which"),
        (owned_too_early, "code owners", "fail", "nobody is asked about dvc.lock, dvc.yaml, which"),
        (no_codeowners, "code owners", "fail", "CODEOWNERS: no such file"),
        (no_codeowners, "approvals", "fail", "CODEOWNERS: no such file"),
        (one_person, "approvals", "warn", "one person works here"),
        (no_dependency_graph, "dependency review", "skipped", "does not compare"),
        (no_variable, "DVC remote of workflows", "skipped", "none"),
        (bad_token, "GitHub", "fail", "token is wrong or has expired"),
        (not_shown, "code owners on GitHub", "skipped", "Resource not accessible"),
        (server_error, "code owners on GitHub", "fail", "Unprocessable"),
    ],
)
def test_finds_each_defect_on_github(
    github: FakeGitHub,
    defect: Callable[[FakeGitHub], None],
    name: str,
    status: str,
    detail: str,
) -> None:
    defect(github)
    found = named(name, check_github(Path()))
    assert found.status == status
    assert detail in found.detail
    assert found.remedy
    assert github.changes == []


def test_says_what_only_administrators_see(github: FakeGitHub) -> None:
    github.facts["permissions"]["admin"] = False
    found = {check.name: check for check in check_github(Path())}
    assert {name for name, check in found.items() if check.status == "skipped"} == {
        "Actions",
        "workflow permissions",
        "Dependabot alerts",
    }
    for name, file in (("ruleset main", RULESET), ("ruleset environments", SECOND)):
        assert found[name].status == "warn"
        assert found[name].detail == f"as in {file}, as far as it is shown: not who may bypass it"
    # Each is asked about itself.
    one, two = (github.requests.count(f"GET {PATH}/rulesets/{number}") for number in (1, 2))
    assert one == two > 0
    # A role of an organisation may see it, too.
    github.edits_rules = True
    found = {check.name: check for check in check_github(Path())}
    assert found["ruleset main"].status == found["ruleset environments"].status == "ok"


def test_each_ruleset_is_a_check_of_its_own(github: FakeGitHub) -> None:
    found = {check.name: check for check in check_github(Path())}
    assert found["rulesets"].detail == "main.json, environments.json"
    assert found["ruleset main"].detail == f"as in {RULESET}"
    assert found["ruleset environments"].detail == f"as in {SECOND}"
    assert found["required checks"].detail == "all-green"
    second_ruleset_weakened(github)
    found = {check.name: check for check in check_github(Path())}
    assert [n for n, check in found.items() if check.status == "fail"] == ["ruleset environments"]


def test_says_who_may_deploy_until_the_deliveries_have_a_key(github: FakeGitHub) -> None:
    file = RULESETS / "deliveries.json"
    wanted = {
        **SECOND_RULES,
        "name": "deliveries",
        "bypass_actors": [{"actor_id": None, "actor_type": "DeployKey", "bypass_mode": "always"}],
        "rules": [{"type": "creation"}, {"type": "update"}],
    }
    file.write_text(json.dumps(wanted), encoding="utf-8")
    (WORKFLOWS / "live.yml").write_text(
        "jobs: {a: {environment: staging, env: {K: '${{ secrets.DELIVERY_KEY }}'}}}"
    )
    found = named("ruleset deliveries", check_github(Path()))
    assert (found.status, found.detail, found.remedy) == (
        "warn",
        "absent: whoever may write here may deploy, since no deploy key may write",
        "docs/deliver.md says how",
    )
    github.keys = [{"id": 1, "read_only": False}]
    github.environments["staging"] = Environment(secrets=["DELIVERY_KEY"])
    assert named("ruleset deliveries", check_github(Path())).status == "fail"
    github.rulesets.append({**wanted, "id": 9})
    assert named("ruleset deliveries", check_github(Path())).status == "ok"


@pytest.mark.parametrize("secret", ["REGISTRY_TOKEN", "BENTO_CLOUD_API_KEY"])
def test_a_secret_of_an_environment_must_not_be_the_repositorys(
    github: FakeGitHub, secret: str
) -> None:
    """A workflow of any branch could read it."""
    (WORKFLOWS / "live.yml").write_text(
        f"jobs: {{a: {{environment: registry, env: {{K: '${{{{ secrets.{secret} }}}}'}}}}}}"
    )
    github.secrets = [secret]
    found = named("variables and secrets", check_github(Path()))
    assert found.status == "fail"
    assert found.detail.startswith(f"secret {secret} is the repository's")
    assert f"`gh secret set {secret} --env` for registry" in found.remedy
    github.secrets = []
    github.environments["registry"] = Environment(secrets=[secret])
    assert told()[0] == "ok"


def test_a_broken_ruleset_hides_nothing_else(github: FakeGitHub) -> None:
    second_ruleset_malformed(Path())
    found = {check.name: check for check in check_github(Path())}
    failed = {name: check.detail for name, check in found.items() if check.status == "fail"}
    assert failed.keys() == {"rulesets", "ruleset environments"}
    assert all(detail.startswith(f"{SECOND}: cannot be read") for detail in failed.values())
    assert list(found) == list(ON_GITHUB)


def test_a_project_may_have_mains_ruleset_only(github: FakeGitHub) -> None:
    SECOND.unlink()
    found = {check.name: check for check in check_github(Path())}
    assert list(found) == [name for name in ON_GITHUB if name != "ruleset environments"]
    assert {check.status for check in found.values()} == {"ok"}


def test_says_that_there_is_no_token(
    github: FakeGitHub, monkeypatch: pytest.MonkeyPatch, tools: Path
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    tool(tools, "gh", "exit 1")
    rulesets, required, owners, last = check_github(Path())
    assert {check.status for check in (rulesets, required, owners)} == {"ok"}
    assert (last.status, last.detail) == ("skipped", "there is no token for github.com")
    assert "gh auth login" in last.remedy


def test_works_offline(github: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    rulesets, required, owners, last = check_github(Path())
    assert {check.status for check in (rulesets, required, owners)} == {"ok"}
    assert last.status == "skipped"
    assert "cannot be reached" in last.detail


DELIVER = """\
on: push
env:
  PRODUCTION_URL: ${{ vars.PRODUCTION_URL }}
  DVC_REMOTE_URL: ${{ vars.DVC_REMOTE_URL }}
jobs:
  image:  # vars.IN_A_COMMENT
    if: vars.ATTEST == 'true' && github.ref != 'vars.IN_A_TEXT'
    steps:
      - run: make image vars.IN_A_COMMAND
        env:
          BRACES: ${{ format('{{0}} }} {0}', vars.image) }}
          OUTPUT: ${{ steps.vars.outputs.x }} ${{ steps.secrets.outputs.x }}
          TOKEN: ${{ github.token || secrets.GITHUB_TOKEN }} ${{ secrets['REGISTRY_TOKEN'] }}
  staging:
    environment: staging
  production:
    environment: {name: production, url: "${{ vars.ADDRESS }}"}
    steps: [{uses: ./.github/actions/notify, env: {KEY: "${{ secrets.KEY }}"}}]
  rollback:
    environment: ${{ inputs.environment }}
    steps: [{run: make rollback, env: {KEY: "${{ secrets.KEY }}"}}]
  other:
    environment: {name: "${{ inputs.environment }}-2"}
"""
NOTIFY = "runs: {using: composite, steps: [{run: x, env: {TO: '${{ vars.NOTIFY }}'}}]}"
SETTINGS = ("variables and secrets", "environment production", "environment staging")
TEAM = {"type": "Team", "reviewer": {"slug": "owners", "name": "The Owners"}}
PERSON = {"type": "User", "reviewer": {"login": "ada"}}
PROTECTED = {"protected_branches": True, "custom_branch_policies": False}
SELECTED = {"protected_branches": False, "custom_branch_policies": True}
ONLY_MAIN = [{"name": "main", "type": "branch"}]


@pytest.fixture
def delivering(github: FakeGitHub) -> FakeGitHub:
    """A repository that delivers, with every setting as wanted."""
    (WORKFLOWS / "live.yml").write_text(DELIVER, encoding="utf-8")
    (ACTIONS / "notify").mkdir(parents=True)
    (ACTIONS / "notify" / "action.yml").write_text(NOTIFY, encoding="utf-8")
    github.variables.update(dict.fromkeys(("ADDRESS", "ATTEST", "IMAGE", "NOTIFY"), "a-value"))
    github.variables["PRODUCTION_URL"] = "a-value"
    github.secrets += ["KEY", "REGISTRY_TOKEN"]
    github.environments = {
        "production": Environment([TEAM, PERSON], SELECTED, ONLY_MAIN),
        "staging": Environment([], SELECTED, ONLY_MAIN),
    }
    return github


def told() -> tuple[str, str]:
    found = named("variables and secrets", check_github(Path()))
    return found.status, found.detail


def test_all_that_workflows_are_told_is_green(delivering: FakeGitHub, checks: Checks) -> None:
    found = checks()
    assert list(found) == [*LOCAL, *ON_GITHUB, *SETTINGS]
    assert {name: found[name] for name in SETTINGS} == {
        "variables and secrets": (
            "ok",
            "ADDRESS, ATTEST, IMAGE, NOTIFY, PRODUCTION_URL, secret KEY, secret REGISTRY_TOKEN",
            "",
        ),
        "environment production": ("ok", "asks @team/owners, @ada, from main only", ""),
        "environment staging": ("ok", "from main only", ""),
    }
    assert delivering.changes == []


def test_only_environments_are_checked_where_nothing_is_told(
    delivering: FakeGitHub, checks: Checks
) -> None:
    (WORKFLOWS / "live.yml").write_text(
        "on: push\njobs: {deliver: {environment: staging, env: {A: '${{ vars.DVC_REMOTE_URL }}',"
        " B: '${{ secrets.GITHUB_TOKEN }}'}}}",
        encoding="utf-8",
    )
    shutil.rmtree(ACTIONS)
    delivering.requests.clear()
    assert list(checks()) == [*LOCAL, *ON_GITHUB, "environment staging"]
    assert [r for r in delivering.requests if r.endswith(("/variables", "/secrets"))] == []


def test_says_what_is_not_set_and_no_value(
    delivering: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    del delivering.variables["ATTEST"], delivering.variables["NOTIFY"]
    delivering.secrets.remove("REGISTRY_TOKEN")
    assert main([]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    row = lines.index(
        "skipped  variables and secrets      not set: ATTEST, NOTIFY, secret REGISTRY_TOKEN"
    )
    assert lines[row + 1].strip() == (
        "do: the pages in docs/ say what each does; to set one: "
        "`gh variable set NAME --body VALUE` or `gh secret set NAME`"
    )
    assert "a-value" not in out


@pytest.mark.parametrize(
    ("gone", "command", "other"),
    [("IMAGE", "gh variable set", "gh secret set"), ("KEY", "gh secret set", "gh variable set")],
)
def test_says_how_to_set_what_is_not_set(
    delivering: FakeGitHub, gone: str, command: str, other: str
) -> None:
    delivering.variables.pop(gone, None)
    delivering.secrets = [name for name in delivering.secrets if name != gone]
    found = named("variables and secrets", check_github(Path()))
    assert found.status == "skipped"
    assert command in found.remedy
    assert other not in found.remedy


def no_settings(fake: FakeGitHub) -> None:
    fake.variables = {"DVC_REMOTE_URL": "s3://bucket"}
    fake.secrets = []


def test_an_organization_sets_variables_and_secrets(delivering: FakeGitHub) -> None:
    variables, secrets = dict(delivering.variables), list(delivering.secrets)
    no_settings(delivering)
    assert told()[0] == "skipped"
    delivering.organization_variables = variables
    assert told() == ("skipped", "not set: secret KEY, secret REGISTRY_TOKEN")
    delivering.organization_secrets = secrets
    assert told()[0] == "ok"


def test_a_person_has_no_organization_to_ask(delivering: FakeGitHub) -> None:
    delivering.facts["owner"] = {"login": "ada", "type": "User"}
    for kind in ("variables", "secrets"):
        path = f"GET {PATH}/actions/organization-{kind}"
        delivering.refusals[path] = (404, "Not Found", {})
    assert told()[0] == "ok"


def test_an_environment_sets_what_its_own_jobs_use(delivering: FakeGitHub) -> None:
    variables, secrets = dict(delivering.variables), list(delivering.secrets)
    no_settings(delivering)
    delivering.environments["staging"].variables = variables
    delivering.environments["staging"].secrets = secrets
    # The workflow's `env` and the action are for every job, the rest for other jobs.
    assert told() == (
        "skipped",
        "not set: ADDRESS, ATTEST, IMAGE, secret KEY, secret REGISTRY_TOKEN",
    )
    delivering.environments["production"].variables = variables
    delivering.environments["production"].secrets = secrets
    assert told() == ("skipped", "not set: ATTEST, IMAGE, secret REGISTRY_TOKEN")


def test_asks_only_for_what_is_used_there(delivering: FakeGitHub) -> None:
    shutil.rmtree(ACTIONS)
    staging = "staging: {environment: staging, env: {A: '${{ vars.IMAGE }}'}}"
    production = "production: {environment: production, env: {A: '${{ secrets.KEY }}'}}"
    for jobs, unused in (
        (staging, "actions/secrets"),
        (production, "actions/variables"),
        (f"{staging}, {production}", "environments/staging/secrets"),
        (f"{staging}, {production}", "environments/production/variables"),
    ):
        (WORKFLOWS / "live.yml").write_text(f"jobs: {{{jobs}}}", encoding="utf-8")
        delivering.requests.clear()
        assert told()[0] == "ok"
        assert f"GET {PATH}/{unused}" not in delivering.requests


def test_a_variable_is_no_secret(delivering: FakeGitHub) -> None:
    delivering.secrets.remove("KEY")
    delivering.variables["KEY"] = "1"
    delivering.variables.pop("IMAGE")
    delivering.secrets.append("IMAGE")
    assert told() == ("skipped", "not set: IMAGE, secret KEY")


def test_reads_every_page_of_variables(delivering: FakeGitHub) -> None:
    delivering.variables = {f"V{number}": "1" for number in range(70)} | delivering.variables
    assert told()[0] == "ok"


def test_an_environment_that_is_not_there_sets_nothing(delivering: FakeGitHub) -> None:
    delivering.environments.clear()
    assert told()[0] == "ok"
    no_settings(delivering)
    assert told()[0] == "skipped"


def test_the_name_of_an_environment_may_have_a_slash(delivering: FakeGitHub) -> None:
    text = DELIVER.replace("environment: staging", "environment: eu/staging")
    (WORKFLOWS / "live.yml").write_text(text, encoding="utf-8")
    delivering.environments["eu/staging"] = delivering.environments.pop("staging")
    found = named("environment eu/staging", check_github(Path()))
    assert (found.status, found.detail) == ("ok", "from main only")
    delivering.environments["eu/staging"].variables["PRODUCTION_URL"] = "1"
    del delivering.variables["PRODUCTION_URL"]
    assert told()[0] == "ok"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("actions/variables", "variables and secrets"),
        ("actions/secrets", "variables and secrets"),
        ("actions/organization-variables", "variables and secrets"),
        ("actions/organization-secrets", "variables and secrets"),
        ("environments/staging/variables", "variables and secrets"),
        ("environments/production/secrets", "variables and secrets"),
        ("environments/production", "environment production"),
        ("environments/staging/deployment-branch-policies", "environment staging"),
    ],
)
def test_says_who_may_see_what_workflows_are_told(
    delivering: FakeGitHub, path: str, name: str
) -> None:
    delivering.refusals[f"GET {PATH}/{path}"] = (403, "Resource not accessible", {})
    found = {check.name: check for check in check_github(Path())}
    assert {n for n, check in found.items() if check.status != "ok"} == {name}
    assert found[name].status == "skipped"
    assert "Resource not accessible" in found[name].detail
    assert found[name].remedy == "let an administrator of the repository run `make doctor`"


def policy(
    name: str, allowed: dict[str, bool] | None, *patterns: str
) -> Callable[[FakeGitHub], None]:
    def change(fake: FakeGitHub) -> None:
        kinds = [pattern.split(" ") for pattern in patterns]
        fake.environments[name].policies = [{"type": kind, "name": n} for kind, n in kinds]
        fake.environments[name].policy = allowed

    return change


def nobody_before_production(fake: FakeGitHub) -> None:
    fake.environments["production"].reviewers = []


def unprotected(fake: FakeGitHub) -> None:
    fake.environments["production"].policy = PROTECTED
    fake.protected_branches = []


def all_open(fake: FakeGitHub) -> None:
    fake.environments["production"] = Environment()


def no_environment(fake: FakeGitHub) -> None:
    fake.environments.clear()


PEOPLE = "Settings, Environments, production, Required reviewers"
MAIN = "Deployment branches and tags: main"


@pytest.mark.parametrize(
    ("defect", "name", "status", "detail", "remedy"),
    [
        (
            nobody_before_production,
            "environment production",
            "skipped",
            "nobody is asked before production",
            PEOPLE,
        ),
        (
            policy("production", None),
            "environment production",
            "warn",
            "every branch may deploy to it",
            f"Settings, Environments, production, {MAIN}",
        ),
        (
            policy("staging", None),
            "environment staging",
            "warn",
            "every branch may deploy to it",
            f"Settings, Environments, staging, {MAIN}",
        ),
        (
            all_open,
            "environment production",
            "warn",
            "nobody is asked before production; every branch may deploy to it",
            f"{PEOPLE} and {MAIN}",
        ),
        (
            unprotected,
            "environment production",
            "warn",
            "every branch may deploy to it: it is for protected ones, and there is none",
            f"Settings, Environments, production, {MAIN}",
        ),
        (
            policy("staging", SELECTED, "branch main", "branch release/*", "tag v*"),
            "environment staging",
            "warn",
            "branch release/*, tag v* may deploy to it",
            f"Settings, Environments, staging, {MAIN} only",
        ),
        (
            policy("staging", SELECTED, "tag main"),
            "environment staging",
            "warn",
            "tag main may deploy to it",
            f"Settings, Environments, staging, {MAIN} only",
        ),
        (
            policy("staging", SELECTED),
            "environment staging",
            "fail",
            "no branch may deploy to it",
            f"Settings, Environments, staging, {MAIN}",
        ),
        (
            no_environment,
            "environment production",
            "skipped",
            "not there yet: the first job that names it makes it, open to every branch",
            "`make github-setup APPLY=1` makes it, for the default branch only",
        ),
    ],
)
def test_finds_each_defect_of_environments(
    delivering: FakeGitHub,
    defect: Callable[[FakeGitHub], None],
    name: str,
    status: str,
    detail: str,
    remedy: str,
) -> None:
    defect(delivering)
    found = named(name, check_github(Path()))
    assert (found.status, found.detail, found.remedy) == (status, detail, remedy)


@pytest.mark.parametrize(
    ("change", "name", "detail"),
    [
        (policy("staging", PROTECTED), "staging", "from protected branches only"),
        (
            policy("production", PROTECTED),
            "production",
            "asks @team/owners, @ada, from protected branches only",
        ),
    ],
)
def test_protected_branches_are_enough(
    delivering: FakeGitHub, change: Callable[[FakeGitHub], None], name: str, detail: str
) -> None:
    change(delivering)
    found = named(f"environment {name}", check_github(Path()))
    assert (found.status, found.detail, found.remedy) == ("ok", detail, "")


def test_the_default_branch_may_have_another_name(delivering: FakeGitHub) -> None:
    delivering.facts["default_branch"] = "trunk"
    # An older GitHub Enterprise Server knows branches only, and says no type.
    delivering.environments["staging"].policies = [{"name": "trunk"}]
    found = {check.name: check for check in check_github(Path())}
    assert found["environment staging"].detail == "from trunk only"
    assert found["environment production"].detail == "branch main may deploy to it"
    assert found["environment production"].remedy.endswith("tags: trunk only")


def test_says_whom_any_environment_asks(delivering: FakeGitHub) -> None:
    delivering.environments["staging"].reviewers = [PERSON]
    assert named("environment staging", check_github(Path())).detail == "asks @ada, from main only"


@pytest.mark.parametrize(
    ("visibility", "detail"),
    [
        (
            "private",
            "nobody is asked before production (required reviewers take a public repository or "
            "GitHub Enterprise); every branch may deploy to it (to limit it takes a public "
            "repository or a paid plan)",
        ),
        ("internal", "nobody is asked before production; every branch may deploy to it"),
    ],
)
def test_says_which_plan_protection_takes(
    delivering: FakeGitHub, visibility: str, detail: str
) -> None:
    delivering.facts.update(private=True, visibility=visibility)
    all_open(delivering)
    found = named("environment production", check_github(Path()))
    assert (found.status, found.detail) == ("warn", detail)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"jobs: [", "cannot be read: while parsing"),
        (b"\xff", "cannot be read: "),
        (b"", "is empty, or is no mapping"),
        (b"[]", "is empty, or is no mapping"),
        (b"jobs: 1", "jobs: must map names to jobs"),
        (b"jobs: {a: [[b, c]]}", "jobs: must map names to jobs"),
    ],
)
@pytest.mark.parametrize("file", [WORKFLOWS / "broken.yaml", ACTIONS / "broken" / "action.yml"])
def test_names_a_workflow_that_cannot_be_read(
    delivering: FakeGitHub, file: Path, text: bytes, detail: str
) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text)
    found = {check.name: check for check in check_github(Path())}
    assert found["workflows"].status == "fail"
    assert found["workflows"].detail.startswith(f"{file}: {detail}")
    assert "\n" not in found["workflows"].detail
    assert "correct the file" in found["workflows"].remedy
    assert not set(SETTINGS) & found.keys()


def test_says_what_to_write_into_codeowners(github: FakeGitHub) -> None:
    an_exception_too_many(github)
    remedy = named("code owners", check_github(Path())).remedy
    assert "take line 4 (`*.lock`) away and take line 5 (`/params.yaml`) away" in remedy
    owners_of_few(github)
    remedy = named("code owners", check_github(Path())).remedy
    assert "write `* @org/team` above all other lines" in remedy


def test_an_exception_may_not_hold_the_landed_files(github: FakeGitHub) -> None:
    params = Path("params.yaml")
    Path("docs").mkdir()
    Path("docs/flights.csv").touch()
    git("add", "docs")
    assert named("code owners", check_github(Path())).status == "ok"
    params.write_text(
        "task: classification\ntarget: late\ndata: {source: docs}\n"
        "train: {estimator: a.B}\nevaluate: {metrics: [roc_auc]}\n",
        encoding="utf-8",
    )
    found = named("code owners", check_github(Path()))
    assert "nobody is asked about docs/flights.csv" in found.detail
