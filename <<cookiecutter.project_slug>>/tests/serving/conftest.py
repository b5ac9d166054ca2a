"""The service of this working tree, running as it does with `make serve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from << cookiecutter.project_slug >> import paths
from << cookiecutter.project_slug >>.delivery.smoke import serving, wait_for
from << cookiecutter.project_slug >>.serving.release import PACKAGE

SERVICE = f"{PACKAGE}.serving.service:Service"


@pytest.fixture(scope="session")
def service(made: Callable[[Path], Path]) -> Iterator[str]:
    """The address of the service."""
    made(paths.MANIFEST)
    with serving(SERVICE) as url:
        wait_for(url, None, timeout=60)
        yield url
