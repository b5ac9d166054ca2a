"""The hooks: every rule by itself, and both hooks as cookiecutter runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ENGINE, OPTIONS, PROJECT_TEMPLATE, SLUG, TEMPLATE, Bake, Run
from cookiecutter.exceptions import FailedHookException

ANSWERS = {
    "project_name": "Flight Delays",
    "project_slug": SLUG,
    "description": "Predicts which flights arrive late.",
    "author_name": "Your Name",
    "author_email": "you@example.com",
    "task": "classification",
    "deploy_target": "kubernetes",
    "python_version": "3.11",
    "license": "MIT",
}


def load(name: str) -> ModuleType:
    """Import a hook from its file, as it is before rendering."""
    spec = importlib.util.spec_from_file_location(name, TEMPLATE / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


pre = load("pre_gen_project")
post = load("post_gen_project")


# The answers

GOOD = {
    "project_name": [
        "X", "Café détecté", "Bob's model", "飞行 ✈️ \U0001f469\u200d\U0001f4bb", "50% & {x}: #1",
        "a" * 200,
    ],
    "project_slug": ["ab", "flight_delays", "m2", "match", "a_1_b", "a" * 30, "testing", "sites"],
    "description": ["Says <yes> or 'no'.", "It's 100% {{not}} a template"],
    "author_name": ["Ada Lovelace", "O'Brien & Sons", "Łukasz Żółć"],
    "author_email": ["a@b.co", "first.last+tag@sub.example.org", "o'brien@example.com"],
    "task": ["classification", "regression"],
    "deploy_target": ["kubernetes", "host", "bentocloud", "none"],
    "python_version": ["3.11", "3.12", "3.13"],
    "license": ["MIT", "Apache-2.0", "BSD-3-Clause", "proprietary"],
}  # fmt: skip
BAD_TEXT = [
    "", " ", " padded", "padded ", "a\nb", "a\tb", "a\x00b", "a\x1b[31m", "a\u2028b", "a\u202eb",
    'say "hi"', "back\\slash", "a << b", "a >> b", "<% if %>", "<# x", "x #>", "a" * 201,
]  # fmt: skip
BAD = {
    "project_name": BAD_TEXT,
    "description": BAD_TEXT,
    "author_name": [*BAD_TEXT, "Doe, Jane", "Jane <jane@example.com>"],
    "project_slug": [
        "", "a", "Flights", "1st", "flight-delays", "flight delays", "_private", "trailing_",
        "café", "a.b", "../up", "/abs", "a/b", "class", "lambda", "json", "statistics", "test",
        "sklearn", "scikit_learn", "numpy", "bentoml", "dvc", "onnx", "onnxruntime", "polars",
        "pandera", "pydantic", "yaml", "joblib", "matplotlib", "pytest", "skl2onnx", "tests", "src",
        "data", "models", "reports", "notebooks", "engine", "gitops_ml", "flights\n", "a" * 31,
        "null", "true", "off", "no", "nul", "com1",
        "conftest", "sitecustomize", "usercustomize", "test_gate", "test_flights",
        # Standard in some of the supported Pythons only, whichever runs this.
        "distutils", "imp", "asyncore", "cgi", "telnetlib", "compression",
    ],
    "author_email": [
        "", "x", "x@", "@example.com", "x@example", "x@@example.com", "a b@example.com",
        "x@example..com", ".x@example.com", "x.@example.com", "x@-example.com", "x@example.com\n",
        'a"b@example.com', "é@example.com", "x@example.c", "a" * 200 + "@example.com",
    ],
    "task": ["", "Classification", "clustering"],
    "deploy_target": ["", "Kubernetes", "k8s", "heroku", "False"],
    "python_version": ["", "3", "3.9", "3.10", "3.14", "3.110"],
    "license": ["", "mit", "GPL-3.0"],
}  # fmt: skip


def cases(values: Mapping[str, list[str]]) -> list[object]:
    return [
        pytest.param(answer, value, id=f"{answer}-{value[:20]!r}")
        for answer, options in values.items()
        for value in options
    ]


def test_every_question_has_a_rule_and_examples_on_both_sides() -> None:
    questions = {key for key in OPTIONS if not key.startswith("_")}

    assert questions == set(pre.RULES) == set(GOOD) == set(BAD) == set(ANSWERS)


@pytest.mark.parametrize(("answer", "value"), cases(GOOD))
def test_a_good_answer_is_accepted(answer: str, value: str) -> None:
    assert pre.find_problems({**ANSWERS, answer: value}) == []


@pytest.mark.parametrize(("answer", "value"), cases(BAD))
def test_a_bad_answer_is_the_one_that_is_refused(answer: str, value: str) -> None:
    problems = pre.find_problems({**ANSWERS, answer: value})

    assert [(p.answer, p.value) for p in problems] == [(answer, value)]


def test_the_examples_in_the_messages_are_good_answers() -> None:
    examples = {answer: example for answer, (_, example) in pre.RULES.items()}

    assert pre.find_problems(examples) == []


def test_the_default_answers_are_good(bake: Bake) -> None:
    assert bake().name == SLUG


def test_a_missing_answer_is_refused() -> None:
    answers = {k: v for k, v in ANSWERS.items() if k != "author_name"}

    assert [p.answer for p in pre.find_problems(answers)] == ["author_name"]


def test_choices_are_the_same_in_the_questions_and_both_hooks() -> None:
    assert list(pre.TASKS) == OPTIONS["task"] == list(post.VARIANTS["task"][0])
    assert list(pre.DEPLOY_TARGETS) == OPTIONS["deploy_target"]
    wanted = {choice for choices, _ in post.FEATURES["deploy_target"] for choice in choices}
    assert {*wanted, "none"} == {*pre.DEPLOY_TARGETS}
    assert list(pre.LICENSES) == OPTIONS["license"] == list(post.VARIANTS["license"][0])
    assert OPTIONS["python_version"] in pre.PYTHON_VERSIONS
    assert all(v in OPTIONS["__prompts__"]["python_version"] for v in pre.PYTHON_VERSIONS)


def test_supported_pythons_are_those_of_the_project() -> None:
    newest = pre.PYTHON_VERSIONS[-1].split(".")
    project = (PROJECT_TEMPLATE / "pyproject.toml").read_text(encoding="utf-8")

    assert f"<{newest[0]}.{int(newest[1]) + 1}" in project


def test_every_direct_dependency_is_a_reserved_name() -> None:
    project = tomllib.loads((PROJECT_TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))
    engine = tomllib.loads((ENGINE / "pyproject.toml").read_text(encoding="utf-8"))
    extras = engine["project"]["optional-dependencies"].values()
    wanted = {
        pre.re.split(r"[\[<>=!~; ]", item)[0].replace("-", "_")
        for group in [*project["dependency-groups"].values(), *extras]
        for item in group
        if isinstance(item, str)
    }

    assert len(wanted) > 10
    assert {name for name in wanted if pre.broken_slug_rule(name) is None} == set()


@pytest.mark.slow
def test_every_name_that_the_dependencies_import_under_is_reserved(
    project_run: Run, locked_project: Path
) -> None:
    listing = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    names = json.loads(project_run(locked_project, "python", "-c", listing, check=True).stdout)
    files = (PROJECT_TEMPLATE / "pyproject.toml", ENGINE / "pyproject.toml")
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    direct = {
        name
        for name, distributions in names.items()
        if any(f'"{distribution.lower()}' in text.lower() for distribution in distributions)
    }

    assert {"sklearn", "yaml", "numpy", "bentoml"} <= direct
    assert {n for n in direct if n.islower() and pre.broken_slug_rule(n) is None} == set()


def test_all_problems_are_shown_at_once_with_value_rule_and_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = {
        "project_name": "\n",
        "project_slug": "class",
        "description": "",
        "author_name": "",
        "author_email": "nobody",
        "task": "guess",
        "deploy_target": "moon",
        "python_version": "2.7",
        "license": "none",
    }

    assert pre.main(json.dumps(bad)) == 1

    told = capsys.readouterr().err
    assert "9 answers cannot be used" in told
    for answer, value in bad.items():
        assert f"  {answer} = {value!r}\n    rule:    " in told
    for _, example in pre.RULES.values():
        assert f"    example: {example}\n" in told


def test_one_problem_is_counted_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert pre.main(json.dumps({**ANSWERS, "task": "guess"})) == 1
    assert "1 answer cannot be used" in capsys.readouterr().err


def test_good_answers_pass_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert pre.main(json.dumps(ANSWERS)) == 0
    assert capsys.readouterr() == ("", "")


# The first hook under cookiecutter


def test_refusing_leaves_nothing_on_disk(tmp_path: Path, bake: Bake, run: Run) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--output-dir", str(out),
        "project_slug=json", "author_email=nobody", "python_version=3.9", 'project_name=say "hi"',
    ]  # fmt: skip

    done = run(command, tmp_path)

    assert done.returncode != 0
    assert "4 answers cannot be used" in done.stderr
    assert not list(out.iterdir())


def test_refusing_leaves_what_was_there(
    tmp_path: Path, run: Run, clean_env: Mapping[str, str]
) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "mine.txt").write_text("mine")
    (tmp_path / "other.txt").write_text("other")
    command = [
        sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--overwrite-if-exists",
        "project_slug=json",
    ]  # fmt: skip

    done = run(command, tmp_path)

    assert done.returncode != 0
    assert "project_slug = 'json'" in done.stderr
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"json/mine.txt", "other.txt"}


@pytest.mark.parametrize("name", ["pre_gen_project", "post_gen_project"])
def test_a_terminal_without_unicode_still_gets_the_message(
    rendered: Path, run: Run, env_without_uv: Mapping[str, str], name: str
) -> None:
    hook = (TEMPLATE / "hooks" / f"{name}.py").read_text(encoding="utf-8")
    answers = {**ANSWERS, "project_name": "Café", "author_email": "é@example.com"}
    script = rendered.parent / "hook.py"
    script.write_text(
        hook.replace("<< cookiecutter | tojson >>", json.dumps(answers)), encoding="utf-8"
    )

    done = run(
        [sys.executable, str(script)], rendered, env={**env_without_uv, "PYTHONIOENCODING": "ascii"}
    )

    assert "Traceback" not in done.stderr
    assert "\\xe9" in (done.stderr if name == "pre_gen_project" else done.stdout)


@pytest.mark.parametrize(
    "name", ["'''", '"""', "\\", "a'b\"c\\d", '\\n\\"', "{{x}}", "${{ x }}", "%s", "é✈️"]
)
def test_no_answer_breaks_the_hook_itself(bake: Bake, name: str) -> None:
    """Quotes and backslashes reach the rules, they don't end the string that they come in."""
    if pre.broken_text_rule(name) is None:
        assert name in (bake(description=name) / "pyproject.toml").read_text(encoding="utf-8")
        return
    with pytest.raises(FailedHookException, match="exit status: 1"):
        bake(description=name)


