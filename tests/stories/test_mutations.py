"""Each gate of a generated project is made to let everything pass: some unit test must turn red.

The workflows' and the Makefile's own mutations are in test_workflow_rules.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import ENGINE, TEMPLATE, Bake, Run

EngineTests = Callable[..., CompletedProcess[str]]


@dataclass(frozen=True)
class Mutation:
    """A change of one file of the engine, and the test, or the test file, that must see it."""

    file: str
    old: str
    new: str
    tests: str


GATE, JUDGEMENT = "report/judge.py", "gate/judgement.py"
COMPARISON, TERMS = "gate/comparison.py", "gate/terms.py"
SETTINGS, CONSENT = "core/settings.py", "gate/consent.py"
CLI, GITHUB = "cli.py", "github/client.py"
OBJECTS, SOURCES = "core/dvc_objects.py", "core/lock_sources.py"
MEASURED = "gate/measured.py"
JUDGE, OPPONENT, CHALLENGER = "gate/gate.py", "gate/opponent.py", "gate/challenger.py"
RUN_RECORD, REPRODUCE = "gate/run_record.py", "gate/reproduce.py"
DATA_LIMITS, FRESHNESS = "gate/data_limits.py", "data/freshness.py"
CHANGED, BASE_ROWS, RECORD = "gate/changed_data.py", "gate/base_rows.py", "gate/champion_record.py"
PASSED, REFERENCE, OWN_ENGINE = "github/passed.py", "gate/reference.py", "gate/own_engine.py"
PLAN, FETCH = "ship/plan.py", "ship/fetch.py"
PROMOTE, ROLLBACK = "ship/environments/promote.py", "ship/environments/rollback.py"
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
    "means of several seeds are asked for and one draw decides": Mutation(
        JUDGEMENT,
        "if self.opponent is None or not self.retrained:",
        "if True:",
        "gate/test_judgement.py",
    ),
    "all models of a side are the first one": Mutation(
        "gate/retrain.py",
        'update={"seed": seed}',
        'update={"seed": 1}',
        "gate/test_retrain.py",
    ),
    "a change chooses with how many seeds it is judged": Mutation(
        SETTINGS,
        "Field(ge=1, le=SEEDS_MAX), SETTLED]",
        "Field(ge=1, le=SEEDS_MAX), LARGER]",
        "gate/test_contract_changes.py",
    ),
    "the erosion of a recipe is judged, and not that of what is served": Mutation(
        REFERENCE,
        'key=".erosion", retrained=()',
        'key=".erosion"',
        "gate/test_reference.py",
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
    "a clock may go back": Mutation(
        TERMS,
        'or (before != "now" and before <= now):',
        'or before != "now":',
        "gate/test_terms.py",
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
    "the change of the row count is not measured": Mutation(
        MEASURED, "if base_rows else None", "if base_rows is ... else None", "gate/test_measured.py"
    ),
    "the change of the row count is never judged": Mutation(
        JUDGE,
        "rows_before = data.base_rows if consent.accept_new_baseline is None else None",
        "rows_before = None",
        "gate/test_gate.py::test_the_number_of_rows_is_held_against_the_base_s",
    ),
    "the gate never asks for the base's terms": Mutation(
        JUDGE,
        "applicable = applicable_terms(log, judged,",
        "applicable = applicable_terms(log, None,",
        "gate/test_gate.py::test_the_base_s_terms_bind_a_change_that_loosens_them",
    ),
    "the lock is read, not held against what is here": Mutation(
        CHALLENGER,
        "lock = check_up_to_date(root, needed=paths.MODELS)",
        'lock = (root / paths.DVC_LOCK).read_text(encoding="utf-8")',
        "gate/test_challenger.py",
    ),
    "the model to be judged is not hashed": Mutation(
        CHALLENGER,
        "    check_outputs(root, lock, [paths.MODELS])\n",
        "",
        "gate/test_challenger.py",
    ),
    "any number of rows in common will do": Mutation(
        OPPONENT, "OVERLAP_MIN = 0.5", "OVERLAP_MIN = 0.0", "gate/test_opponent.py"
    ),
    "a champion of another task is compared with": Mutation(
        OPPONENT, 'for key in ("task", "target"):', 'for key in ("target",):',
        "gate/test_opponent.py",
    ),
    "a champion of another target is compared with": Mutation(
        OPPONENT, 'for key in ("task", "target"):', 'for key in ("task",):',
        "gate/test_opponent.py",
    ),
    "what cannot be compared needs no consent": Mutation(
        OPPONENT,
        "if consent.accept_new_baseline is None:",
        "if consent.accept_new_baseline is ...:",
        "gate/test_opponent.py",
    ),
    "the same model in another environment is not judged": Mutation(
        OPPONENT,
        "elsewhere = other_surroundings(base) if same_model else []",
        "elsewhere: list[str] = []",
        "gate/test_opponent.py",
    ),
    "a lock that no run is known to have made is believed": Mutation(
        RUN_RECORD, "proven=record.lock is not None", "proven=True", "gate/test_run_record.py"
    ),
    "the commit's lock is believed, not the run's": Mutation(
        RUN_RECORD, "replace(base, made=record.lock,", "replace(base, made=None,",
        "gate/test_run_record.py",
    ),
    "reports that no run is known to have made are believed": Mutation(
        RUN_RECORD,
        "any(output.is_relative_to(one) for one in ANSWERS)",
        "output.is_relative_to(paths.MODELS)",
        "gate/test_run_record.py",
    ),
    "an unknown run's commit is trained by nobody": Mutation(
        "gate/champion.py",
        "if not base.proven:",
        "if base.proven is None:",
        "gate/test_champion.py::test_a_model_that_no_run_is_known_to_have_made_is_trained_again",
    ),
    "any stage may make what is judged": Mutation(
        REPRODUCE, 'if entry.get("cmd") != command:', 'if not entry.get("cmd"):',
        "gate/test_reproduce.py::test_stages_that_leave_it_to_somebody_else_are_refused",
    ),
    "the stages are not looked into": Mutation(
        REPRODUCE, "    check_stages(root)\n", "",
        "gate/test_reproduce.py::test_a_file_of_dvc_for_the_model_is_refused",
    ),
    "a machine's own files may come by git": Mutation(
        REPRODUCE, "    check_local_files(root)\n", "",
        "gate/test_reproduce.py::test_what_is_a_machine_s_own_is_refused_in_git",
    ),
    "a base that cannot be run keeps out what mends it": Mutation(
        JUDGE, "        check_base_code(home)\n", "        pass\n",
        "gate/test_gate.py::test_code_of_the_base_that_cannot_be_run_is_named",
    ),
    "what a merge brought along has passed": Mutation(
        PASSED, "if commit not in line and came_along(api, repository, commit):", "if False:",
        "github/test_passed.py::test_what_a_merge_brought_along_is_not_gone_by",
    ),
    "an outcome may become a feature": Mutation(
        JUDGE, "    guard_outcomes(log, judged, schema, consent)\n", "",
        "gate/test_gate.py::test_an_outcome_of_the_base_stays_one",
    ),
    "stages of other folders run": Mutation(
        REPRODUCE, "    check_stage_files(root)\n", "",
        "gate/test_reproduce.py::test_what_dvc_reads_elsewhere_is_refused",
    ),
    "a file that a stage reads may be hidden": Mutation(
        REPRODUCE, "        check_nothing_hidden(root, made)\n", "",
        "gate/test_reproduce.py::test_what_a_stage_reads_is_not_hidden_from_dvc",
    ),
    "records of earlier runs are believed": Mutation(
        REPRODUCE, '"repro", "--no-run-cache",', '"repro",',
        "gate/test_reproduce.py::test_records_of_earlier_runs_are_not_believed",
    ),
    "what lies in the place of an output is believed": Mutation(
        REPRODUCE, "            _drop_others(root, believed)\n", "",
        "gate/test_reproduce.py::test_what_lies_in_the_place_of_an_output_is_not_taken_for_it",
    ),
    "another model that answers alike is merged": Mutation(
        REPRODUCE,
        "if same and theirs.hash not in (ours.hash, committed_hash):",
        "if same and not theirs.hash:",
        "gate/test_reproduce.py::test_a_planted_model_that_answers_alike_is_not_tolerated",
    ),
    "a change may allow its own training elsewhere": Mutation(
        REPRODUCE,
        "trainer = elsewhere.allowed_by(base)",
        'trainer = "anybody"',
        "gate/test_reproduce.py::test_a_change_cannot_allow_it_to_itself",
    ),
    "a pickle of elsewhere is taken": Mutation(
        "core/elsewhere.py", 'if not served.endswith(".onnx"):', "if not served:",
        "gate/test_reproduce.py::test_a_pickle_of_elsewhere_is_refused_before_it_is_loaded",
    ),
    "the stages see the token": Mutation(
        REPRODUCE, "variables=dict.fromkeys(_TOKENS)", "variables={}",
        "gate/test_reproduce.py::test_an_honest_change_runs_what_depends_on_it_without_a_token",
    ),
    "a link to a folder is followed": Mutation(
        OBJECTS,
        "return path.is_symlink() and path.is_dir()",
        "return False",
        "core/test_dvc_objects.py::test_a_link_to_a_folder_is_refused",
    ),
    "two stages may name the same output": Mutation(
        OBJECTS, "            if path in found:\n", "            if path is None:\n",
        "core/test_dvc_objects.py::test_an_output_of_two_stages_is_refused",
    ),
    "what must be here may be missing": Mutation(
        OBJECTS,
        "        outputs = {_output_with(path, named, name) for path in wanted}\n",
        "        outputs = {p for p in named if (root / p).exists()}\n",
        "core/test_dvc_objects.py::test_what_must_be_here_is_missed",
    ),
    "old data pass the gate": Mutation(
        DATA_LIMITS, "if why else (),", "if not why else (),", "gate/test_data_limits.py"
    ),
    "any number of rows may repeat others": Mutation(
        DATA_LIMITS, "and share > allowed:", "and share > 1:", "gate/test_data_limits.py"
    ),
    "data of any age are fresh": Mutation(
        FRESHNESS, "if self.days <= allowed:", "if self.days:", "data/test_freshness.py"
    ),
    "a row that is dated ahead makes old data fresh": Mutation(
        FRESHNESS, "times.filter(times <= moment).max()", "times.max()", "data/test_freshness.py"
    ),
    "test rows that changed are not limited": Mutation(
        CHANGED, "ChangedData((limit,),", "ChangedData((),", "gate/test_changed_data.py"
    ),
    "the base's terms do not hold on its rows": Mutation(
        CHANGED, "ChangedData((limit,), on_base_rows,", "ChangedData((limit,), None,",
        "gate/test_changed_data.py",
    ),
    "a champion that is not its record's is no reason": Mutation(
        CHANGED, "    log.reasons += reasons\n", "", "gate/test_changed_data.py"
    ),
    "test rows change without consent": Mutation(
        BASE_ROWS,
        "if share > allowed and not consent.allow_loosening:",
        "if share > allowed and consent.allow_loosening:",
        "gate/test_base_rows.py",
    ),
    "rows that the change trains on speak for it": Mutation(
        BASE_ROWS,
        "    inside = compared.unseen\n",
        "    inside = np.ones_like(compared.unseen)\n",
        "gate/test_base_rows.py",
    ),
    "another record of the champion is believed": Mutation(
        RECORD, "if low <= check.measured <= high:", "if low <= high:",
        "gate/test_champion_record.py",
    ),
    "rows of another meaning are corrections": Mutation(
        RECORD, "for check in checks if edited]", "for check in checks if not checks]",
        "gate/test_champion_record.py",
    ),
    "new rows may tell the contrary": Mutation(
        RECORD, "> len(told) / 2 else []", "> len(told) else []", "gate/test_champion_record.py"
    ),
    "a run that failed has passed": Mutation(
        PASSED,
        'if run["conclusion"] != "success" or commit == history.pushed:',
        "if commit == history.pushed:",
        "github/test_passed.py::test_only_success_is_passing_whatever_github_lists",
    ),
    "what a push is judged against need not be known": Mutation(
        PASSED, "    if history.pushed is None:\n        return Base(\n",
        "    if history.named:\n        return Base(\n",
        "github/test_passed.py::test_without_an_answer_a_push_to_main_is_not_judged",
    ),
    "no commit was blocked": Mutation(
        PASSED, 'return bool(ended) and "success" not in ended', "return False",
        "github/test_passed.py::test_a_commit_was_blocked_when_its_pipeline_ran_and_never_passed",
    ),
    "a blocked model is the reference": Mutation(
        REFERENCE,
        "return alike and (commit == base.commit or not was_blocked(commit, base.root))",
        "return alike",
        "gate/test_reference.py::test_a_model_that_was_blocked_is_no_reference",
    ),
    "a change's own engine needs no consent": Mutation(
        OWN_ENGINE,
        "    if not consent.own_engine:\n        raise OwnEngineError(f\"the engine",
        "    if consent.own_engine:\n        raise OwnEngineError(f\"the engine",
        "gate/test_own_engine.py",
    ),
    "a link is taken over": Mutation(
        "gate/run_files.py", "        _refuse_links(source, name)\n", "",
        "gate/test_run_files.py",
    ),
    "what was not merged is delivered": Mutation(
        PLAN, "if not repository.is_ancestor(commit, main):", "if not main:",
        "ship/test_plan.py::test_what_was_not_merged_is_not_delivered",
    ),
    "the newest commit need not have passed": Mutation(
        PLAN, 'if run["conclusion"] == "success":', 'if run["head_sha"]:',
        "ship/test_plan.py::test_the_newest_that_passed_is_the_newest_to_deliver",
    ),
    "a bento of a run that failed is delivered": Mutation(
        FETCH,
        'passed = [run for run in runs if run["conclusion"] == "success"]',
        "passed = runs",
        "ship/test_fetch.py::test_without_a_run_that_passed_there_is_nothing",
    ),
    "a bento that the gate blocked is delivered": Mutation(
        FETCH, 'if gate.verdict == "block":', "if not gate.verdict:",
        "ship/test_fetch.py::test_what_the_gate_did_not_let_pass_is_not_delivered",
    ),
    "a bento of another commit is delivered": Mutation(
        FETCH, "        if found != commit:\n", "        if not found:\n",
        "ship/test_fetch.py::test_what_the_gate_did_not_let_pass_is_not_delivered",
    ),
    "a bento of another model is delivered": Mutation(
        FETCH, "        if found != model:\n", "        if not found:\n",
        "ship/test_fetch.py::test_what_the_gate_did_not_let_pass_is_not_delivered",
    ),
    "a hotfix starts anywhere": Mutation(
        HOTFIX,
        "if not repository.fetch_commit(start) or not repository.is_ancestor(start, commit):",
        "if not repository.fetch_commit(start):",
        "ship/test_hotfix.py::test_a_hotfix_without_all_of_the_proof_is_not_delivered",
    ),
    "nobody reviewed the hotfix": Mutation(
        HOTFIX, "    if unreviewed:\n", "    if unreviewed is None:\n",
        "ship/test_hotfix.py::test_a_hotfix_without_all_of_the_proof_is_not_delivered",
    ),
    "no rules hold the hotfix's branch": Mutation(
        HOTFIX, "    if missing:\n", "    if missing is None:\n",
        "ship/test_hotfix.py::test_a_hotfix_without_all_of_the_proof_is_not_delivered",
    ),
    "the hotfix's pipeline need not have passed": Mutation(
        HOTFIX,
        'if not any(run["head_sha"] == commit and run["conclusion"] == "success" for run in runs):',
        "if runs is None:",
        "ship/test_hotfix.py::test_a_hotfix_without_all_of_the_proof_is_not_delivered",
    ),
    "production gets what staging does not run": Mutation(
        PROMOTE,
        "if (proved.digest, proved.model) != (release.digest, release.model):",
        "if not proved.digest:",
        "ship/environments/test_promote.py"
        "::test_production_gets_nothing_that_staging_does_not_run",
    ),
    "an older release replaces a newer one": Mutation(
        PROMOTE,
        "if is_newer(branch.repository, current.commit, release.commit):",
        "if current is None:",
        "ship/environments/test_promote.py::test_an_older_release_never_replaces_a_newer_one",
    ),
    "a delivery replaces what a person rolled back to": Mutation(
        PROMOTE, "        if branch.held():\n", "        if current is None:\n",
        "ship/environments/test_promote.py"
        "::test_what_a_person_rolled_back_to_stays_until_a_person_delivers",
    ),
    "a release that works is rolled back": Mutation(
        ROLLBACK,
        "if current is None or not current.same_as(failed):",
        "if current is None:",
        "ship/environments/test_rollback.py::test_what_was_released_meanwhile_is_left_alone",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's sources to mutate: each test puts back what it changed."""
    copy = tmp_path_factory.mktemp("mutants") / "src"
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ENGINE / "src", copy, ignore=ignored))


