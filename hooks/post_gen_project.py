"""Finishes a generated project: keeps what was chosen, locks the dependencies, starts git.

Needs the standard library only and works offline: what cannot be done is said, with the command
that does it later, and never fails the generation.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# Rendered to the answers as JSON, escaped so that no answer can end this string.
ANSWERS = r"""<< cookiecutter | tojson >>"""

# Files that come once per choice, as <stem>.<choice><suffix>; the chosen one keeps its plain name.
# option: (choices that have such a file, plain names)
VARIANTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "task": (("classification", "regression"), ("params.yaml", "contract.yaml")),
    "license": (("MIT", "Apache-2.0", "BSD-3-Clause", "proprietary"), ("LICENSE",)),
}
# What one choice has otherwise than the rest, as <stem>.<choice><suffix> beside the plain one.
# option: {choice: plain names}
REPLACEMENTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "deploy_target": {
        "bentocloud": (
            ".github/workflows/deliver.yml",
            ".github/workflows/rollback.yml",
            "deploy/README.md",
            ".github/dependabot.yml",
        ),
        "none": (".github/dependabot.yml",),
    },
}
# Files and folders that only some choices want.
# option: ((choices that want them, paths), ...)
FEATURES: Mapping[str, Sequence[tuple[Sequence[str], Sequence[str]]]] = {
    "deploy_target": (
        (
            ("kubernetes", "host", "bentocloud"),
            (
                ".github/rulesets/deliveries.json",
                ".github/rulesets/environments.json",
                ".github/rulesets/releases.json",
                ".github/workflows/deliver.yml",
                ".github/workflows/rollback.yml",
                "deploy",
                "docs/deliver.md",
            ),
        ),
        (
            ("kubernetes",),
            ("deploy/argocd", "deploy/base", "deploy/outputs.yaml", "deploy/overlays"),
        ),
        (("kubernetes", "host"), ("deploy/image",)),
        (("host",), ("deploy/host",)),
        (("bentocloud",), ("deploy/production.yaml", "deploy/staging.yaml")),
    ),
}

# The machinery comes with the hashes of its files.
ENGINE = "engine"
ENGINE_MANIFEST = "manifest.json"

FIRST_COMMIT = "Start the project"
LOCK_TIMEOUT = 300
GIT_TIMEOUT = 60
# Variables of a git process that may have started us; they would point git at its repository.
FOREIGN_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")


def say(message: str) -> None:
    """Tell the user what was done."""
    print(message, flush=True)


def warn(message: str) -> None:
    """Tell the user what was not done, and what to do about it."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def variant_path(project: Path, plain: str, choice: str) -> Path:
    """Where the template keeps the variant of a file for one choice."""
    path = project / plain
    return path.with_name(f"{path.stem}.{choice}{path.suffix}")


def keep_variants(project: Path, answers: Mapping[str, str]) -> None:
    """Give each chosen variant its plain name and remove the others.

    A file that is already there under the plain name, because a project is generated over an older
    one, is kept beside the new one as <name>.orig.
    """
    for option, (choices, plain_names) in VARIANTS.items():
        for plain in plain_names:
            if answers[option] in choices:
                take_variant(project, plain, answers[option])
            for choice in choices:
                variant_path(project, plain, choice).unlink(missing_ok=True)


def take_variant(project: Path, plain: str, choice: str) -> None:
    """Give one variant its plain name."""
    target = project / plain
    chosen = variant_path(project, plain, choice)
    if target.exists() and target.read_bytes() != chosen.read_bytes():
        target.replace(target.with_name(f"{target.name}.orig"))
        warn(f"{plain} was there already; what it held is now in {plain}.orig")
    chosen.replace(target)


def replace_files(project: Path, answers: Mapping[str, str]) -> None:
    """Put what a choice has otherwise in the place of the plain files, and remove the rest."""
    for option, replacements in REPLACEMENTS.items():
        for choice, plain_names in replacements.items():
            for plain in plain_names:
                target = project / plain
                variant = variant_path(project, plain, choice)
                if answers[option] == choice:
                    variant.replace(target)
                else:
                    variant.unlink(missing_ok=True)


def unwanted_paths(answers: Mapping[str, str]) -> list[str]:
    """What belongs to features that were not chosen, relative to the project."""
    return [
        path
        for option, groups in FEATURES.items()
        for wanted, paths in groups
        if answers[option] not in wanted
        for path in paths
    ]


