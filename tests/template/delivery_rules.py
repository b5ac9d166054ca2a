"""What the workflows that deliver and roll back must do, as a function that lists the faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workflow_rules import CHECKOUT, DOWNLOAD, SETUP, UPLOAD, Document, action_of, what_runs

PLANNED = "${{ needs.plan.outputs.commit }}"
RELEASED = "steps.release.outputs.released == 'true'"
PROVED = "steps.probe.outputs.proved == 'true'"
UNPROVED = (
    "(failure() || cancelled()) && "
    "steps.release.outputs.released == 'true' && steps.probe.outputs.proved != 'true'"
)
REVERTED = "(failure() || cancelled()) && steps.revert.outcome == 'success'"
ATTEST = "${{ !github.event.repository.private || vars.ATTEST == 'true' }}"

IMAGE_STEPS = [
    CHECKOUT,
    SETUP,
    "make fetch-bento",
    "make image",
    "make smoke-image",
    "make push-image",
    "make release-record",
    "anchore/sbom-action",
    "make login-image",
    "actions/attest-build-provenance",
    "actions/attest",
    f"{UPLOAD} release",
]
BENTO_STEPS = [
    CHECKOUT,
    SETUP,
    "make fetch-bento",
    "make push-bento",
    "make release-record",
    f"{UPLOAD} release",
]


@dataclass(frozen=True)
class Delivery:
    """A workflow that delivers.

    Attributes:
        build: The job between the plan and staging.
        steps: What that job runs.
        environment: Whose secrets that job is told.
        build_permissions: What it may do.
        applies: Whether it brings what a branch says to the platform by itself.
    """

    build: str
    steps: list[str]
    environment: str
    build_permissions: Mapping[str, str]
    applies: bool


DELIVERIES = {
    "deliver.yml": Delivery(
        "image",
        IMAGE_STEPS,
        "registry",
        {
            "actions": "read",
            "attestations": "write",
            "contents": "read",
            "id-token": "write",
            "packages": "write",
            "pull-requests": "read",
        },
        applies=False,
    ),
    "deliver.bentocloud.yml": Delivery(
        "bento",
        BENTO_STEPS,
        "bentocloud",
        {"actions": "read", "contents": "read", "pull-requests": "read"},
        applies=True,
    ),
}


def delivery_faults(workflow: Document, delivery: Delivery) -> list[str]:
    """What breaks the order plan, artifact, staging, production, or a condition on the way."""
    jobs = workflow["jobs"]
    audit = ["audit"] if delivery.build == "image" else []
    if list(jobs) != ["plan", delivery.build, *audit, "staging", "production"]:
        return ["jobs"]
    return [
        *(fault for name in audit for fault in _audit_faults(jobs[name])),
        *_plan_faults(jobs["plan"]),
        *_build_faults(jobs[delivery.build], delivery),
        *_environment_faults(jobs["staging"], "staging", delivery),
        *_environment_faults(jobs["production"], "production", delivery),
    ]


def _plan_faults(job: Mapping[str, Any]) -> Iterator[str]:
    """The code that chooses what is delivered must be main's own."""
    checkout, _, plan = job["steps"]
    if "ref" in checkout["with"] or checkout["with"].get("fetch-depth") != 0:
        yield "plan: checkout"
    yield from _differs("plan: steps", [what_runs(s) for s in job["steps"]],
                        [CHECKOUT, SETUP, "make plan"])  # fmt: skip
    wanted = "${{ inputs.commit || github.event.workflow_run.head_sha || 'newest' }}"
    yield from _differs("plan: commit", plan["env"].get("COMMIT"), wanted)
    yield from _differs("plan: permissions", job["permissions"],
                        _read("actions", "pull-requests"))  # fmt: skip
    told = ("commit", "deliverable", "production", "staging")
    outputs = {key: f"${{{{ steps.plan.outputs.{key} }}}}" for key in told}
    yield from _differs("plan: outputs", job["outputs"], outputs)


def _build_faults(job: Mapping[str, Any], delivery: Delivery) -> Iterator[str]:
    name = delivery.build
    yield from _differs(f"{name}: needs", job["needs"], ["plan"])
    yield from _differs(f"{name}: if", job["if"], "needs.plan.outputs.deliverable == 'true'")
    yield from _differs(f"{name}: environment", job.get("environment"), delivery.environment)
    yield from _differs(f"{name}: permissions", job["permissions"], delivery.build_permissions)
    yield from _differs(f"{name}: steps", [what_runs(s) for s in job["steps"]], delivery.steps)
    yield from _checkout_faults(name, job, PLANNED)
    for step in job["steps"]:
        attests = action_of(step).startswith("actions/attest")
        wanted = ATTEST if attests or what_runs(step) == "make login-image" else None
        yield from _differs(f"{name}: if of {what_runs(step)}", step.get("if"), wanted)
        if attests and step["with"].get("push-to-registry") is not True:
            yield f"{name}: {what_runs(step)} is not beside the image"
        if action_of(step) == UPLOAD:
            yield from _differs(
                f"{name}: nothing to keep", step["with"].get("if-no-files-found"), "error"
            )


