"""Two identical requests at the same time: the later one takes over, and what both did counts once."""

from __future__ import annotations

import pytest

from tests.faults.ingest_worker import Outcome
from tests.faults.ingestion import BULK, LETTERS, PROGRESS, Ingestion, Start, documents_in, joined, one_source
from tests.faults.proxy import Exchange, Fault, first, passes

slow = pytest.mark.slow


def superseded(ingestion: Ingestion, then: Fault = passes) -> Fault:
    """Let a process wait at a request until another one with the same request has ended well."""

    def run_another() -> None:
        outcome = ingestion.start().end()
        assert isinstance(outcome, Outcome)
        assert outcome.report is not None, outcome
        ingestion.check(outcome.report)

    ingestion.options = {"each_body": True}
    return first(run_another, then)


@pytest.mark.parametrize(
    ("request_", "number"), [(LETTERS, 2), pytest.param(PROGRESS, 2, marks=slow), pytest.param(PROGRESS, 6, marks=slow)]
)
def test_a_slow_process_is_overtaken(start: Start, request_: str, number: int) -> None:
    """It finds out at its next record and leaves everything as the other one made it."""
    ingestion = start(one_source())
    ingestion.store.on(request_, number, superseded(ingestion))
    outcome = ingestion.failed()
    assert outcome.error == "RetriableError"
    assert "another run of this request took over" in outcome.text
    assert ingestion.operations() == len(ingestion.shape.documents)
    ingestion.check_nothing_to_do()


@slow
def test_a_slow_body_is_overtaken(start: Start) -> None:
    """What was under way is all that is written twice."""
    ingestion = start(joined(spilled=True))
    ingestion.more = {"max_in_flight": 1}
    sizes = list[int]()

    def arrives_late(exchange: Exchange) -> None:
        sizes.append(documents_in(exchange.body))
        passes(exchange)

    ingestion.node.on(BULK, 8, superseded(ingestion, arrives_late))
    assert ingestion.failed().error == "RetriableError"
    assert ingestion.operations() == len(ingestion.shape.documents) + sizes[0]
    ingestion.check_nothing_to_do()


def test_two_begin_at_once(start: Start) -> None:
    """One of them at least ends well; a third finds the work done."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}
    ingestion.prepare_document("d3", ingestion.shape.documents["d3"])
    workers = [ingestion.start(), ingestion.start()]
    outcomes = [worker.end() for worker in workers]
    errors = {outcome.error for outcome in outcomes if isinstance(outcome, Outcome)}
    assert errors <= {"", "RetriableError"}
    assert len(outcomes) == 2
    assert "" in errors
    ingestion.check_nothing_to_do()
