"""A worker that is killed or stalls at a step of a submission: the next attempt finds what was paid, or pays once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from opensearch_batch.core.jobs.submission import INTENT_GRACE_S, MLCommonsSubmitter
from opensearch_batch.core.types.job import Accepted, JobRecord
from tests.conformance.shard_flow import ShardFlow
from tests.faults.submit_worker import MOMENTS, PAYING, Task, submit_and_die
from tests.lab import Lab
from tests.waiting import eventually

FULL, OTHERS = "openai", ("sagemaker", "bedrock", "cohere")
EVERY = [FULL, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
DONE_BEFORE = {"recorded": "reattach", "paid": "recover", PAYING: "recover"}
Start = Callable[[str], ShardFlow]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("moment", [*MOMENTS, PAYING])
def test_killed_at_each_step(lab: Lab, start_flow: Start, name: str, moment: str) -> None:
    """One job is paid in all, and it completes."""
    flow = start_flow(name)
    shard = flow.prepare()
    task = Task(lab.stack.home, lab.version, name, flow.bucket, flow.index, shard, moment)
    assert submit_and_die(task) == signal.SIGKILL
    if moment == PAYING:
        # What ML Commons has begun it ends, though nobody waits for the answer.
        eventually(lambda: flow.paid() == 1, "the paid call")
    paid_before = flow.paid()
    decision, record = flow.submit(shard, later_s=INTENT_GRACE_S)
    if moment in DONE_BEFORE:
        assert (decision, paid_before) == (DONE_BEFORE[moment], 1)
    else:
        assert paid_before == 0
    ended = flow.wait(shard, record) if record.end is None else record
    assert ended.end is not None
    assert (ended.end.state, flow.paid()) == ("COMPLETED", 1)


@pytest.mark.parametrize("name", EVERY)
def test_a_call_that_is_late_pays_nothing(start_flow: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Another attempt took over the intent and paid, while the call was on its way: both get the same job."""
    flow = start_flow(name)
    shard, submit = flow.prepare(), MLCommonsSubmitter.submit
    others: list[JobRecord] = []

    def late(through: MLCommonsSubmitter, record: JobRecord) -> Accepted:
        monkeypatch.setattr(MLCommonsSubmitter, "submit", submit)
        others.append(flow.submit(shard, later_s=INTENT_GRACE_S)[1])
        return submit(through, record)

    monkeypatch.setattr(MLCommonsSubmitter, "submit", late)
    record = flow.submit(shard)[1]
    assert (others, flow.paid()) == ([record], 1)
    ended = flow.wait(shard, record)
    assert ended.end is not None
    assert ended.end.state == "COMPLETED"
