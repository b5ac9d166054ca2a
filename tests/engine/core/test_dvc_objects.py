"""Hashes as DVC has them, against what DVC itself wrote; and what is told of another hash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gitops_ml.core.dvc import DvcError, read_lock
from gitops_ml.core.dvc_objects import (
    absent,
    check_cache,
    check_outputs,
    folders_with,
    hash_of,
    object_path,
    outputs_of,
    tracked_hashes,
)
from gitops_ml.core.run import outside_git

STAGE = """\
stages:
  make:
    cmd: mkdir -p out/below && echo a > out/a && echo b > 'out/below/b ü' && echo c > c
    outs: [out]
    metrics: [c: {cache: false}]
"""


def dvc(root: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=root, env=outside_git(), check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").touch()
    (root / "dvc.yaml").write_text(STAGE, encoding="utf-8")
    (root / "big").mkdir()
    (root / "big" / "rows").write_text("rows\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, env=outside_git(), check=True)
    dvc(root, "repro", "--quiet")
    dvc(root, "add", "--quiet", "big")
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose pipeline ran; `dvc config` is not asked, since the cache is where it is."""
    import shutil

    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.setattr("gitops_ml.core.dvc_objects.settings_of", lambda _: {})
    return root


def spoil(path: Path, content: bytes = b"other\n") -> None:
    """Overwrite a read-only file that DVC would not hash again."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_the_hashes_are_dvc_s(project: Path) -> None:
    named = outputs_of(read_lock(project))
    assert set(named) == {"out", "c"}
    assert {path: hash_of(project / path) for path in named} == named
    assert named["out"].endswith(".dir")
    assert tracked_hashes(project, None) == {"big": hash_of(project / "big")}
    assert tracked_hashes(project, read_lock(project)).keys() == {"out", "c", "big"}


def test_what_is_as_named_passes(project: Path) -> None:
    check_outputs(project, read_lock(project))
    check_outputs(project, read_lock(project), [Path("out/a"), Path("c")])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda root: spoil(root / "out/below/b ü"), "out/below/b ü"),
        (lambda root: (root / "out/new").touch(), "out/new"),
        (lambda root: (root / "out/a").unlink(), "out/a"),
        (lambda root: spoil(root / "c"), "c"),
        # Without the list of the folder only the folder is known to differ.
        (
            lambda root: (
                spoil(root / "out/a"),
                [path.unlink() for path in (root / ".dvc/cache").rglob("*.dir")],
            ),
            "out",
        ),
        # A list that is another one says nothing.
        (
            lambda root: (
                spoil(root / "out/a"),
                [spoil(path, b"[]") for path in (root / ".dvc/cache").rglob("*.dir")],
            ),
            "out",
        ),
    ],
)
def test_the_file_that_differs_is_named(project: Path, change: object, named: str) -> None:
    change(project)  # type: ignore[operator]
    with pytest.raises(DvcError) as error:
        check_outputs(project, read_lock(project), name="main:dvc.lock")
    assert str(error.value).startswith(f"{named}: is not what main:dvc.lock names")
    assert f"take it away (`rm -r {named.partition('/')[0]}`)" in str(error.value)


def test_what_must_be_here_is_missed(project: Path) -> None:
    (project / "c").unlink()
    check_outputs(project, read_lock(project))
    with pytest.raises(DvcError, match=r"^c: not here; run `make pull`"):
        check_outputs(project, read_lock(project), [Path("c")])
    with pytest.raises(DvcError, match=r"dvc.lock: names no models/model.onnx"):
        check_outputs(project, read_lock(project), [Path("models/model.onnx")])


def test_a_link_to_a_folder_is_refused(project: Path) -> None:
    (project / "out/below").rename(project / "elsewhere")
    (project / "out/below").symlink_to(project / "elsewhere")
    with pytest.raises(DvcError, match=r"out/below: is a link to a folder"):
        check_outputs(project, read_lock(project))
    (project / "out").rename(project / "more")
    (project / "out").symlink_to("more")
    with pytest.raises(DvcError, match=r"out: is a link to a folder"):
        hash_of(project / "out")


def test_an_output_of_two_stages_is_refused() -> None:
    output = [{"path": "models", "md5": "1"}]
    lock = {"stages": {"one": {"cmd": "a", "outs": output}, "two": {"cmd": "b", "outs": output}}}
    with pytest.raises(DvcError, match=r"dvc.lock: stage two: another stage names models, too"):
        outputs_of(json.dumps(lock))


def test_a_damaged_object_is_named_and_removed(project: Path) -> None:
    hashes = [*outputs_of(read_lock(project)).values()]
    check_cache(project, hashes)
    cache = project / ".dvc/cache"
    files = [object_path(cache, hash_of(project / "out" / name)) for name in ("a", "below/b ü")]
    spoil(files[0])
    spoil(files[1], b"")
    with pytest.raises(DvcError) as error:
        check_cache(project, hashes)
    assert str(error.value).startswith(f"{files[0]}, {files[1]}: not what the name says")
    assert not any(path.exists() for path in files)
    missing = {hash_of(project / "out" / name) for name in ("a", "below/b ü")}
    assert missing <= set(absent(cache, hashes))
    folder = hash_of(project / "out")
    assert folders_with(cache, hashes, missing) == [folder]
    # What was advised: now it is only missing.
    check_cache(project, hashes)


def test_a_damaged_list_of_a_folder_is_named_and_removed(project: Path) -> None:
    folder = hash_of(project / "out")
    path = object_path(project / ".dvc/cache", folder)
    spoil(path, path.read_bytes()[:50])
    with pytest.raises(DvcError, match=f"{path}: not what the name says"):
        check_cache(project, [folder])
    assert absent(project / ".dvc/cache", [folder]) == [folder]


def test_a_file_of_dvc_that_is_none_is_named(project: Path) -> None:
    (project / "other.dvc").write_text("outs: 1\n", encoding="utf-8")
    with pytest.raises(DvcError, match=r"^other.dvc: is no file of DVC .*; run `dvc add` again"):
        tracked_hashes(project, None)
