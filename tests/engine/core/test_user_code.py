from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gitops_ml.core.user_code import UserCodeError, check_user_code, load_module, user_code


def code(root: Path, **files: str) -> dict[str, str]:
    """Write the package `shop` and say what a manifest records of it."""
    folder = root / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return user_code(root, "shop")


def test_the_hash_is_of_names_and_texts_wherever_they_are(tmp_path: Path) -> None:
    bento = code(tmp_path / "bento", features="1", other="2")
    project = code(tmp_path / "project" / "src", features="1", other="2")

    assert bento == project == user_code(tmp_path / "project", "shop")
    assert code(tmp_path / "a", features="2", other="1") != bento
    assert code(tmp_path / "b", features="1", others="2") != bento
    assert code(tmp_path / "c", features="1") != bento


def test_what_reads_a_table_depends_on_it_and_on_no_cache(tmp_path: Path) -> None:
    before = code(tmp_path, features="1")
    (tmp_path / "shop" / "__pycache__").mkdir()
    (tmp_path / "shop" / "__pycache__" / "features.pyc").write_bytes(b"compiled")
    (tmp_path / "shop" / ".features.py.swp").write_bytes(b"open in an editor")
    assert user_code(tmp_path, "shop") == before

    (tmp_path / "shop" / "holidays.csv").write_text("2013-07-04", encoding="utf-8")
    assert user_code(tmp_path, "shop") != before


def test_other_code_than_recorded_is_refused_with_both_hashes(tmp_path: Path) -> None:
    manifest = {"user_code": code(tmp_path, features="1")}
    check_user_code(tmp_path, manifest)
    check_user_code(tmp_path, {})

    changed = code(tmp_path, features="2")

    with pytest.raises(UserCodeError, match="is not the code that trained the model") as error:
        check_user_code(tmp_path, manifest)
    assert changed["sha256"] in str(error.value)
    assert manifest["user_code"]["sha256"] in str(error.value)
    assert "make pipeline" in str(error.value)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test imports is forgotten after it."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("beside", ["tables.py", "tables/__init__.py", "tables/holidays.py"])
def test_a_module_beside_the_package_is_refused(tmp_path: Path, beside: str) -> None:
    file = tmp_path / "src" / beside
    file.parent.mkdir(parents=True)
    file.write_text("DAYS = 3\n", encoding="utf-8")
    name = beside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    code(tmp_path / "src", __init__="", features="from shop import other", other=f"import {name}")

    with pytest.raises(UserCodeError, match=rf"{beside}: is imported, but no stage depends on it"):
        load_module(tmp_path, "shop", "features")


@pytest.mark.usefixtures("modules")
def test_modules_of_the_package_may_import_each_other(tmp_path: Path) -> None:
    (tmp_path / "src" / "shop" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "sub" / "thing.py").write_text("from .. import other\n")
    (tmp_path / "src" / "unused.py").write_text("")
    code(tmp_path / "src", __init__="", features="import shop.sub.thing", other="")

    assert load_module(tmp_path, "shop", "features") is not None


@pytest.mark.usefixtures("modules")
def test_the_engine_lies_beside_the_package_in_a_bento(tmp_path: Path) -> None:
    root = tmp_path / "src"
    code(root, __init__="", features="import beside")
    (root / "beside.py").write_text("")

    assert load_module(root, "shop", "features") is not None
