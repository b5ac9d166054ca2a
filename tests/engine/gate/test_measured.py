"""A term is one field: what judges, compares and proposes it reads it there."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from gitops_ml.core.settings import SMALLER, Contract, ModelTerms, Proposal, Quantity
from gitops_ml.gate.contract_changes import changes_between, stricter_of, terms_of
from gitops_ml.gate.judgement import judge_limits
from gitops_ml.gate.measured import measure
from gitops_ml.gate.propose import proposed_lines

DOCUMENT = {
    "model": {"metrics": {"mae": {"ceiling": 1}}, "size_mb": 2, "latency_p99_ms": 50},
    "data": {"rows_min": 10, "row_count_change": {"min": -0.05, "max": 0.5}},
}


# Three megabytes, two milliseconds.
MODEL = (3_000_000, 2.0)


def test_every_quantity_of_the_contract_is_measured_and_nothing_else() -> None:
    """A limit that is added later would otherwise hold nothing."""
    named = {
        f"{section}.{key}"
        for section, part in Contract.model_validate(DOCUMENT)
        for key, field in type(part).model_fields.items()
        if any(isinstance(one, Quantity) for one in field.metadata)
    }
    assert set(measure(*MODEL, 8, 10)) == named


def test_each_limit_is_held_against_its_number() -> None:
    limits = {
        limit.term: limit
        for limit in judge_limits(Contract.model_validate(DOCUMENT), measure(*MODEL, 8, 10))
    }
    assert limits["model.size_mb"].failures == (
        "size of the served model: 3 MB is more than 2 (model.size_mb)",
    )
    assert limits["model.latency_p99_ms"].failures == ()
    assert limits["data.rows_min"].failures == (
        "rows of data: 8 rows is less than 10 (data.rows_min)",
    )
    assert limits["data.row_count_change"].failures == (
        "change of the row count since the base: -20 % is less than -5 (data.row_count_change)",
    )


@pytest.mark.parametrize(("rows", "held"), [(15, True), (16, False)])
def test_a_growth_is_held_against_its_share_too(rows: int, held: bool) -> None:
    limits = judge_limits(Contract.model_validate(DOCUMENT), measure(*MODEL, rows, 10))
    (change,) = (limit for limit in limits if limit.term == "data.row_count_change")
    assert (change.failures == ()) is held


def test_a_megabyte_is_a_million_bytes() -> None:
    assert measure(*MODEL, 8)["model.size_mb"] == 3.0


def test_without_a_base_or_without_a_term_there_is_no_such_limit() -> None:
    contract = Contract.model_validate(DOCUMENT)
    found = {limit.term for limit in judge_limits(contract, measure(*MODEL, 8))}
    assert found == {"model.size_mb", "model.latency_p99_ms", "data.rows_min"}
    silent = Contract.model_validate({**DOCUMENT, "data": {}})
    terms = {limit.term for limit in judge_limits(silent, measure(*MODEL, 8, 10))}
    assert "data.row_count_change" not in terms


# The one place where a term is added.
class MoreModelTerms(ModelTerms):
    memory_mb: Annotated[
        float | None,
        Field(gt=0),
        SMALLER,
        Quantity("memory of the service", "MB"),
        Proposal(lambda found: 2 * found, "resident, after one request"),
    ] = None


class MoreContract(Contract):
    model: MoreModelTerms


def with_memory(allowed: float | None) -> Any:
    model = {**DOCUMENT["model"], "memory_mb": allowed}
    return MoreContract.model_validate({**DOCUMENT, "model": model})


def test_a_term_that_is_added_is_judged_compared_proposed_and_described() -> None:
    strict, loose = with_memory(100), with_memory(200)
    measured = {**measure(*MODEL, 20), "model.memory_mb": 150.0}

    assert [
        limit.failures for limit in judge_limits(strict, measured) if "memory" in limit.name
    ] == [("memory of the service: 150 MB is more than 100 (model.memory_mb)",)]
    assert [change.effect for change in changes_between(strict, loose)] == ["loosened"]
    assert terms_of(stricter_of(strict, loose))["model.memory_mb"] == 100
    line = "  memory_mb: 300            # resident, after one request\n"
    assert line in list(proposed_lines("model", MoreModelTerms, measured))
    assert "memory_mb" in MoreModelTerms.model_json_schema()["properties"]


def test_a_quantity_that_nothing_measures_is_an_error() -> None:
    with pytest.raises(KeyError, match="memory_mb"):
        judge_limits(with_memory(100), measure(*MODEL, 20))
