"""What is deployed: rendered for every environment, valid for Kubernetes, and safe to run.

Every check is shown a project with a defect as well.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Bake, Run, generate

pytestmark = pytest.mark.slow

# The oldest version that the manifests are for, and the newest that there are schemas of.
KUBERNETES = ("1.29", "1.37")
ENVIRONMENTS = ("production", "staging")
OUTPUTS = ["manifests.yaml"]
PORT = 3000
RELEASE = {
    "release": "flight_delays:0a1b2c3d-01234567",
    "source": {"commit": "c" * 40, "dirty": False},
    "model": {"file": "model.onnx", "sha256": "0123456789abcdef" * 4},
    "image": {"name": "ghcr.io/acme/flight-delays", "digest": "sha256:" + "b" * 64},
}
IMAGE = f"{RELEASE['image']['name']}@{RELEASE['image']['digest']}"
EXPECTED = {
    "EXPECTED_RELEASE": RELEASE["release"],
    "EXPECTED_MODEL_SHA256": RELEASE["model"]["sha256"],
    "RELEASE_DIGEST": RELEASE["image"]["digest"],
}
GOLDEN = {"records": [{}], "predictions": [{"prediction": 1}], "tolerance": 1e-5}

Object = dict[str, Any]
Rendered = Mapping[str, list[Object]]


def render(project: Path, environment: str, project_run: Run) -> Rendered:
    """The objects of each file, as `make render` writes them."""
    out = project / "build" / environment
    done = project_run(
        project, "make", "render", f"ENVIRONMENT={environment}", f"OUT={out}", "RUN="
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: list(yaml.safe_load_all(path.read_text())) for path in out.iterdir()}


@pytest.fixture(scope="module")
def baked(
    template: Path, env_without_uv: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The project with a recorded release; not to be changed."""
    folder = tmp_path_factory.mktemp("kubernetes")
    project = generate(template, folder, env_without_uv, deploy_target="kubernetes")
    record = project / "build" / "release"
    record.mkdir(parents=True)
    (record / "release.json").write_text(json.dumps(RELEASE))
    (record / "golden.json").write_text(json.dumps(GOLDEN))
    return project


@pytest.fixture(scope="module")
def rendered(baked: Path, project_run: Run) -> Callable[[str], Rendered]:
    """What each environment is rendered to."""
    known: dict[str, Rendered] = {}

    def of(environment: str) -> Rendered:
        if environment not in known:
            known[environment] = render(baked, environment, project_run)
        return known[environment]

    return of


