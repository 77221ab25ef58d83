"""Polls batch jobs for all waits of a process, a few at a time: thousands of waits must not flood an AI service.

Each poll asks for one job (docs/decisions/010). A poll that still queues at its deadline takes a lane of its own, so
that a deadline is exact however many polls queue before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from opensearch_batch.core.errors import RemoteError
from opensearch_batch.core.jobs.contract import ServiceAdapter, explain
from opensearch_batch.core.opensearch.ml_commons import MLCommons

# An AI service throttles status calls at a few a second, and the process's threads are few.
MAX_POLLS, POLLS_PER_S = 4, 6.0

RemoteStatus = dict[str, Any]


class StatusPoller:
    """Runs polls in threads: at most `max_polls` at once, one more at a deadline, and `polls_per_s` in all.

    Args:
        clock: epoch seconds.
    """

    def __init__(
        self,
        *,
        max_polls: int = MAX_POLLS,
        polls_per_s: float = POLLS_PER_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lane, self._deadline_lane = asyncio.Semaphore(max_polls), asyncio.Semaphore(1)
        self._start = asyncio.Lock()
        self._spacing_s = 1 / polls_per_s
        self._clock = clock

    async def poll(
        self, ask: Callable[[], RemoteStatus], *, poll_at: float, deadline_at: float | None = None
    ) -> RemoteStatus:
        """Return, or raise, what `ask` does; it is called in a thread when the poll is due and its turn has come.

        Args:
            ask: asks for the job.
            poll_at: when the poll is due, in epoch seconds.
            deadline_at: epoch seconds from which the poll does not queue behind others, None for never.
        """
        await asyncio.sleep(max(0.0, poll_at - self._clock()))
        lane = await self._enter(deadline_at)
        try:
            async with self._start:
                await asyncio.sleep(self._spacing_s)
            return await asyncio.to_thread(ask)
        finally:
            lane.release()

    async def _enter(self, deadline_at: float | None) -> asyncio.Semaphore:
        """Wait for a turn; return the lane that it is in."""
        try:
            async with asyncio.timeout(None if deadline_at is None else deadline_at - self._clock()):
                await self._lane.acquire()
        except TimeoutError:
            await self._deadline_lane.acquire()
            return self._deadline_lane
        return self._lane


def remote_status(ml: MLCommons, ml_task_id: str, adapter: ServiceAdapter) -> RemoteStatus:
    """Return what an AI service reports of a job; ML Commons calls the service for it.

    Raises:
        NotFound: ML Commons does not know the task, or cannot load its model.
        Throttled, RetriableError, ConfigError: by the error codes of the service.
    """
    try:
        return ml.task(ml_task_id).get("remote_job") or {}
    except RemoteError as error:
        raise explain(adapter, error) from error