NASTY = {
    "project_name": "L'Avion: 100% #1 ✈️ {x} & co",
    "description": "It's - or isn't: a 'late' flight? [yes] {no} <b>#é</b> 飞行 `x` $A ${{ y }} %d",
    "author_name": "Zoë O'Brien-Łuk & Sons (R&D): #1",
    "author_email": "o'brien+ml@sub-domain.example.org",
}


def test_odd_answers_are_kept_letter_by_letter(bake: Bake, run: Run) -> None:
    project = bake(project_slug=SLUG, **NASTY)

    described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert described["description"] == NASTY["description"]
    assert described["authors"] == [{"name": NASTY["author_name"], "email": NASTY["author_email"]}]
    assert NASTY["author_name"] in (project / "LICENSE").read_text(encoding="utf-8")
    for path in project.rglob("*.y*ml"):
        list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for path in project.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Flight Delays", "flight_delays"),
        ("Café  Détecté - 2!", "cafe_detecte_2"),
        ("Bob's Model", "bob_s_model"),
    ],
)
def test_the_slug_is_made_of_the_name(bake: Bake, name: str, slug: str) -> None:
    assert bake(project_name=name).name == slug


def test_people_are_asked_in_plain_words_and_pick_from_menus(
    template: Path, tmp_path: Path, env_without_uv: Mapping[str, str]
) -> None:
    # name, slug (default), description (default), owner, e-mail, task, target, Python (default),
    # licence
    typed = "Churn\n\n\nAda\nada@example.com\n2\n4\n\n4\n"
    command = [sys.executable, "-m", "cookiecutter", str(template), "--output-dir", str(tmp_path)]

    done = subprocess.run(
        command, input=typed, env=env_without_uv, capture_output=True, text=True, check=True
    )

    shown = " ".join(done.stdout.split())
    for option, prompt in OPTIONS["__prompts__"].items():
        question = prompt["__prompt__"] if isinstance(prompt, dict) else prompt
        assert question in shown, option
    params = (tmp_path / "churn" / "params.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(params)["task"] == "regression"
    assert "All rights reserved" in (tmp_path / "churn" / "LICENSE").read_text(encoding="utf-8")
    assert not (tmp_path / "churn" / "deploy").exists()


def test_every_question_has_words_for_people() -> None:
    assert set(OPTIONS["__prompts__"]) == {key for key in OPTIONS if not key.startswith("_")}
    for option, choices in OPTIONS.items():
        if isinstance(choices, list) and not option.startswith("_"):
            assert set(OPTIONS["__prompts__"][option]) == {"__prompt__", *choices}


def test_an_empty_name_is_refused_by_the_rules(tmp_path: Path, run: Run) -> None:
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "project_name="]

    done = run(command, tmp_path)

    assert done.returncode != 0
    assert "project_name = ''" in done.stderr
    assert not list(tmp_path.iterdir())


