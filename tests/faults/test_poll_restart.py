"""A cluster that is stopped and started while jobs wait: no wait ends for it, and each ends as its job did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.local_stack import processes
from include.local_stack.stack import Stack, StackOptions
from include.local_stack.state import StateFile
from tests.faults.waits import Wait, ended
from tests.lab import MODEL, Lab
from tests.stored import present

JOBS, DELAY_S = 4, 20.0


@pytest.fixture
def own(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Callable[[], None]]]:
    """A stack of the test's own without Airflow, and how to stop its node and start it again."""
    home: Path = tmp_path_factory.mktemp("poll-restart")
    services = frozenset({"opensearch", "s3", "ai_services"})
    options = StackOptions(home=home, services=services, free_ports=True, opensearch_version=lab.version)
    running = Lab(Stack.up(options), lab.version)

    def restart() -> None:
        state = present(StateFile(home).read())
        processes.stop(state.processes["opensearch"])
        Stack.up(options)

    try:
        running.sagemaker.create_model(ModelName=MODEL)
        yield running, restart
    finally:
        running.close()
        running.stack.down()


@pytest.mark.slow
def test_a_cluster_that_restarts_ends_no_wait(
    own: tuple[Lab, Callable[[], None]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The jobs end while it is away; each log says that it was."""
    lab, restart = own
    waits = [Wait(lab, monkeypatch, seconds=DELAY_S) for _ in range(JOBS)]

    async def all_of_them() -> list[tuple[bool, dict[str, object]]]:
        looks = [asyncio.create_task(ended(wait.trigger())) for wait in waits]
        await asyncio.sleep(2)
        await asyncio.to_thread(restart)
        return list(await asyncio.gather(*looks))

    found = asyncio.run(all_of_them())
    assert [(succeeds, result["state"]) for succeeds, result in found] == [(True, "COMPLETED")] * JOBS
    assert [wait.recorded_end().state for wait in waits] == ["COMPLETED"] * JOBS
    assert "does not answer" in "".join(capfd.readouterr())
