"""What the base's own run made, as far as GitHub still has it.

The `dvc.lock` in a commit is what its author says. The run that let the commit pass made the model
again, and a model of other bytes passed where its answers were alike (`core/answers.py`). What is
believed from then on, and loaded, is the run's: the `dvc.lock` in its artifact `training`. Where
that is not to be had, no model is taken from a cache or a remote: it is trained again.

https://docs.github.com/en/rest/actions/artifacts
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from gitops_ml.core import paths
from gitops_ml.core.dvc import DvcError, by_name, stages_of
from gitops_ml.core.dvc_lock import ANSWERS
from gitops_ml.core.git import BaseRevision
from gitops_ml.core.yaml_text import load_yaml
from gitops_ml.github.artifacts import UNREADABLE, newest_artifact
from gitops_ml.github.client import GitHub, GitHubError, connect
from gitops_ml.github.passed import Base

ARTIFACT = "training"
ARCHIVE_BYTES = 50_000_000
LOCK_BYTES = 5_000_000


class RecordError(DvcError):
    """The run's record cannot be had; the message says why."""


@dataclass(frozen=True)
class RunRecord:
    """What is known of what a run made.

    Attributes:
        lock: The `dvc.lock` that it wrote; None if that is not known.
        why: Why it is not known.
    """

    lock: str | None
    why: str | None = None


def record_of(base: Base, root: Path = Path()) -> RunRecord:
    """What the run made that let the base of an event pass."""
    if base.run is None:
        return RunRecord(None, "no run is known to have passed for it")
    try:
        api, repository = connect(root)
        return RunRecord(_download(api, repository, base.run))
    except (GitHubError, DvcError) as error:
        return RunRecord(None, str(error))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return RunRecord(None, f"GitHub's answer was not understood: {error!r}")


def _download(api: GitHub, repository: str, run: int) -> str:
    artifact = newest_artifact(api, repository, run, ARTIFACT)
    if artifact is None:
        raise RecordError(f"its run, {run}, left no artifact `{ARTIFACT}`")
    if artifact["expired"]:
        raise RecordError(f"the artifact `{ARTIFACT}` of its run, {run}, has expired")
    if artifact["size_in_bytes"] > ARCHIVE_BYTES:
        raise RecordError(f"the artifact `{ARTIFACT}` of its run, {run}, is too large to be read")
    path = f"/repos/{repository}/actions/artifacts/{int(artifact['id'])}/zip"
    return _lock_in(api.download(path, ARCHIVE_BYTES))


def _lock_in(archive: bytes) -> str:
    name = paths.DVC_LOCK.as_posix()
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as files, files.open(name) as stream:
            content = stream.read(LOCK_BYTES + 1)
        if len(content) > LOCK_BYTES:
            raise RecordError(f"the {name} of its run has more than {LOCK_BYTES:,} bytes")
        text = content.decode("utf-8")
        stages_of(text, f"{name} of its run")
    except KeyError as error:
        raise RecordError(f"the artifact `{ARTIFACT}` of its run holds no {name}") from error
    except (*UNREADABLE, OSError, OverflowError) as error:
        raise RecordError(f"the artifact `{ARTIFACT}` of its run cannot be read") from error
    return text


def go_by(base: BaseRevision | None, record: RunRecord | None) -> BaseRevision | None:
    """The base, with what its run made; without a record what is committed counts."""
    if base is None or record is None:
        return base
    return replace(base, made=record.lock, proven=record.lock is not None)


def believed(base: BaseRevision) -> str | None:
    """The base's `dvc.lock`, without what answers or follows from answers if no run made that.

    Raises:
        DvcError: If it is no lock.
    """
    text = base.recorded()
    if text is None or base.proven:
        return text
    stages = stages_of(text, f"{base.revision}:{paths.DVC_LOCK}")
    document = load_yaml(text)
    kept = {
        stage: entry
        for stage, entry in stages.items()
        if not any(_answers(Path(name)) for name in by_name(entry.get("outs")))
    }
    return yaml.safe_dump({**document, "stages": kept}, sort_keys=False)


def _answers(output: Path) -> bool:
    return any(output.is_relative_to(one) for one in ANSWERS)
