"""Each gate of a generated project is made to let everything pass: some unit test must turn red.

The workflows' and the Makefile's own mutations are in test_workflow_rules.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import SLUG, Bake

pytestmark = pytest.mark.slow

Run = Callable[..., CompletedProcess[str]]


@dataclass(frozen=True)
class Mutation:
    """A change of one file of the package, and the test file that must see it."""

    file: str
    old: str
    new: str
    tests: str


GATE, JUDGEMENT = "delivery/gate.py", "delivery/judgement.py"
COMPARISON, BAR = "delivery/comparison.py", "delivery/bar.py"
CONTRACT, CONSENT = "delivery/contract.py", "delivery/consent.py"
GITHUB = "delivery/github.py"
LOCK, PACKAGED = "delivery/lock.py", "delivery/packaged.py"
SMOKE, VALIDATE, PREDICTOR = "delivery/smoke.py", "data/validate.py", "model/predictor.py"
FAILED = "        print(error, file=sys.stderr)\n        return 1\n"
PASSED = FAILED.replace("1", "0")

MUTATIONS = {
    "the gate always exits with 0": Mutation(
        GATE, 'return 1 if report.verdict == "block" else 0', "return 0", "unit/test_verdict.py"
    ),
    "a gate that could not judge exits with 0": Mutation(
        GATE,
        'print(f"The gate could not judge:\\n{error}", file=sys.stderr)\n        return 2',
        'print(f"The gate could not judge:\\n{error}", file=sys.stderr)\n        return 0',
        "unit/test_verdict.py",
    ),
    "the gate always loosens": Mutation(
        GATE,
        "allow_loosening=options.allow_loosening,",
        "allow_loosening=True,",
        "unit/test_verdict.py",
    ),
    "floors and ceilings do not bind": Mutation(
        JUDGEMENT, "* METRIC_DIRECTION[metric] < 0:", "> 1e9:", "unit/test_judgement.py"
    ),
    "a lost comparison is no failure": Mutation(
        JUDGEMENT,
        "if duel is not None and not duel.passed and self.binding:",
        "if duel is not None and duel.passed and not self.binding:",
        "unit/test_judgement.py",
    ),
    "an impossible comparison is no failure": Mutation(
        JUDGEMENT,
        "if note is not None and must_exist and self.binding:",
        "if note is not None and not must_exist and self.binding:",
        "unit/test_judgement.py",
    ),
    "slices are not judged": Mutation(
        JUDGEMENT,
        "return tuple(finding for part in terms for finding in self._slice(part, test))",
        "return ()",
        "unit/test_judgement.py",
    ),
    "no limit binds": Mutation(
        JUDGEMENT,
        "if maximum is not None and value > maximum:",
        "if maximum is not None and value > 1e9:",
        "unit/test_judgement.py",
    ),
    "the margin is ignored": Mutation(
        COMPARISON, "if worst >= -margin:", "if worst >= -1e9:", "unit/test_comparison.py"
    ),
    "the mean difference decides, not its bound": Mutation(
        COMPARISON,
        "outcome=_outcome(low, high,",
        "outcome=_outcome(values[1] - values[0], high,",
        "unit/test_comparison.py",
    ),
    "what the rows cannot tell passes": Mutation(
        COMPARISON,
        'return self.outcome in ("superior", "non-inferior")',
        'return self.outcome != "inferior"',
        "unit/test_comparison.py",
    ),
    "the base's terms do not apply": Mutation(
        BAR, "_measurable(stricter_of(old, contract),", "_measurable(contract,", "unit/test_bar.py"
    ),
    "a loosened contract is only noted": Mutation(
        BAR,
        'case.reasons.append(f"the contract is loosened',
        'case.notes.append(f"the contract is loosened',
        "unit/test_bar.py",
    ),
    "nobody need consent": Mutation(
        BAR, "if loosened and consent.allow_loosening:", "if loosened:", "unit/test_bar.py"
    ),
    "the lower floor is the stricter one": Mutation(
        CONTRACT, '"floor": max,', '"floor": min,', "unit/test_contract.py"
    ),
    "the wider margin is the stricter one": Mutation(
        CONTRACT, '"margin": min,', '"margin": max,', "unit/test_contract.py"
    ),
    "a label from before the last push consents": Mutation(
        CONSENT,
        'if _moment(last["created_at"]) <= pushed:',
        "if pushed is None:",
        "unit/test_consent.py",
    ),
    "anybody's label consents": Mutation(
        GITHUB,
        'return access is not None and access.get("permission") in _WRITERS',
        "return access is not None",
        "unit/test_consent.py",
    ),
    "a stale lock exits with 0": Mutation(LOCK, FAILED, PASSED, "unit/test_lock.py"),
    "no stage is stale": Mutation(LOCK, "        if inputs:\n", "        if ():\n",
        "unit/test_lock.py"),
    "another bento exits with 0": Mutation(PACKAGED, FAILED, PASSED, "unit/test_packaged.py"),
    "any model may be in the bento": Mutation(
        PACKAGED,
        "if found != report.challenger.sha256:",
        "if not found:",
        "unit/test_packaged.py",
    ),
    "a blocked model may be in the bento": Mutation(
        PACKAGED, 'if report.verdict == "block":', "if not report:", "unit/test_packaged.py"
    ),
    "the smoke test always exits with 0": Mutation(
        SMOKE, FAILED, PASSED, "unit/test_smoke.py"
    ),
    "golden predictions are not compared": Mutation(
        SMOKE, "    compared = check_golden(url, golden)\n", "    compared = 2\n",
        "unit/test_smoke.py",
    ),
    "a model is loaded whatever its hash": Mutation(
        PREDICTOR, "    if found != expected:\n", "    if not found:\n", "unit/test_predictor.py"
    ),
    "bad data exit with 0": Mutation(
        VALIDATE,
        'print_problems("validate", problems, paths.VALIDATION_PAGE)\n        return 1',
        'print_problems("validate", problems, paths.VALIDATION_PAGE)\n        return 0',
        "unit/test_validate.py",
    ),
    "the data are not validated": Mutation(
        VALIDATE,
        "problems = validate(rows, params, schema, terms, previous)",
        "problems: list[Problem] = []",
        "unit/test_validate.py",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def project(locked_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to mutate: each test puts back what it changed."""
    copy = tmp_path_factory.mktemp("mutants") / locked_project.name
    shutil.copytree(locked_project, copy, ignore=shutil.ignore_patterns(".git", "data"))
    shutil.copytree(locked_project / "src" / SLUG / "data", copy / "src" / SLUG / "data")
    return copy


