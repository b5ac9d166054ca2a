"""Checks every answer before anything is generated, and reports all that cannot be used at once."""

from __future__ import annotations

import json
import keyword
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Rendered to the answers as JSON. Its quotes, newlines and angle brackets come escaped, so no
# answer can end this string.
ANSWERS = r"""<< cookiecutter | tojson >>"""

PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
TASKS = ("classification", "regression")
DEPLOY_TARGETS = ("kubernetes", "host", "bentocloud", "none")
LICENSES = ("MIT", "Apache-2.0", "BSD-3-Clause", "proprietary")

SLUG_LENGTH = 30
TEXT_LENGTH = 200
SLUG = re.compile(r"[a-z][a-z0-9_]*[a-z0-9]")
EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])"
)
# An answer with one of these would be read as template code when the project is updated.
DELIMITERS = ("<" + "<", ">" + ">", "<" + "%", "%" + ">", "<" + "#", "#" + ">")
TEXT_RULE = (
    f"one line of 1 to {TEXT_LENGTH} printable characters, no space at either end, and none of "
    + " ".join(('"', "\\", *DELIMITERS))
)
# Control characters, lone surrogates, line and paragraph separators.
UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks that make text read differently from how it is stored.
DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Folders of the generated project, which Python could import instead of the package.
FOLDERS = (
    "build",
    "data",
    "deploy",
    "dist",
    "docs",
    "engine",
    "models",
    "notebooks",
    "plots",
    "reports",
    "src",
    "test",
    "tests",
)
# What Python and pytest import by themselves wherever they find it.
IMPORTED_UNASKED = ("conftest", "sitecustomize", "usercustomize")
# What YAML reads as no name: manifests, workflows and settings hold the slug as a plain word.
YAML_WORDS = ("false", "no", "null", "off", "on", "true", "yes")
# No file or folder of these names can be checked out on Windows.
DEVICES = frozenset(
    {"aux", "con", "nul", "prn", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
# What some of the Pythons that a project supports have in their standard library, and others not.
SOMETIMES_STANDARD = """
    aifc annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils imghdr
    imp lib2to3 mailcap msilib nis nntplib ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu
    xdrlib
"""
# What the generated project depends on, directly or not: distribution and import names. The
# package would hide them, or the project could not depend on a distribution of its own name.
DEPENDENCIES = """
    a2wsgi adbc_driver_manager adbc_driver_postgresql aiohappyeyeballs aiohttp
    aiohttp_asgi_connector aiohttp_retry aiosignal aiosqlite amqp annotated_doc annotated_types
    antlr4 antlr4_python3_runtime anyio appdirs argon2 arrow asgiref ast_serialize asyncssh atpublic
    attr attrs bentoml bentoml_cli billiard boto3 botocore cattr cattrs celery certifi cffi cfgv
    charset_normalizer check_jsonschema circus click click_didyoumean click_option_group
    click_plugins click_repl cloudpickle colorama configobj contourpy coverage cryptography cycler
    dask dateutil dictdiffer diskcache distlib distributed distro dotenv dpath dulwich dvc dvc_azure
    dvc_data dvc_gs dvc_http dvc_objects dvc_render dvc_s3 dvc_ssh dvc_studio_client dvc_task
    entrypoints evidently example fastapi feast filelock flatbuffers flatten_dict flufl flufl_lock
    fonttools frozenlist fs fsspec funcy git gitdb gitops_ml gitpython google grandalf gto h11
    hatchling httpcore httptools httpx httpx_ws hydra hydra_core identify idna iniconfig
    iterative_telemetry jinja2 joblib jsonschema jsonschema_specifications kantoku kiwisolver kombu
    librt markdown_it markdown_it_py markupsafe matplotlib mdurl ml_dtypes mlflow mpl_toolkits
    multidict multipart mypy mypy_extensions mypyc narwhals networkx nodeenv numpy nvidia_ml_py
    omegaconf onnx onnxruntime opentelemetry opentelemetry_api opentelemetry_instrumentation
    opentelemetry_sdk opentelemetry_util_http orjson packaging packaging_legacy_version pandas
    pandera pathspec pil pillow pip pip_requirements_parser pkg_resources platformdirs pluggy polars
    polars_runtime_32 pre_commit pre_commit_hooks prometheus_client prompt_toolkit propcache
    protobuf psutil public py pyarrow pycparser pydantic pydantic_core pydantic_settings
    pydevd_plugins pydot pygit2 pygments pygtrie pylab pynvml pyparsing pytest pytest_cov
    pytest_httpserver python_dateutil python_discovery python_dotenv python_json_logger
    python_multipart pythonjsonlogger pytz pywin32 pyyaml pyzmq redis referencing regress requests
    rich rich_toolkit rpds rpds_py ruamel ruamel_yaml ruff s3fs sacred schema scikit_learn scipy
    scmrepo semver setuptools shellingham shortuuid shtab simple_di six skl2onnx sklearn smmap
    sqlalchemy sqltrie starlette sympy tabulate tenacity tests threadpoolctl tomli tomli_w tomlkit
    tornado tqdm typeguard typer types_pyyaml typing_extensions typing_inspect typing_inspection
    tzdata tzlocal urllib3 uv uv_build uvicorn uvloop validate vine virtualenv voluptuous watchfiles
    wcwidth werkzeug wheel wrapt wsproto yaml yarl zc zc_lockfile zizmor zmq
"""


@dataclass(frozen=True)
class Problem:
    """One answer that cannot be used."""

    answer: str
    value: object
    rule: str
    example: str

    def __str__(self) -> str:
        """The problem as people read it."""
        return (
            f"  {self.answer} = {self.value!r}\n"
            f"    rule:    {self.rule}\n"
            f"    example: {self.example}"
        )


def broken_slug_rule(slug: str) -> str | None:
    """The rule that a package name breaks, or None."""
    if not SLUG.fullmatch(slug):
        return (
            "a Python package name of at least two characters: lower-case letters a-z, digits and "
            "underscores, starting with a letter and not ending with an underscore"
        )
    if len(slug) > SLUG_LENGTH:
        return f"at most {SLUG_LENGTH} characters; this has {len(slug)}"
    if keyword.iskeyword(slug):
        return "not a keyword of Python"
    if slug in IMPORTED_UNASKED:
        return f"not {slug}, which Python or pytest would import by itself, for something else"
    if slug in YAML_WORDS:
        return f"not {slug}, which is no name in YAML"
    if slug in DEVICES:
        return f"not {slug}, which Windows keeps for a device"
    if slug.startswith("test_"):
        return "not a name that begins with test_: pytest would take it for a file of tests"
    if slug in (*sys.stdlib_module_names, *SOMETIMES_STANDARD.split()):
        return "not the name of a module of Python's standard library, which it would hide"
    if slug in DEPENDENCIES.split():
        return "not the name of a package that the project depends on, which it would hide"
    if slug in FOLDERS:
        return "not the name of one of the project's own folders"
    return None


def broken_text_rule(text: str) -> str | None:
    """The rule that a name or a sentence breaks, or None.

    Answers end up in TOML, YAML, Markdown and docstrings, between double quotes where there are
    any; what is refused here is what would end or alter such a string.
    """
    good = (
        text == text.strip()
        and 0 < len(text) <= TEXT_LENGTH
        and not any(mark in text for mark in ('"', "\\", *DELIMITERS))
        and not any(unicodedata.category(c) in UNPRINTABLE or c in DIRECTION_MARKS for c in text)
    )
    return None if good else TEXT_RULE


def broken_author_rule(text: str) -> str | None:
    """The rule that an author's name breaks, or None."""
    broken = broken_text_rule(text)
    if broken is None and any(c in text for c in ",<>@"):
        return (
            "no comma, angle bracket or @, which Python's package metadata do not allow in a name"
        )
    return broken


def broken_email_rule(text: str) -> str | None:
    """The rule that an e-mail address breaks, or None."""
    if len(text) > TEXT_LENGTH or not EMAIL.fullmatch(text) or any(m in text for m in DELIMITERS):
        return "an e-mail address in ASCII, such as name@example.com"
    return None


def one_of(*choices: str) -> Callable[[str], str | None]:
    """A rule that accepts these values only."""

    def broken_choice_rule(value: str) -> str | None:
        return None if value in choices else f"one of {', '.join(choices)}"

    return broken_choice_rule


# Every answer: the rule it is held against, and an example of a good one.
RULES: Mapping[str, tuple[Callable[[str], str | None], str]] = {
    "project_name": (broken_text_rule, "Flight Delays"),
    "project_slug": (broken_slug_rule, "flight_delays"),
    "description": (broken_text_rule, "Predicts which flights arrive late, before they leave."),
    "author_name": (broken_author_rule, "Ada Lovelace"),
    "author_email": (broken_email_rule, "ada@example.com"),
    "task": (one_of(*TASKS), "classification"),
    "deploy_target": (one_of(*DEPLOY_TARGETS), "kubernetes"),
    "python_version": (one_of(*PYTHON_VERSIONS), "3.11"),
    "license": (one_of(*LICENSES), "MIT"),
}


def find_problems(answers: Mapping[str, object]) -> list[Problem]:
    """Every answer that breaks its rule, in the order of the questions."""
    problems = []
    for answer, (broken_rule, example) in RULES.items():
        value = answers.get(answer)
        rule = broken_rule(value) if isinstance(value, str) else "a text"
        if rule is not None:
            problems.append(Problem(answer, value, rule, example))
    return problems


def uncopyable(engine: Path) -> Iterator[str]:
    """What lies around below the template's engine and would end its copying half-way.

    Links that lead nowhere or to a folder that holds them, and what is neither file nor folder.
    """
    for folder, _, _ in os.walk(engine):
        for path in sorted(Path(folder).iterdir()):
            inside = path.is_symlink() and path.is_dir()
            circle = inside and Path(folder).resolve().is_relative_to(path.resolve())
            if circle or not (path.is_file() or path.is_dir()):
                yield path.relative_to(engine.parent).as_posix()


def main(rendered: str = ANSWERS) -> int:
    """Check the answers; 0 when all can be used, 1 when not."""
    answers = json.loads(rendered)
    problems = find_problems(answers)
    if not problems:
        return check_template(answers)
    count = "1 answer" if len(problems) == 1 else f"{len(problems)} answers"
    print(f"\nNothing was generated: {count} cannot be used.\n", file=sys.stderr)
    for problem in problems:
        print(f"{problem}\n", file=sys.stderr)
    return 1


def check_template(answers: Mapping[str, object]) -> int:
    """Refuse a working tree that cannot be copied; 0 when it can, or when it is not known."""
    # Where cookiecutter was started, which a relative path starts from.
    started = Path(os.environ.get("PWD", ""))
    engine = started / str(answers.get("_repo_dir", "")) / "engine"
    found = list(uncopyable(engine))
    if not found:
        return 0
    print(
        f"\nNothing was generated: the template's {', '.join(found)} cannot be copied (a link that "
        "leads nowhere or in a circle, or no file).\nRemove it, or generate from a fresh "
        "`git clone` of the template.\n",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
