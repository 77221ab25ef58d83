"""Blocking calls have threads of their own, and no more than these."""

from __future__ import annotations

import asyncio
import threading

import pytest
from anyio.to_thread import current_default_thread_limiter

from opensearch_batch.ui.admission import Lane
from opensearch_batch.ui.responses import ApiError
from tests.waiting import WAIT_S


def test_calls_take_no_thread_that_others_need() -> None:
    """Heartbeats of tasks are served by the threads that all apps share; a lane is free again after its calls."""

    async def use() -> None:
        lane, begun, go_on = Lane(2), threading.Semaphore(0), threading.Event()

        def block() -> str:
            begun.release()
            assert go_on.wait(WAIT_S)
            return "done"

        calls = [asyncio.create_task(lane.run(block)) for _ in range(2)]
        for _ in calls:
            await asyncio.to_thread(begun.acquire)
        assert current_default_thread_limiter().borrowed_tokens == 0
        with pytest.raises(ApiError, match="already runs 2 requests of this kind") as refused:
            await lane.run(block)
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        go_on.set()
        assert await asyncio.gather(*calls) == ["done"] * 2
        assert await lane.run(block) == "done"

    asyncio.run(use())


def test_a_call_that_fails_frees_its_place() -> None:
    """As one that succeeds."""

    def fail(text: str) -> None:
        raise ValueError(text)

    async def use() -> None:
        lane = Lane(1)
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                await lane.run(fail, text="broken")

    asyncio.run(use())
