"""Who judges: the base's engine; the change's own only where a maintainer lets it.

An update of the engine is judged by the engine that it replaces. Where that one cannot read what
the new one writes, or where the base has none, somebody must have read the new one.
"""

from __future__ import annotations

from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.git import find_base
from gitops_ml.core.run import show
from gitops_ml.core.user_code import source_files
from gitops_ml.gate.contestant import own_environment
from gitops_ml.gate.recorded_model import recorded_model
from gitops_ml.gate.verdict import Consent
from gitops_ml.github.labels import OWN_ENGINE_LABEL
from gitops_ml.model.own_metrics import metrics_of

_ENGINE = Path("engine")
_ASK = (
    "A maintainer who has read it can let the engine of this change judge, with the label "
    f"`{OWN_ENGINE_LABEL}` on the pull request, or with --allow-own-engine"
)


class OwnEngineError(GitopsError):
    """The base's engine cannot judge, and nobody let the change's own engine do so."""


class BrokenBaseError(GitopsError):
    """The code of the base, which the judge runs, cannot be run."""


def own_engine_note(root: Path, revision: str, why: str, consent: Consent) -> str:
    """Make sure that the change's own engine may judge; gives back what the report says of it.

    Args:
        root: The project's folder.
        revision: The base.
        why: Why the base's engine does not judge.
        consent: What a maintainer agreed to.

    Raises:
        OwnEngineError: If the base has a model, and nobody agreed.
        GitError: If the revision names no commit.
    """
    base = find_base(root, revision)
    if base is None:
        return "The first push: there is no base whose engine could judge, so its own one did."
    if recorded_model(base)[0] is None:
        # As with the contract: it counts from the first model on.
        return f"The base has no model yet, so the engine of this change judged itself: {why}"
    if not consent.own_engine:
        raise OwnEngineError(f"the engine of the base does not judge here: {why}\n{_ASK}")
    return f"With a maintainer's consent, the engine of this change judged itself: {why}"


def unreadable(error: GitopsError, consent: Consent) -> str:
    """Why the base's engine cannot judge a change of the engine that it does not understand.

    Raises:
        OwnEngineError: If nobody agreed that the change's own engine judges.
    """
    why = f"it cannot read what this change, which updates the engine, has: {error}"
    if not consent.own_engine:
        raise OwnEngineError(
            f"{error}\nThe engine of the base judges, and this is what it cannot "
            f"read; this change updates the engine.\n{_ASK}"
        ) from error
    return why


def check_base_code(home: Path) -> None:
    """Make sure that the code of the base that a judge runs can be run.

    Raises:
        BrokenBaseError: If it cannot.
    """
    try:
        with metrics_of(home):
            pass
    except GitopsError as error:
        raise BrokenBaseError(str(error)) from error


def broken(error: BrokenBaseError, consent: Consent) -> str:
    """Why the base's code cannot judge, as in a base that holds the marks of a merge conflict.

    It must not keep out the change that mends it.

    Raises:
        OwnEngineError: If nobody agreed that the change's own code judges.
    """
    why = f"the code of the base cannot be run: {error}"
    if not consent.own_engine:
        raise OwnEngineError(f"{why}\n{_ASK}") from error
    return why


def same_engine(root: Path, home: Path) -> bool:
    """Whether two projects have the same engine: the same files, or the same lock without any."""
    ours, theirs = root / _ENGINE / "src", home / _ENGINE / "src"
    if not ours.is_dir() and not theirs.is_dir():
        return _content(root / paths.UV_LOCK) == _content(home / paths.UV_LOCK)
    return _files(ours) == _files(theirs)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in source_files(folder)}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def judge_by_own_engine(root: Path, revision: str, why: str, consent: Consent) -> int:
    """Let the engine of the change judge, in the change's environment; gives back its exit code.

    Args:
        root: The project's folder.
        revision: The base.
        why: Why the base's engine does not judge.
        consent: What a maintainer agreed to; `own_engine` is part of it.
    """
    interpreter, variables = own_environment(root)
    words = ["gate", "--base", revision, "--own-engine", why, "--allow-own-engine"]
    if consent.allow_loosening:
        words.append("--allow-loosening")
    if consent.accept_new_baseline is not None:
        words += ["--accept-new-baseline", consent.accept_new_baseline]
    return show([*interpreter, "-P", "-m", "gitops_ml", *words], root, variables=variables)
