"""Many jobs are looked at with few calls; no end is missed, none is believed that the service does not confirm."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opensearchpy import OpenSearch

from opensearch_batch.core.errors import BatchError, NotFound, RetriableError, Throttled
from opensearch_batch.core.jobs.status_poller import (
    ASKED_A_TICK,
    ASKED_AT_ONCE,
    OLD,
    QUEUE_AT_MOST,
    SOON,
    PollRequest,
    RemoteStatus,
    StatusPoller,
    due,
    plan,
)
from opensearch_batch.core.jobs.status_poller import together as wanted_together
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons, StoredTask
from opensearch_batch.services.registry import adapter_of

SAGEMAKER = adapter_of("sagemaker")
NOW = 1_000_000.0
EVERY_S = 100.0
RUNNING, COMPLETED = {"TransformJobStatus": "InProgress"}, {"TransformJobStatus": "Completed"}


class Node(ThreadingHTTPServer):
    """ML Commons' tasks as a node answers for them.

    `stored` is what a search finds, with each task's age in seconds; `told` what the service says when it is asked.
    `status` answers every search, `slow_s` delays each answer about one task.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stored: dict[str, tuple[RemoteStatus, float]] = {}
        self.told: dict[str, Any] = {}
        self.status, self.slow_s = 200, 0.0
        self.searches: list[int] = []
        self.asked: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def search(self, query: dict[str, Any]) -> tuple[int, Any]:
        """Find what is stored."""
        ids = query["query"]["ids"]["values"]
        self.searches.append(len(ids))
        if self.status != 200:
            return self.status, {"error": {"type": "refused", "reason": "not today"}}
        hits = [
            {"_id": name, "_source": {"remote_job": words, "last_update_time": int((NOW - run_version) * 1000)}}
            for name, (words, run_version) in self.stored.items()
            if name in ids
        ]
        return 200, {"hits": {"hits": hits[: query["size"]]}}

    def task(self, name: str) -> tuple[int, Any]:
        """Ask the service."""
        with self._lock:
            self.asked.append(name)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.slow_s)
        with self._lock:
            self._at_once -= 1
        if name not in self.told:
            return 404, {"error": {"type": "status_exception", "reason": "Failed to find task"}}
        found = self.told[name]
        return found if isinstance(found, tuple) else (200, {"state": "RUNNING", "remote_job": found})


