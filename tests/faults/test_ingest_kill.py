"""An ingest killed at any moment and run again: every document is there, written once, nothing is lost or doubled."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from tests.faults.ingest_worker import Outcome
from tests.faults.ingestion import (
    BULK,
    LETTERS,
    PROGRESS,
    REFRESH,
    Ingestion,
    Start,
    after,
    before,
    documents_in,
    joined,
    one_source,
    with_duplicates,
)
from tests.faults.proxy import Exchange, Fault
from tests.waiting import WAIT_S

slow = pytest.mark.slow
When = Callable[[Callable[[], object]], Fault]
SHAPES = {
    "one source": one_source(),
    "two side by side": joined(),
    "two on disk": joined(spilled=True),
    "three side by side": joined(sources=3),
    "three on disk": joined(sources=3, spilled=True),
}


def complete(ingestion: Ingestion) -> None:
    """Run to the end, and see that every document was written once and that nothing is left to do."""
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)
    ingestion.check_nothing_to_do()


@pytest.mark.parametrize(
    ("number", "when", "each_body"),
    [
        pytest.param(1, before, False, marks=slow),
        (5, after, False),
        pytest.param(5, before, True, marks=slow),
        (9, after, True),
    ],
)
def test_killed_between_two_bulks(start: Start, number: int, when: When, *, each_body: bool) -> None:
    """Whether the body arrived or not, and whether progress tells of those before it or the index alone."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": each_body}
    ingestion.node.on(BULK, number, when(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    complete(ingestion)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param("two side by side", marks=slow),
        pytest.param("two on disk", marks=slow),
        pytest.param("three side by side", marks=slow),
        "three on disk",
    ],
)
def test_a_join_is_killed(start: Start, shape: str) -> None:
    """The order of documents is the same the second time, so that counting them finds the place again."""
    ingestion = start(SHAPES[shape])
    ingestion.options = {"each_body": True}
    ingestion.node.on(BULK, 6, after(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    complete(ingestion)


@slow
@pytest.mark.parametrize(
    ("number", "when", "each_body"), [(2, before, True), (3, after, False), (8, before, False), (11, after, True)]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_anywhere(start: Start, shape: str, number: int, when: When, *, each_body: bool) -> None:
    """The same at every other bulk of every shape."""
    ingestion = start(SHAPES[shape])
    ingestion.options = {"each_body": each_body}
    ingestion.node.on(BULK, number, when(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    complete(ingestion)


@pytest.mark.parametrize("shape", [pytest.param("one source", marks=slow), "three on disk"])
def test_killed_again_and_again(start: Start, shape: str) -> None:
    """Each attempt gets a little further; together they write what one would have written."""
    ingestion = start(SHAPES[shape])
    ingestion.options = {"each_body": True}
    kills = 0
    while True:
        ingestion.node.on(BULK, 6, [before, after][kills % 2](ingestion.kills))
        if ingestion.run() != signal.SIGKILL:
            break
        kills += 1
    assert kills >= 2
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)


@pytest.mark.parametrize(
    ("server", "request_", "number", "when"),
    [
        ("node", REFRESH, 1, before),
        pytest.param("node", REFRESH, 1, after, marks=slow),
        pytest.param("store", LETTERS, 1, after, marks=slow),
        pytest.param("store", LETTERS, 2, before, marks=slow),
        pytest.param("store", LETTERS, 2, after, marks=slow),
        pytest.param("store", PROGRESS, 1, after, marks=slow),
        pytest.param("store", PROGRESS, 5, before, marks=slow),
        ("store", PROGRESS, 5, after),
    ],
)
def test_killed_between_the_records(start: Start, server: str, request_: str, number: int, when: When) -> None:
    """Dead letters are written before the progress that counts them, and the refresh comes before the end."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}
    getattr(ingestion, server).on(request_, number, when(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    complete(ingestion)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=slow), signal.SIGINT])
def test_stopped_by_a_signal(start: Start, number: int) -> None:
    """A stop is no end: the same request goes on."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}
    ingestion.node.on(BULK, 5, before(lambda: ingestion.signals(number)))
    assert ingestion.run() == number
    complete(ingestion)


def test_a_body_that_arrives_after_its_process_died(start: Start) -> None:
    """What was in flight at the kill is all that can be written twice; it is the same."""
    ingestion = start(one_source())
    ended, in_flight = threading.Event(), list[int]()

    def arrives_late(exchange: Exchange) -> None:
        in_flight.append(documents_in(exchange.body))
        ingestion.kills()
        assert ended.wait(WAIT_S)
        exchange.forward()

    ingestion.more = {"max_in_flight": 1}
    ingestion.node.on(BULK, 8, arrives_late)
    assert ingestion.start().end() == signal.SIGKILL
    outcome = ingestion.start().end()
    ended.set()
    ingestion.node.settle()
    assert isinstance(outcome, Outcome)
    assert outcome.report is not None
    ingestion.check(outcome.report)
    assert in_flight[0] > 1
    assert ingestion.operations() == len(ingestion.shape.documents) + in_flight[0]


@pytest.mark.parametrize(
    ("number", "each_body"),
    [(5, True), (5, False)] + [pytest.param(n, each, marks=slow) for n in (2, 8) for each in (True, False)],
)
def test_rows_with_the_same_id_are_merged_anew(start: Start, number: int, *, each_body: bool) -> None:
    """A document that got a later row before the kill gets it again; it ends as without the kill."""
    ingestion = start(with_duplicates())
    ingestion.options = {"each_body": each_body}
    ingestion.node.on(BULK, number, after(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    ingestion.check(ingestion.done())
    ingestion.check_nothing_to_do()


@slow
@pytest.mark.parametrize(("op_type", "kept"), [("create", "older"), ("upsert", None)])
def test_other_ways_of_writing_are_killed(start: Start, op_type: str, kept: str | None) -> None:
    """Create keeps a document that was there before, upsert merges into it; either writes each once."""
    ingestion = start(one_source())
    ingestion.more = {"op_type": op_type}
    ingestion.prepare_document("d3", {"n": 3, "text": "older", "more": "kept"})
    ingestion.node.on(BULK, 5, after(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    shape = ingestion.shape
    shape.documents["d3"] = {"n": 3, "text": kept or "text 3", "more": "kept"}
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(shape.documents) + (op_type == "upsert")
    ingestion.check_nothing_to_do()
