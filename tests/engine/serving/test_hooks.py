"""What a project's own `service.py` does to requests and answers, in a service over ASGI."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import PROJECT_TEMPLATE
from projects import PACKAGE, forget_package

from gitops_ml.core.user_code import UserCodeError, user_code
from gitops_ml.serving.app import Model
from gitops_ml.serving.config import ServiceConfig
from gitops_ml.serving.hooks import load_hooks

RECORD = {"weight": 1.5, "items": 3, "member": True, "colour": "blue"}
BOTH = """
def before(records):
    return [{**record, "colour": record["colour"].lower()} for record in records]


def after(records, answers):
    return [{**answer, "of": record["colour"]} for record, answer in zip(records, answers)]
"""
Ask = Callable[[str, Any], httpx.Response]


@pytest.fixture
def ask(project: Path, make_model: Callable[..., Model], ask: Callable[..., httpx.Response]) -> Ask:
    """Ask the service of a project with this `service.py`: `ask(BOTH, RECORD)`."""

    def request(source: str, body: Any) -> httpx.Response:
        package = project / "src" / PACKAGE
        package.mkdir(parents=True, exist_ok=True)
        (package / "service.py").write_text(source, encoding="utf-8")
        forget_package()
        model = make_model(code=user_code(project, PACKAGE), SERVICE_MAX_ROWS=5)
        return ask(model, "POST", "/predict", **body_of(body))

    return request


def body_of(body: Any) -> dict[str, Any]:
    return {"content": body} if isinstance(body, bytes) else {"json": body}


def test_requests_are_changed_before_and_answers_added_to_after(ask: Ask) -> None:
    plain = ask("", RECORD).json()
    changed = ask(BOTH, {**RECORD, "colour": "BLUE"})

    assert changed.status_code == 200
    assert changed.json() == {**plain, "of": "blue"}


def test_an_array_stays_an_array_and_a_record_a_record(ask: Ask) -> None:
    answers = ask(BOTH, [{**RECORD, "colour": "RED"}, RECORD])

    assert [answer["of"] for answer in answers.json()] == ["red", "blue"]


def test_what_before_gives_back_is_checked_against_the_schema(ask: Ask) -> None:
    answer = ask('def before(records):\n    return [{**records[0], "items": "x"}]\n', RECORD)

    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == "items"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b"[1]", 422),
        (b'"x"', 422),
        (b"[" + b"{}," * 5 + b"{}]", 413),
    ],
)
def test_what_is_no_record_is_named_as_without_before(ask: Ask, body: bytes, status: int) -> None:
    assert ask(BOTH, body).status_code == status


@pytest.mark.parametrize("name", ["before", "after"])
def test_a_value_error_is_the_clients_mistake(ask: Ask, name: str) -> None:
    rest = "(records):" if name == "before" else "(records, answers):"
    answer = ask(f'def {name}{rest}\n    raise ValueError("no such shop")\n', RECORD)

    assert answer.status_code == 422
    assert answer.json()["problems"] == [{"problem": f"service.py, {name}: no such shop"}]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def before(records):\n    return 1 / 0\n", r"service\.py:2: before: ZeroDivisionError"),
        ("def before(records):\n    return records[0]\n", "before: gives back dict; it must be"),
        ("def before(records):\n    return []\n", "before: gives back 0 for 1"),
        ("def before(records):\n    return [object()]\n", "before: gives back a list of other"),
        ("def after(records, answers):\n    return None\n", "after: gives back NoneType"),
        (
            "def after(records, answers):\n    return [{**answers[0], 'prediction': 7}]\n",
            "after: changes prediction of answer 0; it may only add",
        ),
        (
            "def after(records, answers):\n    answers[0].clear()\n    return answers\n",
            "after: changes prediction, probabilities of answer 0",
        ),
        (
            "def after(records, answers):\n"
            "    answers[0]['probabilities'].update(true=0.0)\n    return answers\n",
            "after: changes probabilities of answer 0",
        ),
        (
            "def after(records, answers):\n"
            "    return [{**answers[0], 'prediction': int(answers[0]['prediction'])}]\n",
            "after: changes prediction of answer 0",
        ),
        ("def before(records):\n    raise SystemExit(0)\n", "before: SystemExit: 0"),
        ("def before(records):\n    raise GeneratorExit\n", "before: GeneratorExit"),
        (
            "def after(records, answers):\n    return [{**answers[0], 'x': object()}]\n",
            "after: gives back what JSON cannot hold",
        ),
    ],
)
def test_a_mistake_of_the_code_is_in_the_log_and_not_in_the_answer(
    ask: Ask, caplog: pytest.LogCaptureFixture, source: str, said: str
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = ask(source, RECORD)

    assert answer.status_code == 500
    assert answer.json() == {"error": "The prediction failed."}
    assert re.search(said, caplog.text)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("before = 3\n", "before: is no function"),
        ("async def before(records):\n    return records\n", "before: must be a plain function"),
        ("def before(records):\n    yield records\n", "before: must be a plain function"),
        (
            "def after(answers):\n    return answers\n",
            "after: is called with records and answers: ",
        ),
        ("import nowhere_at_all\n", r"service\.py:1: cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_service_with_unusable_code_does_not_start(project: Path, source: str, said: str) -> None:
    package = project / "src" / PACKAGE
    package.mkdir(parents=True)
    (package / "service.py").write_text(source, encoding="utf-8")

    with pytest.raises(UserCodeError, match=said):
        load_hooks(project, PACKAGE)


def test_a_service_with_other_code_than_the_gate_saw_does_not_start(
    ask: Ask, project: Path
) -> None:
    ask("", RECORD)  # no column is derived, so that nothing else looks at the code
    (project / "src" / PACKAGE / "service.py").write_text("answer = 1\n", encoding="utf-8")

    with pytest.raises(UserCodeError, match="is not the code that trained the"):
        Model("shop", project, ServiceConfig.from_environment({}))


def test_without_the_file_nothing_is_changed(project: Path) -> None:
    hooks = load_hooks(project, PACKAGE)

    assert hooks.change(b'{"a": 1}', 5) == b'{"a": 1}'
    assert hooks.add([{}], [{"prediction": 1}], False) == b'{"prediction":1}'


def test_the_documents_example_works(project: Path) -> None:
    page = (PROJECT_TEMPLATE / "docs" / "your-code.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(from typing[^`]*def before.*?)```", page, re.DOTALL)
    package = project / "src" / PACKAGE
    package.mkdir(parents=True)
    (package / "service.py").write_text(source, encoding="utf-8")
    hooks = load_hooks(project, PACKAGE)

    body = b'{"carrier":"dl","origin":"lga","destination":"pbi","distance":1035}'
    assert hooks.change(body, 5) == body.upper().replace(b"CARRIER", b"carrier").replace(
        b"ORIGIN", b"origin"
    ).replace(b"DESTINATION", b"destination").replace(b"DISTANCE", b"distance")
    wrong = b'{"carrier":null,"origin":[1],"destination":{"a":1}}'
    assert hooks.change(wrong, 5) == wrong
    record = {"origin": "LGA", "destination": "PBI"}
    assert hooks.add([record], [{"prediction": 1}], True) == (
        b'[{"prediction":1,"route":"LGA-PBI"}]'
    )