class _Handler(BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        self._say(*self.server.task(self.path.rpartition("/")[2]))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._say(*self.server.search(json.loads(body)))

    def _say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that answers what it is told."""
    server = Node()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Clock:
    """Time that passes when somebody sleeps, and stands still otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let time pass; others have their turn."""
        self.now += seconds
        await asyncio.sleep(0.001)


def lookout(node: Node, clock: Clock | None = None) -> StatusPoller:
    """Make the lookout of a node."""
    clock = clock or Clock()
    client = OpenSearch(f"http://127.0.0.1:{node.server_port}", max_retries=0, pool_maxsize=16)
    ml = MLCommons(Cluster(client, "scripted"))
    return StatusPoller(lambda: ml, clock=clock, sleep=clock.sleep)


def want(task_id: str, **changes: Any) -> PollRequest:
    """Make a look that is due."""
    return PollRequest(**{"task_id": task_id, "adapter": SAGEMAKER, "look_at": NOW, "every_s": EVERY_S, **changes})


def together(node: Node, *wants: PollRequest) -> list[RemoteStatus | BatchError]:
    """Look for all at once."""

    async def all_of_them() -> list[RemoteStatus | BatchError]:
        common = lookout(node)
        return await asyncio.gather(*(common.look(one) for one in wants))

    return asyncio.run(all_of_them())


wants = st.lists(
    st.builds(
        want,
        st.sampled_from([f"t{number}" for number in range(12)]),
        look_at=st.floats(NOW - 500, NOW + 500),
        every_s=st.sampled_from([2.0, 30.0, 300.0]),
        exact_from=st.none() | st.floats(NOW - 500, NOW + 500),
    ),
    unique_by=lambda one: one.task_id,
)
storeds = st.dictionaries(
    st.sampled_from([f"t{number}" for number in range(12)]),
    st.builds(
        StoredTask,
        remote_job=st.sampled_from([{}, RUNNING, COMPLETED, {"TransformJobStatus": "incomplete"}]),
        updated_at=st.floats(NOW - 1000, NOW),
        is_away=st.booleans(),
    ),
)


@given(wants)
def test_nobody_is_looked_for_before_a_look_is_due(found: list[PollRequest]) -> None:
    """Then all are taken whose look is due, or would be in the next quarter of its interval."""
    taken = due(found, now=NOW)
    assert bool(taken) == any(one.look_at <= NOW for one in found)
    if taken:
        assert taken == [one for one in found if one.look_at <= NOW + SOON * one.every_s]


@given(wants, storeds, st.integers(0, 12))
def test_each_look_is_answered_asked_or_left(
    found: list[PollRequest], stored: dict[str, StoredTask], room: int
) -> None:
    """News is always asked for; what is fresh and running never; of the rest the oldest, as many as there is room."""
    decided = plan(found, stored, now=NOW, room=room)
    every = [*decided.known, *decided.first, *decided.old, *decided.left]
    assert sorted(every) == sorted(one.task_id for one in found)
    for one in found:
        there = stored.get(one.task_id)
        exact = one.exact_from is not None and one.exact_from <= NOW
        is_news = there is None or exact or there.remote_job == COMPLETED
        assert (one.task_id in decided.first) == is_news
        if there is not None and not is_news:
            is_old = there.is_away or NOW - there.updated_at >= OLD * one.every_s
            assert (one.task_id in decided.known) == (not is_old)
    assert len(decided.old) <= room
    assert not decided.left or len(decided.old) == room
    ages = [NOW - stored[task_id].updated_at for task_id in decided.old + decided.left]
    assert ages == sorted(ages, reverse=True)


@given(st.lists(st.floats(0.0, 1.0), min_size=1))
def test_what_an_own_look_brought_is_old_at_the_next(jitters: list[float]) -> None:
    """Also when the next look is taken along too soon: so nobody waits for two intervals."""
    for jitter in jitters:
        soonest = EVERY_S * (0.9 + 0.2 * jitter) - SOON * EVERY_S
        decided = plan([want("t")], {"t": StoredTask(RUNNING, NOW - soonest - 1e-6)}, now=NOW, room=1)
        assert decided.old == ["t"]


def test_of_those_who_want_the_same_job_the_most_impatient_decides() -> None:
    """The earliest look, the shortest interval, the first deadline."""
    asked = [want("t", exact_from=NOW + 9), want("t", look_at=NOW - 5), want("t", every_s=7.0, exact_from=NOW + 3)]
    assert wanted_together(asked) == want("t", look_at=NOW - 5, every_s=7.0, exact_from=NOW + 3)


def test_fresh_jobs_cost_one_search_a_thousand_and_no_question(node: Node) -> None:
    """What is stored is the answer for each."""
    names = [f"t{number}" for number in range(1500)]
    node.stored = {name: ({**RUNNING, "name": name}, 10.0) for name in names}
    found = together(node, *map(want, names))
    assert [one["name"] for one in found if isinstance(one, dict)] == names
    assert (node.searches, node.asked) == ([1000, 500], [])


def test_an_end_is_confirmed_by_the_service(node: Node) -> None:
    """What is stored may be half of the words, or wrong; what the service says now counts."""
    node.stored = {"ended": (COMPLETED, 10.0), "not": (COMPLETED, 10.0), "running": (RUNNING, 10.0)}
    node.told = {"ended": {**COMPLETED, "all": "words"}, "not": RUNNING}
    found = together(node, want("ended"), want("not"), want("running"))
    assert found == [{**COMPLETED, "all": "words"}, RUNNING, RUNNING]
    assert (node.searches, sorted(node.asked)) == ([3], ["ended", "not"])


def test_old_words_are_asked_for_anew_the_oldest_first_and_few_at_once(node: Node) -> None:
    """ML Commons does not come round to all."""
    names = [f"t{number:02d}" for number in range(12)]
    node.stored = {name: (RUNNING, 80.0 + number) for number, name in enumerate(names)}
    node.told, node.slow_s = dict.fromkeys(names, RUNNING), 0.02
    assert together(node, *map(want, names)) == [RUNNING] * 12
    assert node.asked[0] in names[-ASKED_AT_ONCE:]
    assert sorted(node.asked) == names
    assert node.most_at_once == ASKED_AT_ONCE
    assert sum(node.searches) == 12


def test_a_fast_service_is_asked_so_often_a_tick_and_no_more(node: Node) -> None:
    """Four at a time would be hundreds a second, where answers come at once."""
    names = [f"t{number:02d}" for number in range(3 * ASKED_A_TICK)]
    node.stored = dict.fromkeys(names, (RUNNING, 80.0))
    node.told = dict.fromkeys(names, RUNNING)
    asked: list[int] = []

    class Tick(Clock):
        async def sleep(self, seconds: float) -> None:
            """Let time pass when no more is asked."""
            await super().sleep(seconds)
            before = -1
            while len(node.asked) != before:
                before = len(node.asked)
                await asyncio.sleep(0.2)
            asked.append(before)

    async def all_of_them() -> None:
        common = lookout(node, Tick())
        await asyncio.gather(*(common.look(want(name)) for name in names))

    asyncio.run(all_of_them())
    assert asked[:2] == [ASKED_A_TICK, 2 * ASKED_A_TICK]


def test_more_old_ones_than_the_queue_holds_are_searched_for_again(node: Node) -> None:
    """Meanwhile ML Commons may have come round to them: then they are not asked for."""
    names = [f"t{number:03d}" for number in range(QUEUE_AT_MOST + 5)]
    node.stored = {name: (RUNNING, 90.0 - number / 100) for number, name in enumerate(names)}
    node.told = dict.fromkeys(names, RUNNING)
    late = names[QUEUE_AT_MOST:]

    async def all_of_them() -> list[RemoteStatus | BatchError]:
        common = lookout(node)
        looks = [asyncio.create_task(common.look(want(name))) for name in names]
        while not node.searches:  # noqa: ASYNC110 - the node lives in another thread
            await asyncio.sleep(0.001)
        node.stored |= {name: ({**RUNNING, "by": "ML Commons"}, -EVERY_S) for name in late}
        return await asyncio.gather(*looks)

    found = asyncio.run(all_of_them())
    assert sorted(node.asked) == names[:QUEUE_AT_MOST]
    assert found[QUEUE_AT_MOST:] == [{**RUNNING, "by": "ML Commons"}] * 5


def test_two_who_wait_for_one_job_share_one_question(node: Node) -> None:
    """Both get the same answer."""
    node.stored, node.told = {"t": (RUNNING, 80.0)}, {"t": COMPLETED}
    assert together(node, want("t"), want("t", every_s=EVERY_S / 2)) == [COMPLETED, COMPLETED]
    assert (node.searches, node.asked) == ([1], ["t"])


def test_after_the_deadline_only_the_services_own_words_count(node: Node) -> None:
    """However fresh the stored ones are."""
    node.stored, node.told = {"t": (RUNNING, 0.0)}, {"t": COMPLETED}
    assert together(node, want("t", exact_from=NOW)) == [COMPLETED]


def test_while_ml_commons_gets_no_answer_its_words_are_old(node: Node) -> None:
    """It writes the time of each failed attempt."""
    node.stored, node.told = {"t": ({**RUNNING, "num_of_retries": 3}, 0.0)}, {"t": RUNNING}
    assert together(node, want("t")) == [RUNNING]
    assert node.asked == ["t"]


def test_a_task_that_is_gone_is_missed_by_who_waits_for_it_alone(node: Node) -> None:
    """It may be too new for a search, so it is asked for."""
    node.stored, node.told = {"there": (RUNNING, 10.0)}, {"new": RUNNING}
    found = together(node, want("there"), want("gone"), want("new"))
    assert [found[0], found[2]] == [RUNNING, RUNNING]
    assert isinstance(found[1], NotFound)
    assert sorted(node.asked) == ["gone", "new"]


def test_a_cluster_that_is_away_is_an_error_for_each_and_the_next_look_works(node: Node) -> None:
    """The error is a value, so that each decides how long it bears it."""
    node.stored, node.status = {"a": (RUNNING, 0.0), "b": (RUNNING, 0.0)}, 503

    async def twice() -> tuple[Any, Any]:
        common = lookout(node)
        first = await asyncio.gather(common.look(want("a")), common.look(want("b")))
        node.status = 200
        return first, await common.look(want("a"))

    first, second = asyncio.run(twice())
    assert [type(error) for error in first] == [RetriableError, RetriableError]
    assert (second, node.asked) == (RUNNING, [])


def test_whom_the_search_is_closed_to_asks_after_each(node: Node) -> None:
    """The user may lack a permission that the submission does not need."""
    node.stored, node.told, node.status = {"t": (RUNNING, 0.0)}, {"t": RUNNING}, 403
    assert together(node, want("t")) == [RUNNING]
    assert node.asked == ["t"]


def test_a_service_that_says_not_now_is_told_from_one_that_refuses(node: Node) -> None:
    """By the codes of its adapter."""
    said = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"})
    node.told = {"t": (400, {"error": {"reason": f"Error from remote service: {said}"}})}
    (found,) = together(node, want("t"))
    assert isinstance(found, Throttled)


def test_words_that_cannot_be_read_disturb_nobody_else(node: Node) -> None:
    """Whoever waits for that job reads them alone."""
    node.stored = {"odd": ({"status": "expired", "output_file_id": "f", "request_counts": 7}, 0.0), "t": (RUNNING, 0.0)}
    node.told = {"odd": {"status": "in_progress"}}
    found = together(node, want("odd", adapter=adapter_of("openai")), want("t"))
    assert (found, node.asked) == ([{"status": "in_progress"}, RUNNING], ["odd"])


def test_a_clock_that_is_ahead_makes_no_words_look_fresh(node: Node) -> None:
    """The node lives an hour ahead: what it wrote last was just now, and all else is older than that."""
    node.stored = {"now": (RUNNING, -3600.0), "before": (RUNNING, 80.0 - 3600.0)}
    node.told = {"before": RUNNING}
    together(node, want("now"), want("before"))
    assert node.asked == ["before"]


def test_a_wait_that_is_cancelled_is_forgotten(node: Node) -> None:
    """Nothing is asked for nobody, and the one beside it is looked for."""
    node.stored = {"a": (RUNNING, 0.0), "b": (RUNNING, 0.0)}

    async def one_leaves() -> RemoteStatus | BatchError:
        common = lookout(node)
        gone = asyncio.create_task(common.look(want("a", look_at=NOW + 5)))
        stays = asyncio.create_task(common.look(want("b", look_at=NOW + 50)))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(one_leaves()) == RUNNING
    assert node.searches == [1]


def test_a_mistake_ends_all_waits_in_place_of_hanging_them() -> None:
    """A lookout that dies unseen would hold thousands of tasks for ever."""

    def broken() -> MLCommons:
        raise ZeroDivisionError

    async def both() -> list[Any]:
        clock = Clock()
        common = StatusPoller(broken, clock=clock, sleep=clock.sleep)
        looks = (common.look(want("a")), common.look(want("b", look_at=NOW + 1e6)))
        return list(await asyncio.gather(*looks, return_exceptions=True))

    assert [type(error) for error in asyncio.run(both())] == [ZeroDivisionError, ZeroDivisionError]
