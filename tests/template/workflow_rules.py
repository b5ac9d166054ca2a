"""What GitHub workflows and Makefiles must keep to, as functions that list the faults.

A rule takes a parsed document, so that a test can weaken a copy and see the rule object.
"""

from __future__ import annotations

import copy
import itertools
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

REQUIRED_JOB = "all-green"
RESULTS = ("success", "failure", "cancelled", "skipped")

TASK = re.compile(r"make [a-z][a-z-]*(?: [A-Z]+=[\w.:/-]+)*")
SECRET = re.compile(r"\$\{\{[^}]*(?:secrets|github\.token)\b")
# A failure is swallowed, or the shell is told to go on after one.
SWALLOWS = re.compile(
    r"\|\| *(?:true|:|exit 0)(?!\w)|; *(?:true|:|exit 0) *$|set \+e", re.MULTILINE
)
# Variables by which a shell, make or pytest does something else than its arguments say.
STEERING = {"BASH_ENV", "GNUMAKEFLAGS", "MAKEFILES", "MAKEFLAGS", "MFLAGS", "PYTEST_ADDOPTS"}


@dataclass(frozen=True)
class Allowed:
    """What is allowed because it is named.

    Attributes:
        pins: The commit and the tag of each action.
        writes: The scopes that a job may write, by `file/job`.
        commands: Commands that are no task of make, by `file/job/step`; None for a longer script.
    """

    pins: Mapping[str, tuple[str, str]]
    writes: Mapping[str, Collection[str]]
    commands: Mapping[str, str | None]


def parse(text: str) -> Document:
    # YAML 1.1 reads the key `on` as the boolean true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(text).items()}


def read(path: Path) -> Document:
    return parse(path.read_text(encoding="utf-8"))


def _find(document: Document, path: str) -> tuple[Any, Any]:
    """The container and the key that a path leads to; a step is given by number or by name."""
    *parents, last = path.split("/")
    place: Any = document
    for key in parents:
        place = place[_key(place, key)]
    return place, _key(place, last)


def _key(place: Any, key: str) -> Any:
    if not isinstance(place, list):
        return key
    return int(key) if key.isdigit() else [step.get("name") for step in place].index(key)


def set_in(document: Document, path: str, value: Any) -> Document:
    """A copy with another value at `jobs/model/steps/Gate/run`."""
    changed = copy.deepcopy(document)
    container, key = _find(changed, path)
    container[key] = value
    return changed


def drop_in(document: Document, path: str) -> Document:
    """A copy without what is at the path."""
    changed = copy.deepcopy(document)
    container, key = _find(changed, path)
    del container[key]
    return changed


def label(step: Mapping[str, Any]) -> str:
    return str(step.get("name") or step.get("run") or step["uses"].partition("@")[0])


def action_of(step: Mapping[str, Any]) -> str:
    return str(step.get("uses", "")).partition("@")[0]


