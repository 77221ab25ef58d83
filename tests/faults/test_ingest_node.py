"""What an ingest does while the node is busy, away, or taken from under it."""

from __future__ import annotations

import json
import signal

import pytest

from tests.faults.ingestion import BULK, MGET, REFRESH, Start, after, documents_in, one_source, with_a_long_row
from tests.faults.proxy import Exchange, Fault, answers, cuts, first, passes, resets, resets_after

slow = pytest.mark.slow
BUSY = json.dumps({"error": {"type": "busy", "reason": "busy"}, "status": 429}).encode()


@pytest.mark.parametrize("status", [pytest.param(429, marks=slow), pytest.param(502, marks=slow), 503])
def test_a_busy_node_gets_everything_once(start: Start, status: int) -> None:
    """Bodies that were refused are sent again, and nothing else."""
    ingestion = start(one_source())
    ingestion.node.on(BULK, 3, answers(status, BUSY), times=3)
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)


def test_bodies_too_large_for_the_node_are_halved(start: Start) -> None:
    """Until they pass; a document that is too large alone is a dead letter."""
    ingestion = start(with_a_long_row())

    def small_door(exchange: Exchange) -> None:
        (passes if len(exchange.body) <= 120 else answers(413))(exchange)

    ingestion.node.on(BULK, 1, small_door, times=1000)
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)


@pytest.mark.parametrize(
    ("fault", "written_twice"),
    [pytest.param(resets, False, marks=slow), pytest.param(resets_after, True, marks=slow), (cuts, True)],
)
def test_a_connection_that_breaks(start: Start, fault: Fault, *, written_twice: bool) -> None:
    """A body whose answer was lost is sent again whole; the others are not."""
    ingestion = start(one_source())
    sizes = list[int]()

    def breaks(exchange: Exchange) -> None:
        sizes.append(documents_in(exchange.body))
        fault(exchange)

    ingestion.node.on(BULK, 8, breaks, times=2)
    ingestion.check(ingestion.done())
    again = sum(sizes) if written_twice else 0
    assert ingestion.operations() == len(ingestion.shape.documents) + again


@slow
def test_a_node_that_is_away_when_doubt_is_settled(start: Start) -> None:
    """The attempt fails and says so; the next one goes on."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}
    ingestion.node.on(BULK, 5, after(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    ingestion.node.on(MGET, 1, answers(503, BUSY))
    assert ingestion.failed().error == "RetriableError"
    ingestion.node.on(REFRESH, 1, resets)
    assert ingestion.failed().error == "RetriableError"
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)


@pytest.mark.slow
def test_an_index_deleted_meanwhile(start: Start) -> None:
    """A bulk request makes it again with guessed mappings; the ingest says what to do, and then starts anew."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}

    def delete() -> None:
        ingestion.lab.node("DELETE", ingestion.index)

    ingestion.node.on(BULK, 5, first(delete))
    outcome = ingestion.failed()
    assert outcome.error == "ConfigError"
    assert f"index {ingestion.index} was deleted while it was being written" in outcome.text
    delete()
    report = ingestion.done()
    ingestion.check(report)
    assert report.counts.indexed == ingestion.operations() == len(ingestion.shape.documents)


@pytest.mark.slow
def test_an_index_blocked_meanwhile(start: Start) -> None:
    """No document becomes a dead letter for it; when the block is lifted the same request goes on."""
    ingestion = start(one_source())
    ingestion.options = {"each_body": True}

    def block(*, on: bool = True) -> None:
        ingestion.lab.node("PUT", f"{ingestion.index}/_settings", {"index.blocks.write": on})

    ingestion.node.on(BULK, 5, first(block))
    outcome = ingestion.failed()
    assert outcome.error == "ConfigError"
    assert "refuses writes (403)" in outcome.text
    block(on=False)
    ingestion.check(ingestion.done())
    assert ingestion.operations() == len(ingestion.shape.documents)
