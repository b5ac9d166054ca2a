from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import subcommand
from conftest import Bake
from projects import make_project

from gitops_ml.core.run import CommandError, NoEndError
from gitops_ml.ship.release.release import ReleaseError
from gitops_ml.ship.settings import DeploymentError
from gitops_ml.ship.targets import manifests as module
from gitops_ml.ship.targets.manifests import render

main = subcommand("render")

MODEL = "0123456789abcdef" * 4
DIGEST = "sha256:" + "b" * 64
IMAGE = f"registry.example.com:5000/acme/shop@{DIGEST}"
RELEASE: dict[str, Any] = {
    "release": "shop:0a1b2c3d-01234567",
    "source": {"commit": "c" * 40, "dirty": False},
    "model": {"file": "model.onnx", "sha256": MODEL},
    "image": {"name": "registry.example.com:5000/acme/shop", "digest": DIGEST},
}
EXPECTED = {
    "EXPECTED_RELEASE": RELEASE["release"],
    "EXPECTED_MODEL_SHA256": MODEL,
    "RELEASE_DIGEST": DIGEST,
}

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which brings kustomize, is not installed"
)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def pod(image: str = "service", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shop"},
        "spec": {
            "containers": [
                {
                    "name": "service",
                    "image": image,
                    "envFrom": [{"configMapRef": {"name": "release"}}],
                }
            ],
            **more,
        },
    }


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a small `deploy/`: one pod, and a component that gives it another name."""
    deploy = tmp_path / "deploy"
    literals = [f"{name}=" for name in EXPECTED]
    write(
        deploy / "base" / "kustomization.yaml",
        {
            "resources": ["pod.yaml"],
            "configMapGenerator": [{"name": "release", "literals": literals}],
        },
    )
    write(deploy / "base" / "pod.yaml", pod())
    write(
        deploy / "overlays" / "staging" / "kustomization.yaml",
        {"resources": ["../../base"], "namespace": "shop-staging"},
    )
    write(
        deploy / "slots" / "blue" / "kustomization.yaml",
        {
            "apiVersion": "kustomize.config.k8s.io/v1alpha1",
            "kind": "Component",
            "nameSuffix": "-blue",
        },
    )
    write(deploy / "outputs.yaml", {"manifests.yaml": []})
    return tmp_path


def objects(text: bytes) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


@needs_kubectl
def test_the_image_is_named_by_digest_and_the_container_is_told_what_it_must_be(shop: Path) -> None:
    files = render(shop, "staging", RELEASE)

    assert list(files) == ["manifests.yaml"]
    found = objects(files["manifests.yaml"])
    (container,) = found["Pod"]["spec"]["containers"]
    assert container["image"] == IMAGE
    assert found["ConfigMap"]["data"] == EXPECTED
    assert container["envFrom"] == [
        {"configMapRef": {"name": found["ConfigMap"]["metadata"]["name"]}}
    ]
    assert found["Pod"]["metadata"]["namespace"] == "shop-staging"


@needs_kubectl
def test_settings_beside_the_release_stay(shop: Path) -> None:
    path = shop / "deploy" / "base" / "kustomization.yaml"
    base = json.loads(path.read_text())
    base["configMapGenerator"][0]["literals"].append("SERVICE_WORKERS=2")
    write(path, base)

    found = objects(render(shop, "staging", RELEASE)["manifests.yaml"])

    assert found["ConfigMap"]["data"] == {**EXPECTED, "SERVICE_WORKERS": "2"}


@needs_kubectl
def test_another_model_gets_a_config_map_of_another_name(shop: Path) -> None:
    """What starts with the old one still finds it."""
    other = {**RELEASE, "model": {"file": "model.onnx", "sha256": "d" * 64}}

    names = {
        objects(render(shop, "staging", release)["manifests.yaml"])["ConfigMap"]["metadata"]["name"]
        for release in (RELEASE, other)
    }

    assert len(names) == 2


@needs_kubectl
def test_the_same_release_gives_the_same_bytes_and_leaves_the_project_alone(shop: Path) -> None:
    before = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}

    assert render(shop, "staging", RELEASE) == render(shop, "staging", RELEASE)

    assert {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()} == before


@needs_kubectl
def test_each_output_has_its_components_on_top(shop: Path) -> None:
    write(shop / "deploy" / "outputs.yaml", {"plain.yaml": [], "blue.yaml": ["slots/blue"]})

    files = render(shop, "staging", RELEASE)

    names = {name: objects(text)["Pod"]["metadata"]["name"] for name, text in files.items()}
    assert names == {"plain.yaml": "shop", "blue.yaml": "shop-blue"}
    for text in files.values():
        assert objects(text)["ConfigMap"]["data"] == EXPECTED


@needs_kubectl
def test_a_missing_environment_is_named_with_those_there_are(shop: Path) -> None:
    with pytest.raises(DeploymentError, match="no environment 'produktion'; there is staging"):
        render(shop, "produktion", RELEASE)


@needs_kubectl
def test_what_kustomize_says_is_shown_without_its_temporary_folder(shop: Path) -> None:
    (shop / "deploy" / "base" / "pod.yaml").unlink()

    with pytest.raises(DeploymentError) as error:
        render(shop, "staging", RELEASE)

    assert "`kubectl kustomize` failed on deploy/" in str(error.value)
    assert "pod.yaml" in str(error.value)
    assert "/tmp" not in str(error.value)


@needs_kubectl
@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (pod(image="shop"), "'service' runs 'shop'"),
        (pod(image="shop:1.2"), "'service' runs 'shop:1.2'"),
        (pod(image=f"shop@{DIGEST}"), f"no container runs the release's image {IMAGE}"),
        (pod(initContainers=[{"name": "first", "image": "busybox:latest"}]), "'first' runs"),
    ],
    ids=["no-tag", "tag", "another-image", "init-container"],
)
def test_an_image_that_is_not_the_releases_is_refused(
    shop: Path, plant: dict[str, Any], told: str
) -> None:
    write(shop / "deploy" / "base" / "pod.yaml", plant)

    with pytest.raises(DeploymentError, match=told):
        render(shop, "staging", RELEASE)


def set_path(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    *parents, last = path.split(".")
    place = copy
    for name in parents:
        place = place[name]
    place[last] = new
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image.digest", "latest"),
        ("image.digest", "sha256:abc"),
        ("image.digest", None),
        ("image.name", "shop latest"),
        ("model.sha256", "0" * 63),
        ("release", ""),
    ],
)
def test_a_release_that_lacks_something_is_refused(shop: Path, path: str, value: Any) -> None:
    with pytest.raises(ReleaseError, match=path):
        render(shop, "staging", set_path(RELEASE, path, value))


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (None, "No such file"),
        ("[", "outputs.yaml: must name each file"),
        ("", "outputs.yaml: must name each file"),
        ("{}", "names no file"),
        ("manifests.yaml", "must name each file"),
        ("manifests.yaml: slots/blue", "must name each file"),
        ("manifests.yaml: [1]", "must name each file"),
        ("release.json: []", "'release.json' is not the plain name of a YAML file"),
        ("../manifests.yaml: []", "is not the plain name"),
        ("blue.yaml: [slots/red]", "deploy/slots/red holds no kustomization.yaml"),
    ],
)
def test_outputs_that_cannot_be_are_named(shop: Path, outputs: str | None, told: str) -> None:
    path = shop / "deploy" / "outputs.yaml"
    path.unlink() if outputs is None else write(path, outputs)

    with pytest.raises(DeploymentError, match=told):
        render(shop, "staging", RELEASE)


# Without kustomize


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a Python script answer in place of kustomize."""

    def use(script: str) -> None:
        write(tmp_path / "stand_in.py", script)
        monkeypatch.setenv("KUSTOMIZE", f"'{sys.executable}' '{tmp_path / 'stand_in.py'}'")

    return use