# The second hook, function by function


@pytest.fixture
def hook_env(monkeypatch: pytest.MonkeyPatch, env_without_uv: Mapping[str, str]) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in env_without_uv.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """A folder with every variant and every feature, as rendering leaves it."""
    project = tmp_path / SLUG
    project.mkdir()
    for path in feature_paths(SLUG):
        write(project / path if Path(path).suffix else project / path / "file.txt", path)
    for choices, names in post.VARIANTS.values():
        for name in names:
            for choice in choices:
                write(post.variant_path(project, name, choice), f"{name} for {choice}")
    for choice, path in replacement_paths(SLUG):
        write(project / path, path)
        write(post.variant_path(project, path, choice), f"{path} for {choice}")
    write(project / "engine" / "manifest.json", '{"files": {}}')
    return project


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def feature_paths(slug: str) -> list[str]:
    return [
        path.replace("*", slug)
        for groups in post.FEATURES.values()
        for _, paths in groups
        for path in paths
    ]


def replacement_paths(slug: str) -> list[tuple[str, str]]:
    return [
        (choice, path.replace("*", slug))
        for choices in post.REPLACEMENTS.values()
        for choice, paths in choices.items()
        for path in paths
    ]


def files_in(project: Path) -> set[str]:
    """The project's own files."""
    names = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("engine/")}


