"""Change a module of the engine in one place after the other, and see which changes no test sees.

    make mutation ARGS=gate/comparison.py    # one of `[tool.mutation]` in pyproject.toml
    make mutation-modules                    # which there are, as a JSON list

cosmic-ray makes the changes, in a copy of the engine's sources, and runs the module's own unit
tests on each. What no test saw is held against `tests/mutation_survivors.toml`: those that somebody
has read, with the reason why each is harmless. Exit code 1: a survivor that is not in the list, or
an entry of the list that does not survive any more. 2: nothing was found out.

In a workflow the module is in MODULE, and the list goes to the step's output `modules`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from warm_python import make_warm

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path("engine/src")
PACKAGE = SOURCES / "gitops_ml"
TESTS = Path("tests/engine")
SURVIVORS = Path("tests/mutation_survivors.toml")
ANY = "*"


class MutationError(Exception):
    """Nothing was found out; the message says why."""


@dataclass(frozen=True)
class Settings:
    """`[tool.mutation]` of pyproject.toml.

    Attributes:
        modules: Patterns of the modules, below the engine's package.
        tests: The tests of modules that have none of their own name, below `tests/engine`.
        skip: Regular expressions of cosmic-ray's operators that are left out.
        timeout: Seconds that the tests of one change may take; one that takes longer is seen.
    """

    modules: Sequence[str]
    tests: dict[str, list[str]]
    skip: Sequence[str]
    timeout: float


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of a module, by what it changes, so that it keeps its name when lines move.

    Attributes:
        module: The module, below the engine's package.
        before: The lines that it changes.
        after: What they are then.
    """

    module: str
    before: str
    after: str


def read_settings(root: Path = ROOT) -> Settings:
    """Read `[tool.mutation]`."""
    tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutation"]
    return Settings(tool["modules"], tool["tests"], tool["skip-operators"], tool["timeout"])


def modules_of(settings: Settings, root: Path = ROOT) -> list[str]:
    """The modules that are mutated, sorted; those of the packages themselves hold no code."""
    found = {path for one in settings.modules for path in (root / PACKAGE).glob(one)}
    names = (path.relative_to(root / PACKAGE).as_posix() for path in found)
    return sorted(name for name in names if not name.endswith("__init__.py"))


def tests_of(module: str, settings: Settings) -> list[Path]:
    """The files with the tests that must see what changes in a module."""
    path = Path(module)
    names = settings.tests.get(module, [path.with_name(f"test_{path.name}").as_posix()])
    return [TESTS / name for name in names]


def read_survivors(root: Path = ROOT) -> dict[Mutant, str]:
    """The survivors that were read, and why each is harmless; the module `*` stands for any."""
    document = tomllib.loads((root / SURVIVORS).read_text(encoding="utf-8"))
    return {
        Mutant(one["module"], one["before"], one["after"]): one["why"]
        for one in document.get("survivor", [])
    }


def survivors_in(dump: str, module: str) -> set[Mutant]:
    """The changes that no test saw, of what `cosmic-ray dump` prints.

    Args:
        dump: A line for each change: what it is, and what came of it.
        module: The module.

    Raises:
        MutationError: If one was not tried, or none was.
    """
    found: set[Mutant] = set()
    tried = 0
    for line in dump.splitlines():
        job, result = json.loads(line)
        if result is not None and _is_beyond(job, result):
            continue
        if result is None or (
            result["worker_outcome"] != "skipped"
            and result["test_outcome"] not in ("killed", "survived")
        ):
            raise MutationError(f"{module}: a change could not be tried: {result}")
        tried += result["worker_outcome"] != "skipped"
        if result["test_outcome"] == "survived":
            found.add(_named(module, result["diff"]))
    if not tried:
        raise MutationError(f"{module}: holds nothing that could be changed")
    return found


def _is_beyond(job: Any, result: Any) -> bool:
    """Whether cosmic-ray cannot make a change: an exception named with its module, `yaml.Error`."""
    operators = {one["operator_name"] for one in job.get("mutations", [])}
    return result["worker_outcome"] == "exception" and operators == {"core/ExceptionReplacer"}


