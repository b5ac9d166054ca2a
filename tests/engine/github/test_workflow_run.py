"""What a workflow run knows of itself."""

from __future__ import annotations

import pytest

from gitops_ml.github.workflow_run import run_url


def test_knows_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    assert run_url() is None
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/shop")
    assert run_url() is None
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert run_url() == "https://github.com/acme/shop/actions/runs/7"