def test_without_kubectl_it_says_what_to_install(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(shop))
    monkeypatch.delenv("KUSTOMIZE", raising=False)

    with pytest.raises(DeploymentError, match="`kubectl kustomize`: not installed; install kube"):
        render(shop, "staging", RELEASE)


def test_another_command_is_used_as_it_is_named(
    shop: Path, stand_in: Callable[[str], None]
) -> None:
    config_map = {"kind": "ConfigMap", "data": EXPECTED}
    text = f"{json.dumps(pod(image=IMAGE))}\n---\n{json.dumps(config_map)}\n"
    stand_in(f"import pathlib, sys; assert pathlib.Path(sys.argv[1]).is_dir(); print({text!r})")

    assert objects(render(shop, "staging", RELEASE)["manifests.yaml"])["ConfigMap"] == config_map


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import sys; sys.exit('out of order')", "failed on deploy/:\nout of order"),
        ("print('[')", "manifests.yaml: what kustomize wrote is no YAML"),
        ("", "no container runs the release's image"),
        (f"print({json.dumps(pod(image=IMAGE))!r})", "no ConfigMap tells the container"),
    ],
    ids=["fails", "no-yaml", "nothing", "no-config-map"],
)
def test_a_command_that_answers_badly_is_named(
    shop: Path, stand_in: Callable[[str], None], script: str, told: str
) -> None:
    stand_in(script)

    with pytest.raises(DeploymentError) as error:
        render(shop, "staging", RELEASE)

    assert told in str(error.value)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("value", [None, "another"])
