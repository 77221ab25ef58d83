"""A node that is stopped and started during an ingest: what it confirmed is there, the rest is sent again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.local_stack import processes
from include.local_stack.stack import Stack, StackOptions
from include.local_stack.state import StateFile
from tests.faults.ingestion import BULK, Ingestion, one_source
from tests.faults.proxy import first
from tests.lab import Lab
from tests.stored import present

Restart = Callable[[], threading.Thread]


@pytest.fixture
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Restart]]:
    """A node and a store of the test's own, and how to end the node and bring it back."""
    home: Path = tmp_path_factory.mktemp("restart")
    services = frozenset({"opensearch", "s3"})
    options = StackOptions(home=home, services=services, free_ports=True, opensearch_version=lab.version)
    own = Lab(Stack.up(options), lab.version)

    def restart() -> threading.Thread:
        state = present(StateFile(home).read())
        processes.stop(state.processes["opensearch"])
        thread = threading.Thread(target=lambda: Stack.up(options))
        thread.start()
        return thread

    try:
        yield own, restart
    finally:
        own.close()
        own.stack.down()


@pytest.mark.slow
def test_a_node_that_restarts(stack: tuple[Lab, Restart]) -> None:
    """The ingest waits for it and loses nothing."""
    lab, restart = stack
    lab.s3.create_bucket(Bucket="inputs")
    ingestion = Ingestion(lab, "inputs", "restarted", one_source())
    restarts = list[threading.Thread]()
    ingestion.node.on(BULK, 5, first(lambda: restarts.append(restart())))
    report = ingestion.done()
    restarts[0].join()
    ingestion.check(report)
    assert len(ingestion.documents()) == len(ingestion.shape.documents)
    ingestion.close()
