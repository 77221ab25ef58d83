"""The local S3: of several conditional writes of one version, one succeeds."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.test import EnvironBuilder, run_wsgi_app

from include.local_stack.s3_server import OneWriter
from tests.core.aws import aws
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WRITERS = 8


class Slow:
    """An application that takes a moment, and knows how many requests it served at once."""

    def __init__(self, at_once: int) -> None:
        self.most = 0
        self.bodies: list[bytes] = []
        self._now = 0
        self._together = threading.Barrier(at_once)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._now += 1
        self.most = max(self.most, self._now)
        self._together.wait(timeout=WAIT_S)
        time.sleep(0.05)
        self.bodies.append(environ["wsgi.input"].read())
        self._now -= 1
        start_response("200 OK", [])
        return []


def requests(application: OneWriter, method: str) -> None:
    """Send eight requests at once."""

    def send(number: int) -> None:
        environ = EnvironBuilder(method=method, input_stream=io.BytesIO(b"%d" % number), content_length=1).get_environ()
        run_wsgi_app(application, environ)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_request_at_a_time_writes() -> None:
    """Each with its own body."""
    for method in ("PUT", "POST", "DELETE"):
        slow = Slow(at_once=1)
        requests(OneWriter(slow), method)
        assert (slow.most, sorted(slow.bodies)) == (1, [b"%d" % number for number in range(WRITERS)])


def test_reads_wait_for_nobody() -> None:
    """Each waits in the application until all eight are there."""
    slow = Slow(at_once=WRITERS)
    requests(OneWriter(slow), "GET")
    assert slow.most == WRITERS


def test_a_listing_is_that_of_moto() -> None:
    """After each write and delete; with prefixes, pages and positions."""
    with aws("s3") as client:
        client.create_bucket(Bucket="listed")

        def listed(**how: Any) -> list[str]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket="listed", **how)
            return [item["Key"] for page in pages for item in page.get("Contents", ())]

        for name in ("b/2", "a/1", "b/1", "b", "c/1", "b/3"):
            client.put_object(Bucket="listed", Key=name, Body=b"")
        assert listed(Prefix="b/") == ["b/1", "b/2", "b/3"]
        assert listed(Prefix="b/", PaginationConfig={"PageSize": 1}) == ["b/1", "b/2", "b/3"]
        assert listed(Prefix="b/", StartAfter="b/1") == ["b/2", "b/3"]
        assert listed(Prefix="d") == []
        client.delete_object(Bucket="listed", Key="b/2")
        client.put_object(Bucket="listed", Key="b/0", Body=b"")
        assert listed(Prefix="b") == ["b", "b/0", "b/1", "b/3"]
        assert listed() == ["a/1", "b", "b/0", "b/1", "b/3", "c/1"]
