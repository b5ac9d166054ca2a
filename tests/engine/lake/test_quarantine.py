from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from gitops_ml.core import paths
from gitops_ml.lake.quarantine import forget, keep

NOW = datetime(2013, 7, 1, tzinfo=UTC)


def kept() -> list[str]:
    folder = paths.QUARANTINE
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_what_is_kept_has_a_report(tmp_path: Path) -> None:
    file = tmp_path / "upstream.csv"
    file.write_text("n\nx\n", encoding="utf-8")
    problem = {"message": "is no integer"}
    folder = keep(file, "july", None, "up/july.csv", [problem], NOW)
    assert (folder / "rows.csv").read_bytes() == file.read_bytes()
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == {
        "source": "up/july.csv",
        "at": "2013-07-01T00:00:00+00:00",
        "problems": [problem],
    }
    file.rename(file.with_suffix(".parquet"))
    keep(file.with_suffix(".parquet"), "july", None, "up/july.csv", [problem], NOW)
    assert kept() == ["july/all/report.json", "july/all/rows.parquet"]


def test_what_lands_later_leaves(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.touch()
    for period in (None, "2013-06", "2013-07"):
        keep(file, "july", period, "up", [], NOW)
    keep(file, "august", None, "up", [], NOW)
    forget("july", ["2013-06"])
    assert kept() == [
        *("august/all/report.json", "august/all/rows.parquet"),
        *("july/2013-06/report.json", "july/2013-06/rows.parquet"),
    ]
    forget("july", [])
    assert not (paths.QUARANTINE / "july").exists()
    forget("nothing", [])
