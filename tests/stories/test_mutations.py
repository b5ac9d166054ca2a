"""Each gate of a generated project is made to let everything pass: some unit test must turn red.

The workflows' and the Makefile's own mutations are in test_workflow_rules.py.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import ENGINE, TEMPLATE, Bake, Run
from forks import Forks


@dataclass(frozen=True)
class Mutation:
    """A change of one file of the engine, and the test file that must see it."""

    file: str
    old: str
    new: str
    tests: str


GATE, JUDGEMENT = "report/judge.py", "gate/judgement.py"
COMPARISON, TERMS = "gate/comparison.py", "gate/terms.py"
SETTINGS, CONSENT = "core/settings.py", "gate/consent.py"
CLI, GITHUB = "cli.py", "github/client.py"
OBJECTS, SOURCES = "core/dvc_objects.py", "core/lock_sources.py"
LOCK, PACKAGED = "core/dvc_lock.py", "bento/verify.py"
RECORDED, NOISE, HOTFIX = "gate/recorded_model.py", "gate/retraining_noise.py", "ship/hotfix.py"
SMOKE, VALIDATE, PREDICTOR = "bento/smoke.py", "data/validate.py", "model/predictor.py"

MUTATIONS = {
    "a lock of the base that cannot be read leaves no champion": Mutation(
        RECORDED,
        "for commit in _earlier(base):",
        "for commit in ():",
        "gate/test_recorded_model.py",
    ),
    "a commit that was blocked is the champion where the base's lock cannot be read": Mutation(
        RECORDED,
        "if was_blocked(commit, base.root):",
        "if not was_blocked(commit, base.root) and False:",
        "gate/test_recorded_model.py",
    ),
    "proposed margins leave room for one term only": Mutation(
        NOISE,
        "1 - false_alarms / terms",
        "1 - false_alarms",
        "gate/test_retraining_noise.py",
    ),
    "a hotfix that nobody reviewed is delivered": Mutation(
        HOTFIX, "if unreviewed:", "if False:", "ship/test_hotfix.py"
    ),
    "a hotfix whose branch nothing protects is delivered": Mutation(
        HOTFIX, "if missing:", "if False:", "ship/test_hotfix.py"
    ),
    "the gate always exits with 0": Mutation(
        GATE, 'return 1 if report.verdict == "block" else 0', "return 0", "report/test_judge.py"
    ),
    "a gate that could not judge exits with 0": Mutation(
        GATE,
        "    exit_code = 2",
        "    exit_code = 0",
        "report/test_judge.py",
    ),
    "the gate always loosens": Mutation(
        GATE,
        "allow_loosening=options.allow_loosening,",
        "allow_loosening=True,",
        "report/test_judge.py",
    ),
    "floors and ceilings do not bind": Mutation(
        JUDGEMENT, "* kind_of(metric).direction < 0:", "> 1e9:", "gate/test_judgement.py"
    ),
    "a lost comparison is no failure": Mutation(
        JUDGEMENT,
        "if duel is not None and self.binding and self._fails(duel):",
        "if duel is not None and not self.binding and self._fails(duel):",
        "gate/test_judgement.py",
    ),
    "an impossible comparison is no failure": Mutation(
        JUDGEMENT,
        "if note is not None and self.binding and must_exist",
        "if note is not None and self.binding and not must_exist",
        "gate/test_judgement.py",
    ),
    "slices are not judged": Mutation(
        JUDGEMENT,
        "return tuple(finding for part in terms for finding in self._slice(part, test))",
        "return ()",
        "gate/test_judgement.py",
    ),
    "no limit binds": Mutation(
        JUDGEMENT,
        "if maximum is not None and value > maximum:",
        "if maximum is not None and value > 1e9:",
        "gate/test_judgement.py",
    ),
    "the margin is ignored": Mutation(
        COMPARISON, "if worst >= -margin:", "if worst >= -1e9:", "gate/test_comparison.py"
    ),
    "the mean difference decides, not its bound": Mutation(
        COMPARISON,
        "outcome=_outcome(low, high,",
        "outcome=_outcome(values[1] - values[0], high,",
        "gate/test_comparison.py",
    ),
    "what the rows cannot tell passes": Mutation(
        COMPARISON,
        'return self.outcome in ("superior", "non-inferior")',
        'return self.outcome != "inferior"',
        "gate/test_comparison.py",
    ),
    "the base's terms do not apply": Mutation(
        TERMS,
        "_measurable(stricter_of(old, contract),",
        "_measurable(contract,",
        "gate/test_terms.py",
    ),
    "a loosened contract is only noted": Mutation(
        TERMS,
        'log.reasons.append(f"the contract is loosened',
        'log.notes.append(f"the contract is loosened',
        "gate/test_terms.py",
    ),
    "nobody need consent": Mutation(
        TERMS, "if loosened and consent.allow_loosening:", "if loosened:", "gate/test_terms.py"
    ),
    "the lower floor is the stricter one": Mutation(
        SETTINGS,
        "floor: Annotated[float | None, LARGER]",
        "floor: Annotated[float | None, SMALLER]",
        "gate/test_contract_changes.py",
    ),
    "the wider margin is the stricter one": Mutation(
        SETTINGS,
        "margin: Annotated[Annotated[float, Field(ge=0)] | None, SMALLER]",
        "margin: Annotated[Annotated[float, Field(ge=0)] | None, LARGER]",
        "gate/test_contract_changes.py",
    ),
    "anybody may name another reference": Mutation(
        "gate/contract_changes.py",
        'return "loosened" if settled else "tightened"',
        'return "tightened"',
        "gate/test_contract_changes.py",
    ),
    "the newest model is the reference": Mutation(
        "gate/reference.py",
        '"log", "--reverse", "--format=%H"',
        '"log", "--format=%H"',
        "gate/test_reference.py",
    ),
    "a blocked commit is the champion": Mutation(
        "github/passed.py",
        "return Base(passed, _why(history, passed), run)",
        "return Base(history.named, _why(history, passed), run)",
        "github/test_passed.py",
    ),
    "a label from before the last push consents": Mutation(
        CONSENT,
        'if _moment(last["created_at"]) <= pushed:',
        "if pushed is None:",
        "gate/test_consent.py",
    ),
    "anybody's label consents": Mutation(
        GITHUB,
        'return access is not None and access.get("permission") in _WRITERS',
        "return access is not None",
        "gate/test_consent.py",
    ),
    "what fails exits with 0": Mutation(
        CLI, "return error.exit_code", "return 0", "test_cli.py"
    ),
    "no stage is stale": Mutation(LOCK, "        if inputs:\n", "        if ():\n",
        "core/test_dvc_lock.py"),
    "any model may be in the bento": Mutation(
        PACKAGED,
        "if found != report.challenger.sha256:",
        "if not found:",
        "bento/test_verify.py",
    ),
    "a blocked model may be in the bento": Mutation(
        PACKAGED, 'if report.verdict == "block":', "if not report:", "bento/test_verify.py"
    ),
    "golden predictions are not compared": Mutation(
        SMOKE, "    compared = check_golden(url, golden)\n", "    compared = 2\n",
        "bento/test_smoke.py",
    ),
    "any tolerance of golden predictions will do": Mutation(
        SMOKE, "not 0 < tolerance <= TOLERANCE", "not 0 < tolerance", "bento/test_smoke.py"
    ),
    "what dvc.lock names is not hashed": Mutation(
        OBJECTS, "if hash_of(root / path) != named[path]:", "if not named[path]:",
        "core/test_dvc_objects.py",
    ),
    "the cache is believed": Mutation(
        OBJECTS, "if path.exists() and _md5(path) != hash_.removesuffix(FOLDER):", "if not hash_:",
        "core/test_dvc_objects.py",
    ),
    "a lock may name any index": Mutation(
        SOURCES, "        if sources.knows_index(address):\n            folder",
        "        if address:\n            folder", "core/test_lock_sources.py",
    ),
    "a lock may name any address": Mutation(
        SOURCES, "if not any(_is_below(address, place) for place in places):", "if not places:",
        "core/test_lock_sources.py",
    ),
    "a lock needs no hash": Mutation(
        SOURCES, 'if not kept and not _HASH.fullmatch(str(file.get("hash"))):', "if not file:",
        "core/test_lock_sources.py",
    ),
    "what the judge is made of needs no owner": Mutation(
        "core/judge_files.py", "if part_of(path) is not None or path in _JUDGED:",
        "if path in _JUDGED:", "core/test_judge_files.py",
    ),
    "a model is loaded whatever its hash": Mutation(
        PREDICTOR, "    if found != expected:\n", "    if not found:\n", "model/test_predictor.py"
    ),
    "bad data exit with 0": Mutation(
        VALIDATE,
        'print_problems("validate", checked.problems, paths.VALIDATION_PAGE)\n        return 1',
        'print_problems("validate", checked.problems, paths.VALIDATION_PAGE)\n        return 0',
        "data/test_validate.py",
    ),
    "the data are not validated": Mutation(
        VALIDATE,
        "problems = validate(rows, params, schema, terms)",
        "problems: list[Problem] = []",
        "data/test_validate.py",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's sources to mutate: each test puts back what it changed."""
    copy = tmp_path_factory.mktemp("mutants") / "src"
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ENGINE / "src", copy, ignore=ignored))


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks(Path(sys.executable), os.environ)
    yield forks
    forks.close()


