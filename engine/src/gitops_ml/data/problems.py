"""What can be wrong with data, in words for people and in JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gitops_ml.core.errors import GitopsError

MAX_EXAMPLES = 5


class Problem(BaseModel):
    """One broken rule: where, how often, and the first few rows that break it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    column: str | None = None
    rule: str
    count: int = 1
    message: str
    examples: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        """One line: where, what, a few examples, the rule."""
        where = f"{self.file}: {self.column}" if self.column else self.file
        shown = "; ".join(describe(example) for example in self.examples)
        return f"{where}: {self.message}" + (f" ({shown})" if shown else "") + f" [{self.rule}]"


class DataError(GitopsError):
    """The data cannot be used; carries every problem that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def describe(example: Mapping[str, Any]) -> str:
    """An example row in a few words: `line 3: 'abc'`, `carrier=AA, flight=12: 5`."""
    place = next(name for name in ("line", "row", "key") if name in example)
    where = example[place]
    label = _pairs(where) if isinstance(where, Mapping) else f"{place} {where}"
    if "value" not in example:
        return label
    value = example["value"]
    return f"{label}: {_pairs(value) if isinstance(value, Mapping) else repr(value)}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a report; keys keep their order, the file ends with a line feed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def dump(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """The problems as JSON values."""
    return [problem.model_dump(mode="json") for problem in problems]


def print_problems(stage: str, problems: Sequence[Problem], report: Path) -> None:
    """Tell people on stderr what is wrong and where to read on."""
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{stage}: {count(len(problems), 'problem')}; see {report}", file=sys.stderr)