def test_every_variant_is_in_the_template_and_every_file_of_that_form_is_a_variant() -> None:
    listed = {
        post.variant_path(PROJECT_TEMPLATE, name, choice)
        for choices, names in post.VARIANTS.values()
        for name in names
        for choice in choices
    }
    replacements = replacement_paths(PROJECT_TEMPLATE.name)
    assert [path for _, path in replacements if not (PROJECT_TEMPLATE / path).is_file()] == []
    listed |= {post.variant_path(PROJECT_TEMPLATE, path, choice) for choice, path in replacements}
    choices = {choice for options, _ in post.VARIANTS.values() for choice in options}
    choices |= {choice for choice, _ in replacements}
    present = {
        path for path in PROJECT_TEMPLATE.rglob("*") if any(f".{c}" in path.name for c in choices)
    }

    assert listed == present


@pytest.mark.parametrize("target", pre.DEPLOY_TARGETS)
def test_what_one_choice_has_otherwise_takes_the_place_of_the_plain_file(
    rendered: Path, target: str
) -> None:
    post.replace_files(rendered, {**ANSWERS, "deploy_target": target})

    replacements = replacement_paths(SLUG)
    assert replacements
    for choice, path in replacements:
        own = f"{path} for {target}" if (target, path) in replacements else path
        assert (rendered / path).read_text() == own
        assert not post.variant_path(rendered, path, choice).exists()


