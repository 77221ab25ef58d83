"""Events of open pages: who listens hears of a change once; streams are few and short, and share one poll."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import anyio
import pytest
import requests
import uvicorn

from opensearch_batch.ui.live import Feeds
from opensearch_batch.ui.page_services import PageError
from opensearch_batch.ui.pages import PREFIX
from tests.pages.site import DAG_ID, Browser, Site, store_run, token_of
from tests.waiting import WAIT_S, eventually


class Page:
    """A page whose signature a test changes; it counts the polls."""

    def __init__(self) -> None:
        self.signature = "a"
        self.polls = 0
        self.is_broken = False

    def read(self) -> str:
        """Return the signature."""
        self.polls += 1
        if self.is_broken:
            raise OSError("away")
        return self.signature


async def started(stream: AsyncIterator[str]) -> AsyncIterator[str]:
    """Begin a stream, which first says when to reconnect."""
    assert await anext(stream) == "retry: 2000\n\n"
    return stream


def event(signature: str) -> str:
    """Return the event of a change."""
    return f"event: changed\nid: {signature}\ndata:\n\n"


def test_all_viewers_of_a_page_share_one_poll_and_hear_of_a_change() -> None:
    """One that has seen it hears nothing; one that could not read it hears of the next."""

    async def scenario() -> None:
        feeds, page, limiter = Feeds(every_s=0.01, life_s=60), Page(), anyio.CapacityLimiter(1)
        old, new, other = [
            await started(feeds.open("p", page.read, since=since, limiter=limiter)) for since in ("", "a", "a")
        ]
        assert await anext(old) == event("a")
        page.is_broken = True
        polls = page.polls
        await asyncio.to_thread(eventually, lambda: page.polls >= polls + 3, "three polls that fail")
        page.is_broken, page.signature = False, "b"
        assert [await anext(stream) for stream in (old, new, other)] == [event("b")] * 3
        for stream in (old, new, other):
            await stream.aclose()  # type: ignore[attr-defined] # it is a generator
        await asyncio.sleep(0.05)
        polls = page.polls
        await asyncio.sleep(0.05)
        assert page.polls == polls

    asyncio.run(scenario())


def test_streams_end_and_are_few() -> None:
    """A browser opens a new one; an api-server that stops does not wait for long."""

    async def scenario() -> None:
        feeds, page, limiter = Feeds(every_s=0.01, life_s=0.1, most=2), Page(), anyio.CapacityLimiter(1)
        streams = [await started(feeds.open("p", page.read, since="a", limiter=limiter)) for _ in range(2)]
        with pytest.raises(PageError, match="2 pages are open already"):
            feeds.open("p", page.read, since="a", limiter=limiter)
        for stream in streams:
            assert [each async for each in stream] == []
        await started(feeds.open("p", page.read, since="a", limiter=limiter))

    asyncio.run(scenario())


def test_who_leaves_frees_his_stream(site: Site) -> None:
    """Behind a real server and Airflow's middleware, the poll ends with its last viewer."""
    store_run("r1", "running")
    feeds = site.pages.state.feeds = Feeds(every_s=0.01, life_s=60)
    server = uvicorn.Server(uvicorn.Config(site.root, port=0, log_level="error", lifespan="off"))
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    eventually(lambda: server.started, "the server starts")
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}{PREFIX}/pipelines/{DAG_ID}/runs/r1/events?since=0"
    headers = {"Authorization": f"Bearer {token_of('viewer')}"}
    with requests.get(url, headers=headers, stream=True, timeout=WAIT_S) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(3)] == [b"retry: 2000", b"", b"event: changed"]
        assert feeds.streams == 1
    eventually(lambda: not feeds.streams, "the stream ends")
    server.should_exit = True
    serving.join()


@pytest.mark.parametrize("path", ["/events", f"/pipelines/{DAG_ID}/events", f"/pipelines/{DAG_ID}/runs/r1/events"])
def test_a_page_that_is_out_of_date_is_told(site: Site, path: str) -> None:
    """The stream has no data, so it needs no more permissions than the page."""
    store_run("r1", "running")
    site.pages.state.feeds = Feeds(every_s=0.01, life_s=0.5)
    response = Browser(site, "viewer").get(path, since="0" * 32)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    retry, changed, rest = response.text.split("\n\n")
    assert (retry, changed.startswith("event: changed\nid: "), rest) == ("retry: 2000", True, "")
    seen = changed.splitlines()[1].removeprefix("id: ")
    page = path.removesuffix("events").rstrip("/") or "/"
    assert f"since={seen}" in Browser(site, "viewer").page(page)
    assert Browser(site, "viewer").get(path, since=seen).text == "retry: 2000\n\n"
