"""The service of this working tree, running as it does with `make serve`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.delivery.smoke import serving, wait_for
from << cookiecutter.project_slug >>.serving.release import PACKAGE

ROOT = Path(__file__).resolve().parents[2]
SERVICE = f"{PACKAGE}.serving.service:Service"


@pytest.fixture(scope="session")
def service() -> Iterator[str]:
    """The address of the service."""
    if not (ROOT / paths.MANIFEST).exists():
        pytest.fail(f"{paths.MANIFEST} is missing: run `make pipeline` first", pytrace=False)
    with serving(SERVICE) as url:
        wait_for(url, None, timeout=60)
        yield url
