"""What protects a generated project on GitHub: rulesets, owners, Dependabot, dependency review.

What GitHub itself does with these files cannot be run here. So each is held against its schema and
against the rest of the project, and each check is shown a defect.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bake, Run, generate
from pytest_httpserver import HTTPServer
from workflow_rules import Document, read, stage_inputs

from gitops_ml.core.judge_files import NOT_THERE_YET, is_read
from gitops_ml.doctor.github import check_owned
from gitops_ml.github.codeowners import (
    CODEOWNERS,
    deciding_entry,
    fill_in,
    parse_codeowners,
    without_owner,
)

GITHUB_ACTIONS_APP = 15368
REVIEW = "dependency-review.yml"
DEPENDABOT = Path(".github/dependabot.yml")


@pytest.fixture(scope="module")
def project(
    template: Path, tmp_path_factory: pytest.TempPathFactory, env_without_uv: Mapping[str, str]
) -> Path:
    """A generated project; not to be changed."""
    return generate(template, tmp_path_factory.mktemp("github"), env_without_uv)


def ruleset(project: Path, name: str = "main") -> dict[str, Any]:
    text = (project / ".github" / "rulesets" / f"{name}.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def rules(project: Path) -> dict[str, dict[str, Any]]:
    return {rule["type"]: rule.get("parameters", {}) for rule in ruleset(project)["rules"]}


def workflow(project: Path, name: str) -> Document:
    return read(project / ".github" / "workflows" / name)


def check_names(project: Path, event: str) -> set[str]:
    """The names under which the jobs of an event are reported."""
    found = set()
    for path in (project / ".github" / "workflows").glob("*.yml"):
        document = workflow(project, path.name)
        if event in document["on"]:
            found |= {job.get("name", key) for key, job in document["jobs"].items()}
    return found


def test_the_ruleset_protects_the_default_branch_from_everybody(project: Path) -> None:
    document = ruleset(project)
    assert document.keys() == {
        "name", "target", "enforcement", "bypass_actors", "conditions", "rules",
    }  # fmt: skip
    assert document["target"] == "branch"
    assert document["enforcement"] == "active"
    assert document["bypass_actors"] == []
    assert document["conditions"] == {
        "ref_name": {
            "include": ["~DEFAULT_BRANCH", "refs/heads/hotfix/**"],
            "exclude": [],
        }
    }


def test_the_ruleset_asks_for_a_reviewed_and_green_pull_request(project: Path) -> None:
    found = rules(project)
    assert found.keys() == {
        "deletion", "non_fast_forward", "required_linear_history", "pull_request",
        "required_status_checks",
    }  # fmt: skip
    assert found["pull_request"] == {
        "allowed_merge_methods": ["squash"],
        "dismiss_stale_reviews_on_push": True,
        "require_code_owner_review": True,
        "require_last_push_approval": True,
        "required_approving_review_count": 1,
        "required_review_thread_resolution": False,
    }
    assert found["required_status_checks"]["strict_required_status_checks_policy"] is True


def test_the_environment_branches_cannot_be_erased_and_can_be_pushed(project: Path) -> None:
    assert ruleset(project, "environments") == {
        "name": "environments",
        "target": "branch",
        "enforcement": "active",
        "bypass_actors": [],
        "conditions": {"ref_name": {"include": ["refs/heads/env/**"], "exclude": []}},
        # Nobody may, not even a delivery.
        "rules": [{"type": "deletion"}, {"type": "non_fast_forward"}],
    }


def test_only_a_delivery_may_push_to_the_environment_branches(project: Path) -> None:
    """By its deploy key: no other actor is the delivery's alone, in a person's repository too."""
    assert ruleset(project, "deliveries") == {
        "name": "deliveries",
        "target": "branch",
        "enforcement": "active",
        "bypass_actors": [{"actor_id": None, "actor_type": "DeployKey", "bypass_mode": "always"}],
        "conditions": {"ref_name": {"include": ["refs/heads/env/**"], "exclude": []}},
        "rules": [{"type": "creation"}, {"type": "update"}],
    }


def test_a_release_stays_where_it_was_published(project: Path) -> None:
    assert ruleset(project, "releases") == {
        "name": "releases",
        "target": "tag",
        "enforcement": "active",
        "bypass_actors": [],
        "conditions": {"ref_name": {"include": ["refs/tags/release-*"], "exclude": []}},
        "rules": [{"type": "deletion"}, {"type": "non_fast_forward"}, {"type": "update"}],
    }


def owned(project: Path) -> Path:
    """The project with an owner for all that waits for one."""
    file = project / CODEOWNERS
    file.write_text(fill_in(file.read_text(encoding="utf-8"), "@team/ml"), encoding="utf-8")
    return project


def unowned(project: Path, paths: Iterable[str]) -> set[str]:
    entries = parse_codeowners((project / CODEOWNERS).read_text(encoding="utf-8"))
    found = {path: deciding_entry(entries, path) for path in paths}
    return {path for path, entry in found.items() if entry is None or not entry.owners}


@pytest.mark.parametrize("target", ["kubernetes", "host", "bentocloud", "none"])
def test_everything_has_an_owner_but_a_few_files_for_people(bake: Bake, target: str) -> None:
    project = owned(bake(deploy_target=target))
    files = [p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()]
    free = {path for path in files if path.startswith("docs/")}
    assert unowned(project, files) == {"README.md", "data/README.md", *free}
    assert unowned(project, NOT_THERE_YET) == set()
    assert check_owned(project).status == "ok"


def test_each_exception_says_why(project: Path) -> None:
    lines = (project / CODEOWNERS).read_text(encoding="utf-8").partition("*\n")[2].splitlines()
    exceptions = [line.partition("#") for line in lines if line and not line.startswith("#")]
    patterns = [pattern.strip() for pattern, _, _ in exceptions]
    assert patterns == ["/README.md", "/docs/", "/notebooks/", "/data/README.md"]
    assert all(reason.strip() for _, _, reason in exceptions)
    # An owner that does not exist is a gate that cannot bite: github-setup writes a real one.
    assert [entry.pattern for entry in without_owner("\n".join(["*", *lines]))] == ["*"]


def test_locks_are_shown_in_a_pull_request_and_end_lines_alike(bake: Bake, run: Run) -> None:
    project = bake()
    ask = ["git", "check-attr", "linguist-generated", "text", "eol", "--", "uv.lock", "dvc.lock"]
    assert run(ask, project, check=True).stdout.splitlines() == [
        f"{name}: {attribute}: {value}"
        for name in ("uv.lock", "dvc.lock")
        for attribute, value in (("linguist-generated", "unset"), ("text", "auto"), ("eol", "lf"))
    ]


def read_or_run(project: Path) -> set[str]:
    """What the stages, their tools and the workflows read and run, as their own files say."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))
    named = set(stage_inputs(stages, "data/landed")) - {"reports/any"}
    inputs = {f"{name}/new.py" if (project / name).is_dir() else name for name in named}
    below = [".dvc", ".github", "engine", "src", "tests"]
    files = {
        path.relative_to(project).as_posix()
        for folder in below
        for path in (project / folder).rglob("*")
        if path.is_file()
    }
    return inputs | files | {"Makefile", "pyproject.toml", "uv.lock", "reports/gate.json"}


