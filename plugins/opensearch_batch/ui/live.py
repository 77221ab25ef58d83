"""Events for open pages: an event of a stream means that the page is out of date, and the page requests itself again.

So each refresh is a request with its own permissions, and a stream carries no data. All viewers of a page share one
poll. The number of streams and the life of each are bounded; a browser opens a new one and names the last event that
it has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from opensearch_batch.ui.page_services import DagId, PageError, RunId, Visit, Visiting
from opensearch_batch.ui.rendering import PAGE_HEADERS
from opensearch_batch.ui.run_pages import list_signature, listed_pipelines, read_run

router = APIRouter()
POLL_EVERY_S, MAX_STREAMS = 3.0, 100
# An api-server that stops waits for its streams, so they are short.
LIFE_S = 25.0
Since = Annotated[str, Query(max_length=64, pattern="^[0-9a-f]*$")]


class _Feed:
    """The newest signature of one page, polled while somebody listens."""

    def __init__(self) -> None:
        self.listeners = 0
        self.signature = ""
        self.changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def next_after(self, seen: str, *, until: float) -> str:
        """Wait for a signature other than `seen` and return it; return ``""`` at `until`, a time of the event loop."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until), self.changed:
                await self.changed.wait_for(lambda: self.signature not in ("", seen))
                return self.signature
        return ""

    async def poll(self, read_signature: Callable[[], str], limiter: anyio.CapacityLimiter, every_s: float) -> None:
        """Read the signature every `every_s` seconds."""
        while True:
            # The next poll repeats a read that fails; the page itself shows the error.
            with suppress(Exception):
                signature = await anyio.to_thread.run_sync(read_signature, limiter=limiter)
                async with self.changed:
                    self.signature = signature
                    self.changed.notify_all()
            await asyncio.sleep(every_s)


class Feeds:
    """The feeds of an app, and its number of `streams`; used in its event loop only."""

    def __init__(self, *, every_s: float = POLL_EVERY_S, life_s: float = LIFE_S, most: int = MAX_STREAMS) -> None:
        self._every_s, self._life_s, self._most = every_s, life_s, most
        self._feeds: dict[Hashable, _Feed] = {}
        self.streams = 0

    def open(
        self, key: Hashable, read_signature: Callable[[], str], *, since: str, limiter: anyio.CapacityLimiter
    ) -> AsyncIterator[str]:
        """Return a stream of events; raise PageError (503) if the maximum number of streams is open."""
        if self.streams >= self._most:
            raise PageError(HTTPStatus.SERVICE_UNAVAILABLE, f"{self._most} pages are open already; reload to refresh.")
        return self._events(key, read_signature, since, limiter)

    async def _events(
        self, key: Hashable, read_signature: Callable[[], str], since: str, limiter: anyio.CapacityLimiter
    ) -> AsyncIterator[str]:
        feed = self._feeds.setdefault(key, _Feed())
        self.streams += 1
        feed.listeners += 1
        if feed.task is None:
            feed.task = asyncio.create_task(feed.poll(read_signature, limiter, self._every_s))
        try:
            yield "retry: 2000\n\n"
            ends_at = asyncio.get_running_loop().time() + self._life_s
            while newer := await feed.next_after(since, until=ends_at):
                since = newer
                yield f"event: changed\nid: {since}\ndata:\n\n"
        finally:
            self.streams -= 1
            feed.listeners -= 1
            if not feed.listeners:
                feed.task.cancel()
                self._feeds.pop(key, None)


def _stream(visit: Visit, key: Hashable, read_signature: Callable[[], str], since: str) -> Response:
    feeds: Feeds = visit.request.app.state.feeds
    seen = visit.request.headers.get("last-event-id", since)
    events = feeds.open(key, read_signature, since=seen, limiter=visit.services.limiter)
    return StreamingResponse(events, headers=PAGE_HEADERS | {"X-Accel-Buffering": "no"}, media_type="text/event-stream")


@router.get("/events")
async def list_events(visit: Visiting, page: Annotated[int, Query(ge=1, le=100)] = 1, since: Since = "") -> Response:
    """Send an event when a run of one of the listed pipelines begins or ends."""
    shown, _ = await visit.run(listed_pipelines, visit, page)
    dag_ids = [each.dag_id for each in shown]
    return _stream(visit, tuple(dag_ids), partial(list_signature, visit.services, dag_ids), since)


@router.get("/pipelines/{dag_id}/events")
async def pipeline_events(visit: Visiting, dag_id: DagId, since: Since = "") -> Response:
    """Send an event when a run of a pipeline begins or ends."""
    await visit.run(visit.pipeline, dag_id)
    return _stream(visit, dag_id, partial(list_signature, visit.services, [dag_id]), since)


@router.get("/pipelines/{dag_id}/runs/{run_id}/events")
async def run_events(visit: Visiting, dag_id: DagId, run_id: RunId, since: Since = "") -> Response:
    """Send an event when a run has made progress."""
    listed, services = await visit.run(visit.pipeline_of_run, dag_id, run_id), visit.services
    return _stream(visit, (dag_id, run_id), lambda: read_run(services, listed, run_id).signature, since)