@pytest.fixture(scope="module")
def engine_tests(
    engine: Path, warm_environment: Path, clean_env: Mapping[str, str], run: Run
) -> EngineTests:
    """Run tests of the engine on these sources."""
    # A mutant may have the size and the second of the original: bytecode would hide it.
    env = {**clean_env, "PYTHONPATH": str(engine), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(warm_environment / "bin" / "python"), "-P", "-m", "pytest", "-x", "-q"]
    command += ["-p", "no:cacheprovider", "--assert=plain"]
    return lambda *tests: run([*command, *(f"tests/engine/{t}" for t in tests)], TEMPLATE, env)


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
    engine: Path, engine_tests: EngineTests, seen_red: dict[str, None], name: str
) -> None:
    mutation = MUTATIONS[name]
    path = engine / "gitops_ml" / mutation.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = engine_tests(mutation.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    assert done.returncode == 1, done.stdout
    (failed,) = re.findall(r"^FAILED tests/engine/(.+?)(?: - |$)", done.stdout, re.MULTILINE)
    seen_red[failed] = None


@pytest.mark.slow
def test_without_a_mutation_those_tests_pass(
    engine_tests: EngineTests, seen_red: dict[str, None]
) -> None:
    if not seen_red:
        pytest.skip("no mutation was tried before")
    done = engine_tests(*seen_red)
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^{len(seen_red)} passed", done.stdout, re.MULTILINE), done.stdout


def run_tests(project: Path, project_run: Run, *files: str) -> CompletedProcess[str]:
    return project_run(
        project,
        *("pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *(f"tests/{file}" for file in files),
    )


@pytest.mark.slow
def test_a_bound_that_blocks_nothing_is_seen(pipelined: Bake, project_run: Run) -> None:
    """The floor of the contract, not the code, is what is weakened here."""
    project = pipelined("classification")
    done = run_tests(project, project_run, "test_gate.py")
    assert done.returncode == 0, done.stdout + done.stderr

    contract = project / "contract.yaml"
    text = contract.read_text(encoding="utf-8")
    assert text.count("floor: 0.74") == 1
    contract.write_text(text.replace("floor: 0.74", "floor: 0"), encoding="utf-8")
    done = run_tests(project, project_run, "test_gate.py")
    assert done.returncode == 1
    assert "('model.metrics.roc_auc', None, 0.0)" in done.stdout
