"""Polls batch jobs for all waits of a process, a few at a time, so that thousands of waits do not flood an AI service.

Each poll requests the status of one job (docs/decisions/010). Polls queue for a few lanes. A poll that is still queued
at its deadline uses a separate lane, so it runs on time even if many polls are queued before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from opensearch_batch.core.errors import RemoteError
from opensearch_batch.core.jobs.contract import ServiceAdapter, explain
from opensearch_batch.core.opensearch.ml_commons import MLCommons

# An AI service throttles status calls above a few per second, and a process has few threads.
MAX_POLLS, POLLS_PER_S = 4, 6.0
# Airflow's supervisor (3.3.2) does not read logs while it sends triggers to the triggerer. When about 280 triggers
# logged two lines each at once, both processes deadlocked. At this rate, it takes minutes to fill the log socket.
LOG_EVERY_S, LINES_PER_S = 60.0, 5.0

RemoteStatus = dict[str, Any]


class StatusPoller:
    """Runs polls in threads: at most `max_polls` at once, plus one at its deadline; starts at most `polls_per_s`."""

    def __init__(
        self,
        *,
        max_polls: int = MAX_POLLS,
        polls_per_s: float = POLLS_PER_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lane, self._deadline_lane = asyncio.Semaphore(max_polls), asyncio.Semaphore(1)
        self._start, self._log = asyncio.Lock(), asyncio.Lock()
        self._spacing_s = 1 / polls_per_s
        self._clock = clock

    async def poll(
        self, fetch: Callable[[], RemoteStatus], *, poll_at: float, deadline_at: float | None = None
    ) -> RemoteStatus:
        """Call `fetch` in a thread when the poll is due and a lane is free; return its result.

        From `deadline_at` on, the poll uses the separate lane.
        """
        await asyncio.sleep(max(0.0, poll_at - self._clock()))
        lane = await self._enter(deadline_at)
        try:
            async with self._start:
                await asyncio.sleep(self._spacing_s)
            return await asyncio.to_thread(fetch)
        finally:
            lane.release()

    async def log_turn(self) -> None:
        """Sleep until a wait may log its next line: a minute, or longer if many waits log."""
        await asyncio.sleep(LOG_EVERY_S)
        async with self._log:
            await asyncio.sleep(1 / LINES_PER_S)

    async def _enter(self, deadline_at: float | None) -> asyncio.Semaphore:
        """Wait for a free lane and return it."""
        try:
            async with asyncio.timeout(None if deadline_at is None else deadline_at - self._clock()):
                await self._lane.acquire()
        except TimeoutError:
            await self._deadline_lane.acquire()
            return self._deadline_lane
        return self._lane


def remote_status(ml: MLCommons, ml_task_id: str, adapter: ServiceAdapter) -> RemoteStatus:
    """Return the status that ML Commons requests from the service; raise NotFound, or what `explain` returns."""
    try:
        return ml.task(ml_task_id).get("remote_job") or {}
    except RemoteError as error:
        raise explain(adapter, error) from error
