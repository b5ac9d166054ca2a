from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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
        url = objects(tmp_path / name)["Application"]["spec"]["source"]["repoURL"]
        text = (tmp_path / name).read_text()
        assert text.count(url) == 2
        (tmp_path / name).write_text(text.replace(url, PLACEHOLDER))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/flights")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    return tmp_path


def objects(path: Path) -> dict[str, Any]:
    """What a file holds, by its kind."""
    return {item["kind"]: item for item in yaml.safe_load_all(path.read_text())}


def follow(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(f"repoURL: {old}\n") == 1
    path.write_text(text.replace(f"repoURL: {old}\n", f"repoURL: {new}\n"))


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
        found = objects(project / name)
        source = found["Application"]["spec"]["source"]
        assert (source["repoURL"], source["targetRevision"]) == (URL, f"env/{Path(name).stem}")
        assert found["AppProject"]["spec"]["sourceRepos"] == [URL]


def test_an_address_that_somebody_wrote_stays(project: Path) -> None:
    text = (project / FILES[0]).read_text()
    (project / FILES[0]).write_text(text.replace(PLACEHOLDER, OTHER))

    assert main([]) == 0

    assert OTHER in (project / FILES[0]).read_text()
    assert URL in (project / FILES[1]).read_text()


def test_an_application_follows_what_its_project_allows(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    follow(project / FILES[0], URL, OTHER)

    assert main(["--check"]) == 1

    told = capsys.readouterr().err
    assert f"{FILES[0]}: repoURL is {OTHER}, but its AppProject allows only {URL}" in told
    (project / FILES[0]).write_text("kind: AppProject\nspec: {}\n---\n  repoURL: x\n")
    assert main(["--check"]) == 1
    assert "must say which repositories it allows" in capsys.readouterr().err


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