def test_a_container_that_is_told_less_or_something_else_is_refused(
    shop: Path, stand_in: Callable[[str], None], name: str, value: str | None
) -> None:
    data = {key: given for key, given in {**EXPECTED, name: value}.items() if given}
    text = f"{json.dumps(pod(image=IMAGE))}\n---\n{json.dumps({'kind': 'ConfigMap', 'data': data})}"
    stand_in(f"print({text!r})")

    with pytest.raises(DeploymentError, match="no ConfigMap tells the container which release"):
        render(shop, "staging", RELEASE)


def test_a_command_that_does_not_end_is_named(
    shop: Path, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KUSTOMIZE_SECONDS", 0.5)
    stand_in("import time; time.sleep(60)")

    with pytest.raises(NoEndError, match="no end after"):
        render(shop, "staging", RELEASE)


@pytest.mark.parametrize("command", ["'", "."])
def test_a_command_that_is_none_is_named(
    shop: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("KUSTOMIZE", command)

    with pytest.raises((CommandError, DeploymentError), match="cannot be run"):
        render(shop, "staging", RELEASE)


def test_a_disk_without_space_for_the_copy_is_named(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "file").touch()
    monkeypatch.setattr(module.tempfile, "tempdir", str(shop / "file"))

    with pytest.raises(DeploymentError, match="deploy: a copy of it cannot be written"):
        render(shop, "staging", RELEASE)


# The command, and the project's own manifests


@pytest.fixture
def recorded(generated: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the project's own `deploy/`, and a recorded release."""
    shutil.copytree(generated() / "deploy", tmp_path / "deploy")
    make_project(tmp_path)
    write(tmp_path / "build" / "release" / "release.json", RELEASE)
    golden = {"records": [{}], "predictions": [{"prediction": 1}], "tolerance": 1e-5}
    write(tmp_path / "build" / "release" / "golden.json", golden)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs_kubectl
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_projects_manifests_run_the_release(
    recorded: Path, capsys: pytest.CaptureFixture[str], environment: str
) -> None:
    assert main(["--environment", environment, "--out", "rendered"]) == 0

    outputs = yaml.safe_load((recorded / "deploy" / "outputs.yaml").read_text())
    assert capsys.readouterr().out.splitlines() == [f"rendered/{name}" for name in outputs]
    for name in outputs:
        text = (recorded / "rendered" / name).read_bytes()
        assert IMAGE.encode() in text
        assert objects(text)["ConfigMap"]["data"] == EXPECTED


@pytest.mark.parametrize("environment", ["", "elsewhere"])
def test_the_command_names_a_wrong_environment(
    recorded: Path, capsys: pytest.CaptureFixture[str], environment: str
) -> None:
    assert main(["--environment", environment]) == 1

    told = capsys.readouterr().err
    assert f"no environment {environment!r}; there is production, staging" in told
    assert not (recorded / "build" / "manifests").exists()


def test_the_command_names_a_missing_release(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded / "build" / "release" / "release.json").unlink()

    assert main(["--environment", "staging"]) == 1

    assert "make release-record" in capsys.readouterr().err