def run_tests(project: Path, project_run: Run, *files: str) -> CompletedProcess[str]:
    # A mutant may have the size and the second of the original: bytecode would hide it.
    return project_run(
        project,
        *("python", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *(f"tests/{file}" for file in files),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_without_a_mutation_the_tests_pass(project: Path, project_run: Run) -> None:
    files = dict.fromkeys(mutation.tests for mutation in MUTATIONS.values())
    done = run_tests(project, project_run, *files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_turns_a_test_red(project: Path, project_run: Run, name: str) -> None:
    mutation = MUTATIONS[name]
    path = project / "src" / SLUG / mutation.file
    original = path.read_text(encoding="utf-8")
    assert original.count(mutation.old) == 1
    path.write_text(original.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = run_tests(project, project_run, mutation.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^1 failed", done.stdout, re.MULTILINE), done.stdout


def test_a_bound_that_blocks_nothing_is_seen(pipelined: Bake, project_run: Run) -> None:
    """The floor of the contract, not the code, is what is weakened here."""
    project = pipelined("classification")
    done = run_tests(project, project_run, "delivery/test_gate.py")
    assert done.returncode == 0, done.stdout + done.stderr

    contract = project / "contract.yaml"
    text = contract.read_text(encoding="utf-8")
    assert text.count("floor: 0.74") == 1
    contract.write_text(text.replace("floor: 0.74", "floor: 0"), encoding="utf-8")
    done = run_tests(project, project_run, "delivery/test_gate.py")
    assert done.returncode == 1
    assert "('model.metrics.roc_auc', None, 0.0)" in done.stdout
