"""What comes of a run of the mutation tool; the changes themselves take hours, each night."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import TEMPLATE


def load() -> ModuleType:
    path = TEMPLATE / "tools" / "mutation.py"
    spec = importlib.util.spec_from_file_location("mutation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their module there.
    sys.modules["mutation"] = module
    spec.loader.exec_module(module)
    return module


mutation = load()
Mutant, MutationError = mutation.Mutant, mutation.MutationError

MODULE = "gate/terms.py"
DIFF = """--- mutation diff ---
--- a/terms.py
+++ b/terms.py
@@ -3,4 +3,4 @@
 def stricter(a, b):
-    return a < b
+    return a <= b
"""
CHANGE = Mutant(MODULE, "return a < b", "return a <= b")


def result(test_outcome: str | None, worker_outcome: str = "normal") -> dict[str, Any]:
    return {"worker_outcome": worker_outcome, "test_outcome": test_outcome, "diff": DIFF}


def dump(*results: dict[str, Any] | None) -> str:
    return "\n".join(json.dumps([{"job_id": "1"}, one]) for one in results)


def test_what_no_test_saw_is_named_by_what_it_changes() -> None:
    killed, skipped = {**result("killed"), "diff": ""}, result(None, "skipped")
    assert mutation.survivors_in(dump(killed, result("survived"), skipped), MODULE) == {CHANGE}
    assert mutation.survivors_in(dump(killed, skipped), MODULE) == set()


@pytest.mark.parametrize(
    "results",
    [
        (result("killed"), None),
        (result("incompetent", "exception"),),
        (result(None, "skipped"),),
        (),
    ],
)
def test_what_was_not_tried_proves_nothing(results: tuple[dict[str, Any] | None, ...]) -> None:
    with pytest.raises(MutationError, match=MODULE):
        mutation.survivors_in(dump(*results), MODULE)


def test_an_exception_of_a_module_cannot_be_replaced() -> None:
    job = {"mutations": [{"operator_name": "core/ExceptionReplacer"}]}
    beyond = json.dumps([job, result(None, "exception")])
    assert mutation.survivors_in(f"{beyond}\n{dump(result('survived'))}", MODULE) == {CHANGE}
    with pytest.raises(MutationError, match="holds nothing"):
        mutation.survivors_in(beyond, MODULE)


def test_a_survivor_must_be_listed_and_what_is_listed_must_survive() -> None:
    elsewhere = Mutant("gate/gate.py", CHANGE.before, CHANGE.after)
    assert mutation.judge(MODULE, {CHANGE}, [CHANGE, elsewhere]) == []
    (new,) = mutation.judge(MODULE, {CHANGE}, [elsewhere])
    assert new.startswith("no test sees this change")
    # What it prints can be taken over as it is.
    assert 'before = "return a < b"\nafter = "return a <= b"' in new
    (gone,) = mutation.judge(MODULE, set(), [CHANGE])
    assert "take it off" in gone
    assert CHANGE.after in gone


def test_what_is_harmless_in_any_module_need_not_survive_in_each() -> None:
    anywhere = Mutant("*", CHANGE.before, CHANGE.after)
    assert mutation.judge(MODULE, {CHANGE}, [anywhere]) == []
    assert mutation.judge(MODULE, set(), [anywhere]) == []
    other = Mutant(MODULE, CHANGE.before, "return a > b")
    assert len(mutation.judge(MODULE, {other}, [anywhere])) == 1


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module, and a run of it in which one change survives."""
    module = tmp_path / mutation.PACKAGE / MODULE
    module.parent.mkdir(parents=True)
    module.touch()
    (module.parent / "__init__.py").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / mutation.SURVIVORS).write_text("", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.mutation]\nmodules = ["gate/*.py"]\ntests = {}\nskip-operators = []\ntimeout = 1\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(mutation, "mutate", lambda module, settings, root: {CHANGE})
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    return tmp_path


def test_a_survivor_that_nobody_has_read_is_red(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutation.main([MODULE], project) == 1
    entry = capsys.readouterr().out.split("harmless:\n")[1].split("\n\n")[0]
    list_ = project / mutation.SURVIVORS
    list_.write_text(f'{entry}\nwhy = "They never are equal."\n', encoding="utf-8")
    assert mutation.main([MODULE], project) == 0


def test_a_run_that_fails_is_no_result(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(module: str, settings: object, root: Path) -> set[Any]:
        raise MutationError("the tests fail without a change")

    monkeypatch.setattr(mutation, "mutate", fail)
    monkeypatch.setenv("MODULE", MODULE)
    assert mutation.main([], project) == 2
    assert "without a change" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        mutation.main(["gate/others.py"], project)


def test_a_copy_is_changed_and_tested_by_the_module_s_own_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []

    def run(command: list[str], root: Path, variables: dict[str, str]) -> str:
        ran.append(" ".join(command[:2]) if command[0] == "cosmic-ray" else command[0])
        sources = Path(variables["PYTHONPATH"])
        assert not sources.is_relative_to(root)
        assert (sources / "gitops_ml" / MODULE).is_file()
        text = (sources.parent / "config.toml").read_text(encoding="utf-8")
        config = tomllib.loads(text)["cosmic-ray"]
        assert config["module-path"] == str(sources / "gitops_ml" / MODULE)
        assert config["test-command"].endswith("-n 0 tests/engine/gate/test_terms.py")
        skipped = config["filters"]["operators-filter"]["exclude-operators"]
        assert skipped == mutation.read_settings().skip
        return dump(result("survived"))

    monkeypatch.setattr(mutation, "_run", run)
    assert mutation.mutate(MODULE, mutation.read_settings()) == {CHANGE}
    assert ran == [
        *("cosmic-ray init", "cr-filter-operators", "cosmic-ray baseline", "cosmic-ray exec"),
        "cosmic-ray dump",
    ]


def test_the_modules_are_told_to_the_workflow(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(project / "output"))
    assert mutation.main(["--list"], project) == 0
    assert json.loads(capsys.readouterr().out) == [MODULE]
    assert (project / "output").read_text(encoding="utf-8") == f'modules=["{MODULE}"]\n'


def test_each_pattern_names_modules_and_each_module_has_tests() -> None:
    settings = mutation.read_settings()
    package = TEMPLATE / mutation.PACKAGE
    assert [one for one in settings.modules if not list(package.glob(one))] == []
    modules = mutation.modules_of(settings)
    tests = {test for module in modules for test in mutation.tests_of(module, settings)}
    assert [str(test) for test in tests if not (TEMPLATE / test).is_file()] == []
    assert settings.tests.keys() <= set(modules)


def test_what_is_listed_is_in_the_sources_and_says_why() -> None:
    modules = mutation.modules_of(mutation.read_settings())
    lines = {
        name: {
            line.strip()
            for line in (TEMPLATE / mutation.PACKAGE / name)
            .read_text(encoding="utf-8")
            .splitlines()
        }
        for name in modules
    }
    for one, why in mutation.read_survivors().items():
        where = modules if one.module == mutation.ANY else [one.module]
        assert any(set(one.before.splitlines()) <= lines[name] for name in where), one
        assert why.strip()
