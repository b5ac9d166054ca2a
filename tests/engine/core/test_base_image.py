"""The image's base, as the project's Dockerfile names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Bake

from gitops_ml.core.base_image import (
    DOCKERFILE,
    BaseImage,
    BaseImageError,
    built_on,
    qualified,
    read_base,
)

DIGEST = f"sha256:{'a' * 64}"
NAME = "docker.io/library/python"


def write(root: Path, text: str) -> None:
    (root / DOCKERFILE).parent.mkdir(parents=True, exist_ok=True)
    (root / DOCKERFILE).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("acme/python:1", "docker.io/acme/python:1"),
        ("ghcr.io/acme/python:1", "ghcr.io/acme/python:1"),
        ("localhost/python:1", "localhost/python:1"),
        ("registry:5000/python:1", "registry:5000/python:1"),
    ],
)
def test_names_are_told_with_their_registry(name: str, full: str) -> None:
    assert qualified(name) == full


@pytest.mark.parametrize(
    ("line", "base", "reference"),
    [
        ("FROM python:3.11-slim", BaseImage(NAME, "3.11-slim", None), f"{NAME}:3.11-slim"),
        (f"from python:3.11@{DIGEST} ", BaseImage(NAME, "3.11", DIGEST), f"{NAME}@{DIGEST}"),
        (
            f"FROM mirror.example:5000/x/python:3@{DIGEST}",
            BaseImage("mirror.example:5000/x/python", "3", DIGEST),
            f"mirror.example:5000/x/python@{DIGEST}",
        ),
    ],
)
def test_the_base_is_the_stage_that_no_variable_names(
    tmp_path: Path, line: str, base: BaseImage, reference: str
) -> None:
    write(tmp_path, f"ARG BUILT\nFROM ${{BUILT}} AS built\n# FROM old:1\n{line}\nCOPY a b\n")

    assert read_base(tmp_path) == base
    assert base.reference == reference
    assert base.short == f"python:{base.tag}"
    assert f"\n{line[:4]} other@{DIGEST}\nCOPY" in built_on(tmp_path, f"other@{DIGEST}")


@pytest.mark.parametrize(
    "text",
    [
        "FROM ${BUILT} AS built\n",
        "FROM python:3\nFROM python:3\n",
        "FROM python\n",
        "FROM python:3@sha256:short\n",
        f"FROM python@{DIGEST}\n",
    ],
)
def test_a_file_without_one_base_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(BaseImageError, match="lines like `FROM docker"):
        read_base(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseImageError, match="Dockerfile: cannot be read"):
        read_base(tmp_path)


def test_the_projects_own_is_the_python_that_it_was_made_for(generated: Bake) -> None:
    project = generated()
    python = (project / ".python-version").read_text().strip()
    assert read_base(project) == BaseImage(NAME, f"{python}-slim", None)
