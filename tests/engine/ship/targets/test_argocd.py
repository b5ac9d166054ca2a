from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from commands import subcommand
from conftest import Bake

from gitops_ml.ship.targets.argocd import PLACEHOLDER

main = subcommand("argocd")

FILES = ("deploy/argocd/production.yaml", "deploy/argocd/staging.yaml")
URL = "https://github.com/acme/flights.git"
OTHER = "https://git.example.com/mirror/flights.git"


@pytest.fixture(autouse=True)
def project(generated: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the project's own applications as they were at first."""
    shutil.copytree(generated() / "deploy" / "argocd", tmp_path / "deploy" / "argocd")
    for name in FILES:
        application = yaml.safe_load((tmp_path / name).read_text())
        follow(tmp_path / name, application["spec"]["source"]["repoURL"], PLACEHOLDER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/flights")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    return tmp_path


def follow(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(f"repoURL: {old}\n") == 1
    path.write_text(text.replace(old, new))


def test_the_check_names_every_application_without_an_address(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"]) == 1

    told = capsys.readouterr().err
    assert ", ".join(FILES) in told
    assert "make argocd" in told


def test_they_follow_this_repository_and_its_environments(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (project / name).read_text() for name in FILES}

    assert main([]) == 0
    assert main(["--check"]) == 0

    assert f"{FILES[1]} follows {URL}" in capsys.readouterr().out
    for name in FILES:
        assert (project / name).read_text() == before[name].replace(PLACEHOLDER, URL)
        source = yaml.safe_load((project / name).read_text())["spec"]["source"]
        assert (source["repoURL"], source["targetRevision"]) == (URL, f"env/{Path(name).stem}")


def test_an_address_that_somebody_wrote_stays(project: Path) -> None:
    follow(project / FILES[0], PLACEHOLDER, OTHER)

    assert main([]) == 0

    assert OTHER in (project / FILES[0]).read_text()
    assert URL in (project / FILES[1]).read_text()


def test_without_a_repository_nothing_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY")

    assert main([]) == 1

    assert "there is no git remote `origin`" in capsys.readouterr().err
    assert all(PLACEHOLDER in (project / name).read_text() for name in FILES)


def test_an_application_without_an_address_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / FILES[1]
    path.write_text(path.read_text().replace("repoURL", "url"))

    assert main(["--check"]) == 1
    assert f"{FILES[1]}: has no line `repoURL" in capsys.readouterr().err


def test_a_project_without_applications_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "deploy")

    assert main([]) == 1
    assert "holds no application" in capsys.readouterr().err
