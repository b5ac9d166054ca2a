from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import subcommand
from conftest import Bake
from fake_bento import PACKAGE
from projects import make_project

from gitops_ml.ship.release.release import ReleaseError
from gitops_ml.ship.settings import DeploymentError
from gitops_ml.ship.targets.bentocloud_document import render

main = subcommand("render")

MODEL = "0123456789abcdef" * 4
TAG = f"{PACKAGE}:0a1b2c3d-01234567"
RELEASE: dict[str, Any] = {
    "release": TAG,
    "source": {"commit": "c" * 40, "dirty": False},
    "model": {"file": "model.onnx", "sha256": MODEL},
    "bento": {"name": TAG, "digest": f"sha256:{'b' * 64}"},
}
EXPECTED = [
    {"name": "EXPECTED_RELEASE", "value": TAG},
    {"name": "EXPECTED_MODEL_SHA256", "value": MODEL},
    {"name": "RELEASE_DIGEST", "value": f"sha256:{'b' * 64}"},
]


@pytest.fixture(autouse=True)
def _on_bentocloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_project(tmp_path, "bentocloud"))


def describe(root: Path, text: str, environment: str = "staging") -> None:
    path = root / "deploy" / f"{environment}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def rendered(root: Path, environment: str = "staging") -> dict[str, Any]:
    files = render(root, environment, RELEASE)
    assert list(files) == ["deployment.yaml"]
    return dict(yaml.safe_load(files["deployment.yaml"]))


def test_the_deployment_is_the_environments_with_the_release(tmp_path: Path) -> None:
    describe(
        tmp_path,
        f"""
cluster: eu
envs: [{{name: SERVICE_WORKERS, value: "2"}}]
secrets: [database]
labels: [{{key: team, value: data}}]
services:
  {PACKAGE}:
    instance_type: cpu.2
    scaling: {{min_replicas: 0, max_replicas: 4, policy: {{scale_up_stabilization_window: 60}}}}
    cold_start_timeout: 60
""",
    )
    assert rendered(tmp_path) == {
        "name": f"{PACKAGE.replace('_', '-')}-staging",
        "bento": TAG,
        "access_authorization": False,
        "cluster": "eu",
        "services": {
            PACKAGE: {
                "instance_type": "cpu.2",
                "scaling": {
                    "min_replicas": 0,
                    "max_replicas": 4,
                    "policy": {"scale_up_stabilization_window": 60},
                },
                "envs": [],
                "cold_start_timeout": 60,
            }
        },
        "secrets": ["database"],
        "labels": [{"key": "team", "value": "data"}],
        "envs": [{"name": "SERVICE_WORKERS", "value": "2"}, *EXPECTED],
    }
    assert render(tmp_path, "staging", RELEASE) == render(tmp_path, "staging", RELEASE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("[", "cannot be read"),
        ("", "the file: Input should be a valid dictionary"),
        ("{}", "services: Field required"),
        ("services: {}", f"services: must name {PACKAGE}, and nothing else"),
        ("services: {shop: {}}", f"services: must name {PACKAGE}"),
        (f"services: {{{PACKAGE}: {{}}, shop: {{}}}}", f"services: must name {PACKAGE}"),
        (f"services: {{{PACKAGE}: {{scalling: {{}}}}}}", f"services.{PACKAGE}.scalling: Extra"),
        (f"services: {{{PACKAGE}: {{scaling: {{min_replicas: -1}}}}}}", "min_replicas"),
        (f"services: {{{PACKAGE}: {{scaling: {{max_replicas: 0}}}}}}", "max_replicas"),
        (f"services: {{{PACKAGE}: {{scaling: {{max_replicas: '2'}}}}}}", "max_replicas"),
        (f"services: {{{PACKAGE}: {{deployment_strategy: Sometimes}}}}", "deployment_strategy"),
        (f"name: shop\nservices: {{{PACKAGE}: {{}}}}", "name: Extra inputs"),
        (f"bento: shop:1\nservices: {{{PACKAGE}: {{}}}}", "bento: Extra inputs"),
        (f"access_authorization: true\nservices: {{{PACKAGE}: {{}}}}", "access_authorization"),
        (
            f"envs: [{{name: EXPECTED_RELEASE, value: x}}]\nservices: {{{PACKAGE}: {{}}}}",
            "must not set EXPECTED_RELEASE",
        ),
        (
            f"services: {{{PACKAGE}: {{envs: [{{name: EXPECTED_MODEL_SHA256, value: x}}]}}}}",
            "must not set EXPECTED_MODEL_SHA256",
        ),
        (
            f"services: {{{PACKAGE}: {{envs: [{{name: RELEASE_DIGEST, value: x}}]}}}}",
            "must not set RELEASE_DIGEST",
        ),
        (f"envs: [{{name: A, value: 1}}]\nservices: {{{PACKAGE}: {{}}}}", "envs.0.value"),
    ],
)
def test_what_is_no_description_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        describe(tmp_path, text)
    with pytest.raises(DeploymentError, match=r"deploy/staging\.yaml: ") as caught:
        render(tmp_path, "staging", RELEASE)
    assert words in str(caught.value)


def test_a_release_that_lacks_something_is_refused(tmp_path: Path) -> None:
    describe(tmp_path, f"services: {{{PACKAGE}: {{}}}}")
    with pytest.raises(ReleaseError, match=r"bento\.digest"):
        render(tmp_path, "staging", {**RELEASE, "bento": {"name": TAG, "digest": "latest"}})


# The command, and the project's own environments


@pytest.fixture
def recorded_release(generated: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the project's own `deploy/`, and a recorded release."""
    own = generated(deploy_target="bentocloud")
    shutil.copytree(own / "deploy", tmp_path / "deploy")
    folder = tmp_path / "build" / "release"
    folder.mkdir(parents=True)
    (folder / "release.json").write_text(json.dumps(RELEASE), encoding="utf-8")
    golden = {"records": [{}], "predictions": [{"prediction": 1}], "tolerance": 1e-5}
    (folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_projects_environments_run_the_release(
    recorded_release: Path, capsys: pytest.CaptureFixture[str], environment: str
) -> None:
    assert main(["--environment", environment, "--out", "rendered"]) == 0
    assert capsys.readouterr().out == "rendered/deployment.yaml\n"
    content = yaml.safe_load(Path("rendered/deployment.yaml").read_text(encoding="utf-8"))
    assert content["name"] == f"{PACKAGE.replace('_', '-')}-{environment}"
    assert content["bento"] == TAG
    assert content["envs"] == EXPECTED


def test_the_command_names_a_wrong_environment_and_a_missing_release(
    recorded_release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--environment", "elsewhere"]) == 1
    assert "deploy/elsewhere.yaml: cannot be read" in capsys.readouterr().err
    (recorded_release / "build" / "release" / "release.json").unlink()
    assert main(["--environment", "staging"]) == 1
    assert "make release-record" in capsys.readouterr().err