def remove_features(project: Path, answers: Mapping[str, str], older: bool) -> None:
    """Remove what belongs to features that were not chosen.

    In a project that is generated over an older one, those folders may hold work of its owner:
    there they stay, and the owner is told.
    """
    found = [path for path in unwanted_paths(answers) if (project / path).exists()]
    if older and found:
        warn(
            "the project was there already, so nothing was removed from it; not part of what you "
            f"chose, remove if you did not put it there: {', '.join(found)}"
        )
        return
    for path in found:
        target = project / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def keep_engine(project: Path) -> str | None:
    """Keep of the engine what belongs to it, whatever else the template's working tree holds.

    Returns:
        Why the project cannot be used, None if it can.
    """
    engine = project / ENGINE
    manifest = engine / ENGINE_MANIFEST
    if not manifest.is_file():
        return (
            f"{ENGINE}/ did not come along: the template's symbolic links were lost, as in a "
            "download as a zip file or a checkout without core.symlinks; get the template with "
            "`git clone`, or give its address to cookiecutter, and generate again"
        )
    own = set(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    missing = sorted(name for name in own if not (engine / name).is_file())
    if missing:
        return f"{ENGINE}/ lacks {', '.join(missing)}; get the template again with `git clone`"
    for path in sorted(engine.rglob("*"), reverse=True):
        if path.is_symlink() or path.is_file():
            name = path.relative_to(engine).as_posix()
            if name not in own and path != manifest:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
    return None


def is_throwaway(project: Path, answers: Mapping[str, object]) -> bool:
    """Whether cruft renders the project only to compare it with another rendering.

    `cruft update` and `cruft diff` render into a temporary folder, compare all files there with
    those of another rendering, and apply the difference to the user's project; a lock or a
    repository of the rendering would end up in that difference. cookiecutter itself always tells
    its output folder; cruft never does.
    """
    if "_output_dir" in answers:
        return False
    parent = project.resolve().parent
    temporary = Path(tempfile.gettempdir()).resolve()
    return parent.parent == temporary and re.fullmatch(r"tmp[a-z0-9_]{8}", parent.name) is not None


def run(*command: str, cwd: Path, timeout: int) -> tuple[bool, str]:
    """Run a command; whether it succeeded, and what it said."""
    environment = {k: v for k, v in os.environ.items() if k not in FOREIGN_GIT}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {timeout} s"
    except OSError as error:
        return False, str(error)
    return done.returncode == 0, done.stdout.decode(errors="replace").strip()


def lock_dependencies(project: Path) -> bool:
    """Write uv.lock if uv is there and reaches a package index; whether it was written."""
    later = "run `uv lock` in the project, then commit uv.lock"
    if shutil.which("uv") is None:
        warn(
            "uv is not installed, so the dependencies are not locked; install it "
            f"(https://docs.astral.sh/uv/getting-started/installation), {later}"
        )
        return False
    say("Locking the dependencies (uv lock) ...")
    locked, output = run("uv", "lock", cwd=project, timeout=LOCK_TIMEOUT)
    if not locked:
        warn(f"the dependencies are not locked; once the cause below is mended, {later}\n{output}")
    return locked


def belongs_to_a_repository(project: Path) -> bool:
    """Whether the project's files would be tracked by a repository around or in it."""
    if (project / ".git").exists():
        return True
    inside, _ = run("git", "rev-parse", "--show-toplevel", cwd=project, timeout=GIT_TIMEOUT)
    if not inside:
        return False
    ignored, _ = run("git", "check-ignore", "--quiet", ".", cwd=project, timeout=GIT_TIMEOUT)
    return not ignored


def start_repository(project: Path) -> bool:
    """Start a git repository with all files in a first commit; whether that was possible."""
    if shutil.which("git") is None:
        warn("git is not installed, so no repository was started; run `git init -b main` later")
        return False
    if belongs_to_a_repository(project):
        say(
            "The project is inside a git repository: nothing was initialised or committed. GitHub "
            "reads workflows at the top of a repository only: if this is not its top, give the "
            "project a repository of its own."
        )
        return False
    for arguments in (
        ("init", "--quiet"),
        ("symbolic-ref", "HEAD", "refs/heads/main"),
        ("add", "--all"),
    ):
        done, output = run("git", *arguments, cwd=project, timeout=GIT_TIMEOUT)
        if not done:
            warn(f"`git {' '.join(arguments)}` failed, so nothing was committed: {output}")
            return False
    commit = ("-c", "user.useConfigOnly=true", "commit", "--quiet", "-m", FIRST_COMMIT)
    done, output = run("git", *commit, cwd=project, timeout=GIT_TIMEOUT)
    if not done:
        warn(
            "the files are staged, but git made no commit; tell it who you are (git config "
            f'user.name ..., git config user.email ...), then run `git commit -m "{FIRST_COMMIT}"`'
            f"\n{output}"
        )
    return done


def say_what_next(project: Path, answers: Mapping[str, object]) -> None:
    """Show the commands that come next."""
    say(f"""
{answers["project_name"]} is in {project.name}/. What comes next:

  cd {project.name}
  make setup       install the locked dependencies and the git hooks
  make pipeline    validate the example data, train and evaluate a model
  make test        test the code, the data, the model and the service
  make serve       serve the model on http://127.0.0.1:3000

README.md has the map; docs/own-data.md says how to put your own data in.""")
    if "_commit" in answers:
        say('Commit .cruft.json too: git add .cruft.json && git commit -m "Record the template"')


def main(rendered: str = ANSWERS, project: Path | None = None) -> int:
    """Finish the project in `project` (default: the current folder)."""
    project = project or Path.cwd()
    answers = json.loads(rendered)
    problem = keep_engine(project)
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        return 1
    keep_variants(project, answers)
    replace_files(project, answers)
    remove_features(project, answers, older=(project / ".git").exists())
    if is_throwaway(project, answers):
        return 0
    lock_dependencies(project)
    start_repository(project)
    say_what_next(project, answers)
    return 0


if __name__ == "__main__":
    # A terminal that cannot show an answer's characters still gets the message.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