def _audit_faults(job: Mapping[str, Any]) -> Iterator[str]:
    """What is in the image is looked up, always, and nothing waits for it."""
    yield from _differs("audit: needs", job["needs"], ["plan", "image"])
    yield from _differs("audit: if", job.get("if"), None)
    yield from _differs("audit: permissions", job["permissions"], _read())
    yield from _checkout_faults("audit", job, PLANNED)
    steps = [CHECKOUT, SETUP, f"{DOWNLOAD} release",
             "make audit SBOM=build/release/sbom.spdx.json"]  # fmt: skip
    yield from _differs("audit: steps", [what_runs(step) for step in job["steps"]], steps)
    yield from (f"audit: if of {what_runs(step)}" for step in job["steps"] if "if" in step)


def _environment_faults(job: Mapping[str, Any], name: str, delivery: Delivery) -> Iterator[str]:
    production = name == "production"
    before = "staging" if production else delivery.build
    yield from _differs(f"{name}: needs", job["needs"], ["plan", before])
    proved = "needs.staging.outputs.proved == 'true'" if production else None
    yield from _differs(f"{name}: if", job.get("if"), proved)
    yield from _differs(f"{name}: environment", job["environment"]["name"], name)
    queue = {"group": name, "cancel-in-progress": False}
    yield from _differs(f"{name}: concurrency", job.get("concurrency"), queue)
    yield from _differs(
        f"{name}: permissions", job["permissions"], {"contents": "write", "issues": "write"}
    )
    outputs = None if production else {"proved": "${{ steps.probe.outputs.proved }}"}
    yield from _differs(f"{name}: outputs", job.get("outputs"), outputs)
    yield from _checkout_faults(name, job, PLANNED)
    expected = {
        CHECKOUT: None,
        SETUP: None,
        f"{DOWNLOAD} release": None,
        f"make release ENVIRONMENT={name}": None,
        f"make probe ENVIRONMENT={name}": RELEASED,
        f"make revert ENVIRONMENT={name}": UNPROVED,
    }
    steps = list(expected.items())
    if delivery.applies:
        apply = f"make cloud-apply ENVIRONMENT={name}"
        steps = [*steps[:4], (apply, RELEASED), *steps[4:], (apply, REVERTED)]
    if production:
        steps.append(("make publish", PROVED))
    found = [(what_runs(step), step.get("if")) for step in job["steps"]]
    yield from _differs(f"{name}: steps", [what for what, _ in found], [w for w, _ in steps])
    for (what, condition), (_, wanted) in zip(found, steps, strict=False):
        yield from _differs(f"{name}: if of {what}", condition, wanted)
    ids = {step["id"]: what_runs(step) for step in job["steps"] if "id" in step}
    for key in ("release", "probe"):
        yield from _differs(f"{name}: id {key}", ids.get(key), f"make {key} ENVIRONMENT={name}")
    for key, variable, wanted in (
        ("release", "SEEN", f"needs.plan.outputs.{name}"),
        ("probe", "REVISION", "steps.release.outputs.revision"),
    ):
        step = next((s for s in job["steps"] if s.get("id") == key), {"env": {}})
        yield from _differs(
            f"{name}: {variable}", step["env"].get(variable), f"${{{{ {wanted} }}}}"
        )


def rollback_faults(workflow: Document, applies: bool) -> list[str]:
    """What breaks a rollback by hand."""
    ((name, job),) = workflow["jobs"].items()
    found = [
        *_differs("environment", job["environment"], "${{ inputs.environment }}"),
        *_differs("permissions", job["permissions"], {"contents": "write"}),
        *_differs("told", job["env"].get("ENVIRONMENT"), "${{ inputs.environment }}"),
    ]
    apply = ["make cloud-apply"] if applies else []
    steps = [CHECKOUT, SETUP, "make rollback", *apply, "make probe"]
    found += _differs("steps", [what_runs(step) for step in job["steps"]], steps)
    found += [f"{name}: if of {what_runs(step)}" for step in job["steps"] if "if" in step]
    (probe,) = [s for s in job["steps"] if what_runs(s) == "make probe"]
    revision = "${{ steps.rollback.outputs.revision }}"
    found += _differs("revision", probe["env"].get("REVISION"), revision)
    return found


def _checkout_faults(name: str, job: Mapping[str, Any], ref: str) -> Iterator[str]:
    options = job["steps"][0].get("with", {})
    if (options.get("ref"), options.get("fetch-depth")) != (ref, 0):
        yield f"{name}: checkout"


def _read(*scopes: str) -> dict[str, str]:
    return {"contents": "read", **dict.fromkeys(scopes, "read")}


def _differs(what: str, found: Any, expected: Any) -> Iterator[str]:
    if found != expected:
        yield what
