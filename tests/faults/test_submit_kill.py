"""A worker that is killed at each step of a submission: the next attempt finds what was paid, or pays once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from opensearch_batch.core.jobs.submission import INTENT_GRACE_S
from tests.conformance.road import CompiledPipeline
from tests.faults.submit_worker import MOMENTS, PAYING, Task, submit_and_die
from tests.lab import Lab
from tests.waiting import WAIT_S

FULL, OTHERS = "openai", ("sagemaker", "bedrock", "cohere")
EVERY = [FULL, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
# What ML Commons has begun it ends, though nobody waits for the answer.
CALL_S = 10.0
DONE_BEFORE = {"recorded": "reattach", "paid": "recover"}
Start = Callable[[str], CompiledPipeline]


@pytest.fixture
def start(lab: Lab, index: str) -> Iterator[Start]:
    """Lay out a road; Bedrock takes small jobs for once."""
    quotas = f"{lab.stack.addresses.ai_services}/quotas"
    lab.http.put(quotas, json={"bedrock_min_records": 1}, timeout=WAIT_S).raise_for_status()
    roads: list[CompiledPipeline] = []

    def lay_out(name: str) -> CompiledPipeline:
        roads.append(CompiledPipeline(lab, name, lab.new_bucket(), index))
        return roads[-1]

    yield lay_out
    for road in roads:
        road.close()
    lab.http.put(quotas, json={}, timeout=WAIT_S).raise_for_status()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("moment", [*MOMENTS, PAYING])
def test_killed_at_each_step(lab: Lab, start: Start, name: str, moment: str) -> None:
    """One job is paid in all, and it completes."""
    road = start(name)
    shard = road.prepare()
    task = Task(lab.stack.home, lab.version, name, road.bucket, road.index, shard, moment)
    assert submit_and_die(task) == signal.SIGKILL
    if moment == PAYING:
        time.sleep(CALL_S)
    paid_before = road.paid()
    decision, record = road.submit(shard, later_s=INTENT_GRACE_S)
    if moment in DONE_BEFORE:
        assert (decision, paid_before) == (DONE_BEFORE[moment], 1)
    elif moment != PAYING:
        assert paid_before == 0
    ended = road.wait(shard, record) if record.end is None else record
    assert ended.end is not None
    assert (ended.end.state, road.paid()) == ("COMPLETED", 1)