def test_every_feature_is_in_the_template() -> None:
    """A path that was moved would silently stay in the projects that do not want it."""
    listed = feature_paths(PROJECT_TEMPLATE.name)

    assert [path for path in listed if not (PROJECT_TEMPLATE / path).exists()] == []
    assert {
        choice for groups in post.FEATURES.values() for wanted, _ in groups for choice in wanted
    } <= set(pre.DEPLOY_TARGETS)


@pytest.mark.parametrize("task", pre.TASKS)
@pytest.mark.parametrize("license_name", pre.LICENSES)
def test_only_the_chosen_variant_stays(rendered: Path, task: str, license_name: str) -> None:
    others = {*feature_paths(SLUG), ".github/workflows/", ".github/dependabot."}
    before = {name for name in files_in(rendered) if not name.startswith(tuple(others))}
    assert len(before) == 8

    post.keep_variants(rendered, {**ANSWERS, "task": task, "license": license_name})

    kept = {name for name in files_in(rendered) if not name.startswith(tuple(others))}
    assert {name: (rendered / name).read_text() for name in kept} == {
        "params.yaml": f"params.yaml for {task}",
        "contract.yaml": f"contract.yaml for {task}",
        "LICENSE": f"LICENSE for {license_name}",
    }


DELIVERED = {path for _, path in replacement_paths(SLUG)} - {".github/dependabot.yml"} | {
    ".github/rulesets/deliveries.json",
    ".github/rulesets/environments.json",
    ".github/rulesets/releases.json",
    ".github/workflows/deliver.yml",
    ".github/workflows/rollback.yml",
    "deploy/file.txt",
    "docs/deliver.md",
}
FEATURE_FILES = {
    "kubernetes": DELIVERED
    | {
        "deploy/argocd/file.txt",
        "deploy/base/file.txt",
        "deploy/image/file.txt",
        "deploy/outputs.yaml",
        "deploy/overlays/file.txt",
    },
    "host": DELIVERED
    | {
        "deploy/host/file.txt",
        "deploy/image/file.txt",
    },
    "bentocloud": DELIVERED
    | {
        "deploy/production.yaml",
        "deploy/staging.yaml",
    },
    "none": set[str](),
}


ALWAYS = {"params.yaml", "contract.yaml", "LICENSE", ".github/dependabot.yml"}
LEFT = ALWAYS | FEATURE_FILES[ANSWERS["deploy_target"]]


@pytest.mark.parametrize("target", pre.DEPLOY_TARGETS)
def test_only_the_chosen_features_stay(rendered: Path, target: str) -> None:
    answers = {**ANSWERS, "deploy_target": target}

    post.keep_variants(rendered, answers)
    post.replace_files(rendered, answers)
    post.remove_features(rendered, answers, older=False)

    assert files_in(rendered) == ALWAYS | FEATURE_FILES[target]