def _named(module: str, diff: str) -> Mutant:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (
        "\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(module, before, after)


def mutate(module: str, settings: Settings, root: Path = ROOT) -> set[Mutant]:
    """Try all changes of a module; gives back those that no test saw.

    Raises:
        MutationError: If the tests fail without a change, or cosmic-ray fails.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns("__pycache__")
        sources = shutil.copytree(root / SOURCES, folder / "src", ignore=ignored)
        config, session = str(folder / "config.toml"), str(folder / "session.sqlite")
        # The copy comes before the engine that is installed, in the tests' own processes, too.
        variables = {**os.environ, "PYTHONPATH": str(sources)}
        python = make_warm(folder / "venv", variables, os.getpid())
        text = _config(module, settings, Path(sources), python)
        Path(config).write_text(text, encoding="utf-8")
        for command in (
            ["cosmic-ray", "init", config, session],
            ["cr-filter-operators", session, config],
            ["cosmic-ray", "baseline", config],
            ["cosmic-ray", "exec", config, session],
        ):
            _run(command, root, variables)
        return survivors_in(_run(["cosmic-ray", "dump", session], root, variables), module)


def _config(module: str, settings: Settings, sources: Path, python: Path) -> str:
    tests = " ".join(map(str, tests_of(module, settings)))
    # No bytecode: a change may have the size and the second of the one before it.
    pytest = "-x -q -p no:cacheprovider --assert=plain -n 0"
    # TOML's strings are JSON's.
    return "\n".join(
        [
            "[cosmic-ray]",
            f"module-path = {json.dumps(str(sources / 'gitops_ml' / module))}",
            f"timeout = {settings.timeout}",
            "excluded-modules = []",
            f"test-command = {json.dumps(f'{python} -m pytest {pytest} {tests}')}",
            "[cosmic-ray.distributor]",
            'name = "local"',
            "[cosmic-ray.filters.operators-filter]",
            f"exclude-operators = {json.dumps(list(settings.skip))}",
            "",
        ]
    )


def _run(command: Sequence[str], root: Path, variables: dict[str, str]) -> str:
    program = Path(sys.executable).with_name(command[0])
    if not program.exists():
        raise MutationError(f"{command[0]} is not installed: start this by `make mutation`")
    done = subprocess.run(
        [str(program), *command[1:]],
        cwd=root,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MutationError(f"`{' '.join(command[:2])}` failed:\n{done.stdout[-5000:]}")
    return done.stdout


def judge(module: str, found: set[Mutant], listed: Iterable[Mutant]) -> list[str]:
    """What is wrong with what survived in a module, in words; nothing if all of it was read."""
    listed = list(listed)
    known = {one for one in listed if one.module == module}
    anywhere = {(one.before, one.after) for one in listed if one.module == ANY}
    found = {one for one in found if (one.before, one.after) not in anywhere}
    said = [
        f"no test sees this change; write one, or say in {SURVIVORS} why it is harmless:\n"
        f"{_entry(one)}"
        for one in sorted(found - known)
    ]
    said += [
        f"{SURVIVORS} lists a change that a test sees, or that is none any more; take it off:\n"
        f"{_entry(one)}"
        for one in sorted(known - found)
    ]
    return said


def _entry(mutant: Mutant) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in asdict(mutant).items()]
    return "\n".join(["[[survivor]]", *lines])


def write_modules(modules: Sequence[str]) -> None:
    """Print the modules; in a workflow they become the step's output, too."""
    text = json.dumps(modules)
    print(text)
    output = os.environ.get("GITHUB_OUTPUT")
    if output:
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(f"modules={text}\n")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Mutate a module, or list them; 1 if something survived that nobody has read."""
    parser = argparse.ArgumentParser(description="See which changes of a module no test sees.")
    parser.add_argument("module", nargs="?", default=os.environ.get("MODULE"))
    parser.add_argument("--list", action="store_true", help="list the modules")
    options: Any = parser.parse_args(arguments)
    settings = read_settings(root)
    modules = modules_of(settings, root)
    if options.list:
        write_modules(modules)
        return 0
    if options.module not in modules:
        parser.error(f"{options.module} is none of the modules: {', '.join(modules)}")
    try:
        found = mutate(options.module, settings, root)
    except MutationError as error:
        print(error, file=sys.stderr)
        return 2
    said = judge(options.module, found, read_survivors(root))
    print("\n\n".join([*said, f"{options.module}: {len(found)} changes survived"]))
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