def of_kind(objects: list[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def pod_of(objects: list[Object]) -> Object:
    return of_kind(objects, "Deployment")["spec"]["template"]["spec"]


def container_of(objects: list[Object]) -> Object:
    (container,) = (c for c in pod_of(objects)["containers"] if c["name"] == "service")
    return container


def unequal(**values: tuple[Any, Any]) -> list[str]:
    """What is not as it should be, from found and wanted."""
    return [f"{k} is {found!r}, not {wanted!r}" for k, (found, wanted) in values.items()
            if found != wanted]  # fmt: skip


# The checks: what is wrong with the objects of one file


def against_the_schemas(objects: list[Object]) -> list[str]:
    problems = []
    for version, item in itertools.product(KUBERNETES, objects):
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
        ) as error:
            problems.append(f"{version} {item['kind']}: {error.message}")
    return problems


def image(objects: list[Object]) -> list[str]:
    return unequal(images=([c["image"] for c in pod_of(objects)["containers"]], [IMAGE]))


def release(objects: list[Object]) -> list[str]:
    config_map = of_kind(objects, "ConfigMap")
    sources = [source["configMapRef"]["name"] for source in container_of(objects)["envFrom"]]
    own = {entry["name"] for entry in container_of(objects)["env"]}
    return unequal(
        expected=(config_map["data"], EXPECTED),
        # What the container is given by name would count instead.
        overridden=(own & EXPECTED.keys(), set()),
        source=(sources, [config_map["metadata"]["name"]]),
        namespace=(
            config_map["metadata"]["namespace"],
            of_kind(objects, "Deployment")["metadata"]["namespace"],
        ),
    )


def confinement(objects: list[Object]) -> list[str]:
    """The level "restricted" of Kubernetes' pod security standards, and a read-only file system."""
    pod, container = pod_of(objects), container_of(objects)
    own = pod["securityContext"] | container["securityContext"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    writable = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    return unequal(
        non_root=(own.get("runAsNonRoot"), True),
        user=((own.get("runAsUser"), own.get("runAsGroup")), (1034, 1034)),
        read_only=(own.get("readOnlyRootFilesystem"), True),
        escalation=(own.get("allowPrivilegeEscalation"), False),
        privileged=(own.get("privileged", False), False),
        capabilities=(own.get("capabilities"), {"drop": ["ALL"]}),
        seccomp=(own.get("seccompProfile"), {"type": "RuntimeDefault"}),
        token=(pod.get("automountServiceAccountToken"), False),
        host=([pod.get(f"host{what}", False) for what in ("Network", "PID", "IPC")], [False] * 3),
        writable=({path for path, name in mounts.items() if name in writable}, {"/tmp"}),
        home=(
            [
                e["value"].startswith("/tmp/")
                for e in container["env"]
                if e["name"] == "BENTOML_HOME"
            ],
            [True],
        ),
    )


def resources(objects: list[Object]) -> list[str]:
    found = container_of(objects)["resources"]
    return unequal(
        requests=(set(found.get("requests", ())), {"cpu", "memory"}),
        limits=(set(found.get("limits", ())), {"memory"}),
    )


def named_port(objects: list[Object], port: int | str) -> int:
    ports = {entry["name"]: entry["containerPort"] for entry in container_of(objects)["ports"]}
    return port if isinstance(port, int) else ports.get(port, 0)


def probes(objects: list[Object]) -> list[str]:
    container = container_of(objects)
    found = {
        name: (probe["httpGet"]["path"], named_port(objects, probe["httpGet"]["port"]))
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
        if (probe := container.get(name))
    }
    wanted = {
        "startupProbe": ("/readyz", PORT),
        "readinessProbe": ("/readyz", PORT),
        "livenessProbe": ("/livez", PORT),
    }
    startup = container.get("startupProbe", {})
    seconds = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
    return unequal(probes=(found, wanted), time_to_start=(seconds >= 60, True))


def roll_out(objects: list[Object]) -> list[str]:
    """An update takes no pod away before there is another, and the autoscaler sets their number."""
    deployment = of_kind(objects, "Deployment")
    autoscaler = of_kind(objects, "HorizontalPodAutoscaler")["spec"]
    production = deployment["metadata"]["namespace"].endswith("-production")
    grace = pod_of(objects)["terminationGracePeriodSeconds"]
    stop = container_of(objects).get("lifecycle", {}).get("preStop", {}).get("exec", {})
    return unequal(
        unavailable=(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0),
        replicas=(deployment["spec"].get("replicas"), None),
        spare_pod=(autoscaler["minReplicas"] >= (2 if production else 1), True),
        room=(autoscaler["maxReplicas"] > autoscaler["minReplicas"], True),
        wait=(stop.get("command", [""])[0], "sleep"),
        time_to_stop=(grace >= 30, True),
        given_up_before_the_probe=(
            deployment["spec"].get("progressDeadlineSeconds", 600) < 600,
            True,
        ),
    )


def selection(objects: list[Object]) -> list[str]:
    """What selects pods selects those of the Deployment."""
    deployment = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    (spread,) = pod_of(objects)["topologySpreadConstraints"]
    selectors = {
        "Deployment": deployment["spec"]["selector"]["matchLabels"],
        "Service": of_kind(objects, "Service")["spec"]["selector"],
        "PodDisruptionBudget": of_kind(objects, "PodDisruptionBudget")["spec"]["selector"][
            "matchLabels"
        ],
        "NetworkPolicy": of_kind(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "spread": spread["labelSelector"]["matchLabels"],
    }
    target = of_kind(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    account = of_kind(objects, "ServiceAccount")
    return [
        f"{name} selects {selector}, not the pods"
        for name, selector in selectors.items()
        if not selector or not selector.items() <= labels
    ] + unequal(
        scaled=((target["kind"], target["name"]), ("Deployment", deployment["metadata"]["name"])),
        account=(pod_of(objects)["serviceAccountName"], account["metadata"]["name"]),
        token=(account["automountServiceAccountToken"], False),
    )


def network(objects: list[Object]) -> list[str]:
    """Requests reach the service's port; nothing leaves."""
    policy = of_kind(objects, "NetworkPolicy")["spec"]
    allowed = [
        (port.get("protocol", "TCP"), named_port(objects, port["port"]))
        for rule in policy.get("ingress", [])
        if "from" not in rule
        for port in rule["ports"]
    ]
    (service_port,) = of_kind(objects, "Service")["spec"]["ports"]
    return unequal(
        types=(set(policy["policyTypes"]), {"Ingress", "Egress"}),
        allowed=(allowed, [("TCP", PORT)]),
        leaving=(policy.get("egress", []), []),
        service=(named_port(objects, service_port["targetPort"]), PORT),
    )


def namespaces(objects: list[Object]) -> list[str]:
    found = {item["metadata"].get("namespace", "default") for item in objects}
    if len(found) == 1 and found <= {f"flight-delays-{name}" for name in ENVIRONMENTS}:
        return []
    return [f"the namespaces are {found}"]


CHECKS = (against_the_schemas, image, release, confinement, resources, namespaces, probes, roll_out,
          selection, network)  # fmt: skip
Check = Callable[[list[Object]], list[str]]


def name_of(check: object) -> str:
    return getattr(check, "__name__", str(check))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_everything_is_as_it_should_be(
    rendered: Callable[[str], Rendered], check: Check, environment: str
) -> None:
    files = rendered(environment)

    assert sorted(files) == OUTPUTS
    assert check(files["manifests.yaml"]) == []


BASE, PRODUCTION = "deploy/base", "deploy/overlays/production"
DEPLOYMENT = f"{BASE}/deployment.yaml"
# The check that must see it, the file, what is there, and what is there instead.
FAULTS: list[tuple[Check, str, str, str]] = [
    (against_the_schemas, DEPLOYMENT, "enableServiceLinks", "enableServicesLinks"),
    (against_the_schemas, f"{BASE}/service.yaml", "port: 80", "port: eighty"),
    (against_the_schemas, f"{BASE}/disruption-budget.yaml", "policy/v1", "policy/v1beta1"),
    (image, DEPLOYMENT, "containers:", "containers:\n        - name: second\n"
     f"          image: ghcr.io/acme/other@sha256:{'d' * 64}"),
    (release, DEPLOYMENT, "envFrom:", "envFrom:\n            - configMapRef:\n"
     "                name: release-of-yesterday"),
    (release, DEPLOYMENT, "name: release", "name: settings"),
    (release, DEPLOYMENT, "env:", "env:\n            - name: RELEASE_DIGEST\n"
     f"              value: sha256:{'d' * 64}"),
    (confinement, DEPLOYMENT, "runAsNonRoot: true", "runAsNonRoot: false"),
    (confinement, DEPLOYMENT, "runAsUser: 1034", "runAsUser: 0"),
    (confinement, DEPLOYMENT, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (confinement, DEPLOYMENT, "allowPrivilegeEscalation: false", "privileged: true"),
    (confinement, DEPLOYMENT, 'drop: ["ALL"]', 'drop: ["NET_RAW"]'),
    (confinement, DEPLOYMENT, "RuntimeDefault", "Unconfined"),
    (confinement, DEPLOYMENT, "enableServiceLinks: false", "hostNetwork: true"),
    (confinement, DEPLOYMENT, "mountPath: /tmp", "mountPath: /home/bentoml"),
    (confinement, DEPLOYMENT, "value: /tmp/bentoml", "value: /home/bentoml"),
    (resources, f"{PRODUCTION}/resources.yaml", "memory: 1Gi", "memory: 1Gi\n              cpu: 1"),
    (namespaces, f"{PRODUCTION}/kustomization.yaml", "namespace: flight-delays-production", ""),
    (probes, DEPLOYMENT, "path: /livez", "path: /readyz"),
    (probes, DEPLOYMENT, "containerPort: 3000", "containerPort: 8080"),
    (probes, DEPLOYMENT, "failureThreshold: 60", "failureThreshold: 3"),
    (roll_out, DEPLOYMENT, "maxUnavailable: 0", "maxUnavailable: 1"),
    (roll_out, DEPLOYMENT, "revisionHistoryLimit: 3", "replicas: 3"),
    (roll_out, DEPLOYMENT, '["sleep", "5"]', '["true"]'),
    (roll_out, DEPLOYMENT, "progressDeadlineSeconds: 300", "progressDeadlineSeconds: 900"),
    (roll_out, f"{PRODUCTION}/scale.yaml", "minReplicas: 2", "minReplicas: 1"),
    (selection, f"{BASE}/service.yaml", "app.kubernetes.io/name: flight-delays",
     "app.kubernetes.io/name: flights"),
    (selection, f"{BASE}/disruption-budget.yaml", "app.kubernetes.io/name: flight-delays",
     "app: flight-delays"),
    (selection, f"{BASE}/network-policy.yaml", "app.kubernetes.io/name: flight-delays",
     "app: flight-delays"),
    (selection, f"{BASE}/autoscaler.yaml", "kind: Deployment\n    name: flight-delays",
     "kind: Deployment\n    name: flights"),
    (selection, f"{BASE}/service-account.yaml", "Token: false", "Token: true"),
    (network, f"{BASE}/network-policy.yaml", "port: 3000", "port: 80"),
    (network, f"{BASE}/network-policy.yaml", '["Ingress", "Egress"]', '["Ingress"]'),
    (network, f"{BASE}/service.yaml", "targetPort: http", "targetPort: 8080"),
]  # fmt: skip


def test_every_check_is_shown_a_fault() -> None:
    assert {check for check, *_ in FAULTS} == set(CHECKS)


def copy_of(project: Path, tmp_path: Path) -> Path:
    copy = tmp_path / project.name
    shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns("data", ".git"))
    return copy


@pytest.mark.parametrize(
    ("check", "file", "old", "new"),
    FAULTS,
    ids=[f"{name_of(check)}-{new.strip()[:30]!r}" for check, _, _, new in FAULTS],
)
def test_a_fault_is_seen(
    baked: Path,
    project_run: Run,
    tmp_path: Path,
    check: Check,
    file: str,
    old: str,
    new: str,
) -> None:
    project = copy_of(baked, tmp_path)
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))

    objects = render(project, "production", project_run)["manifests.yaml"]

    assert check(objects)


# Between files


def test_environments_share_nothing_but_the_image(
    rendered: Callable[[str], Rendered],
) -> None:
    found = {name: namespaces_of(rendered(name)) for name in ENVIRONMENTS}

    assert found == {name: {f"flight-delays-{name}"} for name in ENVIRONMENTS}


def namespaces_of(files: Rendered) -> set[str]:
    return {item["metadata"]["namespace"] for objects in files.values() for item in objects}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_argo_cd_follows_the_branch_and_applies_the_manifests_alone(
    baked: Path, rendered: Callable[[str], Rendered], environment: str
) -> None:
    project = baked
    spec = of_kind(argo_cd(project, environment), "Application")["spec"]
    source = spec["source"]

    assert source["targetRevision"] == f"env/{environment}"
    assert source["directory"]["include"] in rendered(environment)
    assert {spec["destination"]["namespace"]} == namespaces_of(rendered(environment))
    assert spec["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}
    # The project allows nothing of the whole cluster, so no namespace either.
    assert spec["syncPolicy"]["syncOptions"] == ["PruneLast=true"]


def argo_cd(project: Path, environment: str) -> list[Object]:
    text = (project / "deploy" / "argocd" / f"{environment}.yaml").read_text()
    return list(yaml.safe_load_all(text))


def limits(objects: list[Object], manifests: list[Object], environment: str) -> list[str]:
    """What Argo CD may bring to the cluster is what a release renders, and where, and no more."""
    project, application = of_kind(objects, "AppProject"), of_kind(objects, "Application")
    namespace, spec = of_kind(objects, "Namespace"), project["spec"]
    own = f"flight-delays-{environment}"
    kinds = {
        (item["apiVersion"].rpartition("/")[0].partition("/")[0], item["kind"])
        for item in manifests
    }
    level = namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce")
    return unequal(
        names=({item["metadata"]["name"] for item in objects}, {own}),
        kinds_of_this_file=(
            sorted(item["kind"] for item in objects),
            ["AppProject", "Application", "Namespace"],
        ),
        project=(application["spec"]["project"], project["metadata"]["name"]),
        # In the namespace that Argo CD runs in, where its projects are.
        where=({one["metadata"]["namespace"] for one in (project, application)}, {"argocd"}),
        destinations=(spec["destinations"], [application["spec"]["destination"]]),
        destination=(application["spec"]["destination"]["namespace"], own),
        repositories=(spec["sourceRepos"], [application["spec"]["source"]["repoURL"]]),
        of_the_cluster=(spec["clusterResourceWhitelist"], []),
        kinds=(
            sorted((one["group"], one["kind"]) for one in spec["namespaceResourceWhitelist"]),
            sorted(kinds),
        ),
        level=(level, "restricted"),
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_argo_cd_may_bring_what_a_release_renders_and_no_more(
    baked: Path, rendered: Callable[[str], Rendered], environment: str
) -> None:
    manifests = rendered(environment)["manifests.yaml"]
    assert limits(argo_cd(baked, environment), manifests, environment) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("clusterResourceWhitelist: []", "clusterResourceWhitelist: [{group: '*', kind: '*'}]"),
        ("kind: NetworkPolicy", "kind: '*'"),
        ("      kind: Service\n", "      kind: Secret\n"),
        ("      namespace: flight-delays-staging", "      namespace: '*'"),
        ("project: flight-delays-staging", "project: default"),
        ("    - https://github.com/OWNER/REPOSITORY.git", "    - '*'"),
        ("enforce: restricted", "enforce: privileged"),
        ("  namespace: argocd", "  namespace: other"),
    ],
)
def test_a_wider_project_is_seen(
    baked: Path, rendered: Callable[[str], Rendered], old: str, new: str
) -> None:
    text = (baked / "deploy" / "argocd" / "staging.yaml").read_text()
    assert old in text
    objects = list(yaml.safe_load_all(text.replace(old, new)))
    assert limits(objects, rendered("staging")["manifests.yaml"], "staging")


def admission_policy(project: Path) -> Object:
    """The policy of the page, as somebody would copy it."""
    text = (project / "deploy" / "README.md").read_text()
    section = text.partition("## Only signed images")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    ") or not line]
    policy: Object = yaml.safe_load("\n".join(lines))
    return policy


def admission_faults(policy: Object, delivery: Object, environments: set[str]) -> list[str]:
    """Whether a policy lets in what the delivery of main signed, and no other image."""
    ((rule,), webhook) = policy["spec"]["rules"], policy["spec"]["webhookConfiguration"]
    (match,) = (one["resources"] for one in rule["match"]["any"])
    (verify,) = rule["verifyImages"]
    (attestation,) = verify["attestations"]
    ((entry,),) = [attestor["entries"] for attestor in attestation["attestors"]]
    signs = [
        step
        for job in delivery["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/attest-build-provenance@")
    ]
    subject = "https://github.com/OWNER/REPOSITORY/.github/workflows/deliver.yml@refs/heads/main"
    return unequal(
        when_it_cannot_tell=(webhook["failurePolicy"], "Fail"),
        kinds=(match["kinds"], ["Pod"]),
        namespaces=(set(match["namespaces"]), environments),
        images=(verify["imageReferences"], ["*"]),
        holds=([verify[k] for k in ("failureAction", "required", "verifyDigest")],
               ["Enforce", True, True]),
        # Kyverno must not write to what Argo CD compares.
        changes=(verify["mutateDigest"], False),
        predicate=(attestation["type"], "https://slsa.dev/provenance/v1"),
        signer=(entry["keyless"], {
            "issuer": "https://token.actions.githubusercontent.com", "subject": subject}),
        # It looks beside the image.
        kept=([step["with"].get("push-to-registry") for step in signs], [True]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("failurePolicy: Fail", "failurePolicy: Ignore"),
        ("failureAction: Enforce", "failureAction: Audit"),
        ("@refs/heads/main", "@*"),
        ("workflows/deliver.yml", "workflows/*"),
        ("required: true", "required: false"),
        ('["*"]', '["ghcr.io/*"]'),
        (f"{' ' * 20}- flight-delays-production\n", ""),
    ],
)
def test_the_admission_policy_lets_in_what_the_delivery_signed(
    baked: Path, tmp_path: Path, old: str, new: str
) -> None:
    project = tmp_path
    text = (baked / "deploy" / "README.md").read_text()
    assert old in text
    (project / "deploy").mkdir()
    (project / "deploy" / "README.md").write_text(text.replace(old, new) if old else text)
    delivery = yaml.safe_load((baked / ".github" / "workflows" / "deliver.yml").read_text())
    environments = {f"flight-delays-{name}" for name in ENVIRONMENTS}

    found = admission_faults(admission_policy(project), delivery, environments)

    assert bool(found) is bool(old)


def kustomize_warnings(project: Path, run: Run) -> str:
    said = ""
    for environment in ENVIRONMENTS:
        overlay = project / "deploy" / "overlays" / environment
        done = run(["kubectl", "kustomize", str(overlay)], project, check=True)
        said += done.stderr
    return said


def test_kustomize_finds_nothing_deprecated(baked: Path, run: Run, tmp_path: Path) -> None:
    assert kustomize_warnings(baked, run) == ""

    project = copy_of(baked, tmp_path)
    (project / "deploy" / "overlays" / "staging" / "kustomization.yaml").write_text(
        "resources: [../../base]\ncommonLabels: {a: b}\n"
    )
    assert "deprecated" in kustomize_warnings(project, run)


def test_an_image_without_a_digest_is_not_rendered(
    baked: Path, project_run: Run, tmp_path: Path
) -> None:
    project = copy_of(baked, tmp_path)
    deployment = project / DEPLOYMENT
    deployment.write_text(deployment.read_text().replace("image: service", "image: acme/x:latest"))

    done = project_run(project, "make", "render", "ENVIRONMENT=staging", "RUN=")

    assert done.returncode != 0
    assert "runs 'acme/x:latest', which can change" in done.stderr
    assert not (project / "build" / "manifests").exists()


def test_without_kubectl_make_render_says_what_to_install(baked: Path, project_run: Run) -> None:
    done = project_run(
        baked, "make", "render", "ENVIRONMENT=staging", "RUN=",
        env={"KUSTOMIZE": "kubectl-of-nowhere kustomize"},
    )  # fmt: skip

    assert done.returncode != 0
    assert "not installed; install kubectl" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_applications_lack_an_address_until_they_get_one(
    bake: Bake, project_run: Run, run: Run
) -> None:
    project = bake(deploy_target="kubernetes")

    lacking = project_run(project, "make", "argocd", "CHECK=1", "RUN=")
    run(["git", "remote", "add", "origin", "git@github.com:acme/flights.git"], project, check=True)
    project_run(project, "make", "argocd", "RUN=", check=True)
    pointed = project_run(project, "make", "argocd", "CHECK=1", "RUN=")

    assert lacking.returncode != 0
    assert "deploy/argocd/production.yaml, deploy/argocd/staging.yaml: repoURL" in lacking.stderr
    assert pointed.returncode == 0
    assert "staging.yaml follows https://github.com/acme/flights.git" in pointed.stdout