def test_what_is_read_or_run_is_owned_and_doctor_would_see_it_otherwise(bake: Bake) -> None:
    project = owned(bake())
    paths = read_or_run(project)
    assert len(paths) > 100
    assert unowned(project, paths) == set()
    assert {path for path in paths if not is_read(path)} == set()


@pytest.mark.parametrize(
    "exception",
    ["*.py", "/src/", "*.lock", "/reports/", "/.github/workflows/", "/engine/README.md", "/tests/*",
     "params.yaml", "/data/", "*.yaml", "**", "/*", ".*", "/data/landed/*.parquet", "Makefile",
     "/src/flight_delays/features.py", "*.toml", "*.json", "/.dvc/config"],
)  # fmt: skip
def test_doctor_names_an_exception_that_is_read_or_run(bake: Bake, exception: str) -> None:
    project = owned(bake())
    file = project / CODEOWNERS
    lines = file.read_text(encoding="utf-8").count("\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{exception}  # in a hurry\n")
    found = check_owned(project)
    assert found.status == "fail"
    assert "which the gate reads or runs" in found.detail
    assert f"take line {lines + 1} (`{exception}`) away" in found.remedy


@pytest.mark.parametrize("target", ["kubernetes", "bentocloud"])
def test_the_delivery_key_is_told_to_what_pushes_in_an_environment_and_to_nothing_else(
    bake: Bake, target: str
) -> None:
    project = bake(deploy_target=target)
    told = {
        (name, job, step["run"].split()[1])
        for name in ("deliver.yml", "rollback.yml")
        for job, content in workflow(project, name)["jobs"].items()
        for step in content["steps"]
        if "DELIVERY_KEY" in step.get("env", {}) and content.get("environment")
    }
    assert told == {
        ("deliver.yml", "staging", "release"), ("deliver.yml", "staging", "revert"),
        ("deliver.yml", "production", "release"), ("deliver.yml", "production", "revert"),
        ("rollback.yml", "rollback", "rollback"),
    }  # fmt: skip
    texts = [path.read_text() for path in (project / ".github").rglob("*.yml")]
    assert sum(text.count("secrets.DELIVERY_KEY") for text in texts) == len(told)


