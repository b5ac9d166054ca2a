"""The container image, for real: built, tested, pushed, pulled by digest, run; and refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from podman import BASE, INSTALLERS, Podman, Registry

pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]

BENTO = "/home/bentoml/bento/src"
SERVICE = f"{BENTO}/gitops_ml/serving/service.py"


@dataclass(frozen=True)
class Imaged:
    """A project whose image was built, tested and pushed."""

    project: Path
    name: str
    task: Callable[..., CompletedProcess[str]]
    outputs: Path

    @property
    def record_file(self) -> Path:
        """What the project knows of its image."""
        return self.project / "build" / "image.json"

    @property
    def record(self) -> dict[str, Any]:
        """The same, read."""
        return dict(json.loads(self.record_file.read_text(encoding="utf-8")))

    @property
    def bento(self) -> Path:
        """The bento's folder in the store."""
        folder = self.project.parent / "bentoml" / "bentos" / "flight_delays"
        return folder / str(self.record["tag"])


@pytest.fixture(scope="module")
def imaged(
    podman: Podman,
    podman_env: Mapping[str, str],
    registry: Registry,
    project_run: Run,
    _pipeline_runs: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Imaged:
    folder = tmp_path_factory.mktemp("imaged")
    project = folder / "flight_delays"
    shutil.copytree(_pipeline_runs("classification"), project, symlinks=True)
    name = f"{registry.host}/acme/flight-delays"
    outputs = folder / "outputs"
    env = {**podman_env, "IMAGE": name, "GITHUB_OUTPUT": str(outputs)}

    def task(*words: str, check: bool = True, **more: str) -> CompletedProcess[str]:
        return project_run(project, "make", *words, env={**env, **more}, check=check)

    # Its tag is on Docker Hub, which cannot be asked here; a registry of one's own can.
    dockerfile = project / "deploy" / "image" / "Dockerfile"
    text = dockerfile.read_text(encoding="utf-8")
    assert f"\nFROM {BASE}\n" in text
    mirrored = text.replace(f"FROM {BASE}", f"FROM {BASE.replace('docker.io', registry.host)}")
    dockerfile.write_text(mirrored, encoding="utf-8")
    for step in ("package", "pin-base-image", "image", "smoke-image", "push-image"):
        task(step)
    return Imaged(project, name, task, outputs)


@pytest.fixture
def kept(imaged: Imaged, podman: Podman) -> Iterator[Imaged]:
    """The same for a test that changes the record or the bento; both are as before afterwards."""
    record = imaged.record
    files = [imaged.bento / "src" / name for name in ("release.json", "reports/golden.json")]
    before = {path: path.read_bytes() for path in files}
    yield imaged
    for path, content in before.items():
        path.write_bytes(content)
    imaged.record_file.write_text(json.dumps(record), encoding="utf-8")


def manifest(registry: Registry, reference: str, name: str = "acme/flight-delays") -> bytes:
    """The bytes of a manifest that the registry holds."""
    request = urllib.request.Request(
        f"http://{registry.host}/v2/{name}/manifests/{reference}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


def test_what_is_pushed_runs_by_its_digest_and_answers_as_the_model_did(
    imaged: Imaged, elsewhere: Podman, registry: Registry
) -> None:
    record = imaged.record
    digest = record["digest"]
    held = manifest(registry, record["tag"])
    assert f"sha256:{hashlib.sha256(held).hexdigest()}" == digest
    assert json.loads(held)["config"]["digest"] == record["id"] == record["tested"]
    assert imaged.outputs.read_text() == f"name={imaged.name}\ndigest={digest}\n"

    assert elsewhere("images", "--quiet").stdout == ""
    elsewhere(
        "run", "--detach", "--name=live", "--read-only", "--tmpfs=/tmp",
        "--env=BENTOML_HOME=/tmp/bentoml", f"--env=RELEASE_DIGEST={digest}",
        "--publish=127.0.0.1::3000", f"{imaged.name}@{digest}",
    )  # fmt: skip
    url = f"http://{elsewhere('port', 'live', '3000').stdout.strip()}"
    asked = imaged.task("smoke", f"URL={url}")
    assert f"runs {record['bento']}, gives all 20 golden predictions" in asked.stdout
    with urllib.request.urlopen(f"{url}/release", timeout=10) as response:
        assert json.load(response)["digest"] == digest


def test_the_image_holds_nothing_that_installed_it(imaged: Imaged, podman: Podman) -> None:
    record = imaged.record
    images = {"built": f"{imaged.name}:{record['tag']}-build", "shipped": record["id"]}
    look = f"for tool in {' '.join(INSTALLERS)}; do command -v $tool; done; exit 0"
    found, sizes = {}, {}
    for what, image in images.items():
        said = podman("run", "--rm", "--entrypoint=/bin/sh", image, "-c", look).stdout
        found[what] = said.split()
        size = podman("image", "inspect", "--format", "{{.Size}}", image).stdout
        sizes[what] = int(size) / 1e6
    print(f"built: {sizes['built']:.0f} MB, shipped: {sizes['shipped']:.0f} MB")

    assert found == {"built": [f"/usr/bin/{tool}" for tool in INSTALLERS], "shipped": []}
    assert sizes["shipped"] <= sizes["built"]


def test_the_base_is_pinned_by_the_digest_that_its_registry_tells(
    imaged: Imaged, registry: Registry
) -> None:
    name, tag = BASE.replace("docker.io/", "").split(":")
    digest = f"sha256:{hashlib.sha256(manifest(registry, tag, name)).hexdigest()}"
    text = (imaged.project / "deploy" / "image" / "Dockerfile").read_text(encoding="utf-8")
    assert f"\nFROM {registry.host}/{name}:{tag}@{digest}\n" in text
    assert imaged.record["base"] == f"{registry.host}/{name}@{digest}"


def test_the_image_says_what_it_is_made_of(imaged: Imaged, podman: Podman) -> None:
    record = imaged.record
    (image,) = json.loads(podman("image", "inspect", record["id"]).stdout)
    name, _, base = record["base"].partition("@")
    release = json.loads((imaged.bento / "src" / "release.json").read_text(encoding="utf-8"))
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in image["Labels"].items()
        if key.startswith("org.opencontainers.image.")
    }

    assert labels == {
        "title": "flight_delays",
        "version": record["tag"],
        "revision": release["source"]["commit"],
        "base.name": name,
        "base.digest": base,
    }
    assert image["User"] == "bentoml"
    assert release["release"] == record["bento"] == f"flight_delays:{record['tag']}"


# What is changed in the image, in the bento that it is held against, and what must be said then.
BROKEN: Mapping[str, tuple[str, Mapping[str, tuple[str, str]], tuple[str, ...]]] = {
    "it does not start": (
        f"RUN echo 'raise RuntimeError(\"out of order\")' >> {SERVICE}",
        {},
        ("ended with exit code", "out of order"),
    ),
    "it needs more memory than it may have": (
        f"RUN echo 'HOARD = bytes(range(256)) * 8_000_000' >> {SERVICE}",
        {},
        ("exit code 137; does it need more memory than the 1Gi of production?",),
    ),
    "it writes into its own folder": (
        f'RUN echo \'open("{BENTO}/state", "w")\' >> {SERVICE}',
        {},
        ("Read-only file system",),
    ),
    "it is root": ("USER 0", {}, ("runs as root",)),
    "it holds another model": (
        "",
        {"release.json": ('"sha256": "', '"sha256": "0000')},
        ("ended with exit code", "EXPECTED_MODEL_SHA256", "0000"),
    ),
    "it does not say what it was deployed as": (
        f"RUN sed -i s/config.release_digest/None/ {BENTO}/gitops_ml/serving/release.py",
        {},
        ("deployed as no digest, not as sha256:",),
    ),
    "it predicts something else": (
        "",
        {"reports/golden.json": ('"predictions": [', '"predictions": [{"prediction": "?"},')},
        ("the predictions differ",),
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_image_is_refused_and_cannot_be_pushed(
    kept: Imaged, podman: Podman, registry: Registry, tmp_path: Path, fault: str
) -> None:
    change, edits, words = BROKEN[fault]
    record = kept.record
    if change:
        (tmp_path / "Dockerfile").write_text(f"FROM {record['id']}\n{change}\n", encoding="utf-8")
        built = podman("build", "--quiet", str(tmp_path)).stdout.strip()
        record |= {"id": f"sha256:{built}"}
        kept.record_file.write_text(json.dumps(record), encoding="utf-8")
    for name, (old, new) in edits.items():
        path = kept.bento / "src" / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    refused = kept.task("smoke-image", check=False)

    assert refused.returncode != 0
    for word in words:
        assert word in refused.stderr
    assert "Traceback" not in refused.stderr.partition("The container said:")[0]
    assert podman.containers() == []
    pushed = kept.task("push-image", check=False)
    assert pushed.returncode != 0
    assert "not tested; run `make smoke-image`" in pushed.stderr
    assert manifest(registry, record["tag"]) == manifest(registry, record["digest"])


def test_a_registry_that_is_down_is_named_and_the_next_run_pushes_the_same(
    kept: Imaged, registry: Registry
) -> None:
    record = kept.record
    del record["digest"]
    kept.record_file.write_text(json.dumps(record), encoding="utf-8")
    registry.stop()
    try:
        began = time.monotonic()
        refused = kept.task("push-image", check=False)
        assert time.monotonic() - began > 5  # it waits, and tries again
    finally:
        registry.start()

    assert refused.returncode != 0
    assert "3 times; is the registry up, is IMAGE right" in refused.stderr
    assert "connection refused" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "digest" not in kept.record
    kept.task("push-image")
    assert kept.record["tested"] == record["id"]
    assert json.loads(manifest(registry, kept.record["digest"]))["config"]["digest"] == record["id"]


def test_an_image_that_is_built_again_must_be_tested_again(kept: Imaged) -> None:
    kept.task("image")

    refused = kept.task("push-image", check=False)

    assert refused.returncode != 0
    assert "not tested; run `make smoke-image`" in refused.stderr
