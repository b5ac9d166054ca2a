"""Time the generated project's pipeline workflow, job by job, and print a table.

    make timings

The workflow runs with act on this machine, so the jobs share its cores and nothing waits for a
runner. Three pushes of one new repository: the first, with empty caches; one that changes a
parameter of the model, trained and committed by its author; one that changes documentation only.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
sys.path.append(str(TEMPLATE / "tests" / "plays"))

from act import REPOSITORY, ActRun, run_act  # noqa: E402

SLUG = "flight_delays"
JOBS = ("quality", "data", "model", "gate", "all-green")
NOTHING = "0" * 40


def environment(home: Path) -> dict[str, str]:
    """The variables of every step: ours, with caches that start empty and an identity for git."""
    own = Path(sys.prefix, "bin")
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != own)
    foreign = ("VIRTUAL_ENV", "UV_PROJECT", "UV_RUN", "MAKE", "GIT_")
    identity = {"NAME": "Timing", "EMAIL": "timing@example.com"}
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(foreign)},
        **{f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in identity.items()},
        "PATH": path,
        "UV_CACHE_DIR": str(home / "uv"),
        "DVC_NO_ANALYTICS": "1",
    }


def run(*command: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a command and give back what it printed; what it says on failure is shown."""
    return subprocess.run(
        command, cwd=cwd, env=dict(env), check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


class Repository:
    """A generated project with a local origin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = environment(folder)
        self.origin = folder / "origin.git"
        self.clone = folder / SLUG
        arguments = ["--no-input", "--output-dir", str(folder)]
        cookiecutter = str(Path(sys.prefix, "bin", "cookiecutter"))
        run(cookiecutter, str(TEMPLATE), *arguments, cwd=folder, env=self.env)
        run("git", "init", "-q", "--bare", "-b", "main", str(self.origin), cwd=folder, env=self.env)
        self.git("remote", "add", "origin", f"file://{self.origin}")

    def git(self, *arguments: str) -> str:
        """Run git in the clone."""
        return run("git", *arguments, cwd=self.clone, env=self.env)

    def change(self, name: str, old: str, new: str) -> None:
        """Commit a changed file."""
        path = self.clone / name
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise SystemExit(f"{name} has no {old!r} to change")
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        self.git("commit", "-q", "--no-verify", "-am", f"Change {name}")

    def push(self, before: str) -> tuple[ActRun, float]:
        """Push to main; gives the workflow's run and how many seconds it took."""
        self.git("push", "-q", "origin", "HEAD:refs/heads/main")
        payload = {
            "ref": "refs/heads/main",
            "before": before,
            "after": self.git("rev-parse", "HEAD"),
            "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        }
        started = time.monotonic()
        done = run_act(
            "push",
            payload,
            checkout=self.clone,
            workflow="pipeline.yml",
            ref="refs/heads/main",
            origin=self.origin,
            scratch=self.folder / "github",
            env=self.env,
            token=None,
        )
        if done.returncode != 0:
            raise SystemExit(f"the pipeline is red at {done.failed_steps()}:\n{done.log[-4000:]}")
        return done, time.monotonic() - started

    def train(self) -> None:
        """Run the pipeline on this machine and commit what it wrote, as its author does."""
        run("make", "pipeline", cwd=self.clone, env=self.env)
        self.git("add", "--all")
        self.git("commit", "-q", "--no-verify", "-m", "Train")


def table(rows: Sequence[tuple[str, ActRun, float]]) -> str:
    """The measurements as a Markdown table, in seconds."""
    lines = [
        f"| push | {' | '.join(JOBS)} | whole run |",
        f"|---|{'---:|' * (len(JOBS) + 1)}",
    ]
    for name, done, whole in rows:
        cells = [f"{done.seconds.get(job, 0):.0f}" for job in JOBS]
        lines.append(f"| {name} | {' | '.join(cells)} | {whole:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        done, whole = repository.push(NOTHING)
        rows.append(("first, all caches empty", done, whole))
        repository.train()

        before = repository.git("rev-parse", "HEAD")
        repository.change("params.yaml", "max_iter: 150", "max_iter: 160")
        repository.train()
        done, whole = repository.push(before)
        rows.append(("another model, caches filled", done, whole))

        before = repository.git("rev-parse", "HEAD")
        repository.change("README.md", "## Start", "## Begin")
        done, whole = repository.push(before)
        rows.append(("documentation only", done, whole))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, seconds:\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
