"""What doctor checks on this machine: the tools and the working tree. Needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.base_image import DOCKERFILE, BaseImageError, read_base
from gitops_ml.core.dvc import BRING_BACK, DvcError, status
from gitops_ml.core.dvc_remote import VARIABLE, from_environment
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.resolve import check_marks, find_conflicts
from gitops_ml.core.run import PYTHON, ask
from gitops_ml.doctor.check import Check, Status
from gitops_ml.doctor.engine import check_engine
from gitops_ml.github.event import default_branch

# The oldest version of each tool that does what the tasks ask of it, and where to get it.
_UV = ((0, 7), "https://docs.astral.sh/uv/getting-started/installation")
_GIT = ((2, 28), "https://git-scm.com/downloads")
_VERSION = re.compile(r"\d+(?:\.\d+)+")

# What the commit hook lets through, and what GitHub refuses.
LARGE_KIB = 1024
REFUSED_MIB = 100


def check_local(root: Path) -> Iterator[Check]:
    """Every check that needs no network, in order."""
    yield check_tool(root, "uv", *_UV)
    git = check_tool(root, "git", *_GIT)
    yield git
    yield check_gh(root)
    if git.status != "ok":
        return
    repository = check_repository(root)
    yield repository
    if repository.status != "ok":
        return
    yield check_engine(root)
    yield check_branch(root)
    # Workflows install what uv.lock says and nothing else; without dvc.lock they train anew.
    yield check_committed(root, "uv.lock", "`uv lock`", absent="fail")
    yield check_committed(root, str(paths.DVC_LOCK), "`make pipeline`", absent="warn")
    conflicts = check_conflicts(root)
    yield conflicts
    yield check_sizes(root)
    if (root / DOCKERFILE).is_file():
        yield check_base_image(root)
    if (root / paths.DVC_LOCK).is_file() and conflicts.status == "ok":
        yield check_stages(root)
    yield check_dvc_remote(root)


def check_base_image(root: Path) -> Check:
    """The image's base must be named by its digest, or it is another one from day to day."""
    name = "base image"
    try:
        base = read_base(root)
    except BaseImageError as error:
        return Check(name, "fail", str(error), "correct the file, or restore it from git")
    if base.digest is None:
        remedy = f"`make pin-base-image`, then commit {DOCKERFILE}"
        return Check(name, "skipped", f"{base.short} is not pinned by its digest", remedy)
    return Check(name, "ok", f"{base.short}@{base.digest[:19]}")


def check_tool(root: Path, tool: str, oldest: tuple[int, ...], source: str) -> Check:
    """A tool must be installed and not older than what its use here needs."""
    said = ask(root, tool, "--version")
    if said is None:
        return Check(tool, "fail", "not installed", f"install it: {source}")
    found = _VERSION.search(said)
    version = found[0] if found else said
    if found and tuple(map(int, version.split("."))) < oldest:
        needed = ".".join(map(str, oldest))
        return Check(tool, "fail", f"{version} is older than {needed}", f"update it: {source}")
    return Check(tool, "ok", version)


def check_gh(root: Path) -> Check:
    """`gh` brings a token to those who set none themselves."""
    found = _VERSION.search(ask(root, "gh", "--version") or "")
    if found is None:
        return Check(
            "gh",
            "skipped",
            "not installed",
            "install it (https://cli.github.com) or set GITHUB_TOKEN",
        )
    return Check("gh", "ok", found[0])


def check_repository(root: Path) -> Check:
    """The project must be a git repository of its own."""
    top = ask(root, "git", "rev-parse", "--show-toplevel")
    if top is None:
        return Check("repository", "fail", "not a git repository", "`git init -b main`, commit")
    if Path(top).resolve() != root.resolve():
        return Check(
            "repository",
            "fail",
            f"the project is a folder of the repository in {top}, and GitHub reads workflows, "
            "rulesets and code owners at the top only",
            "copy the folder out, then `git init -b main`, commit and push it as one of its own",
        )
    return Check("repository", "ok", "git")


