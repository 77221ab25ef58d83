"""Each wait gets the status of its own job, or its own error; few polls run at once, and none misses its deadline."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RetriableError, Throttled
from opensearch_batch.core.jobs.status_poller import MAX_POLLS, RemoteStatus, StatusPoller, remote_status
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.services.registry import adapter_of
from tests.scripted import Answer, Scripted
from tests.waiting import WAIT_S

RUNNING = {"TransformJobStatus": "InProgress"}
FAST = 10_000.0


class Service:
    """Answers each poll after `slow_s` seconds; it keeps when each began, and how many ran at once."""

    def __init__(self, slow_s: float = 0.0) -> None:
        self.slow_s = slow_s
        self.began: list[float] = []
        self.most_at_once = self.at_once = 0
        self._lock = threading.Lock()

    def __call__(self) -> RemoteStatus:
        """Answer a poll."""
        with self._lock:
            self.began.append(time.time())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.slow_s)
        with self._lock:
            self.at_once -= 1
        return RUNNING


def all_of(*waits: Coroutine[Any, Any, RemoteStatus]) -> list[RemoteStatus | BaseException]:
    """Run waits together, and return what each got."""

    async def together() -> list[RemoteStatus | BaseException]:
        return await asyncio.gather(*waits, return_exceptions=True)

    return asyncio.run(together())


def test_a_poll_runs_when_it_is_due() -> None:
    """Not before, and at once if it was due before."""
    ask, poller, now = Service(), StatusPoller(polls_per_s=FAST), time.time()
    assert all_of(*(poller.poll(ask, poll_at=now + after_s) for after_s in (-5.0, 0.3))) == [RUNNING] * 2
    assert ask.began[0] < now + 0.3 <= ask.began[1] < now + WAIT_S


def test_two_thousand_waits_poll_a_few_at_a_time() -> None:
    """They take few threads, and all are answered."""
    ask, poller, threads = Service(slow_s=0.005), StatusPoller(polls_per_s=FAST), threading.active_count()
    assert all_of(*(poller.poll(ask, poll_at=0.0) for _ in range(2_000))) == [RUNNING] * 2_000
    assert ask.most_at_once == MAX_POLLS
    assert threading.active_count() <= threads + MAX_POLLS


def test_a_fast_service_gets_so_many_polls_a_second() -> None:
    """Four at a time would be hundreds a second, where answers come at once."""
    ask, poller = Service(), StatusPoller(polls_per_s=20.0)
    all_of(*(poller.poll(ask, poll_at=0.0) for _ in range(11)))
    assert ask.began[-1] - ask.began[0] >= 10 / 20.0 * 0.9


def test_polls_take_their_turns_in_order() -> None:
    """No wait starves."""
    order: list[int] = []

    def ask(number: int) -> RemoteStatus:
        order.append(number)
        return RUNNING

    poller = StatusPoller(max_polls=1, polls_per_s=FAST)
    all_of(*(poller.poll(lambda number=number: ask(number), poll_at=0.0) for number in range(50)))  # type: ignore[misc]
    assert order == list(range(50))


@pytest.mark.parametrize("deadline_s", [-1.0, 0.0, 0.3])
def test_a_poll_at_its_deadline_does_not_queue(deadline_s: float) -> None:
    """Also where the deadline passes while it queues; one more thread at most is taken."""
    others, urgent, poller, now = Service(slow_s=0.2), Service(), StatusPoller(polls_per_s=FAST), time.time()
    waits = [poller.poll(others, poll_at=0.0) for _ in range(10 * MAX_POLLS)]
    all_of(*waits, *(poller.poll(urgent, poll_at=0.0, deadline_at=now + deadline_s) for _ in range(3)))
    assert max(0.0, deadline_s) <= urgent.began[-1] - now < others.began[-1] - now
    assert (urgent.most_at_once, others.most_at_once) == (1, MAX_POLLS)


def test_a_poll_whose_turn_comes_before_its_deadline_does_not_wait_for_it() -> None:
    """The deadline is no poll time."""
    ask, poller, now = Service(), StatusPoller(polls_per_s=FAST), time.time()
    assert all_of(poller.poll(ask, poll_at=0.0, deadline_at=now + 2 * WAIT_S)) == [RUNNING]
    assert ask.began[0] - now < WAIT_S


@pytest.mark.parametrize("error", [NotFound("gone"), RetriableError("away"), ZeroDivisionError()])
def test_an_error_is_that_of_its_own_wait(error: Exception) -> None:
    """Others get their status, and the next poll of the same job has its turn."""
    rounds = 2 * MAX_POLLS
    asked = iter(range(rounds))

    def ask() -> RemoteStatus:
        if next(asked) < rounds - 1:
            raise error
        return RUNNING

    async def again() -> list[list[RemoteStatus | BaseException]]:
        poller = StatusPoller(polls_per_s=FAST)
        both = (ask, Service())
        return [
            await asyncio.gather(*(poller.poll(each, poll_at=0.0) for each in both), return_exceptions=True)
            for _ in range(rounds)
        ]

    *failed, last = asyncio.run(again())
    assert failed == [[error, RUNNING]] * (rounds - 1)
    assert last == [RUNNING, RUNNING]


def test_a_wait_that_is_cancelled_polls_no_more_and_leaves_its_turn() -> None:
    """Whether it waits until it is due, queues, or is being answered."""
    gone, others = Service(), Service(slow_s=0.1)

    async def some_leave() -> list[RemoteStatus]:
        poller = StatusPoller(max_polls=1, polls_per_s=FAST)
        answered = asyncio.create_task(poller.poll(others, poll_at=0.0))
        queueing = asyncio.create_task(poller.poll(gone, poll_at=0.0))
        not_due = asyncio.create_task(poller.poll(gone, poll_at=time.time() + 0.2))
        stay = [asyncio.create_task(poller.poll(others, poll_at=0.0)) for _ in range(3)]
        while not others.began:  # noqa: ASYNC110 - the service lives in another thread
            await asyncio.sleep(0.001)
        for each in (answered, queueing, not_due):
            each.cancel()
        return await asyncio.gather(*stay)

    assert asyncio.run(some_leave()) == [RUNNING] * 3
    assert (len(others.began), gone.began) == (4, [])


@pytest.fixture
def node() -> Iterator[Scripted]:
    """A node that answers what it is told."""
    server = Scripted()
    yield server
    server.close()


def refusal(code: str) -> Answer:
    """Return what ML Commons answers when SageMaker refuses."""
    reason = json.dumps({"__type": code, "message": "no"})
    return 400, {"error": {"reason": f"Error from remote service: {reason}"}}


def test_what_the_service_reports_stands_in_the_task(node: Scripted) -> None:
    """A task that has nothing of it yet is an empty status, which counts as running."""
    node.answers = [(200, {"state": "RUNNING", "remote_job": RUNNING}), (200, {"state": "CREATED"})]
    ml, adapter = MLCommons(node.cluster), adapter_of("sagemaker")
    assert [remote_status(ml, "t", adapter) for _ in range(2)] == [RUNNING, {}]
    assert adapter.job_status({}).state == "RUNNING"


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((404, {"error": {"type": "status_exception", "reason": "Failed to find task"}}), NotFound, "find task"),
        ((503, {"error": {"reason": "not today"}}), RetriableError, "not today"),
        (None, RetriableError, "does not answer"),
        (refusal("ThrottlingException"), Throttled, "ThrottlingException"),
        (refusal("ValidationException"), ConfigError, "ValidationException"),
    ],
)
def test_an_error_is_explained_by_the_codes_of_the_service(
    node: Scripted, answer: Answer, kind: type[BatchError], message: str
) -> None:
    """A task that is gone, a cluster that is away, and a service that throttles or refuses are told apart."""
    node.answers = [answer]
    with pytest.raises(BatchError, match=message) as caught:
        remote_status(MLCommons(node.cluster), "t", adapter_of("sagemaker"))
    assert type(caught.value) is kind