def steps_of(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every step of a workflow or a composite action with its job; that of an action is `runs`."""
    jobs = document["jobs"] if "jobs" in document else {"runs": document["runs"]}
    for name, job in jobs.items():
        for step in job.get("steps", []):
            yield name, step


# Every workflow and action


def faults(
    name: str, document: Document, allowed: Allowed, variables: Collection[str]
) -> list[str]:
    """What breaks the rules for all workflows and actions.

    Args:
        name: The file's name.
        document: What is in it.
        allowed: The exceptions.
        variables: The names of variables that the Makefile reads.
    """
    found = []
    if "jobs" in document:
        found += top_faults(document)
        for job, content in document["jobs"].items():
            found += job_faults(job, content, allowed.writes.get(f"{name}/{job}", ()))
            found += restored_faults(job, content)
    for job, step in steps_of(document):
        where = f"{job}/{label(step)}"
        found += step_faults(where, step)
        if "run" in step:
            exception = allowed.commands.get(f"{name}/{where}", "")
            found += command_faults(where, step["run"], exception)
    return found + leaks(document) + steering_faults(document, variables)


def top_faults(workflow: Document) -> list[str]:
    found = []
    if workflow.get("permissions") != {}:
        found.append("permissions for all")
    if "pull_request_target" in workflow["on"]:
        found.append("pull_request_target")
    # What starts nothing by itself may run at once; who writes must take turns.
    jobs = workflow["jobs"].values()
    queued = [job for job in jobs if _is_queue(job.get("concurrency"))]
    if not _is_queue(workflow.get("concurrency")) and not queued:
        found.append("no concurrency")
    return found


def _is_queue(concurrency: Any) -> bool:
    return isinstance(concurrency, dict) and concurrency.keys() >= {"group", "cancel-in-progress"}


def job_faults(name: str, job: Mapping[str, Any], writes: Collection[str]) -> list[str]:
    found = []
    permissions = job.get("permissions")
    if not isinstance(permissions, dict):
        found.append(f"{name}: permissions are not listed")
    else:
        found += [
            f"{name}: may write {scope}"
            for scope, access in permissions.items()
            if access not in ("read", "none") and scope not in writes
        ]
    if "continue-on-error" in job:
        found.append(f"{name}: continues on errors")
    # A job that calls a workflow ends when that workflow's jobs do. GitHub's default is 360.
    minutes = job.get("timeout-minutes", 0)
    if "uses" not in job and not (isinstance(minutes, int) and 0 < minutes < 360):
        found.append(f"{name}: no timeout")
    return found


def restored_faults(name: str, job: Mapping[str, Any]) -> Iterator[str]:
    """What comes from other runs into a job that may write, or is told a secret of its own.

    Every run on the default branch can fill a cache that a later one restores.
    """
    permissions = job.get("permissions")
    writes = isinstance(permissions, dict) and "write" in permissions.values()
    told = any("secrets." in text for _, text in _texts(job))
    if not (writes or told or "environment" in job):
        return
    for step in job.get("steps", []):
        options, action = step.get("with", {}), action_of(step)
        key = {"astral-sh/setup-uv": "enable-cache", SETUP: "cache"}.get(action)
        cached = action in ("actions/cache", RESTORE) and options.get("lookup-only") is not True
        if cached or (key and _on(options.get(key, True))):
            yield f"{name}/{label(step)}: restores what others left in a job that may write"


def _on(value: Any) -> bool:
    return str(value).lower() != "false"


def step_faults(where: str, step: Mapping[str, Any]) -> list[str]:
    found = []
    if "continue-on-error" in step:
        found.append(f"{where}: continues on errors")
    options = step.get("with", {})
    if action_of(step) == "actions/checkout" and options.get("persist-credentials") is not False:
        found.append(f"{where}: keeps credentials")
    if step.get("shell", "bash") != "bash":
        found.append(f"{where}: another shell")
    return found


def command_faults(where: str, command: str, exception: str | None) -> list[str]:
    found = []
    if "${{" in command:
        found.append(f"{where}: expression in the command")
    if SWALLOWS.search(command):
        found.append(f"{where}: swallows errors")
    if "<<" in command:
        found.append(f"{where}: heredoc")
    allowed = exception is None or command == exception or TASK.fullmatch(command)
    if not found and not allowed:
        found.append(f"{where}: is not one task of make")
    return found


def leaks(document: Document) -> list[str]:
    """Secrets in other places than the environment of one step."""
    return [
        f"secret in {'/'.join(path)}"
        for path, text in _texts(document)
        if (SECRET.search(text) and path[-4::2] != ("steps", "env"))
        or (path[-1] == "secrets" and text == "inherit")
    ]


def _texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, (*path, str(key)))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, (*path, str(number)))
    elif isinstance(value, str):
        yield path, value


def steering_faults(document: Document, variables: Collection[str]) -> list[str]:
    """Variables by which a command does something else than it says."""
    places = [("the workflow", document, True)]
    places += [(name, job, True) for name, job in document.get("jobs", {}).items()]
    places += [
        (f"{job}/{label(step)}", step, str(step.get("run", "")).startswith("make "))
        for job, step in steps_of(document)
    ]
    found = [
        f"{where}: {name} steers the commands"
        for where, place, makes in places
        for name in place.get("env", {})
        if name in STEERING or (makes and name in variables)
    ]
    return found + [f"{where}: another shell" for where, p, _ in places if "defaults" in p]


USES = re.compile(r"^\s*(?:- )?uses:\s*([^\s#]+)(?:\s+#\s*(.*))?$", re.MULTILINE)


def pin_faults(text: str, pins: Mapping[str, tuple[str, str]]) -> list[str]:
    """Actions that are not a known commit with its tag as the comment."""
    found = []
    lines = USES.findall(text)
    for used, comment in lines:
        action, _, commit = used.partition("@")
        if not action.startswith("./") and pins.get(action) != (commit, comment.strip()):
            found.append(f"{used} # {comment.strip()}")
    document = parse(text)
    called = [job["uses"] for job in document.get("jobs", {}).values() if "uses" in job]
    parsed = [step["uses"] for _, step in steps_of(document) if "uses" in step] + called
    return found + sorted(f"{used} is not on a line of its own" for used in parsed
                          if used not in [name for name, _ in lines])  # fmt: skip


# The one required job


def required_job_faults(jobs: Mapping[str, Any]) -> list[str]:
    """Whether `all-green` sees every other job, and is red unless all of them succeeded."""
    job = jobs[REQUIRED_JOB]
    others = sorted(jobs.keys() - {REQUIRED_JOB})
    found = []
    if job.get("if") != "always()":
        found.append(f"{REQUIRED_JOB}: condition")
    missing = sorted(set(others) - set(job.get("needs", [])))
    if missing:
        return [*found, *(f"{REQUIRED_JOB}: does not need {name}" for name in missing)]
    if len(job["steps"]) != 1 or "if" in job["steps"][0] or "run" not in job["steps"][0]:
        return [*found, f"{REQUIRED_JOB}: steps"]
    (step,) = job["steps"]
    env = {**job.get("env", {}), **step.get("env", {})}
    return found + list(_result_faults(step["run"], tuple(env.items()), tuple(others)))


@cache
def _result_faults(
    command: str, env: tuple[tuple[str, str], ...], jobs: tuple[str, ...]
) -> tuple[str, ...]:
    """Run the command for every combination of results."""
    found = []
    for results in itertools.product(RESULTS, repeat=len(jobs)):
        ended = dict(zip(jobs, results, strict=True))
        # GitHub puts nothing in the place of the result of a job that is not needed.
        variables = {
            key: re.sub(
                r"\$\{\{ needs\.([\w-]+)\.result \}\}",
                lambda match, ended=ended: ended.get(match[1], ""),
                value,
            )
            for key, value in env
        }
        done = subprocess.run(
            ["bash", "-e", "-c", command], env=variables, capture_output=True, check=False
        )
        good = set(results) == {"success"}
        if good and done.returncode != 0:
            found.append(f"{REQUIRED_JOB}: red though every job succeeded")
        if not good and done.returncode == 0:
            bad = ", ".join(f"{job} {end}" for job, end in ended.items() if end != "success")
            found.append(f"{REQUIRED_JOB}: green with {bad}")
    return tuple(found)


# The pipeline

TRIGGERS = {"push": {"branches-ignore": ["env/**"]}, "pull_request": None, "merge_group": None}
NEEDS = {"quality": [], "data": [], "model": ["data"], "gate": ["model"]}
CHECKOUT, SETUP = "actions/checkout", "./.github/actions/setup"
# Installs uv and nothing of the project.
SETUP_UV = "astral-sh/setup-uv"
RESTORE, SAVE = "actions/cache/restore", "actions/cache/save"
UPLOAD, DOWNLOAD = "actions/upload-artifact", "actions/download-artifact"
GATE = "make gate BASE=event ARTIFACTS=../artifacts"
# Whose engine judges: the base's; on the default branch its own. A pull request to another branch
# is judged by the default branch's, as its check also counts there.
JUDGE = (
    "${{ (github.event.pull_request.base.ref == github.event.repository.default_branch && "
    "github.event.pull_request.base.sha) || github.event.merge_group.base_sha || "
    "format('origin/{0}', github.event.repository.default_branch) }}"
)
PIPELINE_STEPS = {
    "quality": [CHECKOUT, SETUP, "make check"],
    "data": [
        CHECKOUT,
        SETUP,
        RESTORE,
        "make reproduce BASE=event STAGE=split",
        "make test-data",
        f"{UPLOAD} data-report",
    ],
    "model": [
        CHECKOUT,
        SETUP,
        RESTORE,
        "make reproduce BASE=event",
        "make verify-lock",
        "make test-model",
        "make package",
        "make smoke-bento",
        "make export-bento",
        "make push",
        SAVE,
        f"{UPLOAD} training",
        f"{UPLOAD} bento",
    ],
    # Nothing here runs the change's code before the judge does, in a process of its own.
    "gate": [
        CHECKOUT,
        SETUP_UV,
        RESTORE,
        f"{DOWNLOAD} bento",
        f"{DOWNLOAD} training",
        GATE,
        "make verify-bento",
        "make summary",
        f"{UPLOAD} report",
    ],
}
CONDITIONS = {
    "make push": "github.event_name == 'push'",
    SAVE: "always()",
    "make summary": "always()",
    f"{UPLOAD} data-report": "always()",
    f"{UPLOAD} training": "always()",
    f"{UPLOAD} report": "always()",
}


# What installs packages, or runs something that does.
INSTALLS = re.compile(r"\buv (?:sync|run|pip|tool)\b")
VERIFY_SOURCES = "make verify-sources"
# Whose settings say where packages come from: the base's, where something is proposed.
SOURCES_JUDGE = (
    "${{ (github.event.pull_request.base.ref == github.event.repository.default_branch && "
    "github.event.pull_request.base.sha) || github.event.merge_group.base_sha || "
    "(github.event_name == 'push' && "
    "format('origin/{0}', github.event.repository.default_branch)) || '' }}"
)


def setup_faults(action: Document) -> list[str]:
    """Whether the lock is verified, by the base's settings, before anything of it is installed."""
    steps = action["runs"]["steps"]
    commands = [str(step.get("run", "")) for step in steps]
    if VERIFY_SOURCES not in commands:
        return ["setup: does not verify where packages come from"]
    place = commands.index(VERIFY_SOURCES)
    found = []
    if any(INSTALLS.search(command) for command in commands[:place]):
        found.append("setup: installs before it verifies")
    if "if" in steps[place]:
        found.append("setup: verifies on a condition")
    if steps[place].get("env") != {"JUDGE": SOURCES_JUDGE}:
        found.append("setup: whose settings count")
    return found


def pipeline_faults(workflow: Document, inputs: Collection[str]) -> list[str]:
    """What breaks the rules for the pipeline.

    Args:
        workflow: The pipeline.
        inputs: Files that its stages read, as paths in the project.
    """
    found = []
    if workflow["on"] != TRIGGERS:
        found.append("triggers")
    found += concurrency_faults(workflow.get("concurrency", {}))
    jobs = workflow["jobs"]
    if jobs.keys() != {*NEEDS, REQUIRED_JOB}:
        found.append("jobs")
    for name, needs in NEEDS.items():
        job = jobs.get(name, {})
        if job.get("needs", []) != needs:
            found.append(f"{name}: needs")
        if "if" in job:
            found.append(f"{name}: condition")
        found += sequence_faults(name, job.get("steps", []))
    if jobs.get("gate", {}).get("env") != {"JUDGE": JUDGE}:
        found.append("gate: who judges")
    return found + cache_faults(workflow, inputs) + required_job_faults(jobs)


def concurrency_faults(concurrency: Mapping[str, Any]) -> list[str]:
    group = concurrency.get("group", "")
    if not all(part in group for part in ("${{ github.event_name }}", "${{ github.ref }}")):
        return ["concurrency: group"]
    if concurrency.get("cancel-in-progress") != "${{ github.event_name == 'pull_request' }}":
        return ["concurrency: cancels"]
    return []


def what_runs(step: Mapping[str, Any]) -> str:
    """The command; else the action, with the name of the artifact that it keeps."""
    if "run" in step:
        return str(step["run"])
    action = action_of(step)
    return f"{action} {step['with']['name']}" if action in (UPLOAD, DOWNLOAD) else action


def sequence_faults(job: str, steps: Collection[Mapping[str, Any]]) -> list[str]:
    """Whether a job's steps are those that it must have, in their order, on their conditions."""
    runs, expected = [what_runs(step) for step in steps], PIPELINE_STEPS[job]
    found = [f"{job}: lacks {name}" for name in expected if name not in runs]
    found += [f"{job}: also runs {name}" for name in runs if name not in expected]
    if not found and runs != expected:
        found.append(f"{job}: order")
    for step, name in zip(steps, runs, strict=True):
        if name in expected and step.get("if") != CONDITIONS.get(name):
            found.append(f"{job}: condition of {name}")
        options = step.get("with", {})
        # The base is another commit: its settings say where packages come from, its dvc.lock names
        # the champion.
        if name == CHECKOUT and options.get("fetch-depth") != 0:
            found.append(f"{job}: no history")
        if name == f"{UPLOAD} bento" and options.get("if-no-files-found") != "error":
            found.append(f"{job}: may keep no bento")
        # Files that another job wrote do not land in the repository, where git would obey some.
        if job == "gate" and action_of(step) == DOWNLOAD and options.get("path") != "../artifacts":
            found.append(f"{job}: downloads into the repository")
        # What a change's run has kept is not what the judge is made of.
        if job == "gate" and name == SETUP_UV and options.get("enable-cache") is not False:
            found.append(f"{job}: takes packages from a cache")
    return found


def cache_faults(workflow: Document, inputs: Collection[str]) -> list[str]:
    """Whether all jobs share one cache, whose key changes with every input of the stages.

    A run keeps its own entry, under the key that it restored by: the files have changed since.
    """
    restored = [step for _, step in steps_of(workflow) if action_of(step) == RESTORE]
    saved = [step for _, step in steps_of(workflow) if action_of(step) == SAVE]
    options = [step.get("with", {}) for step in restored]
    paths = {step.get("with", {}).get("path") for step in (*restored, *saved)}
    keys = {option.get("key") for option in options}
    if len(keys) != 1 or len(paths) != 1:
        return ["cache: not the same everywhere"]
    (key,) = keys
    patterns = re.findall(r"'([^']+)'", key)
    found = [
        f"cache: the key leaves out {name}"
        for name in inputs
        if not any(_matches(name, pattern) for pattern in patterns)
    ]
    if not key.endswith("-${{ github.run_id }}-${{ github.run_attempt }}"):
        found.append("cache: an earlier run's entry is in the way")
    same_inputs = key.partition("${{ github.run_id }}")[0]
    if any(
        option.get("restore-keys", "").split("\n") != [same_inputs, "dvc-", ""]
        for option in options
    ):
        found.append("cache: restores another one")
    own = {f"${{{{ steps.{step.get('id')}.outputs.cache-primary-key }}}}" for step in restored}
    if any(step["with"]["key"] not in own for step in saved):
        found.append("cache: kept under a key that nobody restores by")
    return found


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern of `hashFiles` takes in a path: `**` is any depth, `*` one part."""
    expression = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]*")
    return re.fullmatch(expression, path) is not None


def stage_inputs(dvc: Document, source: str) -> list[str]:
    """The files of the project that its stages read, and the stages' own file."""
    stages = dvc["stages"].values()
    written = {
        name
        for stage in stages
        for kind in ("outs", "metrics")
        for entry in stage.get(kind, [])
        for name in (entry if isinstance(entry, dict) else [entry])
    }
    read_files = {"dvc.yaml", "dvc.lock", "params.yaml"}
    for stage in stages:
        for name in stage["deps"]:
            read_files.add(f"{source}/any" if name == "${data.source}" else name)
        for entry in stage.get("params", []):
            read_files |= set(entry) if isinstance(entry, dict) else set()
    return sorted(
        name for name in read_files if not any(f"{name}/".startswith(f"{out}/") for out in written)
    )


# Makefiles


def makefile_variables(text: str) -> set[str]:
    return set(re.findall(r"\$[({](\w+)[)}]", text))


# With these, which are no fault, a pipe fails when any part of it does.
STRICT_SHELL = {("SHELL", "/bin/bash"), (".SHELLFLAGS", "-euo pipefail -c")}


def makefile_faults(text: str) -> list[str]:
    """Recipes, and settings for all of them, by which an error does not end the task."""
    lines = text.replace("\\\n", " ").splitlines()
    settings = [
        (match[1], match[2].strip())
        for line in lines
        if (match := re.match(r"(?:override |export )*([.\w]+)\s*[:?+!]*=(.*)", line))
    ]
    strict = set(settings) >= STRICT_SHELL
    steering = STEERING | {"SHELL", ".SHELLFLAGS"}
    found = [
        name
        for name, value in settings
        if name in steering and not (strict and (name, value) in STRICT_SHELL)
    ]
    target = ""
    for line in lines:
        if line.startswith("\t"):
            found += [f"{target}: {fault}" for fault in recipe_faults(line.strip(), strict)]
        elif match := re.match(r"([.\w-]+)\s*:(?!=)", line):
            target = match[1]
            if target in (".IGNORE", ".ONESHELL"):
                found.append(target)
    return found


def recipe_faults(recipe: str, strict: bool) -> list[str]:
    found = []
    if re.match(r"[@+\s]*-", recipe):
        found.append("ignores errors")
    if SWALLOWS.search(recipe) or re.search(r"(?<!&)& *$", recipe):
        found.append("swallows errors")
    if not strict and re.search(r"(?<!\|)\|(?!\|)", re.sub(r"'[^']*'", "", recipe)):
        found.append("hides what fails before a pipe")
    return found
