"""Exported bentos, well meant and not."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest
from fake_bento import PACKAGE, TAG, make_files, pack
from projects import make_project

from gitops_ml.bento import archive as module
from gitops_ml.bento.archive import fetched_tag, read_archive
from gitops_ml.bento.store import FETCHED, BentoError


def evil(kind: bytes, name: str, link: str = "") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as target:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        target.addfile(member)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        evil(tarfile.REGTYPE, "../outside"),
        evil(tarfile.REGTYPE, "/outside"),
        evil(tarfile.SYMTYPE, "src/link", "/etc/passwd"),
        evil(tarfile.LNKTYPE, "src/link", "../../outside"),
        evil(tarfile.CHRTYPE, "src/device"),
    ],
)
def test_a_bento_that_would_reach_out_of_its_folder_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "evil.bento"
    path.write_bytes(content)
    with pytest.raises(BentoError, match="must not hold"):
        read_archive(path)


def test_a_bento_may_hold_as_many_entries_as_the_limit_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.bento"
    path.write_bytes(pack(make_files(), tmp_path))
    with tarfile.open(path) as held:
        entries = held.getnames()
    monkeypatch.setattr(module, "ENTRIES", len(entries))
    assert read_archive(path).tag == TAG
    monkeypatch.setattr(module, "ENTRIES", len(entries) - 1)
    with pytest.raises(BentoError, match=f"must not hold '{re.escape(entries[-1])}'"):
        read_archive(path)


def test_a_text_may_be_as_large_as_the_limit_and_no_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is larger is not read into memory, and so is not there."""
    path = tmp_path / "some.bento"
    files = make_files()
    files["bento.yaml"] += b" " * 10_000
    path.write_bytes(pack(files, tmp_path))
    size = len(files["bento.yaml"])
    monkeypatch.setattr(module, "TEXT_BYTES", size)
    assert read_archive(path).tag == TAG
    monkeypatch.setattr(module, "TEXT_BYTES", size - 1)
    with pytest.raises(BentoError, match=r"lacks 'bento\.yaml'"):
        _ = read_archive(path).tag


def test_the_fetched_bento_is_the_one_that_is_delivered(tmp_path: Path) -> None:
    make_project(tmp_path)
    assert fetched_tag(tmp_path) is None
    path = tmp_path / FETCHED / f"{PACKAGE}.bento"
    path.parent.mkdir(parents=True)
    path.write_bytes(pack(make_files(), tmp_path / "packed"))
    assert fetched_tag(tmp_path) == TAG
    path.write_bytes(b"no bento")
    with pytest.raises(BentoError, match="is no bento"):
        fetched_tag(tmp_path)


def test_the_limits_are_those_of_a_machine_that_delivers() -> None:
    assert (module.ENTRIES, module.TEXT_BYTES) == (20_000, 2 * 10**7)