def check_branch(root: Path) -> Check:
    """The gate compares with the default branch."""
    branch = default_branch(root)
    for reference in (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}"):
        if ask(root, "git", "rev-parse", "--verify", "--quiet", reference) is not None:
            return Check("branch", "ok", reference)
    return Check(
        "branch",
        "fail",
        f"{branch} is not there, nor on origin",
        f"`git branch -m {branch}`, or fetch it; if GitHub's default branch has another name, "
        "`git remote set-head origin --auto`",
    )


def check_committed(root: Path, name: str, maker: str, absent: Status) -> Check:
    """A lock file must be in git as it is here."""
    if not (root / name).is_file():
        return Check(name, absent, "not there", f"{maker}, then commit {name}")
    if ask(root, "git", "ls-files", "--error-unmatch", "--", name) is None:
        return Check(name, absent, "not in git", f"`git add {name}`, then commit")
    if ask(root, "git", "status", "--porcelain", "--", name) != "":
        return Check(name, "warn", "changed, not committed", f"commit {name}, or restore it")
    return Check(name, "ok", "committed")


def check_conflicts(root: Path) -> Check:
    """No file may be in conflict, and `dvc.lock` must hold no marks of one."""
    name = "merge"
    try:
        found = find_conflicts(root)
        if found.others:
            said = f"in conflict: {', '.join([*found.others, *found.written])}"
            remedy = f"put {', '.join(found.others)} right, `git add`, then `make resolve`"
            return Check(name, "fail", said, remedy)
        if found.written:
            return Check(name, "fail", f"in conflict: {', '.join(found.written)}", "`make resolve`")
        check_marks(root)
    except GitopsError as error:
        said, _, remedy = str(error).partition(". ")
        return Check(name, "fail", said, remedy)
    return Check(name, "ok", "no file is in conflict")


def check_stages(root: Path) -> Check:
    """dvc.lock must be of the code, parameters and data that are here."""
    try:
        found = status(root)
    except DvcError as error:
        said = str(error).splitlines()[-1:]
        return Check("stages", "fail", "; ".join(["dvc cannot tell", *said]), "`make setup`")
    named = [f"{stage} ({', '.join(what)})" for stage, what in found.changed.items()]
    if named:
        return Check(
            "stages",
            "fail",
            f"dvc.lock does not name what is here: {'; '.join(named)}",
            "`make pipeline`, then commit dvc.lock and reports/",
        )
    if found.absent:
        return Check("stages", "warn", f"not here: {', '.join(found.absent)}", BRING_BACK)
    return Check("stages", "ok", "dvc.lock fits the code, the parameters and the data")


def check_dvc_remote(root: Path) -> Check:
    """Data and models are shared through a DVC remote, once there is one."""
    if from_environment(root) is not None:
        return Check("DVC remote", "ok", f"the one at {VARIABLE}")
    name = ask(root, *PYTHON, "dvc", "config", "core.remote")
    if name:
        return Check("DVC remote", "ok", name)
    return Check(
        "DVC remote",
        "skipped",
        "none: what DVC keeps stays on this machine",
        f"set {VARIABLE}, or `uv run dvc remote add --default storage URL` and commit .dvc/config",
    )


def check_sizes(root: Path) -> Check:
    """Large files belong to DVC."""
    names = (ask(root, "git", "ls-files", "-z") or "").split("\0")
    sizes = {n: (root / n).stat().st_size for n in names if n and (root / n).is_file()}
    large = sorted((n for n in sizes if sizes[n] > LARGE_KIB * 1024), key=lambda n: -sizes[n])
    if not large:
        return Check("file sizes", "ok", f"no file in git is larger than {LARGE_KIB} KiB")
    most = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in large[:3])
    more = f" and {len(large) - 3} more" if len(large) > 3 else ""
    refused = sizes[large[0]] > REFUSED_MIB * 2**20
    return Check(
        "file sizes",
        "fail" if refused else "warn",
        f"large files in git: {most}{more}",
        "`git rm --cached FILE`, then `uv run dvc add FILE`"
        + (f"; GitHub refuses files above {REFUSED_MIB} MiB" if refused else ""),
    )
