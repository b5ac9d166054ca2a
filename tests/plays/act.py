"""Run a project's workflows with act, on the loopback interface only, and read what happened.

Actions are replaced by the stand-ins in `tests/standins/`, mapped by the pinned commit, so that a
changed pin is an error. Everything else is real: the shell, git, uv, DVC, BentoML.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STANDINS = Path(__file__).parent / "standins"
ACT = Path(sys.prefix, "bin", "act")
USES = re.compile(r"uses:\s*(?P<action>[\w.-]+/[\w.-]+)(?:/[\w./-]+)?@(?P<ref>[0-9a-f]{40})")
REPOSITORY = "acme/flight_delays"


@dataclass
class ActRun:
    """What a run of a workflow did.

    Attributes:
        returncode: Of act.
        jobs: The result of each job.
        steps: The result of each step, by job.
        output: What each step printed.
        seconds: How long each job's steps took together.
        summary: What the steps wrote to the run's page.
        log: The whole log.
    """

    returncode: int
    jobs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, str]] = field(default_factory=dict)
    output: dict[tuple[str, str], str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    summary: str = ""
    log: str = ""

    def said(self, job: str, step: str) -> str:
        """What one step printed."""
        return self.output.get((job, step), "")

    def failed_steps(self) -> list[tuple[str, str]]:
        """The steps that failed, by job."""
        return [
            (job, step)
            for job, steps in self.steps.items()
            for step, result in steps.items()
            if result == "failure"
        ]

    def explain(self) -> str:
        """What the failed steps printed, or else the end of the log."""
        said = [
            f"{job}: {step}:\n{self.said(job, step)[-3000:]}" for job, step in self.failed_steps()
        ]
        return "\n".join(said) or self.log[-4000:]


def mapped_actions(checkout: Path) -> list[str]:
    """The options that map every action that the workflows pin to its stand-in."""
    options: dict[str, Path] = {}
    for path in sorted((checkout / ".github").rglob("*.yml")):
        for found in USES.finditer(path.read_text(encoding="utf-8")):
            standin = STANDINS / found["action"].partition("/")[2]
            if standin.is_dir():
                options[f"{found['action']}@{found['ref']}"] = standin
    return [part for k, v in options.items() for part in ("--local-repository", f"{k}={v}")]


def run_act(
    event: str,
    payload: Mapping[str, Any],
    *,
    checkout: Path,
    workflow: str,
    ref: str,
    origin: Path,
    scratch: Path,
    env: Mapping[str, str],
    variables: Mapping[str, str] | None = None,
    token: str | None = "token",
    secrets: Mapping[str, str] | None = None,
    api: str = "http://127.0.0.1:9",
    job: str | None = None,
    timeout: float = 1800,
) -> ActRun:
    """Run one workflow for one event.

    Args:
        checkout: A clone at the commit whose workflows run.
        ref: The full name of the ref, in `origin`, that the jobs check out.
        scratch: Folder of this repository's caches (`cache/`) and of this run's artifacts.
        api: Where GitHub's API is played.
        token: The token of the run; None as in a run that may not have one.
        job: Run this job and what it needs, and no other.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    event_file = scratch / "event.json"
    event_file.write_text(json.dumps(payload), encoding="utf-8")
    standin = {
        "STANDIN_ORIGIN": str(origin),
        "STANDIN_REF": ref,
        "STANDIN_CACHE": str(scratch / "cache"),
        "STANDIN_ARTIFACTS": str(scratch / "artifacts"),
        "GITHUB_API_URL": api,
        "GITHUB_REPOSITORY": REPOSITORY,
        "BENTOML_HOME": str(scratch / "bentoml"),
        "DVC_SITE_CACHE_DIR": str(scratch / "dvc-site"),
    }
    command = [
        str(ACT), event, "--workflows", f".github/workflows/{workflow}",
        "--eventpath", str(event_file), "--platform", "ubuntu-latest=-self-hosted",
        "--pull=false", "--action-offline-mode", "--container-daemon-socket", "-",
        "--action-cache-path", str(scratch / "act"), "--cache-server-addr", "127.0.0.1",
        "--cache-server-path", str(scratch / "act-cache"), "--no-skip-checkout", "--json",
        *(("--job", job) if job else ()),
        *mapped_actions(checkout),
        *(part for k, v in standin.items() for part in ("--env", f"{k}={v}")),
        *(part for k, v in (variables or {}).items() for part in ("--var", f"{k}={v}")),
        *(("--secret", f"GITHUB_TOKEN={token}") if token else ()),
        *(part for k, v in (secrets or {}).items() for part in ("--secret", f"{k}={v}")),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**env, "XDG_CACHE_HOME": str(scratch / "xdg"), "UV_CACHE_DIR": uv_cache(env)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return read_log(done.returncode, done.stdout + done.stderr)


def uv_cache(env: Mapping[str, str]) -> str:
    """Where uv keeps what it downloaded, which the jobs' own HOME would hide."""
    if "UV_CACHE_DIR" in env:
        return env["UV_CACHE_DIR"]
    base = Path(env.get("XDG_CACHE_HOME") or Path(env["HOME"], ".cache"))
    return str(base / "uv")


def read_log(returncode: int, text: str) -> ActRun:
    """Read act's JSON log."""
    run = ActRun(returncode, log=text)
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        job = entry.get("jobID")
        if job is None:
            continue
        if "jobResult" in entry:
            run.jobs[job] = entry["jobResult"]
        if entry.get("command") == "summary":
            run.summary += entry["content"]
        if "executionTime" in entry and len(entry.get("stepID", [])) == 1:
            run.seconds[job] = run.seconds.get(job, 0.0) + entry["executionTime"] / 1e9
        if entry.get("stage") != "Main" or "stepID" not in entry:
            continue
        if entry.get("raw_output"):
            key = (job, entry["step"])
            run.output[key] = run.output.get(key, "") + entry["msg"]
        elif "stepResult" in entry and len(entry["stepID"]) == 1:
            run.steps.setdefault(job, {})[entry["step"]] = entry["stepResult"]
    return run
