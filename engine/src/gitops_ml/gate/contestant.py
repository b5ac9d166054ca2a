"""A contestant: a project with a model that answers in a process of its own.

What judges runs neither a contestant's code nor its pickles. A contestant is given rows without
what there is to predict, and gives back a file of answers; it runs in the environment that its own
`uv.lock` names.

What this does not stop: a process of the same user may read and write whatever that user may, the
labels in the landed data and the judge's files among them. So the judge has loaded what it measures
with before the challenger, the last to answer, is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.project import load_project
from gitops_ml.core.run import Variables, run, said
from gitops_ml.core.schema import Schema

# What a workflow's later steps are steered by, and what opens doors.
_WITHHELD = ("GITHUB_", "ACTIONS_", "AWS_", "AZURE_", "GOOGLE_", "GH_TOKEN")
_OWN_ENVIRONMENT = ("uv", "run", "--locked", "--quiet", "python")


class ContestantError(GitopsError):
    """A contestant cannot take part; the message says why."""


class CannotScoreError(ContestantError):
    """A contestant does not answer for these rows; the message says why."""


@dataclass
class Contestant:
    """A project's folder, with its model.

    Attributes:
        project: The folder.
        scratch: A folder outside of it, for what it is asked and what it answers.
        notes: What a reader of the report should know about it.
        interpreter: The command that runs its Python.
    """

    project: Path
    scratch: Path
    notes: list[str] = field(default_factory=list)
    interpreter: Sequence[str] = (sys.executable,)

    def predict(self, rows: Path, out: Path) -> None:
        """Let it answer for the rows of a parquet file, with its own code.

        Args:
            rows: The rows.
            out: Where its answers go: column `prediction` and, for a classifier,
                `probability_<class>`.

        Raises:
            CannotScoreError: If it does not take these rows.
        """
        self.ask(*self._predict_command(), "--rows", rows, "--out", out)

    def ask(self, *words: str | Path) -> None:
        """Run a module of its own Python, with arguments.

        Raises:
            CannotScoreError: If it fails, with what it said.
        """
        done = run(
            [*self.interpreter, "-P", "-m", *words],
            self.project,
            variables={**self.variables(), **_withheld()},
        )
        if done.returncode != 0:
            raise CannotScoreError(said(done))

    def _predict_command(self) -> Sequence[str]:
        # Before release 0.2.0 the machinery was inside of the project's own package.
        package = load_project().package
        if (self.project / "src" / package / "model" / "predict.py").is_file():
            return (f"{package}.model.predict",)
        return ("gitops_ml", "predict")

    def _run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return run(command, self.project, variables=self.variables())

    def variables(self) -> Variables:
        """What differs from the environment of this process."""
        sources = (self.project / "src", self.project / "engine" / "src")
        path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        return {
            # `uv run` makes an environment of the folder's own, never changes the caller's.
            **dict.fromkeys(("UV_PROJECT_ENVIRONMENT", "UV_NO_SYNC", "VIRTUAL_ENV", "PYTHONHOME")),
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "PATH": os.pathsep.join(path),
        }

    def choose_interpreter(self, home: Path, what: str) -> None:
        """This interpreter if its project has the same Python and locks the same versions.

        Else an environment of its own.

        Args:
            home: The project whose locked environment this process runs in.
            what: What to call the contestant in a note, e.g. `The champion`.
        """
        lock = self.project / paths.UV_LOCK
        files = (paths.UV_LOCK, paths.PYTHON_VERSION)
        if not lock.is_file() or all(
            _content(self.project / f) == _content(home / f) for f in files
        ):
            return
        if shutil.which("uv") is None:
            self.notes.append(
                f"{what} locks other versions of the dependencies, or names another Python, and uv "
                "is not installed to set them up: it ran with this environment's versions."
            )
            return
        self.interpreter = _OWN_ENVIRONMENT


def own_environment(project: Path) -> tuple[Sequence[str], Variables]:
    """The command that runs a project's Python in its own locked environment, and its variables."""
    contestant = Contestant(project.resolve(), project)
    return _OWN_ENVIRONMENT, {**contestant.variables(), **_withheld()}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _withheld() -> Variables:
    return {name: None for name in os.environ if name.startswith(_WITHHELD)}


def write_rows(rows: pl.DataFrame, hidden: Collection[str], path: Path) -> Path:
    """Write rows as a contestant may see them; gives back the path.

    Args:
        rows: The rows.
        hidden: Columns that it must not see; see `hidden_columns`.
        path: The parquet file to write.
    """
    rows.drop(hidden, strict=False).write_parquet(path)
    return path


def hidden_columns(schema: Schema, target: str) -> frozenset[str]:
    """The target, and what else is known only after the fact."""
    outcomes = {name for name, column in schema.columns.items() if column.outcome}
    return frozenset({target, *outcomes})