@pytest.mark.parametrize("target", ["kubernetes", "host", "bentocloud", "none"])
def test_only_a_project_that_delivers_protects_environment_branches(
    bake: Bake, target: str
) -> None:
    project = bake(deploy_target=target)
    files = {path.name for path in (project / ".github" / "rulesets").iterdir()}
    delivers = {"deliveries.json", "environments.json", "releases.json"}
    expected = {"main.json"} if target == "none" else {"main.json", *delivers}
    assert files == expected
    pages = [page.read_text(encoding="utf-8") for page in (project / "docs").glob("*.md")]
    lines = [line for page in pages for line in page.splitlines()]
    rows = [line for line in lines if line.startswith("| `.github/rulesets/")]
    assert {row.split("`")[1].rpartition("/")[2] for row in rows} == expected


@pytest.mark.parametrize("event", ["pull_request", "merge_group"])
def test_each_required_check_is_the_name_of_a_job(project: Path, event: str) -> None:
    required = rules(project)["required_status_checks"]["required_status_checks"]
    assert {check["context"] for check in required} == {"all-green", "dependency-review"}
    assert {check["context"] for check in required} <= check_names(project, event)
    # Anybody who may write can post a status of any name; only a workflow runs as this app.
    assert {check["integration_id"] for check in required} == {GITHUB_ACTIONS_APP}


@pytest.mark.parametrize(
    ("target", "ships"),
    [("kubernetes", True), ("host", True), ("bentocloud", False), ("none", False)],
)
def test_dependabot_renews_the_base_image_where_there_is_one(
    bake: Bake, target: str, ships: bool
) -> None:
    project = bake(deploy_target=target)
    updates = yaml.safe_load((project / DEPENDABOT).read_text(encoding="utf-8"))["updates"]
    folders = {one["package-ecosystem"]: one.get("directory") for one in updates}
    assert folders.get("docker") == ("/deploy/image" if ships else None)
    assert (project / "deploy" / "image" / "Dockerfile").is_file() == ships
    assert {"github-actions", "uv"} <= folders.keys()


