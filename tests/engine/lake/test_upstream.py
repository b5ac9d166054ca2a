from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.lake.errors import LakeError, UnfitError
from gitops_ml.lake.upstream import check_page, local_items, suffix_by_content


def test_a_folder_gives_its_data_files(project: Path, tmp_path: Path) -> None:
    for name in ("b.csv", "2013/a.PARQUET", "notes.txt", ".hidden/c.csv", "2013/.d.csv"):
        (project / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "up" / name).write_text("n\n1\n", encoding="utf-8")
    items = local_items(Path("up"))
    assert [(item.name, item.source) for item in items] == [
        ("2013-a", "up/2013/a.PARQUET"),
        ("b", "up/b.csv"),
    ]
    fetched = items[1].fetch(tmp_path, None)
    assert fetched is not None
    assert fetched.path.read_text(encoding="utf-8") == "n\n1\n"
    # The same file by another path is the same source.
    assert [item.source for item in local_items(project / "up" / "b.csv")] == ["up/b.csv"]


def test_a_file_outside_of_the_project_has_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n", encoding="utf-8")
    assert local_items(tmp_path)[0].source == (tmp_path / "a.csv").resolve().as_posix()


def test_nothing_to_land_is_said(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"nowhere: no such file or folder"):
        local_items(Path("nowhere"))
    with pytest.raises(LakeError, match=r"is empty: it holds no \.parquet or \.csv file"):
        local_items(tmp_path)
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(LakeError, match=r"rows\.xlsx: data files are \.parquet or \.csv"):
        local_items(tmp_path / "rows.xlsx")


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html>", "\ufeff\n <HTML>", "<?xml version='1.0'?><Error/>"]
)
def test_a_page_is_no_data(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UnfitError, match="https://host/rows: is an HTML or XML page and no data"):
        check_page(path, "https://host/rows")
    path.write_text("note,n\n<html>,1\n", encoding="utf-8")
    check_page(path, "rows")


def test_a_file_tells_its_kind_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "download"
    path.write_bytes(b"PAR1rest")
    assert suffix_by_content(path) == ".parquet"
    path.write_bytes(b"n\n1\n")
    assert suffix_by_content(path) == ".csv"
