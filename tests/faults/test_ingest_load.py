"""Settings that an index has only while it is loaded are given back, whatever becomes of the load."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.ingestion import BODY, BULK, SETTINGS, Ingestion, Start, after, before, one_source
from tests.faults.proxy import Exchange, Fault, afterwards, answers, first, passes
from tests.waiting import WAIT_S

slow = pytest.mark.slow
LOAD = {"refresh_interval": "-1", "number_of_replicas": 0}
DURING = {"refresh_interval": "-1", "number_of_replicas": "0"}
BEFORE = {"refresh_interval": "7s", "number_of_replicas": "1"}
RECORD = "PUT .*/loads/"
When = Callable[[Callable[[], object]], Fault]


def loading(start: Start, folder: str = "in", **more: Any) -> Ingestion:
    """Lay out an ingest that changes the settings of its index."""
    ingestion = start(one_source(), folder=folder)
    settings = {"number_of_shards": 1, "number_of_replicas": 1, "refresh_interval": "7s"}
    body = {**BODY, "settings": {"index": settings}}
    ingestion.more = {"load": LOAD, "index_body": body, **more}
    ingestion.options = {"each_body": True}
    return ingestion


@slow
def test_given_back_after_success_and_after_an_error(start: Start) -> None:
    """They hold while bodies are sent, and no longer."""
    ingestion = loading(start)
    seen = list[dict[str, Any]]()
    ingestion.node.on(BULK, 3, first(lambda: seen.append(ingestion.settings())))
    ingestion.node.on(BULK, 5, answers(400))
    assert ingestion.failed().error == "ConfigError"
    assert ingestion.settings() == BEFORE
    ingestion.node.on(BULK, 2, first(lambda: seen.append(ingestion.settings())))
    ingestion.check(ingestion.done())
    assert (seen, ingestion.settings()) == ([DURING, DURING], BEFORE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "request_", "number", "when"),
    [
        pytest.param("node", BULK, 5, before, marks=slow),
        pytest.param("node", SETTINGS, 1, before, marks=slow),
        pytest.param("node", SETTINGS, 1, after, marks=slow),
        ("node", SETTINGS, 2, before),
        pytest.param("node", SETTINGS, 2, after, marks=slow),
        pytest.param("store", RECORD, 1, after, marks=slow),
        pytest.param("store", RECORD, 2, before, marks=slow),
        pytest.param("store", RECORD, 2, after, marks=slow),
        pytest.param("store", RECORD, 3, before, marks=slow),
    ],
)
def test_given_back_after_a_kill(start: Start, server: str, request_: str, number: int, when: When) -> None:
    """The repetition does it, wherever the load was killed: also on its way to give them back."""
    ingestion = loading(start)
    getattr(ingestion, server).on(request_, number, when(ingestion.kills))
    assert ingestion.run() == signal.SIGKILL
    ingestion.check(ingestion.done())
    assert ingestion.settings() == BEFORE
    ingestion.check_nothing_to_do()
    assert ingestion.settings() == BEFORE


@slow
def test_the_last_of_two_loads_gives_them_back(start: Start) -> None:
    """The first to end leaves the other its settings."""
    one, other = loading(start), loading(start, "other")
    seen = list[dict[str, Any]]()

    def run_the_other() -> None:
        other.check(other.done())
        seen.append(one.settings())

    one.node.on(BULK, 3, first(run_the_other))
    one.check(one.done())
    assert (seen, one.settings()) == ([DURING], BEFORE)


@slow
def test_a_load_that_begins_while_another_gives_them_back(start: Start) -> None:
    """It does not take the settings of a load for those of the index, nor lose the account of them."""
    one, other = loading(start), loading(start, "other")
    runs, may_go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: other.check(other.done()))

    def holds(exchange: Exchange) -> None:
        runs.set()
        assert may_go_on.wait(WAIT_S)
        passes(exchange)

    def begin_the_other() -> None:
        thread.start()
        assert runs.wait(WAIT_S)

    other.node.on(BULK, 1, holds)
    one.node.on(SETTINGS, 2, afterwards(begin_the_other))
    one.check(one.done())
    may_go_on.set()
    thread.join()
    assert one.settings() == BEFORE


@slow
def test_settings_of_an_index_made_anew_are_left_alone(start: Start) -> None:
    """They are those of another index, whatever its name."""
    ingestion = loading(start, max_in_flight=1)

    def make_anew() -> None:
        ingestion.lab.node("DELETE", ingestion.index)
        ingestion.lab.node("PUT", ingestion.index, {"settings": {"index": {"refresh_interval": "9s"}}})

    ingestion.node.on(BULK, 3, first(make_anew))
    assert "was deleted while it was being written" in ingestion.failed().text
    assert ingestion.settings()["refresh_interval"] == "9s"
