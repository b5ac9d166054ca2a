"""Where goes what is not fit to land, with a report of why: `data/quarantine/`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gitops_ml.core import paths

REPORT = "report.json"


def keep(
    file: Path,
    name: str,
    period: str | None,
    source: str,
    problems: Sequence[Mapping[str, Any]],
    now: datetime,
    root: Path = Path(),
) -> Path:
    """Keep a file that is not fit to land; an earlier one of the same name and period goes.

    Args:
        file: What came; it is copied.
        name: What its partitions would be called after.
        period: None for all of it.
        source: Where it came from, without credentials.
        problems: Why it is not fit, as JSON values.
        now: When.
        root: The project.

    Returns:
        The folder that holds it and `report.json`.
    """
    folder = root / paths.QUARANTINE / name / (period or "all")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(file, folder / f"rows{file.suffix}")
    report = {"source": source, "at": now.isoformat(), "problems": list(problems)}
    draft = folder / f"{REPORT}.draft"
    draft.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(folder / REPORT)
    return folder


def forget(name: str, periods: Sequence[str | None], root: Path = Path()) -> None:
    """Remove what is quarantined of a name, except of some periods."""
    folder = root / paths.QUARANTINE / name
    if not folder.is_dir():
        return
    kept = {period or "all" for period in periods}
    for path in list(folder.iterdir()):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    if not any(folder.iterdir()):
        folder.rmdir()