def test_what_others_put_into_an_older_project_is_not_removed(
    rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(rendered / "deploy" / "mine.tf", "mine")
    (rendered / ".git").mkdir()

    assert post.main(json.dumps({**ANSWERS, "deploy_target": "none"}), rendered) == 0

    assert (rendered / "deploy" / "mine.tf").read_text() == "mine"
    told = capsys.readouterr().err
    assert "deploy, docs/deliver.md" in told
    assert "nothing was removed" in told


def test_an_older_project_that_wants_everything_hears_nothing(
    rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(rendered / "deploy" / "host")
    for path in (FEATURE_FILES["host"] | FEATURE_FILES["bentocloud"]) - FEATURE_FILES["kubernetes"]:
        (rendered / path).unlink(missing_ok=True)

    post.remove_features(rendered, ANSWERS, older=True)

    assert capsys.readouterr() == ("", "")


def test_a_file_that_was_there_is_kept_beside(
    rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rendered / "params.yaml").write_text("mine")
    (rendered / "LICENSE").write_text("LICENSE for MIT")

    post.keep_variants(rendered, ANSWERS)

    assert (rendered / "params.yaml.orig").read_text() == "mine"
    assert (rendered / "params.yaml").read_text() == "params.yaml for classification"
    assert "params.yaml.orig" in capsys.readouterr().err
    assert not (rendered / "LICENSE.orig").exists(), "an equal file needs no copy"


@pytest.mark.parametrize(
    ("place", "answers", "expected"),
    [
        ("tmpabcd_123", {}, True),
        ("tmpabcd_123", {"_output_dir": "x"}, False),
        ("tmp.Xyz12345", {}, False),
        ("work", {}, False),
        ("tmpabcd_123/deeper", {}, False),
    ],
)
def test_only_renderings_for_comparison_are_throwaway(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    answers: dict[str, str],
    expected: bool,
) -> None:
    monkeypatch.setattr(post.tempfile, "gettempdir", lambda: str(tmp_path))

    assert post.is_throwaway(tmp_path / place / SLUG, answers) is expected


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    ok, output = post.run(
        sys.executable, "-c", "import time; time.sleep(60)", cwd=tmp_path, timeout=1
    )

    assert (ok, output) == (False, "no answer within 1 s")


def test_a_command_that_is_missing_is_an_answer_too(tmp_path: Path) -> None:
    ok, output = post.run("no-such-command", cwd=tmp_path, timeout=1)

    assert not ok
    assert "no-such-command" in output


def test_a_command_cannot_wait_for_someone_to_type(tmp_path: Path) -> None:
    script = (
        "import pathlib, post_gen_project as post; "
        "print(post.run('cat', cwd=pathlib.Path(), timeout=9))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=TEMPLATE / "hooks",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        input="typed",
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "(True, '')\n"


def git(project: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=project, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.usefixtures("hook_env")
def test_the_repository_starts_on_main_with_everything_committed(rendered: Path) -> None:
    assert post.start_repository(rendered)

    assert git(rendered, "branch", "--show-current").strip() == "main"
    assert git(rendered, "log", "--format=%s").splitlines() == ["Start the project"]
    assert git(rendered, "status", "--porcelain") == ""


@pytest.mark.usefixtures("hook_env")
def test_without_an_identity_the_files_are_staged(
    rendered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        for part in ("NAME", "EMAIL"):
            monkeypatch.delenv(f"GIT_{role}_{part}")
    # With an address, git would guess a name from the user's account.
    monkeypatch.setenv("EMAIL", "someone@example.com")

    assert not post.start_repository(rendered)

    told = capsys.readouterr().err
    assert "the files are staged" in told
    assert 'git commit -m "Start the project"' in told
    states = {line[:2] for line in git(rendered, "status", "--porcelain").splitlines()}
    assert states == {"A "}


@pytest.mark.usefixtures("hook_env")
def test_a_repository_that_was_there_is_left_alone(rendered: Path) -> None:
    git(rendered, "init", "-q", "-b", "mine")
    git(rendered, "commit", "-q", "--allow-empty", "-m", "mine")

    assert not post.start_repository(rendered)

    assert git(rendered, "log", "--format=%s").splitlines() == ["mine"]
    assert git(rendered, "branch", "--show-current").strip() == "mine"
    assert git(rendered, "diff", "--cached", "--name-only") == ""


@pytest.mark.usefixtures("hook_env")
def test_a_repository_that_git_cannot_read_is_left_alone(rendered: Path) -> None:
    (rendered / ".git").mkdir()
    (rendered / ".git" / "HEAD").write_text("damaged")

    assert not post.start_repository(rendered)

    assert [path.name for path in (rendered / ".git").iterdir()] == ["HEAD"]


@pytest.mark.usefixtures("hook_env")
@pytest.mark.parametrize("ignored", [False, True])
def test_inside_another_repository_it_depends_on_who_tracks_the_files(
    rendered: Path, ignored: bool
) -> None:
    git(rendered.parent, "init", "-q")
    if ignored:
        (rendered.parent / ".gitignore").write_text(f"/{SLUG}/\n")

    assert post.start_repository(rendered) is ignored
    assert (rendered / ".git").exists() is ignored


@pytest.mark.usefixtures("hook_env")
def test_variables_of_another_git_do_not_misdirect_ours(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))

    assert post.start_repository(rendered)

    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert git(rendered, "status", "--porcelain") == ""
    assert not (other / ".git" / "index").exists()


@pytest.mark.usefixtures("hook_env")
def test_a_git_that_fails_is_told_of(
    rendered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "git").write_text("#!/bin/sh\necho disk is full >&2\nexit 1\n")
    (broken / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:/bin:/usr/bin")

    assert not post.start_repository(rendered)

    assert "`git init --quiet` failed" in (told := capsys.readouterr().err)
    assert "disk is full" in told


@pytest.mark.usefixtures("hook_env")
def test_without_tools_the_project_is_finished_and_each_lack_is_told(
    rendered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(rendered / "nowhere"))

    assert post.main(json.dumps({**ANSWERS, "_output_dir": "x"}), rendered) == 0

    told = capsys.readouterr()
    assert "uv is not installed" in told.err
    assert "run `uv lock`" in told.err
    assert "git is not installed" in told.err
    assert f"cd {SLUG}\n  make setup" in told.out
    assert files_in(rendered) == LEFT


@pytest.fixture
def uv_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook_env: None) -> Path:
    """A place for a stand-in of uv, first on PATH."""
    tools = tmp_path / "uv-tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}:/bin:/usr/bin")
    return tools / "uv"


def test_a_lock_that_fails_is_told_of_with_its_cause(
    rendered: Path, uv_that: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uv_that.write_text("#!/bin/sh\necho error: no route to the index >&2\nexit 2\n")
    uv_that.chmod(0o755)

    assert not post.lock_dependencies(rendered)

    told = capsys.readouterr().err
    assert "run `uv lock` in the project" in told
    assert "error: no route to the index" in told


def test_the_lock_is_in_the_first_commit(rendered: Path, uv_that: Path) -> None:
    uv_that.write_text('#!/bin/sh\ntest "$*" = lock && echo locked > uv.lock\n')
    uv_that.chmod(0o755)

    assert post.main(json.dumps({**ANSWERS, "_output_dir": "x"}), rendered) == 0

    assert "uv.lock" in git(rendered, "ls-files").splitlines()
    assert git(rendered, "status", "--porcelain") == ""


def test_a_rendering_for_comparison_gets_no_lock_and_no_repository(
    rendered: Path, uv_that: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv_that.write_text("#!/bin/sh\necho locked > uv.lock\n")
    uv_that.chmod(0o755)
    throwaway = rendered.parent / "tmp12345678"
    throwaway.mkdir()
    project = Path(shutil.move(rendered, throwaway))
    monkeypatch.setattr(post.tempfile, "gettempdir", lambda: str(throwaway.parent))

    assert post.main(json.dumps({**ANSWERS, "_commit": "abc"}), project) == 0

    assert files_in(project) == LEFT


@pytest.mark.parametrize(
    ("extra", "shown"),
    [({"_commit": "abc"}, True), ({"_output_dir": "x"}, False)],
)
def test_the_file_that_cruft_adds_is_spoken_of_only_under_cruft(
    rendered: Path, capsys: pytest.CaptureFixture[str], extra: dict[str, str], shown: bool
) -> None:
    post.say_what_next(rendered, {**ANSWERS, **extra})

    assert ("git add .cruft.json" in capsys.readouterr().out) is shown


# The second hook under cookiecutter, with the real uv


@pytest.mark.slow
def test_offline_the_project_is_complete_but_for_the_lock(
    tmp_path: Path, run: Run, clean_env: Mapping[str, str]
) -> None:
    env = {**clean_env, "UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty-cache")}
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input"]

    done = run(command, tmp_path, env=env)

    assert done.returncode == 0, done.stderr
    assert "the dependencies are not locked" in done.stderr
    project = tmp_path / SLUG
    assert not (project / "uv.lock").exists()
    assert run(["git", "status", "--porcelain"], project).stdout == ""
    assert run(["git", "log", "--format=%s"], project).stdout == "Start the project\n"


@pytest.mark.slow
def test_the_lock_is_written_committed_and_current(locked_project: Path, run: Run) -> None:
    assert run(["git", "status", "--porcelain"], locked_project).stdout == ""
    assert "uv.lock" in run(["git", "ls-files"], locked_project).stdout.splitlines()
    run(["uv", "lock", "--check"], locked_project, check=True)


@pytest.mark.slow
def test_odd_answers_and_a_long_slug_can_be_locked(bake: Bake) -> None:
    project = bake(lock=True, project_slug="a" * pre.SLUG_LENGTH, **NASTY)

    assert (project / "uv.lock").is_file()