def lint(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def schema(name: str, path: Path) -> subprocess.CompletedProcess[str]:
    return lint("check-jsonschema", "--builtin-schema", f"vendor.{name}", path)


def zizmor(path: Path) -> subprocess.CompletedProcess[str]:
    return lint("zizmor", "--offline", "--quiet", path)


def actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    return lint("actionlint", path)


def dependabot_schema(path: Path) -> subprocess.CompletedProcess[str]:
    return schema("dependabot", path)


def workflow_schema(path: Path) -> subprocess.CompletedProcess[str]:
    return schema("github-workflows", path)


Linter = Callable[[Path], subprocess.CompletedProcess[str]]
REVIEW_PATH = Path(".github/workflows") / REVIEW


@pytest.mark.parametrize(
    ("linter", "path", "good", "bad"),
    [
        (dependabot_schema, DEPENDABOT, "interval: weekly", "interval: fortnightly"),
        (zizmor, DEPENDABOT, "default-days: 7", "default-days: 1"),
        (workflow_schema, REVIEW_PATH, "runs-on:", "run-on:"),
        (actionlint, REVIEW_PATH, "steps.graph.outputs", "steps.grph.outputs"),
        (zizmor, REVIEW_PATH, "@2031cfc080254a8a887f58cffee85186f0e49e48", "@v4"),
        (zizmor, REVIEW_PATH, '"$status" = 403', '"${{ github.head_ref }}" = 403'),
    ],
)  # fmt: skip
def test_linters_find_nothing_but_what_is_planted(
    project: Path, tmp_path: Path, linter: Linter, path: Path, good: str, bad: str
) -> None:
    text = (project / path).read_text(encoding="utf-8")
    copy = tmp_path / path
    copy.parent.mkdir(parents=True)
    copy.write_text(text, encoding="utf-8")
    clean = linter(copy)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert good in text
    copy.write_text(text.replace(good, bad), encoding="utf-8")
    assert linter(copy).returncode != 0


def test_dependabot_sees_every_dependency_weekly_and_not_at_once(project: Path) -> None:
    updates = yaml.safe_load((project / DEPENDABOT).read_text(encoding="utf-8"))["updates"]
    by_kind = {update["package-ecosystem"]: update for update in updates}
    assert by_kind.keys() == {"docker", "github-actions", "uv"}
    for kind, update in by_kind.items():
        assert update["schedule"]["interval"] == "weekly"
        assert update["cooldown"]["default-days"] >= 7
        # There is one base image, and another Python for it is no update of its own.
        assert bool(update.get("groups")) == (kind != "docker")
        assert bool(update.get("ignore")) == (kind == "docker")
    assert by_kind["uv"]["directory"] == "/"
    # `/` stands for .github/workflows; composite actions are found where they are listed only.
    assert by_kind["github-actions"]["directories"] == ["/", "/.github/actions/*"]
    actions = {path.parent.parent for path in project.rglob("action.yml")}
    assert actions == {project / ".github" / "actions"}


def test_dependency_review_reads_and_can_do_no_more(project: Path) -> None:
    document = workflow(project, REVIEW)
    assert document["on"].keys() == {"pull_request", "merge_group"}
    assert document["permissions"] == {}
    (job,) = document["jobs"].values()
    assert job["permissions"] == {"contents": "read"}
    assert job["timeout-minutes"] <= 10
    assert "if" not in job
    assert "continue-on-error" not in str(document)
    ask, review = job["steps"]
    assert review["if"] == f"steps.{ask['id']}.outputs.available == 'true'"
    assert review["uses"].startswith("actions/dependency-review-action@")


@pytest.fixture
def ask(project: Path, tmp_path: Path, httpserver: HTTPServer) -> Callable[[], Any]:
    """Run the step that asks GitHub; its exit code, outputs, summary and what it printed."""
    step = workflow(project, REVIEW)["jobs"]["dependency-review"]["steps"][0]

    def run_step() -> tuple[int, str, str, str]:
        output, summary = tmp_path / "output", tmp_path / "summary"
        output.touch()
        summary.touch()
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(summary),
                "GITHUB_API_URL": httpserver.url_for("").rstrip("/"),
                "GITHUB_REPOSITORY": "acme/late",
                "GITHUB_TOKEN": "secret-token",
                "BASE": "a" * 40,
                "HEAD": "b" * 40,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert "secret-token" not in printed
        return done.returncode, output.read_text(), summary.read_text(), printed

    return run_step


def answer(server: HTTPServer, status: int, message: str) -> None:
    path = f"/repos/acme/late/dependency-graph/compare/{'a' * 40}...{'b' * 40}"
    headers = {"Authorization": "Bearer secret-token"}
    server.expect_request(path, headers=headers).respond_with_json({"message": message}, status)


def test_dependencies_are_reviewed_where_github_can(
    ask: Callable[[], Any], httpserver: HTTPServer
) -> None:
    answer(httpserver, 200, "")
    code, output, summary, _ = ask()
    assert (code, output, summary) == (0, "available=true\n", "")


def test_a_repository_without_a_dependency_graph_is_told_so(
    ask: Callable[[], Any], httpserver: HTTPServer
) -> None:
    answer(httpserver, 403, "Dependency review is not supported on this repository.")
    code, output, summary, printed = ask()
    assert (code, output) == (0, "available=false\n")
    for said in (summary, printed):
        assert "Skipped: this repository has no dependency review" in said
        assert "`make github-setup APPLY=1`" in said
    assert "::warning title=Dependency review skipped::" in printed


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "API rate limit exceeded"), (404, "Not Found"), (401, "Bad credentials")],
)
def test_any_other_answer_is_no_reason_to_skip(
    ask: Callable[[], Any], httpserver: HTTPServer, status: int, message: str
) -> None:
    answer(httpserver, status, message)
    code, output, _, printed = ask()
    assert (code, output) == (1, "")
    assert f"GitHub answered with status {status}" in printed
    assert message in printed


@pytest.mark.slow
def test_doctor_and_github_setup_run_in_a_new_project(bake: Bake, project_run: Run) -> None:
    project = bake()
    done = project_run(project, "gitops-ml", "doctor", "--json")
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert {name: c["detail"] for name, c in found.items() if c["status"] == "fail"} == {
        # The hook found no uv.
        "uv.lock": "not there"
    }
    rulesets = "main.json, deliveries.json, environments.json, releases.json"
    assert found["rulesets"]["detail"] == rulesets
    assert found["required checks"]["detail"] == "all-green, dependency-review"
    assert found["GitHub"]["status"] == "skipped"
    assert done.returncode == 1

    pipeline = project / ".github" / "workflows" / "pipeline.yml"
    text = pipeline.read_text(encoding="utf-8")
    pipeline.write_text(text.replace("name: all-green", "name: green"), encoding="utf-8")
    done = project_run(project, "gitops-ml", "doctor")
    assert "no job that runs on pull requests is named all-green" in done.stdout

    done = project_run(project, "make", "github-setup")
    assert done.returncode != 0
    assert "there is no git remote `origin`" in done.stderr
    assert "Traceback" not in done.stderr