def run_engine_tests(engine: Path, forks: Forks, *tests: str) -> CompletedProcess[str]:
    return forks.run(
        TEMPLATE,
        *("pytest", "-x", "-q", "-p", "no:cacheprovider", "--assert=plain"),
        *(f"tests/engine/{test}" for test in tests),
        path=str(engine),
        # A mutant may have the size and the second of the original: bytecode would hide it.
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_one_place_of_the_engine(name: str) -> None:
    mutation = MUTATIONS[name]
    text = (ENGINE / "src" / "gitops_ml" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    assert mutation.new != mutation.old


@pytest.fixture(scope="module")
def seen_red() -> dict[str, None]:
    """The tests that saw a mutation."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_turns_a_test_red(
    engine: Path, forks: Forks, seen_red: dict[str, None], name: str
) -> None:
    mutation = MUTATIONS[name]
    path = engine / "gitops_ml" / mutation.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = run_engine_tests(engine, forks, mutation.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    assert done.returncode == 1, done.stdout
    (failed,) = re.findall(r"^FAILED tests/engine/(.+?)(?: - |$)", done.stdout, re.MULTILINE)
    seen_red[failed] = None


@pytest.mark.slow
def test_without_a_mutation_those_tests_pass(
    engine: Path, forks: Forks, seen_red: dict[str, None]
) -> None:
    if not seen_red:
        pytest.skip("no mutation was tried before")
    done = run_engine_tests(engine, forks, *seen_red)
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^{len(seen_red)} passed", done.stdout, re.MULTILINE), done.stdout


def run_tests(project: Path, project_fork: Run, *files: str) -> CompletedProcess[str]:
    return project_fork(
        project,
        *("pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *(f"tests/{file}" for file in files),
    )


@pytest.mark.slow
def test_a_bound_that_blocks_nothing_is_seen(pipelined: Bake, project_fork: Run) -> None:
    """The floor of the contract, not the code, is what is weakened here."""
    project = pipelined("classification")
    done = run_tests(project, project_fork, "test_gate.py")
    assert done.returncode == 0, done.stdout + done.stderr

    contract = project / "contract.yaml"
    text = contract.read_text(encoding="utf-8")
    assert text.count("floor: 0.74") == 1
    contract.write_text(text.replace("floor: 0.74", "floor: 0"), encoding="utf-8")
    done = run_tests(project, project_fork, "test_gate.py")
    assert done.returncode == 1
    assert "('model.metrics.roc_auc', None, 0.0)" in done.stdout
