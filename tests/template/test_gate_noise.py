"""The shipped margins are those that docs/gate-noise.md measured, and hold what is promised."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import yaml
from conftest import PROJECT_TEMPLATE, TEMPLATE

from gitops_ml.core.settings import Contract

PAGE = (TEMPLATE / "docs" / "gate-noise.md").read_text(encoding="utf-8")
FALSE_ALARMS, POWER = 5.0, 95.0

each_task = pytest.mark.parametrize("task", ["classification", "regression"])


def column(task: str, title: str, name: str) -> dict[str, str]:
    """A column of a table of the page, by what is in its first one."""
    part = PAGE.split(f"## {task.capitalize()}\n", 1)[1].split("\n## ", 1)[0]
    table = part.split(f"**{title}", 1)[1].split("\n\n", 2)[1]
    rows: Sequence[Sequence[str]] = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    place = rows[0].index(name)
    return {row[0]: row[place] for row in rows[2:]}


def percent(cell: str) -> float:
    found = re.match(r"([\d.]+)%", cell)
    assert found is not None, cell
    return float(found[1])


@each_task
def test_the_shipped_margins_are_the_measured_ones(task: str) -> None:
    text = (PROJECT_TEMPLATE / f"contract.{task}.yaml").read_text(encoding="utf-8")
    contract = Contract.model_validate(yaml.safe_load(text))
    terms = {name: part.margin for name, part in contract.model.metrics.items()}
    measured = column(task, "Margins", "contract.yaml")
    for part in contract.model.slices:
        inside = [name for name in measured if name.startswith(f"{part.metric}, {part.column} ")]
        assert inside, "each value of a slice's column is a term"
        terms |= dict.fromkeys(inside, part.margin)

    assert {name: float(margin) for name, margin in measured.items()} == terms
    assert all(one.erosion == 2 * (one.margin or 0) for one in contract.model.metrics.values())


@each_task
def test_they_leave_equivalent_models_alone_and_block_what_loses_twice_as_much(task: str) -> None:
    alarms = column(task, "An equivalent model (another seed) is blocked", "contract.yaml")
    assert len(alarms) == 3
    assert max(map(percent, alarms.values())) <= FALSE_ALARMS
    power = column(task, "A single term blocks", "contract.yaml")
    assert percent(power["1.75 to 2.25"]) >= POWER
