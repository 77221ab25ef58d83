"""Of many jobs that are waited for, only those are asked after one by one of which nobody else has news.

ML Commons asks the AI services by itself (since 2.19: every minute, a hundred jobs) and stores their words. One search
reads them for all jobs whose look is due. A task is asked after on its own, which calls the AI service, when the stored
words show an end, when they have grown old, and when only the service's own words will do. Where nobody refreshes
them, they are old at each look.

What to do with whom is decided by `due` and `plan` on plain values; `StatusPoller` does the I/O.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeAlias

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, RemoteError
from opensearch_batch.core.jobs.contract import ServiceAdapter, explain
from opensearch_batch.core.jobs.poll_policy import JITTER
from opensearch_batch.core.opensearch.ml_commons import MLCommons, StoredTask

# A look is taken along so much of its interval too soon, when another look is due.
SOON = 0.25
# So what a look of ours brought is always old at the next one.
OLD = 1 - JITTER - SOON
TICK_S = 1.0
# An AI service's own limits are near, and the process's threads are few.
ASKED_AT_ONCE, ASKED_A_TICK = 4, 6
# More old ones than that do not queue: a later search may show that they were refreshed.
QUEUE_AT_MOST = 60

RemoteStatus = dict[str, Any]
_Answer: TypeAlias = "asyncio.Future[RemoteStatus | BatchError]"


class PollRequest(msgspec.Struct, frozen=True):
    """A look that somebody wants at a job.

    Args:
        task_id: its ML Commons task.
        adapter: that of the AI service.
        look_at: when, in epoch seconds.
        every_s: the interval of looks at this job now, in seconds.
        exact_from: epoch seconds from which only the service's own words will do, None for never.
    """

    task_id: str
    adapter: ServiceAdapter
    look_at: float
    every_s: float
    exact_from: float | None = None


class Plan(msgspec.Struct, frozen=True):
    """What to do with the jobs looked at, by task id.

    known: the stored words do. first: to be asked after, because there seems to be news. old: to be asked after,
    because the words are old, those with the oldest first. left: old as well, and for a later look.
    """

    known: list[str] = []
    first: list[str] = []
    old: list[str] = []
    left: list[str] = []


def together(wants: Collection[PollRequest]) -> PollRequest:
    """Return what those who want a look at the same job want together: the most impatient of each."""
    first = min(wants, key=lambda want: want.look_at)
    exact = [want.exact_from for want in wants if want.exact_from is not None]
    every_s = min(want.every_s for want in wants)
    return msgspec.structs.replace(first, every_s=every_s, exact_from=min(exact, default=None))


def due(wants: Iterable[PollRequest], *, now: float) -> list[PollRequest]:
    """Return the looks to take now: none unless one is due; then also those that are due soon."""
    wants = list(wants)
    if not any(want.look_at <= now for want in wants):
        return []
    return [want for want in wants if want.look_at - SOON * want.every_s <= now]


def plan(wants: Iterable[PollRequest], stored: dict[str, StoredTask], *, now: float, room: int) -> Plan:
    """Decide what to do with looks that are due.

    Args:
        wants: the looks, one a job.
        stored: what ML Commons keeps of the jobs; a job may be missing there.
        now: epoch seconds, by the clock of ML Commons.
        room: how many jobs with old words may be asked after.
    """
    known, first, old = [], [], []
    for want in wants:
        found = stored.get(want.task_id)
        if found is None or _is_exact(want, now) or _shows_end(want, found):
            first.append(want.task_id)
        elif found.is_away or now - found.updated_at >= OLD * want.every_s:
            old.append((found.updated_at, want.task_id))
        else:
            known.append(want.task_id)
    oldest = [task_id for _, task_id in sorted(old)]
    return Plan(known, first, oldest[:room], oldest[room:])


def _is_exact(want: PollRequest, now: float) -> bool:
    return want.exact_from is not None and now >= want.exact_from


def _shows_end(want: PollRequest, found: StoredTask) -> bool:
    try:
        return want.adapter.job_status(found.remote_job).state != "RUNNING"
    except Exception:  # noqa: BLE001 - words that nobody can read are news too, and stop nobody else's look
        return True


class StatusPoller:
    """Looks at the jobs of one cluster for all who wait for them in one process.

    Args:
        ml: returns the cluster's ML Commons; called in a thread, before each request.
        clock: epoch seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        ml: Callable[[], MLCommons],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ml = ml
        self._clock = clock
        self._sleep = sleep
        self._wants: dict[str, dict[_Answer, PollRequest]] = {}
        self._first: deque[str] = deque()
        self._old: deque[str] = deque()
        self._asks: dict[str, asyncio.Task[None]] = {}
        self._room_to_ask = 0
        self._ahead_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def look(self, want: PollRequest) -> RemoteStatus | BatchError:
        """Wait until the look is taken; return the service's words, or why there are none.

        An error is returned and not raised, because all who wait for the job get the same one.
        """
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._wants.setdefault(want.task_id, {})[answer] = want
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_looking())
        try:
            return await answer
        finally:
            self._forget(want.task_id, answer)

    async def _keep_looking(self) -> None:
        """Look once a tick, until nobody wants anything."""
        try:
            while self._wants:
                await self._look()
                self._room_to_ask = ASKED_A_TICK
                self._ask_on()
                await self._sleep(TICK_S)
        except Exception as error:  # noqa: BLE001 - without it, a mistake here would leave all of them waiting for ever
            for task_id in list(self._wants):
                self._break(task_id, error)

    async def _look(self) -> None:
        asked = {*self._first, *self._old, *self._asks}
        wants = {task_id: together(given.values()) for task_id, given in self._wants.items() if task_id not in asked}
        looks = due(wants.values(), now=self._clock())
        if not looks:
            return
        try:
            stored = await asyncio.to_thread(self._stored, [want.task_id for want in looks])
        except BatchError as error:
            for want in looks:
                self._answer(want.task_id, error)
            return
        self._follow(plan(looks, stored, now=self._now(stored), room=QUEUE_AT_MOST - len(self._old)), stored)

    def _stored(self, task_ids: list[str]) -> dict[str, StoredTask]:
        try:
            return self._ml().stored(task_ids)
        except ConfigError:
            # Whom the search is closed to may ask after each; if that is refused too, each says so.
            return {}

    def _now(self, stored: dict[str, StoredTask]) -> float:
        """Return the time by the cluster's clock, as far as is known: nothing was stored in its future."""
        now = self._clock()
        self._ahead_s = max([self._ahead_s, *(found.updated_at - now for found in stored.values())])
        return now + self._ahead_s

    def _follow(self, decided: Plan, stored: dict[str, StoredTask]) -> None:
        for task_id in decided.known:
            self._answer(task_id, stored[task_id].remote_job)
        self._first.extend(decided.first)
        self._old.extend(decided.old)
        for task_id in decided.left:
            given = self._wants.get(task_id, {})
            for answer, want in list(given.items()):
                given[answer] = msgspec.structs.replace(want, look_at=self._clock() + want.every_s)

    def _ask_on(self) -> None:
        """Begin to ask after the next ones."""
        while (queue := self._first or self._old) and len(self._asks) < ASKED_AT_ONCE and self._room_to_ask:
            task_id = queue.popleft()
            if task_id in self._wants:
                self._room_to_ask -= 1
                self._asks[task_id] = asyncio.create_task(self._ask(task_id))

    async def _ask(self, task_id: str) -> None:
        try:
            self._answer(task_id, await asyncio.to_thread(self._task_of, task_id))
        except RemoteError as error:
            for answer, want in self._taken(task_id):
                answer.set_result(explain(want.adapter, error))
        except BatchError as error:
            self._answer(task_id, error)
        except Exception as error:  # noqa: BLE001 - as in _keep_looking
            self._break(task_id, error)
        finally:
            del self._asks[task_id]
            self._ask_on()

    def _task_of(self, task_id: str) -> RemoteStatus:
        return self._ml().task(task_id).get("remote_job") or {}

    def _answer(self, task_id: str, found: RemoteStatus | BatchError) -> None:
        for answer, _ in self._taken(task_id):
            answer.set_result(found)

    def _break(self, task_id: str, error: Exception) -> None:
        for answer, _ in self._taken(task_id):
            answer.set_exception(error)

    def _taken(self, task_id: str) -> list[tuple[_Answer, PollRequest]]:
        """Return who wants a look at a job, and want it no more; those whose wait was cancelled are left out."""
        given = self._wants.pop(task_id, {})
        return [(answer, want) for answer, want in given.items() if not answer.done()]

    def _forget(self, task_id: str, answer: _Answer) -> None:
        given = self._wants.get(task_id, {})
        given.pop(answer, None)
        if not given:
            self._wants.pop(task_id, None)
